"""r2-lossy: a bad network on purpose.

    lossy   the tool
    faults  the model: what becomes of each datagram
    faulty  the model between descriptors
    relay   the same for UDP
"""

"""r2-lossy: an emulator of bad networks.

    lossy      the tool
    model      what becomes of each datagram or piece of a stream
    line       the model between descriptors
    udp_relay  a line for each sender of UDP
"""

"""A protocol link, and an end of a tunnel, on descriptors.  Shared by the daemon and its clients.

    driver             reads, writes and timers of a link
    lossy_driver       the same over ARQ
    turns              turns of the loop for busy links
    opening            the first bytes of a transport: packets or not, chatter of a command
    endpoint           an end of a stream on a channel
    datagram_endpoint  an end of a tunnel of datagrams
    fd_relay           descriptors that are passed beside messages
"""

"""Links and tunnel endpoints on descriptors.  Shared by the daemon and its clients.

    driver             reads, writes and timers of a link
    lossy_driver       the same over ARQ
    turns              turn scheduler: shares the loop's time among links
    opening            first bytes of a transport: detects ARQ, separates messages of a command
    endpoint           tunnel endpoint: a stream on a channel
    datagram_endpoint  the same for datagrams; copier for datagrams
    fd_relay           descriptors beside messages, or streams in their place
"""

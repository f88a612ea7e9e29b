"""ARQ: a reliable, ordered byte stream over a transport that loses, reorders, repeats or damages packets.

    packet      self-synchronising packets with a checksum
    congestion  congestion control and pacing
    receiver    reassembly and selective acknowledgement
    sender      transmission and retransmission
    connection  sender and receiver together
    preamble    where a link begins in what a command writes first
"""

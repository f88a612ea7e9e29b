"""ARQ: a reliable, ordered byte stream over a transport that loses, reorders, duplicates or corrupts packets.

    packet      self-synchronizing packets with a checksum
    congestion  congestion control and pacing
    receiver    reassembly and selective acknowledgement
    sender      transmission and retransmission
    connection  sender and receiver together
    preamble    the start of a link in the output of a command
"""

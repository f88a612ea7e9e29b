"""Bytes <-> values: frames, messages and what they carry.  Each encode_x has its decode_x.

    frames         frames: type, route, length, payload; varints and fields
    address        addresses and paths
    route          the rule of the protocol, and messages that obey it
    messages       requests, answers and events, as a table
    outcome        how a tunnel ended
    job_states     states of links, services and forwards
    advertisement  what neighbours announce of the network
    datagrams      datagram boundaries in a stream of bytes
"""

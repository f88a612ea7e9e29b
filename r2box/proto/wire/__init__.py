"""Bytes <-> values: frames, messages and what they carry.  Each encode_x has its decode_x.

    fields         varints, and structured payloads as tagged fields
    frames         frames: type, route, length, payload
    address        addresses and paths
    route          the routing rule, and messages
    messages       requests, answers and events
    outcome        how a tunnel ended
    job_states     states of links, services and forwards
    advertisement  the nodes that a neighbour reaches
    datagrams      datagram boundaries in a stream of bytes
"""

"""The library: tunnels and services as sockets, and a whole node in a program of your own.

    session  dial, serve, ls, ping
    service  a service as an iterator of its tunnels
    node     an embedded node
    engine   the loop of an embedded node, and what other threads ask of it
"""

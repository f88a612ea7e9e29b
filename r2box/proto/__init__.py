"""The protocol, pure (sans-I/O): no descriptor, clock, randomness or logging.  Callers pass those in.

    limits    every limit on what neighbours and clients may cost, in one table
    wire/     bytes <-> values
    link/     one neighbour: handshake, resume, multiplexed streams, flow control
    arq/      a reliable byte stream over a transport that loses packets
    routing/  many neighbours: paths, advertisements, routes
"""

"""The protocol, pure (sans-I/O): no descriptor, clock, randomness or logging.  Callers supply those.

    limits        every limit on what neighbours and clients may cost, in one table
    memory_limit  memory that all links share
    wire/         bytes <-> values
    link/         one neighbour: handshake, resume, multiplexed streams, flow control
    arq/          a reliable byte stream over a lossy transport
    routing/      many neighbours: paths, advertisements, routes
"""

"""Descriptors, clocks, signals and processes: the protocol joined to the machine.

    io/         the selector loop, channels, processes, copying, log
    transport/  what carries a link or stands at the end of a tunnel: URLs, sockets, devices
    link/       a protocol link, and an end of a tunnel, on descriptors
    daemon/     the node: links, clients, services and tunnels
    client/     the other end of the control socket: requests, and jobs that are kept up
"""

"""Transports: a table of URLs, their parser, and the opening of sockets and devices.

    urls           the schemes and their options, as a table
    transport      TRANSPORT: the parser
    hints          the URL to suggest in an error
    sockets        dialling and listening
    connecting     one connection attempt
    eyeballs       Happy Eyeballs: concurrent attempts to all addresses of a name
    udp            a link for each sender of UDP
    devices        serial lines, terminals, descriptors, network interfaces
    socat          commands that carry or make links, such as socat
    sockaddr       socket addresses as text
    peer           the other side of a socket: address, process, user
    socket_file    the file of a UNIX socket: owner, mode, replacement
    policy_fields  policy of a link as options and as message fields
"""

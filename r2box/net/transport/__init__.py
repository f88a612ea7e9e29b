"""Transports: URLs as a table, their parsing, and how sockets and devices are opened.

    urls           the schemes and their options, as a table
    transport      TRANSPORT: parsing and opening
    hints          the URL that was probably meant
    sockets        dialling and listening
    connecting     one connection attempt
    eyeballs       Happy Eyeballs: attempts to all addresses of a name
    udp            a link for each sender of UDP
    devices        serial lines, terminals, descriptors, network interfaces
    socat          command lines that start links, such as socat's
    sockaddr       socket addresses as text
    peer           who is at the other side of a socket
    socket_file    the file of a UNIX socket: owner, mode, replacement
    policy_fields  policy of a link as options and as message fields
"""

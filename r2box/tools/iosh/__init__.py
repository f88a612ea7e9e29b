"""iosh and ioshd: a remote shell.

    iosh        the near end
    ioshd       the far end
    terminal    their protocol
    frames      both ends of it on descriptors
    heartbeat   whether the other end answers
    statusline  a line on the terminal while it does not
    screen      the bytes that draw that line
    usertty     raw mode, size and escape keys of the user's terminal
"""

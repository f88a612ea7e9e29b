"""iosh and ioshd: a remote shell.

    iosh        the near end
    ioshd       the far end
    protocol    frames and their codec
    connection  frames and streams on descriptors
    heartbeat   whether the other end answers
    statusline  a line on the terminal while it does not
    screen      the bytes that draw that line
    usertty     raw mode, size and escape keys of the user's terminal
"""

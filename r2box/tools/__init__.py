"""The tools: a module for each small one, a folder for each large one, with COMMAND and `main(args)` -> exit status.

    r2                               r2 and r2 ls
    r2d                              r2d
    manager                          r2dm
    connect, tunnel, serve, forward  r2-connect, r2-tunnel, r2-serve, r2-forward
    ssh                              r2-ssh
    map                              r2 map
    ping                             r2 ping, r2 trace
    watch                            r2 watch, r2 wait
    box                              r2box
    bench/                           r2 bench
    iosh/                            iosh, ioshd
    lossy/                           r2-lossy
    status/                          r2 status, r2 top
"""

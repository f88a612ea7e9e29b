"""r2 status and r2 top: what a node's links, tunnels and jobs do.

    status  r2 status
    top     r2 top
"""

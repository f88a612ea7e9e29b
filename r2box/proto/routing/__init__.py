"""Many neighbours: how a path is resolved, what is advertised, and which route is chosen.

    router          one node: links, clients, services, and how a path is resolved
    service_entry   one service of a node
    link_collision  two links to one neighbour: which one stays
    relay_queue     tunnels that are passed on a few at a time
    failover        a tunnel is opened by the next route when one fails
    discovery       what this node knows of the network and advertises
    adjacency       what one neighbour was sent and has announced
    route_table     routes to each node, and the best one
    flap_damping    unstable routes are advertised less often
    liveness        probes of a path
    measurement     the built-in service r2.bench
    replies         answers to LIST and NETWORK
"""

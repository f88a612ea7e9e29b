"""Many neighbours: path resolution, advertisements, and the choice of routes.

    router          one node: links, clients, services, and path resolution
    service_entry   one service of a node
    link_collision  two links to one neighbour: the choice of one
    relay_queue     pacing of the tunnels that a neighbour opens through this node
    failover        opening a tunnel by the next route when one fails
    discovery       the path-vector protocol: what this node learns and advertises
    adjacency       the routes sent to and learned from one neighbour
    route_table     routes to each node, and the best one
    flap_damping    delays for the advertisement of unstable routes
    liveness        probes of a path
    measurement     the built-in service r2.bench
    replies         answers to LIST and NETWORK
"""

"""What the tests share; no test module imports another.

    processes       the built file as processes: Box, Place, Program, eventually
    tunnels         two nodes, and tunnels with the test's own descriptors at one end
    tunnel_ends     both ends of a tunnel in a test's hands, whatever they are
    namespaces      network namespaces
    mesh, shapes    nodes in memory on a virtual clock, and networks by shape
    raw_neighbour   a neighbour of a node in the mesh, played frame by frame
    fake_neighbour  a neighbour that advertises whatever a test wants
    raw, raw_udp    the wire by hand, over real sockets
    frames          frames as bytes, whole, in slices and changed
    rehearsal       long runs, which `make rehearsal` starts
"""

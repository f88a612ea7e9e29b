"""The daemon: one node with its links, clients, services and tunnels.

    daemon            the node on the loop
    control_listener  the control socket
    clients           the programs on it
    switchboard       tunnels between clients, services and links
    starts            programs of services: queue and limits
    admission         which links stay: pending, suspended, memory
    trim              memory is given back to the system
    blackhole         routes that lead nowhere
    job_table         jobs that clients report
    status            STATUS: links, tunnels, jobs and clients
    systemd           readiness, watchdog and sockets of systemd
    privileges        change of user
"""

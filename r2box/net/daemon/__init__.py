"""The daemon: one node with its links, clients, services and tunnels.

    daemon            the node on the loop: links, requests of clients, shutdown
    control_listener  accepts clients on the control socket
    clients           local clients, and the tunnels that they opened
    switchboard       tunnels between clients, services and links
    starts            starts of service programs: queue and limits
    admission         limits on pending and suspended links, and on memory
    trim              returns free memory to the system
    blackhole         finds advertised routes that do not reach their node
    job_table         jobs that clients report
    status            status report: links, tunnels, jobs and clients
    systemd           readiness, watchdog and socket activation
    privileges        change of user
"""

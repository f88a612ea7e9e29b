"""Clients of the daemon: requests over the control socket, and the jobs that tools keep up.

    reach        finds the daemon
    client       requests and answers
    query        requests that are answered page by page
    job          state of a job, reported to the daemon
    link_job     a link
    reconnect    a link that is kept up
    service_job  a service
    start_pace   how many programs may be starting
    status_rows  a report of the daemon as rows
    forward_job  a tunnel for each connection
    udp_forward  a tunnel for each sender of datagrams
"""

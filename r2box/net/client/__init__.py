"""Clients of the daemon: requests over the control socket, and the jobs that tools keep up.

    reach        finds the daemon
    client       requests and answers
    query        requests that are answered page by page
    job          what jobs have in common: begin and end, reports, a connection to the daemon
    connector    one attempt at a link
    link_job     a link, made once or kept up
    service_job  a service
    forward_job  a tunnel for each connection
    udp_forward  a tunnel for each sender of datagrams
    job_run      the run of a tool that keeps jobs
    start_pace   how many programs may be starting
    status_rows  a report of the daemon as rows
"""

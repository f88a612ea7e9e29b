"""One neighbour: handshake, resume, keepalive, and streams multiplexed on one link with flow control.

    link           a link: frames in, frames out, state
    handshake      HELLO, READY, RESUME: how a link begins
    resume         replay buffer, and the proof of who may resume
    keepalive      when the neighbour is probed and when it counts as dead
    stream         one tunnel on one link: credit, half-close, reset
    stream_table   the streams of a link, their ids and their memory
    receive_limit  how much all streams of a link may receive together
    memory_limit   memory that all links share
    scheduler      what is sent next: control frames, then deficit round robin
    inflight       how many bytes may be in flight
    sender         numbered bytes: scheduler, in-flight limit and replay buffer together
    attachments    descriptors that arrive beside messages
    policy         what is advertised to whom, and who may connect
    token_bucket   rate limits
    owner          the interface of what a link reports to
"""

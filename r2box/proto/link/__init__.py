"""One neighbour: handshake, resume, keepalive, and streams multiplexed on one link with flow control.

    link           a link: frames in, frames out, state
    host           the interface of what a link reports to
    handshake      HELLO, READY, RESUME: how a link is established
    resume         the session secret, and the proof that resumes a session
    replay_buffer  bytes that are sent and not acknowledged
    keepalive      when the neighbour is probed, and when the link fails
    stream         one tunnel on one link: credit, half-close, reset
    stream_table   the streams of a link, their labels and their memory
    receive_limit  receive limit of the link, shared by its streams
    scheduler      what is sent next: control frames, then deficit round robin
    inflight       limit on the bytes in flight
    sender         numbered bytes: scheduler, in-flight limit and replay buffer together
    attachments    descriptors that accompany messages
    policy         what is advertised to which neighbour, and who may connect
    token_bucket   rate limits
"""

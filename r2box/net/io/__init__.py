"""The selector loop and what runs on it: channels, child processes, copying, signals, log.

    loop         descriptors, timers, signals and children, in one thread
    channel      a non-blocking stream of bytes over descriptors
    buffers      buffers for reading, reused
    reserve      descriptors in reserve for when the limit is reached
    process      child processes: start, terminate, wait, kill
    leash        ends child processes when this process was killed
    program      the descriptors 0 and 1 of a program that was started
    signals      signals of a tool, and of process 1
    shell        command lines as `sh -c` gets them
    words        shell lexer and quoting
    copier       copies bytes between descriptors
    stdio        hands over stdin and stdout
    socket_path  where the control socket is
    units        durations and sizes as text
    log          messages on stderr
"""

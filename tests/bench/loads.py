"""The programs at both ends of what is measured.  Run by path, with the standard library only.

    source BYTES BLOCK GATE        wait at GATE, then write BYTES in writes of BLOCK
    sink BYTES RESULT GATE [TIME]  open GATE, read to the end, or what comes in TIME seconds
    flood BLOCK                    write until nobody reads
    drain                          read to the end
    echo                           write what is read
    ping COUNT SIZE SECONDS RESULT send SIZE bytes and wait for them, COUNT times or for SECONDS
    listen PORT COMMAND...         run COMMAND on every connection to a port of 127.0.0.1
    dial PORT COMMAND...           become COMMAND on a connection to it
    pair NEAR FAR                  become NEAR on one end of a socketpair, with FAR on the other

What is measured is what lies between stdout of one and stdin of the other.  They are the same for every candidate, and
cost as little as Python can: no copy, no buffer, one system call for each block.

The clock of a transfer: a named pipe, the gate, is opened by both ends when they are ready.  The sink takes the time,
lets the source go, reads everything, and takes the time of the last byte.  So neither the start of any program nor
what a pipeline swallows before anybody reads counts, and the transfer is not over before all of it has arrived.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time


def write_all(data: memoryview) -> None:
    while data:
        data = data[os.write(1, data) :]


def report(path: str, result: object) -> None:
    """Written aside and renamed: the file is there when it is complete."""
    with open(path + ".part", "w", encoding="ascii") as file:
        json.dump(result, file)
    os.rename(path + ".part", path)


def source(total: int, block: int, gate: str) -> None:
    data = memoryview(os.urandom(min(block, 65536)) * -(-block // 65536))[:block]
    entrance = os.open(gate, os.O_RDONLY)
    if os.read(entrance, 1) != b"g":
        raise SystemExit("source: the sink went away before it had begun")
    os.close(entrance)
    for _ in range(total // block):
        done = os.write(1, data)
        if done < block:
            write_all(data[done:])
    write_all(data[: total % block])


def sink(total: int, result: str, gate: str, limit: float = 0.0) -> None:
    buffer = [bytearray(1 << 20)]
    exit_ = os.open(gate, os.O_WRONLY)
    start = last = time.monotonic()
    os.write(exit_, b"g")
    os.close(exit_)
    count = 0
    while count < total:
        if limit and not select.select([0], [], [], max(0.0, start + limit - time.monotonic()))[0]:
            return report(result, {"bytes": count, "seconds": limit})
        size = os.readv(0, buffer)
        if not size:
            break
        count += size
        last = time.monotonic()
    report(result, {"bytes": count, "seconds": last - start})
    os.readv(0, buffer)  # the end, so that nobody is left writing to a closed stream


def flood(block: int) -> None:
    data = memoryview(bytes(block))
    try:
        while True:
            write_all(data)
    except (BrokenPipeError, ConnectionError):
        pass


def drain() -> None:
    buffer = [bytearray(1 << 20)]
    while os.readv(0, buffer):
        pass


def echo() -> None:
    while True:
        data = os.read(0, 65536)
        if not data:
            return
        write_all(memoryview(data))


def ping(count: int, size: int, seconds: float, result: str) -> None:
    """The first twentieth is not counted: caches, and buffers that adapt, are cold."""
    data = memoryview(bytes(size))
    times: list[int] = []
    end = time.monotonic() + seconds
    while len(times) < count + count // 20 and (not times or time.monotonic() < end):
        start = time.perf_counter_ns()
        write_all(data)
        back = 0
        while back < size:
            got = len(os.read(0, 65536))
            if not got:
                raise SystemExit("ping: the other end has gone")
            back += got
        times.append(time.perf_counter_ns() - start)
    report(result, [nanoseconds / 1000 for nanoseconds in sorted(times[len(times) // 21 :])])


def on(sock: socket.socket, command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=sock.fileno(), stdout=sock.fileno())


def listen(port: int, command: list[str]) -> None:
    listener = socket.create_server(("127.0.0.1", port), backlog=128)
    running: list[subprocess.Popen[bytes]] = []
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock:
            running = [child for child in running if child.poll() is None] + [on(sock, command)]


def become(sock: socket.socket, command: list[str]) -> None:
    os.dup2(sock.fileno(), 0)
    os.dup2(sock.fileno(), 1)
    os.execvp(command[0], command)


def dial(port: int, command: list[str]) -> None:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    become(sock, command)


def pair(near: str, far: str) -> None:
    one, other = socket.socketpair()
    with other:
        on(other, [far])
    become(one, [near])


def main(name: str, *words: str) -> None:
    if name == "source":
        source(int(words[0]), int(words[1]), words[2])
    elif name == "sink":
        sink(int(words[0]), words[1], words[2], *map(float, words[3:]))
    elif name == "flood":
        flood(int(words[0]))
    elif name == "ping":
        ping(int(words[0]), int(words[1]), float(words[2]), words[3])
    elif name in ("listen", "dial"):
        {"listen": listen, "dial": dial}[name](int(words[0]), list(words[1:]))
    elif name == "pair":
        pair(words[0], words[1])
    else:
        {"drain": drain, "echo": echo}[name]()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Two nodes in one process, linked over TCP on this host, and tunnels from the one to the other.

    python two_nodes.py PORT
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterable

import r2box


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


def greet(tunnels: Iterable[tuple[socket.socket, str]]) -> None:
    """Say hello to who opened each tunnel, and what it said back to it."""
    for sock, origin in tunnels:
        with sock:
            sock.sendall(f"hello {origin.partition('/')[0]}: ".encode())
            sock.sendall(read_all(sock))


def main(port: str) -> None:
    with r2box.Node("alice") as alice, r2box.Node("bob") as bob:
        bob.connect(f"tcp-listen://127.0.0.1:{port}")
        print("linked to", alice.connect(f"tcp://127.0.0.1:{port}", retry=True).wait(timeout=10))
        bob.offer("upper", "tr a-z A-Z")  # a command
        threading.Thread(target=greet, args=(bob.serve("greet"),)).start()  # or sockets
        for service in ("bob/upper", "bob/greet"):
            with alice.dial(service, timeout=5) as sock:
                sock.sendall(b"who is there?")
                sock.shutdown(socket.SHUT_WR)
                print(read_all(sock).decode())
        print([entry.name for entry in alice.ls("bob")], alice.ping("bob") < 5)


if __name__ == "__main__":
    main(sys.argv[1])

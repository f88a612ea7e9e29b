"""http.server as a service: what is in the present directory, for who may open tunnels here.

    python web.py NAME
"""

from __future__ import annotations

import sys
import threading
from http.server import SimpleHTTPRequestHandler
from socket import socket

import r2box


class Handler(SimpleHTTPRequestHandler):
    """Stands on a tunnel instead of a connection; who is there is the origin."""

    def address_string(self) -> str:
        return str(self.client_address[0])


def handle(sock: socket, origin: str) -> None:
    with sock:
        Handler(sock, (origin, 0), None)  # type: ignore[arg-type]  # it asks its server for nothing


if __name__ == "__main__":
    tunnels = r2box.serve(sys.argv[1])
    print("serving", flush=True)
    for sock, origin in tunnels:
        threading.Thread(target=handle, args=(sock, origin), daemon=True).start()

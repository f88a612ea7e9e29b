"""A byte stream by Reticulum: a link over its TCP interface, and in it a channel with a stream each way.

    server HOME PORT IDENTITY FAR    run FAR for every link; IDENTITY is written when one may connect
    client HOME PORT IDENTITY NEAR   run NEAR on a link

Run by path.  HOME is the directory of the configuration, IDENTITY a file with the server's public key.
"""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import threading
import time
from typing import Any

RNS: Any = importlib.import_module("RNS")
raw: Any = importlib.import_module("RNS.Buffer")

CONFIG = """\
[reticulum]
enable_transport = No
share_instance = No
[logging]
loglevel = 1
[interfaces]
[[bench]]
type = {type}
enabled = yes
"""
SERVER = "listen_ip = 127.0.0.1\nlisten_port = {port}\n"
CLIENT = "target_host = 127.0.0.1\ntarget_port = {port}\n"
PAUSE = 0.001  # seconds before a full channel is asked again: it has no way to tell


def start(home: str, type_: str, interface: str) -> None:
    with open(os.path.join(home, "config"), "w", encoding="ascii") as file:
        file.write(CONFIG.format(type=type_) + interface)
    RNS.Reticulum(configdir=home, loglevel=1)


def carry(link: Any, sock: socket.socket) -> threading.Thread:
    """Both ways between the link and the socket; the thread ends when the socket's input does."""
    channel = link.get_channel()
    reader, writer = raw.RawChannelReader(0, channel), raw.RawChannelWriter(0, channel)

    order = threading.Lock()  # each call comes in a thread of its own

    def on_ready(count: int) -> None:
        with order:
            data = reader.read(count) if count else b""
            try:
                if data:
                    sock.sendall(data)
                elif data is not None:  # None: an earlier call has had it
                    sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # nobody reads any more

    def send() -> None:
        while True:
            data = sock.recv(16384)
            if not data:
                writer.close()
                return
            while data:
                done = writer.write(data)
                if not done:
                    time.sleep(PAUSE)
                data = data[done:]

    reader.add_ready_callback(on_ready)
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def run(link: Any, program: str) -> subprocess.Popen[bytes]:
    near, far = socket.socketpair()
    with far:
        child = subprocess.Popen([program], stdin=far.fileno(), stdout=far.fileno())
    carry(link, near)
    return child


def serve(home: str, port: str, path: str, far: str) -> None:
    start(home, "TCPServerInterface", SERVER.format(port=port))
    identity = RNS.Identity()
    destination = RNS.Destination(identity, RNS.Destination.IN, RNS.Destination.SINGLE, "bench", "far")
    destination.set_link_established_callback(lambda link: run(link, far))
    with open(path + ".part", "wb") as file:
        file.write(identity.get_public_key())
    os.rename(path + ".part", path)
    while True:
        destination.announce()
        time.sleep(1)


def call(home: str, port: str, path: str, near: str) -> None:
    start(home, "TCPClientInterface", CLIENT.format(port=port))
    identity = RNS.Identity(create_keys=False)
    with open(path, "rb") as file:
        identity.load_public_key(file.read())
    destination = RNS.Destination(identity, RNS.Destination.OUT, RNS.Destination.SINGLE, "bench", "far")
    while not RNS.Transport.has_path(destination.hash):
        time.sleep(0.05)
    link = RNS.Link(destination)
    while link.status != RNS.Link.ACTIVE:
        time.sleep(0.05)
    status = run(link, near).wait()
    link.teardown()
    os._exit(status)  # its threads do not end by themselves


if __name__ == "__main__":
    {"server": serve, "client": call}[sys.argv[1]](*sys.argv[2:])

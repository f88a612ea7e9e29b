"""A byte stream by Reticulum: a link over its TCP interface, and in it a channel with a stream each way.

    server HOME PORT IDENTITY FAR    run FAR for every link; IDENTITY is written when one may connect
    client HOME PORT IDENTITY NEAR   run NEAR on a link

And over UDP, so many bytes as one Resource, which is faster there than such a stream; the first sends, the second gives
up after SECONDS, and writes what has arrived to RESULT:

    sender HOME PORT IDENTITY BYTES
    receiver HOME PORT IDENTITY BYTES SECONDS RESULT

Run by path.  HOME is the directory of the configuration, IDENTITY a file with the server's public key.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

RNS: Any = importlib.import_module("RNS")
raw: Any = importlib.import_module("RNS.Buffer")
udp: Any = importlib.import_module("RNS.Interfaces.UDPInterface")

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
UDP = "listen_ip = 127.0.0.1\nlisten_port = {listen}\nforward_ip = 127.0.0.1\nforward_port = {port}\n"
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
    take_links(path, lambda link: run(link, far))


def take_links(path: str, callback: Callable[[Any], object]) -> None:
    identity = RNS.Identity()
    destination = RNS.Destination(identity, RNS.Destination.IN, RNS.Destination.SINGLE, "bench", "far")
    destination.set_link_established_callback(callback)
    with open(path + ".part", "wb") as file:
        file.write(identity.get_public_key())
    os.rename(path + ".part", path)
    while True:
        destination.announce()
        time.sleep(1)


def far_end(path: str) -> Any:
    identity = RNS.Identity(create_keys=False)
    with open(path, "rb") as file:
        identity.load_public_key(file.read())
    return RNS.Destination(identity, RNS.Destination.OUT, RNS.Destination.SINGLE, "bench", "far")


def call(home: str, port: str, path: str, near: str) -> None:
    start(home, "TCPClientInterface", CLIENT.format(port=port))
    destination = far_end(path)
    while not RNS.Transport.has_path(destination.hash):
        time.sleep(0.05)
    link = RNS.Link(destination)
    while link.status != RNS.Link.ACTIVE:
        time.sleep(0.05)
    status = run(link, near).wait()
    link.teardown()
    os._exit(status)  # its threads do not end by themselves


# -- over UDP ----------------------------------------------------------------------------------------------------------


def keep_port(peer: tuple[str, int] | None) -> None:
    """Its UDP interface sends each packet from a port of its own, which nobody can answer to.  Now it does so from the
    port at which it listens, to `peer` or whoever was the last to send something."""
    last = [peer]

    def handle(handler: Any) -> None:
        last[0] = handler.client_address
        handler.callback(handler.request[0])

    def send(interface: Any, data: bytes) -> None:
        if last[0]:
            interface.server.socket.sendto(data, last[0])
            interface.txb += len(data)

    udp.UDPInterfaceHandler.handle = handle
    udp.UDPInterface.process_outgoing = send


def send_resource(home: str, port: str, path: str, size: str) -> None:
    keep_port(None)
    start(home, "UDPInterface", UDP.format(listen=port, port=port))
    data = os.urandom(int(size))
    asked = set()

    def on_packet(link: Any) -> None:
        if link not in asked:  # it is asked until it has begun
            asked.add(link)
            RNS.Resource(data, link, auto_compress=False)

    take_links(path, lambda link: link.set_packet_callback(lambda message, packet: on_packet(link)))


def receive_resource(home: str, port: str, path: str, size: str, seconds: str, result: str) -> None:
    keep_port(("127.0.0.1", int(port)))
    start(home, "UDPInterface", UDP.format(listen=0, port=port))
    destination = far_end(path)
    while not RNS.Transport.has_path(destination.hash):
        RNS.Transport.request_path(destination.hash)
        time.sleep(0.5)
    link = RNS.Link(destination)
    while link.status != RNS.Link.ACTIVE:
        if link.status == RNS.Link.CLOSED:
            link = RNS.Link(destination)
        time.sleep(0.01)
    parts: list[Any] = []  # a Resource is sent in parts of about 1 MiB, each of which begins
    link.set_resource_strategy(RNS.Link.ACCEPT_ALL)
    link.set_resource_started_callback(parts.append)
    total, limit = int(size), float(seconds)
    begin = time.monotonic()
    asked, count, took = 0.0, 0, limit
    while time.monotonic() < begin + limit:
        if not parts and time.monotonic() > asked + 0.3:
            asked = time.monotonic()
            RNS.Packet(link, b"go").send()
        count = int(parts[-1].get_progress() * total) if parts else 0
        if parts and parts[-1].status == RNS.Resource.COMPLETE and parts[-1].segment_index == parts[-1].total_segments:
            count, took = total, time.monotonic() - begin
            break
        time.sleep(0.005)
    with open(result + ".part", "w", encoding="ascii") as file:
        json.dump({"bytes": count, "seconds": took}, file)
    os.rename(result + ".part", result)
    link.teardown()
    time.sleep(0.2)
    os._exit(0)


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {
        "server": serve,
        "client": call,
        "sender": send_resource,
        "receiver": receive_resource,
    }
    programs[sys.argv[1]](*sys.argv[2:])

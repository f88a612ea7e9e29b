"""A neighbour that says what it likes: a Link of the protocol, whose owner the test is.

In a mesh `join_liar` puts one beside a station.  Against real daemons a `Mouth` runs it: a thread with a loop of its
own, on a connection to an `r2 connect tcp-listen://…`.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from r2box.net.io.channel import Channel
from r2box.net.io.loop import Loop
from r2box.net.link.driver import LinkDriver
from r2box.net.link.turns import TurnGroup
from r2box.proto.limits import Limits
from r2box.proto.link.handshake import LocalPeer
from r2box.proto.link.link import Link
from r2box.proto.link.stream import Stream
from r2box.proto.wire import messages
from r2box.proto.wire.advertisement import IDENTITY, AdvertisedNode, NodeRecord, decode_reach, pack_reach
from r2box.proto.wire.frames import REACH
from r2box.proto.wire.outcome import Outcome
from r2box.proto.wire.route import Message
from support.mesh import Mesh, Port, Station, Wire


def identity_of(name: str) -> bytes:
    return name.encode()[:IDENTITY].ljust(IDENTITY, b"\0")


def claim(*path: str, cost: int = 0, services: Iterable[str] = ("echo",)) -> AdvertisedNode:
    """That the node at the end of `path` is reached; without a path, what the liar says of itself."""
    return AdvertisedNode(path, cost, NodeRecord(identity_of(path[-1] if path else "me"), tuple(services)))


class Liar:
    """The owner of `link`.  Tunnels that come are never answered, unless by `answer`; nor are messages, unless
    it `echoes`, or by `answers`."""

    limits = Limits()

    def __init__(self, address: str, now: float, wake: Callable[[Link], None]) -> None:
        self.me = LocalPeer(address, os.urandom(16), software="liar")
        self._wake = wake
        self.link = Link(self, self.me, now)
        self.answer: Outcome | None = None
        self.echoes = False
        self.answers: dict[int, Callable[[int], bytes]] = {}  # to what is asked, by its number
        self.is_up = threading.Event()
        self.reason: str | None = None  # why the link has ended
        self.opens: list[tuple[str, ...]] = []  # paths that tunnels came with
        self.frames = self.entries = 0  # that it was told
        self.told: dict[str, tuple[str, ...] | None] = {}  # by which path a node is reached; None: it is gone
        self._number = 0

    def tell(self, entries: Iterable[AdvertisedNode], flags: int = 0) -> int:
        """As many of these as a frame holds; how many that were."""
        payload, count = pack_reach(self._number, flags, entries)
        self._number += 1
        self.link.control(REACH, 0, payload)
        return count

    def say(self, payload: bytes) -> None:
        """A REACH frame with whatever bytes."""
        self.link.control(REACH, 0, payload)

    # -- what the link says (Owner) ------------------------------------------------------------------------------

    def link_hello(self, link: Link) -> None:
        link.accept()

    def link_up(self, link: Link) -> None:
        self.is_up.set()

    def link_down(self, link: Link, reason: str) -> None:
        self.reason = reason

    def link_suspended(self, link: Link, reason: str) -> None:
        return

    def link_resumed(self, link: Link, newcomer: Link) -> None:
        return

    def link_alive(self, link: Link) -> None:
        return

    def link_measured(self, link: Link) -> None:
        return

    def link_open(self, link: Link, stream: Stream, fields: dict[str, Any]) -> None:
        self.opens.append(fields["path"])
        if self.answer is not None:
            stream.close(self.answer)

    def link_message(self, link: Link, message: Message, descriptors: tuple[int, ...]) -> None:
        body = messages.decode_body(message.body)
        if body.kind in self.answers:
            origin = message.received_from(link.address).origin
            link.message(Message(origin[1:], (), self.answers[body.kind](body.id)))
        if self.echoes and body.kind == messages.PING:
            came = message.received_from(link.address)
            trail = tuple(reversed(message.path))  # as if it had been there
            answer = messages.encode_body(messages.PONG, body.id, data=body["data"])
            link.message(Message(came.origin[1:], trail, answer))

    def link_reach(self, link: Link, payload: Any) -> None:
        reach = decode_reach(payload)
        self.frames += 1
        self.entries += len(reach.entries)
        for entry in reach.entries:
            self.told[entry.path[-1] if entry.path else ""] = None if entry.cost is None else entry.path

    def link_wake(self, link: Link) -> None:
        self._wake(link)


def join_liar(
    mesh: Mesh, station: Station, address: str = "mallory", latency: float = 0.001, idle: bool = True
) -> Liar:
    """A liar at the other end of a wire from `station`; unless not `idle`, its link is up."""
    ports: dict[Link, Port] = {}

    def wake(link: Link) -> None:
        if link in ports:
            mesh.wake(ports[link])

    liar = Liar(address, mesh.now, wake)
    wire = Wire(mesh, latency=latency)
    wire.connect(Link(station.node, station.node.local_peer, mesh.now), station.ports)
    wire.connect(liar.link, ports)
    if idle:
        mesh.idle()
    return liar


class Mouth:
    """A Liar on a connection to the port of 127.0.0.1, in a thread; `do` is how others reach it."""

    def __init__(self, address: str, port: int) -> None:
        self.loop = Loop()
        self.loop.enable_post()
        self._driver: LinkDriver | None = None
        self.liar = Liar(address, self.loop.now(), self._wake)
        sock = socket.create_connection(("127.0.0.1", port), 5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel = Channel(sock.detach())
        self._driver = LinkDriver(TurnGroup(self.loop), self.liar.link, channel, self.loop, self._gone)
        self._driver.wake()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.loop.is_running = True
        while self.loop.is_running:
            self.loop.run_once()

    def _wake(self, link: Link) -> None:
        if self._driver is not None:
            self._driver.wake()

    def _gone(self) -> None:
        self.liar.reason = self.liar.reason or "gone"

    def do(self, what: Callable[[], Any]) -> Any:
        """what() in the thread of the loop; returns what it does."""
        done = threading.Event()
        result: list[Any] = []

        def run() -> None:
            try:
                result.append(what())
            finally:
                done.set()

        self.loop.post(run)
        assert done.wait(20), "the liar is stuck"
        return result[0]

    def tell(self, *entries: AdvertisedNode, flags: int = 0) -> None:
        self.do(lambda: self.liar.tell(entries, flags))

    def close(self) -> None:
        def end() -> bool:
            self.liar.link.close("", orderly=True)
            self.loop.later(0.2, self.loop.stop)
            return True

        self.do(end)
        self._thread.join(10)
        self.loop.close()

"""A tunnel of datagrams for each sender: `r2 tunnel udp-listen://...`.

One socket receives from all of them, and answers each from the address to which it had sent.  Datagrams that arrive
faster than the tunnel takes them are dropped.
"""

from __future__ import annotations

import socket
import struct

from ...errors import R2Error
from ...proto.wire import messages
from ...proto.wire.address import format_path
from ...proto.wire.frames import DATAGRAMS
from ...proto.wire.outcome import make_outcome
from ..io.channel import adopt
from ..link.datagram_endpoint import END, NOTHING, read, write
from ..transport.sockaddr import spell_address
from ..transport.udp import ANCILLARY, BATCH, MAX_DATAGRAM, MAX_SENDERS, PKTINFO, UdpListener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..io.channel import Channel
    from ..io.log import Log
    from ..io.loop import Loop
    from ..transport.transport import Transport
    from .client import Client

    Ancillary = list[tuple[int, int, bytes]]

IDLE = 60.0  # seconds of silence after which a sender is forgotten
WAITING = 16  # datagrams of a sender that wait for its tunnel to stand
SPARE = 64  # places that are made for new senders before they are needed: a tunnel takes its time to end
QUIET = 5.0  # seconds after which a sender makes room for another when there are too many


class _UdpSender:
    """Who sends from `address` to `sock`, and the tunnel for that."""

    def __init__(self, senders: UdpForwarder, sock: socket.socket, address: Any, ancillary: Ancillary) -> None:
        self._senders = senders
        self._sock = sock
        self.address = address
        self._from = _answer_from(ancillary)
        self._waiting: list[bytes] = []
        self.channel: Channel | None = None
        self.used = senders.loop.now()
        self.is_ended = False  # we take no more from there
        self.is_over = False  # the daemon reports nothing more: for its own services, at once
        self._timer = senders.loop.later(senders.idle, self._look)

    def take(self, data: bytes) -> None:
        self.used = self._senders.loop.now()
        if self.channel is None:
            if len(self._waiting) < WAITING:
                self._waiting.append(data)
            return
        try:
            write(self.channel, data, True)
        except OSError:
            self.end()

    def receive(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == messages.OPENED:
            self.channel = adopt(descriptors)
            if self.is_ended:
                self.channel.close()
                return
            self._senders.loop.watch(self.channel.read_fd, self._readable)
            waiting, self._waiting = self._waiting, []
            for data in waiting:
                if not self.is_ended:
                    self.take(data)
        elif body.kind == messages.ERROR:
            self._senders.over(self, body.id, body["text"])
        elif body.kind == messages.ENDED:
            outcome = make_outcome(body)
            self._senders.over(self, body.id, "" if outcome.is_clean else outcome.describe())

    def _readable(self) -> None:
        assert self.channel is not None
        room = self._senders.loop.arena.take(MAX_DATAGRAM)
        for _ in range(BATCH):
            try:
                size = read(self.channel, room)
            except OSError:
                size = END
            if size == NOTHING:
                return
            if size == END:
                self.end()
                return
            self.used = self._senders.loop.now()
            try:
                self._sock.sendmsg([room[:size]], self._from, socket.MSG_DONTWAIT, self.address)
            except OSError:
                continue  # lost

    def _look(self) -> None:
        left = self.used + self._senders.idle - self._senders.loop.now()
        if left > 0:
            self._timer = self._senders.loop.later(left, self._look)
        else:
            self.end()

    def end(self) -> None:
        """Take nothing more; the daemon reports when the tunnel is over."""
        if self.is_ended:
            return
        self.is_ended = True
        self._timer.cancel()
        self._senders.lost(self, (self._sock, self.address))
        if self.channel is not None:
            self._senders.loop.watch(self.channel.read_fd)
            self.channel.close()


class UdpForwarder(UdpListener):
    """Listens at `transport` and opens a tunnel to the service at `path` for each sender, while there is a daemon to
    `use`.

    `failed(TransportError)` is called once if it cannot listen at all.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        transport: Transport,
        path: tuple[str, ...],
        failed: Callable[[Any], None],
        listening: Callable[[str], None],
        at_home: bool = False,
    ) -> None:
        super().__init__(loop, transport, lambda fd, sender: None, failed, listening, at_home)
        self.loop = loop
        self.idle: float = transport.options.get("idle", IDLE)
        self._log, self._path, self._name = log, path, format_path(path) or "this node"
        self._client: Client | None = None
        self._known: dict[Any, _UdpSender] = {}  # who used theirs last is last
        self._tunnels: set[_UdpSender] = set()  # with those that are forgotten, until the daemon has ended them

    def readable(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                data, ancillary, _, address = sock.recvmsg(MAX_DATAGRAM, ANCILLARY)
            except OSError:
                return  # nothing to read, or an ICMP error of one sender
            sender = self._known.pop((sock, address), None) or self._meet_new(sock, address, ancillary)
            if sender is not None:
                self._known[sock, address] = sender
                sender.take(data)

    def _meet_new(self, sock: socket.socket, address: Any, ancillary: Ancillary) -> _UdpSender | None:
        """A new sender; None if there are too many, and none of them has been idle for `QUIET` seconds."""
        if len(self._tunnels) >= MAX_SENDERS - SPARE:
            quietest = next(iter(self._known.values()), None)
            if quietest is not None and quietest.used + QUIET < self.loop.now():
                quietest.end()  # there is room when its tunnel is over
        if len(self._tunnels) >= MAX_SENDERS or self._client is None:
            return None
        sender = _UdpSender(self, sock, address, ancillary)
        try:
            self._client.request(messages.TUNNEL, sender.receive, (), (), target=self._path, mode=DATAGRAMS)
        except R2Error as error:
            self._log.error(f"{self._name}: {error}")
            return None
        self._tunnels.add(sender)
        self._log.debug(f"{self._name}: datagrams from {spell_address(address)}")
        return sender

    def use(self, client: Client | None) -> None:
        """Reach the daemon by `client`; None: it is away, and with it all tunnels that it had a part in."""
        self._client = client
        if client is None:
            for sender in [sender for sender in self._tunnels if not sender.is_over]:
                sender.end()
                self._tunnels.discard(sender)

    def lost(self, sender: _UdpSender, key: Any) -> None:
        """Nothing more is taken from there; the next datagram from there makes a new sender."""
        self._known.pop(key, None)
        self._log.debug(f"{self._name}: no more from {spell_address(sender.address)}")
        if sender.is_over:
            self._tunnels.discard(sender)

    def over(self, sender: _UdpSender, id: int, why: str) -> None:
        """The daemon has done with a tunnel, in good order if there is no reason; then its descriptor has an end."""
        if self._client is not None:
            self._client.forget(id)
        sender.is_over = True
        if why or sender.channel is None:
            sender.end()
        if sender.is_ended:
            self._tunnels.discard(sender)
        if why and not self._closed:
            self._log.error(f"{self._name}: {why}")

    def close(self) -> None:
        """Take no more, and end the tunnels that there are; how they end is no news then."""
        super().close()
        for sender in list(self._tunnels):
            sender.end()


def _answer_from(ancillary: Ancillary) -> Ancillary:
    """What has an answer come from the address to which the datagram came."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == PKTINFO and len(data) >= struct.calcsize("i4s4s"):
            return [(level, kind, struct.pack("i4s4s", 0, data[4:8], bytes(4)))]
        if level == socket.IPPROTO_IPV6 and kind == getattr(socket, "IPV6_PKTINFO", None):
            return [(level, kind, data)]
    return []

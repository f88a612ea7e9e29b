"""UDP listener: a connected socket, and so a link, for each sender.

The kernel demultiplexes: a socket connected to a sender receives its datagrams, and the listening socket receives all
others.  A datagram that opens a link makes a new sender, if it carries the cookie that was sent to its address before:
a forged address costs one answer and no memory.  The datagram itself is dropped; the protocol retransmits it.
"""

from __future__ import annotations

import os
import socket
import struct
import sys

from ...errors import TransportError
from ...proto.arq.packet import COOKIE_SIZE, PacketEncoder, decode_opening, refusal
from ...proto.link.token_bucket import TokenBucket
from ..io.reserve import is_last, is_short, shortage
from .connecting import tune
from .sockets import AddressListener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..io.loop import Loop
    from .transport import Transport

# Senders at a time.  Any host can send, under any address, and each sender costs a descriptor and a pending link; a
# daemon with more neighbours than this over UDP alone meets other limits too.
MAX_SENDERS = 512
BATCH = 64  # datagrams in one turn of the loop,
TURN = 1e-3  # at most for these seconds,
SHARE = 1 / 4  # and for this share of all time, since others need the processor,
BURST = 0.05  # after a burst of these seconds; the rest is lost, as datagrams are
MAX_DATAGRAM = 1 << 16
COOKIE_TIME = 30.0  # seconds
PKTINFO = getattr(socket, "IP_PKTINFO", 8 if sys.platform == "linux" else None)  # in Python since 3.12
ANCILLARY = socket.CMSG_SPACE(32)


class Cookies:
    """Cookies that senders must return: MACs of their address and identity, under a secret of this listener.

    A cookie is valid for COOKIE_TIME to twice COOKIE_TIME seconds of `now`.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._secret = os.urandom(32)

    def make(self, sender: Any, identity: int, ago: int = 0) -> bytes:
        """The cookie of `sender`, a socket address, `ago` periods ago."""
        from hashlib import blake2s  # not above: it loads a third of the memory of a small program

        text = repr((sender, identity, int(self._now() / COOKIE_TIME) - ago)).encode()
        return blake2s(text, key=self._secret, digest_size=COOKIE_SIZE).digest()

    def check(self, cookie: bytes, sender: Any, identity: int) -> bool:
        """Whether `cookie` is valid."""
        from hmac import compare_digest

        return any(compare_digest(cookie, self.make(sender, identity, ago)) for ago in range(2))


class UdpListener(AddressListener):
    """Accepts senders: `opened(fd, sender)` for each.  The caller calls `forget(sender)` when its link has ended."""

    def __init__(
        self,
        loop: Loop,
        transport: Transport,
        opened: Callable[[int, Any], None],
        failed: Callable[[TransportError], None],
        listening: Callable[[str], None] = lambda where: None,
        at_home: bool = False,
    ) -> None:
        super().__init__(loop, transport, failed, listening, at_home)
        self._opened = opened
        self._senders: set[Any] = set()
        self._cookies = Cookies(loop.now)
        self._time = TokenBucket(SHARE, BURST, loop.now())

    def bind(self, sock: socket.socket, address: Any) -> None:
        tune(sock)
        if sock.family == socket.AF_INET6:
            if hasattr(socket, "IPV6_RECVPKTINFO"):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        elif PKTINFO is not None:
            sock.setsockopt(socket.IPPROTO_IP, PKTINFO, 1)
        if sys.platform != "linux":
            _share(sock)
        sock.bind(address)
        _share(sock)  # after bind, which so refuses a port that another program uses

    def readable(self, sock: socket.socket) -> None:
        begun = self._loop.now()
        self._read(sock, begun + TURN)
        now = self._loop.now()
        self._time.spend(now - begun)
        wait = self._time.wait(now)
        if wait:
            self._loop.watch(sock.fileno())
            self._loop.later(wait, lambda: self._watch(sock))

    def _read(self, sock: socket.socket, end: float) -> None:
        for _ in range(BATCH):
            if self._loop.now() > end:
                return
            try:
                data, ancillary, _, sender = sock.recvmsg(MAX_DATAGRAM, ANCILLARY)
            except OSError:
                return  # none left, or an ICMP error for an earlier answer
            if sender in self._senders or len(self._senders) >= MAX_SENDERS:
                continue
            opening = decode_opening(data)
            if opening is None:
                self._answer(sock, refusal(data), sender)
                continue
            identity, cookie = opening
            if not cookie or not self._cookies.check(cookie, sender, identity):
                self._answer(sock, PacketEncoder(0, identity).cookie(self._cookies.make(sender, identity)), sender)
                continue
            try:
                fd = self._connect(sock, sender, _destination(ancillary))
            except OSError as error:
                if is_short(error):
                    return  # the sender retransmits
                continue
            self._senders.add(sender)
            self._opened(fd, sender)

    @staticmethod
    def _answer(sock: socket.socket, answer: bytes, sender: Any) -> None:
        """Send a COOKIE, or a GONE for a link that has ended, as TCP sends a reset; nothing if it is empty."""
        try:
            if answer:
                sock.sendto(answer, sender)
        except OSError:
            return  # lost, as datagrams are

    @staticmethod
    def _connect(sock: socket.socket, sender: Any, host: str) -> int:
        """A socket connected to `sender`, bound to the destination address of its datagram."""
        local = sock.getsockname()
        theirs = socket.socket(sock.family, socket.SOCK_DGRAM)
        try:
            if is_last(theirs.fileno()):
                raise shortage()
            tune(theirs)
            _share(theirs)
            if sock.family == socket.AF_INET6:
                theirs.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                scope = sender[3] if host.lower().startswith("fe80") else local[3]
                theirs.bind((host or local[0], local[1], 0, scope))
            else:
                theirs.bind((host or local[0], local[1]))
            theirs.connect(sender)
            # Drop datagrams of other senders that came between bind and connect.
            theirs.setblocking(False)
            while True:
                try:
                    theirs.recv(MAX_DATAGRAM)
                except BlockingIOError:
                    break
        except OSError:
            theirs.close()
            raise
        return theirs.detach()

    def forget(self, sender: Any) -> None:
        """The link of `sender` has ended: it may open another."""
        self._senders.discard(sender)


def _share(sock: socket.socket) -> None:
    """Allow other sockets of this process on the same port."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform != "linux":  # where it would distribute datagrams over all of them
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _destination(ancillary: list[tuple[int, int, bytes]]) -> str:
    """The destination address of a datagram; "" if the system does not report it.

    A host may have several, and a sender accepts answers only from the one that it sent to.
    """
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == PKTINFO and len(data) >= struct.calcsize("i4s4s"):
            return socket.inet_ntop(socket.AF_INET, struct.unpack_from("i4s4s", data)[2])
        if level == socket.IPPROTO_IPV6 and kind == getattr(socket, "IPV6_PKTINFO", None) and len(data) >= 16:
            return socket.inet_ntop(socket.AF_INET6, data[:16])
    return ""

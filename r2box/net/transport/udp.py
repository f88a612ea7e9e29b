"""UDP from anybody: a socket of its own, and so a link, for each sender.

The kernel tells senders apart: a socket that is connected to one of them gets all that this one sends to the port, and
the socket that listens what is left.  What is left and begins a link makes a new sender, if it shows the cookie that
was sent to its address before: a forged address costs one answer, and nothing is remembered of it.  The datagram itself
is dropped, and the protocol sends it again.
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
from .sockaddr import spell
from .sockets import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..io.loop import Loop
    from .sockets import Addresses
    from .transport import Transport

# Senders at a time.  Anybody can send, under any address, and each costs a descriptor and a link that waits for its
# neighbour; a daemon that has more neighbours than this over UDP alone has other limits too.
MAX_SENDERS = 512
BATCH = 64  # datagrams in a row before others get their turn,
TURN = 1e-3  # and seconds,
SHARE = 1 / 4  # and seconds of each second, as others may need the processor,
BURST = 0.05  # after so many at once: the rest is lost, as datagrams are
MAX_DATAGRAM = 1 << 16
COOKIE_TIME = 30.0  # seconds
PKTINFO = getattr(socket, "IP_PKTINFO", 8 if sys.platform == "linux" else None)  # in Python since 3.12
ANCILLARY = socket.CMSG_SPACE(32)


class Cookies:
    """What a sender must show to have a link: a MAC of its address and identity under a secret of this listener.

    One is right for COOKIE_TIME to twice that, in seconds of `now`.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._secret = os.urandom(32)

    def make(self, sender: Any, identity: int, ago: int = 0) -> bytes:
        """The cookie of `sender`, an address of the socket module; `ago` periods ago."""
        from hashlib import blake2s  # here: what loads with it is a third of a small program

        text = repr((sender, identity, int(self._now() / COOKIE_TIME) - ago)).encode()
        return blake2s(text, key=self._secret, digest_size=COOKIE_SIZE).digest()

    def check(self, cookie: bytes, sender: Any, identity: int) -> bool:
        """Whether it is right."""
        from hmac import compare_digest

        return any(compare_digest(cookie, self.make(sender, identity, ago)) for ago in range(2))


class UdpListener:
    """Takes senders: `opened(fd, sender)` for each; `failed(TransportError)` once if it cannot listen at all.

    Who was given a sender's descriptor calls `forget(sender)` when its link has ended.  `listening` and `at_home` are
    as a `dial.Listener` has them.
    """

    def __init__(
        self,
        loop: Loop,
        transport: Transport,
        opened: Callable[[int, Any], None],
        failed: Callable[[TransportError], None],
        listening: Callable[[str], None] = lambda where: None,
        at_home: bool = False,
    ) -> None:
        self._loop = loop
        self._listening = listening
        self._at_home = at_home
        self._transport = transport
        self._opened = opened
        self._failed = failed
        self._socks: list[socket.socket] = []
        self._senders: set[Any] = set()
        self._closed = False
        self._cookies = Cookies(loop.now)
        self._time = TokenBucket(SHARE, BURST, loop.now())
        loop.soon(self._start)  # so that nothing is called before the caller has us

    def _start(self) -> None:
        if not self._closed:
            resolve(self._loop, self._transport, self._found, passive=not self._at_home)

    def _found(self, addresses: Addresses | TransportError) -> None:
        if self._closed:
            return
        if isinstance(addresses, TransportError):
            self._failed(addresses)
            return
        problem: OSError | None = None
        for family, _, _, _, address in addresses:
            try:
                if self._socks and not self._transport.port:  # the one that the system gave for the first address
                    address = (address[0], self._socks[0].getsockname()[1], *address[2:])
                self._listen(family, address)
            except OSError as error:
                problem = problem or error
        if not self._socks:
            self._failed(TransportError((problem and problem.strerror) or "the host has no address"))
        else:
            self._listening(", ".join(map(spell, self._socks)))

    def _listen(self, family: int, address: Any) -> None:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            tune(sock)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if hasattr(socket, "IPV6_RECVPKTINFO"):
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            elif PKTINFO is not None:
                sock.setsockopt(socket.IPPROTO_IP, PKTINFO, 1)
            if sys.platform != "linux":
                _share(sock)
            sock.bind(address)
            _share(sock)  # only now, so that a port that somebody else listens at is refused
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        self._socks.append(sock)
        self._watch(sock)

    def _readable(self, sock: socket.socket) -> None:
        begun = self._loop.now()
        self._read(sock, begun + TURN)
        now = self._loop.now()
        self._time.spend(now - begun)
        wait = self._time.wait(now)
        if wait and not self._closed:
            self._loop.watch(sock.fileno())
            self._loop.later(wait, lambda: self._watch(sock))

    def _watch(self, sock: socket.socket) -> None:
        if not self._closed:
            self._loop.watch(sock.fileno(), lambda: self._readable(sock))

    def _read(self, sock: socket.socket, end: float) -> None:
        for _ in range(BATCH):
            if self._loop.now() > end:
                return
            try:
                data, ancillary, _, sender = sock.recvmsg(MAX_DATAGRAM, ANCILLARY)
            except OSError:
                return  # nothing there, or what ICMP has said of somebody
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
                fd = self._meet(sock, sender, _destination(ancillary))
            except OSError as error:
                if is_short(error):
                    return  # it will be asked again
                continue
            self._senders.add(sender)
            self._opened(fd, sender)

    @staticmethod
    def _answer(sock: socket.socket, answer: bytes, sender: Any) -> None:
        """Send a COOKIE, or a GONE where the neighbour of the sender has ended, as TCP would a reset; none if empty."""
        try:
            if answer:
                sock.sendto(answer, sender)
        except OSError:
            return  # lost, as datagrams are

    @staticmethod
    def _meet(sock: socket.socket, sender: Any, host: str) -> int:
        """A socket for `sender` alone, at the address to which its datagram came."""
        own = sock.getsockname()
        theirs = socket.socket(sock.family, socket.SOCK_DGRAM)
        try:
            if is_last(theirs.fileno()):
                raise shortage()
            tune(theirs)
            _share(theirs)
            if sock.family == socket.AF_INET6:
                theirs.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                scope = sender[3] if host.lower().startswith("fe80") else own[3]
                theirs.bind((host or own[0], own[1], 0, scope))
            else:
                theirs.bind((host or own[0], own[1]))
            theirs.connect(sender)
            # Between these two calls the kernel may have put what others sent here.
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
        """The link of `sender` has ended: it may come again."""
        self._senders.discard(sender)

    def close(self) -> None:
        self._closed = True
        for sock in self._socks:
            self._loop.watch(sock.fileno())
            sock.close()
        self._socks = []


def _share(sock: socket.socket) -> None:
    """Let other sockets of ours have the same port."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform != "linux":  # where it would spread what comes over all of them
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _destination(ancillary: list[tuple[int, int, bytes]]) -> str:
    """The address of this host to which a datagram came; "" where the system does not tell.

    A host may have many, and who sent to one of them takes no answer from another.
    """
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == PKTINFO and len(data) >= struct.calcsize("i4s4s"):
            return socket.inet_ntop(socket.AF_INET, struct.unpack_from("i4s4s", data)[2])
        if level == socket.IPPROTO_IPV6 and kind == getattr(socket, "IPV6_PKTINFO", None) and len(data) >= 16:
            return socket.inet_ntop(socket.AF_INET6, data[:16])
    return ""

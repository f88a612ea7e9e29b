"""One connection attempt; options of every socket; errors of failed attempts as text.

`sockets.Dial` runs one attempt for each address of a host.
"""

from __future__ import annotations

import errno
import os
import socket

from ...proto.arq.packet import PacketEncoder
from ..io import reserve
from ..io.channel import Channel
from .sockaddr import spell_host
from .urls import ip_version, is_link_local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..io.loop import Loop, Timer
    from .eyeballs import Failures, Report
    from .sockaddr import Address
    from .transport import Transport

INET = (socket.AF_INET, socket.AF_INET6)
UNSENT = 1 << 20  # bytes that the kernel may queue unsent; `proto.link.inflight` bounds the sum with those in flight
DATAGRAMS = 1 << 20  # bytes of datagrams that the kernel may queue: a fast sender's in one turn of the loop
PROBES = 3  # unanswered keepalives of the kernel before it resets a connection
AGAIN = 0.05  # seconds before another attempt at a UNIX socket whose backlog is full
PROBE_AGAIN = 1.0  # seconds before a probe is retransmitted
MAX_NAMED = 8  # addresses that an error names for each reason


def tune(sock: socket.socket, keepalive: int = 0) -> None:
    """Set the options of a socket.

    TCP: no Nagle delay, and keepalives of the kernel after `keepalive` seconds of silence (0: the system's default).
    UDP: large buffers, as far as the system allows.
    """
    if sock.type == socket.SOCK_DGRAM:
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, buffer, DATAGRAMS)
    elif sock.family in INET:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if keepalive and hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, keepalive // PROBES))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)  # no deep queue below the link's


def is_self_connected(sock: socket.socket) -> bool:
    """Whether a connected socket is its own peer.

    While nothing listens at a port of the ephemeral range, the kernel may choose that very port as the local one; TCP
    then connects the socket to itself (simultaneous open), and UDP receives what it sends.
    """
    if sock.family not in INET:
        return False
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # no longer connected
        return False


class Connecting:
    """One connection attempt to one address, without blocking; it reports as `eyeballs.Race` requires.

    `local` is the address to bind to, if any.  UDP sockets connect at once; with `probe`, a datagram that the peer
    answers, the attempt succeeds when an answer arrives.
    """

    def __init__(
        self, loop: Loop, transport: Transport, address: Address, local: Address | None, probe: bytes, report: Report
    ) -> None:
        self._loop, self._transport, self._report = loop, transport, report
        self._probe = probe
        self._timer: Timer | None = None
        family, kind, protocol, _, self._name = address
        self._sock = socket.socket(family, kind, protocol)
        try:
            self._sock.setblocking(False)
            if reserve.is_last(self._sock.fileno()):
                raise reserve.shortage()
            if local is not None:
                if kind == socket.SOCK_STREAM or probe:  # other attempts bind the same address
                    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._sock.bind(local[-1])
            self._connect()
        except OSError:
            self.close()
            raise

    def _connect(self) -> None:
        code = self._sock.connect_ex(self._name)
        if code == errno.EAGAIN:  # the backlog of a UNIX socket is full
            self._retry(AGAIN, self._connect)
        elif code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        elif self._probe:
            self._loop.watch(self._sock.fileno(), self._connected)
            self._send_probe()
        else:
            self._loop.watch(self._sock.fileno(), None, self._connected)

    def _send_probe(self) -> None:
        self._sock.send(self._probe)
        self._retry(PROBE_AGAIN, self._send_probe)

    def _retry(self, seconds: float, step: Callable[[], None]) -> None:
        def run() -> None:
            try:
                step()
            except OSError as error:
                self._failed(error)

        self._timer = self._loop.later(seconds, run)

    def _connected(self) -> None:
        try:
            code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            if is_self_connected(self._sock):
                self._refuse_self()
                return
            self._sock.setblocking(True)  # it may be handed to a program, which expects that
            tune(self._sock, self._transport.keepalive)
        except OSError as error:
            self._failed(error)
            return
        self._unwatch()
        self._report(self._sock.detach(), 0)

    def _failed(self, error: OSError) -> None:
        self.close()
        self._report(-1, error.errno or errno.EIO)

    def _refuse_self(self) -> None:
        self._unwatch()
        Channel(self._sock.detach()).reset()  # a TIME_WAIT would keep the listener from binding
        self._report(-1, errno.ECONNREFUSED)

    def _unwatch(self) -> None:
        self._loop.watch(self._sock.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """Stop; report nothing any more."""
        self._unwatch()
        self._sock.close()


def make_probe() -> bytes:
    """A datagram that every node answers and that opens no link (r2-protocol(7), GONE)."""
    ours, theirs = (int.from_bytes(os.urandom(4), "big") | 1 for _ in range(2))
    return PacketEncoder(ours, theirs).ack(0, 0.0, 0.0, 0, 0, b"")


def explain(failures: Failures, host: str) -> str:
    """One line with the reasons of all failed attempts, each with its addresses, unless `host` is the only one."""
    if len(failures) == 1 and (failures[0][0][0] not in INET or ip_version(host)):
        return _reason(*failures[0])
    reasons: dict[str, list[str]] = {}
    for address, code in failures:
        reasons.setdefault(_reason(address, code), []).append(spell_host(address[-1]))
    return "; ".join(f"{reason} ({_some(hosts)})" for reason, hosts in reasons.items())


def _some(hosts: list[str]) -> str:
    more = f" and {len(hosts) - MAX_NAMED} more" if len(hosts) > MAX_NAMED else ""
    return ", ".join(hosts[:MAX_NAMED]) + more


def _reason(address: Address, code: int) -> str:
    if code == errno.EINVAL and address[0] == socket.AF_INET6 and is_link_local(address[-1][0]) and not address[-1][3]:
        return "a link-local address needs its interface, as in [fe80::1%25eth0]:PORT"
    return reserve.explain() if code == errno.EMFILE else os.strerror(code)

"""Lines that misbehave, between who sends datagrams to a UDP port and one target."""

from __future__ import annotations

import socket

from ...errors import TransportError
from ...net.transport.connecting import tune
from ...net.transport.sockets import resolve
from .line import BACK, BATCH, OUT, READ_SIZE, Lane, Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ...net.io.channel import Buffer
    from ...net.io.loop import Loop
    from ...net.transport.transport import Transport
    from .line import Plan, Write

MAX_FLOWS = 64  # senders at a time; one more, and the one silent for longest is forgotten
IDLE = 120.0  # seconds after which one that is silent is forgotten, as NAT does it (RFC 4787, 4.3)


class Flow(Line):
    """A line between one sender and the target, which sees it at a port of its own."""

    def __init__(self, loop: Loop, plan: Plan, number: int, sock: socket.socket, answer: Write) -> None:
        super().__init__(loop, plan, number, packets=True)
        self._sock = sock
        self.heard = loop.now()
        self.lanes = (
            Lane(loop, plan.faults(number, OUT, stream=False), lambda buffers: _send(sock, buffers)),
            Lane(loop, plan.faults(number, BACK, stream=False), answer),
        )
        loop.watch(sock.fileno(), self._read)

    def _read(self) -> None:
        for _ in range(BATCH):
            try:
                data = self._sock.recv(READ_SIZE)
            except BlockingIOError:
                return
            except OSError:
                continue  # what ICMP has said of an earlier one: nobody is there now
            self.heard = self._loop.now()
            self.offer(BACK, data)

    def close(self) -> None:
        super().close()
        self._loop.watch(self._sock.fileno())
        self._sock.close()


def _send(sock: socket.socket, buffers: Sequence[Buffer], address: Any = None) -> int:
    """One datagram.  What the system does not take is lost: that is what datagrams are like."""
    try:
        sock.sendto(buffers[0], address) if address else sock.send(buffers[0])
    except OSError:
        pass
    return len(buffers[0]) or 1


class UdpRelay:
    """Takes datagrams at the address `listen` and joins each sender by a line to `target`.

    `ready()` is called when it listens; `failed(TransportError)` when it cannot.
    """

    def __init__(
        self, loop: Loop, plan: Plan, listen: Transport, target: Transport, ready: Callable[[], None],
        failed: Callable[[TransportError], None],
    ) -> None:  # fmt: skip
        self._loop, self._plan, self._listen = loop, plan, listen
        self._ready, self._failed = ready, failed
        self._socks: list[socket.socket] = []
        self._target: tuple[int, Any] = (0, None)  # family and address
        self._flows: dict[Any, Flow] = {}  # by (our socket, the sender's address), the one silent for longest first
        self._number = 0
        resolve(loop, target, self._found_target)

    def _found_target(self, addresses: Any) -> None:
        if isinstance(addresses, TransportError):
            self._failed(addresses)
            return
        self._target = addresses[0][0], addresses[0][-1]
        resolve(self._loop, self._listen, self._found, passive=True)

    def _found(self, addresses: Any) -> None:
        if isinstance(addresses, TransportError):
            self._failed(addresses)
            return
        problem: OSError | None = None
        for family, *_, address in addresses:
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM)
            except OSError as error:  # a family that this kernel has not
                problem = problem or error
                continue
            try:
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
                sock.setblocking(False)
                tune(sock)
            except OSError as error:
                sock.close()
                problem = problem or error
                continue
            self._socks.append(sock)
            self._loop.watch(sock.fileno(), lambda sock=sock: self._read(sock))  # type: ignore[misc]
        if self._socks:
            self._ready()
        else:
            self._failed(TransportError((problem and problem.strerror) or "the host has no address"))

    def _read(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                data, sender = sock.recvfrom(READ_SIZE)
            except BlockingIOError:
                return
            except OSError:
                continue
            flow = self._flows.pop((sock, sender), None) or self._new(sock, sender)
            if flow is not None:
                self._flows[sock, sender] = flow
                flow.heard = self._loop.now()
                flow.offer(OUT, data)

    def _new(self, sock: socket.socket, sender: Any) -> Flow | None:
        if len(self._flows) == MAX_FLOWS:
            self._flows.pop(next(iter(self._flows))).close()
        ours = None
        try:
            ours = socket.socket(self._target[0], socket.SOCK_DGRAM)
            ours.setblocking(False)
            tune(ours)
            ours.connect(self._target[1])
        except OSError:  # no more descriptors, or no way there: as if it were lost
            if ours is not None:
                ours.close()
            return None
        if not self._flows:
            self._loop.later(IDLE, self._sweep)
        self._number += 1
        return Flow(self._loop, self._plan, self._number - 1, ours, lambda buffers: _send(sock, buffers, sender))

    def _sweep(self) -> None:
        """Forget who has been silent for long."""
        for key, flow in list(self._flows.items()):
            if flow.heard < self._loop.now() - IDLE:
                self._flows.pop(key).close()
        if self._flows:
            self._loop.later(IDLE, self._sweep)

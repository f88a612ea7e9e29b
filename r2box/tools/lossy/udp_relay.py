"""UDP relay with faults: a line to one target for each sender at a UDP port."""

from __future__ import annotations

import socket

from ...errors import TransportError
from ...net.transport.connecting import tune
from ...net.transport.sockets import AddressListener, resolve
from .line import BACK, BATCH, OUT, READ_SIZE, Lane, Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ...net.io.channel import Buffer
    from ...net.io.loop import Loop
    from ...net.transport.transport import Transport
    from .line import Plan, Write

MAX_FLOWS = 64  # senders at a time; a further one replaces the one idle for longest
IDLE = 120.0  # seconds after which an idle sender is dropped, as NAT does (RFC 4787, 4.3)


class Flow(Line):
    """A line between one sender and the target, with its own port towards the target."""

    def __init__(self, loop: Loop, plan: Plan, number: int, sock: socket.socket, answer: Write) -> None:
        super().__init__(loop, plan, number, packets=True)
        self._sock = sock
        self.active = loop.now()
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
                continue  # an ICMP error for an earlier datagram: the target does not listen
            self.active = self._loop.now()
            self.offer(BACK, data)

    def close(self) -> None:
        super().close()
        self._loop.watch(self._sock.fileno())
        self._sock.close()


def _send(sock: socket.socket, buffers: Sequence[Buffer], address: Any = None) -> int:
    """Send one datagram; if the system does not take it, it is lost, as datagrams are."""
    try:
        sock.sendto(buffers[0], address) if address else sock.send(buffers[0])
    except OSError:
        pass
    return len(buffers[0]) or 1


class UdpRelay(AddressListener):
    """Receives datagrams at the address `listen`, and joins each sender by a line to `target`."""

    def __init__(
        self, loop: Loop, plan: Plan, listen: Transport, target: Transport, listening: Callable[[str], None],
        failed: Callable[[TransportError], None],
    ) -> None:  # fmt: skip
        super().__init__(loop, listen, failed, listening)
        self._plan, self._target = plan, target
        self._remote: tuple[int, Any] = (0, None)  # family and address of the target
        self._flows: dict[Any, Flow] = {}  # by (our socket, the sender's address), the one idle for longest first
        self._number = 0

    def _start(self) -> None:
        resolve(self._loop, self._target, self._found_target)

    def _found_target(self, addresses: Any) -> None:
        if isinstance(addresses, TransportError):
            self._failed(addresses)
            return
        self._remote = addresses[0][0], addresses[0][-1]
        super()._start()

    def bind(self, sock: socket.socket, address: Any) -> None:
        sock.bind(address)
        tune(sock)

    def readable(self, sock: socket.socket) -> None:
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
                flow.active = self._loop.now()
                flow.offer(OUT, data)

    def _new(self, sock: socket.socket, sender: Any) -> Flow | None:
        if len(self._flows) == MAX_FLOWS:
            self._flows.pop(next(iter(self._flows))).close()
        ours = None
        try:
            ours = socket.socket(self._remote[0], socket.SOCK_DGRAM)
            ours.setblocking(False)
            tune(ours)
            ours.connect(self._remote[1])
        except OSError:  # no descriptor left, or no route: as if it were lost
            if ours is not None:
                ours.close()
            return None
        if not self._flows:
            self._loop.later(IDLE, self._sweep)
        self._number += 1
        return Flow(self._loop, self._plan, self._number - 1, ours, lambda buffers: _send(sock, buffers, sender))

    def _sweep(self) -> None:
        """Drop idle senders."""
        for key, flow in list(self._flows.items()):
            if flow.active < self._loop.now() - IDLE:
                self._flows.pop(key).close()
        if self._flows:
            self._loop.later(IDLE, self._sweep)

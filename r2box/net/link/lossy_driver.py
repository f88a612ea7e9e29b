"""Link driver for lossy transports, which may lose, repeat and corrupt bytes: ARQ between link and channel.

Each packet is one write: a datagram transport keeps its boundaries, and a byte stream may split it.
"""

from __future__ import annotations

import errno
import socket

from ...proto.link.link import DOWN
from .driver import RETRY, ROUNDS, SHORTAGES, LinkDriver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...proto.arq.connection import ArqConnection
    from ...proto.link.link import Link
    from ...proto.wire.fields import Buffer
    from ..io.channel import Channel
    from ..io.loop import Loop, Timer
    from .turns import TurnGroup

EARLY_WINDOW = 1 << 16  # bytes that may wait for a retransmission before the link is up: a handshake is smaller
SLOT = 1 << 11  # bytes to read a datagram into: no packet is larger
BATCH = 64  # datagrams read in a row


class LossyDriver(LinkDriver):
    """Owns `channel`, which carries the packets of `arq`; `first` has been read from it already."""

    has_arq = True

    def __init__(
        self,
        group: TurnGroup,
        link: Link,
        channel: Channel,
        loop: Loop,
        done: Callable[[], None],
        arq: ArqConnection,
        first: bytes = b"",
    ) -> None:
        self._arq = arq
        self._held = 0  # bytes held by ARQ, as charged to the link's account
        self._has_ends = channel.sock is None or channel.sock.type != socket.SOCK_DGRAM  # a read of 0 bytes is the end
        self._alarm: Timer | None = None
        self._alarm_at = 0.0
        super().__init__(group, link, channel, loop, done)
        if first:
            loop.soon(lambda: self._take_first(first))

    # -- in ------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        self.group.enlarge()
        buffer = self.group.read_buffer()
        pieces: list[memoryview] = []
        end: str | None = None
        for number in range(BATCH):
            view = buffer[number * SLOT : (number + 1) * SLOT]
            try:
                size = self.channel.read_into(view)
            except OSError as error:
                end = error.strerror or str(error)
                break
            if size <= 0 and (size or self._has_ends):
                end = None if size else ""
                break
            pieces.append(view[:size])
        self._take(pieces)
        if end is not None and not self._closed:
            self._failed(end)

    def _take_first(self, first: bytes) -> None:
        begun = self.loop.now()
        self._take([first])
        self._end_turn(begun)

    def _take(self, pieces: list[memoryview] | list[bytes]) -> None:
        """Process bytes from the transport."""
        if self._closed:
            return
        now = self.loop.now()
        self._arq.limit(max(self.link.account.room, EARLY_WINDOW) if self.link.is_up else EARLY_WINDOW)
        parts: list[Buffer] = []
        for piece in pieces:
            parts.extend(self._arq.receive(piece, now))
        self._account()
        if parts and self.link.state != DOWN:
            self._deliver(b"".join(parts) if len(parts) > 1 else parts[0], ())
        if self._arq.fault and not self._closed:
            self._failed(self._arq.fault)
        self.wake()

    def _account(self) -> None:
        held = self._arq.held
        if held != self._held:
            self.link.account.charge(held - self._held)
            self._held = held

    def carry(self, link: Link) -> None:
        self.link.account.charge(-self._held)
        link.account.charge(self._held)
        super().carry(link)

    # -- out -----------------------------------------------------------------------------------------------------

    def _write(self) -> bool:
        arq = self._arq
        for _ in range(ROUNDS):
            now = self.loop.now()
            if not self._out:
                room = arq.room
                if room and self.link.has_output:
                    self.loop.arena.clear()
                    buffers, _ = self.link.produce(now, room)
                    arq.send(buffers, now)
                self._out = arq.produce(now)  # type: ignore[assignment]
                if not self._out:
                    return self._set_alarm()
            for number, packet in enumerate(self._out):
                try:
                    written = self.channel.write((packet,))
                except OSError as error:
                    return self._packet_failed(error)
                if written < len(packet):
                    self._out = [bytes(packet)[written:], *self._out[number + 1 :]]
                    return False
            self._out = []
        self._scheduled = True
        self.group.add(self)
        return True

    def _packet_failed(self, error: OSError) -> bool:
        self._out = []  # lost: ARQ retransmits them
        if error.errno in SHORTAGES:
            self.loop.later(RETRY, self._unblocked)
            return False
        hint = ": try a smaller ?mtu=" if error.errno == errno.EMSGSIZE else ""
        self._failed((error.strerror or str(error)) + hint)
        return False

    def _set_alarm(self) -> bool:
        """Nothing can be sent now: set the timer for the next deadline of ARQ."""
        due = self._arq.deadline()
        if due and (self._alarm is None or due < self._alarm_at):
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_at = due
            self._alarm = self.loop.later(due - self.loop.now(), self._alarmed)
        return True

    def _alarmed(self) -> None:
        self._alarm = None
        self.wake()

    @property
    def arq(self) -> ArqConnection:
        return self._arq

    @property
    def unwritten(self) -> int:
        return super().unwritten + int(self._arq.statistics["queue"])

    # -- the end -------------------------------------------------------------------------------------------------

    @property
    def _wants_read(self) -> bool:
        return self.link.state == DOWN or super()._wants_read  # acknowledgements of BYE

    @property
    def is_idle(self) -> bool:
        return self._closed or (super().is_idle and not self._arq.unacked)

    def _close_orderly(self) -> None:
        """Close when everything is acknowledged: a lossy transport has no end to wait for."""
        if self._arq.fault or not (self.link.has_output or self._out or self._arq.deadline()):
            self.cut()
        else:
            self._set_close_timer()

    def cut(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._arq.close()
        self._account()
        super().cut()

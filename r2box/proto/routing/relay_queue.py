"""Relay queue: paces the OPENs that a neighbour sends through this node, by a window of unprocessed ones.

A neighbour may open a thousand tunnels at once.  Forwarded at once, they would delay all other traffic of the outgoing
link for as long as the next node takes to process them.  So each pair of links has a queue: a PING follows its OPENs,
and at most `AT_ONCE` of them (more over a long round trip) are forwarded before its PONG arrives.  A tunnel that is
closed while it waits costs the next node nothing.  Nothing is refused here; queued tunnels count as relayed (see
`StreamTable.may_relay`).

The window covers the processing of OPEN only, not what follows, such as the start of a program.
"""

from __future__ import annotations

from ..link.stream import NullStreamEnd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link.link import Link
    from ..link.stream import Stream
    from ..wire.outcome import Outcome

    Go = Callable[[], "Stream | None"]  # forwards the OPEN; None: it was refused

AT_ONCE = 32  # OPENs: 5 to 40 ms of work for the next node
A_SECOND = 2000.0  # further OPENs for each second of round trip


class RelayQueue:
    """The queue from one neighbour to one link."""

    __slots__ = ("_out", "_target", "waiting")

    def __init__(self, target: Link) -> None:
        self._target = target
        self._out = 0  # OPENs that the next node has not processed, as far as is known
        self.waiting: dict[Stream, Go] = {}

    @property
    def is_idle(self) -> bool:
        return not (self._out or self.waiting)

    def add(self, stream: Stream, go: Go) -> None:
        stream.far = QueuedEnd(self, stream)
        self.waiting[stream] = go
        self.pump()

    def pump(self) -> None:
        """Forward as many OPENs as the window admits."""
        target = self._target
        sent = 0
        while self.waiting and (self._out < AT_ONCE + A_SECOND * target.rtt or not _carries(target)):
            stream = next(iter(self.waiting))
            if self.waiting.pop(stream)() is not None and _carries(target):
                self._out += 1
                sent += 1
        if sent:
            target.ping()
            target.sender.pong_callbacks.append(lambda: self._answered(sent))

    def _answered(self, count: int) -> None:
        self._out -= count
        self.pump()


def _carries(link: Link) -> bool:
    """Whether it answers PINGs."""
    return link.is_up and not link.is_suspended


class QueuedEnd(NullStreamEnd):
    """The far end of a queued stream."""

    def __init__(self, queue: RelayQueue, stream: Stream) -> None:
        self._queue, self._stream = queue, stream

    def close(self, outcome: Outcome) -> None:
        self._queue.waiting.pop(self._stream, None)


class RelayQueues:
    """The relay queues of a node."""

    def __init__(self) -> None:
        self._queues: dict[tuple[Link, Link], RelayQueue] = {}

    def add(self, link: Link, target: Link, stream: Stream, go: Go) -> None:
        """Queue the tunnel `stream` of `link` for `target`; `go()` forwards it."""
        queue = self._queues.get((link, target))
        if queue is None:
            self._queues = {pair: it for pair, it in self._queues.items() if not it.is_idle}
            queue = self._queues[link, target] = RelayQueue(target)
        queue.add(stream, go)

    def wake(self, target: Link) -> None:
        """Forward all that is queued for `target`, which no longer answers PINGs."""
        for (_, to), queue in list(self._queues.items()):
            if to is target:
                queue.pump()

    def remove(self, link: Link) -> None:
        """`link` is down."""
        self.wake(link)
        self._queues = {pair: queue for pair, queue in self._queues.items() if link not in pair}

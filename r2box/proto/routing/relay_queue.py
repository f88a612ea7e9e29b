"""OPENs that neighbours send through this node: how many the next node may have still to look at.

A neighbour may open a thousand tunnels at once.  Passed on at once, they would stand before all else that goes by the
same link, for as long as the next node needs for them.  So each neighbour has a `RelayLane` to each link: a mark is
sent behind its OPENs, and while the mark behind `AT_ONCE` of them is not answered, the others wait here.  One that is
closed meanwhile costs the next node nothing.  Nothing is refused here, and what waits counts as relayed: see
`StreamTable.may_relay`.

What the next node needs for the tunnel beyond its OPEN, such as the start of a program, is not waited for.
"""

from __future__ import annotations

from ..link.stream import NullEnd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link.link import Link
    from ..link.stream import Stream
    from ..wire.outcome import Outcome

    Go = Callable[[], "Stream | None"]  # opens the stream at the other side; None: it was refused

AT_ONCE = 32  # OPENs: 5 to 40 ms of the next node's time
A_SECOND = 2000.0  # of the round trip to it, in which more are on their way


class RelayLane:
    """From one neighbour by one link."""

    __slots__ = ("_out", "_target", "waiting")

    def __init__(self, target: Link) -> None:
        self._target = target
        self._out = 0  # OPENs that the next node has still to look at, as far as is known
        self.waiting: dict[Stream, Go] = {}

    @property
    def is_idle(self) -> bool:
        return not (self._out or self.waiting)

    def add(self, stream: Stream, go: Go) -> None:
        stream.far = Waiting(self, stream)
        self.waiting[stream] = go
        self.pump()

    def pump(self) -> None:
        """Pass on what may be."""
        target = self._target
        sent = 0
        while self.waiting and (self._out < AT_ONCE + A_SECOND * target.rtt or not _carries(target)):
            stream = next(iter(self.waiting))
            if self.waiting.pop(stream)() is not None and _carries(target):
                self._out += 1
                sent += 1
        if sent:
            target.ask()
            target.sender.asked.append(lambda: self._answered(sent))

    def _answered(self, count: int) -> None:
        self._out -= count
        self.pump()


def _carries(link: Link) -> bool:
    """Whether it answers marks."""
    return link.is_up and not link.is_suspended


class Waiting(NullEnd):
    """The far end of a stream that waits for its turn."""

    def __init__(self, lane: RelayLane, stream: Stream) -> None:
        self._lane, self._stream = lane, stream

    def close(self, outcome: Outcome) -> None:
        self._lane.waiting.pop(self._stream, None)


class Lanes:
    """All of a node."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[Link, Link], RelayLane] = {}

    def add(self, link: Link, target: Link, stream: Stream, go: Go) -> None:
        """A tunnel that came by `link` as `stream` goes on by `target`: go() when it is its turn."""
        lane = self._lanes.get((link, target))
        if lane is None:
            self._lanes = {pair: it for pair, it in self._lanes.items() if not it.is_idle}
            lane = self._lanes[link, target] = RelayLane(target)
        lane.add(stream, go)

    def wake(self, target: Link) -> None:
        """It answers no marks any more: nothing waits for it."""
        for (_, to), lane in list(self._lanes.items()):
            if to is target:
                lane.pump()

    def remove(self, link: Link) -> None:
        """It is down."""
        self.wake(link)
        self._lanes = {pair: lane for pair, lane in self._lanes.items() if link not in pair}

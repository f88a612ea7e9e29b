"""The streams of one link: their labels, their number, and the memory that they take."""

from __future__ import annotations

from heapq import heappop, heappush

from ..limits import TABLE
from .stream import LEAST_WINDOW, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .link import Link

GUARANTEED = 64  # streams that any neighbour may open through this node, whatever others hold
# Of both sides together: with more, a neighbour has left off closing what was refused.
MAX_ROUTES = 2 * TABLE["streams"].default
STREAM_COST = 1 << 11  # bytes that a stream takes besides what it holds


class IdPool:
    """The numbers of the routes that one side has opened: the smallest that are free, so that they stay short."""

    __slots__ = ("_free", "_next")

    def __init__(self) -> None:
        self._free: list[int] = []
        self._next = 1

    def take(self) -> int:
        """One that is not in use."""
        if self._free:
            return heappop(self._free)
        self._next += 1
        return self._next - 1

    def give(self, label: int) -> None:
        """It may be used again."""
        heappush(self._free, label)


class StreamTable(dict[int, Stream]):
    """By the route number of frames that come in."""

    __slots__ = ("_labels", "_link", "fresh", "opened", "relayed")

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._labels = IdPool()
        self.opened = 0  # streams that we have opened
        self.relayed = 0  # streams that the neighbour has opened through this node
        self.fresh: list[tuple[Stream, dict[str, Any]]] = []  # opened in this receive(), and with what fields

    def begin(self) -> None:
        """Have the owner take what is fresh; what is closed again already costs nobody else anything.  Nothing came for
        these streams yet."""
        fresh, self.fresh = self.fresh, []
        for stream, fields in fresh:
            if not stream.close_sent:
                self._link.host.link_open(self._link, stream, fields)

    @property
    def limit(self) -> int:
        """How many streams each side may open."""
        return self._link.host.limits["streams"]

    @property
    def used(self) -> int:
        """How many streams the side that has opened more has open."""
        return max(self.opened, len(self) - self.opened)

    @property
    def is_overrun(self) -> bool:
        """Whether there are more streams than a neighbour that keeps to the protocol can have opened."""
        return len(self) >= max(MAX_ROUTES, 2 * self.limit)

    @property
    def has_room(self) -> bool:
        """Whether the link has memory for one more that the neighbour opens."""
        return len(self) < GUARANTEED or self._link.account.room >= STREAM_COST + LEAST_WINDOW

    @property
    def refusal(self) -> str:
        """Why the neighbour may not open one more; "" if it may."""
        if len(self) - self.opened >= self.limit:
            return f"{self.limit} tunnels are open on this link already"
        return "" if self.has_room else "no memory for more tunnels on this link"

    @property
    def may_open(self) -> bool:
        """Whether we may open one more."""
        return self.opened < self.limit

    def may_relay(self, of: StreamTable) -> bool:
        """Whether the neighbour of the link `of` may open one more stream through this one: in all no more than what is
        free here, in number and in memory, so that there is room for others (see `memory_limit`)."""
        free = min(self.limit - self.opened, self._link.account.room // (STREAM_COST + LEAST_WINDOW))
        return of.relayed < max(free, GUARANTEED)

    def open(self) -> Stream:
        """A new stream, that we open."""
        label = self._labels.take()
        self.opened += 1
        return self._add(Stream(self._link, label << 1 | 1, label << 1, opened_here=True))

    def take(self, route: int) -> Stream:
        """A new stream, that the neighbour opens as `route`."""
        return self._add(Stream(self._link, route, route | 1, opened_here=False))

    def _add(self, stream: Stream) -> Stream:
        self[stream.key] = stream
        self._link.account.charge(STREAM_COST)
        self._link.host.limits.note("streams", self.used)
        return stream

    def release(self, stream: Stream) -> None:
        """Both sides have closed it: its label may be used again."""
        if self.pop(stream.key, None) is None:
            return
        self._link.account.charge(-STREAM_COST)
        self.relayed -= stream.is_relayed
        if stream.opened_here:
            self.opened -= 1
            self._labels.give(stream.key >> 1)
        if not self:  # give back what many of them have left
            self.clear()
            self._labels = IdPool()

    def release_all(self) -> list[Stream]:
        """The link is down."""
        streams = list(self.values())
        self._link.account.charge(-STREAM_COST * len(streams))
        self.clear()
        self.opened = self.relayed = 0
        return streams

"""Stream table: the streams of one link, their labels, and the limits on their number and memory."""

from __future__ import annotations

from heapq import heappop, heappush

from ..limits import TABLE
from .stream import MIN_WINDOW, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .link import Link

GUARANTEED = 64  # streams that any neighbour may open through this node in any case
# Of both sides together.  A neighbour with more does not close what was refused.
MAX_ROUTES = 2 * TABLE["streams"].default
STREAM_COST = 1 << 11  # bytes of a stream without buffered data


class IdPool:
    """Allocator of the labels that one side assigns: the smallest free one, so that they stay short."""

    __slots__ = ("_free", "_next")

    def __init__(self) -> None:
        self._free: list[int] = []
        self._next = 1

    def take(self) -> int:
        """Return a free label."""
        if self._free:
            return heappop(self._free)
        self._next += 1
        return self._next - 1

    def give(self, label: int) -> None:
        """Free `label`."""
        heappush(self._free, label)


class StreamTable(dict[int, Stream]):
    """Streams by the route of received frames."""

    __slots__ = ("_labels", "_link", "pending_opens", "opened", "relayed")

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._labels = IdPool()
        self.opened = 0  # streams that this side has opened
        self.relayed = 0  # streams that the neighbour has opened to other nodes
        self.pending_opens: list[tuple[Stream, dict[str, Any]]] = []  # with the fields of their OPEN, in this receive()

    def dispatch_opens(self) -> None:
        """Report pending OPENs to the host, without those that are closed already."""
        fresh, self.pending_opens = self.pending_opens, []
        for stream, fields in fresh:
            if not stream.close_sent:
                self._link.host.link_open(self._link, stream, fields)

    @property
    def limit(self) -> int:
        """Number of streams that each side may open."""
        return self._link.host.limits["streams"]

    @property
    def used(self) -> int:
        """Number of streams of the side that has more open."""
        return max(self.opened, len(self) - self.opened)

    @property
    def is_overrun(self) -> bool:
        """Whether there are more streams than a correct neighbour can have opened."""
        return len(self) >= max(MAX_ROUTES, 2 * self.limit)

    @property
    def has_room(self) -> bool:
        """Whether the link has memory for one more stream of the neighbour."""
        return len(self) < GUARANTEED or self._link.account.room >= STREAM_COST + MIN_WINDOW

    @property
    def refusal(self) -> str:
        """Why the neighbour may not open one more stream; "" if it may."""
        if len(self) - self.opened >= self.limit:
            return f"{self.limit} tunnels are open on this link already"
        return "" if self.has_room else "no memory for more tunnels on this link"

    @property
    def may_open(self) -> bool:
        """Whether this side may open one more stream."""
        return self.opened < self.limit

    def may_relay(self, of: StreamTable) -> bool:
        """Whether the neighbour of the link `of` may open one more stream through this one.

        It may have as many in total as are free here, in number and in memory: a dynamic threshold (see
        `memory_limit`)."""
        free = min(self.limit - self.opened, self._link.account.room // (STREAM_COST + MIN_WINDOW))
        return of.relayed < max(free, GUARANTEED)

    def open(self) -> Stream:
        """Create a stream that this side opens."""
        label = self._labels.take()
        self.opened += 1
        return self._add(Stream(self._link, label << 1 | 1, label << 1, opened_here=True))

    def take(self, route: int) -> Stream:
        """Create a stream that the neighbour opens as `route`."""
        return self._add(Stream(self._link, route, route | 1, opened_here=False))

    def _add(self, stream: Stream) -> Stream:
        self[stream.key] = stream
        self._link.account.charge(STREAM_COST)
        self._link.host.limits.note("streams", self.used)
        return stream

    def release(self, stream: Stream) -> None:
        """Remove a stream that both sides have closed, and free its label."""
        if self.pop(stream.key, None) is None:
            return
        self._link.account.charge(-STREAM_COST)
        self.relayed -= stream.is_relayed
        if stream.opened_here:
            self.opened -= 1
            self._labels.give(stream.key >> 1)
        if not self:  # release the memory of the containers
            self.clear()
            self._labels = IdPool()

    def release_all(self) -> list[Stream]:
        """Remove and return all streams: the link is down."""
        streams = list(self.values())
        self._link.account.charge(-STREAM_COST * len(streams))
        self.clear()
        self.opened = self.relayed = 0
        return streams

"""The streams of one link: their labels, their number, and the memory that they take."""

from __future__ import annotations

from heapq import heappop, heappush

from .stream import LEAST_WINDOW, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .link import Link

MAX_STREAMS = 16384  # that we open on a link: 10,000 tunnels are a use that is known
GUARANTEED = 64  # streams that any neighbour may open through this node, whatever others hold
STREAM_COST = 1 << 11  # bytes that a stream takes besides what it holds


class Labels:
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

    __slots__ = ("_labels", "_link", "relayed")

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._labels = Labels()
        self.relayed = 0  # streams that the neighbour has opened through this node

    @property
    def has_room(self) -> bool:
        """Whether the link has memory for one more that the neighbour opens."""
        return len(self) < GUARANTEED or self._link.account.room >= STREAM_COST + LEAST_WINDOW

    def may_relay(self, of: StreamTable) -> bool:
        """Whether the neighbour of the link `of` may open one more stream through this one: in all no more than what is
        free here, in number and in memory, so that there is room for others (see `memory_limit`)."""
        free = min(MAX_STREAMS - len(self), self._link.account.room // (STREAM_COST + LEAST_WINDOW))
        return of.relayed < max(free, GUARANTEED)

    def open(self) -> Stream:
        """A new stream, that we open."""
        label = self._labels.take()
        return self._add(Stream(self._link, label << 1 | 1, label << 1, opened_here=True))

    def take(self, route: int) -> Stream:
        """A new stream, that the neighbour opens as `route`."""
        return self._add(Stream(self._link, route, route | 1, opened_here=False))

    def _add(self, stream: Stream) -> Stream:
        self[stream.key] = stream
        self._link.account.charge(STREAM_COST)
        return stream

    def release(self, stream: Stream) -> None:
        """Both sides have closed it: its label may be used again."""
        if self.pop(stream.key, None) is None:
            return
        self._link.account.charge(-STREAM_COST)
        self.relayed -= stream.is_relayed
        if stream.opened_here:
            self._labels.give(stream.key >> 1)
        if not self:  # give back what many of them have left
            self.clear()
            self._labels = Labels()

    def release_all(self) -> list[Stream]:
        """The link is down."""
        streams = list(self.values())
        self._link.account.charge(-STREAM_COST * len(streams))
        self.clear()
        self.relayed = 0
        return streams

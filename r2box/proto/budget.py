"""How much the neighbour may have sent on all streams of a link together and we have not passed on.

Each stream grants its neighbour credit out of this budget; so a link costs a bounded amount of memory, whatever its
streams do.  Credit that nobody uses is still spent: when little is left, the streams that were granted theirs longest
ago are asked to give back what they do not use (RECALL, RETURN), and get it again when they do.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .stream import Stream

LIMIT = 1 << 26  # 64 MiB: four streams at the largest window, or the least one for each of MAX_STREAMS
RESERVE = LIMIT // 8  # others are asked for theirs before less than this is left
WORTH = 1 << 14  # bytes: less credit is not worth a frame


class Budget:
    """`granted` bytes of credit are out or used by bytes that are here."""

    __slots__ = ("_holders", "granted")

    def __init__(self) -> None:
        self.granted = 0
        self._holders: dict[Stream, None] = {}  # longest ago first, less those that were asked since

    def grant(self, stream: Stream, wanted: int, least: int) -> int:
        """How much of `wanted` bytes of credit `stream` may give; `least` if that is too little to be worth a frame."""
        size = min(wanted, LIMIT - self.granted)
        size = size if size >= WORTH else least
        self.granted += size
        self._holders.pop(stream, None)
        self._holders[stream] = None
        if LIMIT - self.granted < RESERVE:
            self._recall()
        return size

    def _recall(self) -> None:
        wanted = 2 * RESERVE
        while wanted > 0 and len(self._holders) > 1:
            holder = next(iter(self._holders))
            del self._holders[holder]
            wanted -= holder.recall()

    def give_back(self, size: int) -> None:
        """`size` bytes were passed on, or their credit has come back."""
        self.granted -= size

    def forget(self, stream: Stream) -> None:
        """`stream` is closed; what it held it has given back."""
        self._holders.pop(stream, None)
        if not self._holders:
            self._holders = {}  # an empty dict keeps the room that it once had

    def clear(self) -> None:
        """The link is down."""
        self._holders.clear()

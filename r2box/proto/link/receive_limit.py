"""Link-level receive limit, shared by all streams.

Each stream grants its neighbour credit out of this limit; so the memory of a link is bounded for any number of streams.
Unused credit counts, too.  When little of the limit is left, the streams whose grants are oldest ask for unused credit
back (RECALL, answered by RETURN), and grant it again when it is needed.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..memory_limit import Account
    from .stream import Stream

LIMIT = 1 << 26  # 64 MiB: four streams at the largest window
WINDOWS = 1 / 2  # of the link's share of memory; the rest is for the minimum window of further streams
RESERVE = 1 / 8  # of it; credit is recalled when less is left
MIN_GRANT = 1 << 14  # bytes; less is not worth a CREDIT frame


class ReceiveLimit:
    """`granted` is unused credit plus the bytes in inboxes, which `account` is charged with."""

    __slots__ = ("_account", "_holders", "_parked", "granted")

    def __init__(self, account: Account) -> None:
        self._account = account
        self.granted = 0
        self._parked = 0  # granted bytes that are not charged during a suspension
        self._holders: dict[Stream, None] = {}  # streams, oldest grant first; without recalled ones

    def grant(self, stream: Stream, wanted: int, least: int) -> int:
        """Return how many of `wanted` bytes of credit `stream` may grant; `least` if they are not worth a frame."""
        share = min(int(self._account.share * WINDOWS), LIMIT)
        size = min(wanted, int((share - self._account.used) / (1 + WINDOWS)))  # the grant itself reduces the share
        size = size if size >= MIN_GRANT else least
        self._take(size)
        self._holders.pop(stream, None)
        self._holders[stream] = None
        if share - self._account.used < share * RESERVE:
            self._recall(int(2 * share * RESERVE))
        return size

    def _take(self, size: int) -> None:
        self.granted += size
        self._account.charge(size)

    def _recall(self, wanted: int) -> None:
        while wanted > 0 and len(self._holders) > 1:
            holder = next(iter(self._holders))
            del self._holders[holder]
            wanted -= holder.recall()

    def release_credit(self, size: int) -> None:
        """`size` bytes have left an inbox, or their credit was returned."""
        self._take(-size)

    def revoke_credit(self, size: int) -> None:
        """`size` bytes of credit can no longer be used."""
        parked = min(size, self._parked)
        self._parked -= parked
        self.granted -= size
        self._account.charge(parked - size)

    def park(self, size: int) -> None:
        """The link is suspended: release the memory for `size` bytes of unused credit to other links."""
        self._parked += size
        self._account.charge(-size)

    def unpark(self) -> None:
        """The link has resumed."""
        self._account.charge(self._parked)
        self._parked = 0

    def forget(self, stream: Stream) -> None:
        """Remove the closed `stream`, which has released its credit."""
        self._holders.pop(stream, None)
        if not self._holders:
            self._holders = {}  # a dict does not shrink

    def clear(self) -> None:
        """The link is down."""
        self._holders.clear()

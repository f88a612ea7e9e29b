"""How much the neighbour may have sent on all streams of a link together and we have not passed on.

Each stream grants its neighbour credit out of this budget; so a link costs a bounded amount of memory, whatever its
streams do.  Credit that nobody uses is still spent: when little is left, the streams that were granted theirs longest
ago are asked to give back what they do not use (RECALL, RETURN), and get it again when they do.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..memory_limit import Account
    from .stream import Stream

LIMIT = 1 << 26  # 64 MiB: four streams at the largest window
WINDOWS = 1 / 2  # of the link's share of memory: the rest is for the least window of further streams
RESERVE = 1 / 8  # others are asked for their credit before less than this part of it is left
WORTH = 1 << 14  # bytes; less credit is not worth a frame


class ReceiveLimit:
    """`granted` bytes of credit are out or used by bytes that are here; `account` is charged with them."""

    __slots__ = ("_account", "_holders", "_parked", "granted")

    def __init__(self, account: Account) -> None:
        self._account = account
        self.granted = 0
        self._parked = 0  # of the credit that is out, what the account is not charged with: the link is suspended
        self._holders: dict[Stream, None] = {}  # longest ago first, less those that were asked since

    def grant(self, stream: Stream, wanted: int, least: int) -> int:
        """How much of `wanted` bytes of credit `stream` may give; `least` if that is too little to be worth a frame."""
        share = min(int(self._account.share * WINDOWS), LIMIT)
        size = min(wanted, int((share - self._account.used) / (1 + WINDOWS)))  # what it takes makes the share smaller
        size = size if size >= WORTH else least
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

    def give_back(self, size: int) -> None:
        """`size` bytes were passed on, or their credit has come back."""
        self._take(-size)

    def take_back(self, size: int) -> None:
        """`size` bytes of credit will not be used."""
        parked = min(size, self._parked)
        self._parked -= parked
        self.granted -= size
        self._account.charge(parked - size)

    def park(self, size: int) -> None:
        """The link is suspended: the neighbour cannot use its credit of `size` bytes, so others may have the memory."""
        self._parked += size
        self._account.charge(-size)

    def unpark(self) -> None:
        """The link goes on."""
        self._account.charge(self._parked)
        self._parked = 0

    def forget(self, stream: Stream) -> None:
        """`stream` is closed; what it held it has given back."""
        self._holders.pop(stream, None)
        if not self._holders:
            self._holders = {}  # an empty dict keeps the room that it once had

    def clear(self) -> None:
        """The link is down."""
        self._holders.clear()

"""Memory of all links together: a shared limit, of which each may use as much as is left for others.

A fixed share for each link would be too small for one that is alone and too large for a thousand.  So the limit is a
dynamic threshold (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM
Transactions on Networking 6(2), 1998) with a factor of 1: a link may hold no more than what is free.  One link that
takes all it can has half of the memory, two have a third each, five a sixth each, and there is always room for another.
`FLOOR` is what each link has in any case.

What is counted is what is held: of a block of which a view is kept, the whole block.
"""

from __future__ import annotations

from .limits import LINKS_SHARE, TABLE

FLOOR = 1 << 16  # bytes that any link may hold
DEFAULT = int(TABLE["memory"].default * LINKS_SHARE)


class MemoryLimit:
    """`limit` bytes for all accounts together.  `high` is the most that was used since whoever sets it looked last."""

    __slots__ = ("high", "limit", "peak", "used")

    def __init__(self, limit: int = DEFAULT) -> None:
        self.limit = limit
        self.used = 0
        self.peak = 0
        self.high = 0


class Account:
    """What one link holds of a MemoryLimit."""

    __slots__ = ("of", "used")

    def __init__(self, of: MemoryLimit) -> None:
        self.of = of
        self.used = 0

    @property
    def share(self) -> int:
        """How many bytes it may hold: as many as nobody holds."""
        return max(self.of.limit - self.of.used, FLOOR)

    @property
    def room(self) -> int:
        """How many more bytes it may hold now; less than 0 if others need what it has."""
        return self.share - self.used

    def charge(self, size: int) -> None:
        """It holds `size` bytes more, or fewer if that is negative."""
        self.used += size
        self.of.used += size
        if self.of.used > self.of.high:
            self.of.high = self.of.used
            self.of.peak = max(self.of.peak, self.of.used)

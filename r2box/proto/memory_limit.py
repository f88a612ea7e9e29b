"""Memory limit of all links together: a shared buffer of which each link may use as much as is free.

A fixed share for each link would be too small for a single link and too large for a thousand.  So the limit is a
dynamic threshold (Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM
Transactions on Networking 6(2), 1998) with a factor of 1: a link may hold no more than what is free.  One link at its
limit has half of the memory, two have a third each, five a sixth each, and there is always room for another.  Each link
may hold `FLOOR` in any case.

Memory is counted as it is held: a view of a block counts the whole block.
"""

from __future__ import annotations

from .limits import LINKS_SHARE, TABLE

FLOOR = 1 << 16  # bytes that any link may hold
DEFAULT = int(TABLE["memory"].default * LINKS_SHARE)


class MemoryLimit:
    """`limit` bytes for all accounts.  `peak` is the high-water mark, `high` that since its reader last reset it."""

    __slots__ = ("high", "limit", "peak", "used")

    def __init__(self, limit: int = DEFAULT) -> None:
        self.limit = limit
        self.used = 0
        self.peak = 0
        self.high = 0


class Account:
    """The part of a MemoryLimit that one link holds."""

    __slots__ = ("of", "used")

    def __init__(self, of: MemoryLimit) -> None:
        self.of = of
        self.used = 0

    @property
    def share(self) -> int:
        """Bytes that it may hold: as many as are free."""
        return max(self.of.limit - self.of.used, FLOOR)

    @property
    def room(self) -> int:
        """Further bytes that it may hold now; negative if it exceeds its share."""
        return self.share - self.used

    def charge(self, size: int) -> None:
        """Add `size` bytes, which may be negative."""
        self.used += size
        self.of.used += size
        if self.of.used > self.of.high:
            self.of.high = self.of.used
            self.of.peak = max(self.of.peak, self.of.used)

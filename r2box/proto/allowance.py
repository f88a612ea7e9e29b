"""How much of something another may have: so much a second, and so much more after a silence (a token bucket)."""

from __future__ import annotations


class Allowance:
    """`rate` a second, and `burst` at most at once; the numbers are of whatever is counted."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, now

    def take(self, count: float, now: float) -> bool:
        """Whether there was so much; if not, nothing is taken."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if count > self._left:
            return False
        self._left -= count
        return True

    def renew(self) -> None:
        """Begin anew, with all of it."""
        self._left = self._burst

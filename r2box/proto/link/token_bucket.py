"""How much of something another may have: so much a second, and so much more after a silence (a token bucket)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..limits import Limits


class TokenBucket:
    """`rate` a second, and `burst` at most at once; the numbers are of whatever is counted."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, now

    def take(self, count: float, now: float) -> bool:
        """Whether there was so much; if not, nothing is taken."""
        self._refill(now)
        if count > self._left:
            return False
        self._left -= count
        return True

    def spend(self, count: float) -> None:
        """Take so much, even where that makes a debt."""
        self._left = max(self._left - count, -self._burst)

    def wait(self, now: float) -> float:
        """The seconds until nothing is owed."""
        self._refill(now)
        return max(0.0, -self._left / self._rate)

    def _refill(self, now: float) -> None:
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now

    def renew(self) -> None:
        """Begin anew, with all of it."""
        self._left = self._burst


MAX_ORIGINS = 64  # behind one neighbour that are told apart; one more takes the place of the one seen longest ago
ORIGIN_SHARE = 1 / 2  # of what a neighbour may ask for, for each origin behind it


class RequestLimit:
    """Requests a second of one neighbour, and of each origin behind it, which must not use up what others need: at most
    `limits[name]`, and `burst` at once."""

    __slots__ = ("_all", "_burst", "_count", "_limits", "_name", "_origins", "_rate", "_second", "_were")

    def __init__(self, limits: Limits, name: str, burst: float, now: float) -> None:
        self._limits = limits
        self._name = name
        self._burst = burst
        self._second = int(now)
        self._count = self._were = 0  # taken in this second, and in the one before
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._rate = self._limits[self._name]
        self._all = TokenBucket(self._rate, self._burst, now)
        self._origins: dict[tuple[str, ...], TokenBucket] = {}  # seen longest ago first

    def take(self, origin: tuple[str, ...], now: float) -> bool:
        """Whether one more request may come by `origin` (nearest first); if not, nothing is taken."""
        if self._rate != self._limits[self._name]:
            self._begin(now)
        if len(origin) > 2:  # not of the neighbour itself or a program there
            key = origin[:2]
            rate, burst = ORIGIN_SHARE * self._rate, ORIGIN_SHARE * self._burst
            own = self._origins.pop(key, None) or TokenBucket(rate, burst, now)
            if len(self._origins) >= MAX_ORIGINS:
                del self._origins[next(iter(self._origins))]
            self._origins[key] = own
            if not own.take(1.0, now):
                return False
        if not self._all.take(1.0, now):
            return False
        self._turn(now)
        self._count += 1
        self._limits.note(self._name, self._count)
        return True

    def spend(self, origin: tuple[str, ...], count: float) -> None:
        """One request by `origin` has cost so much more than others."""
        own = self._origins.get(origin[:2]) if len(origin) > 2 else None
        if own is not None:
            own.spend(count)
        self._all.spend(count)

    def _turn(self, now: float) -> None:
        passed = int(now) - self._second
        if passed:
            self._were, self._count = (self._count if passed == 1 else 0), 0
            self._second += passed

    def recent(self, now: float) -> int:
        """How many were taken in this second or the one before, whichever had more."""
        self._turn(now)
        return max(self._count, self._were)

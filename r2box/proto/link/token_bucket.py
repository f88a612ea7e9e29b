"""Token buckets: rate limits with a burst.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..limits import Limits


class TokenBucket:
    """A token bucket that fills at `rate` tokens a second up to `burst`."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, now

    def take(self, count: float, now: float) -> bool:
        """Take `count` tokens; False, and none taken, if there are fewer."""
        self._refill(now)
        if count > self._left:
            return False
        self._left -= count
        return True

    def spend(self, count: float) -> None:
        """Take `count` tokens even if that makes the level negative, down to -burst."""
        self._left = max(self._left - count, -self._burst)

    def wait(self, now: float) -> float:
        """Seconds until the level is not negative."""
        self._refill(now)
        return max(0.0, -self._left / self._rate)

    def _refill(self, now: float) -> None:
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now

    def refill(self) -> None:
        """Fill the bucket."""
        self._left = self._burst


MAX_ORIGINS = 64  # origins behind one neighbour with a bucket; a further one replaces the least recently used
ORIGIN_SHARE = 1 / 2  # of the rate of a neighbour, for each origin behind it


class RequestLimit:
    """Rate limit for one neighbour, and a lower one for each origin behind it, so that one origin cannot starve others.

    The rate is `limits[name]` a second, the burst `burst`.
    """

    __slots__ = ("_all", "_burst", "_count", "_limits", "_name", "_origins", "_rate", "_second", "_were")

    def __init__(self, limits: Limits, name: str, burst: float, now: float) -> None:
        self._limits = limits
        self._name = name
        self._burst = burst
        self._second = int(now)
        self._count = self._were = 0  # admitted in this second, and in the one before
        self._reset(now)

    def _reset(self, now: float) -> None:
        self._rate = self._limits[self._name]
        self._all = TokenBucket(self._rate, self._burst, now)
        self._origins: dict[tuple[str, ...], TokenBucket] = {}  # least recently used first

    def take(self, origin: tuple[str, ...], now: float) -> bool:
        """Whether one more request by `origin` (nearest first) is admitted; if not, it is not counted."""
        if self._rate != self._limits[self._name]:
            self._reset(now)
        if len(origin) > 2:  # from behind the neighbour and its programs
            key = origin[:2]
            rate, burst = ORIGIN_SHARE * self._rate, ORIGIN_SHARE * self._burst
            bucket = self._origins.pop(key, None) or TokenBucket(rate, burst, now)
            if len(self._origins) >= MAX_ORIGINS:
                del self._origins[next(iter(self._origins))]
            self._origins[key] = bucket
            if not bucket.take(1.0, now):
                return False
        if not self._all.take(1.0, now):
            return False
        self._turn(now)
        self._count += 1
        self._limits.note(self._name, self._count)
        return True

    def spend(self, origin: tuple[str, ...], count: float) -> None:
        """Charge a request by `origin` with `count` further ones."""
        bucket = self._origins.get(origin[:2]) if len(origin) > 2 else None
        if bucket is not None:
            bucket.spend(count)
        self._all.spend(count)

    def _turn(self, now: float) -> None:
        passed = int(now) - self._second
        if passed:
            self._were, self._count = (self._count if passed == 1 else 0), 0
            self._second += passed

    def recent(self, now: float) -> int:
        """Requests admitted in this second or the one before, the larger number."""
        self._turn(now)
        return max(self._count, self._were)

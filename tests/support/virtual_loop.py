"""A loop without a selector, whose time passes by itself from one timer to the next."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from r2box.net.io.loop import Timer


class VirtualTimer(Timer):
    """A timer that tells what has become of it."""

    __slots__ = ("is_cancelled",)

    def __init__(self, when: float, fn: Callable[[], object]) -> None:
        super().__init__(when, fn)
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        super().cancel()


class VirtualLoop:
    """The timers of a loop: `time` is now, `pending` says how many are still to come."""

    def __init__(self) -> None:
        self.time = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, VirtualTimer, Callable[[], object]]] = []

    def now(self) -> float:
        return self.time

    def later(self, seconds: float, fn: Callable[[], object]) -> VirtualTimer:
        timer = VirtualTimer(self.time + seconds, fn)
        heapq.heappush(self._timers, (self.time + seconds, next(self._order), timer, fn))
        return timer

    def soon(self, fn: Callable[[], object]) -> None:
        self.later(0, fn)

    @property
    def pending(self) -> int:
        return sum(not timer.is_cancelled for _, _, timer, _ in self._timers)

    def run(self) -> None:
        """Until nothing is to be done any more."""
        while self._timers:
            when, _, timer, fn = heapq.heappop(self._timers)
            if not timer.is_cancelled:
                self.time = when
                fn()

"""The numbers that stand for routes on a link: the smallest that are free, so that they stay short."""

from __future__ import annotations

from heapq import heappop, heappush


class Labels:
    """Of the routes that one side has opened."""

    __slots__ = ("_free", "_next")

    def __init__(self) -> None:
        self._free: list[int] = []
        self._next = 1

    def take(self) -> int:
        """One that nobody has."""
        if self._free:
            return heappop(self._free)
        self._next += 1
        return self._next - 1

    def give(self, label: int) -> None:
        """It may be used again."""
        heappush(self._free, label)

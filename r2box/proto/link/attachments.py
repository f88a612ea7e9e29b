"""Descriptors that came in on a control link and whose message has not.

They arrive in sets, one set with the first byte of its message.  Where the receiver had no free descriptor the kernel
drops the rest of a set, or a stream that stands for one cannot be joined: the message then gets `LOST` in its place.
"""

from __future__ import annotations

from collections import deque

from ...errors import WireError

LOST = -1  # in place of a descriptor that could not be received
REST = -2  # in place of the rest of a set, however many these are
MOST = 64  # that wait for their message


class Attached:
    """A queue of descriptors, `LOST` and `REST`."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()

    def add(self, descriptors: tuple[int, ...]) -> None:
        self._waiting.extend(descriptors)

    def check(self) -> None:
        """WireError if there are more than any neighbour of good will sends."""
        if len(self._waiting) > MOST:
            raise WireError(f"{len(self._waiting)} descriptors that no message asked for")

    def take(self, count: int) -> tuple[int, ...]:
        """The next `count`, those that were lost as `LOST`.  WireError if fewer came."""
        taken: list[int] = []
        while self._waiting and len(taken) < count:
            descriptor = self._waiting.popleft()
            taken += [LOST] * (min(count, MOST) - len(taken)) if descriptor == REST else [descriptor]
        if len(taken) < count:
            raise WireError(f"a message with {count} descriptors, of which {len(taken)} came")
        return tuple(taken)

    def clear(self) -> tuple[int, ...]:
        """All that are left, for the caller to close."""
        left = tuple(descriptor for descriptor in self._waiting if descriptor >= 0)
        self._waiting.clear()
        return left

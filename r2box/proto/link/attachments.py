"""Descriptors that were received on a control link before the message they belong to.

They arrive in sets, each with the first byte of its message.  The kernel drops the rest of a set when the receiver has
no free descriptor, and a stream that represents a descriptor may fail to be joined: the message then gets `LOST` in
that place.
"""

from __future__ import annotations

from collections import deque

from ...errors import WireError

LOST = -1  # in place of a descriptor that could not be received
REST = -2  # in place of the rest of a set, of any number
MOST = 64  # waiting for their message


class AttachedDescriptors:
    """A queue of descriptors, `LOST` and `REST`."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[int] = deque()

    def add(self, descriptors: tuple[int, ...]) -> None:
        self._waiting.extend(descriptors)

    def check(self) -> None:
        """WireError if more than MOST wait: a correct neighbour never sends so many."""
        if len(self._waiting) > MOST:
            raise WireError(f"{len(self._waiting)} descriptors without a message")

    def take(self, count: int) -> tuple[int, ...]:
        """Remove and return the next `count`, with `LOST` for lost ones.  WireError if there are fewer."""
        taken: list[int] = []
        while self._waiting and len(taken) < count:
            descriptor = self._waiting.popleft()
            taken += [LOST] * (min(count, MOST) - len(taken)) if descriptor == REST else [descriptor]
        if len(taken) < count:
            raise WireError(f"a message with {count} descriptors, of which {len(taken)} came")
        return tuple(taken)

    def clear(self) -> tuple[int, ...]:
        """Remove and return the rest, for the caller to close."""
        left = tuple(descriptor for descriptor in self._waiting if descriptor >= 0)
        self._waiting.clear()
        return left

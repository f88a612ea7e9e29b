"""Turns of the loop's time for the links of a node; the buffer that all of them read into; the flush after a turn."""

from __future__ import annotations

from collections import deque

from ...proto.link.replay_buffer import Block
from ...proto.link.token_bucket import TokenBucket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..io.loop import Loop

    class Driver(Protocol):
        """What has turns: a `driver.Driver`."""

        @property
        def is_pending(self) -> bool: ...
        def turn(self) -> None: ...
        def flush(self) -> None: ...

    class MemoryGuard(Protocol):
        """Ends links while all of them together hold more memory than they may."""

        @property
        def is_short(self) -> bool: ...
        def relieve(self) -> None: ...


FIRST_SIZE = 1 << 13  # to read at once until a neighbour has more to say: an idle program does without the rest
TURN = 1e-3  # seconds of the loop's time that one link may take before others have their turn
WORK = 256  # and the units of work in it: see `proto.wire.frames`
FULL = 2  # links that have such turns in one round; more share what these would have,
LEAST = 16  # but for so many units that each has in any case
CROWD = 1e-3  # seconds of a round that all links together may take that are not up,
SHARE = 1 / 4  # and of each second,
BURST = 0.05  # after so many seconds at once


class TurnGroup:
    """Links that are flushed together: after one was read from, all that this made ready to send, at once.

    A round of the loop is bounded, so that an answer does not wait long for its turn: while many links have more to do
    than fits into a turn, their turns are shorter; and links that are not up share `CROWD` of a round, however many
    they are, and those that are readable stand in a queue.  What they take in a second is bounded too, as others may
    need the processor.
    """

    def __init__(self, loop: Loop, guard: MemoryGuard | None = None) -> None:
        self._loop = loop
        self._guard = guard
        self._waiting: list[Driver] = []
        self._postponed: list[Driver] = []
        self._busy = 0  # links that had more to do in the last round
        self._crowd: deque[Driver] = deque()
        self._is_crowd_called = False
        self._crowd_time = TokenBucket(SHARE, BURST, loop.now())
        self._first = memoryview(bytearray(FIRST_SIZE))
        self._block: Block | None = None

    def inward(self) -> memoryview:
        """What to read into: it is good until the next call, and if it is of a Block, as long as there is a view of
        it."""
        if self._block is None:
            return self._first
        self._block = self._loop.pool.take(self._block)
        return memoryview(self._block)

    def widen(self) -> None:
        """A neighbour has more to say."""
        if self._block is None:
            self._block = self._loop.pool.take()

    def add(self, driver: Driver) -> None:
        if not self._waiting:
            self._loop.soon(self.flush)
        self._waiting.append(driver)

    def relieve(self) -> None:
        """Close links if they take more memory than they may."""
        if self._guard is not None and self._guard.is_short:
            self._guard.relieve()

    def postpone(self, driver: Driver) -> None:
        """Give `driver` its next turn in the next round of the loop; in the crowd, after those before it."""
        if driver.is_pending:
            self._crowd.append(driver)
            self._call_crowd()
            return
        if not self._postponed:
            self._loop.soon(self._give_turns)
        self._postponed.append(driver)

    def _call_crowd(self) -> None:
        if self._crowd and not self._is_crowd_called:
            self._is_crowd_called = True
            self._loop.soon(self._serve_crowd)

    def _serve_crowd(self) -> None:
        begun = now = self._loop.now()
        wait = self._crowd_time.wait(now)
        if wait:
            self._loop.later(wait, self._serve_crowd)
            return
        self._is_crowd_called = False
        for _ in range(len(self._crowd)):
            self._loop.call(self._crowd.popleft().turn)
            now = self._loop.now()
            if now - begun > CROWD:
                break
        self._crowd_time.spend(now - begun)
        self._call_crowd()

    def _give_turns(self) -> None:
        postponed, self._postponed = self._postponed, []
        self._busy = len(postponed)
        for driver in postponed:
            self._loop.call(driver.turn)
        if not self._postponed:
            self._busy = 0

    @property
    def work(self) -> int:
        """How many units of work a link may do in the turn that it has now."""
        busy = max(self._busy, len(self._postponed))
        return WORK if busy <= FULL else max(WORK * FULL // busy, LEAST)

    def flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for driver in waiting:
            self._loop.call(driver.flush)  # one that fails must not silence the others

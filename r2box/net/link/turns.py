"""Turn scheduler: shares the loop's time among the links of a node.  It also owns their read buffer."""

from __future__ import annotations

from collections import deque

from ...proto.link.replay_buffer import Block
from ...proto.link.token_bucket import TokenBucket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..io.loop import Loop

    class Driver(Protocol):
        """What has turns: a `driver.LinkDriver`."""

        @property
        def is_pending(self) -> bool: ...
        def turn(self) -> None: ...
        def flush(self) -> None: ...

    class MemoryEnforcer(Protocol):
        """Closes links while all of them together exceed the memory limit."""

        @property
        def is_over_limit(self) -> bool: ...
        def close_links(self) -> None: ...


FIRST_SIZE = 1 << 13  # bytes of the buffer until a read fills it: an idle program needs no larger one
TURN = 1e-3  # seconds of a link's turn
WORK = 256  # units of work in a turn: see `proto.wire.frames`
FULL_TURNS = 2  # links with full turns in one round; more links share the work of these,
MIN_WORK = 16  # but each has at least so many units
PENDING_TIME = 1e-3  # seconds of a round for all pending links together,
PENDING_SHARE = 1 / 4  # and of each second,
PENDING_BURST = 0.05  # after so many seconds at once


class TurnGroup:
    """Links that share the loop's time.  A read is followed by one flush of all links that it made ready to send.

    A round of the loop is bounded, so that an answer does not wait long.  While many links have more work than fits
    into a turn, their turns are shorter.  Pending links, which are not up yet, share `PENDING_TIME` of a round: those
    that are readable wait in a queue.  Their share of each second is bounded too, to leave the processor to others.
    """

    def __init__(self, loop: Loop, memory: MemoryEnforcer | None = None) -> None:
        self._loop = loop
        self._memory = memory
        self._to_flush: list[Driver] = []
        self._postponed: list[Driver] = []
        self._busy = 0  # links that were postponed in the last round
        self._pending: deque[Driver] = deque()
        self._is_pending_scheduled = False
        self._pending_time = TokenBucket(PENDING_SHARE, PENDING_BURST, loop.now())
        self._first = memoryview(bytearray(FIRST_SIZE))
        self._block: Block | None = None

    def read_buffer(self) -> memoryview:
        """The buffer to read into.  It is valid until the next call; one of a Block, as long as a view of it exists."""
        if self._block is None:
            return self._first
        self._block = self._loop.pool.take(self._block)
        return memoryview(self._block)

    def enlarge(self) -> None:
        """Use a larger buffer: a read has filled it."""
        if self._block is None:
            self._block = self._loop.pool.take()

    def add(self, driver: Driver) -> None:
        """Flush `driver` at the end of this round of the loop."""
        if not self._to_flush:
            self._loop.soon(self.flush)
        self._to_flush.append(driver)

    def limit_memory(self) -> None:
        """Close links if they exceed the memory limit."""
        if self._memory is not None and self._memory.is_over_limit:
            self._memory.close_links()

    def postpone(self, driver: Driver) -> None:
        """Give `driver` its next turn in the next round of the loop, or if it is pending, when the queue reaches it."""
        if driver.is_pending:
            self._pending.append(driver)
            self._schedule_pending()
            return
        if not self._postponed:
            self._loop.soon(self._give_turns)
        self._postponed.append(driver)

    def _schedule_pending(self) -> None:
        if self._pending and not self._is_pending_scheduled:
            self._is_pending_scheduled = True
            self._loop.soon(self._serve_pending)

    def _serve_pending(self) -> None:
        begun = now = self._loop.now()
        wait = self._pending_time.wait(now)
        if wait:
            self._loop.later(wait, self._serve_pending)
            return
        self._is_pending_scheduled = False
        for _ in range(len(self._pending)):
            self._loop.call(self._pending.popleft().turn)
            now = self._loop.now()
            if now - begun > PENDING_TIME:
                break
        self._pending_time.spend(now - begun)
        self._schedule_pending()

    def _give_turns(self) -> None:
        postponed, self._postponed = self._postponed, []
        self._busy = len(postponed)
        for driver in postponed:
            self._loop.call(driver.turn)
        if not self._postponed:
            self._busy = 0

    @property
    def work(self) -> int:
        """Units of work in a turn now."""
        busy = max(self._busy, len(self._postponed))
        return WORK if busy <= FULL_TURNS else max(WORK * FULL_TURNS // busy, MIN_WORK)

    def flush(self) -> None:
        drivers, self._to_flush = self._to_flush, []
        for driver in drivers:
            self._loop.call(driver.flush)  # an exception of one must not stop the others

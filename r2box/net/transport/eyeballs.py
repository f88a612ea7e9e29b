"""Happy Eyeballs (RFC 8305): concurrent connection attempts to the addresses of one host.

A name may have several addresses, and some may be silently unreachable: a family that is configured but not routed, a
host that is down.  Sequential attempts would wait for each timeout.  So another attempt starts when the last one has
not succeeded for DELAY seconds, and the first connection wins.

    order   as the resolver sorts them (RFC 6724), alternating between the families: if one family is unreachable,
            the second attempt uses the other one (RFC 8305, 4)
    delay   DELAY seconds between attempts, or none after a failure.  Most round trips are shorter, so most hosts see
            one attempt (RFC 8305, 5)
    limit   MAX_ATTEMPTS at a time, since each holds a descriptor.  A further one replaces the oldest, which has had
            MAX_ATTEMPTS * DELAY = 4 s
    end     a connection, the failure of all attempts, or the caller's deadline

A Race opens no sockets: `begin` does, so it also runs on a virtual clock.
"""

from __future__ import annotations

import errno
from collections import deque
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol, Union

    from ..io.loop import Timer
    from .sockaddr import Address

    class Clock(Protocol):
        """The part of the loop that a Race uses."""

        def later(self, seconds: float, fn: Callable[[], object]) -> Timer: ...

    class Runner(Protocol):
        """A connection attempt."""

        def close(self) -> None: ...

    Failures = list[tuple[Address, int]]  # in the order of failing, each with its errno
    Report = Callable[[int, int], None]  # (descriptor or -1, errno or 0)
    Begin = Callable[[Address, Report], Runner]
    Ended = Callable[[Union[int, Failures]], None]

DELAY = 0.25  # seconds: RFC 8305, 5 recommends it, and 0.1 to 2
MAX_ATTEMPTS = 16  # at a time


def interleave(addresses: Iterable[Address]) -> list[Address]:
    """Each address once, alternating between the families; the order within a family stays."""
    families: dict[int, deque[Address]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address[0], deque()).append(address)
    found: list[Address] = []
    while families:
        for family, queue in list(families.items()):
            found.append(queue.popleft())
            if not queue:
                del families[family]
    return found


class Race:
    """Concurrent attempts to `addresses`.  `ended(descriptor or failures)` is called once, unless it is closed first.

    `begin(address, report)` starts an attempt, or raises OSError.  The attempt later calls `report(descriptor, 0)` or
    `report(-1, errno)` once, unless it is closed.
    """

    def __init__(self, clock: Clock, addresses: Iterable[Address], begin: Begin, ended: Ended) -> None:
        self._clock, self._begin = clock, begin
        self._ended: Ended | None = ended
        self._waiting = deque(interleave(addresses))
        self._running: dict[Address, Runner] = {}  # the oldest first
        self._failures: Failures = []
        self._timer: Timer | None = None

    def start(self) -> None:
        """Start the first attempt."""
        self._next()

    def _next(self) -> None:
        """Start the next attempt; if it fails at once, the one after it."""
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            address = self._waiting.popleft()
            try:
                attempt = self._begin(address, partial(self._reported, address))
            except OSError as error:
                self._failures.append((address, error.errno or errno.EIO))
                continue
            self._running[address] = attempt
            if len(self._running) > MAX_ATTEMPTS:
                self._abandon(next(iter(self._running)))
            self._timer = self._clock.later(DELAY, self._next)
            return
        if not self._running:
            self._end(self._failures)

    def _reported(self, address: Address, fd: int, code: int) -> None:
        del self._running[address]
        if fd >= 0:
            self._end(fd)
            return
        self._failures.append((address, code))
        self._next()

    def _abandon(self, address: Address) -> None:
        self._running.pop(address).close()
        self._failures.append((address, errno.ETIMEDOUT))

    def expire(self) -> None:
        """End at the caller's deadline: every attempt has timed out."""
        for address in list(self._running):
            self._abandon(address)
        self._failures += [(address, errno.ETIMEDOUT) for address in self._waiting]
        self._end(self._failures)

    def _end(self, result: int | Failures) -> None:
        ended, self._ended = self._ended, None
        self.close()
        if ended is not None:
            ended(result)

    def close(self) -> None:
        """Close all attempts; call nothing any more."""
        self._ended = None
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        for attempt in self._running.values():
            attempt.close()
        self._running.clear()

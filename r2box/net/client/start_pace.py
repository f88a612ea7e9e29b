"""Pace of program starts: few programs start at the same time, so that others have their turns of the processors.

A program that starts is busy: its shell, exec, the linker, an interpreter.  A thousand that start at once take the
processors from everything else for as long as that takes; a few at a time are all ready no later, as the work is the
same.

A program *settles* when it first waits for something, when it ends, or after `SETTLE_TIMEOUT`.  As many may be
unsettled as there are processors.  Where the system does not show the state of a process (/proc), there is no pace.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..io.loop import Loop, Timer

SETTLE_TIMEOUT = 0.1  # seconds: what computes from the beginning, or loads much, keeps others waiting no longer
LOOK = 2e-3  # seconds between two looks while something waits
_BUSY = b"RD"  # states of proc_pid_stat(5): running, and waiting for a disk


class Settling:
    """The programs that have not settled.  `free()` is called when there is room for another, if `wait` was called."""

    def __init__(self, loop: Loop, free: Callable[[], None], most: int = 0) -> None:
        self._loop = loop
        self._free = free
        self._most = most or processors()
        self._since: dict[int, float] = {}  # when each was started
        self._timer: Timer | None = None

    def add(self, pid: int) -> None:
        """`pid` was started."""
        self._since[pid] = self._loop.now()

    def discard(self, pid: int) -> None:
        """`pid` has ended."""
        self._since.pop(pid, None)

    @property
    def has_room(self) -> bool:
        """Whether another program may be started."""
        if len(self._since) >= self._most:
            now = self._loop.now()
            self._since = {pid: at for pid, at in self._since.items() if now - at < SETTLE_TIMEOUT and is_busy(pid)}
        return len(self._since) < self._most

    def wait(self) -> None:
        """Call `free()` when there is room."""
        if self._timer is None:
            self._timer = self._loop.later(LOOK, self._look)

    def _look(self) -> None:
        self._timer = None
        if self.has_room:
            self._free()
        else:
            self.wait()


def processors() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def is_busy(pid: int) -> bool:
    """Whether the process runs, or waits for nothing but its turn or a disk; False where that is not known."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return file.read(512).rpartition(b")")[2].lstrip()[:1] in _BUSY
    except OSError:
        return False

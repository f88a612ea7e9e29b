"""Memory trim: returns free memory to the system after many links, or large ones, have closed.

The C library keeps freed memory for later use, so a daemon would stay as large as it was under an attack, or with a
thousand neighbours.  Some time after the last of these links has closed, malloc_trim(3) of glibc is called.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...proto.memory_limit import MemoryLimit
    from ..io.loop import Loop, Timer

MIN_LINKS = 32  # that have closed,
MIN_SIZE = 1 << 23  # or bytes that links have held at a time
DELAY = 2.0  # seconds after the last link has closed


class MemoryTrim:
    """Counts the links that close; `memory` accounts for what links hold."""

    def __init__(self, loop: Loop, memory: MemoryLimit) -> None:
        self._loop = loop
        self._memory = memory
        self._closed = 0
        self._timer: Timer | None = None

    def link_closed(self) -> None:
        self._closed += 1
        if self._closed < MIN_LINKS and self._memory.high < MIN_SIZE:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.later(DELAY, self._trim)

    def _trim(self) -> None:
        self._timer = None
        self._closed = 0
        self._memory.high = self._memory.used
        trim()


def trim() -> None:
    """Return the free memory of this process to the system, where the C library can do that."""
    import gc

    gc.collect()  # reference cycles of closed links
    try:
        import ctypes  # takes 1 MiB, and few daemons need it

        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, OSError, AttributeError):
        return  # not glibc

"""Gives memory back to the system when a crowd has left.

What links held is free once they have ended, but the C library keeps it for later: a daemon that was attacked, or had a
thousand neighbours for a minute, would be as large for ever.  So some time after many links have ended, or links that
held much, the library is asked to return what it does not use (malloc_trim(3), of glibc).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...proto.memory_limit import MemoryLimit
    from ..io.loop import Loop, Timer

MANY = 32  # links that have ended
MUCH = 1 << 23  # bytes that links have held at a time
PAUSE = 2.0  # seconds without another end


class MemoryTrim:
    """Watches the ends of links whose memory `memory` counts."""

    def __init__(self, loop: Loop, memory: MemoryLimit) -> None:
        self._loop = loop
        self._memory = memory
        self._ended = 0
        self._timer: Timer | None = None

    def link_ended(self) -> None:
        self._ended += 1
        if self._ended < MANY and self._memory.high < MUCH:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.later(PAUSE, self._trim)

    def _trim(self) -> None:
        self._timer = None
        self._ended = 0
        self._memory.high = self._memory.used
        give_back()


def give_back() -> None:
    """Return the free memory of this process to the system, where the C library can do that."""
    import gc

    gc.collect()  # what dead links left in circles
    try:
        import ctypes  # 1 MiB, which few daemons ever need

        ctypes.CDLL(None).malloc_trim(0)
    except (ImportError, OSError, AttributeError):
        return  # another C library, which does as it likes

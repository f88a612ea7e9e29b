"""Heartbeat of iosh: whether the other end still answers, found out by PING frames while nothing else comes.

A PING is sent for each BEAT seconds in which nothing was read, at most MAX_PINGS until something is.  So a shell that
says nothing is told from a link that is cut, also where what was typed is not echoed.
"""

from __future__ import annotations

from .protocol import PING, encode_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...net.io.loop import Loop, Timer
    from .connection import ShellConnection

BEAT = 1.0  # seconds
SILENCE = 3.0  # seconds without a byte, after which the other end is said not to answer
MAX_PINGS = 8  # unanswered ones on their way; they are answered when a link is resumed
LATE = 1.0  # seconds by which a timer may be late; beyond that this process did not run (stopped, host asleep)


class Heartbeat:
    """Calls `silent(seconds)` each BEAT while nothing has come for SILENCE or more, and `back(seconds)` when it ends.

    `frames.came` is taken for the latter, so `back` runs before the frames that have come are passed on.
    """

    def __init__(
        self, loop: Loop, frames: ShellConnection, silent: Callable[[float], None], back: Callable[[float], None]
    ) -> None:
        self._loop = loop
        self._frames = frames
        self._silent = silent
        self._back = back
        self._last = loop.now()  # time at which something came
        self._pings = 0
        self._is_silent = False
        self._timer: Timer | None = None
        frames.came = self._came
        self._wait()

    def restart(self) -> None:
        """Begin anew: the time until now does not count, for example because this process was stopped."""
        self._last, self._is_silent, self._pings = self._loop.now(), False, 0
        self._wait()

    def _came(self) -> None:
        now = self._loop.now()
        seconds, self._last, self._pings = now - self._last, now, 0
        if self._is_silent:
            self._is_silent = False
            self._wait()
            self._back(seconds)

    def _wait(self) -> None:
        """Wake up at the next full BEAT since something came, at least half of one from now."""
        now = self._loop.now()
        due = self._last + BEAT * ((now - self._last + BEAT / 2) // BEAT + 1)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.later(due - now, lambda: self._beat(due))

    def _beat(self, due: float) -> None:
        now = self._loop.now()
        if now - due > LATE:
            self._last = now
        quiet = now - self._last
        if quiet > BEAT / 2 and self._pings < MAX_PINGS:
            self._pings += 1
            self._frames.send(encode_frame(PING))
        self._wait()
        if quiet >= SILENCE - BEAT / 4:
            self._is_silent = True
            self._silent(quiet)

    def close(self) -> None:
        """Send and call nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._frames.came = None

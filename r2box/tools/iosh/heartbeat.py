"""Heartbeat of iosh: detects by PING frames that ioshd does not answer.

A PING is sent after each BEAT seconds without a byte from ioshd, at most MAX_PINGS in a row.  This distinguishes a
silent program from a suspended link, even without echo.
"""

from __future__ import annotations

from .protocol import PING, encode_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...net.io.loop import Loop, Timer
    from .connection import ShellConnection

BEAT = 1.0  # seconds
SILENCE = 3.0  # seconds without a byte after which ioshd counts as not answering
MAX_PINGS = 8  # unanswered; they are answered when the link is resumed
LATE = 1.0  # seconds by which a timer may be late; more means that this process was stopped or the host asleep


class Heartbeat:
    """Calls `silent(seconds)` each BEAT while ioshd has not answered for SILENCE, and `back(seconds)` when it answers.

    Sets `on_bytes` of the connection, so `back` runs before the frames that arrived are handled.
    """

    def __init__(
        self, loop: Loop, connection: ShellConnection, silent: Callable[[float], None], back: Callable[[float], None]
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._silent = silent
        self._back = back
        self._last = loop.now()  # time of the last byte
        self._pings = 0
        self._is_silent = False
        self._timer: Timer | None = None
        connection.on_bytes = self._on_bytes
        self._wait()

    def restart(self) -> None:
        """Restart: do not count the time until now, for example because this process was stopped."""
        self._last, self._is_silent, self._pings = self._loop.now(), False, 0
        self._wait()

    def _on_bytes(self) -> None:
        now = self._loop.now()
        seconds, self._last, self._pings = now - self._last, now, 0
        if self._is_silent:
            self._is_silent = False
            self._wait()
            self._back(seconds)

    def _wait(self) -> None:
        """Set the timer to the next multiple of BEAT since the last byte, at least half a BEAT from now."""
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
            self._connection.send(encode_frame(PING))
        self._wait()
        if quiet >= SILENCE - BEAT / 4:
            self._is_silent = True
            self._silent(quiet)

    def close(self) -> None:
        """Stop; call nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._connection.on_bytes = None

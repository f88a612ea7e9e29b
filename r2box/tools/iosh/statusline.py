"""Status line of iosh: reports on the terminal that the other end does not answer, and when it answers again.

It overwrites the top row.  When the other end answers, the row is cleared and the program is made to redraw its screen.
On a terminal without cursor addressing (TERM is dumb) it is two lines in the output instead.
"""

from __future__ import annotations

import os
import time

from .screen import KEPT, draw_line, erase_line, find_unfinished

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...net.io.loop import Loop, Timer

HIDDEN, SILENT, BACK = "hidden", "silent", "back"  # states
STAYS = 2.0  # seconds of BACK, unless there is output before


def spell_seconds(seconds: float) -> str:
    """A duration in its largest unit.

    >>> spell_seconds(3.2), spell_seconds(119), spell_seconds(120), spell_seconds(7200)
    ('3 s', '119 s', '2 min', '2 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min" if seconds < 7200 else f"{seconds // 3600:.0f} h"


class StatusLine:
    """`show(data)` writes to the terminal and returns whether it could; `redraw()` makes the program redraw its screen.

    `name` is the name of the other end, `columns()` the width of the terminal.
    """

    def __init__(
        self, loop: Loop, name: str, show: Callable[[bytes], bool], columns: Callable[[], int],
        redraw: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._name = name
        self._show = show
        self._columns = columns
        self._redraw = redraw
        self._state = HIDDEN
        self._since = ""  # time of day of the last byte
        self._tail = b""  # of the program's output
        self._timer: Timer | None = None
        self._is_plain = os.environ.get("TERM", "") in ("", "dumb", "unknown")

    def output(self, data: bytes) -> None:
        """Hide the line; call it before `data`, output of the program, is written to the terminal."""
        self.hide()
        self._tail = (self._tail + data)[-KEPT:]

    def silent(self, seconds: float) -> None:
        """Show that nothing was received for `seconds`."""
        if self._state != SILENT:  # else it may not be drawn yet, as the terminal was blocked
            self._since = time.strftime("%H:%M:%S", time.localtime(time.time() - seconds))
        text = f"iosh: no answer from {self._name} since {self._since}"
        if self._draw(SILENT, f"{text} ({spell_seconds(seconds)}); Enter ~. leaves"):
            self._cancel()

    def back(self, seconds: float) -> None:
        """Show that the other end answers again, after `seconds`."""
        text = f"iosh: {self._name} answers again, after {spell_seconds(seconds)}"
        if self._state == SILENT and self._draw(BACK, text):
            self._timer = self._loop.later(STAYS, self.hide)

    def _draw(self, state: str, text: str) -> bool:
        if self._is_plain:
            done = state == self._state or self._show(f"\r\n{text}\r\n".encode("ascii", "replace"))
        else:
            done = self._show(draw_line(text, self._columns(), find_unfinished(self._tail)))
        self._state = state if done else self._state
        return done

    def hide(self, redraw: bool = True) -> None:
        """Remove the line, if it is shown; with `redraw`, make the program redraw its screen."""
        if self._state == HIDDEN:
            return
        self._cancel()
        if not self._is_plain and self._show(erase_line(find_unfinished(self._tail))) and redraw:
            self._redraw()
        self._state = HIDDEN

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

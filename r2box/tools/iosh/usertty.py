"""The terminal that a user sits at: raw mode and back, its size, and keys that are for the tool itself."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Terminal:
    """The terminal one sits at, on stdin.  Without one, nothing is done."""

    def __init__(self) -> None:
        self._modes: list[Any] | None = None  # as they were found, while it is raw

    def make_raw(self) -> None:
        if not os.isatty(0):
            return
        import termios
        import tty

        self._modes = self._modes or termios.tcgetattr(0)
        tty.setraw(0, termios.TCSANOW)  # and what was typed already is not lost

    def restore(self) -> None:
        """As it was.  Safe to call again, and from the background, where we would be stopped for it."""
        modes, self._modes = self._modes, None
        if modes is None:
            return
        import termios

        handler = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            termios.tcsetattr(0, termios.TCSANOW, modes)
        except termios.error:
            pass  # it is gone
        signal.signal(signal.SIGTTOU, handler)

    @property
    def is_raw(self) -> bool:
        return self._modes is not None

    @staticmethod
    def size() -> tuple[int, int]:
        """(rows, columns); zeros where there is no terminal."""
        for fd in range(3):
            try:
                columns, rows = os.get_terminal_size(fd)
                return rows, columns
            except OSError:
                continue
        return 0, 0


class Escapes:
    """Finds in what is typed the keys that are for iosh; `keys` says what each does."""

    def __init__(self, keys: dict[int, Callable[[], None]]) -> None:
        self._keys = keys
        self._at_start = True  # of a line
        self._is_held = False  # a ~ there

    def take(self, data: bytes) -> bytes:
        """What of `data`, and of what was held back, goes to the other side."""
        passed = bytearray()
        for key in data:
            if self._is_held:
                self._is_held = False
                if key in self._keys:
                    self._keys[key]()
                    continue
                passed += b"" if key == ord("~") else b"~"
            elif self._at_start and key == ord("~"):
                self._is_held = True
                continue
            passed.append(key)
            self._at_start = key in b"\r\n"
        return bytes(passed)

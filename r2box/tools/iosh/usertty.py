"""The user's terminal: raw mode, its size, and escape keys."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Terminal:
    """The user's terminal, on stdin.  Does nothing if stdin is not a terminal."""

    def __init__(self) -> None:
        self._modes: list[Any] | None = None  # the original ones, while it is raw

    def make_raw(self) -> None:
        if not os.isatty(0):
            return
        import termios
        import tty

        self._modes = self._modes or termios.tcgetattr(0)
        tty.setraw(0, termios.TCSANOW)  # TCSANOW keeps what was typed already

    def restore(self) -> None:
        """Restore the original modes.  Safe to call again, and in the background, where SIGTTOU would stop us."""
        modes, self._modes = self._modes, None
        if modes is None:
            return
        import termios

        handler = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            termios.tcsetattr(0, termios.TCSANOW, modes)
        except termios.error:
            pass  # the terminal was closed
        signal.signal(signal.SIGTTOU, handler)

    @property
    def is_raw(self) -> bool:
        return self._modes is not None

    @staticmethod
    def size() -> tuple[int, int]:
        """(rows, columns); zeros without a terminal."""
        for fd in range(3):
            try:
                columns, rows = os.get_terminal_size(fd)
                return rows, columns
            except OSError:
                continue
        return 0, 0


class Escapes:
    """Filter of typed bytes for the escape keys of iosh, ~ and a key after a newline; `keys` are their actions."""

    def __init__(self, keys: dict[int, Callable[[], None]]) -> None:
        self._keys = keys
        self._at_start = True  # of a line
        self._is_held = False  # a ~ at the start of a line

    def take(self, data: bytes) -> bytes:
        """The bytes of `data`, and of what was held back, to send to the other end."""
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

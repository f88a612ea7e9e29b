"""Log: messages on stderr, without blocking.

A line is at most PIPE_BUF bytes and is written only if stderr takes it at once: a blocked terminal or journal must not
stop a daemon.  Lost lines are counted, and the next line that is written reports their number.  After `use_syslog`,
lines are sent to the system log in the same way.

If stderr is systemd's journal, a line begins with its priority (sd-daemon(3)), and without the name of the tool if the
journal adds that.
"""

from __future__ import annotations

import os
import select
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ERROR, WARNING, INFO, DEBUG = range(-1, 3)
_PRIORITIES = {ERROR: 3, WARNING: 4, INFO: 6, DEBUG: 7}  # syslog(3)
_DAEMON = 3 << 3  # the facility of syslog(3)
_SYSLOG = "/dev/log"
_logged_once: set[str] = set()  # the texts of `Log.once`; the source bounds their number
_MAX_LINE = getattr(select, "PIPE_BUF", 512)


def prefix(name: str, level: int) -> str:
    """The beginning of a line of the tool `name`."""
    try:
        status = os.fstat(2)
    except OSError:
        return f"{name}: "
    if os.environ.get("JOURNAL_STREAM") != f"{status.st_dev}:{status.st_ino}":
        return f"{name}: "
    is_known = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())  # the journal adds the name
    return f"<{_PRIORITIES[level]}>" + ("" if is_known else f"{name}: ")


def printable(text: str) -> str:
    """`text` on one line, with control characters and lone surrogates as Python escapes: \\x1b."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Log:
    """Log of the tool `name`.  `level`: -1 logs errors, 0 also warnings, 1 also events, 2 also each tunnel."""

    def __init__(self, name: str, level: int = WARNING) -> None:
        self.name = name
        self.level = level
        self._lost = 0
        self._prefixes = {level: prefix(name, level) for level in _PRIORITIES}
        self._poll = select.poll()
        self._poll.register(2, select.POLLOUT)
        self._syslog: socket.socket | None = None

    def bug(self, error: BaseException) -> None:
        """Log an unexpected exception and its place.  One failed tunnel must not end the others."""
        import traceback

        lines = traceback.format_exception(type(error), error, error.__traceback__)
        self._write(ERROR, "internal error: " + " | ".join(" ".join(line.split()) for line in lines[-3:]))

    def error(self, text: str) -> None:
        self._write(ERROR, text)

    def warning(self, text: str) -> None:
        self._write(WARNING, text)

    def once(self, text: str) -> None:
        """Log a warning once per process; nothing if `text` is empty."""
        if text and text not in _logged_once:
            _logged_once.add(text)
            self.warning(text)

    def info(self, text: str) -> None:
        self._write(INFO, text)

    def debug(self, text: str) -> None:
        self._write(DEBUG, text)

    def use_syslog(self) -> None:
        """Send further lines to the system log instead of stderr."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        self._syslog = sock

    def _write(self, level: int, text: str) -> None:
        if level > self.level:
            return
        text = printable(text)
        if self._syslog is not None:
            message = f"<{_DAEMON | _PRIORITIES[level]}>{self.name}[{os.getpid()}]: {text}"
            try:
                self._syslog.sendto(message.encode("utf-8", "replace")[:_MAX_LINE], _SYSLOG)
            except OSError:
                self._lost += 1  # it is full, or does not exist
            return
        if not self._poll.poll(0):
            self._lost += 1
            return
        lost, self._lost = self._lost, 0
        note = f" ({lost} lines before this one were lost)" if lost else ""
        line = f"{self._prefixes[level]}{text}{note}".encode("utf-8", "replace")[: _MAX_LINE - 1] + b"\n"
        try:
            os.write(2, line)
        except OSError:
            self._lost = lost + 1  # stderr is closed


class LineLimit:
    """Rate limit of log lines: logs the first `FIRST` lines of a kind in a period, and the number of the others."""

    FIRST = 5
    PERIOD = 10.0  # seconds
    KINDS = 64  # counted separately at a time

    def __init__(self, log: Log, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._log = log
        self._later = later
        self._counts: dict[str, int] = {}

    def warning(self, kind: str, text: str) -> None:
        """Log `text`, unless the period already has FIRST lines of `kind`, such as a source address."""
        kind = kind if kind in self._counts or len(self._counts) < self.KINDS else "other addresses"
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if count == 1:
            self._later(self.PERIOD, lambda: self._sum_up(kind))
        if count <= self.FIRST:
            self._log.warning(text)

    def _sum_up(self, kind: str) -> None:
        more = self._counts.pop(kind) - self.FIRST
        if more > 0:
            self._log.warning(f"{more:,} more from {kind} in {self.PERIOD:.0f} s")

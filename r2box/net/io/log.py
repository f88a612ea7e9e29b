"""Words for people, on stderr, never waiting for it.

A line is at most PIPE_BUF bytes and is written only when stderr can take it at once: a blocked terminal or a journal
that hangs must not stop a daemon.  What is lost is counted and said with the next line that gets through.

`use_syslog` sends what follows to the system's log, on the same terms.

Where stderr is systemd's journal, a line begins with its priority (sd-daemon(3)), and not with the name of the tool
where the journal knows that already.
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
_said: set[str] = set()  # of `Log.once`: as many as there are such texts in the source
_MAX_LINE = getattr(select, "PIPE_BUF", 512)


def lead(name: str, level: int) -> str:
    """What a line of the tool `name` begins with."""
    try:
        status = os.fstat(2)
    except OSError:
        return f"{name}: "
    if os.environ.get("JOURNAL_STREAM") != f"{status.st_dev}:{status.st_ino}":
        return f"{name}: "
    is_known = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())  # the journal has named its lines for us
    return f"<{_PRIORITIES[level]}>" + ("" if is_known else f"{name}: ")


def printable(text: str) -> str:
    """`text` on one line, with what a terminal would obey, or UTF-8 has no bytes for, as Python spells it: \\x1b."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Log:
    """`level` is how much is said: 0 for warnings, 1 for what happens, 2 for each tunnel, -1 for errors only."""

    def __init__(self, name: str, level: int = WARNING) -> None:
        self.name = name
        self.level = level
        self._lost = 0
        self._leads = {level: lead(name, level) for level in _PRIORITIES}
        self._poll = select.poll()
        self._poll.register(2, select.POLLOUT)
        self._syslog: socket.socket | None = None

    def bug(self, error: BaseException) -> None:
        """What should not have been raised: say where.  One broken tunnel must not take all the others with it."""
        import traceback

        lines = traceback.format_exception(type(error), error, error.__traceback__)
        self._say(ERROR, "internal error: " + " | ".join(" ".join(line.split()) for line in lines[-3:]))

    def error(self, text: str) -> None:
        self._say(ERROR, text)

    def warning(self, text: str) -> None:
        self._say(WARNING, text)

    def once(self, text: str) -> None:
        """A warning that is said once by a process; nothing for an empty one."""
        if text and text not in _said:
            _said.add(text)
            self.warning(text)

    def info(self, text: str) -> None:
        self._say(INFO, text)

    def debug(self, text: str) -> None:
        self._say(DEBUG, text)

    def use_syslog(self) -> None:
        """Write to the system's log from now on, where there is one; otherwise to stderr as before."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        self._syslog = sock

    def _say(self, level: int, text: str) -> None:
        if level > self.level:
            return
        text = printable(text)
        if self._syslog is not None:
            message = f"<{_DAEMON | _PRIORITIES[level]}>{self.name}[{os.getpid()}]: {text}"
            try:
                self._syslog.sendto(message.encode("utf-8", "replace")[:_MAX_LINE], _SYSLOG)
            except OSError:
                self._lost += 1  # it is full, or there is none
            return
        if not self._poll.poll(0):
            self._lost += 1
            return
        lost, self._lost = self._lost, 0
        note = f" ({lost} lines before this one were lost)" if lost else ""
        line = f"{self._leads[level]}{text}{note}".encode("utf-8", "replace")[: _MAX_LINE - 1] + b"\n"
        try:
            os.write(2, line)
        except OSError:
            self._lost = lost + 1  # stderr is closed: there is nobody to tell


class LineLimit:
    """Lines of the same kind: `FIRST` of them in a period are logged, the others are counted and summed up in one."""

    FIRST = 5
    PERIOD = 10.0  # seconds
    KINDS = 64  # that are told apart at a time

    def __init__(self, log: Log, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._log = log
        self._later = later
        self._counts: dict[str, int] = {}

    def warning(self, kind: str, text: str) -> None:
        """Log `text`, if there were not too many of `kind` lately, such as those from one address."""
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

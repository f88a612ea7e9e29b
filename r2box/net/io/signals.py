"""Signal state of a tool: resets what it inherits from its parent, and lets signals end process 1.

Every tool calls `prepare` once, at its start.  The library does not: there the process is the caller's.
"""

from __future__ import annotations

import os
import signal

from ...errors import SIGNALLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

GRACE = 5.0  # seconds that a program has to end after SIGHUP, and then after SIGTERM
RESET = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}  # to their defaults, in children
FATAL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

is_tool = False  # the process is a tool: it reaps all children, also those that process 1 inherits
_ignored: set[int] = set()  # by the parent


def prepare() -> None:
    """Unblock all signals, reset SIGCHLD and SIGINT, and let signals end process 1.  Others stay ignored, as by nohup.

    With SIGCHLD ignored, the statuses of children are lost; a shell without job control starts background commands with
    SIGINT ignored.  The kernel drops signals to process 1 that have no handler.
    """
    global is_tool
    is_tool = True
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _ignored.update(number for number in FATAL if signal.getsignal(number) == signal.SIG_IGN)
    if os.getpid() == 1:
        for number in FATAL:
            if number not in _ignored:
                signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(SIGNALLED + number)


def is_ignored(number: int) -> bool:
    """Whether the parent of this tool ignores `number`, as nohup does SIGHUP."""
    return number in _ignored


def ignore_terminal() -> None:
    """Keep job control from stopping a background daemon: its reads from the terminal fail instead (EIO)."""
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)

"""Signals of a process that is a tool's own: what its parent left behind, and what process 1 lacks.

`prepare` runs once, at the start of every tool.  A library must not call it: there the process is the caller's.
"""

from __future__ import annotations

import os
import signal

from ...errors import SIGNALLED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

GRACE = 5.0  # seconds that a program has to end after SIGHUP, and then after SIGTERM
RESET = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}  # for what is started
FATAL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

is_tool = False  # the process is ours: so are all its children, also those that it inherits as process 1
_ignored: set[int] = set()  # by the parent


def prepare() -> None:
    """Undo what the parent has blocked or ignored, but for a SIGHUP that nohup ignores; let signals end process 1.

    A parent that ignores SIGCHLD would take the statuses of our children away; a shell without job control starts what
    stands before & with SIGINT ignored.  The kernel drops signals to process 1 that have no handler.
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
    """Whether the parent of this tool has `number` ignored, as nohup does with SIGHUP."""
    return number in _ignored


def ignore_terminal() -> None:
    """Do not let job control stop a daemon in the background: reads from its terminal fail instead (EIO)."""
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)

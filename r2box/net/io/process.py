"""Child processes: how commands are started, and how they are ended.

A command is ended by signals with time between them, until it has ended by itself: `HANG_UP` for what has lost its
line, `TERMINATE` for what is asked to stop.  `Child` is the one place where that is done.
"""

from __future__ import annotations

import enum
import os
import signal

from ...errors import SIGNALLED
from . import signals
from .shell import LEASH_FD, SHELL, shell_line
from .signals import GRACE, RESET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from .leash import Leash
    from .loop import Loop, Timer

    Steps = tuple[tuple[tuple[int, ...], float], ...]

STOP_GRACE = 3.0  # seconds to end after a SIGTERM that comes first
LEAVE_TIME = 1.5  # seconds that a tool which ends waits for what it hangs up on; the rest is left to the leash
HANG_UP_TIME = 2 * GRACE + 1.0  # seconds in which all that is hung up on has ended
# Signals, and the seconds until the next ones.  A stopped process must run to take the first.
HANG_UP: Steps = (((signal.SIGHUP, signal.SIGCONT), GRACE), ((signal.SIGTERM,), GRACE), ((signal.SIGKILL,), 0.0))
TERMINATE: Steps = (((signal.SIGTERM,), STOP_GRACE), ((signal.SIGKILL,), 0.0))

_limits: list[str] = []  # what gives a program the limits that we were started with
_ENTER = f"trap '' PIPE; echo +$$ >&{LEASH_FD} 2>&-; trap - PIPE; exec {LEASH_FD}>&-\n"


def raise_file_limit() -> None:
    """Allow this process as many descriptors as the system lets it; what it starts keeps the limit that it had.

    (A program that uses select(2), or closes every descriptor there may be, would suffer from ours.)
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        _limits.append(f"ulimit -Sn {'unlimited' if soft == resource.RLIM_INFINITY else soft}\n")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def start(
    command: str,
    stdin: int,
    stdout: int,
    *,
    environment: Mapping[str, str] | None = None,
    new_session: bool = False,
    ignore_interrupt: bool = False,
    leash: int = -1,
) -> int:
    """Run `command` with these descriptors as its stdin and stdout, and our stderr; return its process id.

    `environment` is added to ours.  With `new_session`, signals from the terminal do not reach it, and `hang_up` ends
    all of it; `ignore_interrupt`, a ^C does not, as far as the command leaves that so: it may have a farewell to carry.
    With `leash`, from `Leash.open`, it is on that leash before it begins.  OSError if it cannot be started.
    """
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    ignored = [signal.SIGINT] * ignore_interrupt
    if not new_session and signals.is_ignored(signal.SIGHUP):
        ignored.append(signal.SIGHUP)  # as nohup wants it for all that it starts
    first = f"trap '' {' '.join(str(int(number)) for number in ignored)}\n" if ignored else ""
    if leash >= 0:
        actions.append((os.POSIX_SPAWN_DUP2, leash, LEASH_FD))
        first += _ENTER
    return _spawn(first + shell_line(command), actions, {**os.environ, **(environment or {})}, new_session)


def start_program(
    words: list[str | bytes],
    environment: Mapping[bytes, bytes],
    *,
    path: str | bytes = "",
    terminal: str = "",
    streams: tuple[int, ...] = (),
) -> int:
    """Run the program `path`, or without one words[0], in a session of its own; return its process id.

    Its environment is `environment` alone.  It runs on `terminal`, which becomes its controlling one, or with `streams`
    as its stdin, stdout and stderr.  OSError if it cannot be started.
    """
    actions: list[Any] = [(os.POSIX_SPAWN_DUP2, fd, place) for place, fd in enumerate(streams)]
    if terminal:
        actions = [(os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0)]  # by which a leader of a session gets it
        actions += [(os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
    return os.posix_spawnp(
        path or words[0],
        words,
        environment,
        file_actions=actions,
        setsigmask=[],
        setsigdef=RESET,
        setsid=True,
    )


def become(words: list[str]) -> int:
    """Run `words` in place of this process, with default signals; as process 1, beside it, and return its status.

    Signals without a handler do not reach process 1, so what runs there must have this one to end it.  OSError if it
    cannot be started.
    """
    if os.getpid() != 1:
        for number in RESET:
            if not signals.is_ignored(number):
                signal.signal(number, signal.SIG_DFL)
        os.execvp(words[0], words)
    from .loop import Loop

    loop, got = Loop(), [0]
    pid = os.posix_spawnp(words[0], words, os.environ, setsigmask=[], setsigdef=RESET)

    def ended(status: int) -> None:
        got[0] = status if status >= 0 else SIGNALLED - status
        loop.stop()

    for number in signals.FATAL:
        loop.on_signal(number, lambda number=number: send_signal(pid, number))  # type: ignore[misc]
    loop.on_exit(pid, ended)
    loop.run()
    return got[0]


def _spawn(line: str, actions: list[Any], environment: dict[str, str], new_session: bool) -> int:
    return os.posix_spawn(
        SHELL,
        [SHELL, "-c", "--", "".join(_limits[:1]) + line],  # a command may begin with a dash
        environment,
        file_actions=actions,
        setsigmask=[],
        setsigdef=RESET,
        setsid=new_session,
    )


class ChildState(enum.Enum):
    """State of a Child: RUNNING -> (DUE ->) ENDING -> OVER, or RUNNING or DUE -> OVER."""

    RUNNING = "running"
    DUE = "due"  # the first signal is to come
    ENDING = "ending"
    OVER = "over"


class Child:
    """A command that runs: it is reaped when it exits, and ended by `end`.  `exited(status)` is as in `Loop.on_exit`.

    With `group` it has a session of its own, and signals go to its process group.  What is left of the group when the
    command exits is left alone, unless the command is being ended: then the signals go on until none is left.  (A group
    keeps its number while it has members; that another one gets it within `GRACE` is not guarded against.)

    It leaves `leash`, if it is on one, when it is over.
    """

    __slots__ = ("_exited", "_is_reaped", "_leash", "_loop", "_state", "_steps", "_target", "_timer", "pid")

    def __init__(
        self, loop: Loop, pid: int, exited: Callable[[int], None], *, group: bool = False, leash: Leash | None = None
    ) -> None:
        self.pid = pid
        self._loop = loop
        self._exited = exited
        self._target = -pid if group else pid
        self._leash = leash
        self._state = ChildState.RUNNING
        self._is_reaped = False
        self._steps: Steps = ()
        self._timer: Timer | None = None
        if leash is not None:
            leash.add(pid)
        loop.on_exit(pid, self._reaped)

    def end(self, steps: Steps = HANG_UP, wait: float = 0.0) -> None:
        """Send the signals of `steps`, the first after `wait` seconds.  Called again, it can only make that sooner.

        In `exited`, this ends what is left of the group.
        """
        if self._state is ChildState.RUNNING or (self._state is ChildState.DUE and not wait):
            self._steps = steps
            self._stop_timer()
            if wait:
                self._state = ChildState.DUE
                self._timer = self._loop.later(wait, self._step)
            else:
                self._step()

    def kill(self) -> None:
        """End it at once."""
        self._steps = (((signal.SIGKILL,), 0.0),)
        self._stop_timer()
        self._step()

    def _step(self) -> None:
        if self._leash is not None and self._state is not ChildState.ENDING:
            self._leash.ending(self.pid)
        self._state = ChildState.ENDING
        (numbers, seconds), *rest = self._steps
        self._steps = tuple(rest)
        for number in numbers:
            send_signal(self._target, number)
        if rest:
            self._timer = self._loop.later(seconds, self._next)

    def _next(self) -> None:
        if self._is_reaped and not self._is_left():
            self._over()
            return
        self._step()
        if self._is_reaped and not self._steps:
            self._over()

    def _is_left(self) -> bool:
        """Whether the group has members, now that the command has exited."""
        try:
            os.kill(self._target, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return False  # they run as somebody else (sudo), and no signal of ours would reach them
        return True

    def _reaped(self, status: int) -> None:
        self._is_reaped = True
        self._exited(status)
        if self._state is not ChildState.ENDING or not self._steps or self._target > 0 or not self._is_left():
            self._over()

    def _over(self) -> None:
        self._state = ChildState.OVER
        self._stop_timer()
        if self._leash is not None:
            self._leash.remove(self.pid)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def hang_up(pid: int, number: int = signal.SIGHUP) -> None:
    """Signal the group of a command with a session of its own: its line is cut, as a terminal would say it."""
    send_signal(-pid, number)


def cut_line(pid: int) -> None:
    """The same for a command in our session, which ignores that where nohup had us started."""
    send_signal(pid, signal.SIGTERM if signals.is_ignored(signal.SIGHUP) else signal.SIGHUP)


def send_signal(pid: int, number: int) -> None:
    """Signal a process, or with -pid its group; one that has ended, or runs as somebody else (sudo), is left alone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return

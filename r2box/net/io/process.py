"""Child processes: starts commands, reaps them and ends them.

A command is ended by a series of signals with time between them, until it has exited: `HANG_UP` if its tunnel has
ended, `TERMINATE` if it is to stop.  All code ends children with `Child`; what remains after this process has ended is
ended by the `leash`.
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

STOP_GRACE = 3.0  # seconds to end after an initial SIGTERM
LEAVE_TIME = 1.5  # seconds that an ending tool waits for children it hung up on; the leash ends the rest
HANG_UP_TIME = 2 * GRACE + 1.0  # seconds in which every child that was hung up on has ended
# Signals, and the seconds until the next ones.  SIGCONT: a stopped process must run to take the first.
HANG_UP: Steps = (((signal.SIGHUP, signal.SIGCONT), GRACE), ((signal.SIGTERM,), GRACE), ((signal.SIGKILL,), 0.0))
TERMINATE: Steps = (((signal.SIGTERM,), STOP_GRACE), ((signal.SIGKILL,), 0.0))

_limits: list[str] = []  # shell line that gives a command the file limit that we were started with
_ENTER = f"trap '' PIPE; echo +$$ >&{LEASH_FD} 2>&-; trap - PIPE; exec {LEASH_FD}>&-\n"


def raise_file_limit() -> None:
    """Raise the limit of open files of this process to the hard limit; children keep the old one.

    (A high limit harms programs that use select(2), or that close every possible descriptor.)
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

    `environment` is added to ours.  With `new_session`, the command has its own process group, which no signal of the
    terminal reaches; with `ignore_interrupt`, it starts with SIGINT ignored, so that it can carry the last bytes of a
    link.  `leash`, from `Leash.open`, registers it before it runs.  OSError if it cannot be started.
    """
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    ignored = [signal.SIGINT] * ignore_interrupt
    if not new_session and signals.is_ignored(signal.SIGHUP):
        ignored.append(signal.SIGHUP)  # inherited, as nohup intends
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
    """Run the program `path`, by default words[0], in a new session; return its process id.

    Its environment is only `environment`.  It runs on `terminal`, which becomes its controlling terminal, or with
    `streams` as its stdin, stdout and stderr.  OSError if it cannot be started.
    """
    actions: list[Any] = [(os.POSIX_SPAWN_DUP2, fd, place) for place, fd in enumerate(streams)]
    if terminal:
        actions = [(os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0)]  # for a session leader the controlling one
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
    """Replace this process by `words`, with default signals.  As process 1, run it as a child; return its status.

    The kernel drops signals to process 1 that have no handler, so this process stays there to pass them on.  OSError if
    it cannot be started.
    """
    if os.getpid() != 1:
        for number in RESET:
            if not signals.is_ignored(number):
                signal.signal(number, signal.SIG_DFL)
        os.execvp(words[0], words)
    from .loop import Loop

    loop, result = Loop(), [0]
    pid = os.posix_spawnp(words[0], words, os.environ, setsigmask=[], setsigdef=RESET)

    def ended(status: int) -> None:
        result[0] = status if status >= 0 else SIGNALLED - status
        loop.stop()

    child = Child(loop, pid, ended)
    for number in signals.FATAL:
        loop.on_signal(number, lambda number=number: child.signal(number))  # type: ignore[misc]
    loop.run()
    return result[0]


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
    DUE = "due"  # the first signal is scheduled
    ENDING = "ending"
    OVER = "over"


class Child:
    """A child process: reaped when it exits, ended by `end`.  `exited(status)` is as in `Loop.on_exit`.

    With `group` it has its own session, and signals go to its process group.  Members of the group that remain when the
    command exits are left running, unless the command is being ended: then the signals continue until none is left.  (A
    group keeps its number while it has members; its reuse within `GRACE` is not guarded against.)

    When it is over, it is removed from `leash`, if there is one.
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
        """Send the signals of `steps`, the first after `wait` seconds.  A second call can only make that earlier.

        Called from `exited`, it ends the rest of the group.
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
        """Send SIGKILL now."""
        self._steps = (((signal.SIGKILL,), 0.0),)
        self._stop_timer()
        self._step()

    @property
    def is_running(self) -> bool:
        """Whether the command has not exited."""
        return not self._is_reaped

    def signal(self, number: int) -> None:
        """Send one signal; nothing if the command has exited, or runs as another user (sudo)."""
        if not self._is_reaped:
            self._kill(number)

    def hang_up(self) -> None:
        """Report to a command in our session that its tunnel has ended: SIGHUP, or SIGTERM where nohup ignores that."""
        self.signal(signal.SIGTERM if signals.is_ignored(signal.SIGHUP) else signal.SIGHUP)

    def _kill(self, number: int) -> None:
        try:
            os.kill(self._target, number)
        except (ProcessLookupError, PermissionError):
            return

    def _step(self) -> None:
        if self._leash is not None and self._state is not ChildState.ENDING:
            self._leash.ending(self.pid)
        self._state = ChildState.ENDING
        (numbers, seconds), *rest = self._steps
        self._steps = tuple(rest)
        for number in numbers:
            self._kill(number)
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
        """Whether the group has members after the exit of the command."""
        try:
            os.kill(self._target, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return False  # they run as another user (sudo), and would refuse our signals
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

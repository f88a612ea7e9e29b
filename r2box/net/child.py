"""Starting commands, and ending them."""

from __future__ import annotations

import os
import signal

from ..errors import SIGNALLED
from . import signals
from .shell import shell_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SHELL = "/bin/sh"
_limits: list[str] = []  # what gives a program the limits that we were started with
_RESET = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


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
    own_session: bool = False,
    undisturbed: bool = False,
) -> int:
    """Run `command` with these descriptors as its stdin and stdout, and our stderr; return its process id.

    `environment` is added to ours.  With `own_session`, signals from the terminal do not reach it, and `hang_up` ends
    all of it; `undisturbed`, a ^C does not, as far as the command leaves that so: it may have a farewell to carry.
    OSError if it cannot be started.
    """
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    ignored = [signal.SIGINT] * undisturbed
    if not own_session and signals.is_ignored(signal.SIGHUP):
        ignored.append(signal.SIGHUP)  # as nohup wants it for all that it starts
    ignore = f"trap '' {' '.join(str(int(number)) for number in ignored)}\n" if ignored else ""
    return _spawn(ignore + shell_line(command), actions, {**os.environ, **(environment or {})}, own_session)


def start_leashed(command: str) -> tuple[int, int]:
    """Run `command` with no input, and our stderr as its output; return its process id and its leash.

    For a command that listens: nothing else would tell it that its daemon is gone, and it would keep the port.  The
    leash is a descriptor; when it is closed, by us or by our death, the command and all that it started is terminated.
    (The shell keeps a reader on the other end of that pipe, in the same session.)
    """
    end, leash = os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    watcher = "{ read _ <&3; kill -TERM 0; } &\nexec 3<&-\n"
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, 2, 1), (os.POSIX_SPAWN_DUP2, end, 3)]
    try:
        return _spawn(watcher + shell_line(command), actions, dict(os.environ), own_session=True), leash
    except OSError:
        os.close(leash)
        raise
    finally:
        os.close(end)
        os.close(null)


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
        setsigdef=_RESET,
        setsid=True,
    )


def become(words: list[str]) -> int:
    """Run `words` in place of this process, with default signals; as process 1, beside it, and return its status.

    Signals without a handler do not reach process 1, so what runs there must have this one to end it.  OSError if it
    cannot be started.
    """
    if os.getpid() != 1:
        for number in _RESET:
            if not signals.is_ignored(number):
                signal.signal(number, signal.SIG_DFL)
        os.execvp(words[0], words)
    from .loop import Loop

    loop, got = Loop(), [0]
    pid = os.posix_spawnp(words[0], words, os.environ, setsigmask=[], setsigdef=_RESET)

    def ended(status: int) -> None:
        got[0] = status if status >= 0 else SIGNALLED - status
        loop.stop()

    for number in signals.FATAL:
        loop.on_signal(number, lambda number=number: send_signal(pid, number))  # type: ignore[misc]
    loop.on_exit(pid, ended)
    loop.run()
    return got[0]


def _spawn(line: str, actions: list[Any], environment: dict[str, str], own_session: bool) -> int:
    return os.posix_spawn(
        SHELL,
        [SHELL, "-c", "--", "".join(_limits[:1]) + line],  # a command may begin with a dash
        environment,
        file_actions=actions,
        setsigmask=[],
        setsigdef=_RESET,
        setsid=own_session,
    )


def hang_up(pid: int, number: int = signal.SIGHUP) -> None:
    """Tell a command with a session of its own that its line is cut, as a terminal would."""
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

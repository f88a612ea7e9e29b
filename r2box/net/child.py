"""Starting commands, and ending them."""

from __future__ import annotations

import os
import signal

from .shell import shell_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SHELL = "/bin/sh"
_limits: list[str] = []  # what gives a program the limits that we were started with
_RESET = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD]


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
    ignore = "trap '' INT\n" if undisturbed else ""
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


def send_signal(pid: int, number: int) -> None:
    """Signal a process, or with -pid its group; one that has ended, or runs as somebody else (sudo), is left alone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return

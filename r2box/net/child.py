"""Starting commands.

A command line goes to `/bin/sh -c`.  The first word of one that is a plain program is given its full path before: some
programs want to be called so (sshd refuses to run otherwise), and users' PATH often lacks the sbin directories where
services live.  A line that is no shell command because of a lone quote (echo Hello, I'm bob) is taken word by word.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SHELL = "/bin/sh"
SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# Words that are files too, but that the shell does itself and a little differently.
_BUILTINS = frozenset(("echo", "printf", "test", "[", "kill", "pwd", "true", "false", "time", "cd", "read", "ulimit"))
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")
_RESET = [signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD]


def with_full_path(command: str) -> str:
    """`command` with its first word as a full path, if that word is a program's bare name."""
    word = command.split(None, 1)[0] if command.strip() else ""
    if not word or word in _BUILTINS or not set(word) <= _PLAIN:
        return command
    for folder in [*os.environ.get("PATH", os.defpath).split(os.pathsep), *SYSTEM_PATH]:
        path = os.path.join(folder, word)
        if os.path.isabs(path) and set(path) <= _PLAIN | {"/"} and os.path.isfile(path) and os.access(path, os.X_OK):
            return command.replace(word, path, 1)
    return command


def with_quotes_closed(command: str) -> str:
    """`command`, or, if a quote in it is never closed, its words as they stand.

    The shell would refuse such a line, so nothing that works is changed.
    """
    if "\n" in command or "<<" in command or not (command.count("'") % 2 or command.count('"') % 2):
        return command
    import shlex

    try:
        shlex.split(command, comments=True)
    except ValueError:
        return " ".join(shlex.quote(word) for word in command.split())
    return command


def base_name(command: str) -> str:
    """The name of the program that `command` runs, without its folder: what a service is called by default."""
    words = command.split(None, 1)
    return os.path.basename(words[0]) if words else ""


def start(
    command: str,
    stdin: int,
    stdout: int,
    *,
    environment: Mapping[str, str] | None = None,
    own_session: bool = False,
) -> int:
    """Run `command` with these descriptors as its stdin and stdout, and our stderr; return its process id.

    `environment` is added to ours.  With `own_session`, signals from the terminal do not reach it, and `hang_up` ends
    all of it.  OSError if it cannot be started.
    """
    actions = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    return os.posix_spawn(
        SHELL,
        [SHELL, "-c", with_full_path(with_quotes_closed(command))],
        {**os.environ, **(environment or {})},
        file_actions=actions,
        setsigmask=[],
        setsigdef=_RESET,
        setsid=own_session,
    )


def start_tied(command: str) -> int:
    """Run `command` with no input and our stdout and stderr, to be terminated when this process dies in any way.

    For a command that listens: nothing else would tell it that its daemon is gone, and it would keep the port.
    (PR_SET_PDEATHSIG, prctl(2); elsewhere than on Linux the command is only ended by an orderly end of ours.)
    """
    import ctypes

    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        prctl = None
    line = with_full_path(with_quotes_closed(command))
    null = os.open(os.devnull, os.O_RDONLY)
    pid = os.fork()
    if pid:
        os.close(null)
        return pid
    try:
        if prctl is not None:
            prctl(1, signal.SIGTERM, 0, 0, 0)
        os.setsid()
        os.dup2(null, 0)
        os.dup2(2, 1)
        for number in _RESET:
            signal.signal(number, signal.SIG_DFL)
        os.execv(SHELL, [SHELL, "-c", line])
    finally:
        os._exit(127)


def hang_up(pid: int, number: int = signal.SIGHUP) -> None:
    """Tell a command with a session of its own that its line is cut, as a terminal would."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return  # it has ended by itself

"""Starting commands.

A command line goes to `/bin/sh -c`.  The first word of one that is a plain program is given its full path before: some
programs want to be called so (sshd refuses to run otherwise), and users' PATH often lacks the sbin directories where
services live.  A line that is no shell command because of a lone quote (echo Hello, I'm bob) is taken word by word.
"""

from __future__ import annotations

import os
import signal

from ..errors import AddressError
from ..proto.address import check_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SHELL = "/bin/sh"
SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# Words that are files too, but that the shell does itself and a little differently.
_BUILTINS = frozenset(("echo", "printf", "test", "[", "kill", "pwd", "true", "false", "time", "cd", "read", "ulimit"))
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")
_COMPOUND = frozenset(";&|<>(){}\n")  # not one program, as far as can be seen
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


def service_name(cmd: str) -> str:
    """The service name that a command gets by default: `/usr/sbin/sshd -i` -> `sshd`.  AddressError if it has none."""
    word = (cmd.split() or [""])[0]
    if "://" in word:
        raise AddressError("a scheme:// has no base name")
    if set("'\"\\=") & set(word):  # quoted blanks, or an assignment: the shell's first word is another
        raise AddressError("its first word is not the plain name of a program")
    return check_address(word.rpartition("/")[2])


def shell_line(command: str) -> str:
    """What is given to the shell for `command`.

    A single program takes the shell's place (exec): one process less, and signals and statuses are the program's own.
    """
    line = with_full_path(with_quotes_closed(command))
    return f"exec {line}" if line.startswith("/") and _is_one_program(line) else line


def _is_one_program(line: str) -> bool:
    """Whether nothing outside the quotes of `line` makes more than one program of it."""
    quote, escaped = "", False
    for character in line:
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _COMPOUND:
            return False
    return True


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
    return _spawn(shell_line(command), actions, {**os.environ, **(environment or {})}, own_session)


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


def _spawn(line: str, actions: list[Any], environment: dict[str, str], own_session: bool) -> int:
    return os.posix_spawn(
        SHELL,
        [SHELL, "-c", line],
        environment,
        file_actions=actions,
        setsigmask=[],
        setsigdef=_RESET,
        setsid=own_session,
    )


def hang_up(pid: int, number: int = signal.SIGHUP) -> None:
    """Tell a command with a session of its own that its line is cut, as a terminal would."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return  # it has ended by itself

"""Path of the control socket: the socket that is named, else R2_SOCKET, else the default one of this user."""

from __future__ import annotations

import os

from ...errors import DaemonError

MAX_PATH = 107  # bytes; sun_path holds 108 with the final NUL (unix(7))
NAME = "r2.sock"
SYSTEM_FOLDER = "/run"
RUNTIME_FOLDERS = "/run/user"


def home() -> str | None:
    """This user's home directory: HOME, else the entry in passwd(5).  None where neither is an absolute path."""
    given = os.environ.get("HOME")
    if given is None:
        import pwd

        try:
            given = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            return None
    return given.rstrip("/") or "/" if os.path.isabs(given) else None


def expand(path: str) -> str:
    """`path` with a leading ~ or ~USER replaced.  ValueError if there is no such home directory."""
    if not path.startswith("~"):
        return path
    user, slash, rest = path.partition("/")
    folder = home() if user == "~" else os.path.expanduser(user)
    if folder is None or not os.path.isabs(folder):
        raise ValueError(f"there is no home directory for {user}")
    return folder.rstrip("/") + slash + rest


def default_path(given: str | None = None) -> str:
    """The control socket of this user: `given`, else R2_SOCKET, else a file in /run for root, in the runtime directory,
    or in the state directory.  DaemonError if there is none of these."""
    named = given or os.environ.get("R2_SOCKET")
    if named:  # the shell does not expand ~ in --socket=~/r2.sock
        try:
            return expand(named) if named.startswith("~/") else named
        except ValueError as error:
            raise DaemonError(f"{named}: {error}") from None
    if os.geteuid() == 0:
        return f"{SYSTEM_FOLDER}/{NAME}"
    runtime = runtime_folder()
    folder = runtime if os.path.isdir(runtime) else state_folder()
    if folder is None:
        who = f"user {os.geteuid()} has no home directory and no {runtime}"
        raise DaemonError(f"no place for the control socket: {who} (name the socket with -s or R2_SOCKET)")
    return f"{folder}/{NAME}"


def is_default(given: str | None) -> bool:
    """Whether no socket is named."""
    return not given and not os.environ.get("R2_SOCKET")


def runtime_folder() -> str:
    return f"{RUNTIME_FOLDERS}/{os.geteuid()}"


def state_folder() -> str | None:
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):  # others are ignored (XDG Base Directory Specification)
        place = home()
        if place is None:
            return None
        state = f"{place.rstrip('/')}/.local/state"
    return f"{state}/r2"


def check_length(path: str) -> None:
    """Raise DaemonError if `path` is too long for a socket."""
    size = len(os.fsencode(path))
    if size > MAX_PATH:
        raise DaemonError(f"{path}: {size} bytes; the path of a socket has at most {MAX_PATH}")

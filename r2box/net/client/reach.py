"""Finding the daemon: which control socket is meant, and a connection to it once it listens.

One rule for every tool, for r2dm and for the units: the socket that is named (-s, `socket` in a file), else R2_SOCKET,
else the default one of this user.  Where no daemon listens at the default one, a client uses the only daemon that
listens in the directories in which this user's daemons may have been started; with several, the error names them.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import time

from ...errors import DaemonError
from ..io import socket_path
from ..io.socket_path import NAME, check_length, default_path, is_default, runtime_folder, state_folder
from ..transport.peer import peer_user

WAIT = 2.0  # seconds that a client waits for a daemon that is just starting
FIRST_PAUSE, LAST_PAUSE = 0.005, 0.05  # seconds between two attempts; the pause doubles
QUEUE_TIME = 1  # seconds in a daemon's queue of connections
MAX_LOOKED_AT = 64  # sockets of one directory that are tried
MAX_NAMED = 8  # sockets that an error names
CHOOSE = "-s or R2_SOCKET names another socket"


def _others(default: str) -> list[str]:
    """The sockets beside the default one at which a daemon of this user may listen."""
    folders = [f"{socket_path.SYSTEM_FOLDER}/r2"]
    places = [f"{socket_path.SYSTEM_FOLDER}/{NAME}"]
    if os.geteuid() != 0:
        runtime, state = runtime_folder(), state_folder()
        folders = [f"{runtime}/r2", *([state] if state else []), *folders]
        places.insert(0, f"{runtime}/{NAME}")
    for folder in folders:
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(".sock"))
        except OSError:
            continue  # no such directory, or one of others
        places += [f"{folder}/{name}" for name in names[:MAX_LOOKED_AT]]
    return [path for path in places if path != default and os.access(path, os.W_OK)]


def reach(given: str | None = None, wait: float = WAIT) -> tuple[socket.socket, str]:
    """A connection to the daemon at the socket `given` (None: by the rule above), and the path of that socket.

    Waits up to `wait` seconds for a daemon that is just starting.  DaemonError, with what to do, if there is none then,
    or if several could be meant.
    """
    deadline = time.monotonic() + wait
    pause = FIRST_PAUSE
    while True:
        path = default_path(given)
        sock = _attempt(path)
        if sock is not None:
            return sock, path
        if is_default(given):
            found = _reach_other(path)
            if found is not None:
                return found
        left = deadline - time.monotonic()
        if left <= 0:
            raise DaemonError(_missing(path, is_named=not is_default(given)))
        # There is no event for a socket that begins to listen in a directory that may not exist yet.
        time.sleep(min(pause, left))
        pause = min(2 * pause, LAST_PAUSE)


def _attempt(path: str) -> socket.socket | None:
    """A connection, or None if nothing listens there.  DaemonError if nothing ever can."""
    check_length(path)
    _check_owner(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", QUEUE_TIME, 0))
    try:
        sock.connect(path)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 0))
    except OSError as error:
        sock.close()
        if error.errno == errno.EAGAIN:  # its queue is full, and it takes none from there
            raise DaemonError(f"{path}: the daemon does not answer") from None
        if error.errno not in (errno.ENOENT, errno.ECONNREFUSED):
            raise DaemonError(f"{path}: {error.strerror}") from None
        if error.errno == errno.ECONNREFUSED and os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
            raise DaemonError(f"{path}: no daemon: this is not a socket") from None  # nor can one start there
        return None
    _check_owner(path, sock)
    return sock


def _check_owner(path: str, sock: socket.socket | None = None) -> None:
    """DaemonError if the socket at `path`, or what listens there (`sock` is connected to it), is another user's, in a
    directory where others may make files: as in /tmp, it could have been there first."""
    try:
        user = peer_user(sock) if sock is not None else os.stat(path).st_uid
        folder = os.stat(os.path.dirname(path) or ".")
    except OSError:
        return  # there is no such socket, as will be seen
    if user in (-1, 0, os.geteuid(), folder.st_uid) or not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return
    if sock is not None:
        sock.close()
    raise DaemonError(f"{path}: is user {user}'s, who is neither you nor root nor the owner of the directory")


def _reach_other(default: str) -> tuple[socket.socket, str] | None:
    """The only daemon of this user that listens elsewhere.  DaemonError if there are several."""
    found: list[tuple[socket.socket, str]] = []
    for path in _others(default):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)  # a daemon whose queue is full is none that answers
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            continue
        found.append((sock, path))
    if len(found) == 1:
        return found[0]
    for sock, _ in found:
        sock.close()
    if found:
        names = ", ".join(path for _, path in found[:MAX_NAMED]) + ", ..." * (len(found) > MAX_NAMED)
        raise DaemonError(f"{default}: no daemon, and several elsewhere: {names} (choose one with -s or R2_SOCKET)")
    return None


def tunnel_words(path: tuple[str, ...], given: str | None = None, *options: str) -> list[str]:
    """The command that joins its stdin and stdout to the service at `path`, by the daemon of `given` as for `reach`.

    `options` are for r2-tunnel.
    """
    from ..io.words import this_command

    socket = [] if is_default(given) else ["-s", default_path(given)]
    return [*this_command(), "r2-tunnel", *socket, *(word for step in path for word in ("-t", step)), *options, "-"]


def _missing(path: str, is_named: bool) -> str:
    from ..io.words import quote

    why = "nothing listens at this socket" if os.path.exists(path) else "there is no such socket"
    how = f"start one with: r2d -s {quote(path)} ADDRESS" if is_named else f"start one with: r2d ADDRESS; {CHOOSE}"
    return f"{path}: no daemon: {why} ({how})"

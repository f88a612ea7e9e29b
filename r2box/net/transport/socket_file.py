"""File of a UNIX socket: its mode, its directory, and the lock that lets one of two daemons have it.

`socket_path` has the path of the control socket.
"""

from __future__ import annotations

import os
import socket
import stat
import sys

from ...errors import DaemonError
from ..io.socket_path import check_length, home

LOCK_TIME = 5.0  # seconds to wait for other daemons that start in the same directory


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, mode 0600.  A stale file is replaced; a socket in use is not.

    DaemonError if the directory is missing or unsafe, or the path is in use.
    """
    check_length(path)
    folder = os.path.dirname(path) or "."
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise DaemonError(f"{path}: there is no directory {folder} (make it first: mkdir -m 700)") from None
    except OSError as error:
        raise DaemonError(f"{folder}: {error.strerror}") from None
    try:
        status = os.fstat(lock)
        if not status.st_mode & stat.S_ISVTX:
            if status.st_mode & stat.S_IWOTH:
                raise DaemonError(f"{folder}: all users can write here, and could replace the socket (run chmod o-w)")
            if status.st_uid not in (0, os.geteuid()):
                raise DaemonError(f"{folder}: belongs to another user, who could replace the socket")
        _lock(lock, folder)  # concurrent daemons check one after the other
        _remove_stale(path)
        return _bind(path)
    finally:
        os.close(lock)


def make_folder(path: str) -> None:
    """Make the missing directories of the socket `path`, mode 0700.  DaemonError if that fails.

    A missing home directory is not made: it is a mistake.
    """
    missing = []
    folder = os.path.dirname(path)
    while folder and not os.path.isdir(folder) and len(folder) > 1:
        if folder == home():
            raise DaemonError(f"{folder}: this home directory does not exist (name the socket with -s or R2_SOCKET)")
        missing.append(folder)
        folder = os.path.dirname(folder)
    for folder in reversed(missing):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue  # made by another daemon; or not a directory, which `listen` reports
        except OSError as error:
            raise DaemonError(f"{folder}: {error.strerror}") from None


def _lock(folder_fd: int, folder: str) -> None:
    """Lock the folder.  Daemons hold it briefly, but any user can lock /tmp, so the wait is bounded."""
    import fcntl
    import time

    deadline = time.monotonic() + LOCK_TIME
    while True:
        try:
            fcntl.flock(folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DaemonError(f"{folder}: another program holds a lock on this directory") from None
            time.sleep(0.01)  # there is no loop yet, and flock(2) takes no timeout


def _remove_stale(path: str) -> None:
    """Remove a stale socket file."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise DaemonError(f"{path}: this exists and is not a socket; it is left alone")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its backlog is full: it is in use
        except OSError as error:
            raise DaemonError(f"{path}: {error.strerror}") from None
    raise DaemonError(f"{path}: another daemon, or another program, listens here already")


def _bind(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # On Linux the file gets the mode of the socket; umask would affect all threads.
    old = None if sys.platform == "linux" else os.umask(0o177)
    try:
        if old is None:
            os.fchmod(sock.fileno(), 0o600)
        sock.bind(path)
        sock.listen(128)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise DaemonError(f"{path}: {error.strerror}") from None
    finally:
        if old is not None:
            os.umask(old)
    return sock


def identity(path: str) -> tuple[int, int]:
    """Device and inode of the file at `path`."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def remove(path: str, which: tuple[int, int]) -> None:
    """Remove the socket file at `path` if its `identity` is still `which`, and if permitted."""
    try:
        if identity(path) == which:
            os.unlink(path)
    except FileNotFoundError:
        return  # already removed
    except PermissionError:
        return  # made as root (--user); the next daemon finds it stale

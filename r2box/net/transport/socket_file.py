"""The control socket's file: who may use it, and who owns it when two daemons want it.  `reach` says where it is."""

from __future__ import annotations

import os
import socket
import stat
import sys

from ...errors import DaemonError
from ..io.socket_path import check_length, home

LOCK_TIME = 5.0  # seconds for other daemons that start in the same directory


def listen(path: str) -> socket.socket:
    """The listening control socket at `path`, mode 0600.  A stale file is taken over; a live daemon is not.

    DaemonError if its directory is missing, or the place is taken, or unsafe.
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
                raise DaemonError(f"{folder}: everybody may write here, so anybody could take the socket's place")
            if status.st_uid not in (0, os.geteuid()):
                raise DaemonError(f"{folder}: belongs to somebody else, who could take the socket's place")
        _lock(lock, folder)  # daemons that start at once look one after the other
        _make_way(path)
        return _bind(path)
    finally:
        os.close(lock)


def make_folder(path: str) -> None:
    """Make the missing directories of the socket `path`, for their owner only.  DaemonError if that cannot be.

    A missing home directory is not made: then the place is a mistake.
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
            continue  # another daemon was faster, or it is none: then it cannot be opened
        except OSError as error:
            raise DaemonError(f"{folder}: {error.strerror}") from None


def _lock(folder_fd: int, folder: str) -> None:
    """Lock the folder, which others hold for a moment only; but anybody may lock /tmp, so do not wait for ever."""
    import fcntl
    import time

    deadline = time.monotonic() + LOCK_TIME
    while True:
        try:
            fcntl.flock(folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DaemonError(f"{folder}: somebody holds a lock on this directory") from None
            time.sleep(0.01)  # before there is a loop; flock(2) knows no deadline


def _make_way(path: str) -> None:
    """Remove a socket file that nobody listens at."""
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
            pass  # its queue is full: it lives
        except OSError as error:
            raise DaemonError(f"{path}: {error.strerror}") from None
    raise DaemonError(f"{path}: another daemon, or another program, listens here already")


def _bind(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Linux makes the file with the mode that the socket has; a umask is that of all threads of a program.
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
    """Which file it is that is at `path` now."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def remove(path: str, which: tuple[int, int]) -> None:
    """Remove the socket file at `path`, if it still is the one that `identity` told of, and if we may."""
    try:
        if identity(path) == which:
            os.unlink(path)
    except FileNotFoundError:
        return  # somebody was faster
    except PermissionError:
        return  # we were root when it was made (--user); whoever starts there next finds it stale

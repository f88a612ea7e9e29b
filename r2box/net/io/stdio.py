"""Handing over standard input and output: to a daemon, to a program, or to who started this process."""

from __future__ import annotations

import os
import socket
import stat

from .channel import socketpair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def can_give(fd: int) -> bool:
    """Whether another process may read or write `fd` in our place: a pipe, a connected socket or /dev/null.

    Not a non-blocking descriptor, which no program expects; not a terminal, whose job control knows nothing of the
    other process; not a regular file, on which a daemon could block, and of which a program gets more than its bytes.
    """
    status = os.fstat(fd)
    if not os.get_blocking(fd):
        return False
    if stat.S_ISSOCK(status.st_mode):
        with socket.socket(fileno=os.dup(fd)) as sock:
            return sock.type == socket.SOCK_STREAM
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == os.stat(os.devnull).st_rdev
    return stat.S_ISFIFO(status.st_mode)


def lend_stdio() -> tuple[tuple[int, int], dict[int, int]]:
    """Descriptors to hand over in place of stdin (0) and stdout (1), and our ends of those that are socketpairs.

    A descriptor that cannot be handed over is replaced by one end of a socketpair; the caller copies at the other.
    """
    ours: dict[int, int] = {}
    given = []
    for which in (0, 1):
        if can_give(which):
            given.append(os.dup(which))
        else:
            ours[which], theirs = socketpair()
            given.append(theirs)
    return (given[0], given[1]), ours


def take_stdio() -> tuple[int, int]:
    """Duplicates of stdin and stdout, to hand over.  /dev/null takes their places: see `put_null`."""
    taken = os.dup(0), os.dup(1)
    put_null((0, 1))
    return taken


def put_null(descriptors: Iterable[int]) -> None:
    """Put /dev/null in the places of descriptors that were duplicated, so that closing the duplicates ends them."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in descriptors:
        os.dup2(null, fd, inheritable=fd <= 2)
    os.close(null)


def give_descriptor(to: int, fd: int) -> None:
    """Send `fd` and one byte over the socket `to`, as ssh expects it, and close it.  OSError if `to` takes none."""
    import array

    with socket.socket(fileno=os.dup(to)) as sock:
        sock.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    os.close(fd)

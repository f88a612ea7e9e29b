"""Non-blocking byte stream over one descriptor, or over two (one to read, one to write).

O_NONBLOCK belongs to the open file description, which other processes may share (a terminal and the shell, two programs
on one pipe), so it is never set on one that may be shared.  Sockets are read and written with MSG_DONTWAIT.  A pipe or
terminal is opened again through /proc/self/fd, for an open file description that is not shared.  Where that fails, a
read follows a poll, and a write is at most PIPE_BUF bytes, which a pipe that polls as writable takes without blocking
(POSIX, write(2)).
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import stat
import sys

from ...errors import RefusedError
from ...proto.link.attachments import REST
from ...proto.link.replay_buffer import Block
from . import reserve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeVar, Union

    from .loop import Loop

    T = TypeVar("T")
    Callback = Callable[[], object]
    Buffer = Union[bytes, bytearray, memoryview]

MAX_ATTACHED = 16  # descriptors in one message (SCM_MAX_FD is 253)
BUFFER = 1 << 20  # bytes that a socketpair or pipe buffers: twice what is read at once
_ANCILLARY = socket.CMSG_SPACE(MAX_ATTACHED * array.array("i").itemsize)
_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_SETPIPE_SZ, _GETPIPE_SZ = 1031, 1032  # fcntl.F_SETPIPE_SZ of Python 3.10 and newer, on Linux
_PATH_ONLY = getattr(os, "O_PATH", 0)
_PTMX = os.makedev(5, 2)  # /dev/ptmx on Linux
_PIPE_BUF = getattr(select, "PIPE_BUF", 512)


class ChannelEnd:
    """One direction, or both, on one descriptor.  Owns it."""

    __slots__ = ("_careful", "fd", "is_pipe", "sock")

    def __init__(self, fd: int) -> None:
        self.sock: socket.socket | None = None
        self._careful = False  # poll before each read and write
        mode = os.fstat(fd).st_mode
        self.is_pipe = stat.S_ISFIFO(mode)  # that can be spliced
        if stat.S_ISSOCK(mode):
            self.sock = socket.socket(fileno=fd)
        elif os.get_blocking(fd) and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            fd = self._reopen(fd)
        self.fd = fd

    def _reopen(self, fd: int) -> int:
        import fcntl

        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        try:
            new = os.open(f"/proc/self/fd/{fd}", access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            self._careful = True
            self.is_pipe = False
            return fd
        os.dup2(new, fd, inheritable=False)  # under the old number: the new one may be in the reserve
        os.close(new)
        widen(fd)
        return fd

    def _ready(self, event: int) -> bool:
        poll = select.poll()
        poll.register(self.fd, event)
        return bool(poll.poll(0))

    def read_into(self, view: memoryview) -> int:
        """Read into the beginning of `view`; return the number of bytes, 0 at the end, -1 if none are available.

        OSError as read(2).
        """
        try:
            if self.sock is not None:
                return self.sock.recv_into(view, 0, socket.MSG_DONTWAIT)
            if self._careful and not self._ready(select.POLLIN):
                return -1
            return os.readv(self.fd, (view,))
        except BlockingIOError:
            return -1
        except OSError as error:
            if error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self.fd).st_mode):
                return 0  # a terminal whose other side is closed
            raise

    def read_with_descriptors(self, view: memoryview) -> tuple[int, tuple[int, ...]]:
        """`read_into` for a UNIX socket; also return the attached descriptors, close-on-exec.

        If some could not be received, `REST` replaces all of them.
        """
        assert self.sock is not None
        try:
            size, ancillary, flags, _ = self.sock.recvmsg_into((view,), _ANCILLARY, socket.MSG_DONTWAIT | _CLOEXEC)
        except BlockingIOError:
            return -1, ()
        if not ancillary and not flags & socket.MSG_CTRUNC:
            return size, ()
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if flags & socket.MSG_CTRUNC:  # the limit of open files was reached, and the kernel dropped some
            close_all(tuple(fds))
            return size, (REST,)
        return size, tuple(fds)

    def is_hung_up(self) -> bool:
        """Whether the other side has closed both directions, where the system reports that."""
        poll = select.poll()
        poll.register(self.fd, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def is_ending(self) -> bool:
        """Whether the other side has stopped writing; bytes may be left to read."""
        poll = select.poll()
        poll.register(self.fd, getattr(select, "POLLRDHUP", 0))
        return bool(poll.poll(0))

    def write(self, buffers: Sequence[Buffer], descriptors: tuple[int, ...] = ()) -> int:
        """Write as many bytes as fit; return their number, 0 if none do.  OSError as write(2)."""
        try:
            if self.sock is not None:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
                return self.sock.sendmsg(buffers, [rights] if descriptors else [], _FLAGS)
            if self._careful:
                if not self._ready(select.POLLOUT):
                    return 0
                return os.write(self.fd, memoryview(buffers[0])[:_PIPE_BUF])
            return os.writev(self.fd, buffers)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        else:
            os.close(self.fd)

    # -- for `copier.Pump`, as in Channel --------------------------------------------------------------------------

    @property
    def write_fd(self) -> int:
        return self.fd

    def is_writable(self) -> bool:
        return self._ready(select.POLLOUT)

    def watch_read(self, loop: Loop, read: Callback | None) -> None:
        loop.watch_read(self.fd, read)

    def watch_write(self, loop: Loop, write: Callback | None) -> None:
        loop.watch_write(self.fd, write)

    def read_by(self, read: Callable[[ChannelEnd, T], int], into: T) -> int:
        """`read(self, into)`, whose result is that of `read_into`."""
        return read(self, into)

    @property
    def is_inet(self) -> bool:
        return self.sock is not None and self.sock.family in (socket.AF_INET, socket.AF_INET6)

    def reset_later(self) -> None:
        import struct

        if self.is_inet and self.sock is not None and self.sock.fileno() >= 0:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close_read(self) -> None:
        self.close()

    def close_write(self) -> None:
        """Pass on the end of the stream, even if another process holds the same socket."""
        if self.sock is not None:
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # no longer connected
        self.close()


class Channel:
    """Both directions of a byte stream.  `read_fd` and `write_fd` are the same for a socket."""

    __slots__ = ("_read", "_write")

    def __init__(self, read_fd: int, write_fd: int | None = None) -> None:
        self._read: ChannelEnd | None = ChannelEnd(read_fd)
        self._write: ChannelEnd | None = self._read if write_fd is None or write_fd == read_fd else ChannelEnd(write_fd)

    @property
    def read_fd(self) -> int:
        """-1 once reading is closed."""
        return self._read.fd if self._read else -1

    @property
    def write_fd(self) -> int:
        """-1 once writing is closed."""
        return self._write.fd if self._write else -1

    @property
    def sock(self) -> socket.socket | None:
        """The socket that carries both directions, or None."""
        return self._read.sock if self._read and self._read is self._write else None

    @property
    def is_unix(self) -> bool:
        """Whether reading is from a UNIX socket."""
        return self._read is not None and self._read.sock is not None and self._read.sock.family == socket.AF_UNIX

    @property
    def is_hung_up(self) -> bool:
        """Whether one descriptor carries both directions, and its other side has closed both."""
        return self._read is not None and self._read is self._write and self._read.is_hung_up()

    @property
    def is_ending(self) -> bool:
        """Whether the other side has stopped writing, or reading is closed."""
        return self._read is None or self._read.is_ending()

    def read_into(self, view: memoryview) -> int:
        assert self._read is not None
        return self._read.read_into(view)

    def read_with_descriptors(self, view: memoryview) -> tuple[int, tuple[int, ...]]:
        assert self._read is not None
        return self._read.read_with_descriptors(view)

    def write(self, buffers: Sequence[Buffer], descriptors: tuple[int, ...] = ()) -> int:
        assert self._write is not None
        return self._write.write(buffers, descriptors)

    @property
    def is_inet(self) -> bool:
        """Whether it is an internet socket, so that `reset` shows a failure to the other side."""
        end = self._read or self._write
        return bool(end and end.sock and end.sock.family in (socket.AF_INET, socket.AF_INET6))

    def watch(self, loop: Loop, read: Callback | None, write: Callback | None) -> None:
        """Have `loop` call read() when there is something to read, write() when there is room.  None: do not watch."""
        if self.read_fd == self.write_fd:
            loop.watch(self.read_fd, read, write)
        else:
            loop.watch(self.read_fd, read)
            loop.watch(self.write_fd, None, write)

    # -- for `copier.Pump`, as in ChannelEnd -----------------------------------------------------------------------

    def watch_read(self, loop: Loop, read: Callback | None) -> None:
        loop.watch_read(self.read_fd, read)

    def watch_write(self, loop: Loop, write: Callback | None) -> None:
        loop.watch_write(self.write_fd, write)

    def read_by(self, read: Callable[[ChannelEnd, T], int], into: T) -> int:
        """`read(end, into)`, whose result is that of `ChannelEnd.read_into`."""
        assert self._read is not None
        return read(self._read, into)

    def is_writable(self) -> bool:
        return self._write is not None and self._write.is_writable()

    def close_write(self) -> None:
        """Close writing: the other side reads to the end."""
        end, self._write = self._write, None
        if end is not None:
            self._half_close(end, socket.SHUT_WR, last=end is not self._read)

    def close_read(self) -> None:
        """Close reading: writes of the other side fail."""
        end, self._read = self._read, None
        if end is not None:
            self._half_close(end, socket.SHUT_RD, last=end is not self._write)

    @staticmethod
    def _half_close(end: ChannelEnd, how: int, last: bool) -> None:
        if end.sock is not None:
            try:
                end.sock.shutdown(how)  # even if another process holds the same socket
            except OSError:
                pass  # no longer connected
        if last:
            end.close()

    def close(self) -> None:
        """Close both directions.  Safe to call again."""
        read, write, self._read, self._write = self._read, self._write, None, None
        for end in {read, write} - {None}:
            assert end is not None
            end.close()

    def reset(self) -> None:
        """Close; over TCP with a reset instead of an end, once no other process holds the socket."""
        self.reset_later()
        self.close()

    def reset_later(self) -> None:
        """Over TCP, let the last close of the socket be a reset instead of an end."""
        end = self._read or self._write
        if end is not None:
            end.reset_later()


def widen(fd: int) -> None:
    """Let a pipe buffer BUFFER bytes, if `fd` is a pipe that may grow."""
    import fcntl

    try:
        if fcntl.fcntl(fd, _GETPIPE_SZ) < BUFFER:
            fcntl.fcntl(fd, _SETPIPE_SZ, BUFFER)
    except OSError:
        return


def drop_written(buffers: list[Buffer], written: int) -> list[Buffer]:
    """The rest of `buffers` after `written` bytes; memory that may be reused is copied."""
    for number, buffer in enumerate(buffers):
        if written < len(buffer):
            left = [memoryview(buffer)[written:], *(memoryview(after) for after in buffers[number + 1 :])]
            return [view if isinstance(view.obj, (bytes, Block)) else bytes(view) for view in left]
        written -= len(buffer)
    return []


def adopt(descriptors: tuple[int, ...]) -> Channel:
    """A channel over one descriptor, or two (to read, to write)."""
    return Channel(descriptors[0], descriptors[1] if len(descriptors) > 1 else None)


def socketpair(kind: int = socket.SOCK_STREAM, buffer: int = BUFFER) -> tuple[int, int]:
    """Two connected descriptors, close-on-exec.  OSError if none are left but the reserve."""
    try:
        pair = socket.socketpair(socket.AF_UNIX, kind)
    except OSError as error:
        raise (reserve.shortage() if reserve.is_short(error) else error) from None
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    one, other = pair[0].detach(), pair[1].detach()
    reserve.check(one, other)
    return one, other


def same_socket(one: int, other: int) -> bool:
    """Whether both descriptors are the same socket."""
    a, b = os.fstat(one), os.fstat(other)
    return stat.S_ISSOCK(a.st_mode) and (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def check_usable(descriptors: tuple[int, ...]) -> None:
    """Raise RefusedError, and close all, if one was opened with O_PATH: it can be neither read nor written."""
    import fcntl

    if any(fcntl.fcntl(fd, fcntl.F_GETFL) & _PATH_ONLY for fd in descriptors):
        close_all(descriptors)
        raise RefusedError("a descriptor that was opened with O_PATH carries no bytes")


def is_terminal(fd: int) -> bool:
    """Whether `fd` is a terminal: its slave side."""
    if not os.isatty(fd):
        return False
    return sys.platform != "linux" or os.fstat(fd).st_rdev != _PTMX


def close_all(descriptors: Iterable[int]) -> None:
    """Close them; skip those that were lost in transit (`LOST`, `REST`)."""
    for fd in descriptors:
        if fd >= 0:
            os.close(fd)

"""Copying between two pairs of descriptors, for a tunnel whose end cannot be handed over."""

from __future__ import annotations

import enum
import errno
import os
import stat

from .channel import BUFFER, ChannelEnd, close_all, socketpair, widen
from .program import ProgramChannel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol, TypeVar

    from .channel import Buffer
    from .loop import Loop

    T = TypeVar("T")

    class PumpSource(Protocol):
        """What a Pump reads: an End, or a ProgramChannel."""

        def watch_read(self, loop: Loop, read: Callable[[], object] | None) -> None: ...
        def read_by(self, read: Callable[[ChannelEnd, T], int], into: T) -> int: ...
        def close_read(self) -> None: ...

    class PumpTarget(Protocol):
        """What a Pump writes: the same."""

        @property
        def write_fd(self) -> int: ...
        def is_writable(self) -> bool: ...
        def watch_write(self, loop: Loop, write: Callable[[], object] | None) -> None: ...
        def write(self, buffers: Sequence[Buffer]) -> int: ...
        def close_write(self) -> None: ...

    Ended = Callable[[str], None]

BROKEN = "broken pipe"
SIZE = 1 << 18  # bytes read at once, and all that is held
_FLAGS = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)


class CopyMethod(enum.Enum):
    """How the bytes of a Pump go."""

    COPY = "read(2) and write(2)"
    DIRECT = "splice(2): source or target is a pipe"
    THROUGH = "splice(2), through a pipe of our own"


class Pump:
    """One direction, from `source` to `target`; it owns both.

    Between a program and a pipe or another program the kernel moves the bytes, if it can (Linux, Python 3.10).
    `ended(why)` is called once: "" when the source is at its end and all is written, BROKEN when nobody reads the
    target any more, else what failed.  The target is closed by `close_target`, so that the caller decides when the end
    is passed on.
    """

    def __init__(self, loop: Loop, source: PumpSource, target: PumpTarget, ended: Ended) -> None:
        self._loop = loop
        self._source = source
        self._target = target
        self._ended: Ended | None = ended
        self._room = memoryview(b"")
        self._left = self._room  # of what was read, what is still to be written
        self._pipe = -1, -1  # of our own
        self._held = 0  # bytes in it
        self._is_full = False  # the target, and there may be more to read
        self._until_empty = False
        self._way = self._choose_way()
        self._watch()

    def _choose_way(self) -> CopyMethod:
        both = self._source, self._target
        programs = [end for end in both if isinstance(end, ProgramChannel)]
        pipes = [end for end in both if isinstance(end, ChannelEnd) and end.is_pipe]
        if not hasattr(os, "splice") or not programs or len(programs + pipes) < 2:  # what others hold could block us
            return CopyMethod.COPY
        if not pipes:
            try:
                self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                return CopyMethod.COPY
            widen(self._pipe[1])
        for program in programs:
            program.claim()
        return CopyMethod.DIRECT if pipes else CopyMethod.THROUGH

    def finish(self) -> None:
        """Nothing more will come: end as soon as the source has nothing left to read."""
        self._until_empty = True
        self._read_on()

    def _read(self) -> None:
        self._is_full = self._way is CopyMethod.DIRECT and not self._target.is_writable()
        if self._is_full:  # then splice(2) would not say which of the two is not ready
            self._watch()
            return
        try:
            size = self._source.read_by(self._take, None)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS) and self._way is not CopyMethod.COPY:
                self._way = CopyMethod.COPY  # this kernel does not splice these
                self._read()
            elif error.errno in (errno.EPIPE, errno.ECONNRESET):
                self._end(BROKEN if error.errno == errno.EPIPE else "")  # of a UNIX socket: closed with bytes unread
            else:
                self._end(f"reading failed: {error.strerror}")
            return
        if size <= 0:
            if not size or self._until_empty:
                self._end("")
        elif self._way is CopyMethod.DIRECT:
            self._go_on()
        else:
            if self._way is CopyMethod.COPY:
                self._left = self._room[:size]
            else:
                self._held += size
            self._write()

    def _take(self, end: ChannelEnd, _: None) -> int:
        if self._way is CopyMethod.COPY:
            if not self._room:
                self._room = memoryview(bytearray(SIZE))
            return end.read_into(self._room)
        try:
            target = self._pipe[1] if self._way is CopyMethod.THROUGH else self._target.write_fd
            return os.splice(end.fd, target, BUFFER, flags=_FLAGS)  # type: ignore[attr-defined, unused-ignore]
        except BlockingIOError:
            return -1

    def _write(self) -> None:
        try:
            if self._held:
                self._held -= self._give()
            elif self._left:
                self._left = self._left[self._target.write([self._left]) :]
        except OSError as error:
            broken = error.errno in (errno.EPIPE, errno.ECONNRESET)
            self._end(BROKEN if broken else f"writing failed: {error.strerror}")
            return
        self._is_full = bool(self._held or self._left)
        self._go_on()

    def _give(self) -> int:
        try:
            fd = self._target.write_fd
            return os.splice(self._pipe[0], fd, self._held, flags=_FLAGS)  # type: ignore[attr-defined, unused-ignore]
        except BlockingIOError:
            return 0

    def _go_on(self) -> None:
        if self._until_empty and not self._is_full:
            self._loop.soon(self._read_on)
        self._watch()

    def _read_on(self) -> None:
        if self._ended is not None and not self._is_full:
            self._read()

    def _watch(self) -> None:
        if self._ended is None:
            return
        self._source.watch_read(self._loop, None if self._is_full else self._read)
        self._target.watch_write(self._loop, self._write if self._is_full else None)

    def _end(self, why: str) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        self._source.watch_read(self._loop, None)
        self._target.watch_write(self._loop, None)
        self._source.close_read()
        if self._pipe[0] >= 0:
            close_all(self._pipe)
        ended(why)

    def close_target(self) -> None:
        """Pass the end of the stream on."""
        self._target.close_write()


def can_give(fd: int) -> bool:
    """Whether somebody else may read or write `fd` in our place.

    Pipes, connected sockets and /dev/null.  Not what is non-blocking, which a program would not expect; not terminals,
    where job control would not know of it; not regular files, on which a daemon could block, and of which a program
    would get more than their bytes.
    """
    status = os.fstat(fd)
    if not os.get_blocking(fd):
        return False
    if stat.S_ISSOCK(status.st_mode):
        import socket

        with socket.socket(fileno=os.dup(fd)) as sock:
            return sock.type == socket.SOCK_STREAM
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == os.stat(os.devnull).st_rdev
    return stat.S_ISFIFO(status.st_mode)


def lend_stdio() -> tuple[tuple[int, int], dict[int, int]]:
    """Descriptors to give away in place of our stdin (0) and stdout (1), and our ends of those that are not the same.

    What cannot be given away is stood for by a socketpair, from or to whose other end we copy.
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


def open_ends(loop: Loop, descriptors: tuple[int, ...], is_program: bool) -> tuple[PumpSource, PumpTarget]:
    """What a Pump reads and what another writes: our ends of a tunnel, or of a local program."""
    if is_program:
        channel = ProgramChannel(loop, descriptors)
        return channel, channel
    there = descriptors[1] if len(descriptors) > 1 else os.dup(descriptors[0])
    return ChannelEnd(descriptors[0]), ChannelEnd(there)


def give_descriptor(to: int, fd: int) -> None:
    """Send `fd` and one byte over the socket `to`, as ssh takes it, and close it.  OSError if `to` takes none."""
    import array
    import socket

    with socket.socket(fileno=os.dup(to)) as sock:
        sock.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
    os.close(fd)


def take_stdio() -> tuple[int, int]:
    """Our stdin and stdout as descriptors to give away; /dev/null is put in their places, so that an end of theirs is
    heard when the one who gets them closes them."""
    taken = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return taken


def bridge(loop: Loop, stdin: int, stdout: int, written: Callable[[], None]) -> int:
    """A socket that stands for both: what is written to it comes out on `stdout`, and it reads as `stdin`.

    `written()` is called when it has been closed and all has come out.
    """
    ours, theirs = socketpair()

    def ended(why: str) -> None:
        outward.close_target()
        written()

    inward = Pump(loop, ChannelEnd(stdin), ChannelEnd(os.dup(ours)), lambda why: inward.close_target())
    outward = Pump(loop, ChannelEnd(ours), ChannelEnd(stdout), ended)
    return theirs

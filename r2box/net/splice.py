"""Copying between two pairs of descriptors, for a tunnel whose end cannot be handed over."""

from __future__ import annotations

import errno
import os
import stat

from .channel import End, socketpair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

    Ended = Callable[[str], None]

BROKEN = "broken pipe"
SIZE = 1 << 18  # bytes read at once, and all that is held


class Pump:
    """One direction, from `source` to `target`; it owns both.

    `ended(why)` is called once: "" when the source is at its end and all is written, BROKEN when nobody reads the
    target any more, else what failed.  The target is closed by `close_target`, so that the caller decides when the
    end is passed on.
    """

    def __init__(self, loop: Loop, source: int, target: int, ended: Ended) -> None:
        self._loop = loop
        self._source = End(source)
        self._target = End(target)
        self._ended: Ended | None = ended
        self._room = memoryview(bytearray(SIZE))
        self._left = self._room[:0]
        self._at_end = False  # of the source
        self._until_empty = False
        self._watch()

    def finish(self) -> None:
        """Nothing more will come: end as soon as the source has nothing left to read."""
        self._until_empty = True
        if self._ended is not None and not self._left:
            self._read()

    def _read(self) -> None:
        try:
            size = self._source.read_into(self._room)
        except ConnectionResetError:
            size = 0  # a UNIX socket whose other end was closed with bytes unread
        except OSError as error:
            self._end(f"reading failed: {error.strerror}")
            return
        if size > 0:
            self._left = self._room[:size]
            self._write()
        elif not size or self._until_empty:
            self._end("")

    def _write(self) -> None:
        try:
            written = self._target.write([self._left])
        except OSError as error:
            broken = error.errno in (errno.EPIPE, errno.ECONNRESET)
            self._end(BROKEN if broken else f"writing failed: {error.strerror}")
            return
        self._left = self._left[written:]
        if not self._left and self._until_empty:
            self._loop.soon(self._read_on)
        self._watch()

    def _read_on(self) -> None:
        if self._ended is not None and not self._left:
            self._read()

    def _watch(self) -> None:
        if self._ended is None:
            return
        self._loop.watch(self._source.fd, None if self._left else self._read)
        self._loop.watch(self._target.fd, None, self._write if self._left else None)

    def _end(self, why: str) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        self._loop.watch(self._source.fd)
        self._loop.watch(self._target.fd)
        self._source.close()
        ended(why)

    def close_target(self) -> None:
        """Pass the end of the stream on."""
        if self._target.sock is not None:
            import socket

            try:
                self._target.sock.shutdown(socket.SHUT_WR)  # also where another process holds it
            except OSError:
                pass  # not connected any more: as good as shut
        self._target.close()


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

    inward = Pump(loop, stdin, os.dup(ours), lambda why: inward.close_target())
    outward = Pump(loop, ours, stdout, ended)
    return theirs

"""Copies bytes between descriptors, where the descriptors themselves cannot be handed over.

    Pump    one direction
    Bridge  both directions between a device and a tunnel
"""

from __future__ import annotations

import enum
import errno
import os
import select

from .channel import BUFFER, Channel, ChannelEnd, close_all, widen
from .program import ProgramChannel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Protocol, TypeVar

    from .channel import Buffer
    from .loop import Loop, Timer

    T = TypeVar("T")

    class PumpSource(Protocol):
        """What a Pump reads: a ChannelEnd or a Channel."""

        @property
        def is_inet(self) -> bool: ...
        def reset_later(self) -> None: ...
        def watch_read(self, loop: Loop, read: Callable[[], object] | None) -> None: ...
        def read_by(self, read: Callable[[ChannelEnd, T], int], into: T) -> int: ...
        def close_read(self) -> None: ...

    class PumpTarget(Protocol):
        """What a Pump writes: a ChannelEnd or a Channel."""

        @property
        def write_fd(self) -> int: ...
        def is_writable(self) -> bool: ...
        def reset_later(self) -> None: ...
        def watch_write(self, loop: Loop, write: Callable[[], object] | None) -> None: ...
        def write(self, buffers: Sequence[Buffer]) -> int: ...
        def close_write(self) -> None: ...

    Ended = Callable[[str], None]

BROKEN = "broken pipe"
SIZE = 1 << 18  # bytes read at once, and the most a Pump holds
BRIDGE_SIZE = 1 << 16  # the same for each direction of a Bridge
POLL = 1.0  # seconds between polls for a reader of the tunnel
_HUNG_UP = (errno.EIO, errno.ENXIO, errno.ENODEV, errno.ECONNRESET)  # of a terminal whose other side is closed
_FLAGS = getattr(os, "SPLICE_F_NONBLOCK", 0) | getattr(os, "SPLICE_F_MOVE", 0)


class CopyMethod(enum.Enum):
    """How a Pump moves bytes."""

    COPY = "read(2) and write(2)"
    DIRECT = "splice(2): source or target is a pipe"
    THROUGH = "splice(2), through a pipe of our own"


class Pump:
    """One direction, from `source` to `target`; owns both, and closes the source when it ends.

    Between a program and a pipe or another program the kernel moves the bytes, if it can (Linux, Python 3.10).
    `ended(why)` is called once: "" at the end of the source, with all of it written; BROKEN if the target has no
    reader; else what failed.  `error` is then the errno of the failure, or 0, and `failed` the side that failed.  The
    target stays open until `close_target`: the caller decides when the end is passed on.
    """

    def __init__(self, loop: Loop, source: PumpSource, target: PumpTarget, ended: Ended, size: int = SIZE) -> None:
        """`size`: bytes to read at once."""
        self.error = 0
        self.failed: PumpSource | PumpTarget | None = None
        self._loop = loop
        self._source = source
        self._target = target
        self._ended: Ended | None = ended
        self._size = size
        self._buffer = memoryview(b"")
        self._left = self._buffer  # what was read and is not written yet
        self._pipe = -1, -1  # of our own
        self._held = 0  # bytes in it
        self._is_full = False  # the target, and there may be more to read
        self._until_empty = False
        self._method = self._choose_method()
        self._watch()

    def _choose_method(self) -> CopyMethod:
        both = self._source, self._target
        programs = [end for end in both if isinstance(end, ProgramChannel)]
        pipes = [end for end in both if isinstance(end, ChannelEnd) and end.is_pipe]
        # splice(2) could block on a descriptor that other processes hold.
        if not hasattr(os, "splice") or not programs or len(programs + pipes) < 2:
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
        """End as soon as nothing is left to read."""
        self._until_empty = True
        self._continue()

    def _read(self) -> None:
        self._is_full = self._method is CopyMethod.DIRECT and not self._target.is_writable()
        if self._is_full:  # splice(2) would not report which of the two is not ready
            self._watch()
            return
        try:
            size = self._source.read_by(self._take, None)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS) and self._method is not CopyMethod.COPY:
                self._method = CopyMethod.COPY  # this kernel does not splice these
                self._read()
                return
            self.error, self.failed = error.errno or errno.EIO, self._source
            if error.errno == errno.EPIPE:
                self.failed = self._target  # of a splice
                self._end(BROKEN)
            elif error.errno == errno.ECONNRESET and not self._source.is_inet:
                self._end("")  # a UNIX socket that was closed with bytes unread
            else:
                self._end(f"reading failed: {error.strerror}")
            return
        if size <= 0:
            if not size or self._until_empty:
                self._end("")
        elif self._method is CopyMethod.DIRECT:
            self._more()
        else:
            if self._method is CopyMethod.COPY:
                self._left = self._buffer[:size]
            else:
                self._held += size
            self._write()

    def _take(self, end: ChannelEnd, _: None) -> int:
        if self._method is CopyMethod.COPY:
            if not self._buffer:
                self._buffer = memoryview(bytearray(self._size))
            return end.read_into(self._buffer)
        try:
            target = self._pipe[1] if self._method is CopyMethod.THROUGH else self._target.write_fd
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
            self.error, self.failed = error.errno or errno.EIO, self._target
            broken = error.errno in (errno.EPIPE, errno.ECONNRESET)
            self._end(BROKEN if broken else f"writing failed: {error.strerror}")
            return
        self._is_full = bool(self._held or self._left)
        self._more()

    def _give(self) -> int:
        try:
            fd = self._target.write_fd
            return os.splice(self._pipe[0], fd, self._held, flags=_FLAGS)  # type: ignore[attr-defined, unused-ignore]
        except BlockingIOError:
            return 0

    def _more(self) -> None:
        if self._until_empty and not self._is_full:
            self._loop.soon(self._continue)
        self._watch()

    def _continue(self) -> None:
        if self._ended is not None and not self._is_full:
            self._read()

    def _watch(self) -> None:
        if self._ended is not None:
            self._source.watch_read(self._loop, None if self._is_full else self._read)
            self._target.watch_write(self._loop, self._write if self._is_full else None)

    def _end(self, why: str) -> None:
        ended = self._ended
        if ended is not None:
            self.close()
            ended(why)

    def close(self) -> None:
        """Close the source; call nothing any more.  Safe to call again."""
        if self._ended is None:
            return
        self._ended = None
        self._source.watch_read(self._loop, None)
        self._target.watch_write(self._loop, None)
        self._source.close_read()
        if self._pipe[0] >= 0:
            close_all(self._pipe)

    def reset(self) -> None:
        """End with an error: TCP connections at both sides are reset when the last copy of them is closed."""
        for end in (self._source, self._target):
            end.reset_later()
        self.close()

    def is_target_closed(self) -> bool:
        """Whether the target is a UNIX socket whose other side is closed in both directions."""
        poll = select.poll()
        poll.register(self._target.write_fd, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def close_target(self) -> None:
        """Pass the end of the stream on."""
        self._target.close_write()


class Bridge:
    """Both directions between `device` and `stream`, a tunnel; owns both.  `ended(why)` is called once: "" or a fault.

    For devices that cannot be handed over: a terminal cannot end one direction alone, reports its end as an error, and
    is non-blocking, which no program expects.  When the stream has no more input, the device is read for as long as the
    stream has a reader.  A failed TCP connection on one side is reset on the other.  (Datagrams: see
    `datagram_endpoint.DatagramCopier`.)
    """

    def __init__(self, loop: Loop, device: Channel, stream: Channel, ended: Ended) -> None:
        self._loop = loop
        self._device = device
        self._stream = stream
        self._ended: Ended | None = ended
        self._can_half_close = device.sock is not None or device.read_fd != device.write_fd
        self._inet = [channel for channel in (device, stream) if channel.is_inet]
        self._is_over = [False, False]  # outward, inward
        self._timer: Timer | None = None
        self._outward = Pump(loop, device, stream, self._outward_ended, BRIDGE_SIZE)
        self._inward = Pump(loop, stream, device, self._inward_ended, BRIDGE_SIZE)

    def _outward_ended(self, why: str) -> None:
        pump = self._outward
        if pump.failed in self._inet:
            self._end("", reset=True)
        elif why and pump.failed is self._device and pump.error not in _HUNG_UP:
            self._end(why)
        else:
            self._end_outward()

    def _end_outward(self) -> None:
        """The device has ended, or the stream has no reader."""
        self._is_over[0] = True
        self._outward.close_target()
        if not self._can_half_close or self._is_over[1]:
            self._end("")

    def _inward_ended(self, why: str) -> None:
        pump = self._inward
        self._is_over[1] = True
        if pump.failed in self._inet:
            self._end("", reset=True)
        elif pump.failed is self._device:
            self._end("" if pump.error in (*_HUNG_UP, errno.EPIPE) else why)
        elif why or self._is_over[0]:
            self._end(why)
        else:
            if self._can_half_close:
                pump.close_target()
            self._poll()

    def _poll(self) -> None:
        """See whether the stream, which has no more input, still has a reader: no event reports that."""
        poll = select.poll()
        poll.register(self._stream.write_fd, 0)
        if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
            self._outward.close()
            self._end_outward()
        else:
            self._timer = self._loop.later(POLL, self._poll)

    def _end(self, why: str, reset: bool = False) -> None:
        ended = self._ended
        if ended is not None:
            self.close(reset)
            ended(why)

    def close(self, reset: bool = False) -> None:
        """Close both; call nothing any more.  With `reset`, TCP connections are reset.  Safe to call again."""
        if self._ended is None:
            return
        self._ended = None
        if self._timer is not None:
            self._timer.cancel()
        for channel in (self._device, self._stream):
            channel.watch(self._loop, None, None)
            (channel.reset if reset else channel.close)()
        self._outward.close()
        self._inward.close()

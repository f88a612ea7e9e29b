"""Tunnel endpoint for datagrams: each read and each write of a descriptor is one datagram.

    datagram_pair     socketpair that keeps boundaries: the local ends of a tunnel
    read, write       one datagram on a descriptor, or its end
    DatagramEndpoint  joins a descriptor to a stream
    DatagramCopier    joins two descriptors

The descriptors are SOCK_SEQPACKET sockets, UDP sockets and network interfaces.  On a terminal or a pipe, the result of
one read is a datagram.
"""

from __future__ import annotations

import errno
import functools
import select
import socket

from ...errors import WireError
from ...proto.link.stream import INITIAL_WINDOW
from ...proto.wire.datagrams import HEAD, MAX_DATAGRAM, DatagramSplitter, frame
from ...proto.wire.outcome import FAILED, Outcome
from ..io.channel import socketpair
from . import endpoint
from .endpoint import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...proto.wire.fields import Buffer
    from ..io.channel import Channel
    from ..io.loop import Loop, Timer
    from .endpoint import EndpointOwner

END, NOTHING = -2, -1  # instead of a size
BATCH = 64  # datagrams copied in a row
UDP_IDLE = 5.0  # seconds without traffic that end a UDP socket whose tunnel is half-closed
_ICMP = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
_CLOSED = (errno.EPIPE, errno.ECONNRESET, errno.EBADFD if hasattr(errno, "EBADFD") else errno.EBADF)


def datagram_pair() -> tuple[int, int]:
    """Like `socketpair`, but keeps boundaries."""
    return socketpair(socket.SOCK_SEQPACKET, INITIAL_WINDOW)


def is_udp(channel: Channel) -> bool:
    return channel.sock is not None and channel.sock.type == socket.SOCK_DGRAM


def read(channel: Channel, room: memoryview) -> int:
    """Read one datagram into `room`: its size, END or NOTHING.  OSError as read(2), except for ICMP errors.

    read(2) cannot distinguish an empty datagram from the end.  On a UNIX socket, 0 is the end if the peer has closed
    or shut down its side and nothing is unread.
    """
    try:
        size = channel.read_into(room)
    except OSError as error:
        if error.errno in _ICMP:
            return NOTHING
        if error.errno == errno.ECONNRESET:
            return END
        raise
    if size or is_udp(channel):
        return size
    if channel.is_unix and not channel.is_ending:
        return 0
    return 0 if channel.is_unix and _has_unread(channel.read_fd) else END


def _has_unread(fd: int) -> bool:
    """Whether more can be read, so that a result of 0 was an empty datagram."""
    import fcntl
    import struct
    import termios

    return bool(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])


def write(channel: Channel, datagram: Buffer, with_empty: bool) -> bool:
    """Write one datagram; False if there is no room now.  OSError if the descriptor is closed for writing.

    A datagram that the descriptor refuses is lost, as on any network; so is an empty one unless `with_empty`.
    """
    if not len(datagram) and not (with_empty and channel.sock is not None):
        return True
    try:
        return _send(channel, datagram)
    except OSError as error:
        if error.errno in _CLOSED and not is_udp(channel):
            raise
        if error.errno not in _ICMP:
            return True
    try:
        return _send(channel, datagram)  # the ICMP error was for an earlier datagram
    except OSError:
        return True


def _send(channel: Channel, datagram: Buffer) -> bool:
    if not len(datagram):  # a result of 0 would not show whether it was sent
        poll = select.poll()
        poll.register(channel.write_fd, select.POLLOUT)
        if not poll.poll(0):
            return False
    return channel.write((datagram,)) > 0 or not len(datagram)


class DatagramEndpoint(Endpoint):
    """An Endpoint for datagrams: reads exceed the limit of a `pull` by at most one datagram."""

    __slots__ = ("_is_udp", "_last_used", "_out", "_splitter", "_with_empty")

    def __init__(self, loop: Loop, channel: Channel, owner: EndpointOwner, kind: int, holds_eof: bool = False) -> None:
        super().__init__(loop, channel, owner, kind, holds_eof)
        self._splitter = DatagramSplitter()
        self._out: memoryview = memoryview(b"")  # read, but beyond the limit of the last pull
        self._is_udp = is_udp(channel)
        self._with_empty = kind != endpoint.PROGRAM and not holds_eof  # a program would take it for the end
        self._last_used = loop.now()

    def pull(self, limit: int) -> Buffer | None:
        if self._out:
            return self._slice(limit)
        if self.channel.read_fd < 0 or self._eof_passed or self.is_over:
            return None
        self._notified = False
        if not self._eof_seen:
            data = self._read(limit)
            if data is None:
                return None
            if data:
                self._out = memoryview(data)
                return self._slice(limit)
            if not self._eof_seen:
                return None
        self._full = False
        return self._pull_eof()

    def _read(self, limit: int) -> bytes | None:
        """Read datagrams until `limit` is reached or none is left, each with its length.  None if reading failed."""
        pieces: list[bytes] = []
        total = 0
        self._full = True
        room = self.loop.arena.take(MAX_DATAGRAM)
        while total < limit:
            try:
                size = read(self.channel, room)
            except OSError as error:
                self._full = False
                self._finish(Outcome(FAILED, f"reading failed: {error.strerror}"))
                return None
            if size < 0:
                self._eof_seen = size == END
                self._full = self._eof_seen and bool(pieces)  # the end is still to be pulled
                break
            pieces.append(frame(room[:size]))
            total += HEAD + size
        if pieces:
            self._last_used = self.loop.now()
        if self._eof_seen or not (self._full or self._wants_read):
            self._wants_read = True
            self._watch()
        return b"".join(pieces)

    def _slice(self, limit: int) -> Buffer:
        piece, self._out = self._out[:limit], self._out[limit:]
        return piece

    def more(self) -> bool:
        return self._full or bool(self._out)

    def _write(self) -> bool:
        count = 0
        for datagram in self._unwritten:
            if not write(self.channel, datagram, self._with_empty):
                break
            count += 1
        self._last_used = self.loop.now()
        del self._unwritten[:count]
        return not self._unwritten

    def _refill(self) -> bool:
        pieces = self.stream.take(endpoint.WRITE_SIZE)
        if pieces:
            self._unwritten = self._splitter.feed(pieces)
            return True  # even if no datagram is complete
        if self.stream.pull(1) is not None:
            try:
                self._splitter.end()
            except WireError as error:
                self._finish(Outcome(FAILED, str(error)))
                return False
            self._end_of_input()
            self.stream.pull(1)
        return False

    def _end_of_input(self) -> None:
        if self._is_udp:
            self._write_ended = True
            self._await_idle()
        elif self.channel.sock is None and self.channel.read_fd == self.channel.write_fd:
            self._finish(Outcome())  # a network interface has no half-close
        else:
            super()._end_of_input()

    def _await_idle(self) -> None:
        """The far end sends no more.  UDP has no end: wait until no more answers come."""
        left = self._last_used + UDP_IDLE - self.loop.now()
        if self.is_over:
            return
        if left > 0:
            self.loop.later(left, self._await_idle)
            return
        self._eof_seen = True
        self._watch()
        self.stream.readable()


class DatagramCopier:
    """Copies datagrams both ways between two channels, which it owns.  `ended(why)` is called once; "": no error.

    The end of `ours`, the local side, is passed on as a half-close.  The end of `tunnel`, or `idle` seconds without
    traffic, ends both directions.
    """

    def __init__(
        self, loop: Loop, ours: Channel, tunnel: Channel, ended: Callable[[str], None], idle: float = 0.0
    ) -> None:
        self._loop = loop
        self._ours = ours
        self._tunnel = tunnel
        self._ended: Callable[[str], None] | None = ended
        self._idle = idle
        self._held: dict[Channel, bytes] = {}  # by the channel that had no room for it
        self._is_half_closed = False
        self._last = loop.now()
        self._timer: Timer | None = loop.later(idle, self._check_idle) if idle else None
        self._watch()

    def _copy(self, source: Channel, target: Channel) -> None:
        self._last = self._loop.now()
        room = self._loop.arena.take(MAX_DATAGRAM)
        for _ in range(BATCH):
            try:
                size = read(source, room)
            except OSError as error:
                self._end(f"reading failed: {error.strerror}")
                return
            if size == NOTHING:
                return
            if size == END:
                self._at_end(source)
                return
            datagram = room[:size]
            try:
                if not write(target, datagram, True):
                    self._held[target] = bytes(datagram)
                    self._watch()
                    return
            except OSError:
                self._end("")  # closed by its reader; the cause is reported elsewhere
                return

    def _at_end(self, source: Channel) -> None:
        if source is self._tunnel:
            self._end("")
            return
        self._is_half_closed = True
        if self._tunnel.write_fd != self._tunnel.read_fd:
            self._loop.watch(self._tunnel.write_fd)
        self._tunnel.close_write()
        self._watch()

    def _flush(self, target: Channel) -> None:
        try:
            if write(target, self._held[target], True):
                del self._held[target]
        except OSError:
            self._end("")
            return
        self._watch()

    def _watch(self) -> None:
        if self._ended is None:
            return
        for one, other in ((self._ours, self._tunnel), (self._tunnel, self._ours)):
            is_blocked = other in self._held or (one is self._ours and self._is_half_closed)
            read = None if is_blocked else functools.partial(self._copy, one, other)
            write = functools.partial(self._flush, one) if one in self._held else None
            one.watch(self._loop, read, write)

    def _check_idle(self) -> None:
        left = self._last + self._idle - self._loop.now()
        if left > 0:
            self._timer = self._loop.later(left, self._check_idle)
        else:
            self._end("")

    def _end(self, why: str) -> None:
        ended = self._ended
        if ended is not None:
            self.close()
            ended(why)

    def close(self) -> None:
        """Stop without calling `ended`."""
        if self._ended is None:
            return
        self._ended = None
        if self._timer is not None:
            self._timer.cancel()
        for channel in (self._ours, self._tunnel):
            for fd in {channel.read_fd, channel.write_fd} - {-1}:
                self._loop.watch(fd)
            channel.close()

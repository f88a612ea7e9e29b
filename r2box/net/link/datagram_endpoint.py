"""Datagrams at the ends of tunnels, read and written whole: each read and each write of a descriptor is one.

    Reader, write     what stands for a datagram on a descriptor, and what for its end
    whole_pair        the local ends of a tunnel
    WholeEndpoint     such a descriptor and a stream
    Crossing          such a descriptor and another

The descriptors are UNIX sockets of packets (SOCK_SEQPACKET), UDP sockets, network interfaces; of a terminal, or of a
pipe, what one read gives is a datagram.
"""

from __future__ import annotations

import errno
import functools
import select
import socket

from ...errors import WireError
from ...proto.link.stream import FIRST_WINDOW
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
BATCH = 64  # datagrams in a row before others get their turn
LINGER = 5.0  # seconds of silence after which a UDP socket has no more answers for who has ended his side
_LOST = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)  # by ICMP
_BROKEN = (errno.EPIPE, errno.ECONNRESET, errno.EBADFD if hasattr(errno, "EBADFD") else errno.EBADF)  # for ever


def whole_pair() -> tuple[int, int]:
    """As `socketpair`, but boundaries are kept."""
    return socketpair(socket.SOCK_SEQPACKET, FIRST_WINDOW)


def is_udp(channel: Channel) -> bool:
    return channel.sock is not None and channel.sock.type == socket.SOCK_DGRAM


def read(channel: Channel, room: memoryview) -> int:
    """Read one datagram into `room`: its size, END or NOTHING.  OSError as read(2), but for what ICMP has said.

    An empty one looks like the end to read(2); of a UNIX socket it is the end if the other side writes no more.
    """
    try:
        size = channel.read_into(room)
    except OSError as error:
        if error.errno in _LOST:
            return NOTHING
        if error.errno == errno.ECONNRESET:
            return END
        raise
    if size or is_udp(channel):
        return size
    if channel.is_unix and not channel.is_ending:
        return 0
    return 0 if channel.is_unix and _waits(channel.read_fd) else END


def _waits(fd: int) -> bool:
    """Whether there is more to be read; then what was empty was no end."""
    import fcntl
    import struct
    import termios

    return bool(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])


def write(channel: Channel, datagram: Buffer, with_empty: bool) -> bool:
    """Write one datagram; False if there is no room now.  OSError when nothing will ever be taken any more.

    One that the descriptor does not take is lost, as on any network; so is an empty one unless `with_empty`.
    """
    if not len(datagram) and not (with_empty and channel.sock is not None):
        return True
    try:
        return _send(channel, datagram)
    except OSError as error:
        if error.errno in _BROKEN and not is_udp(channel):
            raise
        if error.errno not in _LOST:
            return True
    try:
        return _send(channel, datagram)  # that was about the one before
    except OSError:
        return True


def _send(channel: Channel, datagram: Buffer) -> bool:
    if not len(datagram):  # a result of 0 would say nothing
        poll = select.poll()
        poll.register(channel.write_fd, select.POLLOUT)
        if not poll.poll(0):
            return False
    return channel.write((datagram,)) > 0 or not len(datagram)


class DatagramEndpoint(Endpoint):
    """One end of a tunnel of datagrams on `channel`, as an Endpoint is one of bytes.

    What is behind the limit of a `pull` is at most one datagram.
    """

    __slots__ = ("_cutter", "_is_udp", "_last", "_out", "_with_empty")

    def __init__(self, loop: Loop, channel: Channel, owner: EndpointOwner, kind: int, holds_eof: bool = False) -> None:
        super().__init__(loop, channel, owner, kind, holds_eof)
        self._cutter = DatagramSplitter()
        self._out: memoryview = memoryview(b"")  # of a datagram, what the last pull had no room for
        self._is_udp = is_udp(channel)
        self._with_empty = kind != endpoint.PROGRAM and not holds_eof  # a program would take one for the end
        self._last = loop.now()  # when a UDP socket was last used

    def pull(self, limit: int) -> Buffer | None:
        if self._out:
            return self._cut(limit)
        if self.channel.read_fd < 0 or self._eof_passed or self.is_over:
            return None
        self._told = False
        if not self._eof_seen:
            data = self._gather(limit)
            if data is None:
                return None
            if data:
                self._out = memoryview(data)
                return self._cut(limit)
            if not self._eof_seen:
                return None
        self._full = False
        return self._pull_eof()

    def _gather(self, limit: int) -> bytes | None:
        """Datagrams with their lengths, until the limit or as many as there are.  None if reading failed."""
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
            self._last = self.loop.now()
        if self._eof_seen or not (self._full or self._wants_read):
            self._wants_read = True
            self._watch()
        return b"".join(pieces)

    def _cut(self, limit: int) -> Buffer:
        piece, self._out = self._out[:limit], self._out[limit:]
        return piece

    def more(self) -> bool:
        return self._full or bool(self._out)

    def _drain(self) -> None:
        """Write what there is, as far as it goes, a datagram at a time."""
        while self._left or (self.stream.more() and self._refill()):
            if self._write_ended:
                self._left = []
                continue
            done = 0
            try:
                for datagram in self._left:
                    if not write(self.channel, datagram, self._with_empty):
                        break
                    done += 1
            except OSError:
                self._unread()
                break
            self._last = self.loop.now()
            del self._left[:done]
            if self._left:
                break
        self._drained()

    def _refill(self) -> bool:
        pieces = self.stream.take(endpoint.WRITE_SIZE)
        if pieces:
            self._left = self._cutter.feed(pieces)
            return True  # go on, even if no datagram is complete
        if self.stream.pull(1) is not None:
            try:
                self._cutter.end()
            except WireError as error:
                self._finish(Outcome(FAILED, str(error)))
                return False
            self._end_of_input()
            self.stream.pull(1)
        return False

    def _end_of_input(self) -> None:
        if self._is_udp:
            self._write_ended = True
            self._linger()
        elif self.channel.sock is None and self.channel.read_fd == self.channel.write_fd:
            self._finish(Outcome())  # an interface: a network that answers and hears nothing is none
        else:
            super()._end_of_input()

    def _linger(self) -> None:
        """The far end has asked all it wants to; UDP never ends by itself."""
        left = self._last + LINGER - self.loop.now()
        if self.is_over:
            return
        if left > 0:
            self.loop.later(left, self._linger)
            return
        self._eof_seen = True
        self._watch()
        self.stream.readable()


class Crossing:
    """Copies datagrams both ways between two channels, which it owns.  `ended(why)` is called once: "" in good order.

    `ours` is the local side: its end is passed on, and leaves the other direction open.  The end of `tunnel` is the end
    of all.  With `idle`, so are that many seconds in which nothing came from anywhere.
    """

    def __init__(
        self, loop: Loop, ours: Channel, tunnel: Channel, ended: Callable[[str], None], idle: float = 0.0
    ) -> None:
        self._loop = loop
        self._ours = ours
        self._tunnel = tunnel
        self._ended: Callable[[str], None] | None = ended
        self._idle = idle
        self._held: dict[Channel, bytes] = {}  # for this channel, what it had no room for
        self._is_half = False  # ours has ended
        self._last = loop.now()
        self._timer: Timer | None = loop.later(idle, self._look) if idle else None
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
                self._end("")  # nobody reads any more: what became of it, others tell
                return

    def _at_end(self, source: Channel) -> None:
        if source is self._tunnel:
            self._end("")
            return
        self._is_half = True
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
            quiet = other in self._held or (one is self._ours and self._is_half)
            read = None if quiet else functools.partial(self._copy, one, other)
            write = functools.partial(self._flush, one) if one in self._held else None
            one.watch(self._loop, read, write)

    def _look(self) -> None:
        left = self._last + self._idle - self._loop.now()
        if left > 0:
            self._timer = self._loop.later(left, self._look)
        else:
            self._end("")

    def _end(self, why: str) -> None:
        ended = self._ended
        if ended is not None:
            self.close()
            ended(why)

    def close(self) -> None:
        """Copy nothing more; nothing is called any more."""
        if self._ended is None:
            return
        self._ended = None
        if self._timer is not None:
            self._timer.cancel()
        for channel in (self._ours, self._tunnel):
            for fd in {channel.read_fd, channel.write_fd} - {-1}:
                self._loop.watch(fd)
            channel.close()

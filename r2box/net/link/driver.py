"""Link driver: one protocol link on one channel, with its reads, writes and timer.

Output is pulled: `Link.produce` is called only when all of its previous output was written, so no more than one write
is queued here.
"""

from __future__ import annotations

import errno

from ...proto.link.link import DOWN
from ...proto.link.replay_buffer import Block
from ..io.channel import close_all, drop_written
from .turns import TURN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...proto.arq.connection import ArqConnection
    from ...proto.link.link import Link
    from ...proto.wire.fields import Buffer
    from ..io.channel import Channel
    from ..io.loop import Loop, Timer
    from .opening import Opening
    from .turns import TurnGroup

ROUNDS = 2  # writes in a row
RETRY = 0.1  # seconds until a write that failed for want of memory is repeated
CLOSE_TIME = 1.5  # seconds to send the last bytes of a link that is down, and to receive the end from the neighbour

SHORTAGES = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)  # temporary errors


def _nothing() -> None:
    """Replaces a callback that is no longer needed: a closure that refers to its driver would make a cycle."""


class LinkDriver:
    """Owns `channel`.  `done()` is called once, when the channel is closed."""

    has_arq = False
    is_lent = False  # by a client: the transport ends with it, so BYE is sent before the end is reported to it
    opening: Opening | None = None  # examines the first bytes before the link does

    def __init__(self, group: TurnGroup, link: Link, channel: Channel, loop: Loop, done: Callable[[], None]) -> None:
        self.group = group
        self.loop = loop
        self.link = link
        self.channel = channel
        self.paused = False  # no more reads: the daemon is shutting down
        self._rest: memoryview | None = None  # bytes read that are left for the next turn
        self._debt = 0.0  # seconds used beyond a turn
        self._is_postponed = False  # no reads until the next turn
        self._is_readable = False  # read in that turn
        self._done = done
        self.after_close: list[Callable[[], object]] = []  # called when the transport is closed, unless it was released
        self._out: list[Buffer] = []
        self._attached: tuple[int, ...] = ()  # descriptors that go with `_out`
        # Attached to the HELLO of a control link, as a test whether descriptors pass.
        self._test_fd = (channel.write_fd,) if link.is_local else ()
        self._writable = True  # as far as is known
        self._write_closed = False  # writes fail; what the other side has sent is still read
        self._reset = ""  # the error of a write on a reset connection, where reads see only an end
        self.idle: Callable[[], None] | None = None  # called when everything has been written
        self._watched = (False, False)  # what the loop watches for: reading, writing
        self._scheduled = False
        self._timer: Timer | None = None
        self._due = 0.0
        self._close_timer: Timer | None = None
        self._awaits_end = False  # BYE is written; waiting for the end from the neighbour
        self._closed = False
        self.carry(link)

    # -- in ------------------------------------------------------------------------------------------------------

    @property
    def is_pending(self) -> bool:
        """Whether it is a pending link, with fewer turns."""
        return not (self.link.is_up or self.link.is_local)

    def _readable(self) -> None:
        if self.is_pending:
            self._is_postponed = self._is_readable = True
            self.group.postpone(self)
            self._watch()
            return
        begun = self.loop.now()
        self._debt = max(0.0, self._debt - TURN)
        self._read()
        self._end_turn(begun)

    def turn(self) -> None:
        """A postponed turn: pay for the last one; then deliver the rest of its bytes, or read."""
        is_readable, self._is_readable, self._is_postponed = self._is_readable, False, False
        begun = self.loop.now()
        self._debt = max(0.0, self._debt - TURN)
        if self._rest is not None and not self._debt and not self._closed:
            rest, self._rest = self._rest, None
            if self.link.state != DOWN:
                self._deliver(rest, ())
        elif is_readable and not self._debt and not self._closed and not self.paused:
            self._read()
        self._end_turn(begun)

    def _end_turn(self, begun: float) -> None:
        """Account for the time since `begun`.  A link that has used up its turn is postponed."""
        if self._closed:
            self._rest = None
            return
        self.group.limit_memory()
        self._debt += self.loop.now() - begun
        if self._rest is not None or self._debt > TURN:
            self._is_postponed = True
            self.group.postpone(self)
        self._watch()

    def _read(self) -> None:
        buffer = self.group.read_buffer()
        try:
            descriptors: tuple[int, ...] = ()
            if self.link.is_local:
                size, descriptors = self.channel.read_with_descriptors(buffer)
            else:
                size = self.channel.read_into(buffer)
        except ConnectionResetError as error:
            # A UNIX socket, closed by its peer with bytes unread: a normal end.
            self._failed("" if self.channel.is_unix else error.strerror or str(error))
            return
        except OSError as error:
            self._failed(error.strerror or str(error))
            return
        if size <= 0:
            if not size:
                self._failed(self._reset)
            return
        if self.opening is not None and self.link.state != DOWN:
            self._open(self.opening.take(bytes(buffer[:size])))
            return
        if descriptors and not self.link.passes_descriptors:  # the test descriptor of the other side
            self.link.passes_descriptors = True
            close_all(descriptors[:1])
            descriptors = descriptors[1:]
        if self.link.state == DOWN:  # ignore what comes after BYE
            close_all(descriptors)
            return
        self._deliver(buffer[:size], descriptors)
        if size == len(buffer):
            self.group.enlarge()

    def _open(self, data: bytes) -> None:
        """Deliver `data`, which the opening has left for the link."""
        if self.opening is not None and self.opening.is_over:
            self.opening = None
        if data and not self._closed:
            self._deliver(data, ())

    def _deliver(self, data: Buffer, descriptors: tuple[int, ...]) -> None:
        """Give bytes to the link, as many as fit into a turn, and keep the rest.  `data` may be reused afterwards."""
        taken = len(data)
        try:
            taken = self.link.receive(data, self.loop.now(), descriptors, self.group.work)
        except Exception:
            self.link.close("internal error")  # its position in the byte stream is lost
            raise
        finally:
            self.group.flush()  # before `settle` copies what could not be sent
            self.link.settle()
        if taken < len(data):
            rest = memoryview(data)[taken:]
            self._rest = rest if isinstance(rest.obj, (bytes, Block)) else memoryview(bytes(rest))

    def _failed(self, why: str) -> None:
        """The transport has ended (""), or failed."""
        if self.opening is not None and self.link.state != DOWN:
            self._open(self.opening.end())
        self.link.eof(self.loop.now(), why)
        self.cut()

    def carry(self, link: Link) -> None:
        """Use this transport for `link` from now on."""
        self.link = link
        link.sender.has_arq = self.has_arq
        self._tick()
        self.wake()

    # -- out -----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Schedule a flush: the link has output, or is down."""
        if not self._scheduled and not self._closed and (self._writable or self._is_urgent):
            self._scheduled = True
            self.group.add(self)

    @property
    def _is_urgent(self) -> bool:
        return self.link.state == DOWN or 0 < self.link.deadline() < self._due

    def flush(self) -> None:
        """Write until the channel takes no more, or the link has no output."""
        self._scheduled = False
        if self._closed:
            return
        if self._writable:
            self._writable = self._write()
        if self._closed:
            return
        if self.link.state == DOWN:
            self._close_orderly()
        elif 0 < self.link.deadline() < self._due:
            self._tick()
        if not self._closed:
            self._watch()
        if self.idle is not None and self.is_idle:
            self.idle()

    def _write(self) -> bool:
        """Write for some rounds; False if the channel takes no more now."""
        for _ in range(ROUNDS):
            if not self._out:
                if not self.link.has_output:
                    return True
                self.loop.arena.clear()
                self._out, self._attached = self.link.produce(self.loop.now())
                if not self._out:
                    return True
            try:
                written = self.channel.write(self._out, self._test_fd + self._attached)
            except OSError as error:
                return self._write_failed(error)
            self._out = drop_written(self._out, written)
            if not written:
                return False
            close_all(self._attached)
            self._attached = self._test_fd = ()
        self._scheduled = True
        self.group.add(self)
        return True

    def _write_failed(self, error: OSError) -> bool:
        """Handle a failed write; returns False, as `_write` does then."""
        if error.errno in SHORTAGES:
            self._out = drop_written(self._out, 0)
            self.loop.later(RETRY, self._unblocked)
        else:
            # The reason may be in the last bytes of the other side, or in how they end: continue to read.
            if error.errno == errno.ECONNRESET and not self.channel.is_unix:
                self._reset = error.strerror or str(error)
            self._write_closed = True
            self._out = []
        return False

    @property
    def _wants_read(self) -> bool:
        if self.link.state == DOWN:
            return self._awaits_end
        return not (self.link.is_backlogged or self.paused or self._is_postponed)

    def _watch(self) -> None:
        wanted = self._wants_read, not (self._writable or self._write_closed)
        if wanted == self._watched:
            return
        self._watched = wanted
        read = self._readable if wanted[0] else None
        write = self._unblocked if wanted[1] else None
        try:
            self.channel.watch(self.loop, read, write)
        except OSError as error:  # a descriptor that carries no bytes, such as one opened with O_PATH
            self._failed(error.strerror or str(error))

    def _unblocked(self) -> None:
        if not self._write_closed:
            self._writable = True
        self.flush()

    # -- time and the end ----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.link.tick(self.loop.now())
        self._due = self.link.deadline()
        if self._due and not self._closed:
            self._timer = self.loop.later(self._due - self.loop.now(), self._tick)

    def pause(self) -> None:
        """Stop reading."""
        self.paused = True
        self.link.sender.flush()
        if not self._closed:
            self._watch()

    @property
    def is_idle(self) -> bool:
        """Whether everything has been written."""
        return self._closed or self._write_closed or not (self._out or self.link.has_output)

    @property
    def arq(self) -> ArqConnection | None:
        """ARQ on this transport, or None."""
        return None

    @property
    def unwritten(self) -> int:
        """Bytes of output that the channel has not taken yet."""
        return sum(map(len, self._out))

    def _close_orderly(self) -> None:
        """The link is down: write its last bytes within `CLOSE_TIME`, then close.

        The side that sends BYE closes last: closing with bytes unread would reset the connection, and the reset could
        overtake BYE.
        """
        written = self._writable and not self._out and not self.link.has_output
        if self._write_closed or (written and (self.link.is_local or not self.link.sent_bye)):
            self.cut()
            return
        if written and not self._awaits_end:
            self._awaits_end = True
            if self.channel.write_fd != self.channel.read_fd:
                self.loop.watch(self.channel.write_fd)
            self.channel.close_write()
            self._watched = (False, False)
        self._set_close_timer()

    def _set_close_timer(self) -> None:
        if self._close_timer is None:
            self._close_timer = self.loop.later(CLOSE_TIME, self.cut)

    def release(self) -> Channel:
        """Return the channel for another driver, without closing it."""
        self._retire()
        self._done = _nothing
        return self.channel

    def cut(self) -> None:
        """Close the transport at once."""
        if not self._closed:
            self._retire()
            close_all(self._attached)
            if self.link.is_local:
                close_all(self.link.abandon())
            self.channel.close()
            done, self._done = self._done, _nothing
            done()
            for callback in self.after_close:
                callback()

    def _retire(self) -> None:
        self._closed = True
        self._out, self._rest = [], None  # free the memory now: the driver may be in a reference cycle
        for timer in (self._timer, self._close_timer):
            if timer is not None:
                timer.cancel()
        for fd in {self.channel.read_fd, self.channel.write_fd}:
            self.loop.watch(fd)

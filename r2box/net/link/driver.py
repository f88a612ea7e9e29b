"""One proto Link on one Channel: reads feed it, writes drain it, a timer ticks it.

Writing is pulled: `Link.produce` is asked for more only when everything it gave before has been written, so nothing
queues up here but one write.
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

ROUNDS = 2  # writes in a row before others get their turn
RETRY = 0.1  # seconds after which a write is tried again that failed for want of memory
FAREWELL = 1.5  # seconds for the last bytes of a link that has ended

SHORTAGES = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)  # they pass


def _nothing() -> None:
    """For what is not to be called any more: a closure that leads back to its driver would make a circle."""


class LinkDriver:
    """Owns `channel`.  `done()` is called once, when the channel is closed."""

    is_repaired = False  # losses of the transport are repaired here
    is_lent = False  # by a client whose end would be that of the transport: it must not hear of a farewell too early
    opening: Opening | None = None  # what looks at the first bytes before the link does

    def __init__(self, group: TurnGroup, link: Link, channel: Channel, loop: Loop, done: Callable[[], None]) -> None:
        self.group = group
        self.loop = loop
        self.link = link
        self.channel = channel
        self.paused = False  # read nothing more: the daemon is ending
        self._rest: memoryview | None = None  # what was read and is for the next turn
        self._debt = 0.0  # seconds of the loop's time that were used beyond a turn
        self._is_postponed = False  # until its next turn, nothing is read
        self._is_readable = False  # and in that turn something is
        self._done = done
        self.after_close: list[Callable[[], object]] = []  # called when the transport is closed, unless it was released
        self._out: list[Buffer] = []
        self._passengers: tuple[int, ...] = ()
        # What goes along with the hello of a control link, for nothing but to see whether it arrives.
        self._token = (channel.write_fd,) if link.is_local else ()
        self._writable = True  # as far as is known
        self._deaf = False  # the other side takes nothing more; what it said is still read
        self._reset = ""  # of which a write was told: then reading sees nothing but an end
        self.idle: Callable[[], None] | None = None  # called when everything has been written
        self._watched = (False, False)  # what the loop watches for: reading, writing
        self._scheduled = False
        self._timer: Timer | None = None
        self._due = 0.0
        self._farewell: Timer | None = None
        self._lingers = False  # our farewell is written, the neighbour's end is awaited
        self._closed = False
        self.carry(link)

    # -- in ------------------------------------------------------------------------------------------------------

    @property
    def is_pending(self) -> bool:
        """Whether it has its turns with the crowd."""
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
        """The next turn of a link that had used up its last one, or waited for it: pay for the last, then take the
        rest, or read."""
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
        """Account for the time since `begun`: others have their turns before a link that took much has its next."""
        if self._closed:
            self._rest = None
            return
        self.group.relieve()
        self._debt += self.loop.now() - begun
        if self._rest is not None or self._debt > TURN:
            self._is_postponed = True
            self.group.postpone(self)
        self._watch()

    def _read(self) -> None:
        inward = self.group.inward()
        try:
            passengers: tuple[int, ...] = ()
            if self.link.is_local:
                size, passengers = self.channel.read_with_descriptors(inward)
            else:
                size = self.channel.read_into(inward)
        except ConnectionResetError as error:
            # A UNIX socket says so when its other end was closed with bytes unread; that is an end like any other.
            self._broken("" if self.channel.is_unix else error.strerror or str(error))
            return
        except OSError as error:
            self._broken(error.strerror or str(error))
            return
        if size <= 0:
            if not size:
                self._broken(self._reset)
            return
        if self.opening is not None and self.link.state != DOWN:
            self._open(self.opening.take(bytes(inward[:size])))
            return
        if passengers and not self.link.passes:  # the neighbour's token
            self.link.passes = True
            close_all(passengers[:1])
            passengers = passengers[1:]
        if self.link.state == DOWN:  # what comes after a farewell is not for us
            close_all(passengers)
            return
        self._deliver(inward[:size], passengers)
        if size == len(inward):
            self.group.widen()

    def _open(self, data: bytes) -> None:
        """The opening has looked at what came; `data` of it is for the link."""
        if self.opening is not None and self.opening.is_over:
            self.opening = None
        if data and not self._closed:
            self._deliver(data, ())

    def _deliver(self, data: Buffer, passengers: tuple[int, ...]) -> None:
        """Give bytes to the link, as many as fit into a turn; they are not its own any more afterwards."""
        taken = len(data)
        try:
            taken = self.link.receive(data, self.loop.now(), passengers, self.group.work)
        except Exception:
            self.link.close("internal error")  # it has lost its place in the neighbour's bytes
            raise
        finally:
            self.group.flush()  # before what could not be sent is copied
            self.link.settle()
        if taken < len(data):
            rest = memoryview(data)[taken:]
            self._rest = rest if isinstance(rest.obj, (bytes, Block)) else memoryview(bytes(rest))

    def _broken(self, why: str) -> None:
        if self.opening is not None and self.link.state != DOWN:
            self._open(self.opening.end())
        self.link.eof(self.loop.now(), why)
        self.cut()

    def carry(self, link: Link) -> None:
        """From now on it is `link` that goes over this transport."""
        self.link = link
        link.sender.is_repaired = self.is_repaired
        self._tick()
        self.wake()

    # -- out -----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """The link has something to send, or has ended: see to it at the end of this round of the loop."""
        if not self._scheduled and not self._closed and (self._writable or self._is_urgent):
            self._scheduled = True
            self.group.add(self)

    @property
    def _is_urgent(self) -> bool:
        return self.link.state == DOWN or 0 < self.link.deadline() < self._due

    def flush(self) -> None:
        """Write what there is, as far as it goes."""
        self._scheduled = False
        if self._closed:
            return
        if self._writable:
            self._writable = self._write()
        if self._closed:
            return
        if self.link.state == DOWN:
            self._wave()
        elif 0 < self.link.deadline() < self._due:
            self._tick()
        if not self._closed:
            self._watch()
        if self.idle is not None and self.is_idle:
            self.idle()

    def _write(self) -> bool:
        """Write until nothing is left or nothing fits; False if nothing fits."""
        for _ in range(ROUNDS):
            if not self._out:
                if not self.link.has_output:
                    return True
                self.loop.arena.clear()
                self._out, self._passengers = self.link.produce(self.loop.now())
                if not self._out:
                    return True
            try:
                written = self.channel.write(self._out, self._token + self._passengers)
            except OSError as error:
                return self._write_failed(error)
            self._out = drop_written(self._out, written)
            if not written:
                return False
            close_all(self._passengers)
            self._passengers = self._token = ()
        self._scheduled = True
        self.group.add(self)
        return True

    def _write_failed(self, error: OSError) -> bool:
        """False, as nothing can be written now."""
        if error.errno in SHORTAGES:
            self._out = drop_written(self._out, 0)
            self.loop.later(RETRY, self._unblocked)
        else:
            # Why it takes nothing more is in what it said last, or in how it ends: read on.
            if error.errno == errno.ECONNRESET and not self.channel.is_unix:
                self._reset = error.strerror or str(error)
            self._deaf = True
            self._out = []
        return False

    @property
    def _listens(self) -> bool:
        if self.link.state == DOWN:
            return self._lingers
        return not (self.link.is_backlogged or self.paused or self._is_postponed)

    def _watch(self) -> None:
        wanted = self._listens, not (self._writable or self._deaf)
        if wanted == self._watched:
            return
        self._watched = wanted
        read = self._readable if wanted[0] else None
        write = self._unblocked if wanted[1] else None
        try:
            self.channel.watch(self.loop, read, write)
        except OSError as error:  # it is nothing that carries bytes, such as what O_PATH opens
            self._broken(error.strerror or str(error))

    def _unblocked(self) -> None:
        if not self._deaf:
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
        """Read nothing more."""
        self.paused = True
        self.link.sender.hurry()
        if not self._closed:
            self._watch()

    @property
    def is_idle(self) -> bool:
        """Whether everything has been written."""
        return self._closed or self._deaf or not (self._out or self.link.has_output)

    @property
    def arq(self) -> ArqConnection | None:
        """What repairs the losses."""
        return None

    @property
    def unwritten(self) -> int:
        """Bytes that were taken from the link and wait to be written."""
        return sum(map(len, self._out))

    def _wave(self) -> None:
        """The link is down: write its last bytes, but do not wait long for a neighbour that does not read.

        Whoever says farewell to a neighbour closes second: closing with bytes unread would reset the connection, and
        a reset can overtake the farewell.
        """
        written = self._writable and not self._out and not self.link.has_output
        if self._deaf or (written and (self.link.is_local or not self.link.said_bye)):
            self.cut()
            return
        if written and not self._lingers:
            self._lingers = True
            if self.channel.write_fd != self.channel.read_fd:
                self.loop.watch(self.channel.write_fd)
            self.channel.close_write()
            self._watched = (False, False)
        if self._farewell is None:
            self._set_farewell()

    def _set_farewell(self) -> None:
        self._farewell = self.loop.later(FAREWELL, self.cut)

    def release(self) -> Channel:
        """The channel, which somebody else drives from now on."""
        self._retire()
        self._done = _nothing
        return self.channel

    def cut(self) -> None:
        """The transport is of no use any more."""
        if not self._closed:
            self._retire()
            close_all(self._passengers)
            if self.link.is_local:
                close_all(self.link.abandon())
            self.channel.close()
            done, self._done = self._done, _nothing
            done()
            for callback in self.after_close:
                callback()

    def _retire(self) -> None:
        self._closed = True
        self._out, self._rest, self.first = [], None, None  # no circle keeps what they hold until it is found
        for timer in (self._timer, self._farewell):
            if timer is not None:
                timer.cancel()
        for fd in {self.channel.read_fd, self.channel.write_fd}:
            self.loop.watch(fd)

"""Where a tunnel meets a descriptor: one end of a Stream, on a Channel.

Bytes are read from the descriptor only when the stream asks (`pull`), and pulled from the stream only when the
descriptor can take them; what one write left over is all that is ever held here.

A program's end of output is held back for `GRACE` or until its exit is known, so that one that was killed does not look
like one that finished: its tunnel ends with the signal and without FIN.  Who tells of the exit may be late where much
else is done: so it is asked for a sign of life, before which it tells what it has seen.
"""

from __future__ import annotations

import errno

from ...proto.link.stream import NOBODY
from ...proto.wire.outcome import ENDED, FAILED, GONE, UNREAD, Outcome
from ..io.channel import drop_written

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ...proto.link.link import Link
    from ...proto.link.stream import Stream
    from ...proto.wire.fields import Buffer
    from ..io.channel import Channel
    from ..io.loop import Loop

    class EndpointOwner(Protocol):
        """Who is told what becomes of an Endpoint."""

        def accepted(self) -> None:
            """The far end took the tunnel."""

        def closed(self, outcome: Outcome) -> None:
            """The tunnel is over.  Called once; the channel is the owner's to close."""


# What the descriptor leads to.  A CLIENT's tunnel ends when the far end says so; a STDIO's too, or when nobody reads
# its output any more; a PROGRAM's when `exited` was called and its output is at its end; a SOCKET's when both
# directions are, and the far end says so if it is the one that was asked.
CLIENT, STDIO, PROGRAM, SOCKET = range(4)

WRITE_SIZE = 1 << 19  # pulled at once
GRACE = 0.1  # seconds between a program's end of output and its exit that still count as one event
TELL_TIME = 5.0  # seconds for who is to tell of the exit, if it gives no sign of life


class Endpoint:
    """One end of a tunnel on `channel`, which it does not close.  With `holds_eof`, `halted` will be called."""

    __slots__ = (
        "_asks", "_ending", "_eof_passed", "_eof_seen", "_exit", "_full", "_holds_eof", "_is_believed", "_kind",
        "_left", "_owner", "_told", "_wants_read", "_write_ended", "_writes", "channel", "idle", "is_over", "loop",
        "stream", "teller",
    )  # fmt: skip

    def __init__(self, loop: Loop, channel: Channel, owner: EndpointOwner, kind: int, holds_eof: bool = False) -> None:
        self.loop = loop
        self.channel = channel
        self.stream: Stream = NOBODY  # type: ignore[assignment]
        self._owner = owner
        self._full = False  # the last read filled its limit: there may be more
        self._told = False  # the stream knows that there is something to read, and has not pulled yet
        self._wants_read = False
        self._writes = False  # the loop tells when it can be written
        self._kind = kind
        self._holds_eof = kind == PROGRAM or holds_eof
        self._asks = False  # how it ended
        self._is_believed = False  # that its end comes from a client that lives
        self._eof_seen = False  # on the descriptor
        self._eof_passed = False  # to the stream
        self._exit: Outcome | None = None  # how our program ended
        self._left: list[Buffer] = []  # what the last write could not take
        self._write_ended = False  # FIN has come and gone to the descriptor
        self._ending: Outcome | None = None  # the stream is over, but not all of it is written yet
        self.is_over = False
        self.idle: Callable[[], None] | None = None  # called when everything has been written
        self.teller: Link | None = None  # over which the exit of the program will be told

    def join(self, stream: Stream) -> None:
        """The stream of this tunnel.  Reading starts with `begin`."""
        self.stream = stream

    def begin(self) -> None:
        """The tunnel stands: wait for something to read."""
        self._wants_read = True
        self._watch()

    # -- from the descriptor to the stream -------------------------------------------------------------------------

    def _readable(self) -> None:
        """Tell the stream.  If it has not pulled when this comes again, it cannot: be quiet until it does."""
        if self._told:
            self._wants_read = False
            self._watch()
            return
        self._told = self._full = True
        self.stream.readable()

    def pull(self, limit: int) -> Buffer | None:
        if self.channel.read_fd < 0 or self._eof_passed or self.is_over:
            return None
        self._told = False
        if not self._eof_seen:
            room = self.loop.arena.take(limit)
            try:
                size = self.channel.read_into(room)
            except OSError as error:
                if error.errno != errno.ECONNRESET or not self.channel.is_unix:
                    self._full = False
                    self._finish(Outcome(FAILED, f"reading failed: {error.strerror}"))
                    return None
                size = 0  # a UNIX socket says so when its other end was closed with bytes unread
            self._full = size == limit
            if size:
                if not self._full and not self._wants_read:
                    self._wants_read = True
                    self._watch()
                if size < 0:
                    return None
                self.loop.arena.keep(size)
                return room[:size]
            self._eof_seen = True
            self._watch()
        return self._pull_eof()

    def _pull_eof(self) -> Buffer | None:
        """The descriptor is at its end; is the stream?"""
        if self._exit is None and self._holds_eof:
            if not self._asks:  # once, however often the far end has us look
                self._asks = True
                self.loop.later(GRACE, self._ask_teller)
            return None
        if self._kind <= STDIO and not self._is_believed:
            # A client that dies leaves the control socket first.  Two rounds on, we have heard of that.
            self._is_believed = True
            self.loop.soon(lambda: self.loop.soon(self._release_eof))
            return None
        if self._exit is not None and not self._exit.is_clean:
            self._finish(self._exit)
            return None
        self._eof_passed = True
        self.loop.soon(self._maybe_over)
        if self._kind == SOCKET and self.channel.is_hung_up:
            self.loop.soon(self._unread)
        return b""

    def _unread(self) -> None:
        """Nobody reads what is written to the descriptor any more."""
        self._left = []
        self._write_ended = True
        self.stream.stop()
        if self._kind == STDIO:
            self._finish(Outcome(UNREAD))
        self._maybe_over()

    def _ask_teller(self) -> None:
        """The program has closed its output and lives, or who is to tell of its exit had no time for it yet."""
        if self.teller is None or self.is_over or not self._holds_eof:
            self._release_eof()
            return
        self.loop.later(TELL_TIME, self._release_eof)
        self.teller.sender.asked.append(lambda: self.loop.soon(self._release_eof))
        self.teller.ask()

    def _release_eof(self) -> None:
        self._holds_eof = False
        self.stream.readable()

    def more(self) -> bool:
        return self._full

    def stop(self) -> None:
        """The far end reads no more: our program's writes shall fail."""
        self._eof_seen = self._eof_passed = True
        self._full = False
        self._watch()
        if self.channel.read_fd >= 0:
            self.channel.close_read()
        self._maybe_over()

    def halted(self, outcome: Outcome) -> None:
        """The program of our client has ended; if it was killed, its end of output is no end of the stream."""
        if outcome.signal:
            self._finish(Outcome(GONE, f"the program at the other end was killed by signal {outcome.signal}"))
        elif not self.is_over:
            self._release_eof()

    def exited(self, outcome: Outcome) -> None:
        """Our program has ended.  What it wrote before is still passed on."""
        self._exit = outcome
        self._holds_eof = False
        if self._eof_passed:
            self._finish(outcome)
        elif outcome.code != ENDED:
            self._finish(outcome)  # it never ran
        else:
            self.stream.readable()

    # -- from the stream to the descriptor -------------------------------------------------------------------------

    def readable(self) -> None:
        if not self._left:
            self._drain()

    def _drain(self) -> None:
        """Write what there is, as far as it goes."""
        while self._left or (self.stream.more() and self._refill()):
            if self._write_ended:
                self._left = []
                continue
            try:
                written = self.channel.write(self._left)
            except OSError:
                self._unread()
                break
            self._left = drop_written(self._left, written)
            if self._left and not written:
                break
        self._drained()

    def _drained(self) -> None:
        """As much is written as goes now."""
        if self._writes != bool(self._left):
            self._watch()
        if not self._left:
            if self._ending is not None:
                self._over(self._ending)
            if self.idle is not None:
                self.idle()

    def _refill(self) -> bool:
        """Take what the stream has; False if that is no bytes."""
        self._left = self.stream.take(WRITE_SIZE)
        if not self._left and self.stream.pull(1) is not None:  # its end
            self._end_of_input()
            self.stream.pull(1)  # and what stands behind it
        return bool(self._left)

    def _end_of_input(self) -> None:
        self._write_ended = True
        if self.channel.write_fd >= 0:
            self._watch()
            self.channel.close_write()
        self._maybe_over()

    def accept(self) -> None:
        self._owner.accepted()

    def close(self, outcome: Outcome) -> None:
        """The stream is over."""
        self.stream = NOBODY  # type: ignore[assignment]
        self._ending = outcome
        if not self._left or self._kind > STDIO:
            self._over(outcome)

    # -- the end ---------------------------------------------------------------------------------------------------

    @property
    def is_writing(self) -> bool:
        """Whether bytes wait for the descriptor to take them."""
        return not self.is_over and bool(self._left)

    def abandon(self, outcome: Outcome) -> None:
        """The program at this end went away."""
        self._finish(outcome)

    def _maybe_over(self) -> None:
        if self.is_over or not self._eof_passed:
            return
        if self._exit is not None:
            self._finish(self._exit)
        elif self._kind == SOCKET and self._write_ended and not self.stream.opened_here:
            # Who opened it waits for the far end to say so: its own CLOSE would overtake what it sent.
            self._finish(Outcome())

    def _finish(self, outcome: Outcome) -> None:
        if self.is_over:
            return
        stream, self.stream = self.stream, NOBODY  # type: ignore[assignment]
        stream.close(outcome)
        self._over(outcome)

    def _over(self, outcome: Outcome) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._left = []
        self._watch()
        owner, self._owner = self._owner, NOBODY  # no circle is left that only the garbage collector would find
        owner.closed(outcome)

    def _watch(self) -> None:
        """Have the loop watch for what is wanted now."""
        reads = self._wants_read and not self._eof_seen and not self.is_over
        self._writes = bool(self._left) and not self.is_over
        read = self._readable if reads else None
        write = self._drain if self._writes else None
        self.channel.watch(self.loop, read, write)

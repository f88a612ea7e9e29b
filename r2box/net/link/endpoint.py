"""Tunnel endpoint: one end of a Stream, on a Channel.

Bytes are read from the descriptor only when the stream pulls, and pulled from the stream only when the descriptor can
take them.  The remainder of one write is all that is buffered here.

FIN for the end of a program's output is delayed until the exit of the program is known, or for `EXIT_GRACE`: the tunnel
of a killed program ends with the signal, and without FIN.  On a busy host the report of the exit may be late.  So
before FIN is sent, a PING goes to the reporting client (`exit_source`): it answers after what it has to report.
"""

from __future__ import annotations

import errno

from ...proto.link.stream import NULL_END
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
        """Receives the events of an Endpoint."""

        def accepted(self) -> None:
            """The far end has accepted the tunnel."""

        def closed(self, outcome: Outcome) -> None:
            """The tunnel has ended.  Called once; the owner closes the channel."""


# What the descriptor leads to, and when its tunnel ends:
#   CLIENT   when the far end closes it
#   STDIO    likewise, or when its output is no longer read
#   PROGRAM  when `exited` was called and its output is at its end
#   SOCKET   when both directions are at their end; if this end has opened it, when the far end closes it
CLIENT, STDIO, PROGRAM, SOCKET = range(4)

WRITE_SIZE = 1 << 19  # bytes pulled at once
EXIT_GRACE = 0.1  # seconds from the end of a program's output until a PING is sent
EXIT_TIMEOUT = 5.0  # seconds to wait for the answer to that PING


class Endpoint:
    """One end of a tunnel on `channel`, which it does not close.

    With `holds_eof`, the client will report the exit of its program (`halted`), and FIN waits for that.
    """

    __slots__ = (
        "_ending", "_eof_confirmed", "_eof_passed", "_eof_seen", "_exit", "_exit_requested", "_full", "_holds_eof",
        "_kind", "_notified", "_owner", "_unwritten", "_wants_read", "_watches_write", "_write_ended", "channel",
        "exit_source", "idle", "is_over", "loop", "stream",
    )  # fmt: skip

    def __init__(self, loop: Loop, channel: Channel, owner: EndpointOwner, kind: int, holds_eof: bool = False) -> None:
        self.loop = loop
        self.channel = channel
        self.stream: Stream = NULL_END  # type: ignore[assignment]
        self._owner = owner
        self._full = False  # the last read filled its limit: there may be more
        self._notified = False  # the stream was notified of bytes to read, and has not pulled yet
        self._wants_read = False
        self._watches_write = False
        self._kind = kind
        self._holds_eof = kind == PROGRAM or holds_eof
        self._exit_requested = False
        self._eof_confirmed = False  # the client was still connected after the end of its output
        self._eof_seen = False  # on the descriptor
        self._eof_passed = False  # to the stream
        self._exit: Outcome | None = None  # of this end's program
        self._unwritten: list[Buffer] = []  # the remainder of the last write
        self._write_ended = False  # FIN was received and passed to the descriptor
        self._ending: Outcome | None = None  # the stream is closed, but not all of it is written yet
        self.is_over = False
        self.idle: Callable[[], None] | None = None  # called when everything has been written
        self.exit_source: Link | None = None  # of the client that reports the exit of the program

    def join(self, stream: Stream) -> None:
        """Set the stream of this tunnel.  Reading starts with `begin`."""
        self.stream = stream

    def begin(self) -> None:
        """The tunnel is open: start to read."""
        self._wants_read = True
        self._watch()

    # -- from the descriptor to the stream -------------------------------------------------------------------------

    def _readable(self) -> None:
        """Notify the stream.  If it has not pulled since the last notification, stop watching until it pulls."""
        if self._notified:
            self._wants_read = False
            self._watch()
            return
        self._notified = self._full = True
        self.stream.readable()

    def pull(self, limit: int) -> Buffer | None:
        if self.channel.read_fd < 0 or self._eof_passed or self.is_over:
            return None
        self._notified = False
        if not self._eof_seen:
            room = self.loop.arena.take(limit)
            try:
                size = self.channel.read_into(room)
            except OSError as error:
                if error.errno != errno.ECONNRESET or not self.channel.is_unix:
                    self._full = False
                    self._finish(Outcome(FAILED, f"reading failed: {error.strerror}"))
                    return None
                size = 0  # a UNIX socket, closed by its peer with bytes unread
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
        """The descriptor is at its end: b"" if FIN may be sent now."""
        if self._exit is None and self._holds_eof:
            if not self._exit_requested:
                self._exit_requested = True
                self.loop.later(EXIT_GRACE, self._request_exit)
            return None
        if self._kind <= STDIO and not self._eof_confirmed:
            # The control socket of a killed client closes first.  Within two rounds of the loop that was read.
            self._eof_confirmed = True
            self.loop.soon(lambda: self.loop.soon(self._release_eof))
            return None
        if self._exit is not None and not self._exit.is_clean:
            self._finish(self._exit)
            return None
        self._eof_passed = True
        self.loop.soon(self._maybe_over)
        if self._kind == SOCKET and self.channel.is_hung_up:
            self.loop.soon(self._output_closed)
        return b""

    def _output_closed(self) -> None:
        """The descriptor takes no more bytes: its reader has closed it."""
        self._unwritten = []
        self._write_ended = True
        self.stream.stop()
        if self._kind == STDIO:
            self._finish(Outcome(UNREAD))
        self._maybe_over()

    def _request_exit(self) -> None:
        """The program has closed its output and runs on, or the report of its exit is late: send a PING."""
        if self.exit_source is None or self.is_over or not self._holds_eof:
            self._release_eof()
            return
        self.loop.later(EXIT_TIMEOUT, self._release_eof)
        self.exit_source.sender.pong_callbacks.append(lambda: self.loop.soon(self._release_eof))
        self.exit_source.ping()

    def _release_eof(self) -> None:
        self._holds_eof = False
        self.stream.readable()

    def more(self) -> bool:
        return self._full

    def stop(self) -> None:
        """The far end reads no more: close the descriptor for reading, so that this program's writes fail."""
        self._eof_seen = self._eof_passed = True
        self._full = False
        self._watch()
        if self.channel.read_fd >= 0:
            self.channel.close_read()
        self._maybe_over()

    def halted(self, outcome: Outcome) -> None:
        """The client's program has ended.  If it was killed, the tunnel fails instead of ending cleanly."""
        if outcome.signal:
            self._finish(Outcome(GONE, f"the program at the other end was killed by signal {outcome.signal}"))
        elif not self.is_over:
            self._release_eof()

    def exited(self, outcome: Outcome) -> None:
        """This end's program has ended.  What it wrote before is still passed on."""
        self._exit = outcome
        self._holds_eof = False
        if self._eof_passed:
            self._finish(outcome)
        elif outcome.code != ENDED:
            self._finish(outcome)  # it was never started
        else:
            self.stream.readable()

    # -- from the stream to the descriptor -------------------------------------------------------------------------

    def readable(self) -> None:
        if not self._unwritten:
            self._drain()

    def _drain(self) -> None:
        """Write until the descriptor takes no more, or the stream has no more."""
        while self._unwritten or (self.stream.more() and self._refill()):
            if self._write_ended:
                self._unwritten = []
                continue
            try:
                if not self._write():
                    break
            except OSError:
                self._output_closed()
                break
        if self._watches_write != bool(self._unwritten):
            self._watch()
        if not self._unwritten:
            if self._ending is not None:
                self._over(self._ending)
            if self.idle is not None:
                self.idle()

    def _write(self) -> bool:
        """Write once; False if the descriptor takes no more now."""
        written = self.channel.write(self._unwritten)
        self._unwritten = drop_written(self._unwritten, written)
        return written > 0 or not self._unwritten

    def _refill(self) -> bool:
        """Take what the stream has; False if there is nothing to write."""
        self._unwritten = self.stream.take(WRITE_SIZE)
        if not self._unwritten and self.stream.pull(1) is not None:  # FIN
            self._end_of_input()
            self.stream.pull(1)  # CLOSE behind it
        return bool(self._unwritten)

    def _end_of_input(self) -> None:
        self._write_ended = True
        if self.channel.write_fd >= 0:
            self._watch()
            self.channel.close_write()
        self._maybe_over()

    def accept(self) -> None:
        self._owner.accepted()

    def close(self, outcome: Outcome) -> None:
        """The stream is closed."""
        self.stream = NULL_END  # type: ignore[assignment]
        self._ending = outcome
        if not self._unwritten or self._kind > STDIO:
            self._over(outcome)

    # -- the end ---------------------------------------------------------------------------------------------------

    @property
    def is_writing(self) -> bool:
        """Whether bytes wait for the descriptor to take them."""
        return not self.is_over and bool(self._unwritten)

    def abandon(self, outcome: Outcome) -> None:
        """The client at this end has disconnected."""
        self._finish(outcome)

    def _maybe_over(self) -> None:
        if self.is_over or not self._eof_passed:
            return
        if self._exit is not None:
            self._finish(self._exit)
        elif self._kind == SOCKET and self._write_ended and not self.stream.opened_here:
            # The opening side waits for the far end's CLOSE: its own would overtake what it has sent.
            self._finish(Outcome())

    def _finish(self, outcome: Outcome) -> None:
        if self.is_over:
            return
        stream, self.stream = self.stream, NULL_END  # type: ignore[assignment]
        stream.close(outcome)
        self._over(outcome)

    def _over(self, outcome: Outcome) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._unwritten = []
        self._watch()
        owner, self._owner = self._owner, NULL_END  # leaves no reference cycle
        owner.closed(outcome)

    def _watch(self) -> None:
        """Watch the descriptor for what is wanted now."""
        reads = self._wants_read and not self._eof_seen and not self.is_over
        self._watches_write = bool(self._unwritten) and not self.is_over
        read = self._readable if reads else None
        write = self._drain if self._watches_write else None
        self.channel.watch(self.loop, read, write)

"""Where a tunnel meets a descriptor: one end of a Stream, on a Channel.

Bytes are read from the descriptor only when the stream asks (`pull`), and pulled from the stream only when the
descriptor can take them; what one write left over is all that is ever held here.

A program's end of output is held back for `GRACE` or until its exit is known, so that one that was killed does not look
like one that finished: its tunnel ends with the signal and without FIN.
"""

from __future__ import annotations

import errno

from ..proto.outcome import ENDED, FAILED, GONE, Outcome
from ..proto.stream import NOBODY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..proto.stream import Stream
    from ..proto.wire import Buffer
    from .channel import Channel
    from .loop import Loop

CLIENT, PROGRAM, SOCKET = range(3)  # what the descriptor leads to: who opened the tunnel, or one of two servants

WRITE_SIZE = 1 << 18  # pulled at once
GRACE = 0.1  # seconds between a program's end of output and its exit that still count as one event


class Endpoint:
    """Owns `channel`.  `accepted()` is called when the tunnel stands, `closed(outcome)` once, when it is over.

    With `holds_eof` the client runs a program, and `halted` will be called.

    A CLIENT's tunnel ends when the far end says so; a PROGRAM's when `exited` was called and its output is at its end;
    a SOCKET's when both directions are.
    """

    def __init__(
        self,
        loop: Loop,
        channel: Channel,
        closed: Callable[[Outcome], None],
        accepted: Callable[[], None] | None = None,
        kind: int = CLIENT,
        holds_eof: bool = False,
    ) -> None:
        self.loop = loop
        self.channel = channel
        self.stream: Stream = NOBODY  # type: ignore[assignment]
        self._accepted = accepted
        self._closed = closed
        self._full = False  # the last read filled its limit: there may be more
        self._wants_read = False
        self._kind = kind
        self._holds_eof = kind == PROGRAM or holds_eof
        self._is_believed = False  # that it comes from a client that lives
        self._eof_seen = False  # on the descriptor
        self._eof_passed = False  # to the stream
        self._exit: Outcome | None = None  # how our program ended
        self._left: Buffer = b""  # what the last write could not take
        self._write_ended = False  # FIN has come and gone to the descriptor
        self._ending: Outcome | None = None  # the stream is over, but not all of it is written yet
        self.is_over = False
        self.idle: Callable[[], None] | None = None  # called when everything has been written

    def join(self, stream: Stream) -> None:
        """The stream of this tunnel.  Reading starts with `begin`."""
        self.stream = stream

    def begin(self) -> None:
        """The tunnel stands: wait for something to read."""
        self._wants_read = True
        self._watch()

    # -- from the descriptor to the stream -------------------------------------------------------------------------

    def _readable(self) -> None:
        self._wants_read = False
        self._full = True
        self._watch()
        self.stream.readable()

    def pull(self, limit: int) -> Buffer | None:
        if self.channel.read_fd < 0 or self._eof_passed or self.is_over:
            return None
        if not self._eof_seen:
            try:
                data = self.channel.read(limit)
            except OSError as error:
                if error.errno != errno.ECONNRESET or not self.channel.is_unix:
                    self._full = False
                    self._finish(Outcome(FAILED, f"reading failed: {error.strerror}"))
                    return None
                data = b""  # a UNIX socket says so when its other end was closed with bytes unread
            self._full = data is not None and len(data) == limit
            if data or data is None:
                if not self._full:
                    self._wants_read = True
                    self._watch()
                return data
            self._eof_seen = True
            self._watch()
        return self._pull_eof()

    def _pull_eof(self) -> Buffer | None:
        """The descriptor is at its end; is the stream?"""
        if self._exit is None and self._holds_eof:
            self.loop.later(GRACE, self._release_eof)
            return None
        if self._kind == CLIENT and not self._is_believed:
            # A client that dies leaves the control socket first.  Two rounds on, we have heard of that.
            self._is_believed = True
            self.loop.soon(lambda: self.loop.soon(self._release_eof))
            return None
        if self._exit is not None and not self._exit.is_clean:
            self._finish(self._exit)
            return None
        self._eof_passed = True
        self.loop.soon(self._maybe_over)
        return b""

    def _release_eof(self) -> None:
        self._holds_eof = False
        self.stream.readable()

    def more(self) -> bool:
        return self._full

    def stop(self) -> None:
        """The far end reads no more: our program's writes shall fail."""
        self.loop.watch(self.channel.read_fd)
        self._eof_seen = self._eof_passed = True
        self._full = False
        if self.channel.read_fd >= 0:
            self.channel.close_read()
        self._watch()
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
        while True:
            if not self._left:
                data = self.stream.pull(WRITE_SIZE)
                if data is None:
                    break
                if not len(data):
                    self._end_of_input()
                    continue
                self._left = data
            if self._write_ended:
                self._left = b""
                continue
            try:
                written = self.channel.write([self._left])
            except OSError:
                self._left = b""
                self._write_ended = True
                self.stream.stop()
                break
            if written < len(self._left):
                self._left = bytes(memoryview(self._left)[written:])
                if not written:
                    break
            else:
                self._left = b""
        self._watch()
        if self._ending is not None and not self._left:
            self._over(self._ending)
        if self.idle is not None and not self._left:
            self.idle()

    def _end_of_input(self) -> None:
        self._write_ended = True
        if self.channel.write_fd >= 0:
            if self.channel.write_fd != self.channel.read_fd:
                self.loop.watch(self.channel.write_fd)
            self.channel.close_write()
        self._maybe_over()

    def accept(self) -> None:
        if self._accepted is not None:
            self._accepted()

    def close(self, outcome: Outcome) -> None:
        """The stream is over."""
        self.stream = NOBODY  # type: ignore[assignment]
        self._ending = outcome
        if not self._left or self._kind != CLIENT:
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
        if self._eof_passed and self._exit is not None:
            self._finish(self._exit)
        elif self._eof_passed and self._write_ended and self._kind == SOCKET:
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
        self._left = b""
        for fd in {self.channel.read_fd, self.channel.write_fd} - {-1}:
            self.loop.watch(fd)
        self._closed(outcome)

    def _watch(self) -> None:
        if self.is_over:
            return
        read = self._readable if self._wants_read and not self._eof_seen else None
        write = self._drain if self._left else None
        if self.channel.read_fd == self.channel.write_fd:
            if self.channel.read_fd >= 0:
                self.loop.watch(self.channel.read_fd, read, write)
            return
        if self.channel.read_fd >= 0:
            self.loop.watch(self.channel.read_fd, read)
        if self.channel.write_fd >= 0:
            self.loop.watch(self.channel.write_fd, None, write)

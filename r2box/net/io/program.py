"""Our ends of a program's descriptors 0 and 1, and the rule that decides when its output has ended.

A filter reads 0 and writes 1.  A program written for inetd uses 0 as a connection, which it reads and writes; it does
not use 1, or closes it (rsync, sshd).  No option states which of the two a command is, so it gets two sockets, and its
output is what it writes to either.  Each can end: the program closes it, or shuts it down for writing.  The state of
the output follows from both:

    1          0          written so far    output
    open       open       anything          flowing
    at end     at end     anything          ended
    at end     open       to 0              flowing: 0 is a connection
    at end     open       only to 1         ended: a filter that still reads
    at end     open       nothing           undecided
    open       at end     only to 0         ended: a connection that is shut down or closed
    open       at end     to 1              flowing: 0 is closed, or only an input
    open       closed     nothing           flowing: a program that reads no input
    open       shut down  nothing           undecided

In the undecided state the next byte makes the output flow, and `UNDECIDED_TIME` without one ends it.  So the output of
`exec >&-; cat >file` ends after that time, and rsync has that time to send its first line.  A socket that represents
another, over a forwarded control socket, is shut down before it is closed; the time distinguishes these two cases too.
Writes after the end of the output fail (EPIPE).

1 is read before 0: the order of writes to both is kept only if 1 was written first.
"""

from __future__ import annotations

import enum
import errno
import os
import socket

from .channel import Channel, ChannelEnd, adopt, close_all, socketpair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from .loop import Loop, Timer

    Callback = Callable[[], object]
    T = TypeVar("T")

UNDECIDED_TIME = 2.0  # seconds for the first byte of a program that has ended one of its two outputs


class Output(enum.Enum):
    """State of a program's output: FLOWING <-> UNDECIDED, either -> ENDED."""

    FLOWING = "flowing"
    UNDECIDED = "undecided"
    ENDED = "ended"


class ProgramChannel(Channel):
    """Both directions of a program: `descriptors` are our ends of its 1, to read, and of its 0, to write and to read.

    Watch it with `watch`, `watch_read` and `watch_write`, never by its descriptors.
    """

    __slots__ = ("_loop", "_one", "_open", "_output", "_reader", "_timer", "_wrote", "_writer", "_zero")

    def __init__(self, loop: Loop, descriptors: tuple[int, ...]) -> None:
        super().__init__(*descriptors)
        assert self._read is not None
        assert self._write is not None
        self._loop = loop
        self._one: ChannelEnd = self._read
        self._zero: ChannelEnd = self._write
        self._open = [self._one, self._zero]  # not at their end; 1 is read first
        self._wrote: set[ChannelEnd] = set()  # have delivered bytes
        self._output = Output.FLOWING
        self._timer: Timer | None = None
        self._reader: Callback | None = None
        self._writer: Callback | None = None

    # -- watching --------------------------------------------------------------------------------------------------

    def watch(self, loop: Loop, read: Callback | None, write: Callback | None) -> None:
        self._reader, self._writer = read, write
        self._register()

    def watch_read(self, loop: Loop, read: Callback | None) -> None:
        self.watch(loop, read, self._writer)

    def watch_write(self, loop: Loop, write: Callback | None) -> None:
        self.watch(loop, self._reader, write)

    def _register(self) -> None:
        for end, write in ((self._one, None), (self._zero, self._writer)):
            if end.fd >= 0:
                self._loop.watch(end.fd, self._reader if end in self._open else None, write)
        if self._output is Output.ENDED and self._reader is not None:
            self._loop.soon(self._notify)

    def _notify(self) -> None:
        """Report that there are bytes or the end to read."""
        if self._reader is not None:
            self._reader()

    # -- reading ---------------------------------------------------------------------------------------------------

    def read_into(self, view: memoryview) -> int:
        return self.read_by(ChannelEnd.read_into, view)

    def read_by(self, read: Callable[[ChannelEnd, T], int], into: T) -> int:
        """Call `read(end, into)` for the ends in turn; its result and this one are as of `ChannelEnd.read_into`."""
        for end in self._open[:]:
            try:
                size = read(end, into)
            except OSError as error:
                if error.errno != errno.ECONNRESET:
                    raise
                size = 0  # the program closed it with bytes unread
            if size > 0:
                if self._output is Output.UNDECIDED or end not in self._wrote:
                    self._wrote.add(end)
                    self._set(Output.FLOWING)
                return size
            if not size:
                self._open.remove(end)
                self._register()
        if len(self._open) < 2 and self._output is not Output.ENDED:
            self._judge()
        return 0 if self._output is Output.ENDED else -1

    def _judge(self) -> None:
        """Decide the state of the output: an end was reached, and there is nothing to read."""
        if not self._open:
            self._set(Output.ENDED)
        elif self._one in self._open:
            if self._wrote == {self._zero}:
                self._set(Output.ENDED)
            elif not self._wrote and not self._zero.is_hung_up():
                self._set(Output.UNDECIDED)
        elif self._wrote == {self._one}:
            self._set(Output.ENDED)
        elif not self._wrote:
            self._set(Output.UNDECIDED)

    def _set(self, output: Output) -> None:
        if output is self._output:
            return
        self._output = output
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if output is Output.UNDECIDED:
            self._timer = self._loop.later(UNDECIDED_TIME, self._decide)
        elif output is Output.ENDED:
            self._refuse()

    def _decide(self) -> None:
        """End the undecided state: nothing was written in time."""
        closed = self._one in self._open and self._zero.is_hung_up()
        self._set(Output.FLOWING if closed else Output.ENDED)
        self._notify()

    def _refuse(self) -> None:
        """Make further writes of the program fail."""
        for end in self._open:
            _shut(end, socket.SHUT_RD)
        self._open = []
        self._register()

    # -- ends ------------------------------------------------------------------------------------------------------

    def is_writable(self) -> bool:
        return self._zero.is_writable()

    def claim(self) -> None:
        """Make the descriptors non-blocking, for splice(2).  No other process may hold them."""
        for end in (self._one, self._zero):
            os.set_blocking(end.fd, False)

    def close_write(self) -> None:
        """End the program's input; what it writes to 0 is still read."""
        if self._write is not None:
            self._write = self._writer = None
            _shut(self._zero, socket.SHUT_WR)
            self._register()
            self._drop_closed()

    def close_read(self) -> None:
        self._read = self._reader = None
        self._set(Output.ENDED)
        self._drop_closed()

    def close(self) -> None:
        self._read = self._write = self._reader = self._writer = None
        self._set(Output.ENDED)
        self._drop_closed()

    def _drop_closed(self) -> None:
        """Close the descriptors of directions that are closed."""
        for end, is_used in ((self._one, self._read), (self._zero, self._read or self._write)):
            if not is_used and end.fd >= 0:
                self._loop.watch(end.fd)
                end.close()
                end.fd = -1


def _shut(end: ChannelEnd, how: int) -> None:
    assert end.sock is not None
    try:
        end.sock.shutdown(how)
    except OSError:
        return  # no longer connected


def program_pairs() -> tuple[tuple[int, int], tuple[int, int]]:
    """Sockets for a program: our ends, for a ProgramChannel, and its 0 and 1.  OSError if none are left."""
    ours_zero, zero = socketpair()
    try:
        ours_one, one = socketpair()
    except OSError:
        close_all((ours_zero, zero))
        raise
    return (ours_one, ours_zero), (zero, one)


def open_channel(loop: Loop, descriptors: tuple[int, ...], is_program: bool) -> Channel:
    """A channel over our ends of a tunnel; `is_program`: the other ends are the 0 and 1 of a program."""
    return ProgramChannel(loop, descriptors) if is_program and len(descriptors) == 2 else adopt(descriptors)

"""Descriptors beside messages on a control link; where none can pass, streams that stand for them.

A control socket that somebody forwards (ssh -L, socat) carries bytes and drops descriptors.  So each side sends one
along with its hello, for nothing but to see whether it arrives (`Link.passes`).  Where it does not, whoever has a
descriptor to give opens a stream of the kind `DESCRIPTOR` on the link instead, and copies between the two; the other
side makes a socketpair, does the same with one end of it, and has the other end as the descriptor that came.  Whatever
speaks over the control link need not know which of the two it was.

A descriptor that is ferried carries both directions and is a socket.
"""

from __future__ import annotations

from ...proto.link.attachments import LOST
from ...proto.wire.frames import DESCRIPTOR
from ...proto.wire.outcome import BUSY, Outcome
from ..io.channel import Channel, close_all, socketpair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...proto.link.link import Link
    from ...proto.link.stream import Stream
    from ...proto.wire.route import Message
    from ..io.loop import Loop


class DescriptorRelay:
    """Sends messages with descriptors over `link`, a control link."""

    __slots__ = ("_link", "carried", "emptied", "loop")

    def __init__(self, loop: Loop, link: Link) -> None:
        self.loop = loop
        self._link = link
        self.carried = 0  # descriptors that are on the ferry now
        self.emptied: Callable[[], None] = lambda: None  # called when none is left

    def send(self, message: Message, descriptors: tuple[int, ...] = (), *, must: bool = False) -> bool:
        """As `Link.message`; the descriptors are given away in any case."""
        if not descriptors or self._link.passes:
            if self._link.message(message, descriptors, must=must):
                return True
            close_all(descriptors)
            return False
        for number, fd in enumerate(descriptors):
            if not self._load(fd):
                close_all(descriptors[number + 1 :])
                return False
        return self._link.message(message, must=must, beside=len(descriptors))

    def _load(self, fd: int) -> bool:
        stream = self._link.open({"mode": DESCRIPTOR})
        if stream is None:
            close_all((fd,))
            return False
        _Carried(self, stream, fd)
        return True

    def arrive(self, stream: Stream) -> None:
        """The other side has opened `stream` to stand for a descriptor."""
        try:
            ours, theirs = socketpair()
        except OSError as error:
            stream.close(Outcome(BUSY, error.strerror or str(error)))
            self._link.board(LOST)
            return
        stream.accept()
        _Carried(self, stream, ours).accepted()
        self._link.board(theirs)


class _Carried:
    """A descriptor that a stream stands for at the other end."""

    __slots__ = ("_end", "_ferry")

    def __init__(self, fd_relay: DescriptorRelay, stream: Stream, fd: int) -> None:
        from .endpoint import SOCKET, Endpoint  # most programs never get here

        fd_relay.carried += 1
        self._ferry = fd_relay
        self._end = Endpoint(fd_relay.loop, Channel(fd), self, SOCKET)
        self._end.join(stream)
        stream.far = self._end

    def accepted(self) -> None:
        self._end.begin()

    def closed(self, outcome: Outcome) -> None:
        self._ferry.loop.soon(self._end.channel.close)  # who holds the other end may have to be told of a loss first
        self._ferry.carried -= 1
        if not self._ferry.carried:
            self._ferry.emptied()

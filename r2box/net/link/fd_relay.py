"""Descriptor relay: descriptors beside messages on a control link, or streams in their place.

A control socket that is forwarded (ssh -L, socat) carries bytes and drops descriptors.  So each side attaches one to
its HELLO, as a test whether descriptors pass (`Link.passes_descriptors`).  Where they do not, the sender opens a
stream of the mode `DESCRIPTOR` for each descriptor, and copies between the two; the receiver makes a socketpair,
joins one end to the stream, and takes the other end as the descriptor.  The users of the control link do not notice
the difference.

A descriptor that is relayed is a socket, for both directions.
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

    __slots__ = ("_link", "active", "idle", "loop")

    def __init__(self, loop: Loop, link: Link) -> None:
        self.loop = loop
        self._link = link
        self.active = 0  # streams that stand for a descriptor
        self.idle: Callable[[], None] = lambda: None  # called when the last of them has ended

    def send(self, message: Message, descriptors: tuple[int, ...] = (), *, must: bool = False) -> bool:
        """As `Link.message`; the descriptors are closed here if they cannot be sent."""
        if not descriptors or self._link.passes_descriptors:
            if self._link.message(message, descriptors, must=must):
                return True
            close_all(descriptors)
            return False
        for number, fd in enumerate(descriptors):
            if not self._relay(fd):
                close_all(descriptors[number + 1 :])
                return False
        return self._link.message(message, must=must, beside=len(descriptors))

    def _relay(self, fd: int) -> bool:
        stream = self._link.open({"mode": DESCRIPTOR})
        if stream is None:
            close_all((fd,))
            return False
        _RelayedDescriptor(self, stream, fd)
        return True

    def accept(self, stream: Stream) -> None:
        """Make the descriptor for a `stream` that the other side has opened."""
        try:
            ours, theirs = socketpair()
        except OSError as error:
            stream.close(Outcome(BUSY, error.strerror or str(error)))
            self._link.attach(LOST)
            return
        stream.accept()
        _RelayedDescriptor(self, stream, ours).accepted()
        self._link.attach(theirs)


class _RelayedDescriptor:
    """A descriptor joined to the stream that stands for it."""

    __slots__ = ("_end", "_relay")

    def __init__(self, fd_relay: DescriptorRelay, stream: Stream, fd: int) -> None:
        from .endpoint import SOCKET, Endpoint  # most programs do not need it

        fd_relay.active += 1
        self._relay = fd_relay
        self._end = Endpoint(fd_relay.loop, Channel(fd), self, SOCKET)
        self._end.join(stream)
        stream.far = self._end

    def accepted(self) -> None:
        self._end.begin()

    def closed(self, outcome: Outcome) -> None:
        self._relay.loop.soon(self._end.channel.close)  # a failure is reported before the other end reads EOF
        self._relay.active -= 1
        if not self._relay.active:
            self._relay.idle()

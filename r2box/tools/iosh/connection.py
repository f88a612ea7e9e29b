"""The frames of iosh and ioshd over descriptors, and the streams that they carry, each within its credit.

    ShellConnection   the other side: frames to it and from it
    Source   what is read here comes out there
    Sink     what was read there comes out here
"""

from __future__ import annotations

from ...errors import WireError
from ...net.io.channel import ChannelEnd
from .protocol import MAX_FRAME, WINDOW, ShellDecoder, encode_credit, encode_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...net.io.channel import Channel
    from ...net.io.loop import Loop

SETTLE = WINDOW // 4  # bytes written out for which credit is given back at once
QUIET = 0.05  # seconds without a byte, after which a program that has ended has said all
LOOKS = 20  # so often it is seen whether it is quiet
LAST_WORDS = 1.0  # seconds in which it may be heard why nobody reads us any more, or has broken off


class ShellConnection:
    """`heard(kind, payload)` for every frame; it may raise WireError.  `ended(why)` once: "" at the end, or a fault.

    Owns `channel`.  What waits to be written is bounded by the credits of the streams and by what makes its sender
    look at `is_clear` first.
    """

    def __init__(
        self, loop: Loop, channel: Channel, heard: Callable[[int, bytes], None], ended: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._heard = heard
        self._ended: Callable[[str], None] | None = ended
        self._decoder = ShellDecoder()
        self._room = memoryview(bytearray(WINDOW))
        self._out = bytearray()
        self._is_unread = False  # by the other side
        self.farewell = b""  # plain bytes for an other side that turns out to be none of ours
        self.cleared: Callable[[], object] | None = None  # called when all that waited has been written
        self.came: Callable[[], object] | None = None  # called when bytes have come, before their frames are passed on
        self._watch()

    @property
    def is_clear(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._out

    def send(self, data: bytes) -> None:
        """A frame, or plain bytes."""
        if self._ended is None or self._is_unread:
            return
        self._out += data
        if len(self._out) == len(data):
            self._write()

    def _write(self) -> None:
        try:
            del self._out[: self._channel.write([bytes(self._out)])]
        except OSError:
            # What it said before it went away is still to be read, and that is why it went.
            self._is_unread = True
            self._out.clear()
            self._loop.later(LAST_WORDS, lambda: self._end(""))
        self._watch()
        if self.cleared is not None and not self._out:
            self.cleared()

    def _read(self) -> None:
        try:
            size = self._channel.read_into(self._room)
        except OSError:
            size = 0  # a connection that was reset has ended too: only EXIT makes an end a good one
        if size < 0:
            return
        if size and self.came is not None:
            self.came()
        try:
            for kind, payload in self._decoder.feed(bytes(self._room[:size])):
                if self._ended is None:
                    return
                self._heard(kind, payload)
        except WireError as error:
            self._end(str(error))
            return
        if not size:
            self._end("")

    def _watch(self) -> None:
        if self._ended is None:
            return
        write = self._write if self._out else None
        self._channel.watch(self._loop, self._read, write)

    def fail(self, why: str) -> None:
        """End it as if the other side had made a fault."""
        self._end(why)

    def _end(self, why: str) -> None:
        ended = self._ended
        if ended is None:
            return
        if self.farewell:
            try:
                self._channel.write([self.farewell])
            except OSError:
                pass  # nobody is there to read it
        self.close()
        ended(why)

    def close(self) -> None:
        """Say and hear nothing more.  Safe to call again."""
        self._ended = None
        self._channel.watch(self._loop, None, None)
        self._channel.close()


class StreamSource:
    """Reads `fd`, which it owns, and sends that as frames of `stream`; `ended()` when there is no more.

    `change` makes of what was read what is sent.  `ahead` bytes are read without a credit: only so can `change` hear
    of what is typed when nothing gets through.
    """

    def __init__(
        self,
        loop: Loop,
        frames: ShellConnection,
        fd: int,
        stream: int,
        ended: Callable[[], None],
        change: Callable[[bytes], bytes] | None = None,
        ahead: int = 0,
    ) -> None:
        self._loop = loop
        self._frames = frames
        self._end = ChannelEnd(fd)
        self._stream = stream
        self._ended: Callable[[], None] | None = ended
        self._change = change
        self._ahead = ahead
        self._room = memoryview(bytearray(MAX_FRAME))
        self._held = bytearray()
        self._credit = WINDOW
        self._at_end = False
        self._reads = 0
        self._watch()

    def finish(self, seen: int = -1, looks: int = LOOKS) -> None:
        """No more is expected, but what is there: end when nothing comes for QUIET, and in any case after `looks`.

        (A terminal whose program has ended stays open as long as something in its background has it.)
        """
        if self._ended is None or self._at_end:
            return
        if not self._held and (seen == self._reads or not looks):
            self._at_end = True
            self._send()
            return
        left = looks - bool(self._credit and looks)  # what waits for a credit has not had its chance
        reads = self._reads if self._credit else -1
        self._loop.later(QUIET, lambda: self.finish(reads, left))

    def give(self, count: int) -> None:
        """The other side has written out so many bytes."""
        if self._credit + count > WINDOW:
            raise WireError("credit for more than was sent")
        self._credit += count
        self._send()

    def _read(self) -> None:
        try:
            size = self._end.read_into(self._room)
        except OSError:
            size = 0  # what cannot be read any more is at its end
        if size > 0:
            self._reads += 1
            data = bytes(self._room[:size])
            self._held += self._change(data) if self._change else data
        self._at_end = not size
        self._send()

    def _send(self) -> None:
        while self._held and self._credit and self._ended is not None:
            part = bytes(self._held[: min(MAX_FRAME, self._credit)])
            del self._held[: len(part)]
            self._credit -= len(part)
            self._frames.send(encode_frame(self._stream, part))
        if self._at_end and not self._held and self._ended is not None:
            ended = self._ended
            self.close()
            ended()
        self._watch()

    def _watch(self) -> None:
        if self._ended is not None:
            wants = not self._at_end and (len(self._held) < self._ahead or (self._credit and not self._held))
            self._loop.watch(self._end.fd, self._read if wants else None)

    def close(self) -> None:
        if self._ended is not None:
            self._ended = None
            self._loop.watch(self._end.fd)
            self._end.close()


class StreamSink:
    """Writes frames of `stream` to `fd`, which it owns, and gives credit for what is written.

    When that fails, `broken(error)` is called, and what comes is thrown away from then on.
    """

    def __init__(
        self, loop: Loop, frames: ShellConnection, fd: int, stream: int, broken: Callable[[OSError], None] | None = None
    ) -> None:
        self._loop = loop
        self._frames = frames
        self._end: ChannelEnd | None = ChannelEnd(fd)
        self._stream = stream
        self._broken = broken
        self._queue = bytearray()
        self._owed = 0
        self._finished: Callable[[], None] | None = None

    @property
    def is_clear(self) -> bool:
        """Whether all that was put has been written."""
        return not self._queue

    def put(self, data: bytes) -> None:
        if len(self._queue) + self._owed + len(data) > WINDOW or self._finished is not None:
            raise WireError("more came than there was credit for, or behind the end")
        self._queue += data
        self._write()

    def finish(self, done: Callable[[], None], tail: bytes = b"") -> None:
        """No more will come: done() when all is written, and behind it `tail`, for which there is no credit."""
        if self._finished is not None:
            raise WireError("a stream that ends twice")
        self._finished = done
        self._queue += tail
        self._owed -= len(tail)
        self._write()

    def _write(self) -> None:
        written = len(self._queue)
        try:
            if self._end is not None and self._queue:
                written = self._end.write([bytes(self._queue)])
        except OSError as error:
            self.close()
            if self._broken is not None:
                self._broken(error)
        del self._queue[:written]
        self._owed += written
        if self._owed >= SETTLE:
            owed, self._owed = self._owed, 0
            self._frames.send(encode_credit(self._stream, owed))
        if self._end is not None:
            self._loop.watch(self._end.fd, None, self._write if self._queue else None)
        if self._finished is not None and not self._queue:
            done, self._finished = self._finished, lambda: None
            done()

    def close(self) -> None:
        if self._end is not None:
            self._loop.watch(self._end.fd)
            self._end.close()
            self._end = None

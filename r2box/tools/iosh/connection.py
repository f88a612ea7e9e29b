"""Frames of iosh and ioshd over descriptors, and their streams, with flow control by credit.

    ShellConnection  sends and receives frames
    StreamSource     reads a descriptor and sends its bytes
    StreamSink       writes received bytes to a descriptor
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

SETTLE = WINDOW // 4  # bytes written out after which credit is returned
QUIET = 0.05  # seconds without output after which the output of an exited program has ended
MAX_CHECKS = 20  # for such silence
REASON_TIME = 1.0  # seconds for the reason to arrive after writing has failed or the tunnel has ended


class ShellConnection:
    """Connection to the peer.  Calls `received(kind, payload)` for each frame, which may raise WireError, and
    `ended(why)` once: "" at the end, or a fault.

    Owns `channel`.  The write buffer is bounded by the credits of the streams; for other frames, senders check
    `is_clear` first.
    """

    def __init__(
        self, loop: Loop, channel: Channel, received: Callable[[int, bytes], None], ended: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._channel = channel
        self._received = received
        self._ended: Callable[[str], None] | None = ended
        self._decoder = ShellDecoder()
        self._buffer = memoryview(bytearray(WINDOW))
        self._out = bytearray()
        self._write_failed = False
        self.last_bytes = b""  # sent at the end, in plain text for a peer that is not iosh
        self.cleared: Callable[[], object] | None = None  # called when the write buffer is empty
        self.on_bytes: Callable[[], object] | None = None  # called when bytes arrive, before their frames are handled
        self._watch()

    @property
    def is_clear(self) -> bool:
        """Whether the write buffer is empty."""
        return not self._out

    def send(self, data: bytes) -> None:
        """Send a frame, or plain bytes."""
        if self._ended is None or self._write_failed:
            return
        self._out += data
        if len(self._out) == len(data):
            self._write()

    def _write(self) -> None:
        try:
            del self._out[: self._channel.write([bytes(self._out)])]
        except OSError:
            # The peer may have sent the reason before it closed.
            self._write_failed = True
            self._out.clear()
            self._loop.later(REASON_TIME, lambda: self._end(""))
        self._watch()
        if self.cleared is not None and not self._out:
            self.cleared()

    def _read(self) -> None:
        try:
            size = self._channel.read_into(self._buffer)
        except OSError:
            size = 0  # a reset ends it too: only EXIT makes an end a clean one
        if size < 0:
            return
        if size and self.on_bytes is not None:
            self.on_bytes()
        try:
            for kind, payload in self._decoder.feed(bytes(self._buffer[:size])):
                if self._ended is None:
                    return
                self._received(kind, payload)
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
        """End it as after a fault of the peer."""
        self._end(why)

    def _end(self, why: str) -> None:
        ended = self._ended
        if ended is None:
            return
        if self.last_bytes:
            try:
                self._channel.write([self.last_bytes])
            except OSError:
                pass  # the peer has closed
        self.close()
        ended(why)

    def close(self) -> None:
        """Close; call nothing any more.  Safe to call again."""
        self._ended = None
        self._channel.watch(self._loop, None, None)
        self._channel.close()


class StreamSource:
    """Reads `fd`, which it owns, and sends its bytes as frames of `stream`; calls `ended()` at the end.

    `change` filters what is read.  Up to `ahead` bytes are read without credit, so that `change` finds escape keys
    while the peer accepts nothing.
    """

    def __init__(
        self,
        loop: Loop,
        connection: ShellConnection,
        fd: int,
        stream: int,
        ended: Callable[[], None],
        change: Callable[[bytes], bytes] | None = None,
        ahead: int = 0,
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._end = ChannelEnd(fd)
        self._stream = stream
        self._ended: Callable[[], None] | None = ended
        self._change = change
        self._ahead = ahead
        self._buffer = memoryview(bytearray(MAX_FRAME))
        self._held = bytearray()
        self._credit = WINDOW
        self._at_end = False
        self._reads = 0
        self._watch()

    def finish(self, seen: int = -1, checks: int = MAX_CHECKS) -> None:
        """End after QUIET without a byte, at the latest after `checks`: the program has exited.

        (Its terminal stays open as long as a background process holds it.)  `seen`: the reads at the last check.
        """
        if self._ended is None or self._at_end:
            return
        if not self._held and (seen == self._reads or not checks):
            self._at_end = True
            self._send()
            return
        left = checks - bool(self._credit and checks)  # without credit, no check counts
        reads = self._reads if self._credit else -1
        self._loop.later(QUIET, lambda: self.finish(reads, left))

    def give(self, count: int) -> None:
        """Add `count` bytes of credit: the peer has written them out."""
        if self._credit + count > WINDOW:
            raise WireError("credit for more than was sent")
        self._credit += count
        self._send()

    def _read(self) -> None:
        try:
            size = self._end.read_into(self._buffer)
        except OSError:
            size = 0  # an unreadable descriptor is at its end
        if size > 0:
            self._reads += 1
            data = bytes(self._buffer[:size])
            self._held += self._change(data) if self._change else data
        self._at_end = not size
        self._send()

    def _send(self) -> None:
        while self._held and self._credit and self._ended is not None:
            part = bytes(self._held[: min(MAX_FRAME, self._credit)])
            del self._held[: len(part)]
            self._credit -= len(part)
            self._connection.send(encode_frame(self._stream, part))
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
    """Writes frames of `stream` to `fd`, which it owns, and returns credit for the written bytes.

    If writing fails, `broken(error)` is called, and further bytes are discarded.
    """

    def __init__(
        self,
        loop: Loop,
        connection: ShellConnection,
        fd: int,
        stream: int,
        broken: Callable[[OSError], None] | None = None,
    ) -> None:
        self._loop = loop
        self._connection = connection
        self._end: ChannelEnd | None = ChannelEnd(fd)
        self._stream = stream
        self._broken = broken
        self._queue = bytearray()
        self._owed = 0
        self._finished: Callable[[], None] | None = None

    @property
    def is_clear(self) -> bool:
        """Whether all bytes have been written."""
        return not self._queue

    def put(self, data: bytes) -> None:
        if len(self._queue) + self._owed + len(data) > WINDOW or self._finished is not None:
            raise WireError("bytes without credit, or after the end of the stream")
        self._queue += data
        self._write()

    def finish(self, done: Callable[[], None], tail: bytes = b"") -> None:
        """End the stream: call done() when all bytes, and `tail`, which takes no credit, are written."""
        if self._finished is not None:
            raise WireError("a second end of a stream")
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
            self._connection.send(encode_credit(self._stream, owed))
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

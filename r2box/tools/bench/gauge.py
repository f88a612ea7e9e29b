"""Measurements through a tunnel to r2.bench: round trips, and bulk streams in each direction.

The far end is `proto.routing.measurement`.  All writes send one block of zeros and all reads fill one buffer, so that
this side costs little.
"""

from __future__ import annotations

from ...errors import RefusedError
from ...net.io.channel import adopt, close_all
from ...proto.routing.measurement import COUNT, ECHO, GIVE, TAKE
from ...proto.wire import messages
from ...proto.wire.address import BENCH, SERVICE, format_path
from ...proto.wire.outcome import make_outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...net.client.client import Client
    from ...net.io.channel import Buffer, Channel
    from ...net.io.loop import Timer

MESSAGE = 64  # bytes of a round trip
BLOCK = 1 << 19  # bytes written or read at once


class BenchTunnel:
    """A tunnel to r2.bench at the node `path`; its first byte is `choice`, the measurement.

    `refused(answer)` is called if it cannot be opened, `ready()` when it is open, `over(self)` after `stop`, when the
    far end has ended too.  If it fails, the loop raises RefusedError.
    """

    choice = 0

    def __init__(
        self,
        client: Client,
        path: tuple[str, ...],
        refused: Callable[[messages.Body], None],
        ready: Callable[[], None],
        over: Callable[[BenchTunnel], None],
    ) -> None:
        self.loop = client.loop
        self.name = format_path(path)
        self.channel: Channel | None = None
        self.is_stopped = False
        self.is_at_end = False  # EOF was read
        self.is_closed = False  # this end is closed
        self.has_ended = False  # the daemon has reported its end
        self._client = client
        self._refused = refused
        self._ready = ready
        self._over = over
        client.request(messages.TUNNEL, self._received, target=(*path, SERVICE + BENCH))

    def _received(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == messages.OPENED and descriptors:
            self.channel = adopt(descriptors)
            self.write(bytes((self.choice,)))
            self.begin()
            self._ready()
            return
        close_all(descriptors)
        self._client.forget(body.id)
        if body.kind != messages.ENDED:
            self._refused(body)
            return
        outcome = make_outcome(body)
        if not outcome.is_clean:
            raise RefusedError(outcome.describe())
        self.has_ended = True
        self.maybe_over()

    def stop(self) -> None:
        """End the measurement."""
        if not self.is_stopped:
            self.is_stopped = True
            self.finish()
            self.maybe_over()

    def maybe_over(self) -> None:
        if self.has_ended and self.is_closed:
            self._over(self)
        elif self.has_ended and (self.is_at_end or not self.is_stopped):
            raise RefusedError(f"{self.name}: {BENCH} has ended the measurement")

    def watch(self, read: Callable[[], None] | None = None, write: Callable[[], None] | None = None) -> None:
        assert self.channel is not None
        self.loop.watch(self.channel.read_fd, read, write)

    def write(self, data: Buffer) -> int:
        """Write `data`; return the number of bytes, -1 if the tunnel has failed: ENDED has the reason."""
        assert self.channel is not None
        try:
            return self.channel.write((data,))
        except OSError:
            self.watch()
            return -1

    def read(self, buffer: memoryview) -> int:
        """Read into `buffer`; return the number of bytes, -1 for none now, 0 at the end, where watching stops."""
        assert self.channel is not None
        try:
            size = self.channel.read_into(buffer)
        except ConnectionResetError:
            size = 0  # a UNIX socket that was closed with bytes unread
        if not size:
            self.is_at_end = True
            self.watch()
        return size

    def close(self) -> None:
        assert self.channel is not None
        self.is_closed = True
        self.watch()
        self.channel.close()

    def begin(self) -> None:
        """Start; the tunnel is open."""
        raise NotImplementedError

    def finish(self) -> None:
        """Stop measuring."""
        raise NotImplementedError


class Echo(BenchTunnel):
    """Sequential round trips, which start at least `every` seconds apart.  `returned()` is called after each."""

    choice = ECHO

    def __init__(
        self,
        client: Client,
        path: tuple[str, ...],
        refused: Callable[[messages.Body], None],
        ready: Callable[[], None],
        over: Callable[[BenchTunnel], None],
        returned: Callable[[], None],
        every: float,
    ) -> None:
        super().__init__(client, path, refused, ready, over)
        self.times: list[float] = []  # seconds
        self._returned = returned
        self._every = every
        self._buffer = memoryview(bytearray(MESSAGE))
        self._missing = 0  # bytes still to receive of this round trip
        self._sent = 0.0
        self._timer: Timer | None = None

    def begin(self) -> None:
        self.watch(self._readable)

    def send(self) -> None:
        """Start the first round trip; the others follow."""
        self._sent, self._missing = self.loop.now(), MESSAGE
        self.write(bytes(MESSAGE))  # always fits: nothing else is in flight

    def _readable(self) -> None:
        self._missing -= max(0, self.read(self._buffer[: self._missing or 1]))
        if self._missing:
            return
        now = self.loop.now()
        self.times.append(now - self._sent)
        wait = self._sent + self._every - now
        if wait > 0:
            self._timer = self.loop.later(wait, self.send)
        else:
            self.send()
        self._returned()

    def finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.close()


class Bulk(BenchTunnel):
    """A stream in one direction, of at most `size` bytes (0: unlimited)."""

    def __init__(
        self,
        client: Client,
        path: tuple[str, ...],
        refused: Callable[[messages.Body], None],
        ready: Callable[[], None],
        over: Callable[[BenchTunnel], None],
        size: int,
    ) -> None:
        super().__init__(client, path, refused, ready, over)
        self.moved = 0  # bytes
        self.seconds: float | None = None  # duration, once known
        self._size = size
        self._start = 0.0

    def begin(self) -> None:
        self._start = self.loop.now()

    @property
    def left(self) -> int:
        """The size of the next read or write, in bytes."""
        return min(BLOCK, self._size - self.moved) if self._size else BLOCK

    @property
    def elapsed(self) -> float:
        return self.loop.now() - self._start


class Up(Bulk):
    """From here to the node, which counts the bytes, including those in flight when the time is up."""

    choice = TAKE

    def begin(self) -> None:
        super().begin()
        self._zeros = memoryview(bytes(BLOCK))
        self._answer = memoryview(bytearray(COUNT))
        self._came = 0
        self.watch(self._readable, self._writable)

    def _writable(self) -> None:
        self.moved += max(0, self.write(self._zeros[: self.left]))
        if not self.left:
            self.stop()

    def finish(self) -> None:
        assert self.channel is not None
        self.watch(self._readable)
        self.channel.close_write()

    def _readable(self) -> None:
        size = self.read(self._answer[self._came :])
        self._came += max(0, size)
        if self._came == COUNT:
            self.seconds = self.elapsed
            counted = int.from_bytes(self._answer, "big")
            if counted != self.moved:
                raise RefusedError(f"{self.name}: {self.moved} bytes were sent, and it has counted {counted}")
            self.close()
        if self._came == COUNT or not size:
            self.maybe_over()


class Down(Bulk):
    """From the node to here."""

    choice = GIVE

    def begin(self) -> None:
        super().begin()
        self._buffer = memoryview(bytearray(BLOCK))
        self.watch(self._readable)

    def _readable(self) -> None:
        self.moved += max(0, self.read(self._buffer[: self.left]))
        if not self.left:
            self.stop()

    def finish(self) -> None:
        self.seconds = self.elapsed
        self.close()

"""Send scheduler: control frames first, then deficit round robin.

Streams with data and credit take turns.  Each is pulled for at most a quantum, so that no stream waits for more than
one quantum of every other.  (Deficit round robin, Shreedhar and Varghese 1995, keeps deficits for packets that do not
fit the rest of a quantum; a byte stream always fits.)  A stream that is alone may send more at once.

Messages between nodes take turns with the streams as one more stream, since they may be relayed traffic.

The queue of control frames is bounded by its causes: streams are limited in number, and while the queue is above
`MAX_BACKLOG`, nothing is read from the neighbour and messages to it are refused.  That of messages is limited by
`MAX_MESSAGES`.
"""

from __future__ import annotations

from collections import deque

from ..wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.fields import Buffer
    from .stream import Stream

MAX_BACKLOG = 1 << 20  # bytes of queued control frames
MAX_MESSAGES = 1 << 18  # bytes of queued messages
FRAME_COST = 100  # bytes of overhead that are charged for each queued frame
QUANTUM = 1 << 14  # bytes in one turn while others wait: 1 ms at 130 Mbit/s; on faster links,
TURN = 1e-4  # what the link delivers in this time, in seconds,
MAX_QUANTUM = 1 << 16  # up to this
MIN_ROOM = 1 << 9  # bytes; a piece exceeds the room rather than being split for less than this
ALONE = 1 << 19  # bytes in one turn of a stream that has been alone for
LATELY = 1.0  # seconds
MAX_BUFFERS = 512  # in one write; IOV_MAX is 1024
JOIN = 1 << 10  # bytes; payloads up to this size are joined with their header


class SendScheduler:
    """The send queues of one link."""

    def __init__(self) -> None:
        self._control: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self.backlog = 0
        self._messages: deque[bytes] = deque()
        self._message_bytes = 0
        self._ring: deque[Stream] = deque()
        self._last: Stream | None = None  # of the last turn
        self._shared_until = 0.0

    def put(self, frame: bytes, descriptors: tuple[int, ...] = ()) -> None:
        """Queue a control frame, with the descriptors that accompany it."""
        self._control.append((frame, descriptors))
        self.backlog += len(frame) + FRAME_COST

    def put_message(self, frame: bytes) -> bool:
        """Queue a frame that takes turns with the streams.  False: the queue is full."""
        if self._message_bytes > MAX_MESSAGES:
            return False
        self._messages.append(frame)
        self._message_bytes += len(frame) + FRAME_COST
        return True

    def schedule(self, stream: Stream) -> None:
        """Queue `stream`, which has data and credit."""
        stream.queued = True
        self._ring.append(stream)

    def drop_streams(self) -> None:
        self._messages.clear()
        self._message_bytes = 0
        self._ring.clear()
        self._last = None

    def forget(self, stream: Stream) -> None:
        """Remove the closed `stream`."""
        if stream is self._last:
            self._last = None

    @property
    def waiting(self) -> int:
        """Bytes of queued control frames and messages."""
        return self.backlog + self._message_bytes - FRAME_COST * (len(self._control) + len(self._messages))

    @property
    def is_backlogged(self) -> bool:
        return self.backlog > MAX_BACKLOG

    @property
    def has_output(self) -> bool:
        return bool(self._control or self._ring or self._messages)

    def is_shared(self, now: float) -> bool:
        """Whether several streams have sent within LATELY: then turns are short."""
        return now < self._shared_until

    def produce(self, room: int, now: float, rate: float = 0.0) -> tuple[list[Buffer], tuple[int, ...]]:
        """Return the next bytes to write, with up to `room` bytes of data, and the descriptors for their first byte.

        `rate` is the delivery rate of the link in bytes a second."""
        out: list[Buffer] = []
        descriptors = self._control[0][1] if self._control else ()
        self._take_control(out)
        size = 0
        quantum = max(QUANTUM, min(MAX_QUANTUM, int(rate * TURN)))
        if len(self._ring) > 1:
            limit = min(room, 4 * quantum)
        else:  # intermittent streams must find a short queue
            limit = min(room, 2 * QUANTUM if now < self._shared_until else ALONE)
        if self._messages:
            size += self._take_messages(out, quantum)
        # A turn appends at most three buffers.
        while self._ring and size < limit and len(out) < MAX_BUFFERS - 3 and not self._control:
            stream = self._ring.popleft()
            if stream is not self._last:
                self._shared_until = now + LATELY if self._last is not None else 0.0
                self._last = stream
            size += self._turn(stream, out, min(quantum if self._ring else limit, max(limit - size, MIN_ROOM)))
        self._take_control(out)  # caused by the turns
        return out, descriptors

    def _take_control(self, out: list[Buffer]) -> None:
        """Move control frames to `out`, up to the next with descriptors: those accompany the first byte of a write."""
        while self._control and len(out) < MAX_BUFFERS and not (out and self._control[0][1]):
            frame, _ = self._control.popleft()
            self.backlog -= len(frame) + FRAME_COST
            out.append(frame)

    def _take_messages(self, out: list[Buffer], quantum: int) -> int:
        """Give messages a turn; return their size in bytes."""
        size = 0
        while self._messages and size < quantum and len(out) < MAX_BUFFERS // 2:
            frame = self._messages.popleft()
            size += len(frame)
            self._message_bytes -= len(frame) + FRAME_COST
            out.append(frame)
        return size

    def _turn(self, stream: Stream, out: list[Buffer], quantum: int) -> int:
        """Give `stream` a turn; return the bytes of payload."""
        stream.queued = False
        if stream.fin_sent or stream.close_sent:
            return 0
        far = stream.far
        data = far.pull(min(quantum, stream.credit))
        size = len(data) if data else 0
        if data:
            stream.credit -= size
            stream.sent += size
            stream.used = stream.link.now
            header = frames.encode_header(frames.DATA, stream.route, size)
            if size <= JOIN:
                out.append(header + data)
            else:
                out.extend((header, data))
        elif data is not None:
            stream.fin_sent = True
            out.append(frames.encode_frame(frames.FIN, stream.route))
            while far.more():
                far.pull(QUANTUM)
            return 0
        stream.far_ready = far.more()
        if stream.far_ready and stream.credit and not stream.queued and not stream.close_sent:
            self.schedule(stream)
        elif stream.recalled and not stream.far_ready:
            stream.return_credit()
        return size

    def drain(self) -> bytes:
        """Remove and return all queued control frames."""
        out: list[Buffer] = []
        self._take_control(out)
        return b"".join(out)

    def abandon(self) -> tuple[int, ...]:
        """Remove and return the descriptors that were not sent."""
        left = tuple(descriptor for _, descriptors in self._control for descriptor in descriptors)
        self._control.clear()
        return left

"""What goes out on a link next: control frames first, then whose turn it is.

The streams that have something to send and credit take turns; each is pulled for at most a quantum, so no stream waits
for more than one quantum of every other.  (Deficit round robin needs its deficits for packets that cannot be cut; a
byte stream always fits its quantum exactly.)  A stream that is alone may send more at once.

Messages between nodes take turns with the streams, as one stream would: they are nobody's control frames, and may be
passed on for others who send too many.

The backlog of control frames is bounded by what causes it: streams are bounded in number, and while the backlog is
above `MAX_BACKLOG` the neighbour is not listened to and messages for it are turned away; that of messages is bounded by
`MAX_MESSAGES`.
"""

from __future__ import annotations

from collections import deque

from ..wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.fields import Buffer
    from .stream import Stream

MAX_BACKLOG = 1 << 20  # bytes of control frames that wait to be sent
MAX_MESSAGES = 1 << 18  # bytes of messages that do
FRAME_COST = 100  # and what each of them costs beside its bytes: a flood of small ones is seen as what it is
QUANTUM = 1 << 14  # what a stream may send in its turn when others wait: 1 ms at 130 Mbit/s;
TURN = 1e-4  # on faster links what they deliver in this time, in seconds,
MOST_QUANTUM = 1 << 16  # at most
WORTH = 1 << 9  # a piece is not cut for less room than this, but goes a little over it
ALONE = 1 << 19  # and when none does, nor has lately
LATELY = 1.0  # seconds
MAX_BUFFERS = 512  # that go into one write; IOV_MAX is 1024
JOIN = 1 << 10  # payloads up to this size are joined with their header


class SendScheduler:
    """What one link has to send."""

    def __init__(self) -> None:
        self._control: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self.backlog = 0
        self._messages: deque[bytes] = deque()
        self._message_bytes = 0
        self._ring: deque[Stream] = deque()
        self._last: Stream | None = None  # that had a turn
        self._shared_until = 0.0

    def put(self, frame: bytes, descriptors: tuple[int, ...] = ()) -> None:
        """Queue a frame that goes before all data, with the descriptors that go along."""
        self._control.append((frame, descriptors))
        self.backlog += len(frame) + FRAME_COST

    def put_message(self, frame: bytes) -> bool:
        """Queue a frame that takes its turn among the streams.  False: too many wait already."""
        if self._message_bytes > MAX_MESSAGES:
            return False
        self._messages.append(frame)
        self._message_bytes += len(frame) + FRAME_COST
        return True

    def schedule(self, stream: Stream) -> None:
        """`stream` has something to send, and credit."""
        stream.queued = True
        self._ring.append(stream)

    def drop_streams(self) -> None:
        self._messages.clear()
        self._message_bytes = 0
        self._ring.clear()
        self._last = None

    def forget(self, stream: Stream) -> None:
        """`stream` is closed."""
        if stream is self._last:
            self._last = None

    @property
    def waiting(self) -> int:
        """Bytes of control frames and messages that wait."""
        return self.backlog + self._message_bytes - FRAME_COST * (len(self._control) + len(self._messages))

    @property
    def is_backlogged(self) -> bool:
        return self.backlog > MAX_BACKLOG

    @property
    def has_output(self) -> bool:
        return bool(self._control or self._ring or self._messages)

    def is_shared(self, now: float) -> bool:
        """Whether several streams have sent lately: then none should have to wait for another's large pieces."""
        return now < self._shared_until

    def produce(self, room: int, now: float, rate: float = 0.0) -> tuple[list[Buffer], tuple[int, ...]]:
        """The next bytes to write, of which up to `room` may be data, and the descriptors that go with their first
        byte.  `rate` is the link's, in bytes a second."""
        out: list[Buffer] = []
        descriptors = self._control[0][1] if self._control else ()
        self._take_control(out)
        size = 0
        quantum = max(QUANTUM, min(MOST_QUANTUM, int(rate * TURN)))
        if len(self._ring) > 1:
            limit = min(room, 4 * quantum)
        else:  # if others come and go, each of them is to find a short way
            limit = min(room, 2 * QUANTUM if now < self._shared_until else ALONE)
        if self._messages:
            size += self._take_messages(out, quantum)
        # A turn adds at most three buffers.
        while self._ring and size < limit and len(out) < MAX_BUFFERS - 3 and not self._control:
            stream = self._ring.popleft()
            if stream is not self._last:
                self._shared_until = now + LATELY if self._last is not None else 0.0
                self._last = stream
            size += self._turn(stream, out, min(quantum if self._ring else limit, max(limit - size, WORTH)))
        self._take_control(out)  # what the turns caused
        return out, descriptors

    def _take_control(self, out: list[Buffer]) -> None:
        """Move control frames to `out`, up to the next one with descriptors: those go with a write's first byte."""
        while self._control and len(out) < MAX_BUFFERS and not (out and self._control[0][1]):
            frame, _ = self._control.popleft()
            self.backlog -= len(frame) + FRAME_COST
            out.append(frame)

    def _take_messages(self, out: list[Buffer], quantum: int) -> int:
        """Let messages have a turn; return their bytes."""
        size = 0
        while self._messages and size < quantum and len(out) < MAX_BUFFERS // 2:
            frame = self._messages.popleft()
            size += len(frame)
            self._message_bytes -= len(frame) + FRAME_COST
            out.append(frame)
        return size

    def _turn(self, stream: Stream, out: list[Buffer], quantum: int) -> int:
        """Let one stream send; return the bytes of payload."""
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
        """All control frames that wait."""
        out: list[Buffer] = []
        self._take_control(out)
        return b"".join(out)

    def abandon(self) -> tuple[int, ...]:
        """Descriptors that were to go out and never will."""
        left = tuple(descriptor for _, descriptors in self._control for descriptor in descriptors)
        self._control.clear()
        return left

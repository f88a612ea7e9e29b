"""Sender: all bytes that one side of a link sends, numbered from 0.

    SendScheduler  the order of frames
    InFlightLimit  the number of bytes in flight
    ReplayBuffer   the bytes to send again after a resume

A mark, as `inflight` needs it, is a PING among the other frames.  It carries the number of bytes before it.
"""

from __future__ import annotations

from ...errors import WireError
from ..memory_limit import FLOOR
from ..wire import frames
from .inflight import InFlightLimit
from .replay_buffer import ReplayBuffer
from .scheduler import SendScheduler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..memory_limit import Account
    from ..wire.fields import Buffer

MAX_ROOM = 1 << 30  # unlimited
MARKS = 1 << 16  # bytes between marks over ARQ, where they only acknowledge the replay buffer
MAX_OVER = 1 << 20  # bytes of control frames in the replay buffer beyond the link's share of memory
MARK = 16  # bytes of a PING: the number of bytes before it, and the number of the mark


class Sender:
    """The sending side of a link; `account` is charged with its memory."""

    def __init__(self, account: Account) -> None:
        self.scheduler = SendScheduler()
        self.in_flight = InFlightLimit()
        self.replay = ReplayBuffer(account)
        self._account = account
        self._full_at = 0  # `sent` when there last was memory for more
        self.is_flushing = False  # without the in-flight limit: nothing is received any more
        self.has_arq = False  # the transport is an ArqConnection, which limits the bytes in flight
        self.wants_mark = False
        self.pong_callbacks: list[Callable[[], object]] = []  # called at the next PONG
        self._marked = 0  # `sent` at the last mark
        self._preface = b""  # sent first, and not numbered
        self.is_replaying = False  # the replay is not complete
        self.resumes = 0  # number of resumes

    @property
    def has_output(self) -> bool:
        return self.scheduler.has_output or self.wants_mark or self.is_replaying

    def produce(self, now: float, room: int) -> tuple[list[Buffer], tuple[int, ...]]:
        """See `Link.produce`."""
        replay = self._produce_replay(room) if self.is_replaying else None
        if replay:
            return replay, ()
        scheduler, in_flight = self.scheduler, self.in_flight
        in_flight.is_shared = scheduler.is_shared(now)
        if not (self.is_flushing or self.has_arq):
            room = min(room, in_flight.room)
        share = max(self._account.room, FLOOR - self.replay.held)
        out, descriptors = scheduler.produce(min(room, share), now, in_flight.rate)
        if out:
            in_flight.on_sent(sum(map(len, out)), now, not scheduler.has_output)
            out = self.replay.append(out)
        wants_mark = self.replay.sent - self._marked > MARKS if self.has_arq else in_flight.wants_mark
        if self.wants_mark or wants_mark or (share <= 0 and in_flight.lacks_mark):  # memory is freed by PONGs
            self.wants_mark = False
            self._marked = self.replay.sent
            payload = self.replay.sent.to_bytes(8, "big") + in_flight.mark(now).to_bytes(8, "big")
            out.extend(self.replay.append([frames.encode_frame(frames.PING, 0, payload)]))
        if share > 0:
            self._full_at = self.replay.sent
        elif self.replay.sent - self._full_at > MAX_OVER:
            self.replay.stop()  # it acknowledges nothing and keeps requesting answers
        return out, descriptors

    def _produce_replay(self, room: int) -> list[Buffer]:
        """Return the next bytes of the replay.  Not limited: it is no more than the old path held in flight."""
        out: list[Buffer] = [self._preface] if self._preface else []
        self._preface = b""
        out += self.replay.replay(room)
        self.is_replaying = self.replay.has_replay
        return out

    def on_pong(self, payload: Buffer, now: float) -> None:
        """Process a PONG.  WireError if it acknowledges bytes that were not sent."""
        if len(payload) != MARK or not self.replay.ack(int.from_bytes(payload[:8], "big")):
            raise WireError("a PONG without a PING")
        self.in_flight.on_mark(int.from_bytes(payload[8:], "big"), now)
        callbacks, self.pong_callbacks = self.pong_callbacks, []
        for callback in callbacks:
            callback()

    def resume(self, preface: bytes) -> None:
        """Resume over a new transport: `preface` is sent first, then the replay buffer, then a mark."""
        self._preface = preface
        self.resumes += 1
        self.is_replaying = True
        self.replay.rewind()
        self.in_flight = InFlightLimit(self.in_flight)
        self.wants_mark = True

    def flush(self) -> None:
        """Send without limits and without replay; the link cannot resume any more."""
        self.is_flushing = True
        self.replay.is_enabled = False

    def stop(self) -> None:
        """Send only queued control frames from now on."""
        self.wants_mark = self.is_replaying = False
        self.replay.stop()
        self.scheduler.drop_streams()


def check_mark(payload: Buffer, place: int) -> None:
    """Check that a PING that ends at byte `place` states the number of bytes received before it.  WireError if not."""
    if len(payload) != MARK:
        raise WireError(f"a PING of {len(payload)} bytes")
    sent, received = int.from_bytes(payload[:8], "big"), place - len(frames.encode_frame(frames.PING, 0, payload))
    if sent != received:
        raise WireError(f"{abs(sent - received)} bytes were {'lost' if sent > received else 'added'} on the way")

"""Everything that one side of a link sends, as one row of numbered bytes.

    Outbox   what is next
    Flight   how much may be on its way
    Kept     what may have to be sent again over another transport

Marks are PINGs in their place among the rest, as `in_flight` wants them; each tells the number of bytes before it.
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

MAX_ROOM = 1 << 30  # for a link that is to be done with soon
MARKS = 1 << 16  # bytes from mark to mark where they are for nothing but to know what may be forgotten
MAX_OVER = 1 << 20  # bytes of control frames that are kept beyond the link's share of memory
MARK = 16  # bytes of a PING: those before it, and the number of the mark


class Sender:
    """Of the link whose memory `account` counts."""

    def __init__(self, account: Account) -> None:
        self.scheduler = SendScheduler()
        self.in_flight = InFlightLimit()
        self.replay = ReplayBuffer(account)
        self._account = account
        self._full_at = 0  # bytes that were sent when there was memory for more
        self.is_hurried = False  # send all there is: the neighbour is not listened to any more
        self.is_repaired = False  # what carries it repairs losses, and bounds what is in flight
        self.wants_mark = False
        self.asked: list[Callable[[], object]] = []  # called when the next answer to a mark has come
        self._marked = 0  # bytes before the last mark
        self._preface = b""  # goes before all else, and is not numbered
        self.repeats = False  # there is something that went over an earlier transport
        self.resumes = 0  # transports after the first

    @property
    def has_output(self) -> bool:
        return self.scheduler.has_output or self.wants_mark or self.repeats

    def produce(self, now: float, room: int) -> tuple[list[Buffer], tuple[int, ...]]:
        """See `Link.produce`."""
        again = self._produce_again(room) if self.repeats else None
        if again:
            return again, ()
        scheduler, in_flight = self.scheduler, self.in_flight
        in_flight.is_shared = scheduler.is_shared(now)
        if not (self.is_hurried or self.is_repaired):
            room = min(room, in_flight.room)
        share = max(self._account.room, FLOOR - self.replay.held)
        out, descriptors = scheduler.produce(min(room, share), now, in_flight.rate)
        if out:
            in_flight.on_sent(sum(map(len, out)), now, not scheduler.has_output)
            out = self.replay.keep(out)
        wants_mark = self.replay.sent - self._marked > MARKS if self.is_repaired else in_flight.wants_mark
        if self.wants_mark or wants_mark or (share <= 0 and in_flight.lacks_mark):  # what has arrived takes memory
            self.wants_mark = False
            self._marked = self.replay.sent
            payload = self.replay.sent.to_bytes(8, "big") + in_flight.mark(now).to_bytes(8, "big")
            out.extend(self.replay.keep([frames.encode_frame(frames.PING, 0, payload)]))
        if share > 0:
            self._full_at = self.replay.sent
        elif self.replay.sent - self._full_at > MAX_OVER:
            self.replay.stop()  # it acknowledges nothing, and wants more and more answers
        return out, descriptors

    def _produce_again(self, room: int) -> list[Buffer]:
        """What was sent over an earlier transport and did not arrive: no more than the path held then, so without
        regard to what this one holds."""
        out: list[Buffer] = [self._preface] if self._preface else []
        self._preface = b""
        out += self.replay.again(room)
        self.repeats = self.replay.is_behind
        return out

    def on_pong(self, payload: Buffer, now: float) -> None:
        """The answer to a mark.  WireError if it can be none."""
        if len(payload) != MARK or not self.replay.ack(int.from_bytes(payload[:8], "big")):
            raise WireError("a PONG that answers no PING")
        self.in_flight.on_mark(int.from_bytes(payload[8:], "big"), now)
        asked, self.asked = self.asked, []
        for answered in asked:
            answered()

    def resume(self, preface: bytes) -> None:
        """There is another transport: `preface` goes first, then what is kept, then a mark."""
        self._preface = preface
        self.resumes += 1
        self.repeats = True
        self.replay.rewind()
        self.in_flight = InFlightLimit(self.in_flight)
        self.wants_mark = True

    def hurry(self) -> None:
        """Send all there is; there will be no other transport."""
        self.is_hurried = True
        self.replay.is_on = False

    def stop(self) -> None:
        """Nothing will be sent any more but what is queued as control frames."""
        self.wants_mark = self.repeats = False
        self.replay.stop()
        self.scheduler.drop_streams()


def check_mark(payload: Buffer, place: int) -> None:
    """A PING that ends before the byte `place` says how many bytes were before it.  WireError if others came."""
    if len(payload) != MARK:
        raise WireError(f"a PING of {len(payload)} bytes")
    sent, came = int.from_bytes(payload[:8], "big"), place - len(frames.encode_frame(frames.PING, 0, payload))
    if sent != came:
        raise WireError(f"{abs(sent - came)} bytes were {'lost' if sent > came else 'added'} on the way")

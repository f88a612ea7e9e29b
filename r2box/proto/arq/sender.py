"""ARQ sender: segments the stream and transmits each segment until it is acknowledged.

Each transmission has a number, and an ACK lists the accepted ones.  Losses are detected by time, not by counting, as in
RACK-TLP (RFC 8985): a transmission is lost when a later one was accepted and a round trip plus the reordering window
have passed since it was sent.  The reordering window adapts to the delays of packets that arrive late, so that a path
that reorders causes no duplicates.

If nothing is acknowledged for a round trip and four deviations of it (RFC 6298, 2), the oldest segment is sent again as
a probe.  Its number is new, so its ACK shows what else was lost.  The timeout doubles with each probe (RFC 6298, 5.5);
the third probe marks all in flight as lost.

All work is independent of the number of packets in flight: each transmission is judged once, in order.
"""

from __future__ import annotations

from collections import deque

from ...errors import WireError
from .congestion import QUANTUM, CongestionControl, Segment
from .packet import MAX_MTU, TICK, unwrap
from .receiver import MAX_DELAY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.fields import Buffer
    from .packet import PacketEncoder

# RFC 6298 begins with 1 s, for unknown paths that a retransmission may congest.  Here it is one packet of some 300
# bytes, a person waits for it, and all paths but satellites answer within 0.3 s.  The low factor is for loss: with 30 %
# each way, half of the exchanges fail.
OPENING = 0.3  # seconds before the first retransmission while the round trip is unknown
OPENING_BACKOFF = 1.5
MAX_OPENING = 2.0
PROBES_BEFORE_BACKOFF = 8  # once the neighbour is known: then ACKs are lost
MIN_TIMEOUT = 0.01  # seconds
MAX_TIMEOUT = 2.0  # a path that has recovered is used again within this time
SILENT = 3  # unanswered probes that mark all as lost

QUEUE = 0.025  # seconds of the rate that are queued: enough for a timer, short for urgent data behind them
MAX_QUEUE = 1 << 20  # bytes
BURST = 64  # packets in one call
REMEMBER = 1 << 14  # transmissions that may be unjudged or arrive late
MAX_REORDER_WINDOW = 0.05  # seconds, or a round trip
DRY = QUANTUM / 4  # seconds without data before the sender counts as application-limited


class ArqSender:
    """The sending side of a connection."""

    def __init__(self, identity: int, mtu: int) -> None:
        self.congestion = CongestionControl(identity, mtu)
        self.peer_known = False  # a packet of the neighbour was received
        self.rtt = 0.0  # smoothed, seconds; 0 while unknown
        self.acked = 0  # the stream before this offset is acknowledged
        self.end = 0  # the end of the stream so far
        self.sent = self.resent = 0  # packets
        self._queue = bytearray()  # not segmented yet
        self._segments: deque[Segment] = deque()  # sent, by offset; the first is not acknowledged
        self._lost: deque[Segment] = deque()  # to be sent again, unless acknowledged meanwhile
        self._by_tx: dict[int, Segment] = {}  # unacknowledged transmissions
        self._marked_lost: dict[int, float] = {}  # those marked as lost: when they were sent
        self._next_tx = 0
        self._judged = 0  # transmissions before this one are acknowledged or marked as lost
        self._top = -1  # the newest acknowledged transmission
        self._top_rtt = 0.0
        self._clock = 0  # of the receiver, when that arrived
        self._seen = 0  # bitmap of acknowledged transmissions: bit i is top - i
        self._limit = MAX_MTU  # offset up to which the receiver accepts the stream
        self._deviation = 0.0  # of `rtt`
        self._reorder_window = 0.0
        self._reorder_window_at = 0.0
        self._loss_at = 0.0  # when the next transmission counts as lost; 0: none
        self._timer_at = 0.0  # start of the retransmission timer
        self._probes = 0  # since the last ACK
        self._idle_at = 0.0  # since when there is no data to send; 0: there is

    # -- the stream --------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes of stream that `send` should be given now."""
        pace = self.congestion
        step = pace.segment
        free = pace.window - pace.in_flight
        if pace.rate:
            free = min(free, int(pace.rate * QUEUE), MAX_QUEUE)
        # A multiple of the segment size, so that no portion ends with a short segment.
        return max((max(free, 0) // step + 1) * step - len(self._queue), 0)

    @property
    def queue(self) -> int:
        """Bytes that are queued and not segmented."""
        return len(self._queue)

    def send(self, buffers: list[Buffer]) -> None:
        """Queue bytes of the stream; they are copied."""
        queue = self._queue
        before = len(queue)
        for buffer in buffers:
            queue += buffer
        self.end += len(queue) - before

    # -- packets out -------------------------------------------------------------------------------------------------

    def produce(self, encoder: PacketEncoder, now: float, out: list[bytes]) -> None:
        """Append the packets to `out` that may be sent now."""
        if self._loss_at and now >= self._loss_at:
            self._detect_losses(now)
        if self.congestion.in_flight and now >= self._timeout_at:
            self._probe(encoder, now, out)
        pace, lost, queue = self.congestion, self._lost, self._queue
        if queue and self._idle_at:
            if now - self._idle_at > DRY:
                pace.on_app_limited()
            self._idle_at = 0.0
        early = now + QUANTUM
        for _ in range(BURST):
            if pace.next_at > early or self._next_tx - self._judged >= REMEMBER:
                return
            segment = self._pop_lost()
            if segment is None:
                if not queue:
                    if not self._idle_at:
                        self._idle_at = now
                    return
                size = min(len(queue), pace.segment)
                offset = self.end - len(queue)
                if pace.in_flight and (pace.in_flight + size > pace.window or offset + size > self._limit):
                    return
                segment = Segment(offset, bytes(memoryview(queue)[:size]))
                del queue[:size]
                self._segments.append(segment)
            elif pace.in_flight and pace.in_flight + segment.size > pace.window:
                lost.appendleft(segment)
                return
            self._transmit(segment, encoder, now, out)

    def _pop_lost(self) -> Segment | None:
        lost = self._lost
        while lost:
            segment = lost.popleft()
            if not segment.is_acked and not segment.is_in_flight:
                self.resent += 1
                return segment
        return None

    def _transmit(self, segment: Segment, encoder: PacketEncoder, now: float, out: list[bytes]) -> None:
        tx = segment.tx = self._next_tx
        self._next_tx = tx + 1
        self.sent += 1
        if not self.congestion.in_flight:
            self._timer_at = now
        self.congestion.on_sent(segment, now)
        self._by_tx[tx] = segment
        if tx - REMEMBER in self._marked_lost:
            del self._marked_lost[tx - REMEMBER]
            self._by_tx.pop(tx - REMEMBER, None)
        out.append(encoder.data(tx, segment.offset, segment.data))

    # -- timers ------------------------------------------------------------------------------------------------------

    @property
    def _timeout_at(self) -> float:
        """When the retransmission timer expires."""
        if not self.rtt:
            tries = max(self._probes - (PROBES_BEFORE_BACKOFF if self.peer_known else 0), 0)
            wait = OPENING * float(OPENING_BACKOFF ** min(tries, 8))
            return self._timer_at + min(wait, MAX_OPENING)
        wait = self.rtt + max(4 * self._deviation, MIN_TIMEOUT) + MAX_DELAY + self._reorder_window
        return self._timer_at + min(wait * (1 << min(self._probes, 8)), max(MAX_TIMEOUT, wait))

    def retransmit_now(self, now: float) -> None:
        """Let the retransmission timer expire at once."""
        self._timer_at = now - MAX_OPENING

    def _probe(self, encoder: PacketEncoder, now: float, out: list[bytes]) -> None:
        self._probes += 1
        self._timer_at = now
        if self._probes % SILENT == 0 and self.rtt:
            self.congestion.on_silence()
            for tx in range(self._judged, self._next_tx):
                self._mark_lost(tx)
            self._judged = self._next_tx
        # The oldest, since the stream waits for it; from the second probe on the newest, too.
        for segment in [self._segments[0], self._segments[-1]][: min(self._probes, len(self._segments))]:
            if segment.is_in_flight:
                self._mark_lost(segment.tx)
            if not segment.is_acked:
                self.resent += 1
                self._transmit(segment, encoder, now, out)

    def deadline(self, now: float) -> float:
        """When `produce` must be called next if nothing is received before; 0: never."""
        pace = self.congestion
        at = 0.0
        if pace.in_flight:
            at = self._timeout_at
            if self._loss_at:
                at = min(at, self._loss_at)
        lost = self._lost
        while lost and (lost[0].is_acked or lost[0].is_in_flight):
            lost.popleft()
        if lost:
            size = lost[0].size
        elif self._queue:
            size = min(len(self._queue), pace.segment)
            if pace.in_flight and self.end - len(self._queue) + size > self._limit:
                return at
        else:
            return at
        if self._next_tx - self._judged < REMEMBER and (not pace.in_flight or pace.in_flight + size <= pace.window):
            due = max(pace.next_at, now)
            return min(at, due) if at else due
        return at

    # -- acknowledgements --------------------------------------------------------------------------------------------

    def on_ack(
        self, low_tx: int, clock: int, delay: float, window: int, low_offset: int, bits: int, now: float
    ) -> None:
        """Process an ACK.  WireError if it acknowledges what was never sent."""
        tx = unwrap(low_tx, max(self._top, 0))
        offset = unwrap(low_offset, self.acked)
        if tx >= self._next_tx or offset > self.end - len(self._queue):
            raise WireError("the neighbour acknowledges what was not sent")
        if tx < 0:
            return
        newest = self._by_tx.get(tx) if tx > self._top else None
        rtt = 0.0
        if newest is not None and newest.tx != tx:
            newest = None  # marked as lost and sent again since
        if newest is not None:
            rtt = max(now - newest.sent_at, 1e-6)
            self._update_rtt(rtt, delay)
            self._clock = unwrap(clock, self._clock) if self._clock else clock
        is_news = self._take_map(tx, bits << 1 | 1, now)
        if offset > self.acked:
            self._take_offset(offset, now)
            is_news = True
        self._limit = max(self._limit, self.acked + max(window, MAX_MTU))
        if not is_news:
            return
        self._probes = 0
        self._timer_at = now
        self.congestion.on_ack(newest, rtt, self._clock * TICK, now)
        self._detect_losses(now)

    def _take_map(self, tx: int, bits: int, now: float) -> bool:
        """Process the bitmap `bits`, of which bit i is tx - i; return whether it acknowledges anything new."""
        ahead = tx - self._top
        old_top = self._top
        if ahead > 0:
            self._top = tx
            self._seen = self._seen << ahead if ahead < REMEMBER else 0
            if self._seen >> REMEMBER:
                self._seen &= (1 << REMEMBER) - 1
        else:
            if -ahead >= REMEMBER:
                return False
            bits <<= -ahead
        news = bits & ~self._seen
        self._seen |= news
        is_news = bool(news)
        by_tx = self._by_tx
        while news:
            place = news.bit_length() - 1  # the oldest first
            news ^= 1 << place
            number = self._top - place
            segment = by_tx.pop(number, None)
            if segment is None:
                continue
            if number < old_top:
                self._note_late(number, segment, now)
            if not segment.is_acked:
                segment.is_acked = True
                self.congestion.on_delivered(segment)
        return is_news

    def _take_offset(self, offset: int, now: float) -> None:
        """The stream before `offset` is complete at the receiver."""
        self.acked = offset
        segments = self._segments
        while segments and segments[0].end <= offset:
            segment = segments.popleft()
            if not segment.is_acked:
                if segment.tx in self._marked_lost:
                    self._note_late(segment.tx, segment, now)
                segment.is_acked = True
                self.congestion.on_delivered(segment)
                del self._by_tx[segment.tx]

    def _update_rtt(self, rtt: float, delay: float) -> None:
        """Update the round trip (RFC 6298, 2), less the receiver's delay where that is plausible (RFC 9002, 5.3)."""
        self._top_rtt = rtt
        if rtt - delay >= self.congestion.min_rtt:
            rtt -= delay
        if not self.rtt:
            self.rtt, self._deviation = rtt, rtt / 2
        else:
            self._deviation += (abs(self.rtt - rtt) - self._deviation) / 4
            self.rtt += (rtt - self.rtt) / 8

    # -- losses ------------------------------------------------------------------------------------------------------

    def _note_late(self, tx: int, segment: Segment, now: float) -> None:
        """A packet arrived late: widen the reordering window."""
        sent_at = self._marked_lost.pop(tx, segment.sent_at if segment.tx == tx else now)
        if segment.tx != tx or not segment.is_in_flight:
            self.congestion.on_spurious()
        late = now - sent_at - max(self.rtt, self._top_rtt)
        if late > 0:
            self._reorder_window = max(self._reorder_window, min(late * 1.25, max(MAX_REORDER_WINDOW, self.rtt)))

    def _detect_losses(self, now: float) -> None:
        """Mark transmissions as lost that are older than the newest acknowledged one, by time (RACK)."""
        if now - self._reorder_window_at > self.rtt:
            self._reorder_window_at = now
            self._reorder_window *= 0.97
        reorder_window = max(self._reorder_window, self.congestion.min_rtt / 8, QUANTUM)
        wait = max(self.rtt, self._top_rtt) + reorder_window
        by_tx = self._by_tx
        self._loss_at = 0.0
        tx, top = self._judged, self._top
        while tx < top:
            segment = by_tx.get(tx)
            if segment is not None and segment.tx == tx and segment.is_in_flight:
                if segment.sent_at + wait > now:
                    self._loss_at = segment.sent_at + wait
                    break
                self._mark_lost(tx)
            elif segment is not None and segment.is_acked and tx not in self._marked_lost:
                del by_tx[tx]  # another copy was acknowledged
            tx += 1
        self._judged = max(tx, self._judged)

    def _mark_lost(self, tx: int) -> None:
        """Mark the transmission `tx` as lost, if it is the last one of its segment and in flight."""
        segment = self._by_tx.get(tx)
        if segment is not None and segment.is_in_flight and segment.tx == tx:
            self._marked_lost[tx] = segment.sent_at
            self.congestion.on_lost(segment)
            self._lost.append(segment)

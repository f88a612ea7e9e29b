"""In-flight limit: bounds the bytes in flight on a link to what the path holds and a small queue.

The carrier of a link has buffers of unknown size: of a modem, a relay, the pipes of a command.  A bulk tunnel would
fill them, and a keystroke on the same link would wait behind seconds of it (bufferbloat).  So the bytes in flight are
limited to the bandwidth-delay product and some slack::

    limit = rate * min_rtt + slack

Both are measured as in BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016).  A
*mark* is a PING in its place among the data; its PONG acknowledges all bytes before it.

    rate     bytes acknowledged between two marks a round trip apart; the maximum of the last `RATE_ROUNDS` round trips,
             since a sample is low when there was little to send, but never too high
    min_rtt  the shortest round trip of the last `MIN_RTT_WINDOW` seconds.  A standing queue would hide it; so after
             that time the bytes in flight are halved until the queue has drained, and it is measured again.
    slack    lets a higher rate be found, and keeps the path full while a mark travels: half of rate * min_rtt; at
             least 25 ms of the rate, the queue that a keystroke meets on a slow link, but no more than 2 MiB of that,
             or 64 KiB while several streams are active

Time is in seconds and comes from the caller; sizes are in bytes.
"""

from __future__ import annotations

from collections import deque

from .scheduler import MIN_ROOM

INITIAL_LIMIT = 1 << 18  # the limit before the first measurement: 256 KiB, as a stream's initial window
MIN_LIMIT = 1 << 12  # with less, each frame would wait for a PONG
MAX_SLACK = 1 << 21
SHARED_SLACK = 1 << 16  # while several streams are active
QUEUE = 0.025  # seconds of the rate
LARGE = 1 << 18  # bytes between marks from which on bursts need no limit
QUEUE_FACTOR = 1.5  # a round trip longer than this factor of the shortest,
QUEUE_JITTER = 0.001  # plus this time in seconds, has met a queue
MIN_RTT_WINDOW = 10.0  # seconds
RATE_ROUNDS = 8
MARKS = 4  # per limit: more would cost frames, fewer would let the path drain
MAX_MARKS = 64  # unanswered


class Mark:
    """An unanswered PING."""

    __slots__ = ("acked", "acked_at", "at", "is_full", "offset")

    def __init__(self, offset: int, at: float, acked: int, acked_at: float, is_full: bool) -> None:
        self.offset = offset  # bytes before it
        self.at = at  # when it was sent
        self.acked = acked  # bytes acknowledged then,
        self.acked_at = acked_at  # and when they were
        self.is_full = is_full  # the sender was limited by the path, not by a lack of data


class InFlightLimit:
    """The in-flight limit of one direction of a link over one transport; `earlier`: that of the transport before."""

    def __init__(self, earlier: InFlightLimit | None = None) -> None:
        self.sent = 0
        self.rtt = 0.0  # seconds, smoothed; 0 while unknown
        self.limit = INITIAL_LIMIT
        self.is_shared = False  # several streams are active
        self._path = 0  # rate * min_rtt, in bytes
        self._acked = 0  # of `sent`
        self._acked_at = 0.0
        self._marks: dict[int, Mark] = {}
        # Numbers continue over a resume, so that a late PONG matches no new mark.
        self._last_id: int = earlier._last_id if earlier else 0
        self._last_offset = 0
        self._dry_at = 0  # `sent` when there last was no more data
        self._min_rtts: deque[float] = deque((0.0, 0.0), 2)  # the minimum of this MEMORY and the one before; 0: none
        self._min_rtts_since = 0.0
        self._rates: deque[float] = deque((0.0, 0.0), 2)  # the maximum of these RATE_ROUNDS and those before
        self._rate = 0.0  # the last sample
        self._rounds = 0
        self._round_end = 0  # the mark at this offset ends a round
        self._drain_limit = 0  # the limit while the path drains; 0: it does not
        self._drain_end = 0  # the mark that ends that; 0: not sent yet

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        step = self._bound // MARKS
        room = self._bound - (self.sent - self._acked)
        if room < MIN_ROOM:
            return min(room, 0)
        if step >= LARGE:
            return room
        # Up to the next mark: a mark behind a long burst would measure the burst.
        left = step - (self.sent - self._last_offset)
        return min(room, left if left >= MIN_ROOM else step)

    @property
    def _bound(self) -> int:
        bound = min(self._drain_limit or self.limit, self.limit)
        return min(bound, self._path + max(self._path // 2, SHARED_SLACK)) if self.is_shared else bound

    def on_sent(self, size: int, now: float, is_dry: bool) -> None:
        """`size` bytes are sent; `is_dry`: there is no more data."""
        if not self._marks:
            self._acked, self._acked_at = self.sent, now  # all before has arrived
        self.sent += size
        if is_dry:
            self._dry_at = self.sent

    @property
    def wants_mark(self) -> bool:
        """Whether a mark is due: enough was sent since the last one, or nothing can be sent without one."""
        since = self.sent - self._last_offset
        return since >= self._bound // MARKS or (bool(since) and self.room <= 0)

    @property
    def lacks_mark(self) -> bool:
        """Whether bytes were sent behind the last mark, and no mark is unanswered."""
        return self.sent > self._last_offset and not self._marks

    def mark(self, now: float) -> int:
        """Register a mark that is sent now; return its number."""
        if len(self._marks) >= MAX_MARKS:
            del self._marks[next(iter(self._marks))]
        self._last_id += 1
        self._last_offset = self.sent
        is_full = self._dry_at <= self._acked <= self.sent - self._bound // MARKS
        self._marks[self._last_id] = Mark(self.sent, now, self._acked, self._acked_at, is_full)
        return self._last_id

    def on_mark(self, id: int, now: float) -> None:
        """Process the PONG of the mark `id`.  Unknown numbers are ignored."""
        mark = self._marks.get(id)
        if mark is None:
            return
        for older in [number for number in self._marks if number <= id]:
            del self._marks[older]
        rtt = max(now - mark.at, 1e-6)
        self.rtt += (rtt - self.rtt) / 8 if self.rtt else rtt  # RFC 6298's gain
        self._acked, self._acked_at = mark.offset, now
        self._update_rtt(rtt, now)
        self._update_rate(mark, now)
        path = max(self._rates) * self.min_rtt
        self._path = int(path)
        limit = max(MIN_LIMIT, int(path + max(path / 2, min(MAX_SLACK, max(self._rates) * QUEUE))))
        # A low rate may be due to little data or a slow reader; only a queue shows that the path is the reason.
        has_queue = mark.is_full and rtt > QUEUE_FACTOR * self.min_rtt + QUEUE_JITTER
        self.limit = limit if has_queue else max(limit, self.limit)
        if self._drain_limit:
            if not self._drain_end and self.room > 0:
                self._drain_end = self._last_id + 1
            elif self._drain_end and id >= self._drain_end:
                self._drain_limit = 0
                self._min_rtts.extend((rtt, rtt))  # replaces the old minimum

    def _update_rtt(self, rtt: float, now: float) -> None:
        self._min_rtts[1] = min(rtt, self._min_rtts[1] or rtt)
        if now - self._min_rtts_since > MIN_RTT_WINDOW:
            self._min_rtts_since = now
            self._min_rtts.append(rtt)
            self._drain()

    def _drain(self) -> None:
        """Halve the bytes in flight, so that the round trip can be measured without a queue."""
        if self._acked >= self._dry_at and self._rate and not self._drain_limit:
            # The last rate, not the maximum: on a path that has become slower, that would not drain it.
            self._drain_limit = max(MIN_LIMIT, int(self._rate * self.min_rtt / 2))
            self._drain_end = 0

    @property
    def min_rtt(self) -> float:
        """The shortest recent round trip in seconds; 0 while unknown."""
        return min(filter(None, self._min_rtts), default=0.0)

    @property
    def rate(self) -> float:
        """The measured delivery rate in bytes a second; 0 while unknown."""
        return max(self._rates)

    def _update_rate(self, mark: Mark, now: float) -> None:
        rate = (mark.offset - mark.acked) / max(now - mark.acked_at, 1e-6)
        if not mark.is_full and rate <= max(self._rates):
            return
        self._rate = rate
        self._rates[1] = max(rate, self._rates[1])
        if mark.acked >= self._round_end:
            self._round_end = self.sent
            self._rounds += 1
            if self._rounds >= RATE_ROUNDS:
                self._rounds = 0
                best = max(self._rates)
                self._rates.append(rate)
                if max(self._rates) < best * 3 / 4:
                    self._drain()  # the path has become slower or longer

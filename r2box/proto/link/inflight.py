"""How many bytes may be on their way over a link: enough to fill the path, and hardly more.

Whatever carries a link has buffers that we cannot see: a modem's, a relay's, the pipes of some command.  Left alone, a
bulk tunnel fills them, and a keystroke on the same link then waits for seconds of somebody's file.  So the bytes in
flight are bounded by what the path holds by itself, the delivery rate times the round trip, and a little more::

    limit = rate * trip + slack

Both are measured as in BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016).  A
*mark* is a PING that goes out in its place among the data; its PONG says that all before it has arrived.

    rate    bytes that arrived between two marks a round trip apart; the best of the last `ROUNDS` round trips, because
            any sample may be low, when there was little to send, but none is high
    trip    the shortest round trip of the last `MEMORY` seconds.  A standing queue would hide it, so after that time
            half a flight is let drain and it is measured anew.
    slack   what lets the rate be found to have grown, and keeps the path filled while a mark is on its way: half of
            rate * trip; at least 25 ms of the rate, which is the queue that a keystroke will meet on a slow link, but
            not more than 2 MiB of it, which is the one on a fast link, or 64 KiB when there are others to wait

Time is what the caller says it is, in seconds; sizes are bytes.
"""

from __future__ import annotations

from collections import deque

from .scheduler import WORTH

FIRST = 1 << 18  # the limit before anything is measured: 256 KiB, as a stream's first window
LEAST = 1 << 12  # less would make every frame wait for an answer
MOST_SLACK = 1 << 21
SHARED_SLACK = 1 << 16  # when there is somebody who would have to wait
QUEUE = 0.025  # seconds
LARGE = 1 << 18  # bytes between marks that no burst exceeds
CROWDED = 1.5  # times the shortest round trip, and
JITTER = 0.001  # seconds more: a round trip that is longer has met a queue
MEMORY = 10.0  # seconds
ROUNDS = 8
MARKS = 4  # in one flight: more would cost more frames, fewer let it run dry
MAX_MARKS = 64  # that wait for their answer


class FlightMark:
    """A PING on its way."""

    __slots__ = ("acked", "acked_at", "at", "is_full", "offset")

    def __init__(self, offset: int, at: float, acked: int, acked_at: float, is_full: bool) -> None:
        self.offset = offset  # bytes before it
        self.at = at  # when it was sent
        self.acked = acked  # what had arrived then,
        self.acked_at = acked_at  # and when that was
        self.is_full = is_full  # the path was kept full before it


class InFlightLimit:
    """The bytes of one direction of a link, over one transport; `earlier`: what it had before."""

    def __init__(self, earlier: InFlightLimit | None = None) -> None:
        self.sent = 0
        self.rtt = 0.0  # seconds, smoothed; 0 while unknown
        self.limit = FIRST
        self.is_shared = False  # by several streams
        self._path = 0  # what the path holds by itself
        self._acked = 0  # of `sent`
        self._acked_at = 0.0
        self._marks: dict[int, FlightMark] = {}
        # An answer to a mark over an earlier transport is never taken for one of these.
        self._last_id: int = earlier._last_id if earlier else 0
        self._last_offset = 0
        self._dry_at = 0  # `sent` when there was last nothing more to send
        self._trips: deque[float] = deque((0.0, 0.0), 2)  # the shortest of this time and of the time before; 0: none
        self._trips_since = 0.0
        self._rates: deque[float] = deque((0.0, 0.0), 2)  # the best of these rounds and of those before
        self._rate = 0.0  # the last
        self._rounds = 0
        self._round_end = 0  # the mark at this offset ends a round
        self._squeeze = 0  # the limit while the path drains
        self._squeeze_end = 0  # the mark that ends that; 0: the path has not drained yet

    @property
    def room(self) -> int:
        """How many more bytes may be sent now."""
        step = self._bound // MARKS
        room = self._bound - (self.sent - self._acked)
        if room < WORTH:
            return min(room, 0)
        if step >= LARGE:
            return room
        # No further than to the next mark: a burst with one mark at its end would hide the path behind itself.
        left = step - (self.sent - self._last_offset)
        return min(room, left if left >= WORTH else step)

    @property
    def _bound(self) -> int:
        bound = min(self._squeeze or self.limit, self.limit)
        return min(bound, self._path + max(self._path // 2, SHARED_SLACK)) if self.is_shared else bound

    def on_sent(self, size: int, now: float, is_dry: bool) -> None:
        """`size` bytes go out; `is_dry`: there is nothing more to send."""
        if not self._marks:
            self._acked, self._acked_at = self.sent, now  # what went before and was not worth a mark has arrived
        self.sent += size
        if is_dry:
            self._dry_at = self.sent

    @property
    def wants_mark(self) -> bool:
        """Whether what went out since the last mark is worth another, or nothing can go out without one."""
        since = self.sent - self._last_offset
        return since >= self._bound // MARKS or (bool(since) and self.room <= 0)

    @property
    def lacks_mark(self) -> bool:
        """Whether no answer is due, and one would tell of more that has arrived."""
        return self.sent > self._last_offset and not self._marks

    def mark(self, now: float) -> int:
        """A mark goes out now; its number."""
        if len(self._marks) >= MAX_MARKS:
            del self._marks[next(iter(self._marks))]
        self._last_id += 1
        self._last_offset = self.sent
        is_full = self._dry_at <= self._acked <= self.sent - self._bound // MARKS
        self._marks[self._last_id] = FlightMark(self.sent, now, self._acked, self._acked_at, is_full)
        return self._last_id

    def on_mark(self, id: int, now: float) -> None:
        """The answer to the mark `id` has come.  A number that is no mark's is ignored."""
        mark = self._marks.get(id)
        if mark is None:
            return
        for older in [number for number in self._marks if number <= id]:
            del self._marks[older]
        took = max(now - mark.at, 1e-6)
        self.rtt += (took - self.rtt) / 8 if self.rtt else took  # RFC 6298's gain
        self._acked, self._acked_at = mark.offset, now
        self._note_trip(took, now)
        self._note_rate(mark, now)
        path = max(self._rates) * self.trip
        self._path = int(path)
        limit = max(LEAST, int(path + max(path / 2, min(MOST_SLACK, max(self._rates) * QUEUE))))
        # A rate may be low because little was sent or nobody had time; only a queue says that the path is the reason.
        is_crowded = mark.is_full and took > CROWDED * self.trip + JITTER
        self.limit = limit if is_crowded else max(limit, self.limit)
        if self._squeeze:
            if not self._squeeze_end and self.room > 0:
                self._squeeze_end = self._last_id + 1
            elif self._squeeze_end and id >= self._squeeze_end:
                self._squeeze = 0
                self._trips.extend((took, took))  # what it was before does not matter any more

    def _note_trip(self, took: float, now: float) -> None:
        self._trips[1] = min(took, self._trips[1] or took)
        if now - self._trips_since > MEMORY:
            self._trips_since = now
            self._trips.append(took)
            self._drain()

    def _drain(self) -> None:
        """Half a flight, so that the round trip can be measured without a queue."""
        if self._acked >= self._dry_at and self._rate and not self._squeeze:
            # The last rate, not the best: of a path that has become slower that would be no drain at all.
            self._squeeze = max(LEAST, int(self._rate * self.trip / 2))
            self._squeeze_end = 0

    @property
    def trip(self) -> float:
        """The shortest round trip of late, in seconds; 0 while unknown."""
        return min(filter(None, self._trips), default=0.0)

    @property
    def rate(self) -> float:
        """What the path delivers, in bytes a second, as far as has been seen; 0 while unknown."""
        return max(self._rates)

    def _note_rate(self, mark: FlightMark, now: float) -> None:
        rate = (mark.offset - mark.acked) / max(now - mark.acked_at, 1e-6)
        if not mark.is_full and rate <= max(self._rates):
            return
        self._rate = rate
        self._rates[1] = max(rate, self._rates[1])
        if mark.acked >= self._round_end:
            self._round_end = self.sent
            self._rounds += 1
            if self._rounds >= ROUNDS:
                self._rounds = 0
                best = max(self._rates)
                self._rates.append(rate)
                if max(self._rates) < best * 3 / 4:
                    self._drain()  # the path has become slower, or longer

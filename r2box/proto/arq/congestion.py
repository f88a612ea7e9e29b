"""How fast packets may go out, and how many may be on their way: congestion control that a lossy path does not starve.

TCP of the usual kind takes every loss for a full queue.  At 1 % of loss and 50 ms it ends at some 300 kB/s, whatever
the path could carry (Mathis et al., "The Macroscopic Behavior of the TCP Congestion Avoidance Algorithm", 1997).  This
one measures what the path delivers and how long that takes without a queue, and sends so much and hardly more.  It is
BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016), with these parts:

    rate     bytes delivered between the sending of a packet and its acknowledgement, by the longer of the two times in
             which they were sent and in which they came (draft-cheng-iccrg-delivery-rate-estimation, but by the
             receiver's clock: acknowledgements may wait behind its own data, and then come in bunches); the best of the
             last `ROUNDS` round trips.  A sample taken while there was too little to send counts only if it is better.
             It begins some `SPAN` before the packet was sent: on a short path packets come in bunches, as programs are
             given time, and what a bunch comes at is no rate that the path could keep up.
    trip     the shortest round trip of the last `MEMORY` seconds.  When none so short has been seen for that time,
             half a flight is let drain for a moment so that it can be.
    back     what acknowledgements take longer now than they have to, since they wait behind the neighbour's data: the
             round trip less `min_rtt`, and less the queue that our own packets have met.  That is by how much they came
             later than any of late, by the two clocks, whose difference does not matter therefore.
    window   bytes that may be on their way: rate * (`HEADROOM` * trip + back) and a few packets
    start    packets leave `START` times as fast as they are delivered, until that does not make them come faster, or
             every one of a round trip has met a queue (as in HyStart, RFC 9406); then what has piled up is drained.
             The window also grows by all that is acknowledged without having met a queue, as TCP's does: the first
             rates are none, with losses among so few packets
    cruise   one round trip a quarter faster, to see whether the path can do more, one a quarter slower, so that the
             queue which this may have made goes away, and six as measured, unless the path could do more

Loss by itself is no signal.  Two things are done about it:

    what is lost anyway   Of packets sent at the measured rate only a part 1 - loss comes; from a fifth of loss on the
             measured rate would sink by itself, trip by trip.  So packets are sent faster by 1 / (1 - loss).  This must
             not defend a rate that is itself the reason of the losses; so only what was sent while draining counts,
             when the path has nothing to drop it for.
    too much is lost   Whatever the reason, when more than `EXCESS` of the packets do not come, the window is cut by
             three tenths each trip until they do, and then opened again by half each trip.

Sizes are bytes on the wire, time is seconds; both come from the caller.
"""

from __future__ import annotations

from collections import deque

from .packet import DATA_OVERHEAD

START = 2.77  # 4 ln 2: the least factor that doubles the rate with each round trip
CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
HEADROOM = 2.0  # acknowledgements are late or come in bunches
ROUNDS = 10
MEMORY = 10.0  # seconds
SQUEEZE = 0.1  # seconds, or a round trip, for which half a flight is kept
GROWTH = 1.25  # times the rate: less than that in `FULL_ROUNDS` round trips, and the path is full
FULL_ROUNDS = 3
GREW = 1.1  # times the rate that a cycle began with: the next begins at once
CROWDED = 1.5  # times the shortest round trip, and
ENOUGH = 8  # of them: fewer may all have been late by chance
JITTER = 0.002  # seconds more: a round trip that is longer has met a queue

MAX_FLOOR = 0.25  # of the packets: the loss that is made up for
EXCESS = 0.3  # and that which is too much: a fifth, and what chance adds to it in so few packets as
SAMPLE = 50

QUANTUM = 0.001  # seconds by which packets may be early: a timer's step, so that each wakeup sends that much
SPAN = 0.005  # seconds, at least, of a sample of the rate: several timer's steps and turns of an event loop
MAX_BUNCH = 48 * 1200  # bytes: a UDP socket of Linux holds some 90 packets unless it is told otherwise
CATCH_UP = 0.01  # seconds that may be made up for after a late wakeup
FIRST_SEGMENT = 512  # bytes of stream in a packet while the rate is unknown,
MIN_SEGMENT = 256  # and at least: a tenth goes for headers
PACKET_TIME = 0.04  # seconds for which a packet may occupy a slow line: something urgent may be behind it
FIRST_PACKETS = 4  # a slow line is not flooded before it is known; a fast one is found one or two trips later
MIN_PACKETS = 4  # that are on their way: two for an acknowledgement, and two meanwhile

NEVER = float("-inf")

STARTING, DRAINING, CRUISING, SQUEEZING = range(4)


class Segment:
    """A piece of the stream that is sent and sent again as it is, and what was known when it was last sent."""

    __slots__ = (
        "came_at", "data", "delivered", "end", "first_at", "flies", "is_acked", "is_draining", "is_app_limited",
        "offset", "sent_at", "size", "tx",
    )  # fmt: skip

    def __init__(self, offset: int, data: bytes) -> None:
        self.offset = offset
        self.data = data
        self.end = offset + len(data)
        self.size = len(data) + DATA_OVERHEAD
        self.is_acked = False
        self.flies = False  # it counts as being on its way
        self.tx = -1  # number of its last transmission
        self.sent_at = 0.0
        self.delivered = 0  # `CongestionControl.delivered` some SPAN before
        self.came_at = 0.0  # when the packet had come that was acknowledged last then, by the receiver's clock,
        self.first_at = 0.0  # and when it was sent
        self.is_app_limited = False  # there was less to send than could have been
        self.is_draining = False  # it was sent more slowly than the path carries


class CongestionControl:
    """The measure of one direction of a path."""

    def __init__(self, identity: int, mtu: int) -> None:
        self.in_flight = 0  # bytes that are on their way
        self.delivered = 0  # bytes acknowledged, ever
        self.rate = 0.0  # bytes a second; 0 while unknown
        self.min_rtt = 0.0  # the shortest round trip of late; 0 while unknown
        self.segment = min(FIRST_SEGMENT, mtu - DATA_OVERHEAD)  # bytes of stream for the next packet
        self.window = FIRST_PACKETS * (self.segment + DATA_OVERHEAD)
        self.next_at = 0.0  # when the next packet is due
        self.state = STARTING
        self._most = mtu - DATA_OVERHEAD
        self._start_window = self.window  # at least, while STARTING
        self._counted = 0  # of `delivered`, for that
        self._interval = 0.0  # seconds for a byte
        self._came_at = NEVER  # when the newest packet that is acknowledged has come, by the receiver's clock,
        self._first_at = 0.0  # and when it was sent
        mark = (0, NEVER, 0.0)
        self._marks = mark, mark  # delivered, _came_at, _first_at: SPAN ago or more, and less than that ago
        self._app_limited_until = -1  # packets sent before this much is delivered were too few
        self._round = 0
        self._round_end = 0
        self._rates: deque[tuple[int, float]] = deque()  # (round, rate): falling, the first is the best
        self._full_rate = 0.0  # the best of STARTING
        self._full_count = 0  # rounds since it grew
        self._phase = 2 + identity % 6  # of CYCLE: neighbours on one path should not all probe at once
        self._phase_at = 0.0
        self._phase_round = 0
        self._phase_rate = 0.0  # when the first phase began
        self._trip_at = 0.0  # when `min_rtt` was seen
        self._ways: deque[float] = deque(maxlen=2)  # the least time one way, plus a constant: before, and of late
        self._ways_at = 0.0
        self._back = 0.0  # seconds
        self._round_trip = 0.0  # the shortest of this round,
        self._round_trips = 0  # of so many
        self._squeezed_trip = 0.0  # the shortest while SQUEEZING
        self._squeeze_end = 0.0
        self._lost = self._judged = 0  # packets of this sample: lost; lost or acknowledged
        self._drain_lost = self._drain_judged = 0.0  # the same, sent while draining; older ones count less
        self._bound = 0  # of the window, after too much loss; 0: none

    # -- events ----------------------------------------------------------------------------------------------------

    def on_sent(self, segment: Segment, now: float) -> None:
        """`segment` goes out."""
        if not self.in_flight and now - self._first_at > SPAN:
            # After a pause: as if a packet that was sent a round trip ago had just been acknowledged.
            self._came_at += now - self._first_at - max(self.min_rtt, SPAN)
            self._first_at = now
            self._marks = (self.delivered, self._came_at, now), (self.delivered, self._came_at, now)
        size = segment.size
        segment.sent_at = now
        segment.delivered, segment.came_at, segment.first_at = self._marks[0]
        segment.is_app_limited = self._app_limited_until > self.delivered
        segment.is_draining = self.state == DRAINING or (self.state == CRUISING and self._phase == 1)
        segment.flies = True
        self.in_flight += size
        self.next_at = max(self.next_at, now - CATCH_UP) + size * self._interval

    def on_app_limited(self) -> None:
        """There was nothing to send for a while although there was room."""
        self._app_limited_until = self.delivered + max(self.in_flight, 1)

    def on_delivered(self, segment: Segment) -> None:
        """`segment` is acknowledged; `on_ack` follows when all of one acknowledgement are."""
        self.delivered += segment.size
        self._judged += 1
        if segment.is_draining:
            self._drain_judged += 1
        if segment.flies:
            segment.flies = False
            self.in_flight -= segment.size

    def on_lost(self, segment: Segment) -> None:
        """`segment` is held for lost."""
        segment.flies = False
        self.in_flight -= segment.size
        self._lost += 1
        self._judged += 1
        if segment.is_draining:
            self._drain_lost += 1
            self._drain_judged += 1

    def on_spurious(self) -> None:
        """One that was held for lost has come after all."""
        self._lost -= 1
        self._judged -= 1

    def on_silence(self) -> None:
        """Nothing is acknowledged any more: begin with little when it is again (RFC 6298, 5; RFC 5681, 3.1)."""
        self._bound = self._least
        self._lost = self._judged = 0
        self._rescale()

    def on_ack(self, newest: Segment | None, trip: float, came_at: float, now: float) -> None:
        """An acknowledgement has been taken in: of `newest`, if that was sent last of all that are known to have come.

        It took `min_rtt` and came at `came_at` by the receiver's clock.
        """
        if newest is not None:
            self._note_rtt(newest, trip, came_at, now)
            self._note_rate(newest, trip, came_at)
        self._advance(now)
        self._rescale()

    # -- what is measured ------------------------------------------------------------------------------------------

    def _note_rtt(self, newest: Segment, trip: float, came_at: float, now: float) -> None:
        if not self.min_rtt or trip <= self.min_rtt:
            self.min_rtt, self._trip_at = trip, now
        if not self._round_trip or trip < self._round_trip:
            self._round_trip = trip
        self._round_trips += 1
        if trip <= CROWDED * self.min_rtt + JITTER:
            self._start_window += self.delivered - self._counted
        self._counted = self.delivered
        if self.state == SQUEEZING:
            self._squeezed_trip = min(trip, self._squeezed_trip or trip)
        one_way = came_at - newest.sent_at
        ways = self._ways
        if not ways or now - self._ways_at > MEMORY:
            self._ways_at = now
            ways.append(one_way)
        elif one_way < ways[-1]:
            ways[-1] = one_way
        back = max(trip - self.min_rtt - (one_way - min(ways)), 0.0)
        self._back += (back - self._back) / 8

    def _note_rate(self, newest: Segment, trip: float, came_at: float) -> None:
        took = trip if newest.came_at == NEVER else came_at - newest.came_at
        took = max(took, newest.sent_at - newest.first_at)
        self._first_at = newest.sent_at
        self._came_at = came_at
        if came_at - self._marks[1][1] >= SPAN:
            self._marks = self._marks[1], (self.delivered, came_at, newest.sent_at)
        if newest.delivered >= self._round_end:
            self._round_end = self.delivered
            self._round += 1
            self._end_round(newest.is_app_limited)
        if took < self.min_rtt or took <= 0:
            return  # too little to tell from
        rate = (self.delivered - newest.delivered) / took
        if newest.is_app_limited and rate <= self.rate:
            return
        rates = self._rates
        while rates and rates[-1][1] <= rate:
            rates.pop()
        rates.append((self._round, rate))
        while rates[0][0] < self._round - ROUNDS:
            rates.popleft()
        self.rate = rates[0][1]

    def _end_round(self, is_scarce: bool) -> None:
        is_excess = self._judged >= SAMPLE / 2 and self._lost > self._judged * EXCESS
        if self._bound and not is_excess:
            self._bound += self._bound // 2
            if self._bound > self._target:
                self._bound = 0
        if self._judged >= SAMPLE:
            if is_excess:
                self._bound = max(self._least, self.window * 7 // 10)
                self._full_count += FULL_ROUNDS
            self._lost = self._judged = 0
        if self._drain_judged > 4 * SAMPLE:
            self._drain_judged /= 2
            self._drain_lost /= 2
        is_crowded = self._round_trips >= ENOUGH and self._round_trip > CROWDED * self.min_rtt + JITTER
        self._round_trip, self._round_trips = 0.0, 0
        if self.state != STARTING or is_scarce:
            return
        if is_crowded:
            self._full_count += FULL_ROUNDS
        elif self.rate >= self._full_rate * GROWTH:
            self._full_rate, self._full_count = self.rate, 0
        else:
            self._full_count += 1
        if self._full_count >= FULL_ROUNDS:
            self.state = DRAINING

    @property
    def loss(self) -> float:
        """The part of the packets that is lost and not for our sending so many; at most MAX_FLOOR."""
        if self._drain_judged < SAMPLE / 2:
            return 0.0
        return min(max(self._drain_lost / self._drain_judged, 0.0), MAX_FLOOR)

    # -- what follows from it --------------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        path = self.rate * self.min_rtt
        if self.state == DRAINING and self.in_flight <= path + self._least:
            self.state, self._phase_at = CRUISING, now
        elif self.state == CRUISING:
            if self._round > self._phase_round and now - self._phase_at > self.min_rtt:
                # What the first phase has found is known at the end of the second.
                has_grown = self._phase == 1 and self.rate > self._phase_rate * GREW
                self._phase = 0 if has_grown else (self._phase + 1) % len(CYCLE)
                self._phase_at, self._phase_round = now, self._round
                if self._phase == 0:
                    self._phase_rate = self.rate
            if now - self._trip_at > MEMORY:
                self.state = SQUEEZING
                self._squeezed_trip = self._squeeze_end = 0.0
        elif self.state == SQUEEZING:
            if not self._squeeze_end and self.in_flight <= self.window + self._least:
                self._squeeze_end = now + max(SQUEEZE, self.min_rtt)
            elif self._squeeze_end and now > self._squeeze_end:
                self.min_rtt, self._trip_at = self._squeezed_trip or self.min_rtt, now
                self.state, self._phase, self._phase_at = CRUISING, 2, now

    @property
    def _least(self) -> int:
        return MIN_PACKETS * (self.segment + DATA_OVERHEAD)

    @property
    def _target(self) -> int:
        """The window that the path is worth."""
        if not self.rate:
            return self.window
        rate = self.rate / (1 - self.loss)
        if self.state == SQUEEZING:
            return max(self._least // 2, int(rate * self.min_rtt / 2))
        # Three packets, and what timers make come at once: without them a path without delay would have no window.
        few = 3 * (self.segment + DATA_OVERHEAD) + min(3 * QUANTUM * self.rate, MAX_BUNCH)
        least = self._start_window if self.state == STARTING else self._least
        return max(least, int(rate * (HEADROOM * self.min_rtt + self._back) + few))

    def _rescale(self) -> None:
        if not self.rate:
            return
        rate = self.rate
        least = MIN_SEGMENT
        if self.state == STARTING:
            gain, least = START, FIRST_SEGMENT
            rate = max(rate, min(self._start_window, self._bound or self._start_window) / self.min_rtt)
        elif self.state == DRAINING:
            gain = 1 / START
        else:
            gain = CYCLE[self._phase] if self.state == CRUISING else 1.0
        self.segment = min(self._most, max(least, int(self.rate * PACKET_TIME)))
        target = self._target
        self.window = min(target, self._bound or target)
        # Draining is not made faster for the sake of what is lost: it finds out what that is.
        spare = 1.0 if gain < 1 else 1 - self.loss
        self._interval = spare / (gain * rate)

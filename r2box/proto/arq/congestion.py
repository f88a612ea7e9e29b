"""Congestion control that random loss does not starve: BBR with a correction for loss.

Loss-based TCP takes every loss for a full queue.  At 1 % loss and 50 ms it ends at some 300 kB/s on any path (Mathis et
al., "The Macroscopic Behavior of the TCP Congestion Avoidance Algorithm", 1997).  BBR (Cardwell et al., "BBR:
Congestion-Based Congestion Control", ACM Queue 14(5), 2016) measures the delivery rate and the round trip without a
queue, and sends at that rate.  The model:

    rate     bytes delivered between the transmission of a packet and its ACK, by the longer of the intervals in which
             they were sent and in which they arrived (draft-cheng-iccrg-delivery-rate-estimation, but by the receiver's
             clock, since ACKs may be queued behind its data and arrive in bunches); the maximum of the last
             `RATE_ROUNDS` round trips.  A sample while the application limits the rate counts only if it is higher.  A
             sample begins `SPAN` before the transmission: on a short path, packets arrive in scheduling bursts, whose
             rate the path does not sustain.
    min_rtt  the shortest round trip of the last `MIN_RTT_WINDOW` seconds.  If none as short was seen for that time, the
             bytes in flight are halved for a moment, so that it can be measured.
    ack_delay  the queueing delay of ACKs behind the neighbour's data: the round trip less `min_rtt`, and less the
             queueing delay of the data.  The latter is the one-way delay less the minimum one; the offset of the clocks
             cancels out.
    window   limit of the bytes in flight: rate * (`HEADROOM` * min_rtt + ack_delay) and a few packets

The states are BBR's:

    STARTUP    the pacing rate is `STARTUP_GAIN` times the delivery rate, until that no longer grows, or all packets of
               a round trip have met a queue (as in HyStart++, RFC 9406).  The window also grows by all that is
               acknowledged without a queue, as TCP's in slow start: with losses among few packets, the first rates are
               too low.
    DRAIN      the queue that STARTUP built up is drained
    PROBE_BW   for one round trip a quarter faster, to probe for a higher rate; one a quarter slower, to drain the queue
               of the probe; six at the rate, unless it has grown
    PROBE_RTT  half of the bytes in flight, to measure `min_rtt`

Loss as such is no congestion signal.  It has two effects:

    compensation  Of the packets sent at `rate`, a part 1 - loss is delivered; from a fifth of loss on, the measured
             rate would fall round by round.  So the pacing rate is multiplied by 1 / (1 - loss).  That must not defend
             a rate that causes the loss; so only packets sent while draining count, when the path has no queue to drop
             them from.
    excessive loss  When more than `EXCESS` of the packets are lost, for any reason, the window is cut by three tenths
             each round trip until they are not, and then grows by half each round trip.

Sizes are bytes on the wire, times are seconds; both come from the caller.
"""

from __future__ import annotations

from collections import deque

from .packet import DATA_OVERHEAD

STARTUP_GAIN = 2.77  # 4 ln 2: the least factor that doubles the rate in each round trip
CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
HEADROOM = 2.0  # for ACKs that are late or bunched
RATE_ROUNDS = 10
MIN_RTT_WINDOW = 10.0  # seconds
PROBE_RTT_TIME = 0.1  # seconds, or a round trip: duration of PROBE_RTT
GROWTH = 1.25  # factor; a rate that grows less in `FULL_ROUNDS` round trips is that of the path
FULL_ROUNDS = 3
GROWN = 1.1  # factor over the rate at the start of a cycle, from which the next probe begins at once
QUEUE_FACTOR = 1.5  # a round trip longer than this factor of the shortest,
QUEUE_JITTER = 0.002  # plus this time in seconds, has met a queue
MIN_SAMPLES = 8  # round trips that must have met one: fewer may be late by chance

MAX_COMPENSATION = 0.25  # of the packets: the maximum loss that is compensated
EXCESS = 0.3  # of the packets: excessive loss, a fifth plus the deviation in a sample of
SAMPLE = 50  # packets

QUANTUM = 0.001  # seconds by which packets may be early: the timer's resolution
SPAN = 0.005  # seconds: minimum length of a rate sample, several timer steps and turns of an event loop
MAX_BUNCH = 48 * 1200  # bytes: a UDP socket of Linux holds some 90 packets by default
CATCH_UP = 0.01  # seconds of sending that a late wakeup may make up for
FIRST_SEGMENT = 512  # bytes of stream in a packet while the rate is unknown
MIN_SEGMENT = 256  # bytes: a tenth is headers
PACKET_TIME = 0.04  # seconds for which a packet may occupy a slow line: urgent data may be behind it
FIRST_PACKETS = 4  # initial window: does not flood a slow line
MIN_PACKETS = 4  # in flight: two for an ACK, and two meanwhile

NEVER = float("-inf")

STARTUP, DRAIN, PROBE_BW, PROBE_RTT = range(4)


class Segment:
    """A piece of the stream, which is retransmitted unchanged, with the state at its last transmission."""

    __slots__ = (
        "arrived_at", "data", "delivered", "end", "first_at", "is_acked", "is_app_limited", "is_draining",
        "is_in_flight", "offset", "sent_at", "size", "tx",
    )  # fmt: skip

    def __init__(self, offset: int, data: bytes) -> None:
        self.offset = offset
        self.data = data
        self.end = offset + len(data)
        self.size = len(data) + DATA_OVERHEAD
        self.is_acked = False
        self.is_in_flight = False  # it is in flight
        self.tx = -1  # number of its last transmission
        self.sent_at = 0.0
        self.delivered = 0  # `CongestionControl.delivered` a SPAN before
        self.arrived_at = 0.0  # arrival of the packet acknowledged last then, by the receiver's clock,
        self.first_at = 0.0  # and its transmission
        self.is_app_limited = False  # there was less data than the window admitted
        self.is_draining = False  # sent below the rate of the path


class CongestionControl:
    """Model and pacing of one direction of a path."""

    def __init__(self, identity: int, mtu: int) -> None:
        self.in_flight = 0  # bytes
        self.delivered = 0  # bytes acknowledged in total
        self.rate = 0.0  # bytes a second; 0 while unknown
        self.min_rtt = 0.0  # the shortest recent round trip; 0 while unknown
        self.segment = min(FIRST_SEGMENT, mtu - DATA_OVERHEAD)  # bytes of stream for the next packet
        self.window = FIRST_PACKETS * (self.segment + DATA_OVERHEAD)
        self.next_at = 0.0  # when the next packet is due
        self.state = STARTUP
        self._most = mtu - DATA_OVERHEAD
        self._start_window = self.window  # minimum while in STARTUP
        self._counted = 0  # the part of `delivered` that it includes
        self._interval = 0.0  # seconds between bytes
        self._arrived_at = NEVER  # arrival of the newest acknowledged packet, by the receiver's clock,
        self._first_at = 0.0  # and its transmission
        mark = (0, NEVER, 0.0)
        self._marks = mark, mark  # (delivered, _came_at, _first_at) SPAN ago or more, and later
        self._app_limited_until = -1  # value of `delivered` up to which samples are application-limited
        self._round = 0
        self._round_end = 0
        self._rates: deque[tuple[int, float]] = deque()  # (round, rate): a monotonic queue, the maximum first
        self._full_rate = 0.0  # the maximum of STARTUP
        self._full_count = 0  # rounds without growth
        self._phase = 2 + identity % 6  # of CYCLE; random, so that connections on one path do not probe together
        self._phase_at = 0.0
        self._phase_round = 0
        self._phase_rate = 0.0  # at the start of the cycle
        self._min_rtt_at = 0.0  # when `min_rtt` was measured
        self._one_way_delays: deque[float] = deque(maxlen=2)  # minima plus a constant: earlier, and recent
        self._one_way_at = 0.0
        self._ack_delay = 0.0  # seconds
        self._round_rtt = 0.0  # the shortest of this round,
        self._round_samples = 0  # of this number
        self._probed_rtt = 0.0  # the shortest in PROBE_RTT
        self._probe_rtt_end = 0.0
        self._lost = self._judged = 0  # packets of this sample: lost; lost or acknowledged
        self._drain_lost = self._drain_judged = 0.0  # the same while draining; decays
        self._bound = 0  # of the window, after excessive loss; 0: none

    # -- events ----------------------------------------------------------------------------------------------------

    def on_sent(self, segment: Segment, now: float) -> None:
        """`segment` is sent."""
        if not self.in_flight and now - self._first_at > SPAN:
            # After idle time: as if a packet sent a round trip ago had just been acknowledged.
            self._arrived_at += now - self._first_at - max(self.min_rtt, SPAN)
            self._first_at = now
            self._marks = (self.delivered, self._arrived_at, now), (self.delivered, self._arrived_at, now)
        size = segment.size
        segment.sent_at = now
        segment.delivered, segment.arrived_at, segment.first_at = self._marks[0]
        segment.is_app_limited = self._app_limited_until > self.delivered
        segment.is_draining = self.state == DRAIN or (self.state == PROBE_BW and self._phase == 1)
        segment.is_in_flight = True
        self.in_flight += size
        self.next_at = max(self.next_at, now - CATCH_UP) + size * self._interval

    def on_app_limited(self) -> None:
        """The window admits more data than the application provides."""
        self._app_limited_until = self.delivered + max(self.in_flight, 1)

    def on_delivered(self, segment: Segment) -> None:
        """`segment` is acknowledged; `on_ack` follows behind all segments of one ACK."""
        self.delivered += segment.size
        self._judged += 1
        if segment.is_draining:
            self._drain_judged += 1
        if segment.is_in_flight:
            segment.is_in_flight = False
            self.in_flight -= segment.size

    def on_lost(self, segment: Segment) -> None:
        """`segment` is marked as lost."""
        segment.is_in_flight = False
        self.in_flight -= segment.size
        self._lost += 1
        self._judged += 1
        if segment.is_draining:
            self._drain_lost += 1
            self._drain_judged += 1

    def on_spurious(self) -> None:
        """A segment that was marked as lost has arrived."""
        self._lost -= 1
        self._judged -= 1

    def on_silence(self) -> None:
        """Retransmission timeout: restart with the minimum window (RFC 6298, 5; RFC 5681, 3.1)."""
        self._bound = self._least
        self._lost = self._judged = 0
        self._rescale()

    def on_ack(self, newest: Segment | None, rtt: float, arrived_at: float, now: float) -> None:
        """An ACK was processed; it acknowledges `newest`, unless that is older than what was acknowledged before.

        `newest` had the round trip `rtt` and arrived at `arrived_at` by the receiver's clock.
        """
        if newest is not None:
            self._update_rtt(newest, rtt, arrived_at, now)
            self._update_rate(newest, rtt, arrived_at)
        self._advance(now)
        self._rescale()

    # -- measurements ------------------------------------------------------------------------------------------------

    def _update_rtt(self, newest: Segment, rtt: float, arrived_at: float, now: float) -> None:
        if not self.min_rtt or rtt <= self.min_rtt:
            self.min_rtt, self._min_rtt_at = rtt, now
        if not self._round_rtt or rtt < self._round_rtt:
            self._round_rtt = rtt
        self._round_samples += 1
        if rtt <= QUEUE_FACTOR * self.min_rtt + QUEUE_JITTER:
            self._start_window += self.delivered - self._counted
        self._counted = self.delivered
        if self.state == PROBE_RTT:
            self._probed_rtt = min(rtt, self._probed_rtt or rtt)
        one_way = arrived_at - newest.sent_at
        delays = self._one_way_delays
        if not delays or now - self._one_way_at > MIN_RTT_WINDOW:
            self._one_way_at = now
            delays.append(one_way)
        elif one_way < delays[-1]:
            delays[-1] = one_way
        ack_delay = max(rtt - self.min_rtt - (one_way - min(delays)), 0.0)
        self._ack_delay += (ack_delay - self._ack_delay) / 8

    def _update_rate(self, newest: Segment, rtt: float, arrived_at: float) -> None:
        took = rtt if newest.arrived_at == NEVER else arrived_at - newest.arrived_at
        took = max(took, newest.sent_at - newest.first_at)
        self._first_at = newest.sent_at
        self._arrived_at = arrived_at
        if arrived_at - self._marks[1][1] >= SPAN:
            self._marks = self._marks[1], (self.delivered, arrived_at, newest.sent_at)
        if newest.delivered >= self._round_end:
            self._round_end = self.delivered
            self._round += 1
            self._end_round(newest.is_app_limited)
        if took < self.min_rtt or took <= 0:
            return  # too short to be significant
        rate = (self.delivered - newest.delivered) / took
        if newest.is_app_limited and rate <= self.rate:
            return
        rates = self._rates
        while rates and rates[-1][1] <= rate:
            rates.pop()
        rates.append((self._round, rate))
        while rates[0][0] < self._round - RATE_ROUNDS:
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
        has_queue = self._round_samples >= MIN_SAMPLES and self._round_rtt > QUEUE_FACTOR * self.min_rtt + QUEUE_JITTER
        self._round_rtt, self._round_samples = 0.0, 0
        if self.state != STARTUP or is_scarce:
            return
        if has_queue:
            self._full_count += FULL_ROUNDS
        elif self.rate >= self._full_rate * GROWTH:
            self._full_rate, self._full_count = self.rate, 0
        else:
            self._full_count += 1
        if self._full_count >= FULL_ROUNDS:
            self.state = DRAIN

    @property
    def loss(self) -> float:
        """The part of the packets that is lost without congestion; at most MAX_FLOOR."""
        if self._drain_judged < SAMPLE / 2:
            return 0.0
        return min(max(self._drain_lost / self._drain_judged, 0.0), MAX_COMPENSATION)

    # -- control -----------------------------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        path = self.rate * self.min_rtt
        if self.state == DRAIN and self.in_flight <= path + self._least:
            self.state, self._phase_at = PROBE_BW, now
        elif self.state == PROBE_BW:
            if self._round > self._phase_round and now - self._phase_at > self.min_rtt:
                # The result of the first phase is known at the end of the second.
                has_grown = self._phase == 1 and self.rate > self._phase_rate * GROWN
                self._phase = 0 if has_grown else (self._phase + 1) % len(CYCLE)
                self._phase_at, self._phase_round = now, self._round
                if self._phase == 0:
                    self._phase_rate = self.rate
            if now - self._min_rtt_at > MIN_RTT_WINDOW:
                self.state = PROBE_RTT
                self._probed_rtt = self._probe_rtt_end = 0.0
        elif self.state == PROBE_RTT:
            if not self._probe_rtt_end and self.in_flight <= self.window + self._least:
                self._probe_rtt_end = now + max(PROBE_RTT_TIME, self.min_rtt)
            elif self._probe_rtt_end and now > self._probe_rtt_end:
                self.min_rtt, self._min_rtt_at = self._probed_rtt or self.min_rtt, now
                self.state, self._phase, self._phase_at = PROBE_BW, 2, now

    @property
    def _least(self) -> int:
        return MIN_PACKETS * (self.segment + DATA_OVERHEAD)

    @property
    def _target(self) -> int:
        """The window for the measured path."""
        if not self.rate:
            return self.window
        rate = self.rate / (1 - self.loss)
        if self.state == PROBE_RTT:
            return max(self._least // 2, int(rate * self.min_rtt / 2))
        # Three packets and a timer burst: otherwise a path without delay would have no window.
        few = 3 * (self.segment + DATA_OVERHEAD) + min(3 * QUANTUM * self.rate, MAX_BUNCH)
        least = self._start_window if self.state == STARTUP else self._least
        return max(least, int(rate * (HEADROOM * self.min_rtt + self._ack_delay) + few))

    def _rescale(self) -> None:
        if not self.rate:
            return
        rate = self.rate
        least = MIN_SEGMENT
        if self.state == STARTUP:
            gain, least = STARTUP_GAIN, FIRST_SEGMENT
            rate = max(rate, min(self._start_window, self._bound or self._start_window) / self.min_rtt)
        elif self.state == DRAIN:
            gain = 1 / STARTUP_GAIN
        else:
            gain = CYCLE[self._phase] if self.state == PROBE_BW else 1.0
        self.segment = min(self._most, max(least, int(self.rate * PACKET_TIME)))
        target = self._target
        self.window = min(target, self._bound or target)
        # No compensation while draining, which measures the loss.
        spare = 1.0 if gain < 1 else 1 - self.loss
        self._interval = spare / (gain * rate)

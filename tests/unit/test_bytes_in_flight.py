"""How many bytes are on their way: that a path is filled and hardly more, whatever it is and becomes.

A Path has a rate, a round trip and a buffer without bound.  A Sender sends whatever the Flight has room for, and a mark
when it is told to.  All on a virtual clock.
"""

from __future__ import annotations

import copy
import heapq
import itertools
import math
from bisect import bisect_right
from random import Random
from statistics import median
from typing import Callable

import pytest

from r2box.proto.link.inflight import INITIAL_LIMIT, MAX_MARKS, MIN_LIMIT, InFlightLimit
from r2box.proto.link.scheduler import ALONE

MARK = 19  # bytes of a PING
HELLO = 60  # and about those of a hello
KEEPALIVE = 15.0  # seconds without an answer after which a link asks
FOREVER = math.inf

SLOW = (2.5e6, 0.04)  # 20 Mbit/s: bytes a second, and seconds of the round trip
SERIAL = (11520, 0.02)  # 115200 baud


class Path:
    """One way of a path, and the way of the answers."""

    def __init__(self, rate: float, trip: float, *, noise: float = 0.0, seed: int = 0) -> None:
        self.free_at = 0.0  # when all that was sent has left the buffer
        self._stretches = [(0.0, float(rate), trip)]
        self._noise = noise  # seconds that an answer may be late
        self._random = Random(seed)
        self._answered_at = 0.0

    def change(self, at: float, rate: float, trip: float) -> Path:
        """From then on it is another."""
        self._stretches.append((at, float(rate), trip))
        return self

    def _stretch(self, now: float) -> int:
        return bisect_right(self._stretches, (now, FOREVER, 0.0)) - 1

    def carry(self, size: float, now: float) -> tuple[float, float]:
        """When the first and the last of `size` bytes leave the buffer."""
        begin = at = max(now, self.free_at)
        index = self._stretch(at)
        for end, _, _ in self._stretches[index + 1 :]:
            fits = (end - at) * self._stretches[index][1]
            if size <= fits:
                break
            size, at, index = size - fits, end, index + 1
        self.free_at = at + size / self._stretches[index][1]
        return begin, self.free_at

    def answer(self, left_at: float) -> float:
        """When the answer is there to what left the buffer then.  Answers do not overtake each other."""
        trip = self._stretches[self._stretch(left_at)][2]
        self._answered_at = max(self._answered_at, left_at + trip + self._noise * self._random.random())
        return self._answered_at


class Sender:
    """What a Link does with a Flight: sends all that there is and room for, at most `chunk` at once, and marks."""

    def __init__(
        self, path: Path, *, chunk: int = ALONE, greets: bool = True, loses: Callable[[int], bool] = lambda id: False
    ) -> None:
        self.path = path
        self.chunk = chunk
        self.loses = loses  # a mark's answer
        self.in_flight = InFlightLimit()
        self.now = 0.0
        self.backlog = 0.0  # bytes that wait for room
        self.marks = 0
        self._heard_at = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._log: list[tuple[float, float, float, bool]] = []  # when sent, began and ended to leave; whether data
        if greets:  # the nodes say hello, and one asks for an answer
            self.write(HELLO)
            self.mark()
            self.run(path.answer(path.free_at))

    def later(self, at: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at, next(self._serial), what))

    def write(self, size: float) -> None:
        self.backlog += size
        self._pump()

    def _pump(self) -> None:
        while self.backlog > 0:
            size = int(max(0, min(self.in_flight.room, self.chunk, self.backlog)))
            if size:
                self.backlog -= size
                self._send(size, True)
                self.in_flight.on_sent(size, self.now, not self.backlog)
            if self.in_flight.wants_mark:
                self.mark()
            elif not size:
                break

    def mark(self) -> None:
        id = self.in_flight.mark(self.now)
        self.marks += 1
        at = self.path.answer(self._send(MARK, False))
        if not self.loses(id):
            self.later(at, lambda: self._answered(id))

    def _send(self, size: int, is_data: bool) -> float:
        begin, end = self.path.carry(size, self.now)
        self._log.append((self.now, begin, end, is_data))
        return end

    def _answered(self, id: int) -> None:
        self._heard_at = self.now
        self.in_flight.on_mark(id, self.now)
        self._pump()

    def run(self, until: float, *, asks: bool = False) -> Sender:
        """Let time pass; `asks`: as a link does after a long silence."""
        while True:
            event = self._events[0][0] if self._events else FOREVER
            ask = self._heard_at + KEEPALIVE if asks else FOREVER
            if min(event, ask) > until:
                self.now = until
                return self
            if event <= ask:
                self.now, _, what = heapq.heappop(self._events)
                what()
            else:
                self.now = self._heard_at = ask
                self.mark()

    def bulk(self, until: float) -> Sender:
        """All the room is used."""
        self.write(FOREVER)
        return self.run(until)

    def queues(self, begin: float, end: float, count: int = 1000) -> list[float]:
        """How long keystrokes waited for what was sent before them."""
        sent = [at for at, _, _, _ in self._log]
        times = (begin + (end - begin) * (number + 0.5) / count for number in range(count))
        return [max(0.0, self._log[bisect_right(sent, at) - 1][2] - at) for at in times]

    def fill(self, begin: float, end: float) -> float:
        """The share of that time in which data passed."""
        log = ((max(first, begin), min(last, end)) for _, first, last, is_data in self._log if is_data)
        return sum(last - first for first, last in log if last > first) / (end - begin)


# A link writes up to ALONE bytes at once for one stream, and less for several; some links begin without a mark.
everyhow = pytest.mark.parametrize(("chunk", "greets"), [(ALONE, True), (ALONE, False), (1 << 14, True)])


# -- paths that stay as they are ---------------------------------------------------------------------------------------


@everyhow
def test_a_slow_path_is_full_and_a_keystroke_passes(chunk: int, greets: bool) -> None:
    sender = Sender(Path(*SLOW), chunk=chunk, greets=greets).bulk(30)
    assert sender.fill(1, 30) >= 0.95
    assert median(sender.queues(1, 30)) < 0.06


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("chunk", [ALONE, ALONE // 4])
def test_a_long_fat_path_is_filled_soon(chunk: int, greets: bool) -> None:
    sender = Sender(Path(125e6, 0.05), chunk=chunk, greets=greets).bulk(4)
    assert sender.fill(2, 4) >= 0.9
    assert median(sender.queues(2, 4)) < 0.05


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("chunk", [ALONE, 1 << 16])
def test_a_very_fast_path_is_full(chunk: int, greets: bool) -> None:
    sender = Sender(Path(2e9, 0.0001), chunk=chunk, greets=greets).bulk(0.3)
    assert sender.fill(0.1, 0.3) >= 0.9


@everyhow
def test_a_very_slow_path_is_full_and_a_keystroke_passes(chunk: int, greets: bool) -> None:
    sender = Sender(Path(*SERIAL), chunk=chunk, greets=greets).bulk(200)
    assert sender.fill(0, 200) >= 0.95
    assert max(sender.queues(0, 60)) < 1.5 * INITIAL_LIMIT / SERIAL[0]  # what was sent before anything was measured
    assert max(sender.queues(60, 200)) < 1


@everyhow
@pytest.mark.parametrize("trip", [0.04, 0.2])
def test_the_round_trip_is_measured_anew_and_the_queue_does_not_grow(trip: float, chunk: int, greets: bool) -> None:
    sender = Sender(Path(SLOW[0], trip), chunk=chunk, greets=greets).bulk(130)
    for begin in range(10, 130, 20):
        assert sender.fill(begin, begin + 20) >= 0.8
        assert median(sender.queues(begin, begin + 20)) < 0.02 + trip
    assert trip * 0.999 < sender.in_flight.min_rtt < trip * 1.4


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("rate", "trip"), [(125e6, 0.001), (500e6, 0.0002), (2e9, 0.0001)])
def test_late_answers_do_not_slow_it_down(rate: float, trip: float, seed: int) -> None:
    """Nobody is served at once by a busy machine.  A fixed bound of INITIAL_LIMIT would cope, so we must."""
    noise = 0.005
    sender = Sender(Path(rate, trip, noise=noise, seed=seed)).bulk(0.6)
    assert sender.fill(0.3, 0.6) >= min(0.7, INITIAL_LIMIT / (trip + noise / 2) / rate)


def test_marks_cost_little() -> None:
    sender = Sender(Path(*SLOW)).bulk(30)
    assert sender.marks * MARK < 0.005 * 30 * SLOW[0]


# -- paths that change -------------------------------------------------------------------------------------------------

# When in ten seconds it happens matters: between two measurements, or in the middle of one.
WHEN = [9.9, 10.0, 14.0]


@pytest.mark.parametrize("at", WHEN)
@everyhow
def test_the_path_becomes_slower(chunk: int, greets: bool, at: float) -> None:
    path = Path(*SLOW).change(at, SLOW[0] / 10, SLOW[1])
    sender = Sender(path, chunk=chunk, greets=greets).bulk(at + 40)
    assert max(sender.queues(at, at + 40)) < 5
    assert median(sender.queues(at + 20, at + 40)) < 0.1
    assert sender.fill(at, at + 40) >= 0.9


@pytest.mark.parametrize("at", WHEN)
@everyhow
def test_the_path_becomes_longer(chunk: int, greets: bool, at: float) -> None:
    path = Path(*SLOW).change(at, SLOW[0], 0.15)
    sender = Sender(path, chunk=chunk, greets=greets).bulk(at + 50)
    assert sender.fill(at, at + 30) >= 0.5  # meanwhile it is slower, and does not come to a standstill
    assert sender.fill(at + 30, at + 50) >= 0.8
    assert median(sender.queues(at + 30, at + 50)) < 0.15


@pytest.mark.parametrize("at", WHEN)
@everyhow
def test_the_path_becomes_faster(chunk: int, greets: bool, at: float) -> None:
    path = Path(*SLOW).change(at, SLOW[0] * 5, SLOW[1])
    sender = Sender(path, chunk=chunk, greets=greets).bulk(at + 6)
    assert sender.fill(at + 3, at + 6) >= 0.9


# -- little to send ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [SLOW, SERIAL, (125e6, 0.05), (2e9, 0.0001)])
def test_little_to_send_says_nothing_of_the_path(path: tuple[float, float]) -> None:
    random = Random(1)
    sender = Sender(Path(*path))
    while sender.now < 100:
        sender.write(random.randint(1, 300))
        sender.run(sender.now + random.uniform(0.1, 2), asks=True)
        assert sender.in_flight.limit >= INITIAL_LIMIT


def test_silence_says_nothing_of_the_path() -> None:
    sender = Sender(Path(*SLOW))
    for _ in range(20):
        sender.run(sender.now + 30, asks=True)
        assert sender.in_flight.limit >= INITIAL_LIMIT


def test_it_never_waits_for_nothing() -> None:
    """Whoever has sent a little, or much, and has waited may send again: something is on its way, or there is room."""
    for seed in range(30):
        random = Random(seed)
        path = Path(10 ** random.uniform(4, 6), 10 ** random.uniform(-4, -0.7))
        sender = Sender(path, greets=random.random() < 0.5)
        for _ in range(60):
            sender.write(int(10 ** random.uniform(0, 5.3)))
            sender.run(sender.now + 10 ** random.uniform(-3, 1))
        sender.run(sender.now + 5000)
        assert not sender.backlog, f"seed {seed}: {sender.in_flight.room} bytes of room, and nothing on its way"


# -- marks -------------------------------------------------------------------------------------------------------------


def test_first_of_all_there_is_room() -> None:
    flight = InFlightLimit()
    assert MIN_LIMIT < flight.room <= flight.limit == INITIAL_LIMIT
    assert flight.rtt == flight.min_rtt == 0


def test_answers_that_nobody_waits_for() -> None:
    sender = Sender(Path(*SLOW)).bulk(5)
    flight = sender.in_flight
    for id in (0, 1, sender.marks + 1, sender.marks + 1000, 2**64 - 1, int.from_bytes(b"\xff" * 100, "big")):
        before = flight.room, flight.limit, flight.rtt, flight.min_rtt
        flight.on_mark(id, sender.now)
        assert (flight.room, flight.limit, flight.rtt, flight.min_rtt) == before
    assert sender.run(10).fill(5, 10) >= 0.95


def test_an_answer_counts_once() -> None:
    flight = InFlightLimit()
    flight.on_sent(1000, 0.0, True)
    first, second = flight.mark(0.0), flight.mark(0.0)
    flight.on_mark(second, 1.0)
    room = flight.room
    for id in (first, second):
        flight.on_mark(id, 2.0)
    assert (flight.rtt, flight.room) == (1.0, room)


def test_marks_without_an_answer_are_forgotten() -> None:
    flight = InFlightLimit()
    ids = []
    for number in range(3 * MAX_MARKS):
        flight.on_sent(1, float(number), False)
        ids.append(flight.mark(float(number)))
    known = []
    for id in ids:
        other = copy.deepcopy(flight)
        other.on_mark(id, 1e6)
        if other.rtt:
            known.append(id)
    assert known == ids[-MAX_MARKS:]


@pytest.mark.parametrize("seed", range(2))
def test_some_marks_get_no_answer(seed: int) -> None:
    random = Random(seed)
    sender = Sender(Path(*SLOW), loses=lambda id: id > 1 and random.random() < 0.2)
    sender.write(FOREVER)
    sender.run(100, asks=True)
    before = sender.in_flight.sent
    sender.loses = lambda id: False
    sender.run(160, asks=True)
    assert before > 10 * INITIAL_LIMIT
    assert sender.fill(130, 160) >= 0.95


def test_for_a_time_no_mark_gets_an_answer() -> None:
    sender = Sender(Path(*SLOW), loses=lambda id: 50 <= id < 70)
    sender.write(FOREVER)
    sender.run(400, asks=True)  # a question in each silence
    assert sender.marks > 70
    assert sender.fill(370, 400) >= 0.95


@pytest.mark.parametrize("seed", range(30))
def test_what_must_always_hold(seed: int) -> None:
    """Room and what is on its way never exceed the limit, whoever sends what and whatever is answered; and whoever
    waits for no answer has room."""
    random = Random(seed)
    flight = InFlightLimit()
    pause = 10 ** random.uniform(-5, 0)
    now = 0.0
    waiting: list[tuple[int, int]] = []  # marks: the number, and the bytes before it
    acked = most = 0

    def check() -> None:
        known = acked if waiting else flight.sent  # what was not worth a mark counts as arrived
        assert flight.limit >= MIN_LIMIT
        assert flight.room + flight.sent - known <= flight.limit
        assert flight.room > 0 or waiting or flight.wants_mark, "it waits for nothing"

    for _ in range(1000):
        now += random.expovariate(1 / pause)
        if flight.room > 0 and random.random() < 0.6:
            size = min(flight.room, int(10 ** random.uniform(0, 6)))
            if not waiting:
                acked = flight.sent
            flight.on_sent(size, now, random.random() < 0.2)
            if flight.wants_mark or random.random() < 0.01:
                waiting.append((flight.mark(now), flight.sent))
            assert flight.sent - acked <= max(flight.limit, most)
        elif flight.wants_mark:
            waiting.append((flight.mark(now), flight.sent))
        elif waiting:
            index = random.randrange(len(waiting)) if random.random() < 0.1 else 0
            id, acked = waiting[index]
            del waiting[: index + 1]
            flight.on_mark(id, now)
        else:
            flight.on_mark(random.randrange(1 << 64), now)
        most = flight.limit
        check()

"""Two carriers, a path between them that does what paths do, and a virtual clock.

`make sim ARGS=carriers` runs the long matrix and prints what came of it.  Nothing here reads a clock but for the
section that measures how fast the code itself is.
"""

from __future__ import annotations

import heapq
import itertools
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from random import Random
from zlib import crc32

from r2box.proto.arq.connection import ArqConnection
from r2box.proto.arq.packet import MTU

TICK = 0.001  # seconds: what an event loop's timers are good for
PATTERN = 1_000_003  # bytes, after which what is sent repeats: no power of two, and no multiple of a packet
MIB = 1 << 20

# What the long matrix is about.
FAULTS = {"reorder": 0.25, "duplicate": 0.05, "corrupt": 0.01}
LOSSES = (0.0, 0.01, 0.02, 0.05, 0.10, 0.20)


class Way:
    """One direction of a path.

    `rate` in bytes a second and `buffer` in bytes make the queue at its beginning, with the tail dropped; `delay`, and
    up to `jitter` on top, in seconds.  Of the packets the part `loss` is lost, `duplicate` comes twice, in `corrupt` a
    bit is changed, and `reorder` comes up to `late` seconds later.  With `stream` it is a serial line: bytes, in slices
    of any size, in which `noise` bursts a second change up to `burst` bytes, or insert or remove some.
    """

    def __init__(
        self, *, rate: float = math.inf, buffer: float = math.inf, delay: float = 0.0, jitter: float = 0.0,
        loss: float = 0.0, duplicate: float = 0.0, corrupt: float = 0.0, reorder: float = 0.0, late: float = 0.02,
        stream: bool = False, noise: float = 0.0, burst: int = 20,
    ) -> None:  # fmt: skip
        self.rate, self.buffer, self.delay, self.jitter = rate, buffer, delay, jitter
        self.loss, self.duplicate, self.corrupt, self.reorder, self.late = loss, duplicate, corrupt, reorder, late
        self.stream, self.noise, self.burst = stream, noise, burst
        self.is_silent = False  # nothing gets through
        self.free_at = 0.0
        self.bytes = 0  # that went in
        self.dropped = 0  # packets for which the queue had no room
        self._last_at = 0.0

    def carry(self, packet: bytes, now: float, random: Random) -> list[tuple[float, bytes]]:
        """When the packet arrives, and as what."""
        self.bytes += len(packet)
        begin = max(now, self.free_at)
        if (begin - now) * self.rate > self.buffer:
            self.dropped += 1
            return []
        self.free_at = begin + len(packet) / self.rate
        if self.stream:
            return self._carry_stream(packet, begin, random)
        if self.is_silent or (self.loss and random.random() < self.loss):
            return []
        arrivals = []
        for _ in range(2 if self.duplicate and random.random() < self.duplicate else 1):
            at = self.free_at + self.delay + (self.jitter and self.jitter * random.random())
            if self.reorder and random.random() < self.reorder:
                at += self.late * random.random()
            elif self.jitter:
                at = self._last_at = max(at, self._last_at)
            arrivals.append((at, self._damage(packet, random) if random.random() < self.corrupt else packet))
        return arrivals

    @staticmethod
    def _damage(packet: bytes, random: Random) -> bytes:
        damaged = bytearray(packet)
        damaged[random.randrange(len(damaged))] ^= 1 << random.randrange(8)
        return bytes(damaged)

    def _carry_stream(self, packet: bytes, begin: float, random: Random) -> list[tuple[float, bytes]]:
        if self.is_silent:
            return []
        arrivals = []
        at = 0
        while at < len(packet):
            piece = packet[at : at + random.randint(1, 64)]
            at += len(piece)
            if random.random() < self.noise * len(piece) / self.rate:
                junk = random.getrandbits(8 * self.burst).to_bytes(self.burst, "big")[: random.randint(0, self.burst)]
                cut = random.randint(0, len(piece))
                piece = piece[:cut] + junk + piece[cut + random.randint(0, self.burst) :]
            arrivals.append((begin + at / self.rate + self.delay, piece))
        return arrivals


class Side:
    """A carrier with `total` bytes to send, and what came to it."""

    def __init__(self, sim: Sim, carrier: ArqConnection, way: Way, total: int, salt: int, begins: float) -> None:
        self.sim = sim
        self.arq = carrier
        self.way = way  # out
        self.total = total
        self.begins = begins
        self.skew = -37.0 * salt  # seconds that its clock is ahead of the other's
        self.given = 0  # bytes taken by the carrier
        self.came = 0
        self.came_at = 0.0  # when the last did
        self.wakes_at = 0.0
        self.most_held = 0
        self.most_unacked = 0
        self.peer: Side = self
        block = Random(salt).getrandbits(8 * PATTERN).to_bytes(PATTERN, "big")
        self._pattern = memoryview(block + block)
        self.stamps: list[tuple[int, float]] = []  # (offset given, when): for the time that bytes take
        self.waits: list[float] = []
        self.probe_at = 0.0

    @property
    def now(self) -> float:
        """By its own clock."""
        return self.sim.now + self.skew

    def piece(self, offset: int, size: int) -> memoryview:
        """What stands at `offset` of what is sent."""
        begin = offset % PATTERN
        return self._pattern[begin : begin + min(size, PATTERN)]

    def receive(self, data: bytes) -> None:
        self.take(self.arq.receive(data, self.now))
        self.pump()

    def take(self, buffers: list[bytes | bytearray | memoryview]) -> None:
        peer = self.peer
        for buffer in buffers:
            assert buffer == peer.piece(self.came, len(buffer)), f"other bytes at {self.came}"
            self.came += len(buffer)
        if buffers:
            self.came_at = self.sim.now
            while peer.stamps and peer.stamps[0][0] <= self.came:
                peer.waits.append(self.sim.now - peer.stamps.pop(0)[1])

    def pump(self) -> None:
        """What the owner of a carrier does whenever something has happened."""
        carrier, sim = self.arq, self.sim
        if sim.now >= self.begins:
            while True:
                room = min(carrier.room, self.total - self.given) if self.given < self.total else 0
                if room > 0:
                    size = min(room, 1 << 18)
                    carrier.send([self.piece(self.given, size)], self.now)
                    self.given += size
                    if sim.now >= self.probe_at:
                        self.probe_at = sim.now + 0.1
                        self.stamps.append((self.given, sim.now))
                packets = carrier.produce(self.now)
                for packet in packets:
                    assert len(packet) <= carrier.mtu
                    sim.transmit(self, packet)
                if not packets:
                    break
        self.most_unacked = max(self.most_unacked, carrier.unacked)
        at = carrier.deadline() if sim.now >= self.begins else self.begins + self.skew
        if at:
            at -= self.skew
            at = sim.now + max(math.ceil((at - sim.now) / TICK - 1e-6), 1) * TICK
            if self.wakes_at <= sim.now or at < self.wakes_at:
                self.wakes_at = at
                sim.at(at, self.wake)

    def wake(self) -> None:
        if self.sim.now >= self.wakes_at:
            self.wakes_at = 0.0
            self.pump()


class Sim:
    """Two sides, the clock and the order of events.  `totals` are the bytes from the first and from the second."""

    def __init__(
        self, there: Way, back: Way, totals: tuple[int, int] = (0, 0), seed: int = 0, mtu: int = MTU,
        begins: tuple[float, float] = (0.0, 0.0),
    ) -> None:  # fmt: skip
        self.random = Random(seed)
        self.now = 100.0
        self.trace = 0  # a checksum over all that was sent, and when
        self.sides: list[Side] = []
        for way, total, begin in zip((there, back), totals, begins):
            identity = self.random.getrandbits(32) or 1
            carrier = ArqConnection(identity, self.now - 37.0 * len(self.sides), mtu)
            self.sides.append(Side(self, carrier, way, total, len(self.sides), self.now + begin))
        self.sides[0].peer, self.sides[1].peer = self.sides[1], self.sides[0]
        self._events: list[tuple[float, int, Callable[..., None], tuple[bytes, ...]]] = []
        self._serial = itertools.count()
        for side in self.sides:
            self.at(self.now, side.pump)

    def at(self, when: float, what: Callable[..., None], *arguments: bytes) -> None:
        heapq.heappush(self._events, (when, next(self._serial), what, arguments))

    def transmit(self, side: Side, packet: bytes) -> None:
        for when, data in side.way.carry(packet, self.now, self.random):
            self.at(when, side.peer.receive, data)
            self.trace = crc32(f"{when:.9f} {crc32(data)}".encode(), self.trace)

    @property
    def is_done(self) -> bool:
        return all(side.came == side.peer.total for side in self.sides)

    def run(self, seconds: float = math.inf, until: Callable[[], bool] | None = None) -> float:
        """Until everything has arrived, or for so long; the seconds that it took."""
        begin, end = self.now, self.now + seconds
        until = until or (lambda: self.is_done)
        while not until():
            if not self._events or self._events[0][0] > end:
                self.now = max(end, self.now) if end < math.inf else self.now
                break
            self.now, _, what, arguments = heapq.heappop(self._events)
            what(*arguments)
            for side in self.sides:
                assert not side.arq.fault, side.arq.fault
        return self.now - begin


def path(rate: float, rtt: float, *, buffer: float | None = None, **faults: float) -> tuple[Way, Way]:
    """Both ways of a path; its buffer holds a round trip unless told otherwise."""
    size = max(rate * rtt, 20 * MTU) if buffer is None else buffer
    there = Way(rate=rate, delay=rtt / 2, buffer=size, **faults)  # type: ignore[arg-type]
    back = Way(rate=rate, delay=rtt / 2, buffer=size, **faults)  # type: ignore[arg-type]
    return there, back


def transfer(ways: tuple[Way, Way], totals: tuple[int, int], seed: int = 0, limit: float = 1e5) -> tuple[float, Sim]:
    """Run a whole transfer: (goodput of the first side in bytes a second, the simulation)."""
    sim = Sim(*ways, totals=totals, seed=seed)
    sim.run(limit)
    assert sim.is_done, f"{[side.came for side in sim.sides]} of {totals[::-1]} came in {limit} s"
    return totals[0] / max(sim.sides[1].came_at - 100.0, 1e-9), sim


# -- the long matrix ---------------------------------------------------------------------------------------------------


def run_one(job: tuple[float, int, int, float, float]) -> tuple[float, float, float, str]:
    """One transfer of the matrix: (loss, goodput, part of the packets that was sent again, what went wrong)."""
    loss, seed, size, rate, rtt = job
    try:
        goodput, sim = transfer(path(rate, rtt, loss=loss, **FAULTS), (size, size // 16), seed)
    except AssertionError as error:
        return loss, 0.0, 0.0, f"loss {loss}, seed {seed}: {error}"
    statistics = sim.sides[0].arq.statistics
    return loss, goodput, statistics["resent"] / statistics["sent"], ""


def matrix(size: int, seeds: int, rate: float, rtt: float, jobs: int) -> bool:
    """Transfers under every loss, with the other faults, under each seed; print a table.  Whether all came through."""
    faults = ", ".join(f"{name} {part:.0%}" for name, part in FAULTS.items())
    print(f"{size / MIB:.0f} MiB, {seeds} seeds, {rate / 1e6:g} MB/s, {rtt * 1e3:g} ms, {faults}")
    print("  loss   goodput/path   Mathis/path   sent again", flush=True)
    is_right = True
    with multiprocessing.Pool(jobs) as pool:
        for loss in LOSSES:
            work = [(loss, seed, size, rate, rtt) for seed in range(seeds)]
            results = list(pool.imap_unordered(run_one, work))
            for result in results:
                if result[3]:
                    print(result[3], file=sys.stderr)
                    is_right = False
            good = [goodput / rate for _, goodput, _, wrong in results if not wrong] or [0.0]
            again = sum(result[2] for result in results) / len(results)
            mathis = MTU / rtt * 1.22 / math.sqrt(loss) / rate if loss else math.inf
            print(f"{loss:6.0%}   {min(good):.2f} to {max(good):.2f}   {mathis:11.3f}   {again:10.1%}", flush=True)
    return is_right


def measure(size: int) -> None:
    """How fast the code is: `size` bytes from one carrier to another with nothing between them."""
    ends = [ArqConnection(1, 0.0), ArqConnection(2, 0.0)]
    spent = [0.0, 0.0]
    block = memoryview(bytes(1 << 18))
    now, given, came, begin = 0.0, 0, 0, time.process_time()
    while came < size:
        mark = time.perf_counter()
        room = min(ends[0].room, size - given, len(block))
        if room > 0:
            ends[0].send([block[:room]], now)
            given += room
        packets = ends[0].produce(now)
        spent[0] += time.perf_counter() - mark
        mark = time.perf_counter()
        for packet in packets:
            came += sum(map(len, ends[1].receive(packet, now + 2e-4)))
        answers = ends[1].produce(now + 2e-4)
        spent[1] += time.perf_counter() - mark
        mark = time.perf_counter()
        for packet in answers:
            ends[0].receive(packet, now + 4e-4)
        spent[0] += time.perf_counter() - mark
        now += 5e-4
    sent = ends[0].statistics["sent"]
    print(
        f"{size / 1e6 / (time.process_time() - begin):.0f} MB/s of CPU for both sides; "
        f"a packet takes {spent[0] / sent * 1e6:.1f} us to send, {spent[1] / sent * 1e6:.1f} us to receive"
    )

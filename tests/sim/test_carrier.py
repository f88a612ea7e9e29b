"""The carrier over paths that lose, swap, repeat and change packets, over serial lines, and at its beginning and end.

Everything runs in `sim.carriers.Sim`, which compares each byte that comes with what was sent.  `make sim` runs much
more of the same.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from random import Random
from statistics import mean

import pytest

from r2box.proto.arq import packet, receiver
from r2box.proto.arq.connection import ALONE, ArqConnection
from r2box.proto.arq.packet import MAX_MTU, MIN_MTU, MTU, PacketEncoder, decode_opening
from sim.carriers import FAULTS, LOSSES, MIB, Side, Sim, Way, path, transfer

BAUD = 11520  # bytes a second of a line of 115200
RTT = 0.05


def serial(noise: float = 0.0) -> tuple[Way, Way]:
    there, back = (Way(rate=BAUD, delay=0.002, stream=True, noise=noise) for _ in range(2))
    return there, back


def efforts(side: Side) -> float:
    """The part of its packets that was sent more than once."""
    statistics = side.arq.statistics
    return statistics["resent"] / statistics["sent"]


def reached(sim: Sim, total: int) -> bool:
    return sim.sides[1].came >= total


# -- nothing is lost, and nothing is slow ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_sent_comes(loss: float, seed: int) -> None:
    _, sim = transfer(path(5e6, 0.01, loss=loss, **FAULTS), (MIB, MIB // 2), seed)
    sim.run(5, until=lambda: False)
    for side in sim.sides:
        assert side.arq.unacked == 0
        assert side.arq._out.congestion.min_rtt > 0.0099, "a round trip that nothing has made"


@pytest.mark.parametrize("seed", range(25))
def test_any_path(seed: int) -> None:
    """Of any rate and length, with any faults, other ones each way, and gone at times."""
    random = Random(seed)
    ways = []
    for _ in range(2):
        rate = 10 ** random.uniform(3.5, 7.5)
        loss, duplicate, corrupt, reorder = (random.choice([0, random.random() * 0.3]) for _ in range(4))
        delay, jitter, late = (random.choice([0, 10 ** random.uniform(-4, -0.5)]) for _ in range(3))
        buffer = random.uniform(3, 200) * MTU
        way = Way(rate=rate, buffer=buffer, delay=delay, jitter=jitter, late=late, stream=random.random() < 0.2)
        way.loss, way.duplicate, way.corrupt, way.reorder = loss, duplicate, corrupt, reorder
        ways.append(way)
    totals = random.randint(1, 200_000), random.randint(0, 100_000)
    sim = Sim(ways[0], ways[1], totals, seed, random.randint(200, MTU))
    for _ in range(3):
        sim.run(random.random())
        for way in ways:
            way.is_silent = random.random() < 0.5
    for way in ways:
        way.is_silent = False
    sim.run(600)
    assert sim.is_done, f"{[side.came for side in sim.sides]} of {[side.total for side in sim.sides]}"


@pytest.mark.parametrize("mtu", [MIN_MTU, 100, 576, MAX_MTU])
def test_every_mtu(mtu: int) -> None:
    sim = Sim(*path(1e6, 0.01, loss=0.05, **FAULTS), totals=(100_000, 50_000), mtu=mtu)
    sim.run(300)
    assert sim.is_done


@pytest.mark.parametrize("loss", [0.01, 0.02, 0.05, 0.1])
def test_goodput_beside_reno(loss: float) -> None:
    """Five times what Reno would have, where the path has so much; and most of the path."""
    rate = 10e6
    mathis = MTU / RTT * 1.22 / math.sqrt(loss)
    goodput, sim = transfer(path(rate, RTT, loss=loss), (24 * MIB, 0), 1)
    assert goodput > min(5 * mathis, 0.6 * rate)
    assert goodput > 0.6 * rate
    assert efforts(sim.sides[0]) < loss + 0.08


@pytest.mark.parametrize(("rate", "rtt"), [(1e6, 0.05), (1e6, 0.3), (3e7, 0.001), (1e5, 0.1)])
@pytest.mark.parametrize("loss", [0.0, 0.01])
def test_other_paths_are_filled_too(rate: float, rtt: float, loss: float) -> None:
    goodput, _ = transfer(path(rate, rtt, loss=loss), (min(int(rate * 12), 64 * MIB), 0), 1)
    assert goodput > 0.75 * rate


def test_a_fifth_of_loss_works() -> None:
    goodput, _ = transfer(path(1e6, RTT, loss=0.2, **FAULTS), (4 * MIB, 0), 1)
    assert goodput > 0.5e6


def test_packets_that_overtake_each_other_are_not_sent_twice() -> None:
    _, sim = transfer(path(1e6, RTT, reorder=0.25, late=0.03), (4 * MIB, 0), 1)
    assert efforts(sim.sides[0]) - sim.sides[0].way.dropped / sim.sides[0].arq.statistics["sent"] < 0.03


@pytest.mark.parametrize("buffer", [10 * MTU, 1 << 30])
def test_the_queue_of_a_path(buffer: float) -> None:
    """Hardly anything is dropped by a small one, and a large one does not become a delay."""
    goodput, sim = transfer(path(1e6, RTT, buffer=buffer), (8 * MIB, 0), 1)
    side = sim.sides[0]
    assert goodput > 0.8e6
    assert side.way.dropped < 0.06 * side.arq.statistics["sent"]
    assert mean(side.waits) < 0.25


def test_two_on_one_path_share_it() -> None:
    """Both ways of the same queue: what one has, the other has not."""
    sims = [Sim(*path(1e6, RTT), totals=(8 * MIB, 0), seed=seed) for seed in (1, 2)]
    sims[1].sides[0].way = sims[0].sides[0].way
    while sims[0].now < 108.0:  # in steps that are small beside a packet's time
        for sim in sims:
            sim.run(0.0005)
    shares = [sim.sides[1].came for sim in sims]
    assert sum(shares) > 0.8 * 8e6
    assert min(shares) > 0.25 * sum(shares)


class Reno:
    """TCP of the usual kind (RFC 5681, 6582), as far as it matters: the window is halved for one loss in a flight."""

    def __init__(self, sim: Sim, way: Way, rtt: float) -> None:
        self.sim, self.way, self.rtt = sim, way, rtt
        self.window, self.threshold = 10.0, math.inf
        self.sent = self.came = 0
        self.in_flight = 0
        self.recover = 0  # a loss before this one is part of the last
        sim.at(sim.now, self.pump)

    def pump(self) -> None:
        while self.in_flight < int(self.window):
            self.in_flight += 1
            self.sent += 1
            number = self.sent.to_bytes(8, "big")
            arrivals = self.way.carry(number + bytes(MTU - 8), self.sim.now, self.sim.random)
            if arrivals:
                self.sim.at(arrivals[0][0] + self.rtt / 2, self.acked)
            else:  # found out by those behind it
                self.sim.at(max(self.way.free_at, self.sim.now) + self.rtt, self.lost, number)

    def acked(self) -> None:
        self.in_flight -= 1
        self.came += MTU
        self.window += 1 if self.window < self.threshold else 1 / self.window
        self.pump()

    def lost(self, number: bytes) -> None:
        self.in_flight -= 1
        if int.from_bytes(number, "big") > self.recover:
            self.recover = self.sent
            self.threshold = self.window = max(self.window / 2, 2.0)
        self.pump()


@pytest.mark.parametrize("buffer", [0.5, 1.0, 2.0])
def test_beside_tcp(buffer: float) -> None:
    """Neither starves, with a buffer of so many round trips."""
    rate = 2e6
    ways = path(rate, RTT, buffer=buffer * rate * RTT)
    sim = Sim(*ways, totals=(1 << 30, 0), seed=1)
    reno = Reno(sim, ways[0], RTT)
    sim.run(20, until=lambda: False)
    ours, theirs = sim.sides[1].came / (20 * rate), reno.came / (20 * rate)
    assert ours + theirs > 0.85
    assert ours > 0.25
    assert theirs > 0.08


# -- a serial line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("noise", "least", "wait"), [(0.0, 0.92, 0.25), (0.2, 0.90, 0.3), (1.0, 0.85, 0.5)])
def test_a_serial_line(noise: float, least: float, wait: float) -> None:
    """`wait` is the mean time through the carrier while it is full; what a burst has hit holds up all behind it."""
    goodput, sim = transfer(serial(noise), (300_000, 0), 3)
    assert goodput > least * BAUD
    assert mean(sim.sides[0].waits) < wait


def test_a_serial_line_both_ways() -> None:
    goodput, sim = transfer(serial(0.1), (300_000, 300_000), 3)
    assert goodput > 0.85 * BAUD
    assert mean(sim.sides[0].waits) < 0.35


# -- the beginning -----------------------------------------------------------------------------------------------------


def test_greetings_through_much_loss() -> None:
    took = []
    for seed in range(50):
        ways = [Way(delay=RTT / 2, loss=0.3) for _ in range(2)]
        sim = Sim(ways[0], ways[1], (300, 300), seed)
        took.append(sim.run(60))
        assert sim.is_done
    assert max(took) < 10
    assert mean(took) < 1


def test_the_first_packet_opens_and_later_ones_do_not() -> None:
    a, b = ArqConnection(1, 0.0), ArqConnection(2, 0.0)
    a.send([b"hello"], 0.0)
    [first] = a.produce(0.0)
    assert decode_opening(first) == (1, b"")
    assert b.receive(first, 0.1) == [b"hello"]
    assert (b.peer, a.peer) == (1, 0)
    b.send([b"you"], 0.1)
    answer = b"".join(b.produce(0.1 + receiver.MAX_DELAY))
    assert decode_opening(answer) is None
    assert a.receive(answer, 0.2) == [b"you"]
    assert a.unacked == 0
    a.send([b"more"], 0.2)
    assert not any(map(decode_opening, a.produce(0.3)))


def test_a_cookie_is_shown_at_once_and_until_the_neighbour_is_known() -> None:
    a, b, listener = ArqConnection(1, 0.0), ArqConnection(2, 0.0), PacketEncoder(0, 1)
    a.send([b"hello"], 0.0)
    a.produce(0.0)
    for forged in (PacketEncoder(0, 3).cookie(b"no"), PacketEncoder(7, 1).cookie(b"no"), listener.cookie(bytes(17))):
        assert a.receive(forged, 0.01) == []
        assert (a.produce(0.01), a.peer) == ([], 0)
    a.receive(listener.cookie(b"cake"), 0.05)
    [again] = a.produce(0.05)
    assert decode_opening(again) == (1, b"cake")
    a.receive(listener.cookie(b"cake"), 0.06)
    assert a.produce(0.06) == [], "the same cookie once more is no reason"
    assert b.receive(again, 0.1) == [b"hello"]
    a.receive(b"".join(b.produce(0.1 + receiver.MAX_DELAY)), 0.2)
    a.send([b"more"], 0.2)
    assert not any(map(decode_opening, a.produce(0.3)))
    a.receive(listener.cookie(b"late"), 0.4)
    a.send([b"more"], 0.4)
    assert not any(map(decode_opening, a.produce(0.4)))
    assert a.fault == ""


def test_a_cookie_that_does_not_fit_goes_before_the_opening() -> None:
    a = ArqConnection(1, 0.0, MIN_MTU)
    a.send([bytes(100)], 0.0)
    a.produce(0.0)
    a.receive(PacketEncoder(0, 1).cookie(bytes(16)), 0.05)
    out = a.produce(0.05)
    assert decode_opening(out[0]) == (1, bytes(16))
    assert max(map(len, out)) <= MIN_MTU


def test_what_waits_for_a_hole_is_limited() -> None:
    a = ArqConnection(1, 0.0)
    a.limit(10_000)
    ends = PacketEncoder(2, 1)
    for number in range(1, 1000):
        a.receive(ends.data(number, number * 1000, bytes(1000)), 0.1)
    assert 9_000 <= a.held <= 10_000
    a.close()
    assert a.held == 0
    assert a.receive(ends.data(0, 0, bytes(1000)), 0.2) == []


def test_an_opening_is_repeated() -> None:
    carrier, now, times = ArqConnection(1, 0.0), 0.0, []
    carrier.send([b"hello"], now)
    while now < 8:
        if carrier.produce(now):
            times.append(now)
        now = carrier.deadline()
        assert now > (times[-1] if times else 0)
    gaps = [b - a for a, b in zip(times, times[1:])]
    assert gaps[0] == pytest.approx(0.3)
    assert gaps[-1] == pytest.approx(2.0)
    assert gaps == sorted(gaps)


@pytest.mark.parametrize("late", [0.5, 5.0])
def test_one_side_begins_later(late: float) -> None:
    ways = [Way(delay=RTT / 2, loss=0.1) for _ in range(2)]
    sim = Sim(ways[0], ways[1], (3000, 3000), 1, begins=(0.0, late))
    assert sim.run(60) < late + 3
    assert sim.is_done


def test_junk_and_echoes_before_the_beginning() -> None:
    a, b = ArqConnection(1, 0.0), ArqConnection(2, 0.0)
    a.send([b"hello"], 0.0)
    [first] = a.produce(0.0)
    assert b.receive(b"login: \r\n" + Random(1).randbytes(100), 0.0) == []
    assert a.receive(first, 0.0) == []
    assert a.peer == 0
    assert b.receive(b"$ " + first, 0.1) == [b"hello"]


def test_a_neighbour_that_began_anew() -> None:
    a, b, anew = ArqConnection(1, 0.0), ArqConnection(2, 0.0), ArqConnection(3, 0.0)
    a.send([b"hello"], 0.0)
    b.receive(a.produce(0.0)[0], 0.0)
    anew.send([b"hello"], 0.0)
    [opening] = anew.produce(0.0)
    faults = []
    for now in (ALONE - 0.1, ALONE + 0.1):
        assert b.receive(opening, now) == []
        faults.append(b.fault)
    assert faults == ["", "the neighbour restarted"]
    assert (b.room, b.produce(9.0), b.deadline(), b.receive(opening, 9.0)) == (0, [], 0.0, [])


def test_packets_of_an_earlier_life() -> None:
    """They are for an identity that is no more."""
    b = ArqConnection(2, 0.0)
    old = PacketEncoder(1)
    old.receiver = 99
    assert b.receive(old.data(0, 0, b"old"), 0.0) == []
    assert (b.peer, b.statistics["stale"]) == (0, 1)


@pytest.mark.parametrize(("identity", "mtu"), [(0, MTU), (1 << 32, MTU), (1, MIN_MTU - 1), (1, MAX_MTU + 1)])
def test_what_a_carrier_cannot_be_made_of(identity: int, mtu: int) -> None:
    with pytest.raises(ValueError):
        ArqConnection(identity, 0.0, mtu)


# -- in the middle -----------------------------------------------------------------------------------------------------


def test_silence_and_back() -> None:
    """After a path was gone for a while, it is used again soon, and fully."""
    sim = Sim(*path(1e6, RTT), totals=(12 * MIB, 1000), seed=1)
    sim.run(3)
    for side in sim.sides:
        side.way.is_silent = True
    sent = sim.sides[0].way.bytes
    sim.run(20)
    assert sim.sides[0].way.bytes - sent < 300_000, "much was sent into nothing"
    for side in sim.sides:
        side.way.is_silent = False
    came = sim.sides[1].came
    sim.run(8)
    assert sim.sides[1].came - came > 3e6
    sim.run()
    assert sim.is_done


def test_nothing_to_do_is_nothing_to_wait_for() -> None:
    _, sim = transfer(path(1e6, RTT, loss=0.1), (100_000, 100_000), 1)
    sim.run(20, until=lambda: False)
    for side in sim.sides:
        assert side.arq.unacked == 0
        assert side.arq.deadline() == 0
        assert side.arq.produce(side.now) == []
        assert side.arq._out._by_tx.keys() <= side.arq._out._marked_lost.keys()


def test_a_keystroke_takes_one_trip() -> None:
    sim = Sim(*path(1e6, RTT), totals=(200_000, 100), seed=1)
    sim.run()
    sim.run(30, until=lambda: False)
    side = sim.sides[0]
    for count in range(1, 10):
        side.total = side.given + 1
        begin = sim.now
        side.pump()
        sim.run(1, until=lambda: False)
        assert side.peer.came_at - begin < RTT / 2 + 0.002, f"keystroke {count}"


def test_memory_is_bounded() -> None:
    """The first packet never comes, and a sender without manners sends all the others."""
    carrier, sender = ArqConnection(1, 0.0), PacketEncoder(2)
    for tx in range(1, 6000):
        assert carrier.receive(sender.data(tx, 1000 * tx, bytes(1000)), 0.0) == []
    assert carrier.statistics["held"] <= receiver.WINDOW
    small = ArqConnection(1, 0.0)
    for tx in range(1, 3 * receiver.MAX_PIECES, 2):
        small.receive(sender.data(tx, tx, b"x"), 0.0)
    assert small.statistics["held"] <= receiver.MAX_PIECES
    assert carrier.room < 1 << 20
    assert all(len(answer) <= MTU for answer in carrier.produce(0.1) + small.produce(0.1))


def test_only_what_was_accepted_is_acknowledged() -> None:
    carrier, sender = ArqConnection(1, 0.0), PacketEncoder(2)
    carrier.receive(sender.data(0, 0, b"x"), 0.0)
    carrier.receive(sender.data(1, receiver.WINDOW + 1, b"beyond"), 0.0)
    [answer] = carrier.produce(1.0)
    [(_, _, _, body)] = packet.PacketScanner().feed(answer)
    tx, _, _, _, offset, bits = packet.decode_ack(body)
    assert (tx, offset, bits) == (0, 1, 0)


def test_what_is_kept_is_a_copy() -> None:
    carrier, sender = ArqConnection(1, 0.0), PacketEncoder(2)
    data = bytearray(sender.data(1, 5, b"world"))
    assert carrier.receive(data, 0.0) == []
    data[:] = bytes(len(data))
    assert b"".join(map(bytes, carrier.receive(sender.data(0, 0, b"hello"), 0.0))) == b"helloworld"
    memory = bytearray(b"mine")
    carrier.send([memory], 0.0)
    memory[:] = b"gone"
    assert b"mine" in b"".join(carrier.produce(0.0))


def test_other_pieces_than_before() -> None:
    """We do not send such, but what another does is put together all the same."""
    carrier, sender = ArqConnection(1, 0.0), PacketEncoder(2)
    got = []
    for tx, (begin, end) in enumerate([(0, 3), (5, 8), (1, 5), (2, 9), (8, 12)]):
        got += [bytes(b) for b in carrier.receive(sender.data(tx, begin, b"0123456789ab"[begin:end]), 0.0)]
    assert b"".join(got) == b"0123456789ab"


@pytest.mark.parametrize(("tx", "offset"), [(5, 0), (0, 6)])
def test_an_answer_to_what_was_not_sent(tx: int, offset: int) -> None:
    carrier, other = ArqConnection(1, 0.0), PacketEncoder(2)
    other.receiver = 1
    carrier.send([b"hello"], 0.0)
    carrier.produce(0.0)
    carrier.receive(other.ack(tx, 0.0, 0.0, 1 << 20, offset, b""), 0.0)
    assert "not sent" in carrier.fault


@pytest.mark.parametrize("seed", range(10))
def test_valid_rubbish_raises_nothing(seed: int) -> None:
    random, carrier, other = Random(seed), ArqConnection(1, 0.0), PacketEncoder(2)
    other.receiver = 1
    for _ in range(300):
        now = random.random()
        carrier.send([random.randbytes(10)], 1.0)
        carrier.produce(1.0 + now)
        number = random.choice([0, 1, 2, 100, random.getrandbits(32)])
        if random.random() < 0.5:
            data = other.data(number, random.choice([0, 5, random.getrandbits(32)]), random.randbytes(9))
        else:
            offset = random.choice([0, 5, random.getrandbits(32)])
            data = other.ack(number, now, now, 1 << random.randint(0, 25), offset, random.randbytes(30))
        carrier.receive(data, 2.0)
        if carrier.fault:
            carrier = ArqConnection(1, 0.0)


TRACE = """
import json, sys
from sim.carriers import Sim, path, FAULTS
sim = Sim(*path(1e6, 0.02, loss=0.05, **FAULTS), totals=(200000, 100000), seed=7)
sim.run()
print(json.dumps([sim.trace, sim.now, sim.sides[0].arq.statistics]))
"""


def test_the_same_seed_gives_the_same_trace() -> None:
    here = Path(__file__).resolve().parents[1]
    from support.processes import PYTHONS

    environment = {"PYTHONPATH": f"{here}:{here.parent}", "PYTHONDONTWRITEBYTECODE": "1"}
    traces = set()
    for python in {sys.executable, *map(str, PYTHONS.values())}:
        done = subprocess.run([python, "-c", TRACE], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        traces.add(json.dumps(json.loads(done.stdout)))
    assert len(traces) == 1


def test_a_neighbour_that_has_gone_ends_the_stream_and_nobody_else_can() -> None:
    ours = ArqConnection(5, 0.0)
    theirs = ArqConnection(7, 0.0)
    theirs.send([b"x"], 0.0)
    for data in theirs.produce(0.0):
        ours.receive(data, 0.0)
    ours.receive(PacketEncoder(9, 5).reset(), 0.1)
    ours.receive(PacketEncoder(7, 6).reset(), 0.1)
    before = ours.fault
    ours.receive(PacketEncoder(7, 5).reset(), 0.1)
    assert before == ""
    assert ours.fault == "the neighbour no longer knows the connection"

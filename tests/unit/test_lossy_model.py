"""The bad network as arithmetic: what the rates promise, and that nothing else happens."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2box.tools.lossy.model import DELAYED, FOREVER, HOLD, PIECE, QUEUE, Cuts, Dice, Faults, Tally

COUNT = 20_000
SIGMAS = 4.0  # of a binomial distribution; the seed is fixed, so this passes or fails for good


def faults(seed: int = 1, **options: Any) -> Faults:
    return Faults(Dice(seed), **options)


def packet(number: int) -> bytes:
    return number.to_bytes(4, "big") * 5


def run(line: Faults, count: int = COUNT, gap: float = 0.001) -> list[tuple[float, bytes]]:
    """Offer `count` different datagrams, `gap` seconds apart: when what came out."""
    out = []
    for number in range(count):
        line.offer(packet(number), number * gap)
        out += [(number * gap, data) for data in line.due(number * gap)]
    return out + drain(line, count * gap)


def drain(line: Faults, now: float) -> list[tuple[float, bytes]]:
    out = []
    while line.deadline() < FOREVER:
        now = max(now, line.deadline())
        out += [(now, data) for data in line.due(now)]
    assert line.is_empty
    return out


def close_to(found: int, count: int, rate: float) -> bool:
    spread: float = (count * rate * (1 - rate)) ** 0.5
    return abs(found - count * rate) <= SIGMAS * spread


# -- the numbers -------------------------------------------------------------------------------------------------------


def test_the_generator_is_splitmix64() -> None:
    dice = Dice(1234567)
    assert [dice.number() for _ in range(5)] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


def test_forks_depend_on_the_seed_and_the_number_alone() -> None:
    dice = Dice(7)
    first = dice.fork(3).number()
    dice.number()
    assert dice.fork(3).number() == first
    assert len({Dice(seed).fork(number).number() for seed in range(50) for number in range(50)}) == 2500


def test_the_trace_of_a_seed_is_the_same_everywhere() -> None:
    """Under every Python and on every machine; a change here changes what users' seeds mean."""
    line = faults(42, loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.1, delay=0.5, jitter=0.25, rate=100_000)
    trace = repr([(round(when, 6), data) for when, data in run(line, 1000)])
    assert hashlib.sha256(trace.encode()).hexdigest()[:16] == "0592b0a64683b5aa"


# -- the faults --------------------------------------------------------------------------------------------------------


def test_without_faults_everything_comes_at_once_and_in_order() -> None:
    assert run(faults(), 100) == [(number * 0.001, packet(number)) for number in range(100)]
    assert faults().deadline() == FOREVER


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 1.0])
def test_loss(rate: float) -> None:
    line = faults(loss=rate)
    out = [data for _, data in run(line)]
    assert close_to(COUNT - len(out), COUNT, rate)
    assert (line.tally.lost, line.tally.passed) == (COUNT - len(out), len(out))
    assert out == sorted(out)


@pytest.mark.parametrize("rate", [0.01, 0.5, 1.0])
def test_duplication(rate: float) -> None:
    line = faults(duplicate=rate)
    times = Counter(data for _, data in run(line))
    assert set(times) == set(map(packet, range(COUNT)))
    assert set(times.values()) <= {1, 2}
    assert close_to(sum(times.values()) - COUNT, COUNT, rate)
    assert line.tally.duplicated == sum(times.values()) - COUNT


@pytest.mark.parametrize("rate", [0.01, 0.5, 1.0])
def test_corruption(rate: float) -> None:
    out = [data for _, data in run(faults(corrupt=rate))]
    changed = 0
    for number, data in enumerate(out):
        bits = bin(int.from_bytes(data, "big") ^ int.from_bytes(packet(number), "big")).count("1")
        assert bits <= 3
        assert len(data) == len(packet(number))
        changed += bits > 0
    assert close_to(changed, COUNT, rate)


@pytest.mark.parametrize("rate", [0.01, 0.2])
def test_reordering(rate: float) -> None:
    line = faults(reorder=rate)
    out = [data for _, data in run(line)]
    assert sorted(out) == list(map(packet, range(COUNT)))
    late = [place for place, data in enumerate(out) if place and data < max(out[max(0, place - 8) : place])]
    assert line.tally.reordered >= len(late) > 0
    assert close_to(line.tally.reordered, COUNT, rate)


def test_one_that_is_held_back_and_not_passed_comes_by_itself() -> None:
    line = faults(reorder=1.0)
    line.offer(b"alone", 5.0)
    assert line.due(5.0 + HOLD / 2) == []
    assert line.deadline() == pytest.approx(5.0 + HOLD)
    assert line.due(5.0 + HOLD) == [b"alone"]


def test_delay_and_jitter_keep_the_order() -> None:
    line = faults(delay=0.1, jitter=0.05)
    out = run(line, 1000)
    assert [data for _, data in out] == list(map(packet, range(1000)))
    late = [when - number * 0.001 for number, (when, _) in enumerate(out)]
    assert 0.1 <= min(late) <= max(late) <= 0.152
    assert max(late) > 0.14


@pytest.mark.parametrize("stream", [False, True])
def test_the_rate_is_met(stream: bool) -> None:
    line = faults(rate=10_000, stream=stream)
    line.offer(bytes(20_000), 0.0)
    line.offer(bytes(20_000), 0.0)
    out = drain(line, 0.0)
    assert sum(len(data) for _, data in out) == 40_000
    assert out[-1][0] == pytest.approx(4.0)
    if stream:
        for when, _ in out:  # evenly, and not in lumps
            assert sum(len(data) for time, data in out if time <= when) == pytest.approx(when * 10_000, abs=400)


def test_a_full_queue_drops_datagrams() -> None:
    line = faults(rate=1000, queue=5000)
    for _ in range(100):
        line.offer(bytes(1000), 0.0)
    assert len(drain(line, 0.0)) == 5
    assert line.tally.dropped == 95
    line = faults(rate=10, queue=1)
    line.offer(bytes(1000), 0.0)
    assert len(drain(line, 0.0)) == 1, "one always fits"


def test_a_full_queue_makes_the_writer_of_a_stream_wait() -> None:
    line = faults(rate=1000, queue=5000, stream=True)
    assert not line.is_full
    line.offer(bytes(6000), 0.0)
    assert line.is_full
    now, taken = 0.0, 0
    while line.is_full:
        now = line.deadline()
        taken += sum(map(len, line.due(now)))
    assert now == pytest.approx(1.0, abs=0.01)
    assert line.tally.dropped == 0


def test_slices() -> None:
    line = faults(slice=3, stream=True)
    line.offer(b"0123456789", 0.0)
    assert line.due(0.0) == [b"012", b"345", b"678", b"9"]
    assert line.is_empty


def test_a_stream_is_struck_in_pieces() -> None:
    line = faults(loss=0.3, stream=True)
    data = bytes(range(256)) * 1000
    line.offer(data, 0.0)
    out = line.due(0.0)
    assert {len(piece) for piece in out} <= {PIECE, len(data) % PIECE}
    assert line.tally.lost + len(out) == -(-len(data) // PIECE)
    assert 0 < line.tally.lost < 100


def test_turning_one_fault_on_does_not_move_another() -> None:
    alone = {data for _, data in run(faults(loss=0.1), 1000)}
    among = {data for _, data in run(faults(loss=0.1, duplicate=0.3, reorder=0.3, jitter=0.1), 1000)}
    assert alone == among


def test_empty_datagrams_are_datagrams() -> None:
    line = faults(rate=100, corrupt=1.0, duplicate=1.0)
    line.offer(b"", 0.0)
    assert [data for _, data in drain(line, 0.0)] == [b"", b""]


# -- bounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 60_000])
def test_memory_is_bounded(size: int) -> None:
    """However fast they come, and however long they are delayed."""
    line = faults(delay=1000.0, duplicate=1.0)
    for _ in range(2 * DELAYED // (size + 100)):
        line.offer(bytes(size), 0.0)
    out = drain(line, 0.0)
    assert line.tally.dropped > 0
    assert sum(len(data) + 100 for _, data in out) <= DELAYED + size + 100


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.sampled_from([0.0, 0.1, 0.5, 1.0]) for name in ("loss", "duplicate", "reorder")},
        "delay": st.sampled_from([0.0, 0.1]),
        "jitter": st.sampled_from([0.0, 0.1]),
        "rate": st.sampled_from([0.0, 50.0, 1e6]),
        "queue": st.sampled_from([1, 100, QUEUE]),
    },
)
OFFERS = st.lists(st.tuples(st.sampled_from([0.0, 0.001, 0.07]), st.booleans()), max_size=60)


@settings(max_examples=200)
@given(st.integers(0, 1 << 64), OPTIONS, OFFERS)
def test_nothing_is_invented_and_every_fate_is_counted(
    seed: int, options: dict[str, Any], offers: list[tuple[float, bool]]
) -> None:
    traces = []
    for _ in range(2):
        line, now, out = Faults(Dice(seed), Tally(), **options), 0.0, []
        for number, (gap, asks) in enumerate(offers):
            now += gap
            line.offer(packet(number), now)
            assert line.deadline() >= 0.0
            out += [(now, data) for data in line.due(now)] if asks else []
        out += drain(line, now)
        traces.append(out)
        times = Counter(data for _, data in out)
        assert set(times) <= set(map(packet, range(len(offers))))
        tally = line.tally
        assert sum(times.values()) == tally.passed + tally.duplicated
        assert tally.passed + tally.lost + tally.dropped == len(offers)
        assert [when for when, _ in out] == sorted(when for when, _ in out)
        if not options.get("reorder"):
            assert [data for _, data in out] == sorted(data for _, data in out)
    assert traces[0] == traces[1], "the same seed has given something else"


# -- cuts --------------------------------------------------------------------------------------------------------------


def test_cuts_come_at_the_mean_and_at_the_very_byte() -> None:
    cuts = Cuts(Dice(3), size=1000)
    found = []
    for _ in range(2000):
        total = 0
        while not cuts.is_cut:
            passed = cuts.passes(64)
            total += passed
            assert passed == 64 or cuts.is_cut
        assert 1 <= total <= 2000
        found.append(total)
        cuts.next()
    assert sum(found) / len(found) == pytest.approx(1000, rel=0.05)
    assert cuts.seconds == 0


def test_a_cut_spares_the_packet_that_it_falls_into() -> None:
    cuts = Cuts(Dice(3), size=10)
    assert cuts.passes(64, is_packet=True) == 64
    assert cuts.is_cut


def test_cuts_by_time_and_none() -> None:
    cuts = Cuts(Dice(3), seconds=10)
    times = []
    for _ in range(2000):
        times.append(cuts.seconds)
        cuts.next()
    assert 0 <= min(times) <= max(times) <= 20
    assert sum(times) / len(times) == pytest.approx(10, rel=0.05)
    never = Cuts(Dice(3))
    assert never.passes(1 << 40) == 1 << 40
    assert not never.is_cut
    assert never.seconds == 0

"""The same transfer again and again with one thing changed: what `plots` draws.

The fourth plot, of percentiles beside bulk, comes from what `rtt.beside_bulk` keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

from .bulk import BLOCK, MIB, RATE, Transfer
from .many import FIELDS, PEERS, missing, possible, shared_candidate
from .runs import Candidate, Metric
from .session import Session
from .ways import LARGE, R2, Socat, Way

HOPS = range(1, 9)
CHUNKS = [64 << shift for shift in range(0, 15, 2)]  # 64 bytes .. 1 MiB
WRITES = 200_000  # of a chunk size at most: small ones would take for ever
TUNNELS = (1, 10, 100, 1000, 10_000)


def compare_at(session: Session, title: str, ways: Sequence[Way], total: int, block: int, curve: str, at: int) -> None:
    """Compare `ways` and put their medians into the curves at that place."""
    candidates = []
    for way in ways:
        transfer = Transfer(way, total, block)
        transfer.offer()
        candidates.append(Candidate(way.name, transfer.run))
    (comparison,) = session.compare(title, [RATE], candidates)
    for legend, way in zip(LEGENDS, ways):
        session.mark(curve, legend, at, comparison.spread(way.name))


LEGENDS = ("r2box", "socat", f"socat {LARGE}")


def started(session: Session, ways: Sequence[Way]) -> list[Way]:
    return [way for way in ways if not session.ready(way, lambda: None)]


def hops(session: Session) -> None:
    """throughput over 1 to 8 links one behind the other"""
    total = session.amount(128 * MIB, MIB)
    for count in HOPS:
        with session.world() as world:
            ways = started(session, [R2(world, count), Socat(world, count), Socat(world, count, LARGE)])
            compare_at(session, f"{count} hops, {total // MIB} MiB", ways, total, BLOCK, "hops", count)


def chunks(session: Session) -> None:
    """throughput by the size of the writes of the source"""
    with session.world() as world:
        ways = started(session, [R2(world), Socat(world), Socat(world, options=LARGE)])
        for chunk in CHUNKS:
            total = max(MIB, min(session.amount(256 * MIB), session.amount(WRITES) * chunk))
            compare_at(session, f"writes of {chunk} bytes, {total // MIB} MiB", ways, total, chunk, "chunks", chunk)


def parallel(session: Session) -> None:
    """throughput of 1 to 10,000 tunnels on one link together"""
    seconds = session.seconds(4)
    metric = Metric("together", "MiB/s", more_is_better=True)
    most = possible(session.amount(TUNNELS[-1], 10))
    for count in TUNNELS:
        if count > most:
            session.progress.say(f"{session.group}: no more than {most}")
            break
        names = [name for name in FIELDS if count <= PEERS.get(name, count) and not missing(name)]
        candidates = [shared_candidate(session, name, count, seconds) for name in names]
        (comparison,) = session.compare(f"{count:,} tunnels", [metric], candidates)
        for name in names:
            session.mark("parallel", name, count, comparison.spread(name.replace("r2box", "r2")))

"""Bulk: how fast much data gets from a source to a sink.

Three places: over one TCP link; through a node in the middle; and between two programs of one machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .runs import Candidate, Metric, RunError, Target
from .session import Session
from .ways import LARGE, R2, Asyncssh, Pair, Pipes, Reticulum, Socat, Ssh, Tcp, Way

MIB = 1 << 20
BLOCK = 256 * 1024
PATIENCE = 120.0
RATE = Metric("throughput", "MiB/s", more_is_better=True)


class Transfer:
    """So many bytes from a source that is offered to a sink, in one way, as often as wanted."""

    def __init__(self, way: Way, total: int, block: int = BLOCK) -> None:
        self._way = way
        self._name = way.world.unique("source").name
        self._total = max(MIB, int(total * way.share))
        self._block = block

    def offer(self) -> None:
        world = self._way.world
        self._gate, self._result = str(world.unique("gate")), world.unique("result")
        world.run(["mkfifo", self._gate])
        self._way.offer(self._name, world.load("source", self._total, self._block, self._gate))
        self._sink = world.load("sink", self._total, self._result, self._gate)

    def run(self) -> Mapping[str, float]:
        return {RATE.name: self._total / MIB / self.seconds()}

    def seconds(self) -> float:
        world = self._way.world
        programs = self._way.join(self._name, self._sink)
        try:
            found = world.result(Path(self._result), programs, PATIENCE)
            if found["bytes"] != self._total:
                raise RunError(f"{found['bytes']} of {self._total} bytes have arrived")
            for program in programs:
                world.end(program, grace=5)
            seconds: float = found["seconds"]
            return seconds
        finally:
            for program in programs:
                world.end(program)


def transfers(session: Session, ways: Sequence[Way], total: int, block: int = BLOCK) -> list[Candidate]:
    """The same transfer in each of these ways."""
    loads = [(way, Transfer(way, total, block)) for way in ways]
    return [session.candidate(way, transfer.offer, transfer.run) for way, transfer in loads]


def measure_bulk(session: Session, title: str, ways: Sequence[Way], total: int, targets: Sequence[Target]) -> None:
    session.compare(f"{title}, {total // MIB} MiB", [RATE], transfers(session, ways, total), targets)


def one_link(session: Session) -> None:
    """bulk over one TCP link, service to tunnel"""
    with session.world() as world:
        straight = R2(world)
        ways: list[Way] = [straight, Socat(world), Socat(world, options=LARGE)]
        ways += [R2(world, dash=True, base=straight), Socat(world, dash=True), Socat(world, options=LARGE, dash=True)]
        ways += [Ssh(world), Asyncssh(world), Reticulum(world), Tcp(world)]
        targets = [
            Target(mine.name, ">=", factor, peer.name)
            for mine, *peers in (ways[:3], ways[3:6])
            for factor, peer in zip((3, 0.9), peers)
        ]
        measure_bulk(session, "one TCP link", ways, session.amount(256 * MIB, MIB), targets)


def third_node(session: Session) -> None:
    """bulk through a third node"""
    with session.world() as world:
        ways = [R2(world, hops=2), Socat(world, 2), Socat(world, 2, LARGE)]
        targets = [Target(ways[0].name, ">=", 3, ways[1].name)]
        measure_bulk(session, "through a third node", ways, session.amount(256 * MIB, MIB), targets)


def local(session: Session) -> None:
    """bulk to a service of the same node"""
    with session.world() as world:
        straight = R2(world, hops=0)
        ways: list[Way] = [straight, Pair(world), R2(world, dash=True, base=straight), Pipes(world)]
        targets = [Target(ways[at].name, ">=", factor, ways[at + 1].name) for at, factor in ((0, 0.5), (2, 0.95))]
        measure_bulk(session, "a service of the same node", ways, session.amount(1024 * MIB, MIB), targets)

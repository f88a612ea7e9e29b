"""Round trips: how long 64 bytes take to an echo and back, alone and beside bulk on the same link.

The percentiles of one run are one value each; what is compared is their median over all rounds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from .runs import Metric, Target, percentile
from .session import Session
from .ways import R2, Asyncssh, Reticulum, Socat, Ssh, Tcp, Way

SIZE = 64
PERCENTS = {"median": 50.0, "p90": 90.0, "p99": 99.0}
TIMES = [Metric(name, "µs") for name in PERCENTS]
SETTLE = 0.5  # seconds of bulk before the round trips: windows and buffers have grown by then
CURVE = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9)  # per cents that are plotted


class Pinger:
    """An echo that is offered, and round trips to it.  `floods`: and a transfer without end, to go beside them."""

    def __init__(
        self, way: Way, count: int, seconds: float = 60.0, size: int = SIZE, floods: bool = False
    ) -> None:
        self.way = way
        self._count = max(20, int(count * way.share))
        self._seconds = seconds
        self._size = size
        self._floods = floods
        self.last: list[float] = []

    def offer(self) -> None:
        world = self.way.world
        self._echo, self._flood = world.unique("echo").name, world.unique("flood").name
        self._result = world.unique("result")
        self._near = world.load("ping", self._count, self._size, self._seconds, self._result)
        self.way.offer(self._echo, world.load("echo"))
        if self._floods:
            self._drain = world.load("drain")
            self.way.offer(self._flood, world.load("flood", 65536))

    def run(self) -> Mapping[str, float]:
        world = self.way.world
        programs = self.way.join(self._echo, self._near)
        try:
            self.last = world.result(self._result, programs, self._seconds + 30)
            for program in programs:
                world.end(program, grace=5)
            return {name: percentile(self.last, percent) for name, percent in PERCENTS.items()}
        finally:
            for program in programs:
                world.end(program)

    @property
    def sent(self) -> int:
        """Round trips of a run that was not cut short, with those that are not counted."""
        return self._count + self._count // 20

    @contextmanager
    def bulk(self, settle: float = SETTLE) -> Iterator[None]:
        world = self.way.world
        programs = self.way.join(self._flood, self._drain)
        try:
            time.sleep(settle)
            yield
        finally:
            for program in programs:
                world.end(program)

    def run_beside(self) -> Mapping[str, float]:
        with self.bulk():
            return self.run()


def round_trip(session: Session) -> None:
    """round trip of 64 bytes on one TCP link"""
    with session.world() as world:
        ways: list[Way] = [R2(world), Socat(world), Ssh(world), Asyncssh(world), Reticulum(world), Tcp(world)]
        candidates = []
        for way in ways:
            pinger = Pinger(way, session.amount(5000, 100))
            candidates.append(session.candidate(way, pinger.offer, pinger.run))
        targets = [Target(ways[0].name, "<=", 1.25, ways[1].name, "median")]
        session.compare(f"{SIZE} bytes on one TCP link", TIMES, candidates, targets)


@dataclass
class Loaded:
    """Round trips alone and beside bulk, and the ratio of the two in the same round.  The last round is plotted."""

    pinger: Pinger
    curves: dict[str, list[tuple[float, float]]]

    def run(self) -> Mapping[str, float]:
        name = self.pinger.way.name
        alone = self.pinger.run()
        self._keep(f"{name}, alone")
        beside = self.pinger.run_beside()
        self._keep(f"{name}, beside bulk")
        values = {f"alone, {key}": value for key, value in alone.items()}
        values.update({f"beside bulk, {key}": value for key, value in beside.items()})
        values.update({f"beside / alone, {key}": beside[key] / alone[key] for key in alone})
        return values

    def _keep(self, legend: str) -> None:
        self.curves[legend] = [(percent, percentile(self.pinger.last, percent)) for percent in CURVE]


def beside_bulk(session: Session) -> None:
    """round trip of one tunnel beside a bulk tunnel on the same link"""
    curves = session.curves.setdefault("percentiles", {})
    with session.world() as world:
        candidates = []
        ways: list[Way] = [R2(world), Socat(world), Ssh(world), Asyncssh(world)]
        for way in ways:
            pinger = Pinger(way, session.amount(2000, 100), session.seconds(10), floods=True)
            candidates.append(session.candidate(way, pinger.offer, Loaded(pinger, curves).run))
        metrics = [Metric(f"{when}, {name}", "µs") for when in ("alone", "beside bulk") for name in ("median", "p99")]
        metrics += [Metric(f"beside / alone, {name}", "x") for name in ("median", "p99")]
        name = ways[0].name
        targets = [
            Target(name, "<=", 3, metric="beside / alone, median"),
            Target(name, "<=", 10, metric="beside / alone, p99"),
        ]
        title = f"{SIZE} bytes beside bulk on the same link (socat: on one of its own)"
        session.compare(title, metrics, candidates, targets)

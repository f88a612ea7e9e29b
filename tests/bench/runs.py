"""Repetitions, and what may be concluded from them.  Pure: nothing is run here but the functions that are passed in.

A *candidate* is one way to do something.  One run of it gives a value for each *metric*: {"median": 81, "p99": 140}.
`interleave` runs all candidates in turn, again and again, so that each round has one run of each, under conditions that
are the same.  A *comparison* is all that was measured of one metric.  The ratio of two candidates is taken round by
round; its median decides whether a *target* is held, and its range says how much one should believe it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

OURS = "r2"  # candidates whose name starts with this are r2box
EQUAL = 0.02  # ratios so near to 1 say nothing


@dataclass(frozen=True)
class Metric:
    """One figure of a run.  Metrics of which less is better are the most: times, counts, memory."""

    name: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True)
class Candidate:
    """`run` does it once and returns the value of every metric.  `skipped` says why it is not run at all.

    A floor is not a peer but what the machine itself takes: nothing is lost by being behind it.
    """

    name: str
    run: Callable[[], Mapping[str, float]] | None
    skipped: str = ""
    is_floor: bool = False


@dataclass(frozen=True)
class Target:
    """`who` is to be at least (">=") or at most ("<=") `factor` times `peer`; without a peer, `factor` itself."""

    who: str
    relation: str
    factor: float
    peer: str = ""
    metric: str = ""  # "": of every metric

    def __str__(self) -> str:
        than = f" x {self.peer}" if self.peer else ""
        return f"{self.relation} {self.factor:g}{than}"


@dataclass
class Series:
    """What one candidate gave, one value for each round; None where the run failed.  `problem`: why, or why not run."""

    values: list[float | None] = field(default_factory=list)
    problem: str = ""
    is_floor: bool = False

    def known(self) -> list[float]:
        return [value for value in self.values if value is not None]


@dataclass(frozen=True)
class Spread:
    """The middle of some values and the ends of their range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Verdict:
    """A target and what was found: `found` is a ratio, or a value where there is no peer; None: it was not measured."""

    target: Target
    found: Spread | None

    @property
    def is_held(self) -> bool | None:
        if self.found is None:
            return None
        if self.target.relation == ">=":
            return self.found.median >= self.target.factor
        return self.found.median <= self.target.factor


@dataclass
class Comparison:
    """One metric of one measurement, for all candidates in the order in which they were given."""

    group: str
    title: str
    metric: Metric
    series: dict[str, Series]
    targets: list[Target]

    def spread(self, who: str) -> Spread | None:
        return Spread.of(self.series[who].known()) if who in self.series else None

    def ratio(self, who: str, peer: str) -> Spread | None:
        """`who` divided by `peer`, round by round; None where no round has both."""
        if who not in self.series or peer not in self.series:
            return None
        pairs = zip(self.series[who].values, self.series[peer].values)
        return Spread.of([ours / theirs for ours, theirs in pairs if ours is not None and theirs])

    def verdicts(self) -> list[Verdict]:
        return [
            Verdict(target, self.ratio(target.who, target.peer) if target.peer else self.spread(target.who))
            for target in self.targets
        ]

    def behind(self) -> Iterator[tuple[str, str, Spread]]:
        """(one of ours, a peer that is better, the ratio) for every such pair."""
        for who in self.series:
            if not who.startswith(OURS):
                continue
            for peer, series in self.series.items():
                ratio = self.ratio(who, peer)
                if peer.startswith(OURS) or series.is_floor or ratio is None:
                    continue
                if ratio.median < 1 - EQUAL if self.metric.more_is_better else ratio.median > 1 + EQUAL:
                    yield who, peer, ratio


def interleave(
    candidates: Sequence[Candidate], rounds: int, on_run: Callable[[int, str], None] = lambda number, name: None
) -> dict[str, tuple[list[Mapping[str, float] | None], str]]:
    """Run each candidate once in every round; return the runs of each (None: it failed) and its problem or "".

    One that fails is not run again: what it was set up with may be gone.  Its values stay None, so rounds stay aligned.
    """
    runs: dict[str, list[Mapping[str, float] | None]] = {candidate.name: [] for candidate in candidates}
    problems = {candidate.name: candidate.skipped for candidate in candidates}
    for number in range(rounds):
        for candidate in candidates:
            run: Mapping[str, float] | None = None
            if candidate.run is not None and not problems[candidate.name]:
                on_run(number, candidate.name)
                try:
                    run = candidate.run()
                except (OSError, RunError, ValueError) as error:
                    problems[candidate.name] = f"failed: {error}"
            runs[candidate.name].append(run)
    return {name: (runs[name], problems[name]) for name in runs}


class RunError(Exception):
    """A run did not come to a result; the text says why."""


def compare(
    group: str,
    title: str,
    metrics: Sequence[Metric],
    candidates: Sequence[Candidate],
    targets: Sequence[Target],
    rounds: int,
    on_run: Callable[[int, str], None] = lambda number, name: None,
) -> list[Comparison]:
    """Run the candidates in turn; return one comparison for each metric."""
    floors = {candidate.name for candidate in candidates if candidate.is_floor}
    done = interleave(candidates, rounds, on_run)
    found = []
    for metric in metrics:
        series = {
            name: Series([None if run is None else run.get(metric.name) for run in runs], problem, name in floors)
            for name, (runs, problem) in done.items()
        }
        asked = [target for target in targets if target.metric in ("", metric.name)]
        found.append(Comparison(group, title, metric, series, asked))
    return found


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the sorted `values` that at least `percent` per cent of them do not exceed.

    >>> percentile([1, 2, 3, 4], 50), percentile([1, 2, 3, 4], 99)
    (2, 4)
    """
    return values[max(0, -int(-len(values) * percent // 100) - 1)]

"""One run of the bench: its options, the worlds that groups work in, and all that came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .report import Progress, show
from .runs import Candidate, Comparison, Metric, RunError, Spread, Target, compare
from .ways import Way
from .world import World


@dataclass(frozen=True)
class Options:
    dist: Path
    repeat: int = 5
    scale: float = 1.0  # of all amounts of data, counts and times


@dataclass
class Session:
    options: Options
    progress: Progress
    comparisons: list[Comparison] = field(default_factory=list)
    curves: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)  # plot -> legend -> points
    failed: list[str] = field(default_factory=list)  # groups that came to no result, and why
    group: str = ""

    def world(self) -> World:
        return World(self.options.dist)

    def amount(self, full: int, least: int = 1) -> int:
        """So much of something, scaled as the user wants it."""
        return max(least, int(full * self.options.scale))

    def seconds(self, full: float, least: float = 1.0) -> float:
        return max(least, full * self.options.scale)

    def compare(
        self,
        title: str,
        metrics: Sequence[Metric],
        candidates: Sequence[Candidate],
        targets: Sequence[Target] = (),
        rounds: int = 0,
    ) -> list[Comparison]:
        """Measure, keep and show."""
        rounds = rounds or self.options.repeat
        self.progress.begin(f"{self.group}: {title}", rounds * sum(not candidate.skipped for candidate in candidates))
        found = compare(self.group, title, metrics, candidates, targets, rounds, self.progress.step)
        self.progress.clear()
        self.comparisons += found
        show(found)
        return found

    def mark(self, plot: str, legend: str, at: float, spread: Spread | None) -> None:
        """Put a point of a curve where it belongs, if there is one."""
        if spread is not None:
            self.curves.setdefault(plot, {}).setdefault(legend, []).append((at, spread.median))

    def ready(self, way: Way, offer: Callable[[], None]) -> str:
        """Start a way and offer something there; return why that cannot be, or ""."""
        problem = way.missing()
        if problem:
            return problem
        self.progress.say(f"{self.group}: starting {way.name}")
        try:
            way.start()
            offer()
        except (OSError, RunError) as error:
            return f"failed to start: {error}"
        return ""

    def candidate(self, way: Way, offer: Callable[[], None], run: Callable[[], Mapping[str, float]]) -> Candidate:
        """What `run` measures in a way, when that has been started and has what it offers."""
        problem = self.ready(way, offer)
        return Candidate(way.name, None if problem else run, problem, way.is_floor)

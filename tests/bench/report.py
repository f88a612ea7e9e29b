"""What came out, for people and for programs; and a line that shows how far it is.

Results go to stdout, each as soon as it is there; progress goes to stderr, on one line where that is a terminal.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Sequence

from .runs import Comparison, Spread, Verdict


def number(value: float) -> str:
    """Three digits that matter.

    >>> number(1234567), number(1.2345), number(0.001234), number(0)
    ('1,234,567', '1.23', '0.00123', '0')
    """
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread_text(spread: Spread) -> str:
    if spread.low == spread.high:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)} .. {number(spread.high)})"


def verdict_text(verdict: Verdict) -> str:
    held = {True: "held", False: "MISSED", None: "not measured"}[verdict.is_held]
    found = "" if verdict.found is None else f": {spread_text(verdict.found)}"
    return f"{verdict.target.who} {verdict.target}{found}  {held}"


def rows(comparison: Comparison) -> Iterator[tuple[str, str, str, str]]:
    """(who, median, range, remark) for each candidate; the remark is its ratio to the first one, or its problem."""
    first = next(iter(comparison.series), "")
    for who, series in comparison.series.items():
        spread = comparison.spread(who)
        if spread is None:
            if series.problem:
                yield who, "-", "", series.problem
            continue  # otherwise it is a figure that this candidate does not have
        ratio = comparison.ratio(first, who) if who != first else None
        remark = "" if ratio is None else f"{first} = {number(ratio.median)} x this"
        middle = f"{number(spread.low)} .. {number(spread.high)}" if len(series.known()) > 1 else ""
        yield who, number(spread.median), middle, "; ".join(filter(None, [remark, series.problem]))


def show(comparisons: Sequence[Comparison]) -> None:
    """The metrics of one measurement, one below the other, and under each what was to be held."""
    print(f"\n{comparisons[0].group}: {comparisons[0].title}")
    for comparison in comparisons:
        metric = comparison.metric
        head = f"{metric.name} [{metric.unit}]" if metric.unit else metric.name
        lines = [("  " + head, "median", "range", "")]
        lines += [("    " + who, median, middle, remark) for who, median, middle, remark in rows(comparison)]
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        for who, median, middle, remark in lines:
            print(f"{who:{widths[0]}}  {median:>{widths[1]}}  {middle:>{widths[2]}}  {remark}".rstrip())
        for verdict in comparison.verdicts():
            print(f"    target: {verdict_text(verdict)}")
    sys.stdout.flush()


def missed(comparisons: Sequence[Comparison]) -> Iterator[str]:
    for comparison in comparisons:
        for verdict in comparison.verdicts():
            if verdict.is_held is False:
                yield f"{place(comparison)}: {verdict_text(verdict)}"


def behind(comparisons: Sequence[Comparison]) -> Iterator[str]:
    for comparison in comparisons:
        better = "more" if comparison.metric.more_is_better else "less"
        for who, peer, ratio in comparison.behind():
            always = ratio.low < ratio.high < 1 or 1 < ratio.low < ratio.high
            remark = "  (in every round)" if always else ""
            yield f"{place(comparison)} ({better} is better): {who} = {spread_text(ratio)} x {peer}{remark}"


def problems(comparisons: Sequence[Comparison]) -> list[str]:
    return sorted(
        {
            f"{comparison.group}: {who}: {series.problem}"
            for comparison in comparisons
            for who, series in comparison.series.items()
            if series.problem
        }
    )


def place(comparison: Comparison) -> str:
    return f"{comparison.group}: {comparison.title}: {comparison.metric.name}"


def show_end(comparisons: Sequence[Comparison], failed: Sequence[str]) -> None:
    """Where r2box loses, and what could not be measured."""
    verdicts = [verdict.is_held for comparison in comparisons for verdict in comparison.verdicts()]
    print(f"\n{verdicts.count(True)} of {len(verdicts)} targets held, {verdicts.count(None)} not measured.")
    for title, lines in (
        ("Targets that are missed", missed(comparisons)),
        ("Where a peer is better than r2box", behind(comparisons)),
        ("Not measured, or not in all rounds", [*failed, *problems(comparisons)]),
    ):
        print(f"\n{title}:")
        print("\n".join(f"  {line}" for line in lines) or "  none")


def as_data(comparisons: Sequence[Comparison], curves: object, options: dict[str, object]) -> dict[str, object]:
    """All of it, for json.dump."""
    return {
        "system": {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "processors": os.cpu_count(),
        },
        "options": options,
        "comparisons": [
            {
                "group": comparison.group,
                "title": comparison.title,
                "metric": comparison.metric.name,
                "unit": comparison.metric.unit,
                "more_is_better": comparison.metric.more_is_better,
                "values": {who: series.values for who, series in comparison.series.items()},
                "problems": {who: series.problem for who, series in comparison.series.items() if series.problem},
                "targets": [
                    {
                        "who": verdict.target.who,
                        "target": str(verdict.target),
                        "found": None if verdict.found is None else vars(verdict.found),
                        "held": verdict.is_held,
                    }
                    for verdict in comparison.verdicts()
                ],
            }
            for comparison in comparisons
        ],
        "curves": curves,
    }


class Progress:
    """`begin` names something of so many steps; `step` is called before each."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._title = ""
        self._steps = 1
        self._done = 0
        self._start = time.monotonic()

    def begin(self, title: str, steps: int) -> None:
        self._title, self._steps, self._done = title, steps, 0
        if not self._is_terminal:
            self._write(title)

    def step(self, round_: int, name: str) -> None:
        if self._is_terminal:
            self._write(f"{self._title}  {self._done + 1}/{self._steps}  round {round_ + 1}: {name}")
        self._done += 1

    def say(self, text: str) -> None:
        """Something that takes a while and has no steps."""
        if self._is_terminal:
            self._write(text)

    def _write(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        line = f"[{minutes:2}:{seconds:02}] {text}"
        if self._is_terminal:
            line = "\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1]
        else:
            line += "\n"
        sys.stderr.write(line)
        sys.stderr.flush()

    def clear(self) -> None:
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

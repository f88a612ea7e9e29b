"""The curves of a run as SVG, by matplotlib where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Curves = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]

# One look for each candidate, whatever the plot: the colours of Okabe and Ito, which most eyes can tell apart.
STYLES = {
    "r2box": ("#0072B2", "o"),
    "socat": ("#D55E00", "s"),
    "socat -b 262144": ("#E69F00", "^"),
    "ssh -L": ("#009E73", "D"),
    "asyncssh": ("#CC79A7", "v"),
    "Reticulum": ("#CC79A7", "v"),
    "BBR": ("#009E73", "D"),
    "cubic": ("#E69F00", "^"),
    "Reno": ("#D55E00", "s"),
}


@dataclass(frozen=True)
class Plot:
    title: str
    x: str
    y: str
    log_x: int = 0  # the base, where the axis is logarithmic
    log_y: bool = False
    ticks: Sequence[float] = ()
    labels: Sequence[str] = ()


PLOTS = {
    "hops": Plot(
        "Throughput over several links", "links one behind the other", "throughput [MiB/s]", ticks=range(1, 9)
    ),
    "chunks": Plot(
        "Throughput by the size of the source's writes",
        "size of a write [bytes]",
        "throughput [MiB/s]",
        log_x=2,
        log_y=True,
        ticks=[64 << shift for shift in range(0, 15, 2)],
        labels=["64", "256", "1 Ki", "4 Ki", "16 Ki", "64 Ki", "256 Ki", "1 Mi"],
    ),
    "parallel": Plot(
        "Throughput of parallel tunnels together",
        "tunnels",
        "throughput of all [MiB/s]",
        log_x=10,
        ticks=[1, 10, 100, 1000, 10_000],
        labels=["1", "10", "100", "1,000", "10,000"],
    ),
    "lossy": Plot(
        "Goodput over UDP at 2 MiB/s and 50 ms, by what is lost",
        "packets that are lost each way [%]",
        "goodput [KiB/s]",
        log_y=True,
        ticks=[0, 1, 2, 5, 10, 20],
    ),
    "percentiles": Plot(
        "Round trip of 64 bytes, alone and beside a bulk transfer",
        "percentile of the round trips",
        "round trip [µs]",
        log_y=True,
    ),
}
# Percentiles are drawn by how many are above them, so that the tail has room.
TAIL = (50, 90, 99, 99.9)


def draw(curves: Curves, directory: Path) -> str:
    """Draw what there are curves for; return the line that says so."""
    if not importlib.util.find_spec("matplotlib"):
        return "\nNo plots: matplotlib is not installed."
    known = [name for name in PLOTS if curves.get(name)]
    if not known:
        return f"\nNo plots: none of the groups that they are drawn from has run ({', '.join(PLOT_GROUPS)})."
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name in known:
        path = directory / f"{name}.svg"
        draw_one(PLOTS[name], curves[name], path, name == "percentiles")
        files.append(str(path))
    return "\nPlots: " + ", ".join(files)


PLOT_GROUPS = ("hops", "chunks", "parallel", "lossy", "loaded")


def draw_one(plot: Plot, lines: Mapping[str, Sequence[tuple[float, float]]], path: Path, is_tail: bool) -> None:
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(9, 4.8), layout="constrained")
    for legend, points in lines.items():
        who, _, when = legend.partition(", ")
        colour, marker = STYLES.get(who.replace("r2 tunnel", "r2box"), ("#555555", "x"))
        xs = [to_tail(x) if is_tail else x for x, _ in points]
        label = legend.replace("r2 tunnel", "r2box")
        style = "--" if when == "alone" else "-"
        axes.plot(xs, [y for _, y in points], style, color=colour, marker=marker, markersize=4, label=label)
    set_axes(axes, plot, is_tail)
    figure.legend(fontsize="small", loc="outside right upper")  # never over a curve
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def set_axes(axes: Any, plot: Plot, is_tail: bool) -> None:
    axes.set_title(plot.title)
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)
    axes.grid(True, alpha=0.3)
    if plot.log_y:
        ticker: Any = importlib.import_module("matplotlib.ticker")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_minor_formatter("")
    else:
        axes.set_ylim(bottom=0)
    if is_tail:
        axes.set_xscale("log")
        axes.set_xticks([to_tail(percent) for percent in TAIL], [f"{percent:g} %" for percent in TAIL])
        axes.minorticks_off()
    elif plot.log_x:
        axes.set_xscale("log", base=plot.log_x)
    if plot.ticks:
        axes.set_xticks(list(plot.ticks), list(plot.labels) or None)


def to_tail(percent: float) -> float:
    """Where a percentile is on an axis on which 90, 99 and 99.9 are equally far apart.

    >>> round(to_tail(90)), round(to_tail(99))
    (10, 100)
    """
    return 100 / (100 - percent)

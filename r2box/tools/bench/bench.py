"""r2 bench: measures throughput and round trips to a node.

The far end is the service `r2.bench` of every node (`proto.routing.measurement`).  The steps run one after the other,
since round trips beside a bulk stream differ from those on an idle link, and a bulk stream alone uses larger writes:

    idle                    round trips only
    up, down                a bulk stream only
    up_beside, down_beside  a shorter bulk stream, and round trips beside it
"""

from __future__ import annotations

import signal
import sys

from ...cli.command import Command, Option
from ...errors import OK, SIGNALLED, RefusedError, UsageError
from ...net.client.client import ask
from ...proto.wire import messages
from ...proto.wire.address import BENCH, format_path, join_targets
from ...proto.wire.outcome import UNKNOWN
from .gauge import BenchTunnel, Bulk, Down, Echo, Up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...cli.command import Args
    from ...net.client.client import Client
    from ...net.io.loop import Timer

IDLE, BESIDE = 1.0, 2.0  # seconds of round trips alone and beside a bulk stream; less with a smaller --time
EVERY = 0.01  # seconds between round trips beside a bulk stream, so that they add no load
REDRAW = 0.2  # seconds
COUNT_TIME = 1.5  # seconds for the far end's count after ^C
PING_TIMEOUT = 5.0  # seconds for a node that refused the tunnel to answer a PING
MIB = 1 << 20

_TIMES = "an object or null, round trips of 64 bytes"
_BULK = "an object or null, a stream"
COMMAND = Command(
    "r2 bench",
    "measure throughput and latency to a node",
    options=[
        Option(("--time",), "send for S seconds in each direction", "S", kind="float", default=5.0),
        Option(("--size",), "end each direction after BYTES, if that is sooner", "BYTES", kind="int"),
        Option(("--json",), "print one JSON object", kind="flag"),
    ],
    description=(
        "Measures the path to the node TARGET: round trips of 64 bytes on the idle path, throughput from this "
        "node (up) and to it (down), and, for 2 more seconds in each direction, round trips under load.  The "
        "far end is built into each node; the figure for up is what that end has received.  On a terminal, "
        "stderr shows the progress.  ^C ends the run and prints what was measured.\n\n"
        "To disable the far end, set bench = false in r2.toml(5)."
    ),
    examples=[("r2 -t carl/bob bench", "measure the path to bob through carl")],
    statuses=[("0", "done"), ("1", "failed"), ("2", "wrong usage"), ("130", "ended by ^C")],
    seealso=["r2(1)"],
    json=[
        ("target", "text", "The path to the node."),
        ("idle", _TIMES, "idle: count, and min, median and p99 in seconds."),
        ("up", _BULK, "from this node to the target: bytes, seconds, and rate in bytes per second."),
        ("up_beside", _TIMES, "during a stream up; fields as for idle."),
        ("down", _BULK, "from the target to this node; fields as for up."),
        ("down_beside", _TIMES, "during a stream down; fields as for idle."),
        ("interrupted", "true or false", "Whether a signal or a failure ended the run early.  What was not "
                                         "measured is null."),
    ],
)  # fmt: skip


def main(args: Args) -> int:
    if args.time <= 0:
        raise UsageError("--time: a time in seconds")
    if args.size is not None and args.size < 1:
        raise UsageError("--size: at least one byte")
    path = join_targets(args.target)
    if not path:
        raise UsageError("bench measures the path to another node: give one with -t")
    run = BenchRun(args, path)
    try:
        ask(args.socket, run.start, args.wait)
    finally:
        run.report()
    return run.status


# name of the result, class of the bulk stream, whether round trips are measured
STEPS: tuple[tuple[str, type[Bulk] | None, bool], ...] = (
    ("idle", None, True),
    ("up", Up, False),
    ("up_beside", Up, True),
    ("down", Down, False),
    ("down_beside", Down, True),
)


class BenchRun:
    """One run: all steps in turn, and their results."""

    client: Client
    _done: Callable[[], None]

    def __init__(self, args: Args, path: tuple[str, ...]) -> None:
        self.path = path
        self.name = format_path(path)
        self.status = OK
        self._args = args
        self._steps = list(STEPS)
        self._step = STEPS[0]
        self._echo: Echo | None = None
        self._bulk: Bulk | None = None
        self._runs = False  # a step is running
        self._timer: Timer | None = None  # ends the step
        self._is_late = False  # the time is up, but no round trip is complete
        self._times: dict[str, list[float]] = {}
        self._bulks: dict[str, tuple[int, float]] = {}  # bytes and seconds
        self._is_complete = False
        self._shows = not args.quiet and sys.stderr.isatty()
        self._width = 0  # of the line on the terminal

    # -- the steps -------------------------------------------------------------------------------------------------

    def start(self, client: Client, done: Callable[[], None]) -> None:
        self.client, self._done = client, done
        client.loop.on_kill((signal.SIGINT, signal.SIGTERM), self._interrupted)
        if self._shows:
            self._redraw()
        self._next()

    def _next(self) -> None:
        """Start the next step: open the tunnel for round trips, then the bulk stream, then start the timer."""
        if self.status or not self._steps:
            self._is_complete = not self.status
            self._done()
            return
        self._step = self._steps.pop(0)
        _, bulk, probes = self._step
        if not probes:
            self._open_bulk()
            return
        every = EVERY if bulk else 0.0
        self._echo = Echo(self.client, self.path, self._refused, self._open_bulk, self._over, self._returned, every)

    def _open_bulk(self) -> None:
        kind = self._step[1]
        if kind is not None:
            self._bulk = kind(self.client, self.path, self._refused, self._begin, self._over, self._args.size or 0)
        else:
            self._begin()

    def _begin(self) -> None:
        name, bulk, probes = self._step
        seconds = min(self._args.time, BESIDE if bulk else IDLE) if probes else self._args.time
        self._timer = self.client.loop.later(seconds, self._time_up)
        self._runs = True
        if self._echo is not None:
            self._times[name] = self._echo.times
            self._echo.send()

    def _time_up(self) -> None:
        """End the step, after at least one round trip."""
        self._is_late = self._echo is not None and not self._echo.times
        if not self._is_late:
            self._stop()

    def _returned(self) -> None:
        if self._is_late:
            self._stop()

    def _stop(self) -> None:
        """End the present step, and wait for the far end."""
        self._runs = self._is_late = False
        if self._timer is not None:
            self._timer.cancel()
        for tunnel in (self._echo, self._bulk):
            if tunnel is not None:
                tunnel.stop()

    def _over(self, tunnel: BenchTunnel) -> None:
        if tunnel is self._echo:
            self._echo = None
        else:
            assert isinstance(tunnel, Bulk)
            assert tunnel.seconds is not None
            self._bulk = None
            if not self._step[2]:
                self._bulks[self._step[0]] = tunnel.moved, tunnel.seconds
        if self._runs:  # a bulk stream of limited size
            self._stop()
        if self._echo is None and self._bulk is None:
            self._next()

    # -- the end ---------------------------------------------------------------------------------------------------

    def _interrupted(self, number: int) -> None:
        """End with the results so far: at once at the second signal, or while a tunnel is being opened."""
        opens = not self._runs and not any(tunnel and tunnel.is_stopped for tunnel in (self._echo, self._bulk))
        self.client.loop.later(0.0 if self.status or opens else COUNT_TIME, self._done)
        self.status = SIGNALLED + number
        if self._runs:
            self._stop()

    def _refused(self, body: messages.Body) -> None:
        """Report that a tunnel was refused; a node that answers PING and has no r2.bench is of an older version."""
        error = RefusedError(body["text"] if body.kind == messages.ERROR else f"{self.name}: unexpected response")
        if body.kind != messages.ERROR or body["code"] != UNKNOWN:
            raise error

        def received(answer: messages.Body, _: tuple[int, ...]) -> None:
            if answer.kind == messages.PONG:
                raise RefusedError(f"{self.name}: has no {BENCH}: its r2box is older than this one")
            raise error

        def missed() -> None:
            raise error

        self.client.request(messages.PING, received, self.path)
        self.client.loop.later(PING_TIMEOUT, missed)

    # -- output ----------------------------------------------------------------------------------------------------

    def _redraw(self) -> None:
        name, _, probes = self._step
        text = name.replace("_", ", ")
        if self._bulk is not None and self._bulk.channel is not None:
            text += f"  {self._bulk.elapsed:.1f} s  {_rate(self._bulk.moved / (self._bulk.elapsed or 1))} MiB/s"
        if probes and self._times.get(name):
            text += f"  {self._times[name][-1] * 1000:.3f} ms"
        self._draw(text)
        self.client.loop.later(REDRAW, self._redraw)

    def _draw(self, text: str) -> None:
        """Draw `text` over the present line."""
        sys.stderr.write(f"\r{text:<{self._width}}")
        sys.stderr.flush()
        self._width = len(text)

    def report(self) -> None:
        """Print the results."""
        if self._width:
            self._draw("")
            self._draw("")
        found = {name: _summary(times) for name, times in self._times.items() if times}
        for name, (moved, seconds) in self._bulks.items():
            found[name] = {"bytes": moved, "seconds": seconds, "rate": moved / (seconds or 1e-9)}
        if not found and not self.status:
            return
        if self._args.json:
            import json

            names = [step[0] for step in STEPS]
            print(json.dumps({"target": self.name, **{name: found.get(name) for name in names},
                              "interrupted": not self._is_complete}))  # fmt: skip
            return
        print(f"{'':<8}{'MiB/s':>9}  round trip min/median/p99 in ms")
        for name in ("idle", "up", "down"):
            rate = _rate(found[name]["rate"]) if name in self._bulks else ""
            times = found.get(name if name == "idle" else f"{name}_beside", {})
            trip = "/".join(f"{times[key] * 1000:.3f}" for key in ("min", "median", "p99")) if times else ""
            if rate or trip:
                print(f"{name:<8}{rate:>9}  {trip}".rstrip())


def _rate(rate: float) -> str:
    """Bytes a second as MiB/s, with three significant digits."""
    return f"{rate / MIB:.0f}" if rate >= 100 * MIB else f"{rate / MIB:.3g}"


def _summary(times: list[float]) -> dict[str, Any]:
    """Count and percentiles of round trips, in seconds."""
    row = sorted(times)
    last = len(row) - 1
    return {"count": len(row), "min": row[0], "median": row[last // 2], "p99": row[-(-last * 99 // 100)]}

"""The command line: which groups, how often, with how much data, and where the results go."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from . import bulk, counts, lossy, many, rtt, slow, startup, sweeps
from .report import Progress, as_data, show_end
from .runs import RunError
from .session import Options, Session

ROOT = Path(__file__).resolve().parents[2]
QUICK = 0.02  # of the full amounts
QUICK_REPEAT = 2

GROUPS: dict[str, Callable[[Session], None]] = {
    "bulk": bulk.one_link,
    "third": bulk.third_node,
    "local": bulk.local,
    "rtt": rtt.round_trip,
    "loaded": rtt.beside_bulk,
    "start": startup.from_nothing,
    "many": many.ten_thousand,
    "churn": many.in_turn,
    "fair": many.fairness,
    "slow": slow.slow_link,
    "long": slow.long_link,
    "lossy": lossy.lossy_links,
    "calls": counts.system_calls,
    "wire": counts.wire_overhead,
    "idle": counts.idle,
    "hops": sweeps.hops,
    "chunks": sweeps.chunks,
    "parallel": sweeps.parallel,
}


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure r2box beside what one would use instead.")
    parser.add_argument("--only", metavar="NAMES", help="only these groups, separated by commas")
    parser.add_argument("--list", action="store_true", help="name the groups and end")
    parser.add_argument("--repeat", type=int, metavar="N", help="rounds of each comparison (5)")
    parser.add_argument("--size", type=float, default=1.0, metavar="FACTOR", help="scale all amounts of data and times")
    parser.add_argument("--quick", action="store_true", help=f"--size {QUICK} --repeat {QUICK_REPEAT}: does it work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, too")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the sweeps there, as SVG")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", metavar="DIR", help="where r2box is (dist)")
    return parser.parse_args(argv)


def chosen(only: str | None) -> list[str]:
    names = only.replace(",", " ").split() if only else list(GROUPS)
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        raise SystemExit(f"bench: no such group: {', '.join(unknown)} (there are: {', '.join(GROUPS)})")
    return names


def prepare() -> None:
    """As many descriptors as allowed, for ten thousand tunnels; and an end in good order for whoever asks for it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.environ.pop("R2_SOCKET", None)

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def run(names: list[str], session: Session) -> None:
    for name in names:
        session.group = name
        try:
            GROUPS[name](session)
        except (RunError, OSError) as error:
            session.progress.clear()
            session.failed.append(f"{name}: {error}")
            print(f"\n{name}: failed: {error}", flush=True)


def main(argv: list[str]) -> int:
    arguments = parse(argv)
    if arguments.list:
        for name, group in GROUPS.items():
            print(f"{name:9} {(group.__doc__ or '').splitlines()[0]}")
        return 0
    names = chosen(arguments.only)
    dist = arguments.dist.resolve()
    if not (dist / "r2d").exists():
        raise SystemExit(f"bench: {dist} has no r2d (build it with `make`)")
    scale = QUICK if arguments.quick else arguments.size
    repeat = arguments.repeat or (QUICK_REPEAT if arguments.quick else 5)
    session = Session(Options(dist, repeat, scale), Progress())
    prepare()
    status = 0
    try:
        run(names, session)
    except KeyboardInterrupt:
        session.progress.clear()
        print("\nbench: interrupted; what there is so far:")
        status = 130
    show_end(session.comparisons, session.failed)
    if arguments.json:
        options: dict[str, object] = {"repeat": repeat, "size": scale, "groups": names}
        arguments.json.write_text(json.dumps(as_data(session.comparisons, session.curves, options), indent=1) + "\n")
    if arguments.plots:
        from . import plots

        print(plots.draw(session.curves, arguments.plots))
    return status or (1 if session.failed else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

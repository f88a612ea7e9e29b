"""Rehearsals of the worst that happens to links, with real processes: long runs, each ending in one line of figures.

    python3 -m support.rehearsal [--dist DIR] [NAME [WORD]...]

    cuts        1 GiB, half of it each way, over one link that is cut 1,000 times
    hops        the same through three links, each cut a third as often
    greetings   a link that is cut 1,000 times in the middle of its greeting
    streams     256 MiB over commands, cut by r2-lossy --cut, by FIN and by RST
    ssh         an interactive ssh and an scp, whose link's transport is killed twenty times each
    loss        64 MiB over UDP at 0 to 20 % loss, with the packets out of order, twice and spoilt, five times each
    hello       the beginning of a link at 30 % loss, fifty times
    serial      a serial line of 115,200 baud, clean and with bursts of noise
    liars       a neighbour that lies to a daemon in every way, a million entries among them
    update      what it costs a daemon when a neighbour tells of 1,000 nodes
    attack      hostile neighbours of a daemon through which honest traffic goes, 30 s each (seconds=5 row=3 mixes=0)
    grid        30 daemons in a grid, a third of whose links come and go for two minutes under traffic
    all         all of these

Each exits with 1 where something is not as it must be.  WORDs are NAME=NUMBER and change what the run is made of, such
as `cuts size=100 cuts=100 seed=7`; sizes are in MiB.  In `e2e`, test_resume.py,
test_random_cuts.py, test_false_routes.py and test_attacks.py do it in short.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from support.processes import RUNNING, Box, Place
from support.rehearsal import attack_rows, false_routes, grid
from support.rehearsal.transfers import (
    MIB,
    cut_greetings,
    cut_streams,
    cut_transfer,
    interactive_ssh,
    killed_scp,
    lossy_hellos,
    lossy_transfer,
    serial_transfer,
)

# -- the command line -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def new_place(dist: Path) -> Iterator[Place]:
    told = io.StringIO()  # by all programs, which is long
    try:
        with tempfile.TemporaryDirectory(prefix="r2rehearsal-") as folder:
            place = Place(Box(dist, sys.executable, RUNNING, Path(folder) / "python"))
            try:
                yield place
            finally:
                with contextlib.redirect_stdout(told):
                    place.close()
    except BaseException:
        print(told.getvalue())
        raise


def run_cuts(dist: Path, size: int = 1024, cuts: int = 1000, seed: int = 1, hops: int = 1) -> Iterator[str]:
    with new_place(dist) as place:
        yield cut_transfer(place, hops, size * MIB, cuts, seed)


def run_hops(dist: Path, size: int = 1024, cuts: int = 1000, seed: int = 1, hops: int = 3) -> Iterator[str]:
    return run_cuts(dist, size, cuts, seed, hops)


def run_greetings(dist: Path, cuts: int = 1000, seed: int = 1) -> Iterator[str]:
    with new_place(dist) as place:
        yield cut_greetings(place, cuts, seed)


def run_streams(dist: Path, size: int = 256, cuts: int = 250) -> Iterator[str]:
    for how in ("", "--rst"):
        with new_place(dist) as place:
            yield cut_streams(place, size * MIB, cuts, how)


def run_ssh(dist: Path, kills: int = 20, size: int = 200) -> Iterator[str]:
    with new_place(dist) as place:
        yield interactive_ssh(place, kills)
    with new_place(dist) as place:
        yield killed_scp(place, kills, size * MIB)


def run_loss(dist: Path, size: int = 64, runs: int = 5, loss: int = -1) -> Iterator[str]:
    for share in (0, 1, 2, 5, 10, 20) if loss < 0 else (loss,):
        for seed in range(runs):
            with new_place(dist) as place:
                yield lossy_transfer(place, size * MIB, share, seed)


def run_hello(dist: Path, loss: int = 30, times: int = 50) -> Iterator[str]:
    with new_place(dist) as place:
        yield lossy_hellos(place, loss, times)


def run_serial(dist: Path, size: int = 300, noise: int = 30) -> Iterator[str]:
    for bursts in (0, noise):
        with new_place(dist) as place:
            yield serial_transfer(place, size << 10, bursts)


def run_grid(dist: Path, rows: int = 5, columns: int = 6, seconds: int = 120, seed: int = 1) -> Iterator[str]:
    with new_place(dist) as place:
        yield from grid.weather(place, rows, columns, seconds, seed)


def run_liars(dist: Path, count: int = 1_000_000, seconds: int = 10) -> Iterator[str]:
    with new_place(dist) as place:
        yield from false_routes.lies(place, count, seconds)


def run_update(dist: Path, count: int = 1000) -> Iterator[str]:
    for others in (1, 4):
        with new_place(dist) as place:
            yield from false_routes.update(place, count, others)


def run_attack(dist: Path, seconds: int = 30, row: int = 0, mixes: int = 3, seed: int = 1) -> Iterator[str]:
    failed = []
    for each in attack_rows.chosen(row, mixes, seed):
        with new_place(dist) as place:
            report = attack_rows.run_row(place, each, seconds, seed)
        if report.problems:
            failed.append(each.name)
        yield str(report)
    assert not failed, f"what does not hold: {', '.join(failed)}"


RUNS: dict[str, Callable[..., Iterator[str]]] = {
    "cuts": run_cuts,
    "hops": run_hops,
    "greetings": run_greetings,
    "streams": run_streams,
    "ssh": run_ssh,
    "loss": run_loss,
    "hello": run_hello,
    "serial": run_serial,
    "grid": run_grid,
    "liars": run_liars,
    "update": run_update,
    "attack": run_attack,
}


def main(words: list[str]) -> int:
    root = Path(__file__).resolve().parents[3]
    dist = Path(os.environ.get("R2BOX_DIST", root / "dist"))
    if words[:1] == ["--dist"]:
        dist, words = Path(words[1]), words[2:]
    names = [word for word in words if "=" not in word] or ["all"]
    if unknown := set(names) - {*RUNS, "all"}:
        print(f"no such rehearsal: {', '.join(sorted(unknown))}\n\n{__doc__}", file=sys.stderr)
        return 2
    changes = {name: int(number) for name, _, number in (word.partition("=") for word in words if "=" in word)}
    status = 0
    for name in RUNS if "all" in names else names:
        try:
            for figures in RUNS[name](dist.resolve(), **changes):
                print(f"{name}: {figures}", flush=True)
        except BaseException as error:  # pytest's failures are no Exceptions
            if isinstance(error, KeyboardInterrupt):
                raise
            print(f"{name}: FAILED: {error}", flush=True)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

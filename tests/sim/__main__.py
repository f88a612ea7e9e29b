"""Long simulations, from the command line: carriers over bad paths, whole networks, and how their cost grows."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sim.carriers import MIB, matrix, measure

# -- the long matrix ---------------------------------------------------------------------------------------------------


def carriers(parser: argparse.ArgumentParser, words: list[str]) -> bool:
    """The long matrix."""
    parser.add_argument("--size", type=float, default=64, help="MiB in each transfer (64)")
    parser.add_argument("--seeds", type=int, default=100, help="transfers for each loss (100)")
    parser.add_argument("--rate", type=float, default=10, help="of the path, in MB/s (10)")
    parser.add_argument("--rtt", type=float, default=50, help="of the path, in ms (50)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--cpu", action="store_true", help="only measure how fast the code is")
    options = parser.parse_args(words)
    measure(64 * MIB)
    if options.cpu:
        return True
    size = int(options.size * MIB)
    return matrix(size, options.seeds, options.rate * 1e6, options.rtt / 1e3, options.jobs)


def networks(parser: argparse.ArgumentParser, words: list[str]) -> bool:
    """Whole networks under cuts, crashes and traffic."""
    from sim.networks import make_case, run, run_all
    from support.shapes import SHAPES

    parser.add_argument("--seeds", type=int, default=200, help="networks (200)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--shape", choices=list(SHAPES), help="one kind of network (all in turn)")
    parser.add_argument("--nodes", type=int, help="how many (4 to 16 in turn)")
    parser.add_argument("--steps", type=int, default=60, help="that happen (60)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    options = parser.parse_args(words)
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    cases = [make_case(seed, options.shape, options.nodes, options.steps) for seed in seeds]
    if options.trace:
        return not [case for case in cases if not run(case, print)]
    return run_all(cases, options.jobs)


def growth(parser: argparse.ArgumentParser, words: list[str]) -> bool:
    """What discovery costs as networks grow."""
    from sim import growth
    from support.shapes import SHAPES

    parser.add_argument("--nodes", default="50,100,200", help="sizes (50,100,200; 1000 takes half an hour and 4 GB)")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="kinds of networks (all)")
    parser.add_argument("--plots", type=Path, help="folder for the figures as JSON and as a plot")
    parser.add_argument("--check", action="store_true", help="compare all routes with those of the oracle (slow)")
    options = parser.parse_args(words)
    sizes = [int(size) for size in options.nodes.split(",")]
    growth.grow(options.shapes.split(","), sizes, options.plots, check=options.check)
    return True


PARTS = {"carriers": carriers, "network": networks, "growth": growth}


def main() -> int:
    """`sim PART [options]`; without a PART, carriers and networks as they are by default."""
    words = sys.argv[1:]
    if not words:
        wrong = [part for part in ("carriers", "network") if not _part(part, [])]
        return len(wrong)
    if words[0] not in PARTS:
        print(f"usage: sim [{'|'.join(PARTS)}] [options]; sim PART --help tells the options", file=sys.stderr)
        return 0 if words[0] in ("-h", "--help") else 2
    return not _part(words[0], words[1:])


def _part(name: str, words: list[str]) -> bool:
    return PARTS[name](argparse.ArgumentParser(prog=f"sim {name}", description=PARTS[name].__doc__), words)


if __name__ == "__main__":
    sys.exit(main())

"""Hostile neighbours of a daemon, in a process of their own.

    python3 -m support.rehearsal.attacks NAME SECONDS SEED TARGET     runs an attack and prints its counts, as JSON

The target is a JSON object of the fields of `Target`.  All attackers come from loopback addresses of their own, so that
what is counted by source address is not counted for the honest ones too.
"""

from __future__ import annotations

import json
import random
import sys
import time

from . import floods, holds
from .target import ATTACKS, Target

__all__ = ["ATTACKS", "Target", "floods", "holds"]


def main(words: list[str]) -> None:
    name, seconds, seed, target = words
    until = time.monotonic() + float(seconds)
    try:
        counts = ATTACKS[name](Target(**json.loads(target)), until, random.Random(int(seed)))
    except ConnectionError as error:
        counts = {"turned away": str(error)}
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1:])

"""What an attack is aimed at, and the table of the attacks: `ATTACKS[name](target, until, dice)` gives counts.

The numbers in the names are those of the rows in r2-protocol(7).  `until` is a time of `time.monotonic`.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from support import raw
from support.raw import RawLink

MALLORY = "127.0.0.66"
Counts = dict[str, Any]


@dataclasses.dataclass
class Target:
    """Where the daemon bob is attacked."""

    door: int  # TCP port of bob's listener
    udp: int = 0  # UDP port of another
    side: int = 0  # TCP port of alice's, who is bob's neighbour
    control: str = ""  # bob's control socket
    own: int = 0  # port that bob dials again and again
    scale: float = 1.0  # of numbers and rates
    most: int = 0  # bytes after which a flood ends, when all were taken; 0: it goes on until the end

    def count(self, number: int) -> int:
        return max(int(number * self.scale), 1)


Attack = Callable[[Target, float, random.Random], Counts]
ATTACKS: dict[str, Attack] = {}


def attack(name: str) -> Callable[[Attack], Attack]:
    def keep(function: Attack) -> Attack:
        ATTACKS[name] = function
        return function

    return keep


def meet(target: Target, name: str = "", patience: int = 0, port: int = 0) -> RawLink:
    """A link of the attacker, as `name` or under a name that no other has."""
    return raw.dial(name or f"m{os.urandom(6).hex()}", port or target.door, MALLORY, patience)


def summary(*links: RawLink) -> Counts:
    """What became of the links, and what they sent."""
    reasons = Counter(link.reason[:60] for link in links if link.reason)
    return {"sent": sum(link.sent for link in links), "received": sum(link.received for link in links),
            "ended": dict(reasons.most_common(3))}  # fmt: skip

"""Flap damping: delays the advertisement of unstable routes, so that they do not load the whole network.

Each change of a node's best route adds a penalty, smaller for an improvement, which decays exponentially.  Changes are
advertised at once up to a penalty of `FREE`, since networks change in bursts.  Beyond that, the delay doubles with each
further change, up to `LAST_WAIT`.  Withdrawals are never delayed.  (BGP's damping, RFC 2439, suppresses an unstable
route altogether, which loses working routes.)
"""

from __future__ import annotations

import math

FADING = 20.0  # seconds: time constant of the decay
FREE = 8.0  # changes: more than a network needs to converge after a link failure
BETTER = 0.25  # penalty of an improvement: a converging network makes many, and they are finite
FIRST_WAIT = 0.1  # seconds
LAST_WAIT = 20.0
MAX_WATCHED = 1 << 13  # nodes; the one that has been stable longest is dropped


class FlapDamping:
    """The penalties of all nodes."""

    def __init__(self) -> None:
        self._changes: dict[str, tuple[float, float]] = {}  # (penalty, when it was that); the latest change last

    def wait(self, address: str, now: float, is_better: bool = False) -> float:
        """Count a change and return the delay of its advertisement, in seconds."""
        count, at = self._changes.pop(address, (0.0, now))
        count = (BETTER if is_better else 1.0) + count * math.exp((at - now) / FADING)
        self._changes[address] = count, now
        if len(self._changes) > MAX_WATCHED:
            del self._changes[next(iter(self._changes))]
        if count <= FREE:
            return 0.0
        return min(LAST_WAIT, FIRST_WAIT * math.pow(2.0, min(count - FREE, 16.0)))

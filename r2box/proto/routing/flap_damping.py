"""How soon what has changed is told on, so that what never comes to rest does not keep a whole network busy.

Every change of a node's best route counts, those for the better less, and what has counted fades.  The first `FREE` are
told at once: networks change in bursts.  Beyond these, good news waits, twice as long for each change more; that a node
is gone is never held back.  (BGP's damping, RFC 2439, forbids what is restless; then a working route is lost, so here
it is only late.)
"""

from __future__ import annotations

import math

FADING = 20.0  # seconds in which e of what has counted become one
FREE = 8.0  # changes: more than a network needs to find its routes after a cut
BETTER = 0.25  # of a change: a new network finds better and better ways, and then there is none; nothing flaps upwards
FIRST_WAIT = 0.1  # seconds
LAST_WAIT = 20.0
MAX_WATCHED = 1 << 13  # nodes; those that have been calm for longest are forgotten


class FlapDamping:
    def __init__(self) -> None:
        self._changes: dict[str, tuple[float, float]] = {}  # how many of late, at what time; the latest last

    def wait(self, address: str, now: float, is_better: bool = False) -> float:
        """A change, now: how many seconds it is to be held back."""
        count, at = self._changes.pop(address, (0.0, now))
        count = (BETTER if is_better else 1.0) + count * math.exp((at - now) / FADING)
        self._changes[address] = count, now
        if len(self._changes) > MAX_WATCHED:
            del self._changes[next(iter(self._changes))]
        if count <= FREE:
            return 0.0
        return min(LAST_WAIT, FIRST_WAIT * math.pow(2.0, min(count - FREE, 16.0)))

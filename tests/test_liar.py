"""A neighbour that lies harms nobody else, with real daemons: the short runs of `rehearsal.py liars`."""

from __future__ import annotations

from lies import lies
from processes import Place


def test_a_lying_neighbour_harms_nobody_else(place: Place) -> None:
    for figures in lies(place, 30_000, 1.0):
        print(figures)

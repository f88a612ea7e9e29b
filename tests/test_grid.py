"""A grid of real daemons, a third of its links cut and healed under traffic: the short run of `rehearsal.py grid`."""

from __future__ import annotations

from grid import weather
from processes import Place


def test_a_grid_comes_to_rest_after_cuts_under_traffic(place: Place) -> None:
    for figures in weather(place, 3, 3, 3.0, 7, pause=0.2, restarts=1, workers=4, most=1 << 20, pings=2):
        print(figures)

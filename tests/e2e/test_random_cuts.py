"""A grid of real daemons, a third of its links cut and healed under traffic: `make rehearsal ARGS=grid` in short."""

from __future__ import annotations

from support.processes import Place
from support.rehearsal.grid import weather


def test_a_grid_comes_to_rest_after_cuts_under_traffic(place: Place) -> None:
    for figures in weather(place, 3, 3, 3.0, 7, pause=0.2, restarts=1, workers=4, most=1 << 20, pings=2):
        print(figures)

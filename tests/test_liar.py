"""A neighbour that lies harms nobody else, with real daemons: the short runs of `rehearsal.py liars`."""

from __future__ import annotations

import lies
from processes import Place


def test_a_lying_neighbour_harms_nobody_else(place: Place) -> None:
    with lies.new_square(place) as square:
        for run in (lies.bogus_paths(square), lies.others_names(square), lies.garbage(square)):
            for figures in run:
                print(figures)


def test_a_talkative_neighbour_harms_nobody_else(place: Place) -> None:
    with lies.new_square(place) as square:
        for names, way in ((1, False), (100, False), (100, True)):
            for figures in lies.flapping(square, 1.0, names, way):
                print(figures)
        for figures in lies.flood(square, 50_000):
            print(figures)

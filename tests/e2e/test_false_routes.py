"""A neighbour that lies harms nobody else, with real daemons: the short runs of `make rehearsal ARGS=liars`."""

from __future__ import annotations

from support.processes import Place
from support.rehearsal import false_routes


def test_a_lying_neighbour_harms_nobody_else(place: Place) -> None:
    with false_routes.new_square(place) as square:
        for run in (false_routes.bogus_paths(square), false_routes.others_names(square), false_routes.garbage(square)):
            for figures in run:
                print(figures)


def test_a_talkative_neighbour_harms_nobody_else(place: Place) -> None:
    with false_routes.new_square(place) as square:
        for names, way in ((1, False), (100, False), (100, True)):
            for figures in false_routes.flapping(square, 1.0, names, way):
                print(figures)
        for figures in false_routes.flood(square, 50_000):
            print(figures)

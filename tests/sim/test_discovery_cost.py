"""Discovery of a node with many neighbours: what it costs to tell all of them does not grow with their number."""

from __future__ import annotations

import sys

import pytest

from r2box.proto.routing.discovery import AT_ONCE, ENTRY, FRAME
from r2box.proto.wire import advertisement
from r2box.proto.wire.advertisement import BEGIN, END, AdvertisedNode, NodeRecord
from r2box.proto.wire.frames import MAX_REACH
from support.fake_neighbour import Liar, join_liar
from support.mesh import Mesh

MANY = 150
STEP = 0.02  # seconds
ONE = FRAME + ENTRY * MAX_REACH / 8  # the most that one frame can count for


def spent(liars: list[Liar]) -> float:
    return sum(it.frames * FRAME + it.entries * ENTRY for it in liars)


def test_what_many_neighbours_are_told_a_second_is_bounded() -> None:
    mesh = Mesh()
    hub = mesh.station("hub")
    liars: list[Liar] = []
    began = mesh.now

    def wait() -> None:
        mesh.run(STEP)
        assert spent(liars) <= mesh.now - began + AT_ONCE + ONE

    for number in range(MANY):
        liars.append(join_liar(mesh, hub, f"d{number}", idle=False))
        wait()
        liars[-1].tell([AdvertisedNode((), 0, NodeRecord(b"%08d" % number, ()))], BEGIN | END)
    while any(len(it.told) < MANY for it in liars):  # the hub, and the others but the one that is told
        wait()
    assert mesh.now - began < MANY * STEP + MANY * MANY * ENTRY + 1
    assert sum(it.frames for it in liars) < MANY * MANY / 8, "who waits for its turn is told much at once"
    mesh.run(2 * AT_ONCE)
    last = liars.pop()
    frames = sum(it.frames for it in liars)
    last.link.close("")
    mesh.run(STEP)
    assert all(it.told[f"d{MANY - 1}"] is None for it in liars), "what is gone is told at once"
    assert sum(it.frames for it in liars) - frames == len(liars)


def test_what_many_neighbours_were_told_takes_no_memory_and_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = 0
    encode = type(advertisement.ENTRY_FIELDS).encode

    def count(self: object, **values: object) -> bytes:
        nonlocal encoded
        encoded += self is advertisement.ENTRY_FIELDS
        return encode(self, **values)  # type: ignore[arg-type]

    monkeypatch.setattr(type(advertisement.ENTRY_FIELDS), "encode", count)
    mesh = Mesh()
    hub = mesh.station("hub")
    liars = []
    for number in range(MANY):
        liars.append(join_liar(mesh, hub, f"d{number}"))
        liars[-1].tell([AdvertisedNode((), 0, NodeRecord(b"%08d" % number, ()))], BEGIN | END)
    while any(len(it.told) < MANY for it in liars):
        mesh.run(STEP)
    assert sum(it.entries for it in liars) >= MANY * MANY
    assert encoded < 4 * MANY
    neighbours = hub.node.discovery._neighbours.values()
    kept = sum(sys.getsizeof(it.dirty) + sys.getsizeof(it.overrides) + sys.getsizeof(it.withdrawn) for it in neighbours)
    assert kept < MANY * 1000, "what each was told is what all were told"
    assert all(len(it.advertised) == MANY for it in neighbours), "the hub, and the others but itself"

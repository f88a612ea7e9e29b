"""Tunnels of datagrams through nodes in the mesh."""

from __future__ import annotations

from random import Random

import pytest

from r2box.proto.wire.datagrams import MAX_DATAGRAM, DatagramSplitter, frame
from r2box.proto.wire.frames import DATAGRAMS
from support.mesh import Mesh, Program


def some(random: Random, number: int) -> list[bytes]:
    sizes = [random.choice((0, 1, random.randrange(100), random.randrange(2000), MAX_DATAGRAM)) for _ in range(number)]
    return [random.randbytes(size) for size in sizes]


def cut(datagrams: list[bytes]) -> bytes:
    return b"".join(map(frame, datagrams))


# -- in memory ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_through_several_nodes(seed: int) -> None:
    """Slices and tiny wires change nothing."""
    mesh = Mesh(seed)
    alice, *_, dora = mesh.line("alice", "bob", "carl", "dora", slices=True)
    dora.serve("echo", lambda program: program.echo(), mode=DATAGRAMS)
    datagrams = some(mesh.random, 40)
    client = alice.tunnel("bob/carl/dora/echo", cut(datagrams), mode=DATAGRAMS)
    mesh.idle()
    cutter = DatagramSplitter()
    assert [bytes(it) for it in cutter.feed([client.sink])] == datagrams
    cutter.end()


@pytest.mark.parametrize(("theirs", "ours"), [(0, DATAGRAMS), (DATAGRAMS, 0), (0, 3)])
def test_both_ends_must_be_of_one_kind(theirs: int, ours: int) -> None:
    mesh = Mesh()
    alice, _, carl = mesh.line("alice", "bob", "carl")
    ran: list[Program] = []
    carl.serve("thing", ran.append, mode=theirs)
    client = alice.tunnel("bob/carl/thing", mode=ours)
    mesh.idle()
    assert client.outcome is not None
    why = {0: "carl: service/thing takes datagrams", DATAGRAMS: "carl: service/thing takes a stream of bytes"}
    assert why.get(ours, "bob: does not know tunnels of the kind 3") in client.outcome.text
    assert not ran

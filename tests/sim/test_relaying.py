"""Tunnels that neighbours open through a node: what is passed on to the next node, and when."""

from __future__ import annotations

import pytest

from r2box.proto.routing.relay_queue import AT_ONCE
from r2box.proto.routing.router import RELAYS_AT_ONCE
from r2box.proto.wire import frames
from r2box.proto.wire.frames import CLOSE, OPEN
from r2box.proto.wire.outcome import decode_outcome
from support.mesh import Mesh
from support.raw_neighbour import Raw, open_payload

MANY = 5 * AT_ONCE


def opens(raw: Raw) -> int:
    """How many tunnels have come to it since it was asked."""
    return sum(kind == OPEN for kind, _, _ in raw.listen())


def field() -> tuple[Mesh, Raw, Raw]:
    """Two neighbours of alice, of which the second is the next node."""
    mesh = Mesh()
    alice = mesh.station("alice")
    return mesh, Raw(alice).up(), Raw(alice, "bob").up()


def opened(count: int, first: int = 1, target: str = "bob") -> list[tuple[int, int, bytes]]:
    payload = frames.OPEN_FIELDS.encode(path=(target, "echo"), window=1000)
    return [(OPEN, 2 * label, payload) for label in range(first, first + count)]


def closed(count: int, first: int = 1) -> list[tuple[int, int, bytes]]:
    return [(CLOSE, 2 * label, b"") for label in range(first, first + count)]


def test_what_is_opened_and_closed_in_one_go_goes_nowhere() -> None:
    _, mallory, bob = field()
    alice = mallory.station
    alice.serve("echo", lambda program: program.echo())
    service = (OPEN, 2, open_payload())
    mallory.say(*(frame for pair in zip(opened(MANY), closed(MANY)) for frame in pair), service, (CLOSE, 2, b""))
    assert opens(bob) == 0
    assert not alice.programs
    assert sum(kind == CLOSE for kind, _, _ in mallory.listen()) == MANY + 1


def test_the_next_node_is_given_a_few_at_once_and_the_rest_when_it_has_looked_at_them() -> None:
    _, mallory, bob = field()
    mallory.say(*opened(MANY))
    came = opens(bob)
    assert came == AT_ONCE
    while came < MANY:
        bob.pong()
        more = opens(bob)
        assert min(AT_ONCE, MANY - came) <= more < 1.1 * AT_ONCE
        came += more
    assert not mallory.listen(), "nothing is refused"


def test_others_do_not_wait_for_a_neighbour_that_opens_many() -> None:
    _, mallory, bob = field()
    carl = Raw(mallory.station, "carl").up()
    mallory.say(*opened(MANY))
    bob.listen()
    carl.say(*opened(1))
    assert opens(bob) == 1
    mallory.say(*opened(1, MANY + 1, target="carl"))
    assert opens(carl) == 1, "by another link"


def test_what_is_closed_before_its_turn_costs_the_next_node_nothing() -> None:
    _, mallory, bob = field()
    mallory.say(*opened(MANY))
    mallory.say(*closed(MANY - 10))
    assert sum(kind == CLOSE for kind, _, _ in mallory.listen()) == MANY - 10
    assert opens(bob) == AT_ONCE
    bob.pong()
    assert opens(bob) == 10


@pytest.mark.parametrize("resume_timeout", [0, 60])
def test_what_waits_for_a_link_that_ends_ends_too(resume_timeout: int) -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    mallory, bob = Raw(alice).up(), Raw(alice, "bob", resume_timeout=resume_timeout).up()
    mallory.say(*opened(MANY))
    bob.link.eof(mesh.now)
    mesh.idle()
    if resume_timeout:
        assert not mallory.listen(), "a suspended link keeps its tunnels"
        bob.link.close("enough")
    texts = [decode_outcome(payload).text for kind, _, payload in mallory.listen() if kind == CLOSE]
    assert len(texts) == MANY
    assert mallory.link.streams.relayed == MANY
    mallory.say(*closed(MANY))
    assert mallory.link.streams.relayed == 0


def test_a_thousand_tunnels_at_once_through_a_node() -> None:
    mesh = Mesh()
    alice, _, carl = mesh.line("alice", "bob", "carl")
    carl.serve("echo", lambda program: program.echo())
    began = mesh.now
    clients = [alice.tunnel("bob/carl/echo", b"hello") for _ in range(1000)]
    mesh.idle()
    assert [client.sink for client in clients] == [b"hello"] * 1000
    assert mesh.now - began < 1
    mesh.check_closed()


def test_tunnels_that_are_closed_before_they_stand_count_tenfold() -> None:
    """Those that stood do not."""
    mesh, mallory, bob = field()
    window = frames.ACCEPT_FIELDS.encode(window=1000)

    def passed(count: int, accepts: bool) -> int:
        """How many of so many bob got, of which each is closed when he has, or when it stands."""
        came = 0
        for _ in range(count):
            mallory.say(*opened(1))
            routes = [route for kind, route, _ in bob.listen() if kind == OPEN]
            came += len(routes)
            for route in routes:
                bob.pong()
                if accepts:
                    bob.say((frames.ACCEPT, route ^ 1, window))
            mallory.say(*closed(1))
            for route in routes:
                bob.say((CLOSE, route ^ 1, b""))
            bob.listen()
            mallory.listen()
        return came

    assert passed(int(RELAYS_AT_ONCE) // 2, accepts=True) == RELAYS_AT_ONCE // 2
    assert passed(200, accepts=False) == RELAYS_AT_ONCE // 20
    mesh.now += 60
    assert passed(10, accepts=True) == 10

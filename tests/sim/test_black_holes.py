"""Ways that lead to nobody: tunnels take another, and those after them do not try the bad one first."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from r2box.net.daemon.blackhole import PROBE_TIME, BlackholeCheck
from r2box.proto.routing.discovery import SUSPECT_TIME
from r2box.proto.routing.failover import MAX_ROUTES_TRIED, Failover
from r2box.proto.routing.liveness import MAX_PROBES
from r2box.proto.routing.service_entry import ServiceEntry
from r2box.proto.wire import messages
from r2box.proto.wire.advertisement import AdvertisedNode
from r2box.proto.wire.outcome import LOST, REFUSED, UNKNOWN, Outcome
from r2box.proto.wire.route import Message
from support.fake_neighbour import Liar, claim, join_liar
from support.mesh import Mesh, Program, Station


class Clock:
    """What Doubt needs of a loop, on the clock of a mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    def later(self, delay: float, what: Callable[[], None]) -> Any:
        class Timer:
            is_on = True

            def cancel(self) -> None:
                self.is_on = False

        timer = Timer()
        self.mesh.later(delay, lambda: what() if timer.is_on else None)
        return timer


def doubting(mesh: Mesh, station: Station, path: str, data: bytes = b"hello") -> Program:
    """A tunnel as the daemon opens it."""
    program = station.tunnel(path, data)
    attempt = program.stream.far  # type: ignore[union-attr]
    if isinstance(attempt, Failover):
        BlackholeCheck(Clock(mesh), station.node, attempt)  # type: ignore[arg-type]
    return program


def with_liar() -> tuple[Mesh, Station, Station, Liar]:
    """alice - bob - carl, and beside alice a liar that claims to be next to carl."""
    mesh = Mesh()
    alice, _, carl = mesh.line("alice", "bob", "carl")
    carl.serve("echo", Program.echo)
    liar = join_liar(mesh, alice)
    liar.tell([claim(services=()), claim("carl")])
    mesh.idle()
    table = alice.node.discovery.table
    assert table.nodes["carl"].best is not None
    assert table.nodes["carl"].best.path == ("mallory", "carl")
    return mesh, alice, carl, liar


def test_a_black_hole_is_left_and_then_avoided() -> None:
    mesh, alice, carl, liar = with_liar()
    first = doubting(mesh, alice, "carl/echo")
    mesh.run(2 * PROBE_TIME - 0.5)
    assert liar.opens
    assert not first.accepted
    mesh.run(1.0)
    assert first.sink == b"hello"
    assert first.outcome == Outcome()
    second = doubting(mesh, alice, "any/echo")
    mesh.run(1.0)
    assert second.sink == b"hello"
    assert len(liar.opens) == 1
    assert len(carl.programs) == 2
    mesh.run(SUSPECT_TIME)
    doubting(mesh, alice, "carl/echo")
    mesh.run(1.0)
    assert len(liar.opens) == 2  # it may have been a fault that has passed


def test_a_node_doubts_the_way_that_it_chooses_for_others() -> None:
    """As a gate does, which resolves the rest of a path."""
    mesh, alice, carl, liar = with_liar()
    dora = mesh.station("dora")
    mesh.join(dora, alice)
    mesh.idle()
    alice.node.suspect = lambda attempt: BlackholeCheck(Clock(mesh), alice.node, attempt)  # type: ignore[arg-type]
    program = dora.tunnel("alice/carl/echo", b"hello")
    mesh.run(2 * PROBE_TIME + 0.5)
    assert liar.opens
    assert program.sink == b"hello"
    assert carl.programs[0].origin == ("bob", "alice", "dora", "child/1")


def test_a_slow_service_is_waited_for_and_started_once() -> None:
    mesh = Mesh()
    alice, bob, carl, dave = (mesh.station(name) for name in ("alice", "bob", "carl", "dave"))
    for one, other in ((alice, bob), (bob, dave), (alice, carl), (carl, dave)):
        mesh.join(one, other)
    dave.serve("slow", Program.echo)
    taken = []

    def offer(service: ServiceEntry, stream: Any, origin: tuple[str, ...]) -> None:
        taken.append(stream)

    dave.offer = offer  # type: ignore[method-assign]
    mesh.idle()
    program = doubting(mesh, alice, "dave/slow")
    mesh.run(10 * PROBE_TIME)
    assert len(taken) == 1
    assert not program.is_over
    taken[0].accept()
    mesh.run(1.0)
    assert program.accepted


@pytest.mark.parametrize(("code", "avoided"), [(UNKNOWN, True), (REFUSED, False), (LOST, False)])
def test_what_a_way_refuses_goes_another_at_once(code: int, avoided: bool) -> None:
    mesh, alice, _, liar = with_liar()
    liar.answer = Outcome(code, "no")
    for _ in range(2):
        program = doubting(mesh, alice, "carl/echo")
        mesh.run(0.5)
        assert program.sink == b"hello"
    assert len(liar.opens) == (1 if avoided else 2)


def test_a_name_that_is_wrong_is_nobody_elses_fault() -> None:
    """Who asks carl for what it does not offer does not send others to a node that is farther away."""
    mesh = Mesh()
    alice, bob, carl, dave, eve = (mesh.station(name) for name in ("alice", "bob", "carl", "dave", "eve"))
    for one, other in ((alice, bob), (bob, carl), (alice, dave), (dave, carl)):
        mesh.join(one, other)
    mesh.join(alice, eve, latency=0.2)
    for station in (carl, eve):
        station.serve("web", Program.echo)
    mesh.run(2.0)
    program = doubting(mesh, eve, "alice/carl/wbe")
    mesh.run(2.0)
    assert program.outcome is not None
    assert program.outcome.text.startswith("carl: does not know wbe")
    assert [route.path[-1] for route in alice.node.discovery.nearest("web")] == ["carl", "eve"]


def test_what_the_target_refuses_is_said_by_the_target() -> None:
    mesh, alice, carl, _liar = with_liar()
    carl.serve("mine", Program.echo, allow=("nobody",))
    mesh.idle()
    program = doubting(mesh, alice, "carl/mine")
    mesh.run(20.0)
    assert program.outcome is not None
    assert program.outcome.code == REFUSED
    assert "carl" in program.outcome.text


def test_another_path_of_the_same_neighbour_is_not_doubted() -> None:
    mesh, alice, _, liar = with_liar()
    liar.answer = Outcome(UNKNOWN, "no")
    doubting(mesh, alice, "carl/echo")
    mesh.run(0.5)
    liar.tell([claim("carl", cost=7)])  # the same, at another price
    mesh.run(0.5)
    doubting(mesh, alice, "carl/echo")
    mesh.run(0.5)
    assert len(liar.opens) == 1
    liar.tell([claim("near", "carl")])
    mesh.run(0.5)
    assert [route.path[0] for route in alice.node.discovery.routes_to("carl")] == ["mallory", "bob"]


def test_a_client_that_goes_away_meanwhile_opens_nothing() -> None:
    mesh, alice, carl, liar = with_liar()
    program = doubting(mesh, alice, "carl/echo")
    mesh.run(PROBE_TIME + 1)
    program.abort(Outcome(LOST, "gone"))
    mesh.run(20.0)
    assert len(liar.opens) == 1
    assert not carl.programs


def test_a_sign_of_life_comes_from_the_end_of_the_way() -> None:
    mesh, alice, _, liar = with_liar()
    answers: list[bool] = []
    probe = alice.node.probes.probe
    number = probe(("bob", "carl"), answers.append)
    mesh.run(0.5)
    assert answers == [True]
    number = probe(("mallory", "carl"), answers.append)
    pong = messages.encode_body(messages.PONG, number, data=b"")
    for trail in ((), ("dave",), ("carl", "carl")):  # another's answer, or one from another place
        liar.link.message(Message((), trail, pong))
    mesh.run(0.5)
    assert answers == [True]
    probe(("bob", "nobody"), answers.append)
    mesh.run(0.5)
    assert answers == [True, False]
    alice.node.probes.forget(number)
    assert all(probe(("mallory", "carl"), answers.append) for _ in range(MAX_PROBES))
    assert not probe(("bob", "carl"), answers.append)


def test_not_every_server_of_a_service_is_asked() -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    liar = join_liar(mesh, alice)
    liar.answer = Outcome(UNKNOWN, "no")
    liar.tell([claim(), *(claim(f"n{number}") for number in range(50))])
    mesh.idle()
    program = doubting(mesh, alice, "any/echo")
    mesh.run(1.0)
    assert program.is_over
    assert len(liar.opens) == MAX_ROUTES_TRIED


def test_a_neighbour_that_never_serves_is_not_the_nearest_for_long() -> None:
    mesh, alice, carl, liar = with_liar()
    liar.tell([claim()])  # it says that it offers the service itself
    mesh.idle()
    for _ in range(2):
        program = doubting(mesh, alice, "any/echo")
        mesh.run(5 * PROBE_TIME)
        assert program.sink == b"hello"
    assert [path[-1] for path in liar.opens] == ["service/echo"] * 2  # as its own, and as what carl offers
    assert len(carl.programs) == 2


def test_what_is_restless_but_there_is_never_told_to_be_gone() -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    liar, eve = join_liar(mesh, alice), join_liar(mesh, alice, "eve")
    eve.tell([claim(services=())])
    for number in range(100):
        liar.tell([claim(f"way{number % 3}", "carl", services=())])
        mesh.run(0.2)
        assert eve.told["carl"] is not None
    assert eve.entries < 20
    mesh.run(1.5)
    assert eve.told["carl"] == ("mallory", "way0", "carl")
    mesh.run(60)
    before = eve.entries
    for number in range(200):
        liar.tell([claim("fred", services=()) if number % 2 else AdvertisedNode(("fred",), None)])
        mesh.run(0.1)
    assert eve.entries - before < 30  # what really comes and goes is
    mesh.run(30)
    assert eve.told["fred"] == ("mallory", "fred")

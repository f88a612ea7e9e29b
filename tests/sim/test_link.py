"""One link: how it begins, what ends it and what each side is told, who may come second, and how much it may cost."""

from __future__ import annotations

import tracemalloc
from random import Random
from typing import Any

import pytest

from r2box.proto.link import link as links
from r2box.proto.link import stream_table
from r2box.proto.link.keepalive import HELLO_TIMEOUT, KEEPALIVE, MISSES
from r2box.proto.link.link import DOWN, UP, Link
from r2box.proto.link.sender import MARK
from r2box.proto.link.stream import INITIAL_WINDOW, MIN_WINDOW
from r2box.proto.link.stream_table import GUARANTEED, STREAM_COST
from r2box.proto.memory_limit import MemoryLimit
from r2box.proto.routing.link_collision import PROBE
from r2box.proto.routing.router import OPENS_AT_ONCE, RELAYS_AT_ONCE
from r2box.proto.wire import frames as wire
from r2box.proto.wire import messages
from r2box.proto.wire.fields import Fields, encode_varint
from r2box.proto.wire.outcome import BUSY, Outcome, decode_outcome
from r2box.proto.wire.route import Message, encode_message
from support.frames import decode_all, mutate, slices
from support.mesh import Mesh, Program, Station
from support.raw_neighbour import OPENED, Frame, Raw, kinds, mark, open_payload

WINDOW = wire.ACCEPT_FIELDS.encode(window=INITIAL_WINDOW)


def pair(**options: Any) -> tuple[Mesh, Station, Station]:
    mesh = Mesh()
    alice, bob = mesh.station("alice"), mesh.station("bob")
    mesh.join(alice, bob, **options)
    mesh.idle()
    return mesh, alice, bob


def bystander(mesh: Mesh) -> tuple[Station, Program]:
    """alice, with a tunnel to bob that must outlive whatever else befalls alice."""
    alice, bob = mesh.line("alice", "bob")
    for station in (alice, bob):
        station.serve("echo", lambda program: program.echo())
    client = alice.tunnel("bob/echo", b"before ", ends=False)
    mesh.idle()
    return alice, client


def still_there(client: Program) -> None:
    client.write(b"after")
    client.mesh.idle()
    assert client.sink == b"before after"


# -- the beginning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sliced", [False, True])
def test_up_on_both_sides(sliced: bool) -> None:
    mesh, alice, bob = pair(slices=sliced, expect="bob")
    assert (alice.log, bob.log) == (["up bob"], ["up alice"])
    assert alice.link("bob").peer["software"] == "mesh"
    mesh.run(600)
    assert (alice.log, bob.log) == (["up bob"], ["up alice"])
    assert alice.link("bob").rtt == pytest.approx(0.02)


def test_a_wrong_address_is_refused_on_both_sides() -> None:
    _, alice, bob = pair(expect="carl")
    why = "expected carl, but the neighbour is bob"
    assert alice.log == [f"down bob: {why}"]
    assert bob.log == [f"down alice: alice ended it: {why}"]
    assert not alice.node.links
    assert not bob.node.links


def test_a_link_to_oneself() -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    mesh.join(alice, alice)
    mesh.idle()
    assert alice.log[0] == "down alice: a link from alice to itself"
    assert not alice.node.links


def test_two_nodes_of_one_address() -> None:
    mesh = Mesh()
    one = mesh.station("alice")
    two = mesh.station("alice")
    mesh.join(one, two)
    mesh.idle()
    for station in (one, two):
        assert "the neighbour has the same address as this node: alice" in station.log[0]
        assert not station.node.links


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        ({"oldest": 2, "newest": 3}, "no common protocol version: the neighbour speaks 2 to 3, this r2box 1 to 1"),
        ({"oldest": 0, "newest": 0}, "no common protocol version: the neighbour speaks 0 to 0, this r2box 1 to 1"),
        ({"address": ""}, "the neighbour's hello: an address cannot be empty"),
        ({"address": "a/b"}, "the neighbour's hello: 'a/b' is not an address: '/' is not a letter"),
        ({"address": "service"}, "the neighbour's hello: the address 'service' is reserved"),
        ({"address": "x" * 65}, "has 65 characters"),
        ({"role": 2}, "the neighbour has an unknown role: 2"),
        ({"role": 1}, "a client where a node was expected"),
    ],
)
def test_a_hello_that_is_refused(hello: dict[str, Any], reason: str) -> None:
    raw = Raw(Mesh().station("alice"), **hello).greet()
    assert reason in raw.farewell()
    assert not raw.station.node.links


@pytest.mark.parametrize(("oldest", "newest"), [(1, 1), (1, 2), (0, 1), (1, 99)])
def test_versions_that_overlap(oldest: int, newest: int) -> None:
    Raw(Mesh().station("alice"), oldest=oldest, newest=newest).up()


def test_a_hello_of_a_later_version_may_say_more() -> None:
    raw = Raw(Mesh().station("alice"))
    later = Fields("later", x=(50, "bytes"), y=(51, "uint"))
    raw.feed(wire.MAGIC)
    payload = later.encode(x=b"what", y=7) + wire.HELLO_FIELDS.encode(**raw.hello)
    raw.say((wire.HELLO, 0, payload), (0x91, 0, b"optional"), (wire.READY, 0, b""))
    assert raw.link.state == UP


@pytest.mark.parametrize("said", [b"", wire.MAGIC, "hello"])
def test_silence_ends_after_ten_seconds(said: bytes | str) -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    raw = Raw(alice)
    if said == "hello":
        raw.greet()
    elif said:
        raw.feed(wire.MAGIC)
    mesh.now += HELLO_TIMEOUT - 0.1
    raw.link.tick(mesh.now)
    assert raw.link.state != DOWN
    assert raw.link.deadline() == pytest.approx(mesh.now + 0.1)
    mesh.now += 0.1
    raw.link.tick(mesh.now)
    missing = "answer to our hello" if said == "hello" else "hello"
    assert raw.farewell() == f"no {missing} within 10 s: is there an r2 at the other end?"


def test_not_an_r2() -> None:
    raw = Raw(Mesh().station("alice"))
    raw.feed(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert raw.farewell() == "not an r2 neighbour: it began with 'SSH-2.0-OpenSSH_9.2'"


def test_an_end_before_the_hello_is_complete() -> None:
    raw = Raw(Mesh().station("alice"))
    raw.link.eof(raw.mesh.now)
    assert raw.station.log == ["down : closed before its hello was complete"]


def test_an_end_without_a_farewell() -> None:
    _, alice, bob = pair()
    alice.ports[alice.link("bob")].wire.cut()
    assert alice.log[1:] == ["down bob: closed without BYE"]
    assert bob.log[1:] == ["down alice: closed without BYE"]


def test_a_farewell_tells_the_reason() -> None:
    mesh, alice, bob = pair()
    links_ = alice.link("bob"), bob.link("alice")
    alice.link("bob").close("alice is shutting down", orderly=True)
    mesh.idle()
    assert alice.log[1:] == ["down bob: alice is shutting down"]
    assert bob.log[1:] == ["down alice: alice ended it: alice is shutting down"]
    assert all(link.is_orderly for link in links_)


@pytest.mark.parametrize("kind", sorted(set(wire.FRAMES) - {wire.HELLO, wire.READY, wire.RESUME, wire.BYE}))
@pytest.mark.parametrize("greeted", [False, True])
def test_frames_before_the_link_is_up(kind: int, greeted: bool) -> None:
    raw = Raw(Mesh().station("alice"))
    raw.greet() if greeted else raw.feed(wire.MAGIC)
    raw.say((kind, 2 if wire.FRAMES[kind][1] else 0, b""))
    assert raw.farewell() == f"a {wire.FRAMES[kind][0]} frame before the link is up"


def test_a_refusal_may_come_before_the_hello() -> None:
    raw = Raw(Mesh().station("alice"))
    raw.feed(wire.MAGIC)
    raw.say((wire.BYE, 0, wire.BYE_FIELDS.encode(text="not today")))
    assert raw.station.log == ["down : the neighbour ended it: not today"]


# -- a second link -----------------------------------------------------------------------------------------------------


def test_a_second_link_to_a_living_neighbour_is_refused() -> None:
    mesh, alice, bob = pair()
    bob.serve("echo", lambda program: program.echo())
    client = alice.tunnel("bob/echo", b"x", ends=False)
    mesh.idle()
    mesh.join(alice, bob)
    mesh.run(1)
    assert len(alice.log) == len(bob.log) == 2
    assert any("is already linked to" in line for line in alice.log)
    assert any("is already linked to" in line for line in bob.log)
    assert client.outcome is None
    client.write(b"y")
    mesh.idle()
    assert client.sink == b"xy"


def test_a_neighbour_that_was_restarted_takes_over() -> None:
    """The old link is dead, but nobody was told."""
    mesh, alice, _ = pair()
    alice.ports[alice.link("bob")].wire.freeze()
    bob = mesh.station("bob")
    bob.serve("echo", lambda program: program.echo())
    mesh.run(5)
    mesh.join(bob, alice)
    mesh.run(PROBE - 0.1)
    assert alice.log == ["up bob"]
    mesh.run(0.3)
    assert alice.log[1] == "down bob: no answer to a probe, and the neighbour has connected again"
    assert alice.log[2:] == ["up bob"]
    assert bob.log == ["up alice"]
    client = alice.tunnel("bob/echo", b"x")
    mesh.idle()
    assert client.sink == b"x"


def test_only_one_newcomer_waits() -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    old, second, third = (Raw(alice, "bob") for _ in range(3))
    old.up()
    second.greet()
    assert second.link.state not in (UP, DOWN)
    third.greet()
    assert third.farewell() == "alice is already linked to bob"
    old.listen()
    old.pong()
    assert second.farewell() == "alice is already linked to bob"
    assert alice.node.links == {"bob": old.link}


def test_a_newcomer_that_leaves_makes_room() -> None:
    alice = Mesh().station("alice")
    old, second, third = (Raw(alice, "bob") for _ in range(3))
    old.up()
    second.greet()
    second.link.eof(second.mesh.now)
    third.greet()
    old.link.eof(old.mesh.now)
    assert "READY" in kinds(third.listen())
    third.say((wire.READY, 0, b""))
    assert alice.node.links == {"bob": third.link}


@pytest.mark.parametrize("seed", range(10))
def test_two_nodes_that_connect_to_each_other_at_once(seed: int) -> None:
    """One link stays, the same one on both sides, and none is left that nobody can see."""
    mesh = Mesh(seed=seed)
    alice, bob = mesh.station("alice"), mesh.station("bob")
    for station in (alice, bob):
        station.serve("echo", lambda program: program.echo())
    for a, b in ((alice, bob), (bob, alice)):
        mesh.join(a, b, latency=mesh.random.uniform(0.01, 0.02))
        if seed % 2:
            mesh.run(mesh.random.uniform(0, 0.01))
    mesh.run(20)
    assert [port.link.state for port in mesh.ports].count(UP) == 2
    (one,) = alice.node.links.values()
    (two,) = bob.node.links.values()
    assert alice.ports[one].peer is bob.ports[two]
    for a, b in ((alice, bob), (bob, alice)):
        client = a.tunnel(f"{b.address}/echo", b"x")
        mesh.idle()
        assert client.sink == b"x"
    mesh.check_closed()


# -- keepalive ---------------------------------------------------------------------------------------------------------


def test_a_dead_neighbour_is_noticed() -> None:
    mesh, alice, bob = pair()
    bob.serve("echo", lambda program: program.echo())
    client = alice.tunnel("bob/echo", b"x", ends=False)
    mesh.idle()
    alice.ports[alice.link("bob")].wire.freeze()
    mesh.run(KEEPALIVE * (MISSES + 1) - 1)
    assert alice.log == ["up bob"]
    mesh.run(1)
    assert alice.log[1:] == ["down bob: nothing received for 60 s"]
    assert client.outcome is not None
    assert client.outcome.text == "alice: the link to bob is down (nothing received for 60 s)"


def test_an_idle_link_costs_two_small_frames_in_fifteen_seconds() -> None:
    mesh, alice, _ = pair()
    link = alice.link("bob")
    before = link.sender.in_flight.sent + link.received
    mesh.run(KEEPALIVE * 100)
    assert link.sender.in_flight.sent + link.received - before <= 100 * 4 * (3 + MARK)


# -- what a neighbour must not do --------------------------------------------------------------------------------------

TOO_MUCH = [(wire.DATA, 2, b"x" * 200_000)] * 2


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([OPENED, OPENED], "an OPEN on a label that is in use"),
        ([(wire.OPEN, 3, open_payload())], "an OPEN with a label of the receiver's"),
        ([(wire.OPEN, 2, open_payload(window=0))], "a credit of 0 bytes on top of 0"),
        ([(wire.OPEN, 2, open_payload(window=1 << 28))], "a credit of 268435456 bytes"),
        ([(wire.OPEN, 2, b"\x01\x01 ")], "an invalid path"),
        ([(wire.DATA, 2, b"x")], "a DATA frame on a route that is not open"),
        ([(wire.CREDIT, 3, b"\x05")], "a CREDIT frame on a route that is not open"),
        ([(wire.CLOSE, 9, b"")], "a CLOSE frame on a route that is not open"),
        ([OPENED, (wire.CLOSE, 2, b""), (wire.DATA, 2, b"x")], "a DATA frame on a route that is not open"),
        ([OPENED, *TOO_MUCH], "credit overrun: 200000 bytes on a route with a credit of 62144"),
        ([OPENED, (wire.FIN, 2, b""), (wire.DATA, 2, b"")], "data after the end of a stream"),
        ([OPENED, (wire.FIN, 2, b""), (wire.FIN, 2, b"")], "a second end of one stream"),
        ([OPENED, (wire.ACCEPT, 2, WINDOW)], "an unexpected ACCEPT"),
        ([OPENED, (wire.CREDIT, 2, b"\x00")], "a credit of 0 bytes on top of"),
        ([OPENED, (wire.CREDIT, 2, b"\xff\xff\xff\x7f")], "a credit of 268435455 bytes on top of"),
        ([OPENED, (wire.CREDIT, 2, b"")], "an invalid credit"),
        ([OPENED, (wire.CREDIT, 2, b"\x01\x01")], "an invalid credit"),
        ([OPENED, (wire.CLOSE, 2, b"\x01")], "CLOSE: a truncated field"),
        ([(wire.READY, 0, b"")], "an unexpected READY"),
        ([(wire.HELLO, 0, b"")], "a second hello"),
        ([(wire.MESSAGE, 0, b"\x04\x01\x01")], "a message with 1 descriptors, of which 0 came"),
        ([(wire.MESSAGE, 0, b"\x07")], "MESSAGE: a truncated field"),
        ([(0x55, 0, b"")], "a frame of the unknown type 0x55"),
        ([(wire.PING, 0, b"")], "a PING of 0 bytes"),
        ([(wire.PING, 0, bytes(17))], "a PING of 17 bytes"),
        ([(wire.PONG, 0, b"")], "a PONG without a PING"),
        ([(wire.PONG, 0, b"\xff" * 16)], "a PONG without a PING"),
        ([(wire.RESUME, 0, b"")], "an unexpected RESUME"),
    ],
)
def test_what_ends_a_link(frames: list[Frame], reason: str) -> None:
    mesh = Mesh()
    alice, client = bystander(mesh)
    # the service reads nothing, so that nothing is answered in between
    alice.node.services["echo"].owner = lambda program: setattr(program, "reads", False)
    raw = Raw(alice).up()
    raw.say(*frames)
    assert reason in raw.farewell()
    assert all(program.is_over for program in alice.programs)
    raw.say((wire.PING, 0, b"still?"))  # and what comes later is not looked at
    assert not raw.listen()
    assert "mallory" not in alice.node.links
    still_there(client)


def test_a_second_accept() -> None:
    mesh = Mesh()
    alice, client = bystander(mesh)
    raw = Raw(alice).up()
    mine = alice.tunnel("mallory/x", b"data", ends=False)
    raw.listen()
    raw.say((wire.ACCEPT, 3, WINDOW))
    assert mine.accepted
    raw.say((wire.ACCEPT, 3, WINDOW))
    assert raw.farewell() == "an unexpected ACCEPT"
    assert mine.outcome is not None
    assert "mallory is down (an unexpected ACCEPT" in mine.outcome.text
    still_there(client)


def test_too_many_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit a tunnel is refused; who leaves off closing what was refused is no neighbour."""
    monkeypatch.setattr(stream_table, "MAX_ROUTES", 100)
    mesh = Mesh()
    alice, client = bystander(mesh)
    alice.node.limits.change({"streams": 20})
    alice.serve("stall", lambda program: setattr(program, "reads", False))
    raw = Raw(alice).up()
    for label in range(20):
        raw.say((wire.OPEN, 2 * label + 2, open_payload("stall")))
    assert all(kind != wire.CLOSE for kind, _, _ in raw.listen())
    for label in range(20, 100):
        raw.say((wire.OPEN, 2 * label + 2, open_payload("stall")))
    closed = [frame for frame in raw.listen() if frame[0] == wire.CLOSE]
    assert len(closed) == 80
    assert decode_outcome(closed[0][2]).text == "alice: 20 tunnels are open on this link already; retry later"
    assert raw.link.state == UP
    raw.say((wire.OPEN, 1000, open_payload("stall")))
    assert raw.farewell() == "more than 100 routes"
    still_there(client)


def test_a_full_link_refuses_one_tunnel_and_no_more() -> None:
    """Each side has tunnels of its own."""
    mesh, alice, bob = pair()
    for station in (alice, bob):
        station.node.limits.change({"streams": 20})
    carl = mesh.station("carl")
    mesh.join(carl, alice)
    mesh.idle()
    for station in (alice, bob):
        station.serve("echo", lambda program: program.echo())
    clients = [alice.tunnel("bob/echo", b"x", ends=False) for _ in range(19)]
    mesh.idle()
    clients += [alice.tunnel("bob/echo", b"x", ends=False), bob.tunnel("alice/echo", b"x", ends=False)]
    mesh.idle()
    late = carl.tunnel("alice/bob/echo", b"x")
    mesh.idle()
    assert (alice.log[0], bob.log) == ("up bob", ["up alice"])
    assert all(client.sink == b"x" for client in clients)
    assert late.outcome is not None
    assert late.outcome.text == "alice: the link to bob carries as many tunnels as it can"


def test_a_kind_of_tunnel_that_is_not_known_is_refused_alone() -> None:
    mesh = Mesh()
    alice, client = bystander(mesh)
    raw = Raw(alice).up()
    raw.say((wire.OPEN, 2, open_payload(mode=1)), OPENED[:1] + (4,) + OPENED[2:])
    closed = [frame for frame in raw.listen() if frame[0] == wire.CLOSE]
    assert [route for _, route, _ in closed] == [3]
    assert decode_outcome(closed[0][2]).text == "alice: does not know tunnels of the kind 1"
    assert raw.link.state == UP
    still_there(client)


def test_after_its_close_a_side_ignores_all_but_the_others() -> None:
    raw = Raw(Mesh().station("alice")).up()
    raw.say((wire.OPEN, 2, open_payload("nobody")))
    assert kinds(raw.listen())[-1:] == ["CLOSE"]
    raw.say((wire.DATA, 2, bytes(900_000)), (wire.CREDIT, 2, b"\x00"), (wire.FIN, 2, b""), (wire.FIN, 2, b""))
    raw.say((wire.STOP, 2, b""), (wire.ACCEPT, 2, b""))
    assert raw.link.state == UP
    assert raw.listen() == []
    raw.say((wire.CLOSE, 2, b""), (wire.OPEN, 2, open_payload("nobody")))
    assert kinds(raw.listen()) == ["CLOSE"]


def test_nothing_is_sent_after_a_close() -> None:
    """Not even when the stream was about to send, and waits for its reader to take what came before the end."""
    alice = Mesh().station("alice")
    raw = Raw(alice).up()
    mine = alice.tunnel("mallory/x", bytes(100_000), ends=False)
    mine.reads = False
    raw.listen()
    raw.say((wire.ACCEPT, 3, WINDOW), (wire.DATA, 3, b"last words"), (wire.CLOSE, 3, b""))
    assert kinds(raw.listen()) == ["CLOSE"]
    assert mine.outcome is None
    mine.read()
    assert mine.sink == b"last words"
    assert mine.outcome == Outcome()
    assert raw.link.receive_limit.granted == 0


def test_the_end_of_a_stream_gives_its_credit_back() -> None:
    """A route that is half closed holds no part of the budget."""
    alice = Mesh().station("alice")
    alice.serve("echo", lambda program: None)
    raw = Raw(alice).up()
    raw.say(OPENED)
    assert raw.link.receive_limit.granted == INITIAL_WINDOW
    raw.say((wire.DATA, 2, b"x"), (wire.FIN, 2, b""))
    assert alice.programs[0].eof
    assert raw.link.receive_limit.granted == 0
    assert len(raw.link.streams) == 1


def test_a_ping_is_answered_with_its_payload() -> None:
    raw = Raw(Mesh().station("alice")).up()
    place = raw.said
    raw.ping(2)
    assert raw.listen() == [(wire.PONG, 0, mark(place, 0)), (wire.PONG, 0, mark(place + 19, 1))]


@pytest.mark.parametrize("error", [-1, 1, -70_000, 70_000])
@pytest.mark.parametrize("size", [1, 50])
def test_a_ping_tells_what_was_lost_or_added(error: int, size: int) -> None:
    """Wherever the pieces end in which it comes."""
    raw = Raw(Mesh().station("alice")).up()
    raw.ping()
    raw.say((0x90, 0, bytes(70_000 // 2)), (0x90, 0, bytes(70_000 // 2)))
    frame = wire.encode_frame(wire.PING, 0, mark(raw.said + error, 1))
    for at in range(0, len(frame), size):
        raw.feed(frame[at : at + size])
    raw.listen()
    assert raw.link.reason.startswith(f"{abs(error)} bytes were {'lost' if error > 0 else 'added'} on the way (")
    assert "--lossy" in raw.link.reason
    assert raw.farewell() == f"{abs(error)} bytes were {'lost' if error > 0 else 'added'} on the way"


def test_a_hint_at_lossy_transports_where_it_helps() -> None:
    """Only when the link was up, for then the transport once carried what it should."""
    raw = Raw(Mesh().station("alice")).up()
    raw.say((0x55, 0, b""))
    raw.farewell()
    assert raw.link.reason.endswith(f"({links.LOSSY})")
    raw = Raw(Mesh().station("alice")).greet()
    raw.say((0x55, 0, b""))
    raw.farewell()
    assert "--lossy" not in raw.link.reason


def test_a_pong_is_for_what_was_sent() -> None:
    """It acknowledges, so it cannot be for more; an answer to no mark that still can be true is ignored."""
    raw = Raw(Mesh().station("alice"), resume_timeout=60).up()
    raw.pong()
    raw.pong()
    sent = raw.link.sender.replay.sent
    raw.say((wire.PONG, 0, mark(0, 1 << 63)), (wire.PONG, 0, mark(sent, 999)))
    assert raw.link.state == UP
    assert raw.link.sender.replay.acked == sent
    raw.say((wire.PONG, 0, mark(sent + 1, 1)))
    assert raw.farewell() == "a PONG without a PING"


# -- a turn of work ----------------------------------------------------------------------------------------------------


def test_a_turn_of_work_ends_between_two_frames() -> None:
    """Costly frames count for more; what is left is given again, wherever the turn ended."""
    raw = Raw(Mesh().station("alice")).up()
    data = b"".join(
        wire.encode_frame(wire.OPEN, 2 * number + 2, open_payload("no")) + wire.encode_frame(wire.CLOSE, 2 * number + 2)
        for number in range(100)
    )
    turns = 0
    while data:
        taken = raw.link.receive(data, raw.mesh.now, work=20)
        raw.link.settle()
        assert 0 < taken <= 60, "an OPEN and a CLOSE at most"
        data = data[taken:]
        turns += 1
    assert turns == 100
    assert [kind for kind, _, _ in raw.listen()] == [wire.CLOSE] * 100
    assert raw.link.state == UP


# -- what a neighbour can cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["pings", "lists", "opens", "forwarded"])
def test_a_flood_from_a_neighbour_that_never_reads(what: str) -> None:
    """Its driver stops reading from it when the backlog is too long; messages for it are dropped; memory is bounded."""
    mesh = Mesh()
    alice, client = bystander(mesh)
    raw = Raw(alice).up()
    ask = encode_message(Message((), (), messages.encode_body(messages.LIST, 1)))
    further = encode_message(Message(("carl",), (), messages.encode_body(messages.PING, 1, data=b"x" * 1000)))
    Raw(alice, "carl").up()  # and carl never reads either
    flood = {
        "lists": (wire.MESSAGE, 0, ask),
        "forwarded": (wire.MESSAGE, 0, further),
    }
    label = 0
    tracemalloc.start()
    try:
        for _ in range(2000 if what in ("pings", "opens") else 100):
            if raw.link.is_backlogged:
                break
            if what == "opens":
                numbers = range(label, label + 100)
                label += 100
                raw.say(*((wire.OPEN, 2 * number + 2, open_payload("no")) for number in numbers))
                raw.say(*((wire.CLOSE, 2 * number + 2, b"") for number in numbers))
            elif what == "pings":
                raw.ping(100)
            else:
                raw.say(*[flood[what]] * 100)
        assert raw.link.is_backlogged == (what in ("pings", "opens"))
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert not raw.link.message(Message((), (), b""))
    still_there(client)


def test_a_flood_of_data_stays_within_the_window() -> None:
    """Even in small frames, for a reader that reads nothing."""
    mesh = Mesh()
    alice = mesh.station("alice")
    alice.serve("echo", lambda program: setattr(program, "reads", False))
    raw = Raw(alice).up()
    raw.say(OPENED)
    tracemalloc.start()
    try:
        for _ in range(INITIAL_WINDOW // 8192):
            raw.say(*[(wire.DATA, 2, b"x" * 8)] * 1024)
        assert tracemalloc.get_traced_memory()[0] < 2 * INITIAL_WINDOW
    finally:
        tracemalloc.stop()
    raw.say((wire.DATA, 2, b"x"))
    assert "credit overrun" in raw.farewell()


def test_small_pieces_do_not_keep_large_buffers() -> None:
    """Bytes that wait are copied out of the buffer that they came in, whatever else came in it."""
    mesh = Mesh()
    alice = mesh.station("alice")
    alice.serve("echo", lambda program: setattr(program, "reads", False))
    raw = Raw(alice).up()
    for number in range(20):
        raw.say((wire.OPEN, 2 * number + 2, open_payload()))
    tracemalloc.start()
    try:
        for _ in range(30):
            skipped = [(0x90, 0, bytes(60_000))] * 4
            data = [(wire.DATA, 2 * number + 2, b"abc") for number in range(20) for _ in range(2)]
            data = [data[i] for i in (*range(0, 40, 2), *range(1, 40, 2))]
            buffer = b"".join(wire.encode_frame(*frame) for frame in [*skipped, *data])
            raw.link.receive(buffer, mesh.now)
            raw.link.settle()
            del buffer
        assert tracemalloc.get_traced_memory()[0] < 500_000
    finally:
        tracemalloc.stop()
    for program in alice.programs:
        program.read()
        assert program.sink == b"abc" * 60


def limit_memory(link: Link, size: int) -> None:
    """Let `link` hold `size` bytes, and as many again be free for others."""
    link.account.of.limit = 2 * size


def test_the_receive_limit_of_a_link_holds() -> None:
    """When it is used up, each further route still gets the least window, and works."""
    mesh = Mesh(seed=2)
    alice, bob = mesh.line("alice", "bob", slices=True)
    bob.serve("stall", lambda program: setattr(program, "reads", False))
    bob.serve("echo", lambda program: program.echo())
    link = bob.link("alice")
    limit_memory(link, 4 * INITIAL_WINDOW)
    for _ in range(10):
        alice.tunnel("bob/stall", bytes(INITIAL_WINDOW))
    mesh.idle()
    assert INITIAL_WINDOW <= link.receive_limit.granted <= link.account.used <= 4 * INITIAL_WINDOW
    data = mesh.random.randbytes(100_000)
    client = alice.tunnel("bob/echo", data)
    mesh.idle()
    assert client.sink == data
    for program in bob.programs:
        if not program.is_over:
            program.abort(Outcome())
    mesh.idle()
    mesh.check_closed()


def test_a_neighbour_opens_so_many_tunnels_a_second_and_an_origin_behind_it_half() -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    alice.serve("echo", lambda program: program.echo())
    raw = Raw(alice).up()

    def refused(count: int, *origin: str) -> int:
        payload = wire.OPEN_FIELDS.encode(path=("echo",), origin=origin, window=1)
        raw.say(*((wire.OPEN, 2 * number, payload) for number in range(1, count + 1)))
        raw.say(*((wire.CLOSE, 2 * number, b"") for number in range(1, count + 1)))
        return sum(b"retry later" in frame[2] for frame in raw.listen())

    burst = int(OPENS_AT_ONCE)
    assert refused(burst // 2 + 10, "far", "child/1") == 10
    assert refused(burst // 2, "child/1") == 0
    assert refused(100, "child/1") == 100
    mesh.now += 0.1
    assert refused(200, "child/1") == 200 - alice.node.limits["opens"] // 10


def test_a_neighbour_opens_fewer_tunnels_through_a_node() -> None:
    mesh = Mesh()
    alice, _ = mesh.line("alice", "bob")
    raw = Raw(alice).up()
    payload = wire.OPEN_FIELDS.encode(path=("bob", "none"), origin=("child/1",), window=1)
    raw.say(*((wire.OPEN, 2 * number + 2, payload) for number in range(int(RELAYS_AT_ONCE) + 50)))
    answers = [frame[2] for frame in raw.listen() if frame[0] == wire.CLOSE]
    assert sum(b"through this node a second; retry later" in answer for answer in answers) == 50


@pytest.mark.parametrize("body", [b"", b"\xff" * 5, b"\x40", messages.encode_body(messages.ENDED, 1), b"\x44\x01\x01"])
def test_a_client_gets_nothing_from_afar_but_answers(body: bytes) -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    console = alice.console()
    raw = Raw(alice).up()
    message = Message((console.link.address or "child/1",), (), body)
    raw.say((wire.MESSAGE, 0, encode_message(message)))
    assert console.answers == {}
    assert raw.link.state == UP
    assert console.ask("", messages.PING, data=b"x")["data"] == b"x"


def test_links_share_the_memory_of_a_node() -> None:
    """However much the first ones hold, there is room for another; what they may hold in all is bounded."""
    memory = MemoryLimit(64 * INITIAL_WINDOW)
    mesh = Mesh(seed=2)
    bob = mesh.station("bob", memory=memory)
    bob.serve("stall", lambda program: setattr(program, "reads", False))
    bob.serve("echo", lambda program: program.echo())
    for number in range(5):
        hog = mesh.station(f"hog{number}")
        mesh.join(hog, bob)
        mesh.idle()
        for _ in range(40):
            hog.tunnel("bob/stall", bytes(2 * INITIAL_WINDOW))
        mesh.idle()
        assert memory.limit / 4 < memory.used < memory.limit, f"{number + 1} of them"
    alice = mesh.station("alice")
    mesh.join(alice, bob)
    data = mesh.random.randbytes(10 * INITIAL_WINDOW)
    mesh.idle()
    client = alice.tunnel("bob/echo", data)
    mesh.idle()
    assert client.sink == data
    for link in list(bob.node.links.values()):
        link.close("enough")
    mesh.idle()
    for program in bob.programs:
        program.reads = True
        program.readable()
    assert memory.used == 0


def test_a_link_without_memory_refuses_tunnels() -> None:
    """But for a few that every neighbour may have."""
    mesh = Mesh(seed=2)
    alice, bob = mesh.line("alice", "bob")
    bob.serve("stall", lambda program: setattr(program, "reads", False))
    limit_memory(bob.link("alice"), 1 << 16)
    clients = [alice.tunnel("bob/stall", b"x", ends=False) for _ in range(100)]
    mesh.idle()
    refused = [client.outcome for client in clients if client.outcome is not None]
    assert len(refused) == 100 - GUARANTEED
    assert {(it.code, it.text) for it in refused} == {
        (BUSY, "bob: no memory for more tunnels on this link; retry later")
    }
    assert bob.link("alice").account.used <= (1 << 16) + GUARANTEED * (STREAM_COST + MIN_WINDOW)


def test_a_suspended_link_leaves_the_memory_of_its_credit_to_others() -> None:
    mesh = Mesh(seed=2)
    memory = MemoryLimit(64 * INITIAL_WINDOW)
    alice, bob = mesh.station("alice"), mesh.station("bob", memory=memory)
    bob.serve("stall", lambda program: setattr(program, "reads", False))
    wire_ = mesh.join(alice, bob, resume_timeout=60)
    mesh.idle()
    clients = [alice.tunnel("bob/stall", b"x" * 1000, ends=False) for _ in range(20)]
    mesh.idle()
    before = memory.used
    assert before > 10 * INITIAL_WINDOW
    wire_.cut()
    mesh.idle()
    assert bob.link("alice").is_suspended
    assert 20_000 < memory.used < 20 * (STREAM_COST + 2000) + 1000
    clients[0].abort(Outcome())
    mesh.join(alice, bob, resume_timeout=60)
    mesh.idle()
    assert not bob.link("alice").is_suspended
    assert before - 2 * INITIAL_WINDOW < memory.used <= before
    for client in clients[1:]:
        client.abort(Outcome())
    mesh.idle()
    assert bob.link("alice").receive_limit.granted == 0
    assert memory.used < 1000


def test_idle_routes_give_their_credit_back() -> None:
    """However many tunnels have grown large windows and then fall silent: the next one is not starved by them."""
    mesh = Mesh(seed=3)
    alice, bob = mesh.line("alice", "bob")
    bob.serve("echo", lambda program: program.echo())
    link = bob.link("alice")
    limit_memory(link, 12 * INITIAL_WINDOW)
    quiet = [alice.tunnel("bob/echo", b"hello", ends=False) for _ in range(40)]
    mesh.idle()
    assert link.account.room >= INITIAL_WINDOW
    data = mesh.random.randbytes(20 * INITIAL_WINDOW)
    busy = alice.tunnel("bob/echo", data)
    mesh.idle()
    assert busy.sink == data
    newest = [stream for stream in link.streams.values() if stream.receive_credit > MIN_WINDOW]
    assert len(newest) < 14, "most have given theirs back"
    for client in quiet:  # and have enough to go on with
        client.sink.clear()
        client.write(b"again")
    mesh.idle()
    assert all(client.sink == b"again" for client in quiet)


@pytest.mark.parametrize("size", [0, INITIAL_WINDOW + 1])
def test_credit_that_was_never_given_cannot_come_back(size: int) -> None:
    alice = Mesh().station("alice")
    alice.serve("echo", lambda program: None)
    raw = Raw(alice).up()
    raw.say(OPENED, (wire.RETURN, 2, encode_varint(size)))
    assert raw.link.state == DOWN
    assert "returned, of" in raw.link.reason


def test_credit_that_came_back_cannot_be_used() -> None:
    alice = Mesh().station("alice")
    alice.serve("echo", lambda program: None)
    raw = Raw(alice).up()
    raw.say(OPENED, (wire.RETURN, 2, encode_varint(INITIAL_WINDOW - 10)), (wire.DATA, 2, bytes(10)))
    assert raw.link.state == UP
    raw.say((wire.RETURN, 2, encode_varint(INITIAL_WINDOW - 10)), (wire.DATA, 2, bytes(11)))
    assert raw.link.state == DOWN


# -- rubbish -----------------------------------------------------------------------------------------------------------


def recorded() -> bytes:
    """What a well-behaved neighbour says in a life with tunnels both ways, pings and listings, but for its answers to
    marks: they belong to what was said to it then."""
    mesh = Mesh(seed=3)
    alice, bob = mesh.station("alice"), mesh.station("bob")
    wire_ = mesh.join(bob, alice)
    said = bytearray()
    port = wire_.ports[1]
    arrive = port.arrive

    def record(chunk: bytes) -> None:
        said.extend(chunk)
        arrive(chunk)

    port.arrive = record  # type: ignore[method-assign]
    mesh.idle()
    for station in (alice, bob):
        station.serve("echo", lambda program: program.echo())
    console = bob.console()
    bob.tunnel("alice/echo", bytes(range(256)))
    alice.tunnel("bob/echo", b"there and back")
    mesh.idle()
    console.ask("alice", messages.LIST)
    bob.tunnel("alice/nobody")
    bob.tunnel("alice/carl/x", b"further")
    left = bob.tunnel("alice/echo", b"left open", ends=False)
    mesh.idle()
    left.stop_reading()
    console.ask("alice/carl", messages.PING, data=b"x")
    mesh.idle()
    bob.link("alice").close("done")
    mesh.idle()
    frames = [frame for frame in decode_all([bytes(said)]) if frame[0] != wire.PONG]
    out = wire.MAGIC
    for kind, route, payload in frames:
        out += wire.encode_frame(kind, route, mark(len(out), 1) if kind == wire.PING else payload)
    return out


def test_mutations_of_a_conversation() -> None:
    """Whatever a neighbour says: no exception, a link that works or ends with a reason, and nobody else is hurt."""
    valid = recorded()
    random = Random(20240301)
    reasons: set[str] = set()
    for _ in range(1500):
        mesh = Mesh()
        alice = mesh.station("alice")
        alice.serve("echo", lambda program: program.echo())
        carl = Raw(alice, "carl").up()
        mine = alice.tunnel("carl/x", b"mine", ends=False)
        raw = Raw(alice, "bob")
        at = random.choice((0, 60, 100, 200))
        data = valid[:at] + mutate(random, valid[at:])
        for piece in slices(random, data, random.choice((20, 200, 2000))):
            raw.play(piece)
            carl.listen()
        assert raw.link.state == UP or raw.link.reason or raw.link.state != DOWN
        if raw.link.state == DOWN:
            reasons.add(raw.link.reason)
            assert raw.link.streams == {}
        else:
            held = sum(stream.receive_credit + stream.inbox.size for stream in raw.link.streams.values())
            assert held <= raw.link.receive_limit.granted <= len(raw.link.streams) * 2 * INITIAL_WINDOW
        assert carl.link.state == UP
        assert mine.outcome is None
        raw.link.eof(raw.mesh.now)
        mesh.idle()
        assert alice.node.links == {"carl": carl.link}
    assert len(reasons) > 30


def test_a_conversation_without_mutations_is_fine() -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    alice.serve("echo", lambda program: program.echo())
    Raw(alice, "carl").up()
    raw = Raw(alice, "bob")
    for piece in slices(Random(1), recorded(), 100):
        raw.play(piece)
    assert raw.link.reason == "bob ended it: done"

"""Links that are cut and go on: nothing lost, nothing twice, nobody else lets himself in.

A cut is noticed by both sides, by one, or by none of them, which is a `How`.  An attempt is a new wire between the same
two stations.  Which of them is the first, as `session` calls it, is chosen where it matters.
"""

from __future__ import annotations

from random import Random
from typing import Any, Callable

import pytest

from r2box.proto.link import link as links
from r2box.proto.link import sender as senders
from r2box.proto.link.inflight import INITIAL_LIMIT
from r2box.proto.link.keepalive import HELLO_TIMEOUT
from r2box.proto.link.link import DOWN, UP, Link
from r2box.proto.link.replay_buffer import Block
from r2box.proto.link.resume import (
    ANSWER,
    BEGIN,
    FINISH,
    HALF,
    NONCE,
    ResumeAttempt,
    ResumeSession,
)
from r2box.proto.link.scheduler import ALONE
from r2box.proto.link.stream import INITIAL_WINDOW
from r2box.proto.memory_limit import FLOOR, Account, MemoryLimit
from r2box.proto.routing.link_collision import PROBE
from r2box.proto.wire import frames
from r2box.proto.wire.fields import Fields
from r2box.proto.wire.outcome import ENDED, LOST, Outcome
from support.mesh import Mesh, Port, Program, Station, Wire
from support.raw_neighbour import OPENED, Raw, kinds

PATIENCE = 600
How = tuple[bool, bool]  # who sees the end of a wire: the first of its stations, the second
BOTH, ONE, OTHER, NULL_END = (True, True), (True, False), (False, True), (False, False)
HOWS: list[How] = [BOTH, ONE, OTHER, NULL_END]
LOW, HIGH = b"\x01" * 16, b"\xfe" * 16


def station(mesh: Mesh, address: str, instance: bytes = b"") -> Station:
    new = mesh.station(address)
    new.node.local_peer.instance = instance or new.node.local_peer.instance
    new.serve("echo", lambda program: program.echo())
    new.serve("sink", lambda program: None)
    return new


def pair(seed: int = 0, *, first: str = "", **options: Any) -> tuple[Mesh, Station, Station, Wire]:
    """Alice and bob, linked; `first`: whose instance is the lesser."""
    mesh = Mesh(seed)
    alice = station(mesh, "alice", LOW if first == "alice" else HIGH if first else b"")
    bob = station(mesh, "bob", LOW if first == "bob" else HIGH if first else b"")
    wire_ = again(mesh, alice, bob, **options)
    mesh.idle()
    return mesh, alice, bob, wire_


def again(mesh: Mesh, alice: Station, bob: Station, **options: Any) -> Wire:
    return mesh.join(alice, bob, **{"resume_timeout": PATIENCE, **options})


def sane(*stations: Station) -> None:
    """Each link that is up has a transport or waits for one, and is the one that its node knows."""
    for here in stations:
        node = here.node
        assert not node._collision._second, here.log
        for link in node.links.values():
            assert link.state == UP, here.log
            assert link.is_suspended != (link in here.ports), here.log
        for link, port in here.ports.items():
            assert port.link is link
            assert link.state == DOWN or node.links.get(link.address) is link, here.log


def at_rest(*stations: Station) -> None:
    """Nothing is left of any tunnel."""
    sane(*stations)
    for link in (link for here in stations for link in here.node.links.values()):
        left = link.streams, link.receive_limit.granted, link.sender.scheduler.backlog
        assert left == ({}, 0, 0), f"{link.local_peer.address}-{link.address}"


def works(alice: Station, bob: Station) -> None:
    """A tunnel each way."""
    clients = [alice.tunnel("bob/echo", b"there and back"), bob.tunnel("alice/echo", b"there and back")]
    alice.mesh.run(1)
    for client in clients:
        assert client.sink == b"there and back", (alice.log, bob.log)
        assert client.outcome is not None
        assert client.outcome.is_clean
    sane(alice, bob)


def check_kept(link: Link) -> int:
    """The bytes that `link` keeps are those that are not acknowledged; how many."""
    kept = link.sender.replay
    size = sum(len(chunk) for chunk, _ in kept._chunks)
    assert not kept.is_enabled or size == kept.sent - kept.acked
    return size


def cut_after(wire_: Wire, side: int, count: int, how: How = BOTH) -> None:
    """Cut `wire_` when `count` more bytes have arrived at one side."""
    left = count

    def tap(port: Port, chunk: bytes) -> bytes:
        nonlocal left
        if port is not wire_.ports[side] or len(chunk) < left:
            left -= len(chunk) if port is wire_.ports[side] else 0
            return chunk
        chunk, left = chunk[:left], 0
        wire_.mesh.later(0, lambda: wire_.cut(*how))
        return chunk

    wire_.tap = tap


def late(wire_: Wire, side: int, delay: float) -> None:
    """All but what comes first arrives `delay` seconds late at one side."""
    seen = False

    def tap(port: Port, chunk: bytes) -> bytes:
        nonlocal seen
        if port is not wire_.ports[side] or not seen:
            seen = seen or port is wire_.ports[side]
            return chunk
        wire_.mesh.later(delay, lambda: put(port, chunk))
        return b""

    def put(port: Port, chunk: bytes) -> None:
        port.arrived.append(chunk)
        port.read()

    wire_.tap = tap


class Storm:
    """Cuts links at random moments, and links their stations again, until it is over."""

    def __init__(self, mesh: Mesh, *pairs: tuple[Station, Station], **options: Any) -> None:
        self.mesh = mesh
        self.pairs = pairs
        self.options = options
        self.wires = [again(mesh, *both, **options) for both in pairs]
        self.most = 0  # bytes that a link kept
        mesh.idle()

    def blow(self, rounds: int) -> None:
        random = self.mesh.random
        for _ in range(rounds):
            self.mesh.run(random.choice([0.0, 0.001, 0.005, 0.02, 0.1, 0.5]) * random.random())
            number = random.randrange(len(self.pairs))
            self.wires[number].cut(*random.choice(HOWS))
            self.check()
            self.mesh.run(random.choice([0.0, 0.0, 0.01, 0.1]) * random.random())
            self.wires[number] = again(self.mesh, *self.pairs[number], **self.options)
        self.mesh.run(70)  # in which every silence is noticed
        for both in self.pairs:
            again(self.mesh, *both, **self.options)
        self.mesh.run(60)
        self.check()
        for both in self.pairs:
            sane(*both)

    def check(self) -> None:
        for here in {here for both in self.pairs for here in both}:
            for link in here.node.links.values():
                self.most = max(self.most, check_kept(link))


def is_clean(program: Program) -> bool:
    return program.outcome is not None and program.outcome.is_clean


# -- what a tunnel sees of a cut ---------------------------------------------------------------------------------------


def test_a_tunnel_waits_and_goes_on() -> None:
    mesh, alice, bob, first = pair()
    client = alice.tunnel("bob/echo", b"before ", ends=False)
    mesh.idle()
    assert client.sink == b"before "
    first.cut()
    mesh.idle()
    assert alice.log[-1] == "suspended bob: closed without BYE"
    assert bob.log[-1] == "suspended alice: closed without BYE"
    client.write(b"meanwhile ")
    mesh.run(30)
    assert client.sink == b"before "
    assert not client.is_over
    again(mesh, alice, bob)
    mesh.idle()
    assert (alice.log[-1], bob.log[-1]) == ("resumed bob", "resumed alice")
    client.write(b"after")
    client.end()
    mesh.idle()
    assert client.sink == b"before meanwhile after"
    assert client.eof
    mesh.check_closed()


@pytest.mark.parametrize("seed", range(100))
def test_many_cuts_anywhere(seed: int) -> None:
    """In the middle of the taking up too."""
    mesh = Mesh(seed)
    alice, bob = station(mesh, "alice"), station(mesh, "bob")
    storm = Storm(mesh, (alice, bob), slices=bool(seed % 2), capacity=1 << 14)
    data = mesh.random.randbytes(1 << 20)
    client = alice.tunnel("bob/echo", data)
    storm.blow(60)
    assert client.sink == data
    assert client.eof
    assert is_clean(client)
    at_rest(alice, bob)
    assert storm.most <= INITIAL_LIMIT + (1 << 16)


@pytest.mark.parametrize("seed", range(10))
def test_many_tunnels_both_ways(seed: int) -> None:
    """With a reader that stalls at each side; the others do not wait for it."""
    mesh = Mesh(seed)
    alice, bob = station(mesh, "alice"), station(mesh, "bob")
    storm = Storm(mesh, (alice, bob), capacity=1 << 15, slices=bool(seed % 2))
    for here in (alice, bob):
        here.serve("stall", lambda program: setattr(program, "reads", False))
    stalled = [alice.tunnel("bob/stall", bytes(1 << 20)), bob.tunnel("alice/stall", bytes(1 << 20))]
    many = []
    for number in range(40):
        data = mesh.random.randbytes(mesh.random.choice((0, 1, 100, 20_000, 100_000)))
        here, path = (alice, "bob/echo") if number % 2 else (bob, "alice/echo")
        many.append((here.tunnel(path, data), data))
    storm.blow(25)
    for client, data in many:
        assert client.sink == data
        assert is_clean(client)
    for client in stalled:
        assert client.unsent >= (1 << 20) - INITIAL_WINDOW
        assert not client.is_over
    for here in (alice, bob):
        (program,) = (program for program in here.programs if not program.is_over)
        program.read()
    mesh.run(10)
    assert [len(program.sink) for here in (alice, bob) for program in here.programs if program.eof].count(1 << 20) == 2
    assert storm.most <= INITIAL_LIMIT + (1 << 16)


@pytest.mark.parametrize("seed", range(20))
def test_cuts_of_several_links_on_the_way(seed: int) -> None:
    """Each by itself; the node in the middle relays, and holds no more than a window."""
    mesh = Mesh(seed)
    alice, bob, carl = (station(mesh, name) for name in ("alice", "bob", "carl"))
    storm = Storm(mesh, (alice, bob), (carl, bob), capacity=1 << 15, slices=bool(seed % 2))
    data = mesh.random.randbytes(400_000)
    there, back = alice.tunnel("bob/carl/echo", data), carl.tunnel("bob/alice/echo", data)
    storm.blow(40)
    for client in (there, back):
        assert client.sink == data
        assert is_clean(client)
    at_rest(alice, bob, carl)


def life(alice: Station, bob: Station) -> Callable[[], list[object]]:
    """Everything that can be in the life of a tunnel, in little time; what came of it, to be asked later."""
    mesh = alice.mesh

    def answer(program: Program) -> None:
        def on_eof() -> None:
            program.write(b"<" + program.sink + b">")
            program.exit(3, "done")

        program.on_eof = on_eof

    def last_words(program: Program) -> None:
        program.write(b"last words")
        program.exit(7)

    bob.serve("answer", answer)
    bob.serve("exit", last_words)
    bob.serve("stop", lambda program: program.stop_reading())
    answered = alice.tunnel("bob/answer", b"question")
    killed = alice.tunnel("bob/exit", b"nobody reads this", ends=False)
    refused = alice.tunnel("bob/nobody", b"x")
    stopped = alice.tunnel("bob/stop", b"y", ends=False)
    aborted = alice.tunnel("bob/echo", b"z", ends=False)
    mesh.later(0.03, lambda: None if aborted.is_over else aborted.abort(Outcome(ENDED, "enough", 9)))
    other = bob.tunnel("alice/echo", b"the other way")

    def result() -> list[object]:
        stopped.exit(5)
        mesh.run(1)
        ran = [program for program in bob.programs if program.outcome is not None]
        outcomes = [p.outcome for p in (answered, killed, refused, other) if p.outcome is not None]
        return [
            bytes(answered.sink), answered.eof, bytes(killed.sink), killed.eof, stopped.stopped,
            [(outcome.code, outcome.status, outcome.text) for outcome in outcomes],
            sorted((p.outcome.status, p.outcome.text) for p in ran if p.outcome), bytes(other.sink), other.eof,
            len(bob.programs), len(alice.programs),
        ]  # fmt: skip

    return result


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("side", [0, 1])
def test_a_cut_at_any_byte_of_a_short_life(side: int, how: How) -> None:
    """Half-close, CLOSE, STOP, refusals and aborts: all comes out as it does without a cut."""
    expected: list[object] = []
    for count in [100_000, *range(0, 320, 1 if how == BOTH else 3)]:
        mesh, alice, bob, first = pair(count % 2)
        cut_after(first, side, count, how)
        result = life(alice, bob)
        mesh.run(0.1)
        if first.is_cut:
            again(mesh, alice, bob)
            mesh.run(PROBE + 1)
        elif expected:
            break
        expected = expected or result()
        assert expected[:2] == [b"<question>", True]
        assert result() == expected, count
        at_rest(alice, bob)
    assert count > 200


# -- cuts of an attempt ------------------------------------------------------------------------------------------------


def flowing(first: str, seed: int = 0, **options: Any) -> tuple[Mesh, Station, Station, Wire, Program, bytes]:
    """Alice and bob with data on its way both ways, in the middle of frames."""
    mesh, alice, bob, wire_ = pair(seed, first=first, capacity=3000, **options)
    data = mesh.random.randbytes(20_000)
    client = alice.tunnel("bob/echo", data)
    mesh.run(0.047)
    assert 0 < len(client.sink) < len(data) - client.unsent
    return mesh, alice, bob, wire_, client, data


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("first", ["alice", "bob"])
def test_an_attempt_that_is_cut_at_any_byte(first: str, side: int, how: How) -> None:
    """The next one works, at once."""
    for count in range(0, 260, 1 if how == BOTH else 4):
        mesh, alice, bob, wire_, client, data = flowing(first)
        wire_.cut(*HOWS[count // 4 % 3])
        attempt = again(mesh, alice, bob)
        cut_after(attempt, side, count, how)
        mesh.run(0.3 if how == BOTH else 11)
        assert attempt.is_cut, count
        again(mesh, alice, bob)
        mesh.run(1 if how == BOTH else PROBE + 1)
        assert client.sink == data, (count, alice.log, bob.log)
        assert is_clean(client)
        sane(alice, bob)
        assert not any(line.startswith("down bob") and "ended" in line for line in alice.log)


@pytest.mark.parametrize("first", ["alice", "bob"])
def test_many_attempts_in_a_row_that_are_cut(first: str) -> None:
    """Which of the two has gone over to which secret is never lost; nor which bytes came, if few come each time."""
    for seed in range(60):
        mesh, alice, bob, wire_, client, data = flowing(first, seed)
        wire_.cut()
        for _ in range(25):
            wire_ = again(mesh, alice, bob)
            cut_after(wire_, mesh.random.randrange(2), mesh.random.randrange(100, 400))
            mesh.run(0.2)
        again(mesh, alice, bob)
        mesh.run(2)
        assert client.sink == data, (seed, alice.log, bob.log)
        assert not any(line.startswith("down bob: bob does not") for line in alice.log)
        sane(alice, bob)


@pytest.mark.parametrize("first", ["alice", "bob"])
def test_nothing_but_the_session_comes_after_the_second_proof(first: str) -> None:
    """The first takes all that comes then for the session's.  So the second, when it waits in vain for the last proof,
    ends without a word: a BYE would come out of a tunnel, or end the link."""
    mesh, alice, bob, wire_, client, data = flowing(first)
    wire_.cut()
    attempt = again(mesh, alice, bob)
    one, second = (alice, 1) if first == "alice" else (bob, 0)

    def tap(port: Port, chunk: bytes) -> bytes:
        return b"" if port is attempt.ports[second] and one.log[-1].startswith("resumed") else chunk

    attempt.tap = tap
    mesh.run(HELLO_TIMEOUT + 1)
    assert one.log[-1].startswith(("resumed", "suspended"))
    again(mesh, alice, bob)
    mesh.run(PROBE + 1)
    assert client.sink == data
    assert is_clean(client)
    sane(alice, bob)


@pytest.mark.parametrize("first", ["alice", "bob"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_proof_that_was_changed_on_the_way(first: str, stage: int) -> None:
    """The attempt ends, and the next one works."""
    mesh, alice, bob, wire_, client, data = flowing(first)
    wire_.cut()
    attempt = again(mesh, alice, bob)
    target = attempt.ports[(first == "alice") == (stage != 2)]
    seen = 0

    def tap(port: Port, chunk: bytes) -> bytes:
        nonlocal seen
        at = chunk.find(b"\x10\x00")
        if port is not target or at < 0 or chunk[at + 2] < 34:  # a RESUME with a proof
            return chunk
        seen += 1
        if seen != (2 if stage == 3 else 1):
            return chunk
        changed = bytearray(chunk)
        changed[at + 20] ^= 1
        return bytes(changed)

    attempt.tap = tap
    mesh.run(1)
    assert seen == (2 if stage == 3 else 1)
    assert any("cannot prove" in line for line in alice.log + bob.log)
    again(mesh, alice, bob)
    mesh.run(PROBE + 1)
    assert client.sink == data
    assert is_clean(client)
    sane(alice, bob)


# -- several at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_two_attempts_at_the_same_time(seed: int) -> None:
    """One wins, the other ends, and nothing is lost."""
    mesh, alice, bob, wire_, client, data = flowing(("alice", "bob")[seed % 2], seed)
    wire_.cut(*HOWS[seed % 3])
    for a, b in ((alice, bob), (bob, alice), (alice, bob))[: 2 + seed % 2]:
        again(mesh, a, b, latency=mesh.random.uniform(0.001, 0.1), capacity=3000)
        mesh.run(mesh.random.choice([0, mesh.random.uniform(0, 0.2)]))
    mesh.run(20)
    if any(link.is_suspended for link in (alice.link("bob"), bob.link("alice"))):
        again(mesh, alice, bob)  # both have given up the other's choice
        mesh.run(PROBE + 1)
    assert client.sink == data, (alice.log, bob.log)
    assert is_clean(client)
    sane(alice, bob)
    assert [port.link.state for here in (alice, bob) for port in here.ports.values()].count(UP) == 2
    assert not any("--lossy" in line for line in alice.log + bob.log)


@pytest.mark.parametrize("first", ["alice", "bob"])
def test_a_last_proof_that_comes_late(first: str) -> None:
    """The first has gone on over one wire, and then, as the second does not know that yet, over another.  What still
    comes over the former is not taken, or it would come twice."""
    mesh, alice, bob, wire_, client, data = flowing(first)
    wire_.cut()
    one, two = (alice, bob) if first == "alice" else (bob, alice)
    slow = again(mesh, one, two, capacity=3000)
    held = bytearray()

    def tap(port: Port, chunk: bytes) -> bytes:
        if port is slow.ports[0] or not one.log[-1].startswith("resumed"):
            return chunk
        held.extend(chunk)
        return b""

    def release() -> None:
        slow.tap = lambda port, chunk: chunk
        slow.ports[1].arrive(bytes(held))

    slow.tap = tap
    mesh.run(0.2)
    assert held
    again(mesh, one, two)
    mesh.later(0.035, release)
    mesh.run(PROBE + 1)
    if any(link.is_suspended for link in (alice.link("bob"), bob.link("alice"))):
        again(mesh, alice, bob)
        mesh.run(PROBE + 1)
    assert not any("--lossy" in line for line in alice.log + bob.log), (alice.log, bob.log)
    assert client.sink == data
    assert is_clean(client)
    sane(alice, bob)


def test_a_second_transport_is_refused_while_the_first_lives() -> None:
    mesh, alice, bob, first = pair()
    client = alice.tunnel("bob/echo", b"x", ends=False)
    mesh.idle()
    for _ in range(3):
        again(mesh, alice, bob)
        mesh.run(1)
    for here in (alice, bob):
        assert not any(line.startswith(("suspended", "resumed")) for line in here.log)
        assert len([line for line in here.log if "is already linked to" in line]) == 3
        assert here.ports[next(iter(here.node.links.values()))].wire is first
    client.write(b"y")
    mesh.idle()
    assert client.sink == b"xy"
    sane(alice, bob)


@pytest.mark.parametrize("seed", range(200))
def test_two_nodes_that_connect_to_each_other_while_links_are_cut(seed: int) -> None:
    """Two links may come up at once, and either be cut before the nodes have agreed on one: none is left over that
    nobody knows, and whatever waits does not keep another one out."""
    mesh = Mesh(seed)
    alice, bob = station(mesh, "alice"), station(mesh, "bob")
    wires = []
    for a, b in ((alice, bob), (bob, alice)):
        wires.append(again(mesh, a, b, latency=mesh.random.uniform(0.01, 0.02)))
        mesh.run(mesh.random.choice([0, mesh.random.uniform(0, 0.02)]))
    mesh.run(mesh.random.uniform(0.01, 0.1))
    mesh.random.choice(wires).cut(*mesh.random.choice(HOWS[:3]))
    mesh.run(65)  # in which a cut is noticed that was not seen
    again(mesh, alice, bob)
    mesh.run(5)
    works(alice, bob)


@pytest.mark.parametrize("keeps", ["old", "new"])
def test_one_of_two_links_is_cut_before_the_nodes_have_agreed_on_one(keeps: str) -> None:
    """Both are up for the lesser node, and it sees a cut of the one that came first, when the greater has chosen."""
    mesh = Mesh(3)
    alice, bob = station(mesh, "alice", LOW), station(mesh, "bob", HIGH)
    old = again(mesh, alice, bob)
    if keeps == "new":
        late(old, 1, 0.03)  # so the other one is up first for bob
    mesh.run(0.001)
    again(mesh, bob, alice)
    mesh.run(0.0525 if keeps == "new" else 0.0205)
    assert alice.log == ["up bob", "up bob"]
    assert bob.log == ["up alice", "down alice: bob is already linked to alice"]
    assert alice.ports[alice.link("bob")].wire is old
    assert old.ports[1].link.state == (DOWN if keeps == "new" else UP)
    old.cut(True, keeps == "old")
    mesh.run(20)
    again(mesh, alice, bob)
    mesh.run(PROBE + 1)
    works(alice, bob)


@pytest.mark.parametrize("first", ["alice", "bob"])
def test_a_link_that_comes_up_beside_a_suspended_one(first: str) -> None:
    """It takes its place, as far as the lesser is concerned; the greater wants to go on with the one that it has, and
    hears with the next attempt that the other does not know it.  Nobody waits for the end of resume_timeout."""
    mesh = Mesh(3)
    alice, bob = (station(mesh, name, LOW if name == first else HIGH) for name in ("alice", "bob"))
    old = again(mesh, alice, bob)
    late(old, 1, 5)  # it is never up for bob
    late(again(mesh, alice, bob), 0, 0.05)
    mesh.run(0.03)
    old.cut()
    mesh.run(1)
    if first == "bob":
        assert alice.log[-1] == "down bob: alice is already linked to bob"
        again(mesh, alice, bob)
        mesh.run(1)
    works(alice, bob)


@pytest.mark.parametrize("first", ["alice", "bob"])
@pytest.mark.parametrize("orderly", ["close", "hurry"])
@pytest.mark.parametrize("who", [0, 1])
def test_a_link_that_ends_in_the_middle_of_an_attempt(first: str, orderly: str, who: int) -> None:
    """At any moment of it, on either side, by its node's own wish.  Nothing of it comes back, nothing wrong is
    delivered, and the next link is a good one."""
    for moment in range(30):
        mesh, alice, bob, wire_, client, data = flowing(first)
        wire_.cut(*HOWS[moment % 3])
        here, there = (alice, bob) if who else (bob, alice)
        again(mesh, alice, bob)
        mesh.run(0.005 * moment / 2)
        link = here.link(there.address)
        if orderly == "close" or link.is_suspended:
            link.close("shut down", orderly=True)
        else:
            link.sender.flush()
        mesh.run(11)
        if link.state == UP:
            assert not link.is_suspended
            link.close("shut down", orderly=True)
            mesh.run(1)
        assert link.state == DOWN
        again(mesh, alice, bob)
        mesh.run(PROBE + 1)
        assert data.startswith(client.sink), moment
        assert client.is_over
        works(alice, bob)


# -- the resume timeout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume_timeout", [(600, 600), (600, 20), (20, 600), (5, 1 << 40)])
def test_the_end_of_patience(resume_timeout: tuple[int, int]) -> None:
    """Both wait for the lesser of what they bear."""
    mesh, alice, bob, first = pair(resume_timeout=resume_timeout)
    there, back = alice.tunnel("bob/echo", b"x", ends=False), bob.tunnel("alice/echo", b"y", ends=False)
    mesh.run(1)
    first.cut()
    least = min(resume_timeout)
    mesh.run(least - 0.1)
    assert not there.is_over
    assert not back.is_over
    mesh.run(0.2)
    why = f"closed without BYE, and there was no other transport within {least} s"
    for client, here, other in ((there, "alice", "bob"), (back, "bob", "alice")):
        assert client.outcome is not None
        assert (client.outcome.code, client.outcome.text) == (LOST, f"{here}: the link to {other} is down ({why})")
    assert all(program.is_over for here in (alice, bob) for program in here.programs)
    assert alice.log[-1] == f"down bob: {why}"
    assert not alice.node.links
    again(mesh, alice, bob)
    mesh.run(1)
    works(alice, bob)


@pytest.mark.parametrize("resume_timeout", [(0, 0), (600, 0), (0, 600)])
def test_without_patience_a_cut_ends_the_link(resume_timeout: tuple[int, int]) -> None:
    mesh, alice, bob, first = pair(resume_timeout=resume_timeout)
    client = alice.tunnel("bob/echo", b"x", ends=False)
    mesh.idle()
    assert not check_kept(alice.link("bob")) + check_kept(bob.link("alice")), "nothing is kept for nothing"
    first.cut()
    assert alice.log[-1] == "down bob: closed without BYE"
    assert bob.log[-1] == "down alice: closed without BYE"
    assert client.outcome is not None
    assert client.outcome.text == "alice: the link to bob is down (closed without BYE)"


def test_one_side_has_lost_patience() -> None:
    """Then the other one is told, and ends its tunnels too."""
    mesh, alice, bob, first = pair(resume_timeout=30)
    client = alice.tunnel("bob/echo", b"x", ends=False)
    mesh.idle()
    first.cut(False, True)
    mesh.run(32)  # bob's resume_timeout; alice has asked twice and waits
    assert bob.log[-1].startswith("down alice: closed without BYE, and there was no")
    again(mesh, alice, bob, resume_timeout=30)
    mesh.run(PROBE + 1)
    assert alice.log[-2:] == ["down bob: bob no longer knows the session", "up bob"]
    assert client.outcome is not None
    assert client.outcome.code == LOST
    works(alice, bob)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("resume_timeout", [PATIENCE, 0])
def test_a_neighbour_that_was_restarted_takes_the_place(seen: bool, resume_timeout: int) -> None:
    """At once, if the cut was noticed; else when the old link does not answer.  The old tunnels end with an error."""
    mesh, alice, bob, first = pair()
    client = alice.tunnel("bob/echo", b"x", ends=False)
    mesh.idle()
    first.cut(seen, True)
    bob = station(mesh, "bob")
    again(mesh, alice, bob, resume_timeout=resume_timeout)
    mesh.run(0.1)
    if not seen:
        assert alice.log == ["up bob"]
        mesh.run(PROBE)
    assert alice.log[-2:] == ["down bob: bob has restarted", "up bob"]
    assert client.outcome is not None
    assert (client.outcome.code, client.outcome.text) == (LOST, "alice: the link to bob is down (bob has restarted)")
    works(alice, bob)


def test_a_link_that_is_done_with_is_not_suspended() -> None:
    mesh, alice, bob, first = pair()
    alice.tunnel("bob/sink", bytes(1000), ends=False)
    mesh.idle()
    alice.link("bob").sender.flush()
    first.cut()
    assert alice.log[-1] == "down bob: closed without BYE"
    again(mesh, alice, bob)
    mesh.run(1)
    assert "down alice: alice no longer knows the session" in bob.log
    works(alice, bob)


# -- what it costs -----------------------------------------------------------------------------------------------------


def test_a_tunnel_of_a_suspended_link_is_not_read() -> None:
    """Nor is it further away: 100 MiB wait where they come from."""
    size = 100 << 20
    mesh = Mesh()
    alice, bob, carl = (station(mesh, name) for name in ("alice", "bob", "carl"))
    again(mesh, alice, bob)
    last = again(mesh, bob, carl)
    mesh.idle()
    last.cut()
    near, far = bob.tunnel("carl/sink", bytes(size)), alice.tunnel("bob/carl/sink", ends=False)
    mesh.run(10)
    assert near.unsent == size
    assert not bob.link("carl").is_backlogged
    last = again(mesh, bob, carl)
    mesh.run(0.1)
    last.cut()
    far.write(bytes(size))
    sent = size - near.unsent
    mesh.run(10)
    assert near.unsent == size - sent
    assert far.unsent >= size - 2 * INITIAL_WINDOW
    held = sum(stream.inbox.size for link in bob.node.links.values() for stream in link.streams.values())
    assert held <= 2 * INITIAL_WINDOW
    assert check_kept(bob.link("carl")) <= INITIAL_LIMIT + (1 << 16)
    assert check_kept(alice.link("bob")) <= INITIAL_LIMIT + (1 << 16)


def test_a_fast_link_keeps_what_its_flight_holds() -> None:
    mesh, alice, bob, _ = pair(capacity=1 << 20, latency=0.02)
    client = alice.tunnel("bob/sink", bytes(30 << 20))
    most = 0
    for _ in range(100):
        mesh.run(0.01)
        most = max(most, check_kept(alice.link("bob")))
        assert most <= alice.link("bob").sender.in_flight.limit + ALONE
    mesh.run(10)
    assert is_clean(client) or bob.programs[0].eof
    assert most > INITIAL_LIMIT
    mesh.run(20)
    assert check_kept(alice.link("bob")) < 100, "the last answers, perhaps"


def test_a_neighbour_that_acknowledges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads all, and asks for more and more answers, which need no credit.  They are not kept for ever."""
    monkeypatch.setattr(senders, "MAX_OVER", 50_000)
    raw = Raw(Mesh().station("alice"), resume_timeout=PATIENCE).up()
    raw.link.account.of.limit = 100_000
    for _ in range(100):
        raw.ping(100)
        assert len(raw.listen()) >= 100
        assert raw.link.sender.replay.held <= 160_000
    assert raw.link.state == UP
    raw.link.eof(raw.mesh.now)
    assert raw.link.state == DOWN, "what was not kept cannot be sent again"
    assert raw.link.account.used == 0


# -- who may -----------------------------------------------------------------------------------------------------------


class Peer(Raw):
    """A neighbour "bob" that a test plays, with a session if it is `up`; `first`: whether it is the first."""

    def __init__(self, alice: Station, *, first: bool, seed: int = 0) -> None:
        self.nonce = Random(seed).randbytes(NONCE)
        instance = bytes(16) if first else b"\xff" * 16
        super().__init__(alice, "bob", resume_timeout=PATIENCE, instance=instance, nonce=self.nonce)
        self.is_first = first

    def up(self) -> Peer:
        super().up()
        return self

    def listen(self) -> list[tuple[int, int, bytes]]:
        self.link = self.link._successor or self.link
        return super().listen()

    def session(self) -> ResumeSession:
        """Of the link that has come up: as this side has it."""
        (ready,) = (payload for kind, _, payload in self.heard if kind == frames.READY)
        halves = (HALF * b"s", Fields("", secret=(2, "bytes")).decode(ready)["secret"])
        return ResumeSession(b"".join(halves if self.is_first else halves[::-1]), PATIENCE)

    def attempt(self) -> ResumeAttempt:
        """Greet on another transport; what the proofs of it are made with."""
        self.greet()
        self.listen()
        (hello,) = (payload for kind, _, payload in self.heard if kind == frames.HELLO)
        nonce = frames.HELLO_FIELDS.decode(hello)["nonce"]
        assert len(nonce) == NONCE
        instances = (self.hello["instance"], self.station.node.local_peer.instance)
        return ResumeAttempt(self.is_first, (self.nonce, nonce), instances)

    def resume(self, **fields: Any) -> list[dict[str, Any]]:
        self.say((frames.RESUME, 0, frames.RESUME_FIELDS.encode(**fields)))
        return [frames.RESUME_FIELDS.decode(payload) for kind, _, payload in self.listen() if kind == frames.RESUME]

    def take_up(self, secret: bytes, received: int | None = None, *, until: int = FINISH) -> ResumeAttempt:
        """The whole exchange, or up to a proof, checked as the page tells."""
        attempt = self.attempt()
        link = self.station.node.links["bob"]
        received = link.sender.replay.sent if received is None else received
        said = [frames.RESUME_FIELDS.decode(payload) for kind, _, payload in self.heard if kind == frames.RESUME]
        if self.is_first:
            assert said == [{"proof": b"", "received": 0}]
            if until >= ANSWER:
                (answer,) = self.resume(proof=attempt.mac(secret, BEGIN))
                assert answer == {"proof": attempt.mac(secret, ANSWER, link.received), "received": link.received}
            if until == FINISH:
                self.resume(proof=attempt.mac(secret, FINISH, received), received=received)
        else:
            assert said == [{"proof": attempt.mac(secret, BEGIN), "received": 0}]
            if until == FINISH:
                (finish,) = self.resume(proof=attempt.mac(secret, ANSWER, received), received=received)
                assert finish == {"proof": attempt.mac(secret, FINISH, link.received), "received": link.received}
        return attempt


def suspended(first: bool) -> tuple[Station, Peer, bytes]:
    """Alice, whose link to bob, played by the test, was cut; and the secret."""
    alice = station(Mesh(5), "alice", b"\x77" * 16)
    peer = Peer(alice, first=first).up()
    peer.say(OPENED)
    peer.listen()
    peer.link.eof(peer.mesh.now)
    assert alice.log[-1] == "suspended bob: closed without BYE"
    return alice, peer, peer.session().secret


@pytest.mark.parametrize("first", [True, False])
def test_the_exchange_step_by_step(first: bool) -> None:
    alice, old, secret = suspended(first)
    new = Peer(alice, first=first, seed=1)
    attempt = new.take_up(secret)
    assert alice.log[-1] == "resumed bob"
    assert old.link.state == UP
    assert old.link.session is not None
    assert old.link.session.secret == attempt.mac(secret, 0)
    marks = [payload for peer in (old, new) for kind, _, payload in peer.heard if kind == frames.PING]
    assert len(marks) == 2, "one is asked for at once"
    assert marks[0][8:] < marks[1][8:], "no answer to a mark of one transport is taken for one of another"
    third = Peer(alice, first=first, seed=2)
    old.link.eof(old.mesh.now)
    third.take_up(attempt.mac(secret, 0))
    assert alice.log[-1] == "resumed bob"


@pytest.mark.parametrize("first", [True, False])
def test_a_transport_that_still_seems_to_live_is_let_go(first: bool) -> None:
    """When the neighbour has proven itself, and not before: nothing may come over it any more, as it is told by then
    how much came."""
    alice = station(Mesh(5), "alice", b"\x77" * 16)
    old = Peer(alice, first=first).up()
    secret = old.session().secret
    new = Peer(alice, first=first, seed=1)
    attempt = new.attempt()
    assert kinds(new.heard) == ["HELLO"], "it may live, so nothing is begun"
    if first:
        (answer,) = new.resume(proof=attempt.mac(secret, BEGIN))
        assert answer["received"] == old.link.received
    else:
        (begin,) = new.resume()
        assert begin["proof"] == attempt.mac(secret, BEGIN)
        assert not old.link.is_suspended
        received = old.link.sender.replay.sent
        new.resume(proof=attempt.mac(secret, ANSWER, received), received=received)
    suspended_ = "suspended bob: it resumes over another transport"
    assert alice.log == ["up bob", suspended_, *([] if first else ["resumed bob"])]


@pytest.mark.parametrize("first", [True, False])
def test_a_link_that_has_ended_before_the_last_proof(first: bool) -> None:
    """Where the other side knows what a frame is, it is told by READY; else the transport ends without a word."""
    alice, old, secret = suspended(first)
    new = Peer(alice, first=first, seed=1)
    attempt = new.take_up(secret, until=ANSWER if first else BEGIN)
    old.link.close("enough")
    new.heard.clear()
    new.resume(proof=attempt.mac(secret, FINISH if first else ANSWER, 200), received=200)
    assert kinds(new.heard) == ([] if first else ["READY"])
    assert (new.link.state == DOWN) == first
    assert alice.log[2:] == ["down bob: enough", *(["down bob: the link to bob has closed meanwhile"] if first else [])]


def test_a_neighbour_that_takes_back_what_it_began() -> None:
    """READY, after proof 2 even: it has no session any more.  The new link is one like any other, with a farewell."""
    alice, old, secret = suspended(first=True)
    new = Peer(alice, first=True, seed=1)
    new.take_up(secret, until=ANSWER)
    new.say((frames.READY, 0, b""))
    assert old.link.state == DOWN
    assert alice.log[2:] == ["down bob: bob no longer knows the session", "up bob"]
    assert "READY" in kinds(new.listen())
    new.link.close("enough", orderly=True)
    assert kinds(new.listen())[-1] == "BYE"


def test_a_link_that_is_done_with_is_not_taken_up() -> None:
    alice = station(Mesh(5), "alice", b"\x77" * 16)
    old = Peer(alice, first=True).up()
    old.link.sender.flush()
    new = Peer(alice, first=True, seed=1)
    proof = new.attempt().mac(old.session().secret, BEGIN)
    assert new.resume(proof=proof) == []
    assert alice.log == ["up bob"]
    old.link.eof(old.mesh.now)
    assert alice.log[1:] == ["down bob: closed without BYE"]
    assert kinds(new.listen()) == ["READY"]


def test_a_neighbour_without_a_nonce_has_begun_anew() -> None:
    alice, _, _ = suspended(first=True)
    raw = Raw(alice, "bob", instance=bytes(16)).greet()
    assert kinds(raw.listen()) == ["HELLO", "READY"]
    assert alice.log[-1] == "down bob: bob has restarted"


@pytest.mark.parametrize("first", [True, False])
def test_an_impostor(first: bool) -> None:
    """With bob's name and instance, but not the secret."""
    alice, old, secret = suspended(first)
    old.link.received = 1234567  # what an impostor must not be told
    for seed in range(1, 12):
        raw = Peer(alice, first=first, seed=seed)
        attempt = raw.attempt()
        guess = attempt.mac(bytes(32), BEGIN if first else ANSWER)
        for proof in (b"", bytes(32)) if seed % 2 else (guess,):
            raw.resume(proof=proof, received=7)
        if raw.link.state != DOWN:
            raw.resume(proof=bytes(32))
        assert raw.farewell() == "the neighbour cannot prove that it is bob, whose link is suspended"
        sent = [frames.RESUME_FIELDS.decode(payload) for kind, _, payload in raw.heard if kind == frames.RESUME]
        assert {fields["received"] for fields in sent} <= {0}
        assert old.link.is_suspended
    assert not alice.programs[0].is_over
    Peer(alice, first=first, seed=99).take_up(secret)
    assert alice.log[-1] == "resumed bob"
    assert not alice.programs[0].is_over


@pytest.mark.parametrize("first", [True, False])
def test_an_impostor_beside_a_living_link(first: bool) -> None:
    """It is told no more, and the link goes on over the transport that it has."""
    alice = station(Mesh(5), "alice", b"\x77" * 16)
    old = Peer(alice, first=first).up()
    raw = Peer(alice, first=first, seed=1)
    raw.greet()
    raw.resume(proof=bytes(32))
    raw.resume(proof=bytes(32))
    raw.farewell()
    assert not old.link.is_suspended
    silent = Peer(alice, first=first, seed=2)
    silent.greet()
    old.listen()
    old.pong()
    assert silent.farewell() == "alice is already linked to bob"
    assert alice.node.links == {"bob": old.link}


def test_a_resume_beside_a_living_link_that_has_no_session() -> None:
    """It does not come before its turn: the living one is asked first."""
    alice = station(Mesh(5), "alice", b"\x77" * 16)
    old = Raw(alice, "bob").up()
    raw = Peer(alice, first=True, seed=1)
    raw.greet()
    raw.resume(proof=bytes(32))
    assert "READY" not in kinds(raw.heard)
    old.listen()
    old.pong()
    assert raw.farewell() == "alice is already linked to bob"


@pytest.mark.parametrize("first", ["alice", "bob"])
@pytest.mark.parametrize("to", ["alice", "bob"])
def test_what_was_recorded_is_of_no_use(first: str, to: str) -> None:
    """All that a neighbour said in an attempt that succeeded, said again."""
    mesh, alice, bob, wire_, client, data = flowing(first)
    wire_.cut()
    attempt = again(mesh, alice, bob)
    here, there = (alice, bob) if to == "alice" else (bob, alice)
    target = attempt.ports[here is bob]
    tape = bytearray()

    def tap(port: Port, chunk: bytes) -> bytes:
        tape.extend(chunk if port is target else b"")
        return chunk

    attempt.tap = tap
    mesh.run(0.1)
    assert here.log[-1].startswith("resumed")
    attempt.cut()
    for piece in (len(tape), 1, 50):
        raw = Raw(here, resume_timeout=PATIENCE)
        for at in range(0, len(tape), piece):
            raw.feed(bytes(tape[at : at + piece]))
            raw.listen()
        assert raw.farewell() == f"the neighbour cannot prove that it is {there.address}, whose link is suspended"
    again(mesh, alice, bob)
    mesh.run(1)
    assert client.sink == data
    assert is_clean(client)


@pytest.mark.parametrize("first", [True, False])
def test_a_secret_serves_once(first: bool) -> None:
    alice, old, secret = suspended(first)
    attempt = Peer(alice, first=first, seed=1).take_up(secret)
    old.link.eof(old.mesh.now)
    raw = Peer(alice, first=first, seed=2)
    again_ = raw.attempt()
    raw.resume(proof=again_.mac(secret, BEGIN if first else ANSWER))
    assert raw.farewell() == "the neighbour cannot prove that it is bob, whose link is suspended"
    Peer(alice, first=first, seed=3).take_up(attempt.mac(secret, 0))
    assert alice.log[-1] == "resumed bob"


def test_the_second_goes_on_accepting_the_old_secret_until_the_first_uses_the_next() -> None:
    """The first may have gone over to it in any of the attempts of which the second has not seen the end."""
    alice, _, secret = suspended(first=True)
    raws = [Peer(alice, first=True, seed=seed) for seed in range(1, 6)]
    attempts = [raw.take_up(secret, until=ANSWER) for raw in raws]
    for raw in raws:
        raw.link.eof(raw.mesh.now)
    new = attempts[3].mac(secret, 0)
    over = Peer(alice, first=True, seed=9).take_up(new, until=ANSWER)
    for stale in (secret, attempts[1].mac(secret, 0), attempts[4].mac(secret, 0)):
        raw = Peer(alice, first=True, seed=10)
        raw.resume(proof=raw.attempt().mac(stale, BEGIN))
        assert raw.farewell() == "the neighbour cannot prove that it is bob, whose link is suspended"
    Peer(alice, first=True, seed=11).take_up(new)
    assert alice.log[-1] == "resumed bob"
    assert over.mac(new, 0) != new


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("error", [-1, 1])
def test_received_must_be_among_what_was_sent(first: bool, error: int) -> None:
    """Even from whoever has the secret."""
    alice, old, secret = suspended(first)
    kept = old.link.sender.replay
    kept.ack(kept.sent - 5)
    received = (kept.acked if error < 0 else kept.sent) + error
    raw = Peer(alice, first=first, seed=1)
    attempt = raw.take_up(secret, until=ANSWER if first else BEGIN)
    raw.resume(proof=attempt.mac(secret, FINISH if first else ANSWER, received), received=received)
    raw.listen()
    assert raw.link.state == DOWN
    assert raw.link.reason == "bob acknowledges bytes that were not sent"
    assert old.link.is_suspended
    assert (kept.acked, check_kept(old.link)) == (kept.sent - 5, 5)
    Peer(alice, first=first, seed=2).take_up(secret)
    assert alice.log[-1] == "resumed bob"


def test_a_resume_at_the_wrong_time() -> None:
    alice = station(Mesh(5), "alice", b"\x77" * 16)
    raw = Raw(alice, "bob")
    raw.feed(frames.MAGIC + frames.encode_frame(frames.RESUME, 0, b""))
    assert raw.farewell() == "an unexpected RESUME"
    raw = Raw(alice, "bob").greet()  # it has lost nothing here: it is told so by READY
    raw.say((frames.RESUME, 0, frames.RESUME_FIELDS.encode(proof=bytes(32), received=9)))
    assert kinds(raw.listen())[-1] == "READY"
    raw.say((frames.READY, 0, b""))
    assert raw.link.state == UP
    alice, _, _ = suspended(first=False)
    raw = Peer(alice, first=False, seed=1).greet()
    raw.say((frames.RESUME, 0, b"\x01"))
    assert raw.farewell() == "RESUME: a truncated field"


# -- bytes that are lost under a transport that should not -------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_bytes_that_are_lost_are_noticed(seed: int) -> None:
    """At the next mark, at the latest, if not because what comes is no frame: the link ends with an error that tells
    what to do, on both sides, and no other transport is waited for.  What was delivered before that may be wrong from
    the gap on, but nothing behind the mark is delivered."""
    mesh, alice, bob, wire_ = pair(seed, capacity=1 << 16)
    data = mesh.random.randbytes(3 << 20)
    client = alice.tunnel("bob/sink", data, ends=False)
    size = mesh.random.choice([1, 2, 3, 100, 5000])
    gap = mesh.random.randrange(1000, 1 << 20)
    tape = bytearray()  # all that alice sent

    def tap(port: Port, chunk: bytes) -> bytes:
        if port is wire_.ports[0]:
            return chunk
        at = gap - len(tape)
        tape.extend(chunk)
        return chunk[:at] + chunk[at + size :] if 0 <= at < len(chunk) else chunk

    wire_.tap = tap
    mesh.run(5)
    (down,) = (line for line in bob.log if line.startswith("down"))
    assert "--lossy" in down
    assert any(line.startswith("down bob: bob ended it: ") and "--lossy" in line for line in alice.log)
    assert not alice.node.links
    (program,) = bob.programs
    assert not program.eof
    for end in (client, program):
        assert end.outcome is not None
        assert end.outcome.code == LOST
    decoder, until = frames.FrameDecoder(), 0  # the bytes of data before the next mark
    list(decoder.feed(frames.MAGIC))
    for kind, _, payload in decoder.feed(tape):
        until += len(payload) if kind == frames.DATA else 0
        if kind == frames.PING and decoder.place - len(frames.MAGIC) - 19 > gap:
            break
    else:
        raise AssertionError("no mark behind the gap")
    assert len(program.sink) <= until
    assert program.sink[: gap - 2000] == data[: min(gap - 2000, len(program.sink))]


def test_a_whole_frame_that_is_lost_is_noticed_by_the_mark() -> None:
    """What is left are frames as they should be, and only the number of bytes is not."""
    mesh, alice, bob, wire_ = pair()
    alice.link("bob").control(0x90, 0, bytes(2000))  # as of a later version: a receiver skips it
    seen = 0

    def tap(port: Port, chunk: bytes) -> bytes:
        nonlocal seen
        at = chunk.find(frames.encode_header(0x90, 0, 2000))
        if port is wire_.ports[0] or at < 0:
            return chunk
        seen += 1
        return chunk[:at] + chunk[at + 2004 :]

    wire_.tap = tap
    mesh.run(1)
    assert seen == 1
    assert bob.link("alice").state == UP, "nobody can know yet"
    mesh.run(20)
    assert bob.log[-1] == f"down alice: 2004 bytes were lost on the way ({links.LOSSY})"
    assert alice.log[-1] == f"down bob: bob ended it: 2004 bytes were lost on the way ({links.LOSSY})"


# -- the parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("some", [False, True])
def test_a_link_that_ends_while_it_sends_again(some: bool) -> None:
    """A farewell in the middle of what it sends would come out of a tunnel."""
    mesh, alice, _, wire_, _, _ = flowing("alice")
    wire_.cut()
    link = alice.link("bob")
    link.resume(b"", mesh.now)
    if some:
        assert sum(map(len, link.produce(mesh.now, 100)[0])) == 100
    link.close("enough")
    assert link.state == DOWN
    assert not link.has_output


def test_what_has_arrived_does_not_hold_memory_that_sending_needs() -> None:
    """Others take all memory: a little that was sent, and is in a large block, is acknowledged and sending goes on."""
    memory = MemoryLimit(1 << 20)
    sender, others = senders.Sender(Account(memory)), Account(memory)
    sender.in_flight.on_sent(20_000, 0.0, False)
    sender.replay.append([memoryview(Block(1 << 19))[:20_000]])
    others.charge(1 << 20)
    (mark,), _ = sender.produce(0.0, 1 << 20)
    assert mark[0] == frames.PING
    assert sender.produce(0.0, 1 << 20) == ([], ())  # one at a time
    sender.on_pong(bytes(mark[-16:]), 0.001)
    assert sender.replay.held < FLOOR

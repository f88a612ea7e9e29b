"""Hostile neighbours cost a fixed amount: short forms of `make rehearsal ARGS=attack`, by the rows of its table.

What is counted here is memory, programs, frames and echoes, and nothing by the clock.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from r2box.api.session import Session
from r2box.proto.limits import TABLE
from support import raw, raw_udp
from support.processes import PATIENCE, RUNNING, Box, Place, Program, cpu_time, eventually, memory
from support.rehearsal import attack_rows as rows
from support.rehearsal import floods
from support.rehearsal.attacks import ATTACKS
from support.rehearsal.field import MIB, Field, Gauge
from support.rehearsal.target import MALLORY

LONG = 60.0  # seconds that an attack may take which ends when its bytes were taken
STUCK = 3.0  # seconds in which a neighbour that takes nothing more has stopped
LEAST_STREAM = 3e6  # bytes of a stream of 10 MB/s that go through bob in a second of his processor's time


@pytest.fixture(scope="module")
def quiet(boxes: dict[tuple[int, int], Box]) -> Iterator[Field]:
    """One network for all attacks that leave it as it was."""
    place = Place(boxes[RUNNING])
    try:
        yield Field(place, rate=0)
    finally:
        place.close()


@pytest.fixture
def field(place: Place) -> Field:
    """A network of the test's own, which may be harmed."""
    place.tolerate_orphans = place.tolerate_bugs = True  # which would be failures besides the one that is looked for
    return Field(place, rate=0)


def counts_of(attacker: Program) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(attacker.ends(0, LONG + PATIENCE).out)
    return found


def none_of(problems: Iterator[str]) -> None:
    assert not list(problems)


def unharmed(field: Field) -> None:
    """Nothing died, the neighbours are there, and a new tunnel through bob answers."""
    assert not field.dead()
    eventually(lambda: not field.lost_links(), lambda: f"{field.lost_links()}")
    with Session(field.target.control.replace("bob", "alice")) as session, session.dial("carl/echo", PATIENCE) as sock:
        sock.sendall(b"hello")
        assert sock.recv(16) == b"hello"


def growth(field: Field, attack: str, **changes: Any) -> int:
    """By how many bytes bob's memory grew at most while this attack took place."""
    pid = field.nodes["bob"].pid
    before = memory(pid, "VmRSS")
    counts_of(field.attack(attack, LONG, **changes))
    more = memory(pid, "VmHWM") - before
    print(f"{more / MIB:.1f} MiB more")
    return more


def await_frame(link: raw.RawLink, came: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not came():
        assert not link.reason, link.reason
        assert link.wait(until), "no answer"


# -- 1: what cannot be decoded ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["1-near", "1-far"])
def test_clients_drop_what_cannot_be_decoded_and_go_on(field: Field, attack: str) -> None:
    counts_of(field.attack(attack, 1))
    unharmed(field)


# -- 2, 10: memory ----------------------------------------------------------------------------------------------------


def test_answers_that_are_not_read_are_few(field: Field) -> None:
    pid = field.nodes["bob"].pid
    before = memory(pid, "VmRSS")
    for full in (False, True):
        link = raw.dial("mallory", field.target.door)
        if full:
            floods.fill(link, time.monotonic() + PATIENCE)
        link.turn_deaf()
        link.source = lambda: link.pings(4000)  # noqa: B023  of this turn
        written, moved = 0, time.monotonic()
        while time.monotonic() < moved + STUCK and memory(pid, "VmHWM") < before + 32 * MIB:
            raw.run([link], time.monotonic() + 0.2)
            if written != (written := link.written):
                moved = time.monotonic()
        assert not link.reason
        link.close()
    assert memory(pid, "VmHWM") < before + 16 * MIB
    unharmed(field)


def test_late_pongs_hold_little(field: Field) -> None:
    pid = field.nodes["bob"].pid
    before = memory(pid, "VmRSS")
    counts_of(field.attack("2-late", 3))
    assert memory(pid, "VmHWM") - before < rows.MOST_MEMORY
    unharmed(field)


def test_what_is_not_acknowledged_is_bounded_for_all_links(field: Field) -> None:
    assert growth(field, "2-unacked", most=300 * MIB) < rows.MOST_MEMORY
    unharmed(field)


def test_pieces_beyond_a_hole_are_not_kept_before_the_handshake(field: Field) -> None:
    assert growth(field, "10-hole", scale=0.1, most=64 * MIB) < 12 * MIB
    unharmed(field)


# -- 3: small frames --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busy(boxes: dict[tuple[int, int], Box]) -> Iterator[Field]:
    """One with honest traffic."""
    place = Place(boxes[RUNNING])
    try:
        yield Field(place)
    finally:
        place.close()


@pytest.mark.parametrize(
    "attack",
    [name for name in sorted(ATTACKS) if name[:2] == "3-"],
)
def test_a_stream_goes_on_beside_small_frames(busy: Field, attack: str) -> None:
    assert busy.traffic is not None
    pid = busy.nodes["bob"].pid
    best = 0.0
    for _ in range(3):  # a machine that does much else may forget the stream for a while
        busy.traffic.phase()
        before = cpu_time(pid)
        print(ATTACKS[attack](busy.target, time.monotonic() + 3, random.Random(1)))
        figures, used = busy.traffic.phase(), cpu_time(pid) - before
        print(f"{attack}: {figures['rate'] * figures['seconds'] / 1e6:.1f} MB of the stream in {used:.2f} s")
        assert not figures["broken"]
        best = max(best, figures["rate"] * figures["seconds"] / max(used, 0.01))
        if best >= LEAST_STREAM:
            break
    unharmed(busy)
    assert best >= LEAST_STREAM


# -- 4, 5: descriptors and places -------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["4-tunnels", "4-links"])
def test_no_client_ends_for_want_of_descriptors(place: Place, attack: str) -> None:
    place.tolerate_orphans = True
    field = Field(place, rate=0, descriptors=64)
    counts_of(field.attack(attack, 3))
    unharmed(field)


def test_silent_connections_do_not_keep_others_out(field: Field) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(256):
            held.enter_context(socket.create_connection(("127.0.0.1", field.target.door), PATIENCE, (MALLORY, 0)))
        raw.dial("honest", field.target.door).close()


def test_forged_senders_do_not_keep_others_out(field: Field) -> None:
    dice = random.Random(1)
    with contextlib.ExitStack() as held:
        for _ in range(300):
            sock = held.enter_context(raw_udp.connected(field.target.udp, raw_udp.loopback(dice)))
            sock.send(raw_udp.opening(dice.randrange(1, 1 << 32)))
        for link in (raw.dial("honest", field.target.door), *raw_udp.dial("honest-too", field.target.udp)):
            link.close()


# -- 6: long reasons --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_listener_is_told_of_an_end_with_a_long_reason(field: Field, kind: str) -> None:
    door = field.doors["bob's door" if kind == "tcp" else "bob's UDP door"]
    attacker = field.attack(f"6-{kind}", 2)
    counts_of(attacker)
    door.says("path", patience=3)


def test_a_link_that_ends_with_a_long_reason_is_dialled_again(field: Field) -> None:
    attacker = field.attack("6-tcp", 6)
    none_of(rows.dial_attacker(field, {}))
    assert counts_of(attacker)["dialled"] > 1


# -- 7: circles -------------------------------------------------------------------------------------------------------


def test_a_message_in_a_circle_is_refused(quiet: Field) -> None:
    link = raw.dial("mallory", quiet.target.door)
    kinds: list[int] = []

    def on_frame(kind: int, route: int, payload: bytes | int) -> None:
        if kind == raw.MESSAGE:
            assert isinstance(payload, bytes)
            kinds.append(raw.fields(payload)[3][0])

    link.on_frame = on_frame
    link.send(raw.message("alice/bob/alice/bob", raw.body(raw.ASK_PING, 1)))
    await_frame(link, lambda: bool(kinds))
    link.close()
    assert kinds == [raw.IS_ERROR]


def test_a_tunnel_in_a_circle_is_refused(quiet: Field) -> None:
    link = raw.dial("mallory", quiet.target.door)
    link.send(raw.open_frame(1, "alice/bob/alice/bob/r2.bench"))
    await_frame(link, lambda: bool(link.heard[raw.ACCEPT] or link.heard[raw.CLOSE]))
    link.close()
    assert not link.heard[raw.ACCEPT]


# -- 8, 13: programs --------------------------------------------------------------------------------------------------


def test_programs_that_ignore_sighup_end_with_their_tunnels(field: Field) -> None:
    gauge = Gauge(field)
    counts_of(field.attack("8-churn", 1, scale=0.2))
    eventually(lambda: not gauge.programs(), "the end of all programs", 12)
    gauge.stop()


def test_a_neighbour_has_so_many_programs_and_no_more(field: Field) -> None:
    link = raw.dial("mallory", field.target.door)
    for label in range(1, 601):
        link.send(raw.open_frame(label, "service/stubborn"))
    await_frame(link, lambda: link.heard[raw.ACCEPT] + link.heard[raw.CLOSE] == 600)
    accepted = link.heard[raw.ACCEPT]
    link.close()
    assert accepted == TABLE["programs-per-neighbour"].default


@pytest.mark.parametrize("victim", ["r2-serve", "r2d"])
def test_programs_end_when_what_started_them_is_killed(quiet: Field, victim: str) -> None:
    none_of(rows.killed(victim)(quiet, {}))


# -- 9, 11, 12, 14, 15: who is taken ----------------------------------------------------------------------------------


def test_18_bytes_of_udp_are_not_answered_by_more_than_54(quiet: Field) -> None:
    with raw_udp.connected(quiet.target.udp) as sock:
        sock.send(raw_udp.smallest())
        back = 0
        while back <= 54 and select.select([sock], [], [], 2)[0]:
            back += len(sock.recv(1 << 16))
    assert back <= 54


def test_a_path_descriptor_does_not_keep_a_link_from_ending(field: Field) -> None:
    none_of(rows.none_listed(field, counts_of(field.attack("11-path", 2))))
    assert not field.bugs()


def test_whom_a_neighbour_carries_is_not_the_neighbour(quiet: Field) -> None:
    none_of(rows.not_let_in(quiet, counts_of(quiet.attack("12-carried", 1))))


def test_many_links_in_discovery_are_told_little(quiet: Field) -> None:
    counts = counts_of(quiet.attack("14-links", 5, scale=0.04))
    assert counts["links"] == 36
    assert counts["reach"] <= 36 * 36
    unharmed(quiet)


def test_names_that_mean_something_else_are_refused(quiet: Field) -> None:
    assert counts_of(quiet.attack("15-names", 2))["taken"] == []


def test_what_is_listed_of_a_neighbour_is_short(quiet: Field) -> None:
    attacker = quiet.attack("15-names", 8)
    eventually(lambda: "mallory" in quiet.neighbours(), "a link")
    none_of(rows.short_names(quiet, {}))
    attacker.ends(0)


def test_a_socket_of_another_user_is_not_used(place: Place) -> None:
    none_of(rows.foreign_socket(place))


# -- all at once ------------------------------------------------------------------------------------------------------


def test_five_links_at_once_end_nothing(field: Field) -> None:
    names = [name for name in rows.LONG if name != "1-near"]
    picked = list(itertools.islice(itertools.cycle(names), 0, len(names), max(len(names) // 5, 1)))[:5]
    for attacker in [field.attack(name, 2, scale=0.1) for name in picked]:
        counts_of(attacker)
    unharmed(field)

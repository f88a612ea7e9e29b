"""Turns of the loop: how much of a round links that are not up take, and how many programs start at the same time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from r2box.net.client import service_job, start_pace
from r2box.net.client.start_pace import SETTLE_TIMEOUT, is_busy
from r2box.net.io import process
from r2box.net.io.channel import Channel
from r2box.net.io.loop import Loop
from r2box.net.link.driver import LinkDriver
from r2box.net.link.turns import FULL_TURNS, PENDING_BURST, PENDING_SHARE, PENDING_TIME, TURN, WORK, TurnGroup
from r2box.net.transport import udp
from r2box.net.transport.transport import parse_transport
from r2box.net.transport.udp import UdpListener
from r2box.proto.link.link import READY_WAIT, UP
from r2box.proto.wire import messages
from support import raw_udp
from support.processes import eventually

READ = TURN / 2  # seconds that a link takes in these tests to read what has come


class FakeLoop(Loop):
    """A loop with a clock that is set."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.now = lambda: self.clock  # type: ignore[method-assign]


@pytest.fixture
def loop() -> Iterator[FakeLoop]:
    loop = FakeLoop()
    yield loop
    loop.close()


# -- links that are not up ----------------------------------------------------------------------------------------


class Flooded:
    """Links whose neighbours have always something more to say; `reads` of each in every round are counted."""

    def __init__(self, loop: FakeLoop, pending: int) -> None:
        self.loop = loop
        self.group = TurnGroup(loop)
        self.reads: Counter[int] = Counter()
        self.kept: list[Any] = []
        for number in range(pending + 1):  # the last one is up
            self.add(number, UP if number == pending else READY_WAIT)

    def add(self, number: int, state: Any) -> None:
        ours, theirs = socket.socketpair()
        theirs.send(b"x")
        link: Any = SimpleNamespace(
            state=state, is_up=state is UP, is_local=False, is_backlogged=False, has_output=False, passes=False,
            sender=SimpleNamespace(has_arq=False), tick=lambda now: None, deadline=lambda: 0.0,
        )  # fmt: skip
        driver = LinkDriver(self.group, link, Channel(ours.detach()), self.loop, lambda: None)
        driver._read = lambda: self._read(number)  # type: ignore[method-assign]
        driver.flush()
        self.kept.append((driver, theirs))

    def _read(self, number: int) -> None:
        self.reads[number] += 1
        self.loop.clock += READ

    def round(self) -> None:
        self.reads.clear()
        self.loop.run_once()

    def close(self) -> None:
        for driver, theirs in self.kept:
            driver.cut()
            theirs.close()


@pytest.fixture
def flooded(loop: FakeLoop) -> Iterator[Flooded]:
    flooded = Flooded(loop, 60)
    yield flooded
    flooded.close()


def test_links_that_are_not_up_share_a_part_of_each_round(flooded: Flooded) -> None:
    flooded.round()
    for _ in range(20):
        flooded.round()
        assert flooded.reads.pop(60) == 1, "the link that is up has its turn in every round"
        assert sum(flooded.reads.values()) * READ <= PENDING_TIME + READ


def test_links_that_are_up_share_a_round_too(loop: FakeLoop) -> None:
    """Twenty of them have always more to do than fits into a turn, and one says a little each time."""
    flooded = Flooded(loop, 0)
    work: Counter[int] = Counter()

    def receive(number: int, units: int) -> int:
        work[number] += units
        loop.clock += units * TURN / WORK
        return units

    for number in range(1, 21):
        flooded.add(number, UP)
        driver, theirs = flooded.kept[-1]
        theirs.send(bytes(1 << 16))
        driver._read = lambda driver=driver: LinkDriver._read(driver)
        driver.link.receive = lambda data, now, descriptors, units, number=number: receive(number, units)
        driver.link.settle = lambda: None
    rounds = []
    for _ in range(30):
        before = loop.clock
        flooded.round()
        assert flooded.reads[0] == 1, "the one that says a little has its turn in every round"
        rounds.append(loop.clock - before)
    assert max(rounds) <= 5 * FULL_TURNS * TURN
    assert max(rounds[1:]) <= 1.5 * FULL_TURNS * TURN
    assert max(work.values()) - min(work.values()) <= WORK
    flooded.close()


def test_links_that_are_not_up_leave_most_of_a_second_to_others(flooded: Flooded) -> None:
    pending = 0
    for _ in range(1000):
        flooded.round()
        pending += sum(count for number, count in flooded.reads.items() if number != 60)
    share = PENDING_SHARE * flooded.loop.clock
    assert share <= pending * READ <= share + PENDING_BURST + 2 * PENDING_TIME


def test_links_that_are_not_up_take_turns(flooded: Flooded) -> None:
    seen: Counter[int] = Counter()
    for _ in range(600):
        flooded.round()
        seen += flooded.reads
    turns = [seen[number] for number in range(60)]
    assert min(turns) >= 2
    assert max(turns) - min(turns) <= 1


def test_unknown_senders_leave_most_of_a_second_to_others(loop: FakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer to one takes 1 ms here; what is not answered is lost or waits."""
    where: list[str] = []
    gatherer = UdpListener(
        loop, parse_transport("udp-listen://127.0.0.1:0"), lambda fd, sender: None, lambda error: None, where.append
    )
    answers = 0

    def answer(sock: socket.socket, data: bytes, sender: Any) -> None:
        nonlocal answers
        answers += 1
        loop.clock += 1e-3

    monkeypatch.setattr(gatherer, "_answer", answer)
    while not where:
        loop.soon(lambda: None)
        loop.run_once()
    with raw_udp.connected(int(where[0].rpartition(":")[2])) as sock:
        for second in range(3):
            began, before = loop.clock, answers
            while loop.clock < began + 1:
                sock.send(raw_udp.opening(second + 1))
                sock.send(raw_udp.opening(second + 1))
                loop.clock += 1e-3
                loop.soon(lambda: None)
                loop.run_once()
            assert 100 <= answers - before <= 1000 * (udp.SHARE + udp.BURST) + 10
    gatherer.close()


# -- programs that start ------------------------------------------------------------------------------------------


class Served:
    """A server of `sleep`, of which each start is noted; `busy` are the programs that have not settled."""

    def __init__(self, loop: FakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = loop
        self.busy: set[int] = set()
        self.started: list[int] = []
        self.exits: dict[int, Callable[[int], None]] = {}
        monkeypatch.setattr(start_pace, "is_busy", lambda pid: pid in self.busy)
        monkeypatch.setattr(start_pace, "processors", lambda: 2)
        monkeypatch.setattr(process, "start", self._start)
        monkeypatch.setattr(loop, "on_exit", self.exits.__setitem__)
        monkeypatch.setattr(service_job, "Leash", lambda loop: SimpleNamespace(
            open=lambda: -1, add=print, ending=print, remove=print, close=lambda: None))  # fmt: skip
        client: Any = SimpleNamespace(
            link=SimpleNamespace(state=UP), request=lambda *_, **__: None, send=lambda *_, **__: None
        )
        self.server = service_job.ServiceJob(
            loop, SimpleNamespace(debug=print, once=print), "x",  # type: ignore[arg-type]
            parse_transport("sleep 600"), "r2.sock", lambda: None, lambda error: None,
        )  # fmt: skip
        self.server.begin(client)
        for number in range(1, 11):
            ends = tuple(end.detach() for end in socket.socketpair())
            body = messages.Body(messages.INCOMING, number, {"service": "x", "origin": (), "node": "bob"})
            self.server.event(body, ends)

    def _start(self, *words: Any, **options: Any) -> int:
        pid = 1_000_000_000 + len(self.started)
        self.started.append(pid)
        self.busy.add(pid)
        return pid

    def turn(self, seconds: float) -> int:
        """How many have been started after this time."""
        self.loop.clock += seconds
        for _ in range(12):
            self.loop.soon(lambda: None)
            self.loop.run_once()
        return len(self.started)


@pytest.fixture
def served(loop: FakeLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    served = Served(loop, monkeypatch)
    yield served
    served.server.end(lambda: None)


def test_as_many_programs_start_at_the_same_time_as_there_are_processors(served: Served) -> None:
    assert served.turn(0) == 2
    assert served.turn(SETTLE_TIMEOUT / 2) == 2
    served.busy.discard(served.started[0])
    assert served.turn(0.01) == 3
    served.exits[served.started[1]](0)
    served.busy.clear()
    assert served.turn(0.01) == 5


def test_a_program_that_stays_busy_keeps_others_waiting_for_a_moment_only(served: Served) -> None:
    assert [served.turn(SETTLE_TIMEOUT * 1.1) for _ in range(5)] == [2, 4, 6, 8, 10]


def test_a_program_is_busy_until_it_waits_for_something() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) as computes:
        eventually(lambda: is_busy(computes.pid), "a program that computes")
        computes.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, computes.pid, os.WEXITED | os.WNOWAIT)
        assert not is_busy(computes.pid), "it has ended"
    assert not is_busy(computes.pid)
    with subprocess.Popen(["sleep", "600"]) as sleeps:
        eventually(lambda: not is_busy(sleeps.pid), "a program that waits")
        sleeps.kill()

"""Programs of tunnels: how many there are, and how they end, whatever ended what started them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import r2box
from r2box.net.daemon.clients import LocalClient
from r2box.net.daemon.starts import CONNECTING, FEW, STARTING, Incoming, Starts, StartState
from r2box.net.io import process
from r2box.net.io.leash import Leash
from r2box.net.io.loop import Loop
from r2box.net.io.process import STOP_GRACE, TERMINATE, Child
from r2box.net.io.signals import GRACE
from r2box.proto.limits import Limits
from r2box.proto.routing.service_entry import ServiceEntry
from r2box.proto.wire import messages
from r2box.proto.wire.outcome import Outcome
from support import raw
from support.processes import PATIENCE, RUNNING, Box, Place, children, eventually, free_port

HUP, CONT, TERM, KILL = signal.SIGHUP, signal.SIGCONT, signal.SIGTERM, signal.SIGKILL
ENDED = 2 * GRACE + PATIENCE  # seconds until a program that ignores what can be ignored has ended
IGNORANT = "trap '' HUP TERM; echo $$ >>pids; while :; do sleep 600; done"  # does not read either


# -- the signals --------------------------------------------------------------------------------------------------


class FakeLoop(Loop):
    """A loop with a clock that is set, and children that exit when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.now = lambda: self.clock  # type: ignore[method-assign]
        self.exit: Callable[[int], None] = lambda status: None

    def on_exit(self, pid: int, fn: Callable[[int], None]) -> None:
        self.exit = fn

    def wait(self, seconds: float) -> None:
        self.clock += seconds
        self.soon(lambda: None)
        self.run_once()


class Fake:
    """A Child, and what it is sent: (time, target, signal)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, group: bool) -> None:
        self.loop = FakeLoop()
        self.sent: list[tuple[float, int, int]] = []
        self.is_left = True  # the group has members
        self.status: list[int] = []
        monkeypatch.setattr(os, "kill", self._kill)
        self.child = Child(self.loop, 7, self.status.append, group=group)

    def _kill(self, target: int, number: int) -> None:
        if not self.is_left:
            raise ProcessLookupError
        if number:
            self.sent.append((self.loop.clock, target, number))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made = Fake(monkeypatch, True)
    yield made
    made.loop.close()


def test_a_program_that_ignores_signals_is_killed_after_two_graces(fake: Fake) -> None:
    fake.child.end()
    fake.loop.wait(GRACE / 2)
    fake.child.end()  # again, which changes nothing
    fake.loop.wait(GRACE / 2)
    fake.loop.wait(GRACE)
    assert fake.sent == [(0, -7, HUP), (0, -7, CONT), (GRACE, -7, TERM), (2 * GRACE, -7, KILL)]
    fake.loop.exit(-KILL)
    fake.loop.wait(100)
    assert len(fake.sent) == 4
    assert fake.status == [-KILL]


def test_a_program_that_ends_is_sent_no_more(fake: Fake) -> None:
    fake.child.end()
    fake.is_left = False
    fake.loop.exit(-HUP)
    fake.is_left = True  # somebody else's
    fake.loop.wait(100)
    assert fake.sent == [(0, -7, HUP), (0, -7, CONT)]


def test_what_a_program_leaves_of_its_group_is_ended_too(fake: Fake) -> None:
    fake.child.end()
    fake.loop.exit(-HUP)
    assert fake.status == [-HUP]  # at once
    fake.loop.wait(GRACE)
    fake.loop.wait(GRACE)
    assert [number for _, _, number in fake.sent] == [HUP, CONT, TERM, KILL]


def test_what_a_program_leaves_when_it_exits_by_itself_stays(fake: Fake) -> None:
    fake.loop.exit(0)
    fake.child.end()
    fake.loop.wait(100)
    assert fake.sent == []


def test_an_end_that_is_due_can_come_sooner(fake: Fake) -> None:
    fake.child.end(TERMINATE, 10)
    fake.child.end(TERMINATE, 5)
    fake.loop.wait(1)
    assert fake.sent == []
    fake.child.end(TERMINATE)
    fake.loop.wait(STOP_GRACE)
    assert fake.sent == [(1, -7, TERM), (1 + STOP_GRACE, -7, KILL)]


# -- the queue and the limits -----------------------------------------------------------------------------------------


class Server:
    """A server that is asked to start programs, and the tunnels for it."""

    def __init__(self, runs: int = messages.APART, **limits: int) -> None:
        self.client = LocalClient(Loop(), None)  # type: ignore[arg-type]
        self.answers = True
        self.asked: list[tuple[int, int]] = []
        self.client.send = self._send  # type: ignore[method-assign]
        self.limits = Limits({name.replace("_", "-"): value for name, value in limits.items()})
        self.starts = Starts("bob", self.limits)
        self.service = ServiceEntry("x", self.client, runs=runs)
        self.outcomes: list[Outcome] = []
        self.fds: list[int] = []

    def _send(self, kind: int, id: int, descriptors: tuple[int, ...] = (), **fields: Any) -> bool:
        self.asked.append((kind, id))
        for fd in descriptors:
            os.close(fd)
        return self.answers

    def started(self, descriptors: tuple[int, ...]) -> None:
        return

    def exited(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def tunnel(self, neighbour: str = "") -> Incoming:
        fd = os.open(os.devnull, os.O_RDONLY)
        self.fds.append(fd)
        made = Incoming(self.starts, self.service, self, ("alice",), (fd,), neighbour)
        made.begin()
        return made


@pytest.mark.parametrize(("runs", "most"), [(messages.APART, STARTING), (messages.PROVIDES, CONNECTING)])
def test_a_server_is_asked_for_some_at_once(runs: int, most: int) -> None:
    server = Server(runs)
    tunnels = [server.tunnel() for _ in range(most + 2)]
    assert server.asked == [(messages.INCOMING, tunnel.id) for tunnel in tunnels[:most]]
    tunnels[5].started(())
    assert server.asked[most:] == [(messages.INCOMING, tunnels[most].id)]
    tunnels[6].end(Outcome())  # it could not be started
    assert server.asked[most + 1 :] == [(messages.INCOMING, tunnels[most + 1].id)]


def test_a_neighbour_with_few_tunnels_does_not_wait_for_one_with_many() -> None:
    server = Server()
    many = [server.tunnel("mallory") for _ in range(STARTING + 100)]
    few = [server.tunnel("alice") for _ in range(2)]
    for tunnel in many[:5]:
        tunnel.started(())
    order = [many[STARTING], few[0], many[STARTING + 1], few[1], many[STARTING + 2]]
    assert server.asked[STARTING:] == [(messages.INCOMING, tunnel.id) for tunnel in order]


def test_what_is_closed_while_it_waits_is_never_started() -> None:
    server = Server()
    tunnels = [server.tunnel() for _ in range(STARTING + 3)]
    for tunnel in tunnels[STARTING : STARTING + 2]:
        tunnel.hang_up("closed")
        assert tunnel.state is StartState.ENDED
    for fd in server.fds[STARTING : STARTING + 2]:
        with pytest.raises(OSError):
            os.fstat(fd)
    assert [outcome.text for outcome in server.outcomes] == ["closed"] * 2
    tunnels[0].started(())
    assert server.asked[STARTING:] == [(messages.INCOMING, tunnels[-1].id)]


def test_what_was_hung_up_on_keeps_its_place_until_the_server_answers() -> None:
    server = Server()
    tunnels = [server.tunnel() for _ in range(STARTING + 1)]
    tunnels[0].hang_up("closed")
    assert server.asked[STARTING:] == [(messages.HANGUP, tunnels[0].id)]
    tunnels[0].end(Outcome())
    assert server.asked[STARTING + 1 :] == [(messages.INCOMING, tunnels[-1].id)]


def test_a_server_that_does_not_read_costs_its_tunnels_alone() -> None:
    server = Server()
    tunnels = [server.tunnel() for _ in range(STARTING + 500)]
    server.answers = False
    tunnels[0].started(())
    assert [outcome.text for outcome in server.outcomes] == ["bob: the server of service/x does not answer"] * 500
    assert server.limits.used("programs") == STARTING


def test_a_server_that_leaves_is_asked_for_nothing_more() -> None:
    server = Server()
    tunnels = [server.tunnel() for _ in range(STARTING + 500)]
    server.client.starts.close()
    for tunnel in tunnels:
        tunnel.end(Outcome())
    assert len(server.asked) == STARTING
    assert server.limits.used("programs") == 0


def test_a_neighbour_of_many_names_leaves_places_for_others() -> None:
    server = Server(programs=512, programs_per_neighbour=256)
    tunnels: list[Incoming] = []

    def take(neighbour: str) -> int:
        count = 0
        while not server.starts.refusal(server.service, neighbour):
            tunnels.append(server.tunnel(neighbour))
            count += 1
        return count

    assert take("alice") == 256, "who is alone may have the half"
    for number in range(20):
        assert take(f"mallory{number}")
    assert server.starts.refusal(server.service, "mallory0").endswith("already, and few more can; retry later")
    assert take("carl") >= FEW
    assert not server.starts.refusal(server.service), "and this host has what is left"
    for tunnel in tunnels:
        tunnel.end(Outcome())
    assert take("alice") == 256
    for tunnel in tunnels[-256:]:
        tunnel.end(Outcome())


def test_programs_of_a_service_and_of_a_neighbour_are_limited() -> None:
    server = Server(programs=4, programs_per_neighbour=2)
    tunnels = [server.tunnel("alice"), server.tunnel("alice")]
    refusal = server.starts.refusal(server.service, "alice")
    assert refusal == "bob: service/x: 2 programs run for alice already; retry later"
    assert not server.starts.refusal(server.service, "carl")
    tunnels += [server.tunnel(), server.tunnel()]
    for neighbour in ("alice", "carl", ""):
        refusal = server.starts.refusal(server.service, neighbour)
        assert refusal == "bob: service/x: 4 programs run already; retry later"
    tunnels[0].hang_up("")
    assert server.starts.refusal(server.service)  # it runs until it has ended
    tunnels[0].end(Outcome())
    assert not server.starts.refusal(server.service, "alice")
    assert (server.limits.used("programs"), server.limits.peak["programs"]) == (3, 4)


# -- the leash --------------------------------------------------------------------------------------------------------


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def turn_until(loop: Loop, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        loop.later(0.01, lambda: None)
        loop.run_once()


def test_a_watcher_that_was_killed_is_made_again(tmp_path: Path) -> None:
    loop = Loop()
    leash = loop.shared(Leash)
    exited: list[int] = []

    def start() -> int:
        null = os.open(os.devnull, os.O_RDWR)
        pid = process.start("sleep 600", null, null, new_session=True, leash=leash.open())
        os.close(null)
        Child(loop, pid, exited.append, group=True, leash=leash)
        return pid

    def watchers() -> set[int]:
        """Who reads the pipe."""
        pipe, found = os.readlink(f"/proc/self/fd/{leash.open()}"), set()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if int(folder.name) != os.getpid() and os.readlink(folder / "fd/0") == pipe:
                    found.add(int(folder.name))
        return found

    first = start()
    turn_until(loop, lambda: len(watchers()) == 1)
    os.kill(watchers().pop(), KILL)
    turn_until(loop, lambda: not watchers())
    second = start()  # without a leash, which does it no harm
    os.kill(second, KILL)
    turn_until(loop, lambda: exited == [-KILL])  # and now the loss is seen
    third = start()
    turn_until(loop, lambda: len(watchers()) == 1)
    loop.close()
    eventually(lambda: not is_running(first) and not is_running(third), "the end of both")
    for pid in (first, third):
        with suppress(ChildProcessError):  # which a loop may have reaped
            os.waitpid(pid, 0)


def pids(place: Place) -> list[int]:
    file = place.path / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_programs_end_when_what_started_them_is_killed(boxes: dict[tuple[int, int], Box]) -> None:
    """They ignore what can be ignored, and do not read.  (All at once: it takes its time.)"""
    places = [Place(boxes[RUNNING]) for _ in range(3)]
    try:
        for place, victim in zip(places, ("r2-serve", "r2d", "r2dm")):
            place.tolerate_orphans = True
            if victim == "r2dm":
                config = f'[self]\naddr = "bob"\nsocket = "bob.sock"\n[[serve]]\nname = "x"\ncmd = """{IGNORANT}"""\n'
                (place.path / "bob.toml").write_text(config)
                killed = place.start("r2dm -f bob.toml").says("listening at")
                eventually(lambda: "service/x" in place.run("r2 -s bob.sock ls").out, "the service")  # noqa: B023
            else:
                node = place.node("bob")
                server = place.serve("bob", IGNORANT, "x")
                killed = server if victim == "r2-serve" else node
            for number in range(2):
                place.start("r2 -s bob.sock -t x tunnel -")
                eventually(lambda: len(pids(place)) == number + 1, "a program")  # noqa: B023
            killed.kill()
        for place in places:
            assert len(pids(place)) == 2
            eventually(lambda: not any(map(is_running, pids(place))), f"{place.programs}", ENDED)  # noqa: B023
    finally:
        for place in places:
            place.close()


# -- a hostile neighbour ----------------------------------------------------------------------------------------------


@pytest.fixture
def door(place: Place) -> int:
    """A port of bob's, who serves `x`, a program that ignores SIGHUP."""
    port = free_port()
    place.node("bob")
    place.start(f"r2 -v -s bob.sock connect tcp-listen://127.0.0.1:{port}").says("listening at")
    place.serve("bob", IGNORANT.replace("HUP TERM", "HUP"), "x")
    return port


def await_frames(link: raw.RawLink, kind: int, count: int) -> None:
    until = time.monotonic() + PATIENCE
    while link.heard[kind] < count:
        assert not link.reason, link.reason
        assert link.wait(until), f"no {raw.NAMES[kind]}"


def test_a_program_ends_when_its_tunnel_is_closed_in_good_order(place: Place, door: int) -> None:
    link = raw.dial("mallory", door)
    link.send(raw.open_frame(1, "service/x"))
    await_frames(link, raw.ACCEPT, 1)
    eventually(lambda: pids(place), "the program")
    link.closes_first = True
    link.send(raw.frame(raw.CLOSE, 2))
    await_frames(link, raw.CLOSE, 1)
    eventually(lambda: not any(map(is_running, pids(place))), "its end", ENDED)
    link.close()


def test_a_tunnel_that_is_closed_at_once_starts_no_program(place: Place, door: int) -> None:
    link = raw.dial("mallory", door)
    link.closes_first = True
    block = b"".join(raw.open_frame(label, "service/x") + raw.frame(raw.CLOSE, label << 1) for label in range(1, 301))
    link.send(block)
    await_frames(link, raw.CLOSE, 300)
    link.send(raw.open_frame(301, "service/x"))  # it is the last that is started
    await_frames(link, raw.ACCEPT, 1)
    eventually(lambda: pids(place), "the last program")
    assert len(pids(place)) <= STARTING
    link.close()
    eventually(lambda: not any(map(is_running, pids(place))), "the end of all", ENDED)


def test_tunnels_beyond_the_limit_are_refused_and_the_others_go_on() -> None:
    port = free_port()
    with r2box.Node("bob", limits={"programs": 2}) as bob:
        bob.offer("cat", "cat")
        bob.connect(f"tcp-listen://127.0.0.1:{port}")
        link = raw.dial("mallory", port)
        closes: dict[int, str] = {}

        def frame(kind: int, route: int, payload: bytes | int) -> None:
            if kind == raw.CLOSE:
                assert isinstance(payload, bytes)
                closes[route >> 1] = raw.fields(payload).get(4, b"").decode()

        link.on_frame = frame
        for label in (1, 2, 3):
            link.send(raw.open_frame(label, "service/cat"))
        await_frames(link, raw.ACCEPT, 2)
        await_frames(link, raw.CLOSE, 1)
        assert closes == {3: "bob: service/cat: 2 programs run already; retry later"}
        with pytest.raises(r2box.RefusedError, match="2 programs run already"):
            bob.dial("cat")
        link.send(raw.frame(raw.FIN, 2))  # cat ends
        await_frames(link, raw.CLOSE, 2)
        with bob.dial("cat") as sock:
            sock.sendall(b"hello")
            assert sock.recv(16) == b"hello"
        link.close()


def test_a_loop_that_is_closed_at_once_leaves_no_child_and_no_descriptor() -> None:
    files, processes = len(os.listdir("/proc/self/fd")), children(os.getpid())
    for _ in range(5):
        loop = Loop()
        loop.shared(Leash).open()
        loop.close()
        assert children(os.getpid()) == processes
    assert len(os.listdir("/proc/self/fd")) == files

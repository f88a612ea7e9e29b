"""A neighbour that lies to real daemons, and what that costs them.

    alice - bob        mallory, who lies, and eve, who only listens, are linked to alice as well.  Every pair of the
      |      |         four has another way beside the one through alice, and carl's links are slow, so that lies about
    dave  - carl       it find belief.

Each run yields lines of figures; AssertionError if something does not hold.  The long ones are `make rehearsal
ARGS=liars`, the short ones e2e/test_false_routes.py.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from r2box.api.session import Session
from r2box.net.daemon.blackhole import PROBE_TIME
from r2box.proto.routing.adjacency import CHUNK, MAX_LEARNED, PAUSE
from r2box.proto.wire.advertisement import BEGIN, END, ENTRY_FIELDS, REACH_FIELDS, AdvertisedNode, NodeRecord
from r2box.proto.wire.frames import MAX_REACH, REACH, encode_frame
from r2box.proto.wire.outcome import REFUSED, UNKNOWN, Outcome
from support.fake_neighbour import Liar, Mouth, claim, identity_of
from support.processes import Place, await_port, cpu_time, eventually, free_port, memory
from support.rehearsal.grid import Echo, network

MIB = 1 << 20
HONEST = ("alice", "bob", "carl", "dave")
MARK = b"\n"
LATE = 0.9 * PROBE_TIME  # seconds for a tunnel to stand: less than it would take if one that hangs were waited for


class Square:
    """The four daemons, an echo at each, and a port at which alice takes links."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.nodes = {name: place.node(name) for name in HONEST}
        for one, other in (("alice", "bob"), ("dave", "alice")):
            place.link(one, other)
        for one, other in (("bob", "carl"), ("carl", "dave")):  # slow ones, that a lie about carl finds belief
            line = f"r2-lossy -q --delay 4ms 'r2 -s {other}.sock connect -n {one} -'"
            place.start(f'r2 -v -s {one}.sock connect -n {other} "{line}"').says("linked to")
        self.echoes = [Echo(self.socket(name), name) for name in HONEST]
        self.port = free_port()
        self.door = place.start(f"r2 -v -s alice.sock connect 'tcp-listen://127.0.0.1:{self.port}'")
        await_port(self.port)
        self.mouths: list[Mouth] = []
        self.eve = self.meet("eve")
        self.eve.tell(claim(services=()), flags=BEGIN)
        eventually(lambda: self.names("carl") == {"alice", "bob", "dave", "eve"}, lambda: f"{self.names('carl')}")

    def socket(self, name: str) -> str:
        return str(self.place.path / f"{name}.sock")

    def names(self, name: str) -> set[str]:
        return set(network(self.socket(name)))

    def meet(self, address: str) -> Mouth:
        """Link a neighbour of the test to alice."""

        mouth = Mouth(address, self.port)
        self.mouths.append(mouth)
        eventually(lambda: mouth.liar.is_up.is_set() or mouth.liar.reason, "a link")
        return mouth

    def dial(self, one: str, other: str) -> float:
        """Seconds that a tunnel by name takes to stand; it must lead to the real one."""
        began = time.monotonic()
        with Session(self.socket(one)) as session, session.dial(f"{other}/echo", 20) as sock:
            took = time.monotonic() - began
            sock.settimeout(10)
            name = b""
            while MARK not in name:
                more = sock.recv(64)
                assert more, f"{one} to {other} was cut off"
                name += more
        assert name == other.encode() + MARK
        return took

    def dial_all(self) -> float:
        """Between all pairs; the longest."""
        return max(self.dial(one, other) for one, other in itertools.permutations(HONEST, 2))

    def lines(self) -> int:
        """That alice has said of mallory."""
        return sum("mallory" in line for line in self.nodes["alice"].err.splitlines())

    def close(self) -> None:
        for echo in self.echoes:
            echo.end()
        for mouth in self.mouths:
            mouth.close()


class Bill:
    """What it has cost since."""

    def __init__(self, square: Square) -> None:
        self.square = square
        self.began = time.monotonic()
        self._cpu = {name: cpu_time(node.pid) for name, node in square.nodes.items()}
        self._memory = memory(square.nodes["alice"].pid, "VmRSS")
        self._told = square.eve.liar.frames, square.eve.liar.entries
        self._lines = square.lines()

    def cpu(self, name: str) -> float:
        return cpu_time(self.square.nodes[name].pid) - self._cpu[name]

    @property
    def memory(self) -> float:
        """MiB that alice had at most, more than before."""
        return (memory(self.square.nodes["alice"].pid, "VmHWM") - self._memory) / MIB

    @property
    def lines(self) -> int:
        return self.square.lines() - self._lines

    @property
    def entries(self) -> int:
        return self.square.eve.liar.entries - self._told[1]

    def __str__(self) -> str:
        took = time.monotonic() - self.began
        frames = self.square.eve.liar.frames - self._told[0]
        others = ", ".join(f"{name} {self.cpu(name):.2f}" for name in HONEST)
        return (
            f"in {took:.1f} s: processor {others} s; alice + {self.memory:.1f} MiB, {self.lines} lines; another "
            f"neighbour was told {frames} frames, {self.entries} entries"
        )


def bogus_paths(square: Square) -> Iterator[str]:
    """mallory says that it is next to everybody, and does with their tunnels what it likes."""
    bill = Bill(square)
    mallory = square.meet("mallory")
    lies = [claim(services=()), *(claim(name) for name in HONEST), claim("bob", "carl"), claim("carl", "alice", "dave")]
    mallory.tell(*lies, flags=BEGIN)
    for what, answer, longest in (
        ("does not know them", Outcome(UNKNOWN, "no"), LATE),
        ("refuses", Outcome(REFUSED, "no"), LATE),
        ("never answers", None, 2 * PROBE_TIME + LATE),
    ):
        mallory.liar.answer = answer
        mallory.tell(AdvertisedNode(("carl",), None))  # and again, so that nothing is doubted
        eventually(lambda: network(square.socket("alice"))["carl"][0] != ("mallory", "carl"), "the right way")
        mallory.tell(claim("carl"))
        eventually(lambda: network(square.socket("alice"))["carl"][0] == ("mallory", "carl"), "the wrong way")
        before = len(mallory.liar.opens)
        first = square.dial("alice", "carl")
        second = square.dial("alice", "carl")
        every = square.dial_all()
        drawn = len(mallory.liar.opens) - before
        assert drawn, "the lie was not believed"
        assert first < longest, f"{first} s"
        if answer is None or answer.code == UNKNOWN:
            assert drawn == 1, "the way that failed was tried again"
            assert max(second, every) < LATE, f"{second}, {every} s"
        yield f"mallory draws tunnels and {what}: {drawn} were drawn, {first:.2f} s the first, then {every:.2f} s"
    square.mouths.remove(mallory)
    mallory.close()
    eventually(lambda: square.names("dave") == {"alice", "bob", "carl", "eve"}, "the truth")
    assert bill.lines < 20, square.nodes["alice"]
    yield f"bogus paths {bill}"


def others_names(square: Square) -> Iterator[str]:
    """Somebody who says in its hello that it is bob, or alice herself."""
    bill = Bill(square)
    reasons = []
    for name in ("bob", "alice"):
        mouth = square.meet(name)
        eventually(lambda mouth=mouth: mouth.liar.reason, f"the end of a false {name}")  # type: ignore[misc]
        reasons.append(mouth.liar.reason or "")
    assert "already linked" in reasons[0], reasons
    assert "same address" in reasons[1], reasons
    square.dial_all()
    assert not re.search(r"link to \S+ closed", square.nodes["bob"].err), square.nodes["bob"]
    yield f"names of others are refused; {bill}"


FRAME = 256  # entries


def _pour(square: Square, mallory: Mouth, count: int) -> float:
    """Tell of so many nodes as fast as the link takes it; seconds."""
    began = time.monotonic()
    mold = [
        ENTRY_FIELDS.encode(path=(f"xxxxxx{number:03d}",), cost=1, identity=identity_of("m"))
        for number in range(FRAME)
    ]
    sent = 0

    def pour() -> int:
        nonlocal sent
        link = mallory.liar.link
        while sent < count and link.sender.scheduler.backlog < MIB // 4:
            stamp = b"%06x" % (sent // FRAME)
            entries = tuple(entry.replace(b"xxxxxx", stamp) for entry in mold)
            mallory.liar.say(REACH_FIELDS.encode(number=sent // FRAME, flags=0, entries=entries))
            sent += FRAME
        return sent

    while mallory.do(pour) < count:
        assert mallory.liar.reason is None, mallory.liar.reason
        time.sleep(0.001)
    eventually(lambda: not mallory.liar.link.sender.scheduler.backlog, "the last of it")
    return time.monotonic() - began


def flood(square: Square, count: int) -> Iterator[str]:
    """`count` entries as fast as the link takes them."""
    mallory = square.meet("mallory")
    bill = Bill(square)
    took = _pour(square, mallory, count)
    longest = square.dial_all()
    known = len(square.names("alice"))
    yield f"{count} entries in {took:.1f} s, {known} names known afterwards, tunnels in {longest:.2f} s; {bill}"
    assert known <= MAX_LEARNED + 8
    assert longest < LATE
    assert bill.memory < 40, bill
    assert bill.cpu("alice") < 4.0 + count / 200_000, bill
    assert max(map(bill.cpu, HONEST[1:])) < 4.0, bill
    assert bill.entries < 3 * MAX_LEARNED, bill
    assert bill.lines <= 3, square.nodes["alice"]
    _leave(square, mallory)


def _leave(square: Square, mallory: Mouth) -> None:
    square.mouths.remove(mallory)
    mallory.close()
    eventually(lambda: square.names("alice") == {"bob", "carl", "dave", "eve"}, lambda: f"{len(square.names('alice'))}")
    square.dial_all()


def flapping(square: Square, seconds: float, names: int, way: bool = False) -> Iterator[str]:
    """`names` nodes that come or go 1,000 times a second altogether, or are reached by another `way` each time."""
    mallory = square.meet("mallory")
    mallory.tell(claim(services=()), flags=BEGIN)
    bill = Bill(square)
    began = time.monotonic()
    flaps = 0
    longest = square.dial_all()
    while time.monotonic() < began + seconds:
        due = int((time.monotonic() - began) * 1000)
        flaps += mallory.do(lambda start=flaps, due=due: _flap(mallory.liar, start, due, names, way))  # type: ignore[misc]
        time.sleep(0.002)
    longest = max(longest, square.dial_all())
    what = "change their ways" if way else "flap"
    yield f"{names} names {what} {flaps / seconds:.0f} times a second, tunnels in {longest:.2f} s; {bill}"
    assert longest < LATE
    assert bill.memory < 8, bill
    assert bill.cpu("alice") < 0.35 * seconds + 1, bill
    assert max(map(bill.cpu, HONEST[1:])) < 0.15 * seconds + 1, bill
    assert bill.entries < names * (40 + 2 * (time.monotonic() - bill.began)), bill
    assert bill.lines <= 3, square.nodes["alice"]
    _leave(square, mallory)


def _flap(liar: Liar, start: int, end: int, names: int, way: bool) -> int:
    for number in range(start, end):
        name, turn = f"flap{number % names}", number // names % 2
        liar.tell([claim(f"way{turn}", name) if way else AdvertisedNode((name,), None) if turn else claim(name)])
    return end - start


def garbage(square: Square) -> Iterator[str]:
    """Frames at the limit, beyond it, and without sense."""
    bill = Bill(square)
    mallory = square.meet("mallory")
    mallory.tell(claim(services=()), flags=BEGIN)
    full = [claim(f"{number:03d}{'n' * 61}") for number in range(200)]
    count = mallory.do(lambda: mallory.liar.tell(full))
    assert count < len(full)
    eventually(lambda: len(square.names("alice")) == count + 5, lambda: f"{len(square.names('alice'))}")
    _leave(square, mallory)
    bad: list[Callable[[Liar], None]] = [
        lambda liar: liar.link._queue(encode_frame(REACH, 0, bytes(MAX_REACH + 1))),
        lambda liar: liar.say(b"\xff" * 100),
        lambda liar: liar.say(REACH_FIELDS.encode(number=0, flags=0, entries=(b"\xff\xff",))),
        lambda liar: liar.say(_entry(keep=3)),
        lambda liar: liar.say(_entry(path=("a",) * 80)),
        lambda liar: liar.say(_entry(path=("child/1",))),
        lambda liar: liar.say(_entry(path=("n",), identity=b"short")),
        lambda liar: liar.say(_entry(path=("n",), identity=bytes(8), services=(b"a/b",))),
        lambda liar: liar.say(_entry(path=("n",), identity=bytes(8), services=(b"s",) * 65)),
        lambda liar: liar.say(_entry(path=("n",), identity=bytes(8), cost=1 << 40)),
    ]
    for number, wrong in enumerate(bad):
        mallory = square.meet("mallory")
        mallory.do(lambda wrong=wrong, mallory=mallory: wrong(mallory.liar) is None)  # type: ignore[misc]
        eventually(lambda mallory=mallory: mallory.liar.reason, f"the end of garbage {number}")  # type: ignore[misc]
        square.mouths.remove(mallory)
        mallory.loop.post(mallory.loop.stop)
    longest = square.dial_all()
    eventually(lambda: square.names("alice") == {"bob", "carl", "dave", "eve"}, "the end of all of it")
    assert bill.memory < 8, bill
    yield f"a full frame is taken, {len(bad)} kinds of garbage end the link; tunnels in {longest:.2f} s; {bill}"


def _entry(**fields: object) -> bytes:
    return REACH_FIELDS.encode(number=0, flags=0, entries=(ENTRY_FIELDS.encode(**fields),))


def background(square: Square, seconds: float) -> Iterator[str]:
    """What all of it costs without a lie."""
    bill = Bill(square)
    square.dial_all()
    time.sleep(seconds)
    square.dial_all()
    yield f"without a liar {bill}"


def computed(pid: int) -> float:
    """As `cpu_time`, but finer."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def update(place: Place, count: int, others: int) -> Iterator[str]:
    """What it costs a daemon with `others` more neighbours when one tells of `count` nodes, of new costs, and of their
    end: seconds of processor."""
    alice = place.node("alice")
    port = free_port()
    place.start(f"r2 -s alice.sock connect 'tcp-listen://127.0.0.1:{port}'")
    await_port(port)
    mouths = [Mouth(name, port) for name in ("teller", *(f"other{number}" for number in range(others)))]
    socket = str(place.path / "alice.sock")
    try:
        for mouth in mouths:
            assert mouth.liar.is_up.wait(20)
            mouth.tell(claim(services=()), flags=BEGIN | END)
        eventually(lambda: len(network(socket)) == len(mouths), "all neighbours")
        names: list[tuple[str, ...]] = [
            (f"r{number % 7}", f"s{number % 31}", f"node{number:04d}") for number in range(count)
        ]
        figures = []
        for what, cost in (("told", 5000), ("new costs", 9000), ("gone", None)):
            heard = [mouth.liar.entries for mouth in mouths[1:]]
            began = computed(alice.pid)
            _say_all(mouths[0], names, cost, is_first=what == "told")
            eventually(
                lambda heard=heard: all(  # type: ignore[misc]
                    mouth.liar.entries - before >= count for mouth, before in zip(mouths[1:], heard)
                ),
                f"{what}: all of it",
                60,
            )
            if cost is None:
                eventually(lambda: len(network(socket)) == len(mouths), "the end of all")
            figures.append(f"{what} {computed(alice.pid) - began:.3f}")
        yield f"{count} nodes, {others} other neighbours: " + ", ".join(figures) + " s of processor"
    finally:
        for mouth in mouths:
            mouth.close()


def _say_all(mouth: Mouth, paths: list[tuple[str, ...]], cost: int | None, is_first: bool) -> None:
    """In frames as `Adjacency.frame` makes them."""
    entries = sorted(
        (
            AdvertisedNode(path, cost, NodeRecord(identity_of(path[-1]), ("echo",)) if is_first else None)
            if cost is not None
            else AdvertisedNode(path[-1:], None)
            for path in paths
        ),
        key=lambda entry: entry.path,
    )
    while entries:
        count = mouth.do(lambda: mouth.liar.tell(entries[:CHUNK]))
        del entries[:count]
        if cost is not None:
            time.sleep(PAUSE)


@contextlib.contextmanager
def new_square(place: Place) -> Iterator[Square]:
    square = Square(place)
    try:
        yield square
    finally:
        square.close()


def lies(place: Place, count: int, seconds: float) -> Iterator[str]:
    with new_square(place) as square:
        yield from background(square, seconds)
        yield from bogus_paths(square)
        yield from others_names(square)
        yield from garbage(square)
        yield from flapping(square, seconds, 1)
        yield from flapping(square, seconds, 100)
        yield from flapping(square, seconds, 100, way=True)
        yield from flood(square, count)

"""What `r2 status` and `r2 top` show of a node's links, tunnels and jobs, and how top treats a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import r2box
from r2box.proto.wire import messages
from r2box.tools.status.status import STATUS
from r2box.tools.status.top import SORTS
from support.processes import Place, await_port, eventually, free_port
from support.processes import Program as Process
from support.rehearsal.transfers import await_datagrams

Row = dict[str, Any]

MIB = 1 << 20


# -- what is shown ----------------------------------------------------------------------------------------------------


def rows(place: Place, node: str, kind: str) -> list[Row]:
    lines = place.run(f"r2 -s {node}.sock status --json").out.splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def await_row(place: Place, node: str, kind: str, **wanted: Any) -> Row:
    """The first row of the kind that has all that is `wanted`."""
    last: list[Row] = []

    def there() -> Row | None:
        last[:] = rows(place, node, kind)
        return next((row for row in last if row.items() >= wanted.items()), None)

    return eventually(there, lambda: f"{wanted} at {node}, but there is {last}")  # type: ignore[arg-type]


def await_trip(place: Place, node: str) -> None:
    """Until the round trip of its link has been measured."""
    eventually(lambda: rows(place, node, "link")[0]["rtt"], "a round trip")


def tcp_link(place: Place, options: str = "") -> tuple[Process, str]:
    """A link from bob to alice over TCP; who holds it at bob's side, and its transport there."""
    port = free_port()
    place.start(f"r2 -v -s alice.sock connect {options} tcp-listen://127.0.0.1:{port}")
    await_port(port)
    transport = f"tcp://127.0.0.1:{port}"
    return place.start(f"r2 -v -s bob.sock connect {options} {transport}").says("linked to alice"), transport


TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,), "integer": (int,), "number": (float, int), "number or null": (float, int, type(None)),
}  # fmt: skip


def declared() -> dict[str, dict[str, tuple[type, ...]]]:
    kinds: list[dict[str, tuple[type, ...]]] = []
    for field, type_, meaning in STATUS.json:
        assert meaning
        kinds += [{}] if field == "kind" else []
        kinds[-1][field] = TYPES[type_]
    return dict(zip(("link", "tunnel", "job"), kinds))


def test_json_has_what_is_declared(place: Place) -> None:
    for address in ("alice", "bob"):
        place.node(address)
    tcp_link(place)
    place.serve("bob", "cat >/dev/null", "sink")
    place.start("r2 -s alice.sock -t bob/sink tunnel 'sleep 1000'")
    place.start("r2 -s bob.sock -t sink tunnel 'sleep 1000'")
    await_row(place, "bob", "tunnel", way="local", stalled="nothing")
    await_row(place, "bob", "tunnel", way="in", stalled="nothing")
    await_row(place, "alice", "tunnel", way="out", stalled="nothing")
    kinds = declared()
    for node in ("alice", "bob"):
        for kind, fields in kinds.items():
            found = rows(place, node, kind)
            assert found
            for row in found:
                assert set(row) == set(fields)
                wrong = {field: value for field, value in row.items() if type(value) not in fields[field]}
                assert not wrong
    page = place.run("r2box --man r2").out
    for field, _, _ in STATUS.json:
        assert f"\n.It Cm {field} Pq " in page.replace("\\&", "")


def test_a_link_over_tcp(place: Place) -> None:
    for address in ("alice", "bob"):
        place.node(address)
    assert place.run("r2 -s alice.sock status").out.split("\n")[0].startswith("LINK ")
    assert place.run("r2 -s alice.sock status --json").out == ""
    held, transport = tcp_link(place)
    place.serve("alice", "cat", "echo")
    await_trip(place, "bob")
    before = rows(place, "bob", "link")[0]
    assert (before["address"], before["state"], before["transport"], before["loss"]) == ("alice", "up", transport, None)
    assert before["rtt"] > 0
    data = os.urandom(3 * MIB)
    assert place.run("r2 -s bob.sock -t alice/echo tunnel -", data).raw == data
    after = await_row(place, "bob", "link", resumes=0, tunnels=0, queue=0)
    for way in ("sent", "received"):
        assert 3 * MIB <= after[way] - before[way] < 3.1 * MIB
    assert after["capacity"] > 100_000
    theirs = rows(place, "alice", "link")[0]  # as each tells its own age

    held.send(signal.SIGKILL)
    waits = await_row(place, "alice", "link", state="suspended")
    assert "closed without BYE" in waits["reason"]
    assert waits["age"] >= theirs["age"]
    place.start(f"r2 -v -s bob.sock connect {transport}").says("linked to alice")
    await_row(place, "alice", "link", state="up", resumes=1, reason="")
    await_trip(place, "bob")
    shown = place.run("r2 -s bob.sock status").out.splitlines()
    assert re.fullmatch(r"LINK +STATE +IN +OUT +RTT +LOSS +TUN +AGE +PEER", shown[0])
    peer = transport.partition("://")[2]
    assert re.fullmatch(rf"alice +up +3.0 MiB +3.0 MiB +\S+ ms +- +0 +\d+ \S+ +{peer}", shown[1])
    assert shown[2] == ""
    assert shown[3].startswith("FROM ")
    assert re.fullmatch(rf"link +alice +up +- +{transport} +-", shown[-1])
    assert max(map(len, shown)) <= 80
    long = place.run("r2 -s bob.sock status -l").out
    assert re.search(rf"^alice +\S+ .*- +0 +0 +1 +{transport} +-$", long, re.MULTILINE), long
    assert re.search(r"^LINK +CAPACITY +LOSS +PACKETS +RESENT +CUTS +TRANSPORT +WHY$", long, re.MULTILINE), long
    refused = place.run("r2 -s bob.sock -t alice status", status=1).err
    assert refused.endswith("alice: this request is available on the local node only\n")
    assert "no daemon" in place.run("r2 -s nobody.sock status", status=1).err


def test_a_handshake_and_a_link_over_stdio(place: Place) -> None:
    place.pair()
    place.start("r2 -s alice.sock connect -n carl 'sleep 1000'")
    row = await_row(place, "alice", "link", address="carl")
    assert (row["state"], row["transport"], row["rtt"]) == ("handshake", "sleep 1000", None)
    assert await_row(place, "bob", "link")["transport"] == "-"


def test_what_tunnels_are_stalled_on(place: Place) -> None:
    """alice - bob - carl: a reader that does not read, seen from everywhere; then a server, and then a link, that is
    not there."""
    for address in ("alice", "bob", "carl"):
        place.node(address)
    held, _ = tcp_link(place)
    place.link("bob", "carl")
    place.serve("carl", "sleep 1000", "sink")
    place.start("r2 -s alice.sock -t bob/carl/sink tunnel - </dev/zero")
    row = await_row(place, "carl", "tunnel", stalled="its reader")
    assert (row["to"], row["way"], row["link"]) == ("sink", "in", "bob")
    middle = await_row(place, "bob", "tunnel", stalled="credit")
    assert (f"bob/{middle['from']}", middle["to"], middle["way"]) == (row["from"], "carl/sink", "across")
    row = await_row(place, "alice", "tunnel", stalled="credit")
    assert (f"alice/{row['from']}", row["to"], row["way"]) == (middle["from"], "bob/carl/sink", "out")
    assert re.fullmatch(r"child/\d+", row["from"])
    assert row["sent"] >= middle["sent"] > 1 << 18
    eventually(lambda: rows(place, "alice", "tunnel")[0]["idle"] > 0.3, "that it is idle")

    stopped = place.serve("carl", "cat", "asleep")
    stopped.send(signal.SIGSTOP)
    place.start("r2 -s alice.sock -t bob/carl/asleep tunnel 'sleep 1000'")
    for node in ("alice", "bob", "carl"):
        await_row(place, node, "tunnel", stalled="service")
    stopped.send(signal.SIGCONT)
    for node in ("alice", "bob", "carl"):
        row = await_row(place, node, "tunnel", stalled="nothing")
        assert row["to"].endswith("asleep")

    held.send(signal.SIGKILL)
    for node in ("alice", "bob"):
        await_row(place, node, "link", state="suspended")
        assert {row["stalled"] for row in rows(place, node, "tunnel")} == {"transport"}
    assert {row["stalled"] for row in rows(place, "carl", "tunnel")} == {"its reader", "nothing"}


def test_a_slow_link(place: Place) -> None:
    for address in ("alice", "bob"):
        place.node(address)
    near, far = free_port(), free_port()
    place.start(f"r2 -s bob.sock connect tcp-listen://127.0.0.1:{far}")
    place.start(f"r2box lossy --rate 300k --queue 16k tcp-listen://127.0.0.1:{near} tcp://127.0.0.1:{far}")
    await_port(far)
    await_port(near)
    place.start(f"r2 -v -s alice.sock connect tcp://127.0.0.1:{near}").says("linked to bob")
    place.serve("bob", "cat >/dev/null", "sink")
    for _ in range(2):
        place.start("r2 -s alice.sock -t bob/sink tunnel - </dev/zero")
    await_row(place, "alice", "tunnel", stalled="link")
    eventually(lambda: rows(place, "alice", "link")[0]["unacked"] > 0, "what is on its way")


def test_loss_over_udp(place: Place) -> None:
    for address in ("alice", "bob"):
        place.node(address)
    near, far = free_port(), free_port()
    place.start(f"r2 -s bob.sock connect udp-listen://127.0.0.1:{far}")
    await_datagrams(far)
    place.start(f"r2box lossy --loss 10% --seed 1 udp-listen://127.0.0.1:{near} udp://127.0.0.1:{far}")
    await_datagrams(near)
    place.start(f"r2 -v -s alice.sock connect --retry udp://127.0.0.1:{near}").says("linked to bob")
    place.serve("bob", "cat >/dev/null", "sink")
    place.run("r2 -s alice.sock -t bob/sink tunnel -", bytes(MIB))
    row = rows(place, "alice", "link")[0]
    assert row["packets"] > MIB // 1200
    assert row["loss"] == row["resent"] / row["packets"]
    assert 0.03 < row["loss"] < 0.3
    assert row["rtt"] > 0
    assert re.search(r"^bob .* \d+\.\d% ", place.run("r2 -s alice.sock status").out, re.MULTILINE)


def test_more_tunnels_than_go_into_a_page(place: Place) -> None:
    place.pair()
    name = "x" * 60
    with socket.socket(socket.AF_UNIX) as listener, r2box.Session(str(place.path / "alice.sock")) as session:
        listener.bind(str(place.path / "listener"))
        listener.listen(1024)
        place.serve("bob", "unix://listener", name)
        socks = list(session.dial_all([f"bob/{name}"] * 600))
        for node, way in (("alice", "out"), ("bob", "in")):
            found = rows(place, node, "tunnel")
            assert {row["way"] for row in found} == {way}
            assert len({row["label"] for row in found}) == len(found) == 600
            assert sum(len(row["to"] + row["from"]) for row in found) > messages.MAX_LISTING, "this is one page"
            assert rows(place, node, "link")[0]["tunnels"] == 600
        for sock in socks:
            sock.close()


# -- top --------------------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal and an `r2 top` on it."""

    def __init__(self, place: Place, options: str = "", colour: str = "", kind: str = "xterm") -> None:
        self.ours, self.theirs = pty.openpty()
        self.resize(100, 20)
        self.modes = termios.tcgetattr(self.theirs)
        self.all = b""
        self.program = place.start(
            f"r2 -s alice.sock top {options}", stdin=self.theirs, stdout=self.theirs, NO_COLOR=colour, TERM=kind
        )

    def close(self) -> None:
        os.close(self.ours)
        os.close(self.theirs)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def read(self) -> None:
        while select.select([self.ours], [], [], 0.05)[0]:
            self.all += os.read(self.ours, 1 << 16)

    @property
    def frame(self) -> list[str]:
        """The lines of the last frame."""
        self.read()
        text = self.all.split(b"\x1b[H")[-1].decode("utf-8", "replace") if b"\x1b[H" in self.all else ""
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).split("\r\n")]

    def shows(self, what: Callable[[list[str]], object]) -> list[str]:
        """Wait for a frame of which `what` is true."""
        last: list[str] = []

        def there() -> bool:
            last[:] = self.frame
            return bool(what(last))

        eventually(there, lambda: "a frame; there is\n" + "\n".join(last))
        return last

    def is_given_back(self) -> None:
        """Its modes are as they were; what was written last may still be on its way to our side."""
        assert termios.tcgetattr(self.theirs) == self.modes

        def there() -> bool:
            self.read()
            return self.all.endswith(b"\x1b[?25h\x1b[?1049l")

        eventually(there, lambda: f"the farewell to the terminal; there is {self.all[-200:]!r}")


@pytest.fixture
def terminals(place: Place) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(options: str = "", colour: str = "", kind: str = "xterm") -> Terminal:
        made.append(Terminal(place, options, colour, kind))
        return made[-1]

    yield make
    for terminal in made:
        if terminal.program.runs:
            terminal.program.send(signal.SIGTERM)
            terminal.program.ends(128 + signal.SIGTERM)
        terminal.close()


def busy(place: Place) -> None:
    """Two tunnels from alice to bob, in which more and less was sent, some time ago."""
    place.pair()
    place.serve("bob", "sleep 1000", "sink")
    place.serve("bob", "cat >/dev/null", "eat")
    for name, size in (("eat", 300_000), ("sink", 9_000)):
        tunnel = place.start(f"r2 -s alice.sock -t bob/{name} tunnel -", stdin=subprocess.PIPE)
        left = bytes(size)
        while left:
            left = left[tunnel.stdin.write(left) :]
        await_row(place, "alice", "tunnel", sent=size)


def order(frame: list[str]) -> list[str]:
    """The targets of the tunnels in a frame, from the top."""
    return re.findall(r"bob/(\w+)", "\n".join(frame))


def test_the_keys_of_top(place: Place, terminals: Callable[..., Terminal]) -> None:
    busy(place)
    top = terminals("-d 60")
    frame = top.shows(lambda frame: len(order(frame)) == 2)
    assert frame[0].startswith("alice: 1 link, 2 tunnels, 1 job; ")
    heads = " ".join(line.split()[0] for line in frame if line)
    assert re.sub(r"/\d+", "", heads) == "alice: LINK bob FROM child child JOB link"
    assert termios.tcgetattr(top.theirs) != top.modes
    top.press("b")
    top.shows(lambda frame: "by bytes" in frame[0] and order(frame) == ["eat", "sink"])
    top.press("R")
    top.shows(lambda frame: "reversed" in frame[0] and order(frame) == ["sink", "eat"])
    top.press("i")  # the first has been idle for longer
    top.shows(lambda frame: "by idle" in frame[0] and order(frame) == ["sink", "eat"])
    top.press("R")
    top.shows(lambda frame: "by idle" in frame[0] and order(frame) == ["eat", "sink"])
    top.press("NR")
    top.shows(lambda frame: "by name, reversed" in frame[0] and order(frame) == ["sink", "eat"])
    top.press("b>")
    top.shows(lambda frame: "by sent, reversed" in frame[0])
    top.press("<<")
    top.shows(lambda frame: "by rate, reversed" in frame[0])
    top.press("l")
    top.shows(lambda frame: frame[1].startswith("FROM"))
    top.press("t")
    top.shows(lambda frame: frame[1].startswith("JOB"))
    top.press("j")
    top.shows(lambda frame: len(frame) == 1)
    top.press("ltj")
    top.shows(lambda frame: len(order(frame)) == 2)
    top.press("n1\r")
    top.shows(lambda frame: len(order(frame)) == 1)
    top.press("#0\r")
    top.shows(lambda frame: len(order(frame)) == 2)
    top.press("q")
    top.program.ends(0)
    top.is_given_back()


def test_words_and_numbers_in_top(place: Place, terminals: Callable[..., Terminal]) -> None:
    place.node("alice")
    top = terminals("-d 60")
    frame = top.shows(lambda frame: "alice:" in frame[0])
    top.press("h")
    top.shows(lambda frame: "quit" in frame[0])
    top.press("x")
    top.shows(lambda frame: "alice:" in frame[0])
    top.press("z")
    top.shows(lambda frame: frame[0] == "'z': unknown key; h for help")
    top.press("d0\r")
    top.shows(lambda frame: frame[0] == "'0': invalid number")
    top.press("d5\x1b\x1b[A")
    top.shows(lambda frame: "every 60 s" in frame[0])
    looked = frame[0]
    time.sleep(1.1)  # what it shows is the time of the look
    top.press(" ")
    top.shows(lambda frame: frame[0].split(";")[1] != looked.split(";")[1])
    top.press("s0.2\r")
    top.shows(lambda frame: "every 0.2 s" in frame[0])
    count = top.all.count(b"\x1b[J")
    top.shows(lambda _: top.all.count(b"\x1b[J") > count + 5)
    top.press("q")
    top.program.ends(0)
    top.is_given_back()


def test_top_follows_the_size_of_its_terminal(place: Place, terminals: Callable[..., Terminal]) -> None:
    busy(place)
    top = terminals("-d 0.2")
    top.shows(lambda frame: len(order(frame)) == 2)
    assert b"\x1b[7mFROM" in top.all
    top.resize(30, 5)
    top.program.send(signal.SIGWINCH)
    frame = top.shows(lambda frame: len(frame) <= 5 and max(map(len, frame)) <= 30)
    assert frame[0].startswith("alice: 1 link")
    top.resize(8, 1)
    top.program.send(signal.SIGWINCH)
    top.shows(lambda frame: frame == ["alice: 1"])
    top.resize(100, 20)
    top.program.send(signal.SIGWINCH)
    top.shows(lambda frame: len(order(frame)) == 2)
    assert not re.search(rb"[^\n]\x1b\[[JK]", top.all.split(b"\x1b[H")[-1]), "it would erase the last column"


def test_top_without_colour(place: Place, terminals: Callable[..., Terminal]) -> None:
    place.node("alice")
    top = terminals(colour="1")
    top.shows(lambda frame: "FROM" in "\n".join(frame))
    assert b"\x1b[7m" not in top.all


def test_top_on_a_dumb_terminal(place: Place, terminals: Callable[..., Terminal]) -> None:
    """As in a shell of Emacs."""
    place.node("alice")
    top = terminals("-n 2 -d 0.1", kind="dumb")
    top.program.ends(0)

    def there() -> bool:
        top.read()
        return top.all.count(b"alice: 0 links") == 2 and top.all.endswith(b"\r\n\r\n")

    eventually(there, lambda: f"two looks; there is {top.all!r}")
    assert b"\x1b" not in top.all
    assert termios.tcgetattr(top.theirs) == top.modes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_top_and_its_terminal_is_as_it_was(
    place: Place, terminals: Callable[..., Terminal], number: int
) -> None:
    place.node("alice")
    top = terminals()
    top.shows(lambda frame: "alice" in frame[0])
    top.program.send(number)
    top.program.ends(128 + number)
    top.is_given_back()


def test_top_is_stopped_and_goes_on(place: Place, terminals: Callable[..., Terminal]) -> None:
    place.node("alice")
    top = terminals("-d 60")
    top.shows(lambda frame: "alice" in frame[0])
    state = Path(f"/proc/{top.program.pid}/stat")
    for _ in range(2):
        top.program.send(signal.SIGTSTP)
        eventually(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "that it is stopped")
        top.is_given_back()
        top.all = b""
        top.program.send(signal.SIGCONT)
        top.shows(lambda frame: "alice" in frame[0])
        assert termios.tcgetattr(top.theirs) != top.modes
    top.press("q")
    top.program.ends(0)
    top.is_given_back()


def test_top_ends_when_the_daemon_does(place: Place, terminals: Callable[..., Terminal]) -> None:
    alice = place.node("alice")
    top = terminals()
    top.shows(lambda frame: "alice" in frame[0])
    alice.send(signal.SIGTERM)
    top.program.ends(1)
    assert top.program.err.startswith("r2-top: alice.sock: the daemon closed the connection")
    top.is_given_back()


def test_a_terminal_that_stands_still_does_not_hold_top(place: Place, terminals: Callable[..., Terminal]) -> None:
    place.node("alice")
    top = terminals("-d 0.1")
    top.shows(lambda frame: "alice" in frame[0])
    termios.tcflow(top.theirs, termios.TCOOFF)  # as Ctrl-S does
    time.sleep(0.5)  # some frames, of which nothing is to be seen
    top.program.send(signal.SIGTERM)
    top.program.ends(128 + signal.SIGTERM)
    assert termios.tcgetattr(top.theirs) == top.modes


def test_top_without_a_terminal(place: Place) -> None:
    busy(place)
    began = time.monotonic()
    out = place.run("r2 -s alice.sock top -n 3 -d 0.3 -o bytes").out
    assert time.monotonic() - began > 0.6
    assert out.count("alice: 1 link, 2 tunnels, 1 job; ") == 3
    assert order(out.splitlines()) == ["eat", "sink"] * 3
    assert "\x1b" not in out
    for options, said in (
        ("-o byte", "did you mean bytes?"), ("-d 0", "at least 0.1"), ("-n 0", "at least one"), ("-x", "unknown option")
    ):  # fmt: skip
        assert said in place.run(f"r2 -s alice.sock top {options}", status=2).err
    for name in SORTS:
        place.run(f"r2 -s alice.sock top -b -n 1 -o {name}")
    place.run("r2 -s alice.sock top -d 0.1 | head -1")

"""r2-lossy as a program: what passes through it, what does not, and how it ends."""

from __future__ import annotations

import fcntl
import os
import random
import re
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.processes import PATIENCE, Place, Program, command_line, eventually, free_port, memory

DATA = random.Random(1).randbytes(1 << 20)
COUNTS = re.compile(r"(\d+) (passed|lost|dropped|corrupted|duplicated|reordered|silenced|cuts)")


def unread(program: Program) -> int:
    """How many bytes of its stdin it has not taken yet."""
    return int.from_bytes(fcntl.ioctl(program.stdin, termios.FIONREAD, bytes(4)), sys.byteorder)


def tally(text: str) -> dict[str, int]:
    """The last line of counts."""
    line = [line for line in text.splitlines() if COUNTS.search(line)][-1]
    return {name: int(count) for count, name in COUNTS.findall(line)}


# -- before a command --------------------------------------------------------------------------------------------------


@pytest.mark.every_python
def test_without_faults_nothing_is_changed(place: Place) -> None:
    assert place.run("r2-lossy cat", DATA).raw == DATA
    assert place.run("r2box lossy --delay 50ms --jitter 10ms 'cat; echo end'", b"abc").out == "abcend\n"
    (place.path / "file").write_bytes(DATA)
    place.run("r2box r2-lossy cat <file >copy")
    assert (place.path / "copy").read_bytes() == DATA


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("nonesuch-program", 127)])
def test_the_status_is_the_command_s(place: Place, command: str, status: int) -> None:
    place.run(f"r2-lossy '{command}'", b"", status=status)


def test_the_end_of_its_output_is_the_end_of_a_command(place: Place) -> None:
    program = place.start("r2-lossy 'echo done'", stdin=-1)  # which nobody ends
    assert program.prints("done").ends(0)


def test_nobody_reads(place: Place) -> None:
    place.run("sh -c 'r2-lossy yes; echo $? >status' | head -c 1 >one")
    eventually(lambda: (place.path / "status").read_text() == "141\n", "the status of a broken pipe")


def test_slices(place: Place) -> None:
    reader = "import os\nsize = 'ready'\nwhile size:\n print(size, flush=True)\n size = len(os.read(0, 9999))"
    (place.path / "reader.py").write_text(reader)
    program = place.start("r2-lossy --slice 1 --only out 'exec python3 reader.py'", stdin=-1)
    program.prints("ready")
    program.stdin.write(DATA[:50_000])  # in one piece; a socket holds some 700 slices for a reader that is late
    program.stdin.close()
    sizes = [int(line) for line in program.ends(0).out.split()[1:]]
    assert sum(sizes) == 50_000
    assert len(sizes) > 50, "they have come in few reads"
    assert place.run("r2-lossy --slice 7 cat", DATA[:50_000]).raw == DATA[:50_000]


def test_rates_of_a_stream(place: Place) -> None:
    result = place.run("r2-lossy --seed 1 --loss 10% --only in --stats cat", DATA)
    counts = tally(result.err)
    assert 0.05 < counts["lost"] / (counts["lost"] + counts["passed"] - 900) < 0.2
    assert len(DATA) * 0.8 < len(result.raw) < len(DATA) * 0.95
    result = place.run("r2-lossy --seed 1 --corrupt 0.1 --duplicate 10% --reorder 10% --only out --stats cat", DATA)
    counts = tally(result.err)
    assert min(counts[name] for name in ("corrupted", "duplicated", "reordered")) > 30
    assert len(DATA) * 1.05 < len(result.raw) < len(DATA) * 1.2
    assert result.raw != DATA


def test_a_rate_makes_the_writer_wait(place: Place) -> None:
    start = time.monotonic()
    place.run("r2-lossy --rate 1M --queue 10k --only out cat", DATA)
    assert 0.8 < time.monotonic() - start < 15
    program = place.start("yes | r2-lossy --rate 100k --delay 1s cat", shell=True)
    eventually(lambda: program.raw, "the first bytes to be back, before which there was time for many more to go")
    lossy, = (pid for pid in place.left_over() if b"r2-lossy" in cmdline(pid))
    assert memory(lossy, "VmHWM") < 48 << 20
    os.kill(lossy, signal.SIGTERM)
    program.ends(143)


def cmdline(pid: int) -> bytes:
    words = command_line(pid)
    return b"" if not words or words[0].endswith(b"sh") else b" ".join(words)


def test_cut_by_an_end(place: Place) -> None:
    lengths = set()
    for _ in range(2):
        result = place.run("r2-lossy -v --seed 3 --cut 100k 'cat >got; sleep 0.1; cat /dev/null'", DATA, status=1)
        assert "cut" in result.err
        assert tally(result.err)["cuts"] == 1
        got = (place.path / "got").read_bytes()
        assert got == DATA[: len(got)]
        lengths.add(len(got))
    assert len(lengths) == 1, "the same seed has cut elsewhere"
    assert 1 <= lengths.pop() <= 200 << 10


def test_cut_by_time(place: Place) -> None:
    start = time.monotonic()
    place.run("r2-lossy --seed 1 --cut 500ms cat | sleep 0.1; r2-lossy --seed 1 --cut 500ms 'sleep 20'", status=1)
    assert time.monotonic() - start < 15


def test_a_silence_that_ends_loses_nothing_of_a_stream(place: Place) -> None:
    # What comes while it is silent, as much as 640 KiB, is not counted: this seed's cuts are close to each other.
    result = place.run("r2-lossy --seed 4 --cut 300k --silence 100ms --stats cat", DATA)
    assert result.raw == DATA
    assert tally(result.err)["cuts"] > 2


def test_a_silence_forever(place: Place) -> None:
    program = place.start("r2-lossy -v --seed 1 --cut 1000 --silence forever cat", stdin=-1)
    program.stdin.write(DATA[: 1 << 16])  # which is swallowed
    eventually(lambda: not unread(program), "everything to be taken")
    assert program.runs
    program.stdin.close()
    assert tally(program.ends(1).err)["silenced"] > 0
    assert len(program.raw) < 2000


def test_sigterm_ends_everything(place: Place) -> None:
    program = place.start("r2-lossy -v --seed 5 'cat; sleep 30'", stdin=-1).says("--seed 5")
    program.send(signal.SIGUSR1)
    program.says("0 passed")
    program.send(signal.SIGTERM)
    program.ends(143)  # and the place sees to it that the command is gone


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM], ids=["seqpacket", "dgram"])
def test_packets_stay_packets(place: Place, kind: socket.SocketKind) -> None:
    echo = "import socket\ns = socket.socket(fileno=0)\nwhile True:\n d = s.recv(70000)\n if not d: break\n s.send(d)"
    (place.path / "echo.py").write_text(echo)
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.settimeout(20)
    with theirs:
        program = place.start(
            "r2-lossy --corrupt 100% --stats 'exec python3 echo.py'", stdin=theirs.fileno(), stdout=theirs.fileno()
        )
    with ours:
        for size in (1, 10, 60_000, 7):
            ours.send(bytes(size))
        assert [len(ours.recv(70_000)) for _ in range(4)] == [1, 10, 60_000, 7]
    if kind == socket.SOCK_DGRAM:  # which know no end
        program.send(signal.SIGTERM)
    program.ends(None)
    assert tally(program.err)["corrupted"] == 8


# -- between ports -----------------------------------------------------------------------------------------------------


@contextmanager
def echo_server() -> Iterator[int]:
    """The port of a TCP server that says everything twice: to whom it comes from."""

    def answer(sock: socket.socket) -> None:
        with sock:
            try:
                while data := sock.recv(65536):
                    sock.sendall(data)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(sock,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def connect(port: int) -> socket.socket:
    def attempt() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            return None

    sock = eventually(attempt, f"a listener at {port}")
    assert sock is not None
    return sock


def relay(place: Place, options: str, target: int) -> tuple[Program, int]:
    port = free_port()
    return place.start(f"r2-lossy -v {options} tcp-listen://127.0.0.1:{port} tcp://127.0.0.1:{target}"), port


def talk(sock: socket.socket, count: int = 100) -> str:
    """Exchange 1000 bytes `count` times: "", or how it ended before."""
    try:
        for _ in range(count):
            sock.sendall(bytes(1000))
            left = 1000
            while left:
                size = len(sock.recv(left))
                if not size:
                    return "end"
                left -= size
    except ConnectionResetError:
        return "reset"
    return ""


def test_tcp_without_faults(place: Place) -> None:
    with echo_server() as target:
        program, port = relay(place, "--delay 10ms", target)
        with connect(port) as sock:
            start = time.monotonic()
            assert talk(sock, 10) == ""
            assert time.monotonic() - start >= 0.2
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b"", "the end has not come through"
        program.says("connection 0: ended").send(signal.SIGTERM)
        program.ends(0)


@pytest.mark.parametrize(("options", "end"), [("", "end"), ("--rst", "reset")])
def test_tcp_is_cut_and_taken_again(place: Place, options: str, end: str) -> None:
    with echo_server() as target:
        _, port = relay(place, f"--seed 1 --cut 20k {options}", target)
        for number in range(5):
            with connect(port) as sock:
                assert talk(sock) == end, number


def test_tcp_in_silence(place: Place) -> None:
    with echo_server() as target:
        _, port = relay(place, "--seed 1 --cut 20k --silence forever", target)
        with connect(port) as sock:
            sock.settimeout(1)
            with pytest.raises(socket.timeout):
                talk(sock)
            sock.sendall(bytes(1000))  # it looks open
            with connect(port) as other:
                assert talk(other, 1) == "", "another connection is dumb too"


def test_tcp_without_a_target(place: Place) -> None:
    program, port = relay(place, "", free_port())
    with connect(port) as sock:
        assert sock.recv(1) == b""
    assert "refused" in program.says("Connection refused").err


@contextmanager
def udp_pair(place: Place, options: str) -> Iterator[tuple[socket.socket, socket.socket, Program]]:
    """Two sockets with a relay between them: the first one sends, the second one is the target."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far,
    ):
        far.bind(("127.0.0.1", 0))
        port = free_port(socket.SOCK_DGRAM)
        target = f"udp://127.0.0.1:{far.getsockname()[1]}"
        program = place.start(f"r2-lossy -v {options} udp-listen://127.0.0.1:{port} {target}").says("listening")
        near.connect(("127.0.0.1", port))
        yield near, far, program


def await_fate(program: Program, count: int) -> None:
    """Until the relay has met so many datagrams."""

    def has_met() -> bool:
        asked = len(COUNTS.findall(program.err))
        program.send(signal.SIGUSR1)
        eventually(lambda: len(COUNTS.findall(program.err)) >= asked + 8 and program.err.endswith("\n"), "the counts")
        counts = tally(program.err)
        return sum(counts[name] for name in ("passed", "lost", "dropped", "silenced")) >= count

    eventually(has_met, lambda: f"{count} datagrams: {program}")


def received(sock: socket.socket, count: int = 0) -> list[tuple[bytes, tuple[str, int]]]:
    """What comes: at least `count` datagrams, and then until nothing has come for a second."""
    found: list[tuple[bytes, tuple[str, int]]] = []
    sock.settimeout(PATIENCE)
    while len(found) < count:
        found.append(sock.recvfrom(70_000))
    sock.settimeout(1)
    while True:
        try:
            found.append(sock.recvfrom(70_000))
        except socket.timeout:
            return found


def test_udp_both_ways(place: Place) -> None:
    with udp_pair(place, "--seed 5 --loss 20% --only out") as (near, far, program):
        for number in range(200):
            near.send(b"%d" % number)
        await_fate(program, 200)
        there = received(far)
        assert 120 <= len(there) <= 190
        assert [int(data) for data, _ in there] == sorted(int(data) for data, _ in there)
        for data, sender in there:
            far.sendto(data, sender)
        back = received(near, len(there))
        assert [data for data, _ in back] == [data for data, _ in there], "lost on the way back too"
        program.send(signal.SIGTERM)
        counts = tally(program.ends(0).err)
        assert counts["lost"] == 200 - len(there)
        assert counts["passed"] == 2 * len(there)


def test_udp_meets_the_same_fate_again(place: Place) -> None:
    found = []
    for _ in range(2):
        with udp_pair(place, "--seed 9 --loss 30% --duplicate 20% --corrupt 10%") as (near, far, program):
            for number in range(100):
                near.send(b"number %d" % number)
            await_fate(program, 100)
            found.append([data for data, _ in received(far)])
    assert found[0] == found[1]
    assert 40 < len(found[0]) < 120


def test_udp_keeps_senders_apart(place: Place) -> None:
    with udp_pair(place, "") as (near, far, _), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.connect(near.getpeername())
        near.send(b"one")
        other.send(b"other")
        near.send(b"")
        answers = received(far, 3)
        assert sorted(data for data, _ in answers) == [b"", b"one", b"other"]
        assert len({sender for _, sender in answers}) == 2
        for data, sender in answers:
            far.sendto(data + b"!", sender)
        assert {data for data, _ in received(near, 2)} == {b"one!", b"!"}
        assert [data for data, _ in received(other, 1)] == [b"other!"]


def test_udp_forgets_the_oldest_of_many_senders(place: Place) -> None:
    with udp_pair(place, "") as (near, far, program):
        for _ in range(100):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.connect(near.getpeername())
                sender.send(b"hello")
        assert len(received(far, 100)) == 100
        assert len(os.listdir(f"/proc/{program.pid}/fd")) < 80


def test_udp_in_silence(place: Place) -> None:
    with udp_pair(place, "--seed 1 --cut 1000 --silence forever") as (near, far, program):
        for _ in range(100):
            near.send(bytes(100))
        await_fate(program, 100)
        assert len(received(far)) <= 20
        counts = tally(program.err)
        assert counts["cuts"] == 1
        assert counts["silenced"] >= 80


# -- under a link, and usage -------------------------------------------------------------------------------------------


def test_a_link_behind_it(place: Place) -> None:
    place.node("alice")
    place.node("bob")
    place.serve("bob", "cat")
    line = "r2 -v -s alice.sock connect -n bob \"r2box lossy --slice 3 --delay 30ms 'r2 -s bob.sock connect -'\""
    place.start(line).says("linked to")
    ping = place.run("r2 -s alice.sock -t bob ping -c 1")
    assert float(re.findall(r"time=([\d.]+)", ping.out)[0]) >= 60
    assert place.run("r2 -s alice.sock -t bob/cat tunnel -", DATA[:20_000]).raw == DATA[:20_000]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "missing WHAT"),
        ("--loss 2 cat", "more than everything (write 2% if that is meant)"),
        ("--loss x cat", "not a rate"),
        ("--loss -1 cat", "not a rate"),
        ("--loss 101% cat", "more than everything\n"),
        ("--delay 5x cat", "not a time"),
        ("--rate 5x cat", "not a number of bytes"),
        ("--slice 0 cat", "--slice"),
        ("--only up cat", "not one of out, in"),
        ("--rst cat", "--cut"),
        ("--cut 1M --rst --silence 1s cat", "not both"),
        ("--cut x cat", "--cut"),
        ("--cut 0 cat", "--cut"),
        ("cat file", "quotes"),
        ("tcp-listen://127.0.0.1:1", "tcp://HOST:PORT"),
        ("tcp-listen://127.0.0.1:1 udp://127.0.0.1:1", "tcp://HOST:PORT"),
        ("tcp://127.0.0.1:1 tcp://127.0.0.1:1", "tcp-listen://"),
        ("--cut 1M udp-listen://127.0.0.1:1 udp://127.0.0.1:1", "--silence"),
        ("-", "give a command"),
    ],
)
def test_usage(place: Place, words: str, said: str) -> None:
    assert said in place.run(f"r2-lossy {words}", status=2).err


@pytest.mark.parametrize("scheme", ["tcp", "udp"])
def test_a_port_that_is_taken(place: Place, scheme: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        line = f"r2-lossy {scheme}-listen://127.0.0.1:{port} {scheme}://127.0.0.1:1"
        assert "in use" in place.run(line, status=1).err

"""Links whose transports are cut, spoil what they carry, fall silent or change, with real processes.

Long runs of the same are in `support.rehearsal`, whose code this uses.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from zlib import crc32

import pytest

from support.namespaces import Namespaces
from support.processes import Place, Program, await_port, eventually, free_port
from support.rehearsal.transfers import (
    FIN,
    MIB,
    QUICK,
    RST,
    SILENCE,
    Cutter,
    await_datagrams,
    cut_greetings,
    cut_streams,
    cut_transfer,
    interactive_ssh,
    killed_scp,
    lossy_hellos,
    lossy_transfer,
    resumptions,
    serial_transfer,
)

# -- many cuts --------------------------------------------------------------------------------------------------------


def test_one_link(place: Place) -> None:
    cut_transfer(place, 1, 4 * MIB, 7, seed=3, modes=QUICK)


def test_three_hops(place: Place) -> None:
    cut_transfer(place, 3, 6 * MIB, 15, seed=4, modes=QUICK)


def test_greetings(place: Place) -> None:
    cut_greetings(place, 10, seed=5)


@pytest.mark.parametrize("how", ["", "--rst"])
def test_commands(place: Place, how: str) -> None:
    cut_streams(place, 4 * MIB, 6, how)


def test_an_interactive_ssh(place: Place) -> None:
    interactive_ssh(place, 3)


def test_scp(place: Place) -> None:
    killed_scp(place, 3, 6 * MIB)


# -- bytes that are lost or spoilt ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [0, 5, 20])
def test_lossy_udp(place: Place, loss: int) -> None:
    lossy_transfer(place, 2 * MIB, loss, seed=1)


def test_hellos_that_are_lost(place: Place) -> None:
    lossy_hellos(place, 30, 3)


@pytest.mark.parametrize("noise", [0, 120])
def test_a_serial_line(place: Place, noise: int) -> None:
    serial_transfer(place, 8_000, noise)


@pytest.fixture
def nodes(place: Place) -> Place:
    place.node("alice")
    place.node("bob")
    return place


def listen(place: Place, transport: str, node: str = "bob", options: str = "") -> Program:
    program = place.start(f"r2 -v -s {node}.sock connect {options} '{transport}'")
    port = re.search(r":(\d+)", transport)
    assert port
    (await_datagrams if "udp" in transport else await_port)(int(port[1]))
    return program


def dial(place: Place, transport: str, options: str = "--retry", node: str = "alice") -> Program:
    line = f"""r2 -v -s {node}.sock connect {options} "{transport}" """
    return place.start(line).says("linked to", patience=60)


def works(place: Place, size: int = 300_000) -> None:
    data = os.urandom(size)
    server = place.serve("bob", "cat", "echo")
    assert place.run("r2 -s alice.sock -t bob/echo tunnel -", data).raw == data
    server.send(signal.SIGTERM)
    server.ends(0)


@pytest.mark.parametrize(("near", "far"), [("--lossy", ""), ("", "--lossy"), ("--lossy", "--lossy")])
@pytest.mark.parametrize("kind", ["tcp", "unix", "command"])
def test_one_side_asks_for_repair(nodes: Place, kind: str, near: str, far: str) -> None:
    """Then both do it: a line that spoils what it carries is good enough."""
    spoil = "r2-lossy -q --corrupt 2% --duplicate 1% --seed 4"
    if kind == "command":
        dial(nodes, f"{spoil} 'r2 -s bob.sock connect {far} -'", near)
    elif kind == "unix":
        waiting = nodes.start(f"r2 -v -s bob.sock connect {far} unix-listen://bob.line")
        nodes.await_socket("bob.line")
        nodes.start(f"{spoil} unix-listen://spoilt unix://bob.line")
        nodes.await_socket("spoilt")
        dial(nodes, "unix://spoilt", near)
        waiting.says("linked to")
    else:
        port, spoilt = free_port(), free_port()
        listen(nodes, f"tcp-listen://127.0.0.1:{port}", options=far)
        nodes.start(f"{spoil} tcp-listen://127.0.0.1:{spoilt} tcp://127.0.0.1:{port}")
        await_port(spoilt)
        dial(nodes, f"tcp://127.0.0.1:{spoilt}", near)
    works(nodes)


@pytest.mark.parametrize("fault", ["--loss 1%", "--duplicate 1%"])
def test_a_line_that_was_taken_for_reliable(nodes: Place, fault: str, socat: None) -> None:
    """The link ends with an error that names what helps, on both sides, and so does what goes over it."""
    port = free_port()
    listener = listen(nodes, f"tcp-listen://127.0.0.1:{port}")
    linked = dial(nodes, f"r2-lossy -q {fault} --only out --seed 11 'socat tcp:127.0.0.1:{port} -'", "")
    nodes.serve("bob", "cat >/dev/null", "take")
    stream = nodes.start("r2 -s alice.sock -t bob/take tunnel - </dev/urandom")
    assert "link to" in stream.ends(255).err
    assert "--lossy" in linked.ends(1).err
    listener.says("--lossy")


class Spoiler:
    """A TCP listener that leads one connection to the port `target`, and flips a bit of each byte of what comes after
    `spoil` until something has."""

    def __init__(self, target: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._target = target
        self._spoils = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def spoil(self) -> None:
        self._spoils.set()

    def _run(self) -> None:
        far = socket.create_connection(("127.0.0.1", self._target))
        with far, self._listener, self._listener.accept()[0] as near:
            back = threading.Thread(target=self._copy, args=(far, near, False), daemon=True)
            back.start()
            self._copy(near, far, True)
            back.join()

    def _copy(self, source: socket.socket, goal: socket.socket, is_bad: bool) -> None:
        while data := source.recv(1 << 16):
            if is_bad and self._spoils.is_set():
                self._spoils.clear()
                data = bytes(byte ^ 0x40 for byte in data)
            goal.sendall(data)
        goal.shutdown(socket.SHUT_WR)


def test_a_line_that_spoils_what_is_not_payload(nodes: Place) -> None:
    """The same: it is seen by the first frame that makes no sense."""
    port = free_port()
    listener = listen(nodes, f"tcp-listen://127.0.0.1:{port}")
    spoiler = Spoiler(port)
    linked = dial(nodes, f"tcp://127.0.0.1:{spoiler.port}", "")
    nodes.serve("bob", "echo here; cat", "take")
    stream = nodes.start("r2 -s alice.sock -t bob/take tunnel -", stdin=subprocess.PIPE).prints("here")
    spoiler.spoil()
    nodes.run("r2 -s alice.sock -t bob ping -c 1 -W 1", status=1)
    assert "link to" in stream.ends(255).err
    assert "--lossy" in linked.ends(1).err
    listener.says("--lossy")


def test_what_a_command_is_given_are_packets(nodes: Place, socat: None) -> None:
    """Each write is a datagram when it comes out of socat, and each is one packet."""
    kind = (socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(*kind) as sink, socket.socket(*kind) as on:
        sink.bind(("127.0.0.1", 0))
        port = free_port(socket.SOCK_DGRAM)
        listen(nodes, f"udp-listen://127.0.0.1:{port}")
        on.connect(("127.0.0.1", port))
        seen: list[bytes] = []
        near: list[tuple[str, int]] = []
        ending = threading.Event()

        def there() -> None:
            while True:
                data, sender = sink.recvfrom(1 << 16)
                if data == b"end":
                    return
                near[:] = [sender]
                seen.append(data)
                on.send(data)

        def back() -> None:
            on.settimeout(0.1)
            while not ending.is_set():
                with contextlib.suppress(OSError):
                    sink.sendto(on.recv(1 << 16), near[0])

        threads = [threading.Thread(target=there), threading.Thread(target=back)]
        for thread in threads:
            thread.start()
        try:
            dial(nodes, f"socat - udp:127.0.0.1:{sink.getsockname()[1]}")
            works(nodes)
        finally:
            with socket.socket(*kind) as last:
                last.sendto(b"end", sink.getsockname())
            ending.set()
            for thread in threads:
                thread.join(10)
        assert len(seen) > 100
        for packet in seen:
            assert len(packet) <= 1200
            while packet:  # small ones travel together
                size = int.from_bytes(packet[2:4], "big") % 4096 + 18
                assert packet[:2] == b"\xc1\x9e"
                assert len(packet) >= size
                assert crc32(packet[:size]) == 0x2144DF1C
                packet = packet[size:]


# -- silence, signals, patience ----------------------------------------------------------------------------------------


@pytest.fixture
def cutter() -> Iterator[Cutter]:
    cutter = Cutter(free_port(), 1, MIB, 0)
    try:
        yield cutter
    finally:
        cutter.close()


def talk(place: Place, way: str = "bob/echo") -> Program:
    """A tunnel that answers with what it is told."""
    if "echo" not in [program.line.split()[-2] for program in place.programs if " serve " in program.line]:
        place.serve("bob", "cat", "echo")
    program = place.start(f"r2 -s alice.sock -t {way} tunnel -", stdin=-1)
    return said(program, "first")


def said(program: Program, word: str) -> Program:
    program.stdin.write(f"{word}\n".encode())
    return program.prints(word)


@pytest.mark.parametrize("side", ["both", "near", "far"])
def test_silence_for_ever(nodes: Place, cutter: Cutter, side: str) -> None:
    """It is noticed by whoever dialled, or by the other; the link is made again, and the tunnel goes on."""
    waiting = listen(nodes, f"tcp-listen://127.0.0.1:{cutter.target}?keepalive=1")
    dialled = dial(nodes, f"tcp://127.0.0.1:{cutter.port}?keepalive=1")
    tunnel = talk(nodes)
    cutter.cut({"both": (SILENCE, SILENCE), "near": (SILENCE, RST), "far": (FIN, SILENCE)}[side])
    tunnel.stdin.write(b"second\n")
    dialled.says("linked to", 2)
    tunnel.prints("second")
    if side != "far":
        assert "nothing received for 4 s" in dialled.err
    waiting.says("linked to", 2)


def test_sighup_dials_at_once(nodes: Place, cutter: Cutter) -> None:
    """After some failures the next attempt is far away."""
    waiting = listen(nodes, f"tcp-listen://127.0.0.1:{cutter.target}")
    dialled = dial(nodes, f"tcp://127.0.0.1:{cutter.port}")
    tunnel = talk(nodes)
    before = cutter.refused
    began = time.monotonic()
    waiting.kill()
    eventually(lambda: cutter.refused >= before + 6, "failures", 60)  # after 0.1, 0.2, … 3.2 s
    assert time.monotonic() - began > 1, "without a pause in between"
    listen(nodes, f"tcp-listen://127.0.0.1:{cutter.target}")
    began = time.monotonic()
    dialled.send(signal.SIGHUP)
    dialled.says("linked to", 2)
    assert cutter.dialled_at - began < 3.5  # the next attempt comes 4.8 s after the last one, or later
    said(tunnel, "second")


CONFIG = """
[self]
addr = "alice"
socket = "alice.sock"

[[conn]]
addr = "bob"
cmd = "tcp://127.0.0.1:{}"
resume = "{}"
"""


def manage(place: Place, port: int, resume: str) -> Program:
    (place.path / "alice.toml").write_text(CONFIG.format(port, resume))
    return place.start("r2dm -v -f alice.toml")


def test_sighup_for_r2dm(place: Place, cutter: Cutter) -> None:
    place.node("bob")
    waiting = listen(place, f"tcp-listen://127.0.0.1:{cutter.target}")
    manager = manage(place, cutter.port, "10m").says("linked to")
    tunnel = talk(place)
    before = cutter.refused
    waiting.kill()
    eventually(lambda: cutter.refused >= before + 6, "failures", 60)
    listen(place, f"tcp-listen://127.0.0.1:{cutter.target}")
    began = time.monotonic()
    manager.send(signal.SIGHUP)
    said(tunnel, "second")
    assert cutter.dialled_at - began < 3.5  # the next attempt comes 4.8 s after the last one, or later


@pytest.mark.parametrize(("near", "far"), [("0", "10m"), ("10m", "0"), ("0", "0")])
def test_without_resumption_a_cut_is_the_end(nodes: Place, cutter: Cutter, near: str, far: str) -> None:
    waiting = listen(nodes, f"tcp-listen://127.0.0.1:{cutter.target}", options=f"--resume {far}")
    dialled = dial(nodes, f"tcp://127.0.0.1:{cutter.port}", f"--resume {near}")
    tunnel = talk(nodes)
    cutter.cut((RST, RST))
    assert "the link to bob is down" in tunnel.ends(255).err
    assert "reset by peer" in dialled.ends(1).err
    waiting.says("reset by peer")
    assert "wait" not in dialled.err + waiting.err


def test_a_reset_is_told_though_a_write_finds_it(nodes: Place, cutter: Cutter) -> None:
    """The system tells of it once, to whoever asks first."""
    waiting = listen(nodes, f"tcp-listen://127.0.0.1:{cutter.target}", options="--resume 0")
    for _ in range(3):
        dialled = dial(nodes, f"tcp://127.0.0.1:{cutter.port}", "--resume 0")
        nodes.serve("bob", "cat >/dev/null", "take")
        stream = nodes.start("r2 -s alice.sock -t bob/take tunnel - </dev/zero")
        before = cutter.passed
        eventually(lambda before=before: cutter.passed > before + MIB, "the first MiB")  # type: ignore[misc]
        cutter.cut((RST, RST))
        assert "the link to bob is down" in stream.ends(255).err
        assert "reset by peer" in dialled.ends(1).err
        nodes.programs[-2].send(signal.SIGTERM)
        nodes.programs[-2].ends(0)
    assert waiting.runs


@pytest.mark.parametrize("managed", [False, True], ids=["r2 connect", "r2dm"])
def test_patience_that_is_over(place: Place, cutter: Cutter, managed: bool) -> None:
    """The shorter one of both sides; then tunnels end with an error, on either side."""
    bob = place.node("bob")
    waiting = listen(place, f"tcp-listen://127.0.0.1:{cutter.target}")
    if managed:
        manage(place, cutter.port, "1s")
    else:
        place.node("alice")
        dial(place, f"tcp://127.0.0.1:{cutter.port}", "--resume 1s")
    waiting.says("linked to")
    place.answers("alice", "bob")
    tunnel = talk(place)
    began = time.monotonic()
    waiting.kill()
    assert "no other transport within 1 s" in tunnel.ends(255).err
    assert time.monotonic() - began > 0.9  # and ends() has not waited as long as the other side would: ten minutes
    bob.says("no other transport within 1 s")


# -- another transport every day -------------------------------------------------------------------------------------


def test_tcp_today_and_something_else_tomorrow(nodes: Place, socat: None) -> None:
    """A tunnel goes on over whatever comes next; what is typed in between is not lost."""
    alice = next(program for program in nodes.programs if program.line.endswith("alice"))
    tcp, socats, udp = free_port(), free_port(), free_port(socket.SOCK_DGRAM)
    listen(nodes, f"tcp-listen://127.0.0.1:{tcp}")
    listen(nodes, f"udp-listen://127.0.0.1:{udp}")
    nodes.start("r2 -v -s bob.sock connect unix-listen://bob.line")
    nodes.start(f"r2 -v -s bob.sock connect 'socat tcp-l:{socats},fork,reuseaddr exec:-'")
    await_port(socats)
    nodes.await_socket("bob.line")
    ways = [
        f"tcp://127.0.0.1:{tcp}",
        "unix://bob.line",
        f"socat tcp:127.0.0.1:{socats} -",
        f"udp://127.0.0.1:{udp}",
        "r2 -s bob.sock connect -",
        "pty://r2 -s bob.sock connect -",
        f"udp://127.0.0.1:{udp}?mtu=600",
        f"tcp://127.0.0.1:{tcp}?lossy=1",
    ]
    dialled = dial(nodes, ways[0])
    tunnel = talk(nodes)
    for number, way in enumerate(ways[1:]):
        dialled.kill()
        said_at = resumptions(alice)
        tunnel.stdin.write(f"between {number}\n".encode())
        dialled = dial(nodes, way, "")
        tunnel.prints(f"between {number}")
        said(tunnel, f"over {number}")
        assert resumptions(alice) == said_at + 1
    tunnel.stdin.close()
    tunnel.ends(0)
    assert tunnel.out == "first\n" + "".join(f"between {n}\nover {n}\n" for n in range(len(ways) - 1))


# -- as the seed has it ------------------------------------------------------------------------------------------------


def test_udp_brokered_by_socat(nodes: Place, socat: None) -> None:
    """Whoever is started for a sender learns from the first packet that packets are spoken."""
    port = free_port(socket.SOCK_DGRAM)
    nodes.start(f'socat udp-l:{port},fork exec:"r2 connect -"', R2_SOCKET="bob.sock")
    await_datagrams(port)
    dial(nodes, f"socat udp:127.0.0.1:{port} -", "-n bob")
    works(nodes)


def test_one_udp_sender_brokered_by_socat(nodes: Place, socat: None) -> None:
    port = free_port(socket.SOCK_DGRAM)
    nodes.start(f'socat udp-l:{port} exec:"r2 connect -n alice -"', R2_SOCKET="bob.sock")
    await_datagrams(port)
    dial(nodes, f"socat udp:127.0.0.1:{port} -", "-n bob")
    works(nodes)


def test_serial_brokered_by_socat(nodes: Place, socat: None) -> None:
    """Two terminals joined by one socat, and another at each end that has r2 connect behind it, or in front."""
    nodes.start("socat pty,rawer,link=tty0 pty,rawer,link=tty1")
    eventually(lambda: all((nodes.path / name).exists() for name in ("tty0", "tty1")), "the line")
    nodes.start('socat open:tty0,rawer exec:"r2 connect --lossy -"', R2_SOCKET="bob.sock")
    dial(nodes, "socat open:tty1,rawer -", "--lossy -n bob")
    works(nodes)


def test_an_interface(nodes: Place, socat: None) -> None:
    """A pair of interfaces in networks of their own, whose frames are the packets."""
    hosts = Namespaces(nodes, "a", "b")
    hosts.join("a", "b")
    hosts.start("b", "r2 -v -s bob.sock connect 'socat interface:to-a -'")
    hosts.start("a", "r2 -v -s alice.sock connect 'socat interface:to-b -'").says("linked to")
    works(nodes)

"""Transfers over links that are cut, killed, lossy or slow, with real processes: what `rehearsal` is made of."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import random
import re
import select
import selectors
import shlex
import signal
import socket
import struct
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

from support.processes import PATIENCE, Place, Program, await_port, children, eventually, free_port, memory, need
from support.sshd import serve_sshd

MIB = 1 << 20
WINDOW = 16 * MIB  # the largest of a stream
BESIDE = 32 * MIB  # that a daemon may have besides
FIN, RST, SILENCE = "FIN", "RST", "silence"
# What each side sees of a cut, who dialled and who was dialled, and how often.  A side that sees silence has to find
# out by itself, which takes seconds where it is the one that dials again.
MODES = [
    (FIN, FIN, 30), (RST, RST, 30), (FIN, RST, 10), (RST, FIN, 10), (FIN, SILENCE, 8), (RST, SILENCE, 8),
    (SILENCE, RST, 2), (SILENCE, SILENCE, 2),
]  # fmt: skip
QUICK = [mode for mode in MODES if mode[0] != SILENCE]
CHUNK = 1 << 18

# Both ends of a transfer.  The far one takes `N` bytes and answers with N others of its own, at the same time; the end
# of its input is the end of neither.  What one has seen of the other is said as sha256 and as a number of bytes.
PEER = r'''
import hashlib, os, random, socket, sys, threading, time
BLOCK = random.Random(0).randbytes(1 << 18) if hasattr(random.Random, "randbytes") else os.urandom(0) + bytes(1 << 18)

def blocks(seed, size):
    """So many bytes; no two blocks are the same."""
    number = 0
    while size:
        block = b"%016x%016x" % (seed, number) + BLOCK[32:]
        yield block[:size]
        size -= min(size, len(block))
        number += 1

def send(write, seed, size):
    digest = hashlib.sha256()
    for block in blocks(seed, size):
        digest.update(block)
        write(block)
    return digest.hexdigest()

def take(read, size=None):
    digest, count = hashlib.sha256(), 0
    while size is None or count < size:
        data = read(1 << 18 if size is None else min(1 << 18, size - count))
        if not data:
            break
        digest.update(data)
        count += len(data)
    return "%s %d" % (digest.hexdigest(), count)

def expected(seed, size):
    return "%s %d" % (send(lambda block: None, seed, size), size)

def write_all(block):
    view = memoryview(block)
    while view:
        view = view[os.write(1, view):]

def serve():
    """A header of 32 bytes (how, size), then bytes both ways."""
    header = b""
    while len(header) < 32:
        header += os.read(0, 32 - len(header)) or sys.exit("no header")
    how, size = header.split()
    size = int(size)
    seen = []
    taker = threading.Thread(target=lambda: seen.append(take(lambda most: os.read(0, most))))
    taker.start()
    if how == b"turn":  # one direction after the other, the second while the first has ended
        taker.join()
    send(write_all, 2, size)
    taker.join()
    write_all(seen[0].ljust(96).encode())

def ask(box, node, path, how, size):
    sys.path.insert(0, box)
    import r2box
    sock = r2box.dial(path, socket=node)
    began = time.monotonic()
    sock.sendall(b"%-10s%22d" % (how.encode(), size))
    turned = threading.Event()
    def go():
        send(sock.sendall, 1, size)
        sock.shutdown(socket.SHUT_WR)
        print("half-closed", flush=True)
    sender = threading.Thread(target=go)
    sender.start()
    came = take(sock.recv, size)
    there = b"".join(iter(lambda: sock.recv(4096), b"")).decode().strip()
    sender.join()
    took = time.monotonic() - began
    assert came == expected(2, size), "back: %s, not %s" % (came, expected(2, size))
    assert there == expected(1, size), "there: %s, not %s" % (there, expected(1, size))
    print("equal after %.3f s" % took, flush=True)

if sys.argv[1] == "serve":
    serve()
else:
    ask(*sys.argv[2:6], int(sys.argv[6]))
'''


# -- connections that are cut ---------------------------------------------------------------------------------------


class Side:
    """One socket of a connection, and what waits to be written to it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.waiting = memoryview(b"")
        self.reads = True  # False: its end was seen


class Connection:
    """Between who dialled and who was dialled, in this order, for `room` bytes of both directions together."""

    def __init__(self, near: socket.socket, far: socket.socket, room: int, mode: tuple[str, str]) -> None:
        self.sides = Side(near), Side(far)
        self.room = room
        self.mode = mode


class Cutter:
    """Passes connections on to the port `target` of this machine, and cuts each after some bytes, by the seed.

    After `cuts` of them it only passes on.  One in seven is cut in its first 400 bytes: before the greeting is over, or
    right behind it.
    """

    def __init__(self, target: int, seed: int, mean: int, cuts: int, modes: list[tuple[str, str, int]] = MODES) -> None:
        self.target, self.mean, self.left, self.modes = target, mean, cuts, modes
        self.made: dict[tuple[str, str], int] = {}
        self.refused = 0  # connections, as nobody listened at the target
        self.dialled_at = 0.0  # when the last one came
        self.passed = 0  # bytes
        self._dice = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._woken = os.pipe()
        self._asked: list[tuple[str, str] | None] = []  # cuts to be made now; None: the end
        self._selector = selectors.DefaultSelector()
        self._open: list[Connection] = []
        self._kept: list[socket.socket] = []  # silent ones
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        return sum(self.made.values())

    def cut(self, mode: tuple[str, str] = (FIN, FIN)) -> None:
        """Cut all that is open, now."""
        self._asked.append(mode)
        os.write(self._woken, b"!")

    def close(self) -> None:
        self._asked.append(None)
        os.write(self._woken, b"!")
        self._thread.join()

    def _run(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake, selectors.EVENT_READ, self._heed)
        self._running = True
        while self._running:
            for key, events in self._selector.select():
                known = isinstance(key.fileobj, int) or self._is_watched(key.fileobj)
                if known and self._selector.get_key(key.fileobj).data is key.data:  # not ended by another of these
                    key.data(events)
        for connection in self._open:
            for side in connection.sides:
                side.sock.close()
        for sock in (*self._kept, self._listener):
            sock.close()
        os.close(self._wake)
        os.close(self._woken)

    def _is_watched(self, sock: object) -> bool:
        assert isinstance(sock, socket.socket)
        return sock.fileno() >= 0 and sock in self._selector.get_map()

    def _forget(self, sock: socket.socket) -> None:
        if self._is_watched(sock):
            self._selector.unregister(sock)

    def _heed(self, events: int) -> None:
        os.read(self._wake, 1)
        mode = self._asked.pop(0)
        if mode is None:
            self._running = False
            return
        for connection in list(self._open):
            connection.mode = mode
            self._end(connection)

    def _accept(self, events: int) -> None:
        near, _ = self._listener.accept()
        self.dialled_at = time.monotonic()
        try:
            far = socket.create_connection(("127.0.0.1", self.target), 5)
        except OSError:
            self.refused += 1
            near.close()
            return
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        dice = self._dice
        room = dice.randrange(400) if dice.random() < 1 / 7 else dice.randrange(2 * self.mean)
        near_mode, far_mode, _ = dice.choices(self.modes, [mode[2] for mode in self.modes])[0]
        connection = Connection(near, far, room, (near_mode, far_mode))
        self._open.append(connection)
        for number in (0, 1):
            self._watch(connection, number)

    def _watch(self, connection: Connection, number: int) -> None:
        side, other = connection.sides[number], connection.sides[1 - number]
        wanted = (selectors.EVENT_READ if side.reads and not other.waiting else 0) | (
            selectors.EVENT_WRITE if side.waiting else 0
        )
        known = self._selector.get_map().get(side.sock)
        if wanted and known:
            if known.events != wanted:
                self._selector.modify(side.sock, wanted, known.data)
        elif wanted:
            self._selector.register(side.sock, wanted, lambda events: self._ready(connection, number, events))
        elif known:
            self._selector.unregister(side.sock)

    def _ready(self, connection: Connection, number: int, events: int) -> None:
        side, other = connection.sides[number], connection.sides[1 - number]
        try:
            if events & selectors.EVENT_WRITE:
                side.waiting = side.waiting[side.sock.send(side.waiting) :]
            if events & selectors.EVENT_READ and side.reads and not other.waiting:
                data = side.sock.recv(CHUNK)
                if not data:
                    side.reads = False
                    other.sock.shutdown(socket.SHUT_WR)
                elif self.left and len(data) >= connection.room:
                    with contextlib.suppress(BlockingIOError):
                        other.sock.send(data[: connection.room])
                    self._end(connection)
                    return
                else:
                    connection.room -= len(data)
                    self.passed += len(data)
                    other.waiting = memoryview(data)
                    with contextlib.suppress(BlockingIOError):
                        other.waiting = other.waiting[other.sock.send(data) :]
        except BlockingIOError:
            pass
        except OSError:  # its other end has gone
            self._close(connection)
            return
        if not any(each.reads or each.waiting for each in connection.sides):
            self._close(connection)
            return
        for each in (0, 1):
            self._watch(connection, each)

    def _close(self, connection: Connection) -> None:
        self._open.remove(connection)
        for side in connection.sides:
            self._forget(side.sock)
            side.sock.close()

    def _end(self, connection: Connection) -> None:
        """Cut it as its mode says."""
        self.left -= self.left > 0
        self.made[connection.mode] = self.made.get(connection.mode, 0) + 1
        self._open.remove(connection)
        for side, mode in zip(connection.sides, connection.mode):
            sock = side.sock
            self._forget(sock)
            if mode == SILENCE:
                self._kept.append(sock)
            elif mode == RST:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
            else:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_WR)
                self._selector.register(sock, selectors.EVENT_READ, lambda events, sock=sock: self._drain(sock))

    def _drain(self, sock: socket.socket) -> None:
        """Closing with bytes unread would be a reset."""
        with contextlib.suppress(OSError):
            if sock.recv(CHUNK):
                return
        self._selector.unregister(sock)
        sock.close()


# -- what the runs share ---------------------------------------------------------------------------------------------

NAMES = ["alice", "bob", "carl", "dave", "erin"]
CLOSED = re.compile(r"link to (a neighbour|\S+) closed")


def resumptions(node: Program) -> int:
    return node.err.count(" resumed over ")


def peak(nodes: list[Program]) -> int:
    """The most memory that one of these daemons ever had, in bytes."""
    return max(memory(node.pid, "VmHWM") for node in nodes)


def check_peak(nodes: list[Program]) -> str:
    most = peak(nodes)
    assert most <= WINDOW + BESIDE, f"a daemon had {most / MIB:.1f} MiB"
    return f"at most {most / MIB:.1f} MiB each"


def serve_peer(place: Place, node: str) -> None:
    (place.path / "peer.py").write_text(PEER)
    place.serve(node, f"python3 {place.path}/peer.py serve", "peer")


def ask_peer(place: Place, node: str, way: str, how: str, size: int) -> Program:
    words = ["python3", place.path / "peer.py", "ask", place.box.dist / "r2box", f"{node}.sock", way, how, size]
    return place.start(shlex.join(map(str, words)))


def await_datagrams(port: int) -> None:
    tables = [Path("/proc/net/udp"), Path("/proc/net/udp6")]
    eventually(lambda: any(f":{port:04X} " in table.read_text() for table in tables if table.exists()), "the port")


def move(place: Place, node: str, way: str, how: str, size: int, patience: float, halfway: Callable[[], None]) -> float:
    """Bytes both ways to the service `peer` there; halfway() is called when one direction has ended.

    The seconds that they took, without the start of who sends them."""
    asker = ask_peer(place, node, way, how, size)
    asker.prints("half-closed", patience)
    halfway()
    asker.ends(0, patience)
    assert "equal" in asker.out, asker
    return float(asker.out.split()[-2])


# -- cuts -----------------------------------------------------------------------------------------------------------


def cut_transfer(
    place: Place, hops: int, size: int, cuts: int, seed: int, modes: list[tuple[str, str, int]] = MODES
) -> str:
    """Half of `size` bytes each way, at once and one after the other, over `hops` links that are cut `cuts` times
    altogether."""
    nodes = [place.node(name) for name in NAMES[: hops + 1]]
    serve_peer(place, NAMES[hops])
    cutters: list[Cutter] = []
    dialled: list[Program] = []
    # Each link sees all the bytes.  The cuts must have been made when they are through, so they are a little closer.
    mean = int(0.8 * size * hops / cuts)
    try:
        for number in range(hops):
            port = free_port()
            one, other = NAMES[number], NAMES[number + 1]
            place.start(f"r2 -v -s {other}.sock connect -n {one} 'tcp-listen://127.0.0.1:{port}?keepalive=1'")
            await_port(port)
            cutters.append(Cutter(port, seed + number, mean, 0, modes))
            line = f"r2 -v -s {one}.sock connect -n {other} --retry 'tcp://127.0.0.1:{cutters[-1].port}?keepalive=1'"
            dialled.append(place.start(line).says("linked to"))
            cutters[-1].left = cuts // hops + (number < cuts % hops)
            cutters[-1].cut()
        way = "/".join([*NAMES[1 : hops + 1], "peer"])
        began = time.monotonic()

        def cut_all() -> None:
            for cutter in cutters:
                cutter.cut((RST, SILENCE))

        patience = 60 + cuts * 2.0 + size / MIB
        for how in ("both", "turn"):
            move(place, NAMES[0], way, how, size // 4, patience, cut_all)
        took = time.monotonic() - began
        count = sum(cutter.count for cutter in cutters)
        silent = sum(times for cutter in cutters for mode, times in cutter.made.items() if SILENCE in mode)
        for node in nodes:
            assert not CLOSED.search(node.err), node
        most = check_peak(nodes)
        assert count >= cuts, f"only {count} of {cuts} cuts were made"
        met = sum(map(resumptions, nodes)) // 2
        return (
            f"{size / MIB:.0f} MiB over {hops} link(s): equal, in {took:.0f} s, {count} cuts ({silent} with silence), "
            f"{met} resumptions, {most}"
        )
    finally:
        for cutter in cutters:
            cutter.close()


def cut_greetings(place: Place, cuts: int, seed: int) -> str:
    """A tunnel that waits while its link's transports are cut in the middle of the greeting, one after the other."""
    nodes = [place.node(name) for name in NAMES[:2]]
    place.serve("bob", "cat", "echo")
    port = free_port()
    place.start(f"r2 -v -s bob.sock connect 'tcp-listen://127.0.0.1:{port}?keepalive=1'")
    await_port(port)
    cutter = Cutter(port, seed, 250, 0, [mode for mode in MODES if SILENCE not in mode])
    try:
        dialled = place.start(f"r2 -v -s alice.sock connect --retry 'tcp://127.0.0.1:{cutter.port}?keepalive=1'")
        dialled.says("linked to")
        tunnel = place.start("r2 -s alice.sock -t bob/echo tunnel -", stdin=-1)
        tunnel.stdin.write(b"first\n")
        tunnel.prints("first")
        began = time.monotonic()
        cutter.left = cuts
        cutter.cut((RST, RST))

        def all_made() -> bool:
            dialled.send(signal.SIGHUP)  # do not wait
            return not cutter.left

        eventually(all_made, lambda: f"the cuts: {cutter.left} are left", 60 + cuts)
        tunnel.stdin.write(b"second\n")
        tunnel.stdin.close()
        dialled.send(signal.SIGHUP)
        tunnel.ends(0, 60)
        assert tunnel.out == "first\nsecond\n"
        for node in nodes:
            assert "link to bob closed" not in node.err, node
        met = resumptions(nodes[0])
        return f"{cutter.count} cuts in greetings, {met} of which were over: in {time.monotonic() - began:.0f} s"
    finally:
        cutter.close()


def cut_streams(place: Place, size: int, cuts: int, how: str) -> str:
    """The same over a command, with r2-lossy in front that cuts by FIN ("") or as its options `how` say."""
    nodes = [place.node(name) for name in NAMES[:2]]
    serve_peer(place, "bob")
    mean = int(0.8 * size / cuts)
    lossy = f"r2-lossy -q {how} --cut {mean} --seed"
    # each run of it another seed, by a file that grows
    (place.path / "line.sh").write_text(
        f"n=$(wc -c <count)\nprintf x >>count\nexec {lossy} $n 'r2 -s bob.sock connect -n alice -'\n"
    )
    (place.path / "count").touch()
    place.start("r2 -v -s alice.sock connect -n bob --retry 'sh line.sh'").says("linked to")
    began = time.monotonic()
    for words in ("both", "turn"):
        move(place, "alice", "bob/peer", words, size // 4, 60 + 3 * cuts + size / MIB, lambda: None)
    took = time.monotonic() - began
    lines = (place.path / "count").stat().st_size
    for node in nodes:
        assert not CLOSED.search(node.err), node
    return (
        f"{size / MIB:.0f} MiB over commands, r2-lossy --cut {how}: equal, in {took:.0f} s, over {lines} transports, "
        f"{resumptions(nodes[0])} resumptions, {check_peak(nodes)}"
    )


# -- ssh ------------------------------------------------------------------------------------------------------------


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """All that a process has started, at whatever remove, with the names of their programs."""
    with contextlib.suppress(OSError):
        for child in children(pid):
            line = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
            yield child, re.sub(r"^\S*/", "", line)
            yield from descendants(child)


def killable(dialler: Program, listener: Program, which: int) -> int | None:
    """A process of the transport: the socat that dials, the one that was dialled, or the r2 connect that this one
    has started.  None while there is none."""
    if which == 0:
        return next((pid for pid, line in descendants(dialler.pid) if line.startswith("socat tcp:")), None)
    started = [(pid, line) for pid, line in descendants(listener.pid) if line.rstrip().endswith(" -")]
    if which == 2:
        own = [pid for pid, line in started if "connect" in line and "socat" not in line]
        return own[-1] if own else None  # one before it may still be about to end
    listening = [pid for pid, line in descendants(listener.pid) if line.startswith("socat tcp-l:")]
    return listening[-1] if len(listening) > 1 else None


class Killed:
    """A link of alice and bob over socat, whose processes can be killed, each in its turn."""

    def __init__(self, place: Place) -> None:
        need("socat")
        self.alice, self.bob = place.node("alice"), place.node("bob")
        port = free_port()
        self._listener = place.start(f"r2 -v -s bob.sock connect 'socat tcp-l:{port},fork,reuseaddr exec:-'")
        await_port(port)
        line = f"r2 -v -s alice.sock connect -n bob --retry 'socat tcp:127.0.0.1:{port} -'"
        self._dialler = place.start(line).says("linked to")
        self.count = 0

    def kill(self) -> None:
        """kill -9, and wait until the link goes on."""
        before = resumptions(self.alice)
        pid = eventually(lambda: killable(self._dialler, self._listener, self.count % 3), "a transport")
        assert pid
        os.kill(pid, signal.SIGKILL)
        self.count += 1
        eventually(lambda: resumptions(self.alice) > before, lambda: f"resumption {before + 1}: {self.alice}")


def read_until(fd: int, text: bytes, patience: float = PATIENCE) -> bytes:
    data = b""
    deadline = time.monotonic() + patience
    while text not in data:
        left = deadline - time.monotonic()
        assert select.select([fd], [], [], max(0, left))[0], f"no {text!r} in {data!r}"
        data += os.read(fd, 1 << 16)
    return data


def interactive_ssh(place: Place, kills: int) -> str:
    """A shell on a terminal: each time the transport was killed, it still answers, once."""
    link = Killed(place)
    options = serve_sshd(place)
    master, slave = pty.openpty()
    try:
        tty.setraw(slave)
        shell = place.start(
            f"r2-ssh {options} -tt bob 'PS1=; exec sh'", stdin=slave, stdout=slave, R2_SOCKET=f"{place.path}/alice.sock"
        )
        seen = b""
        slowest = 0.0
        for number in range(kills + 1):
            began = time.monotonic()
            if number:
                link.kill()
            os.write(master, b"echo got $((%d * 1000))_\n" % number)
            seen += read_until(master, b"got %d_" % (1000 * number))
            slowest = max(slowest, time.monotonic() - began)
            # typed while there is no transport, too
            if number % 2:
                os.write(master, b"echo more $((%d * 1000))_\n" % number)
                link.kill()
                seen += read_until(master, b"more %d_" % (1000 * number))
        os.write(master, b"exit 7\n")
        shell.ends(7)
        for number in range(kills + 1):
            assert seen.count(b"got %d_" % (1000 * number)) == 1, seen
        return f"an interactive ssh: {link.count} kills, {resumptions(link.alice)} resumptions, at most {slowest:.1f} s"
    finally:
        os.close(master)
        os.close(slave)


# r2-ssh, of whose stdin so many bytes pass, and the rest when a line is written to the FIFO.
GATE = '''
import os, select, subprocess, sys
left, fifo, *words = sys.argv[1:]
left = int(left)
program = subprocess.Popen(["r2-ssh", *words], stdin=subprocess.PIPE)
while select.select([0], [], []):
    try:
        data = os.read(0, left or 65536)
    except BlockingIOError:
        continue
    if not data:
        break
    program.stdin.write(data)
    program.stdin.flush()
    if left:
        left -= len(data)
        if not left:
            open(fifo).readline()
program.stdin.close()
sys.exit(program.wait())
'''


def killed_scp(place: Place, kills: int, size: int) -> str:
    link = Killed(place)
    options = serve_sshd(place)
    digest = hashlib.sha256()
    with open(place.path / "big", "wb") as file:
        for _ in range(size // MIB):
            block = os.urandom(MIB)
            digest.update(block)
            file.write(block)
    began = time.monotonic()
    rate = max(1, size * 8 // 1000 // max(1, kills // 2))  # kbit/s, so that it lasts as long as that takes
    # It must not be done before the last kill, however long they take: the second half of it waits until it may go.
    os.mkfifo(place.path / "go")
    gate = os.open(place.path / "go", os.O_RDWR)
    (place.path / "gate.py").write_text(GATE)
    place.executable("gated", f'exec {sys.executable} {place.path}/gate.py {size // 2} {place.path}/go "$@"\n')
    line = f"scp -l {rate} {options} -S {place.path}/bin/gated big bob:{place.path}/there"
    scp = place.start(line, R2_SOCKET=f"{place.path}/alice.sock")
    there = place.path / "there"
    eventually(lambda: there.exists() and there.stat().st_size > 0, lambda: f"the first bytes {scp}")
    for _ in range(kills):
        link.kill()
        time.sleep(0.05)
    assert scp.runs, f"it was too fast: {scp}"
    os.write(gate, b"on\n")
    scp.ends(0, 120 + kills * 2)
    os.close(gate)
    assert place.run("sha256sum <there").out.split()[0] == digest.hexdigest()
    return f"an scp of {size / MIB:.0f} MiB: equal, {link.count} kills, in {time.monotonic() - began:.0f} s"


# -- losses ---------------------------------------------------------------------------------------------------------


def bad_way(place: Place, faults: str, options: str = "") -> int:
    """UDP from a port to bob, with `faults`; `options` are those of his r2-connect."""
    far, near = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
    place.start(f"r2 -v -s bob.sock connect {options} udp-listen://127.0.0.1:{far}")
    await_datagrams(far)
    place.start(f"r2-lossy --stats {faults} udp-listen://127.0.0.1:{near} udp://127.0.0.1:{far}")
    await_datagrams(near)
    return near


def lossy_transfer(place: Place, size: int, loss: int, seed: int) -> str:
    """Half of `size` bytes each way over UDP that loses, reorders, repeats and spoils."""
    nodes = [place.node(name) for name in NAMES[:2]]
    serve_peer(place, "bob")
    port = bad_way(place, f"--loss {loss}% --reorder 25% --duplicate 5% --corrupt 1% --seed {seed}")
    place.start(f"r2 -v -s alice.sock connect -n bob --retry udp://127.0.0.1:{port}").says("linked to", patience=60)
    began = time.monotonic()
    move(place, "alice", "bob/peer", "both", size // 2, 120 + size / MIB * 20, lambda: None)
    took = time.monotonic() - began
    for node in nodes:
        assert "ended" not in node.err, node
    again = resumptions(nodes[0])
    return f"loss {loss} %: {size / MIB:.0f} MiB equal, {size / MIB / took:.2f} MiB/s, {again} resumptions"


def lossy_hellos(place: Place, loss: int, times: int) -> str:
    """How long links take that begin on a lossy way."""
    place.node("alice")
    place.node("bob")
    port = bad_way(place, f"--loss {loss}% --seed 5")
    waits = []
    for _ in range(times):
        began = time.monotonic()
        dialled = place.start(f"r2 -v -s alice.sock connect -n bob --retry udp://127.0.0.1:{port}")
        dialled.says("linked to", patience=60)
        waits.append(time.monotonic() - began)
        dialled.send(signal.SIGTERM)
        dialled.ends(0)
    waits.sort()
    return f"{times} of {times} links at {loss} % loss: median {waits[times // 2]:.2f} s, at most {waits[-1]:.2f} s"


# -- a serial line --------------------------------------------------------------------------------------------------


class Wire:
    """Two terminals joined by a line that passes `rate` bytes in a second each way, with bursts of noise if `noise`:
    about so many a minute, in which some bytes are lost, others come instead, or both."""

    TICK = 0.01

    def __init__(self, rate: int, noise: int = 0, seed: int = 1) -> None:
        self.rate, self.noise = rate, noise
        self.bursts = 0
        self.passed = [0, 0]
        self._dice = random.Random(seed)
        self._masters: list[int] = []
        self._slaves: list[int] = []
        for _ in range(2):
            master, slave = pty.openpty()
            tty.setraw(slave)
            os.set_blocking(master, False)
            self._masters.append(master)
            self._slaves.append(slave)
        self.paths = [os.ttyname(slave) for slave in self._slaves]
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        waiting = [b"", b""]
        began = [time.monotonic()] * 2
        due = [0.0, 0.0]
        while not self._ending.wait(self.TICK):
            for way in (0, 1):
                now = time.monotonic()
                due[way] = min(due[way] + (now - began[way]) * self.rate, self.rate / 20)  # none is saved up
                began[way] = now
                most = int(due[way])
                if not waiting[way] and most:
                    with contextlib.suppress(BlockingIOError):
                        waiting[way] = os.read(self._masters[way], most)
                        due[way] -= len(waiting[way])
                        self.passed[way] += len(waiting[way])
                        waiting[way] = self._spoil(waiting[way])
                if waiting[way]:
                    with contextlib.suppress(BlockingIOError):
                        waiting[way] = waiting[way][os.write(self._masters[1 - way], waiting[way]) :]

    def _spoil(self, data: bytes) -> bytes:
        dice = self._dice
        if dice.random() >= self.noise / 60 * self.TICK:
            return data
        self.bursts += 1
        start = dice.randrange(len(data))
        size = dice.randrange(1, 40)
        noise = bytes(dice.getrandbits(8) for _ in range(dice.choice((0, size, size, dice.randrange(60)))))
        return data[:start] + noise + data[start + size :]

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        for fd in (*self._masters, *self._slaves):
            os.close(fd)


def serial_transfer(place: Place, size: int, noise: int, baud: int = 115_200) -> str:
    """`size` bytes each way over a serial line, first one way, then the other, then both at once."""
    for name in NAMES[:2]:
        place.node(name)
    serve_peer(place, "bob")
    wire = Wire(baud // 10, noise)
    try:
        place.start(f"r2 -v -s bob.sock connect 'serial://{wire.paths[1]}?baud={baud}'")
        dialled = place.start(f"r2 -v -s alice.sock connect --retry 'serial://{wire.paths[0]}?baud={baud}'")
        dialled.says("linked to", patience=60)
        shares = []
        for how, ways in (("turn", 2), ("both", 1)):
            share = 0.0
            for _ in range(1 if noise or how == "both" else 5):  # a machine that does much else lets the line lie idle
                took = move(place, "alice", "bob/peer", how, size, 120 + ways * size / 1000, lambda: None)
                share = max(share, size * ways / took / (baud / 10))
                if share >= 0.85:
                    break
            shares.append(share)
        one, both = shares
        if not noise:
            assert one >= 0.85, f"only {one:.0%} of the line were used"
        return (
            f"{baud} baud, {f'{wire.bursts} bursts of noise' if noise else 'clean'}: {size} bytes equal, "
            f"{one:.0%} of the line one way, {both:.0%} of each way in both at once"
        )
    finally:
        wire.close()

"""A grid of real daemons whose links are cut and healed at random under traffic, and what must hold afterwards.

    Grid       the daemons, their links, and an echo at each
    Chaos      cuts and heals, by a seed
    Traffic    tunnels by name between random pairs, whose bytes are checked

`weather` does all of it and returns lines of figures.  The long run is `make rehearsal ARGS=grid`, the short one
e2e/test_random_cuts.py.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import random
import re
import select
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from r2box.api.session import Session
from r2box.errors import DaemonError, R2Error, RefusedError
from r2box.net.client.client import Client, ask, checked
from r2box.proto.routing.adjacency import HOP
from r2box.proto.routing.route_table import CUT
from r2box.proto.wire import messages
from support.processes import PROGRAMS, Place, Program, children, cpu_time, eventually, memory, open_files

MIB = 1 << 20
QUIET = 60.0  # seconds in which everything must have come to rest after the last cut
DIAL = 40.0  # seconds for a tunnel to stand: a link may be cut, and its neighbour stopped, for a quarter of that
RESUMES = ("10m", "10m", "2s", "0")  # how long links wait for another transport
MARK = b"\n"  # after the name of the node that an echo begins with


def network(path: str) -> dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]]:
    """What the daemon at `path` has heard of: path, cost and services of each node."""
    found = {}

    def steps(client: Client, done: Callable[[], None]) -> None:
        def page(body: messages.Body, _: tuple[int, ...]) -> None:
            for data in checked(body)["entries"]:
                entry = messages.NETWORK_ENTRY.decode(data)
                services = tuple(name.decode() for name in entry["services"])
                found[entry["path"][-1]] = entry["path"], entry["cost"], services
            client.forget(body.id)
            if body["after"]:
                client.request(messages.NETWORK, page, after=body["after"])
            else:
                client.close()
                client.loop.soon(done)

        client.request(messages.NETWORK, page)

    ask(path, steps)
    return found


class Echo:
    """The service `echo` of one node: the name of the node, and then whatever comes.  It outlives the daemon."""

    def __init__(self, path: str, name: str) -> None:
        self._path, self._name = path, name
        self._ending = False
        self._session: Session | None = None
        self.open = 0  # tunnels
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while not self._ending:
            try:
                self._session = Session(self._path)
                for sock, _ in self._session.serve("echo"):
                    threading.Thread(target=self._answer, args=(sock,), daemon=True).start()
            except (DaemonError, RefusedError):  # the daemon is not there, or not any more
                time.sleep(0.05)

    def _answer(self, sock: socket.socket) -> None:
        self.open += 1
        with sock, contextlib.suppress(OSError):
            sock.sendall(self._name.encode() + MARK)
            while data := sock.recv(1 << 16):
                sock.sendall(data)
        self.open -= 1

    def end(self) -> None:
        self._ending = True


class Joint:
    """The link between two neighbours of the grid: `one` dials, `other` listens."""

    def __init__(self, grid: Grid, one: str, other: str, number: int) -> None:
        self.grid, self.one, self.other = grid, one, other
        self.by_command = bool(number % 2 and grid.socat)
        self.resume = RESUMES[number // 2 % len(RESUMES)]
        self._path = grid.place.path / f"l{number}"
        self.is_busy = False  # somebody cuts or heals it
        self.leaving: list[Program] = []  # that were told to end
        self.listen()
        self.dial()

    def listen(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        line = f"r2 -v -s {self.other}.sock connect --resume {self.resume} -n {self.one}"
        self.listener = self.grid.place.start(f"{line} 'unix-listen://{self._path}?keepalive=1'")

    def dial(self) -> None:
        line = f"r2 -v -s {self.one}.sock connect --retry --resume {self.resume} -n {self.other}"
        way = f"socat - UNIX-CONNECT:{self._path}" if self.by_command else f"unix://{self._path}?keepalive=1"
        self.dialler = self.grid.place.start(f"{line} '{way}'")

    def heal(self) -> None:
        """Start again what does not run, or soon will not."""
        for program in self.leaving:
            program.ends(None)
        self.leaving = []
        if not self.listener.runs:
            self.listen()
        if not self.dialler.runs:
            self.dial()

    def carriers(self) -> list[int]:
        """The processes that carry it."""
        with contextlib.suppress(OSError):
            return [pid for child in children(self.dialler.pid) for pid in (child, *children(child))]
        return []


class Grid:
    """`rows` by `columns` daemons."""

    def __init__(self, place: Place, rows: int, columns: int) -> None:
        self.place = place
        self.socat = shutil.which("socat", path=PROGRAMS) is not None
        self.names = [f"n{row}{column}" for row in range(rows) for column in range(columns)]
        self.nodes = {name: self._start(name) for name in self.names}
        self.old: list[Program] = []  # daemons that were ended
        for node in self.nodes.values():
            node.says("listening at")
        pairs = [
            (f"n{row}{column}", f"n{row + down}{column + 1 - down}")
            for row, column, down in itertools.product(range(rows), range(columns), (0, 1))
            if row + down < rows and column + 1 - down < columns
        ]
        self.pairs = {frozenset(pair) for pair in pairs}
        self.joints = [Joint(self, *pair, number) for number, pair in enumerate(pairs)]
        self.echoes = [Echo(self.socket(name), name) for name in self.names]

    def _start(self, name: str) -> Program:
        return self.place.start(f"r2d -v -s {name}.sock {name}")

    def socket(self, name: str) -> str:
        return str(self.place.path / f"{name}.sock")

    def restart(self, name: str, number: int) -> None:
        """End the daemon with this signal, and start another of its name, with its links."""
        node = self.nodes[name]
        node.send(number)
        node.send(signal.SIGCONT)  # it may be stopped
        node.ends(None)
        self.old.append(node)
        self.nodes[name] = self._start(name).says("listening at")
        for joint in self.joints:
            if name in (joint.one, joint.other):
                (joint.listener if joint.other == name else joint.dialler).ends(None)  # as its daemon has gone
                if not joint.is_busy:
                    joint.heal()

    # -- what must hold ------------------------------------------------------------------------------------------

    def faults(self) -> list[str]:
        """What is not in order in what the daemons have heard."""
        found = []
        for name in self.names:
            try:
                known = network(self.socket(name))
            except R2Error as error:
                found.append(f"{name}: {error}")
                continue
            others = set(self.names) - {name}
            if set(known) != others:
                found.append(f"{name} misses {sorted(others - set(known))}, has {sorted(set(known) - others)}")
            for address, (path, cost, services) in known.items():
                if any(frozenset(step) not in self.pairs for step in zip((name, *path), path)):
                    found.append(f"{name}: no such path: {'/'.join(path)}")
                if frozenset((name, address)) in self.pairs and path != (address,):
                    found.append(f"{name}: the link to {address} is not there, but {'/'.join(path)}")
                if not HOP * len(path) <= cost < CUT:
                    found.append(f"{name}: {'/'.join(path)} for {cost}")
                if services != ("echo",):
                    found.append(f"{name}: {address} offers {services}")
        return found

    def settle(self, patience: float = QUIET) -> float:
        """Seconds until all daemons know all others."""
        began = time.monotonic()
        last: list[list[str]] = []

        def is_calm() -> bool:
            last[:] = [self.faults()]
            return not last[0]

        eventually(is_calm, lambda: "; ".join(last[0][:10]), patience)
        return time.monotonic() - began

    def reach_all(self) -> int:
        """A tunnel by name from everybody to everybody; how many."""
        count = 0
        for name in self.names:
            others = [other for other in self.names if other != name]
            with Session(self.socket(name)) as session:
                for other, sock in zip(others, session.dial_all(f"{other}/echo" for other in others)):
                    with sock:
                        sock.settimeout(20)
                        text = f"from {name}".encode()
                        sock.sendall(text)
                        sock.shutdown(socket.SHUT_WR)
                        came = b"".join(iter(lambda sock=sock: sock.recv(4096), b""))  # type: ignore[misc]
                        assert came == other.encode() + MARK + text, f"{name} to {other}: {came!r}"
                    count += 1
        return count

    def descriptors(self) -> dict[str, int]:
        """How many each daemon has, when nothing changes any more."""
        gc.collect()  # sessions of ours
        last: dict[str, int] = {}
        since = time.monotonic()

        def is_calm() -> bool:
            nonlocal last, since
            now = {name: open_files(node.pid) for name, node in self.nodes.items()}
            if now != last:
                last, since = now, time.monotonic()
            return time.monotonic() - since > 1.0

        eventually(is_calm, "descriptors that stay the same")
        return last

    def close(self) -> None:
        for echo in self.echoes:
            echo.end()


class Chaos:
    """Cuts the links `chosen`, restarts and stops daemons; all by the seed."""

    def __init__(self, grid: Grid, seed: int, restarts: int) -> None:
        self.grid = grid
        self.dice = random.Random(seed)
        self.chosen = self.dice.sample(grid.joints, (len(grid.joints) + 2) // 3)
        self.made: Counter[str] = Counter()
        self._restarts = restarts
        self._due: list[tuple[float, Callable[[], None]]] = []

    def run(self, seconds: float, pause: float) -> None:
        """For so long, a cut every `pause` seconds or so; then heal everything."""
        began = now = time.monotonic()
        restarts = [began + seconds * (number + 0.5) / (self._restarts or 1) for number in range(self._restarts)]
        due = began
        while now < began + seconds:
            if restarts and now >= restarts[0]:
                restarts.pop(0)
                number = self.dice.choice((signal.SIGKILL, signal.SIGTERM))
                self.made[f"daemon {number.name}"] += 1
                self.grid.restart(self.dice.choice(self.grid.names), number)
            elif now >= due:
                due = now + pause * 2 * self.dice.random()
                joint = self.dice.choice(self.chosen)
                if not joint.is_busy:
                    self._cut(joint)
            self._heal(now)
            time.sleep(0.01)
            now = time.monotonic()

        def is_healed() -> bool:
            self._heal(float("inf"))
            return not self._due

        eventually(is_healed, "the end of what was told to end")

    def _heal(self, now: float) -> None:
        for item in [item for item in self._due if item[0] <= now]:
            self._due.remove(item)
            item[1]()

    def _later(self, joint: Joint, low: float, high: float, what: Callable[[], object] = lambda: None) -> None:
        """Heal it after so many seconds, having done `what`."""

        def end() -> None:
            what()
            heal()

        def heal() -> None:
            if any(program.runs for program in joint.leaving):  # it waits for a daemon that is stopped, and we go on
                self._due.append((time.monotonic() + 0.05, heal))
                return
            joint.heal()
            joint.is_busy = False

        joint.is_busy = True
        self._due.append((time.monotonic() + self.dice.uniform(low, high), end))

    def _cut(self, joint: Joint) -> None:
        carriers = joint.carriers()
        kinds = ["connect", "listener", "orderly", "stopped"] + ["command", "command", "silence"] * bool(carriers)
        kind = self.dice.choice(kinds)
        if kind in ("connect", "listener", "orderly"):
            program = joint.listener if kind == "listener" else joint.dialler
            if not program.runs:
                joint.heal()
                return
            program.send(signal.SIGTERM if kind == "orderly" else signal.SIGKILL)
            joint.leaving.append(program)
            for pid in carriers if kind == "connect" else ():  # nobody else would end it
                _kill(pid, signal.SIGKILL)
            self._later(joint, 0.1, 4.0)
        elif kind == "command":
            _kill(carriers[-1], signal.SIGKILL)  # r2-connect starts another
        elif kind == "silence":
            _kill(carriers[-1], signal.SIGSTOP)
            end = self.dice.choice((signal.SIGCONT, signal.SIGKILL))
            self._later(joint, 1.0, 7.0, lambda: _kill(carriers[-1], end))
        else:
            node = self.grid.nodes[self.dice.choice((joint.one, joint.other))]
            node.send(signal.SIGSTOP)
            self._later(joint, 0.5, 5.0, lambda: node.send(signal.SIGCONT) if node.runs else None)
        self.made[kind] += 1


def _kill(pid: int, number: int) -> None:
    import os

    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Traffic:
    """`workers` threads that open one tunnel after another."""

    def __init__(self, grid: Grid, seed: int, workers: int, most: int) -> None:
        self.grid = grid
        self.most = most
        self.ending = threading.Event()
        self.whole = self.broken = self.bytes = self.retries = 0
        self.any: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.longest_dial = 0.0
        self.longest_outage = (0.0, "")
        self.wrong: list[str] = []
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=(random.Random(seed * 1000 + number),), daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, dice: random.Random) -> None:
        while not self.ending.is_set():
            one, other = dice.sample(self.grid.names, 2)
            goal = "any" if dice.random() < 0.1 else other
            began = time.monotonic()
            while not self._try(one, goal, dice):  # the same pair again, until it works
                self.retries += 1
                if time.monotonic() - began > QUIET + DIAL:
                    self.wrong.append(f"{one} does not reach {goal}")
                    return
                time.sleep(0.1)
            took = time.monotonic() - began
            with self._lock:
                self.longest_outage = max(self.longest_outage, (took, f"{one} to {goal}"))

    def _try(self, one: str, goal: str, dice: random.Random) -> bool:
        """Whether a tunnel could be opened.  What it carries may be cut off by what ends daemons and links."""
        began = time.monotonic()
        try:
            with Session(self.grid.socket(one)) as session:
                sock = session.dial(f"{goal}/echo", DIAL)
        except (R2Error, TimeoutError, OSError) as error:
            with self._lock:
                self.failures[re.sub(r"n\d\d|/\S+|\d+(\.\d+)?", "…", str(error))[:110]] += 1
            return False
        with self._lock:
            self.longest_dial = max(self.longest_dial, time.monotonic() - began)
        size = int(self.most ** dice.uniform(0.3, 1.0))
        data = dice.getrandbits(8 * size).to_bytes(size, "little")
        with sock:
            came = _converse(sock, data)
        name, mark, rest = came.partition(MARK)
        known = self.grid.names if goal == "any" else [goal]
        with self._lock:
            if mark and name.decode() not in known:
                self.wrong.append(f"{one} asked for {goal} and got {name!r}")
            if rest != data[: len(rest)]:
                self.wrong.append(f"{one} to {goal}: {len(rest)} bytes that are no prefix")
            self.bytes += len(rest)
            if goal == "any" and mark:
                self.any[name.decode()] += 1
            if len(rest) == size and mark:
                self.whole += 1
            else:
                self.broken += 1
        return True

    def end(self, patience: float) -> float:
        """No more tunnels; seconds until all have ended."""
        began = time.monotonic()
        self.ending.set()
        for thread in self._threads:
            thread.join(max(0.1, began + patience - time.monotonic()))
        stuck = sum(thread.is_alive() for thread in self._threads)
        assert not stuck, f"{stuck} tunnels are stuck"
        return time.monotonic() - began


def _converse(sock: socket.socket, data: bytes) -> bytes:
    """Write `data` and its end, read all that comes."""
    sock.setblocking(False)
    left, came, is_open = memoryview(data), bytearray(), True
    while True:
        read, write, _ = select.select([sock], [sock] if left or is_open else [], [], 1.0)
        try:
            if write and left:
                left = left[sock.send(left[: 1 << 16]) :]
            elif write and is_open:
                is_open = False
                sock.shutdown(socket.SHUT_WR)
            if read:
                some = sock.recv(1 << 16)
                if not some:
                    return bytes(came)
                came += some
        except BlockingIOError:
            continue
        except OSError:  # it was cut off
            return bytes(came)


def weather(
    place: Place, rows: int, columns: int, seconds: float, seed: int, *,
    pause: float = 0.5, restarts: int = 4, workers: int = 8, most: int = 4 * MIB, pings: int = 10,
) -> Iterator[str]:  # fmt: skip
    """See the module; AssertionError if something does not hold."""
    place.tolerate_orphans = True  # commands of an r2-connect that was killed
    began = time.monotonic()
    grid = Grid(place, rows, columns)
    try:
        settled = grid.settle()
        yield (
            f"{len(grid.names)} daemons, {len(grid.joints)} links ({sum(it.by_command for it in grid.joints)} by a "
            f"command): up in {time.monotonic() - began:.1f} s, of which all knew all {settled:.1f} s after the last"
        )
        grid.reach_all()
        baseline = grid.descriptors()
        chaos = Chaos(grid, seed, restarts)
        traffic = Traffic(grid, seed, workers, most)
        try:
            chaos.run(seconds, pause)
            calm = time.monotonic()
            ended = traffic.end(QUIET + DIAL)
        finally:
            traffic.ending.set()
        settled = grid.settle() + time.monotonic() - calm
        yield from _figures(grid, chaos, traffic)
        count = grid.reach_all()
        for _ in range(pings):
            one, other = chaos.dice.sample(grid.names, 2)
            place.run(f"r2 -s {one}.sock -t {'/'.join(network(grid.socket(one))[other][0])} ping -c 1 -W 10")
        eventually(lambda: not sum(echo.open for echo in grid.echoes), "the end of all echoes")
        last: list[dict[str, int]] = []

        def is_back() -> bool:
            last[:] = [grid.descriptors()]
            return last[0] == baseline

        eventually(is_back, lambda: f"descriptors: {last[0]}, not {baseline}")
        assert not traffic.wrong, traffic.wrong[:5]
        yield (
            f"after it: all traffic over in {ended:.1f} s, all tables right within {settled:.1f} s; {count} of {count} "
            f"pairs echo by name, {pings} pings; descriptors as before"
        )
    finally:
        grid.close()


def _figures(grid: Grid, chaos: Chaos, traffic: Traffic) -> Iterator[str]:
    daemons = [*grid.old, *grid.nodes.values()]
    yield f"cuts: {sum(chaos.made.values())} of {len(chaos.chosen)} links: " + ", ".join(
        f"{kind} {count}" for kind, count in chaos.made.most_common()
    ) + f"; daemons counted {sum(it.err.count(' resumed over ') for it in daemons)} resumptions, " + (
        f"{sum(it.err.count(' suspended: ') for it in daemons)} cuts, "
        f"{sum(it.err.count(': linked to') for it in daemons)} new links"
    )
    yield (
        f"tunnels: {traffic.whole} whole, {traffic.broken} broken off, {traffic.bytes / MIB:.0f} MiB; any/echo went to "
        f"{len(traffic.any)} nodes; {traffic.retries} failed to open; longest to open {traffic.longest_dial:.1f} s; "
        f"longest until a pair worked again {traffic.longest_outage[0]:.1f} s ({traffic.longest_outage[1]})"
    )
    for why, count in traffic.failures.most_common(6):
        yield f"    {count} x {why}"
    alive = [node.pid for node in grid.nodes.values()]
    rss, cpu = [memory(pid, "VmHWM") / MIB for pid in alive], [cpu_time(pid) for pid in alive]
    yield (
        f"daemons: at most {max(rss):.1f} MiB each ({sum(rss) / len(rss):.1f} on average), "
        f"{sum(cpu):.1f} s of processor altogether, {max(cpu):.2f} the busiest"
    )

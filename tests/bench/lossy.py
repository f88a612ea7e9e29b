"""Links that lose: UDP through an injector that loses packets both ways, and a serial line with noise.

The path: 2 MiB/s of datagrams, 50 ms there and back, and a queue of 64 KiB in front of it, by `r2-lossy`; each rate of
loss has a seed of its own.  For so many seconds at most much data is sent one way, and what has arrived by then counts.

    r2 over udp://   a service to a tunnel, over one link for all rounds
    Reticulum        a Resource over a Link, by its UDP interface; it sends packets of 500 bytes, as it does by default
    TCP              the kernel's, with each congestion control that it has: IP packets of a tun device in a network of
                     its own, one in each datagram
    Reno by Mathis   no program but a formula: what TCP Reno can reach in the long run (Mathis et al., 1997)

Loss is the same each way, so acknowledgements are lost too.  The link of r2box has met the path before from the second
round on; a connection of TCP has not.
"""

from __future__ import annotations

import importlib.util
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from .bulk import BLOCK, MIB
from .nodes import Nodes
from .runs import Candidate, Metric, RunError, Target
from .session import Session
from .ways import R2, Reticulum, Way
from .world import Program, World, free_port, is_bound

LOSSES = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0)  # per cent
FEW = (0.0, 1.0)  # of them, where it is only to be seen whether it works
RATE = 2 * MIB  # bytes a second
DELAY = 0.025  # seconds one way
MSS = 1200
PATIENCE = 30.0  # seconds for what comes before and after a transfer
KIB = 1024
GOODPUT = Metric("goodput", "KiB/s", more_is_better=True)
ALGORITHMS = {"BBR": "bbr", "cubic": "cubic", "Reno": "reno"}
MATHIS = "Reno by Mathis"
PATH = "the path"

BAUD = 115_200
LINE = BAUD // 10  # bytes a second: a start bit, 8 bits, a stop bit
NOISE = 5  # per cent of what is read at once, at most 1200 bytes, have flipped bits
SHAKES = 50
SHAKE_LOSS = 30  # per cent


def mathis(loss: float) -> float:
    """Bytes a second that Reno reaches at most, where that part of the packets is lost.

    >>> round(mathis(0.01))
    292800
    """
    return 1.22 * MSS / (2 * DELAY * math.sqrt(loss))


def inject(world: World, port: int, percent: float, seed: int, rate: int = RATE) -> int:
    """Start an injector before that port of UDP; return its own."""
    near = free_port()
    faults = [f"--seed={seed}", f"--loss={percent:g}%", f"--delay={DELAY * 1000:g}ms"]
    if rate:
        faults.append(f"--rate={rate}")
    program = world.start(["r2-lossy", *faults, f"udp-listen://127.0.0.1:{near}", f"udp://127.0.0.1:{port}"])
    world.until(lambda: is_bound(near) or program.has_ended, "r2-lossy to listen")
    if program.has_ended:
        raise RunError(f"r2-lossy: {program.last_words}")
    return near


# -- the ways ----------------------------------------------------------------------------------------------------------


class R2Udp(R2):
    """Two nodes with a link over UDP that loses."""

    def __init__(self, world: World, percent: float) -> None:
        super().__init__(world)
        self._percent = percent
        self.name = "r2 over udp://"

    def start(self) -> None:
        self._path = ["near", "far"]
        for name in self._path:
            self.nodes.node(name)
        port = inject(self.world, self.nodes.listen_udp("far"), self._percent, int(self._percent))
        self.nodes.linked("near", "far", self.nodes.connect("near", f"udp://127.0.0.1:{port}"))


class R2Serial(R2):
    """Two nodes with a link over a terminal, behind which there is a serial line with noise."""

    def __init__(self, world: World, noise: float) -> None:
        super().__init__(world)
        self._noise = noise
        self.name = f"r2, {noise:g} % of noise" if noise else "r2, no noise"

    def start(self) -> None:
        self._path = [f"s{self._noise:g}", f"t{self._noise:g}"]
        one, other = self._path
        for name in self._path:
            self.nodes.node(name)
        far = self.world.script(["r2-connect", "--lossy", "-s", self.nodes.socket(other), "-"])
        faults = ["--seed=1", f"--corrupt={self._noise:g}%", f"--rate={LINE}", "--queue=2k"]
        line = self.world.script(["r2-lossy", *faults, far])
        self.nodes.linked(one, other, self.nodes.connect(one, f"pty://{line}"))


class TcpOverUdp(Way):
    """TCP of this kernel, with its packets in datagrams."""

    def __init__(self, world: World, percent: float, name: str) -> None:
        super().__init__(world)
        self._percent = percent
        self.name = name
        self._ports: dict[str, int] = {}

    def missing(self) -> str:
        known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
        if not known.exists() or ALGORITHMS[self.name] not in known.read_text().split():
            return "this kernel does not have it"
        return "" if os.access("/dev/net/tun", os.R_OK | os.W_OK) else "/dev/net/tun is not for us"

    def offer(self, name: str, far: str) -> None:
        port = free_port()
        program = self.world.start(self.world.helper("by_tcp", "far", port, ALGORITHMS[self.name], far))
        self.world.until(lambda: program.has_ended or "listening" in program.last_words, "TCP to listen")
        if program.has_ended:
            raise RunError(program.last_words)
        self._ports[name] = inject(self.world, port, self._percent, int(self._percent))

    def join(self, name: str, near: str) -> list[Program]:
        command = self.world.helper("by_tcp", "near", self._ports[name], ALGORITHMS[self.name], near)
        return [self.world.start(command)]


# -- what arrives ------------------------------------------------------------------------------------------------------


class Stream:
    """From a source that is offered to a sink, for so many seconds at most."""

    def __init__(self, way: Way, total: int, limit: float) -> None:
        self._way = way
        self._name = way.world.unique("source").name
        self._total, self._limit = total, limit

    def offer(self) -> None:
        world = self._way.world
        gate, self._result = str(world.unique("gate")), world.unique("result")
        world.run(["mkfifo", gate])
        self._way.offer(self._name, world.load("source", self._total, BLOCK, gate))
        self._sink = world.load("sink", self._total, self._result, gate, self._limit)

    def rate(self) -> float:
        """Bytes a second."""
        world = self._way.world
        programs = self._way.join(self._name, self._sink)
        try:
            return speed(world.result(self._result, programs, self._limit + PATIENCE), self._total, self._limit)
        finally:
            for program in programs:
                world.end(program, grace=5)

    def run(self) -> Mapping[str, float]:
        return {GOODPUT.name: self.rate() / KIB}

    def run_line(self) -> Mapping[str, float]:
        return {"of the line": 100 * self.rate() / LINE}


def speed(found: Mapping[str, float], total: int, limit: float) -> float:
    """Bytes a second, where less than all means that it was given up at the limit."""
    if found["bytes"] < total and found["seconds"] < limit:
        raise RunError(f"ended after {found['seconds']:.1f} s and {found['bytes']} of {total} bytes")
    return found["bytes"] / found["seconds"]


class Resource:
    """The same by a Resource of Reticulum; each time over a Link of its own."""

    name = Reticulum.name

    def __init__(self, world: World, percent: float, total: int, limit: float) -> None:
        self._world, self._percent, self._total, self._limit = world, percent, total, limit

    def start(self) -> None:
        world = self._world
        port, self._identity = free_port(), world.unique("identity")
        server = world.start(world.peer("by_reticulum", "sender", self._home(), port, self._identity, self._total))
        world.until(lambda: self._identity.exists() or server.has_ended, "Reticulum to start")
        if server.has_ended:
            raise RunError(f"Reticulum: {server.last_words}")
        self._port = inject(world, port, self._percent, int(self._percent))

    def run(self) -> Mapping[str, float]:
        world, result = self._world, self._world.unique("result")
        words = [self._home(), self._port, self._identity, self._total, self._limit, result]
        program = world.start(world.peer("by_reticulum", "receiver", *words))
        try:
            found = world.result(result, [program], self._limit + PATIENCE)
        finally:
            world.end(program, grace=1)
        return {GOODPUT.name: speed(found, self._total, self._limit) / KIB}

    def _home(self) -> Path:
        home = self._world.unique("reticulum")
        home.mkdir()
        return home

    def candidate(self) -> Candidate:
        problem = "" if importlib.util.find_spec("RNS") else "Reticulum (rns) is not installed"
        if not problem:
            try:
                self.start()
            except (OSError, RunError) as error:
                problem = f"failed to start: {error}"
        return Candidate(self.name, None if problem else self.run, problem)


class Handshakes:
    """How long `r2 connect` takes until both nodes are linked, each time from a node that is new."""

    def __init__(self, world: World, percent: float, count: int) -> None:
        self._world, self._count = world, count
        self._nodes = Nodes(world)
        self._far = f"far{percent:g}"
        self._nodes.node(self._far)
        port = inject(world, self._nodes.listen_udp(self._far), percent, 1, rate=0)
        self._url = f"udp://127.0.0.1:{port}"
        self.name = f"r2, {percent:g} % lost" if percent else "r2, none lost"

    def run(self) -> Mapping[str, float]:
        times = sorted(self._one(f"{self._far}-{number}") for number in range(self._count))
        return {"median": times[len(times) // 2] * 1000, "worst": times[-1] * 1000}

    def _one(self, name: str) -> float:
        daemon = self._nodes.node(name)
        start = time.monotonic()
        program = self._nodes.connect(name, self._url)
        self._world.until(lambda: program.has_ended or "linked to" in program.last_words, "a link")
        seconds = time.monotonic() - start
        if program.has_ended:
            raise RunError(program.last_words)
        self._world.end(program)
        self._world.end(daemon)
        return seconds


# -- the group ---------------------------------------------------------------------------------------------------------


def lossy_links(session: Session) -> None:
    """links that lose: goodput by loss over UDP, handshakes, a serial line with noise"""
    for percent in LOSSES if session.options.scale >= 0.1 else FEW:
        goodput(session, percent)
    handshakes(session)
    serial(session)


def goodput(session: Session, percent: float) -> None:
    total, limit = session.amount(10 * MIB, MIB // 2), session.seconds(6, 1.5)
    with session.world() as world:
        ways: list[Way] = [R2Udp(world, percent), *(TcpOverUdp(world, percent, name) for name in ALGORITHMS)]
        loads = [Stream(way, total, limit) for way in ways]
        candidates = [session.candidate(way, load.offer, load.run) for way, load in zip(ways, loads)]
        candidates.insert(1, Resource(world, percent, total, limit).candidate())
        bounds = {PATH: float(RATE)}
        if percent:
            bounds[MATHIS] = mathis(percent / 100)
        candidates += [bound(name, value / KIB) for name, value in bounds.items()]
        targets: Sequence[Target] = ()
        if percent == 1:
            targets = [Target(ways[0].name, ">=", 5, MATHIS), Target(ways[0].name, ">=", 0.6, PATH)]
        title = f"{percent:g} % lost each way, 2 MiB/s, 50 ms, at most {total / MIB:g} MiB in {limit:g} s"
        (comparison,) = session.compare(title, [GOODPUT], candidates, targets)
    for candidate in candidates:
        if candidate.name != PATH:
            legend = "r2box" if candidate.name == ways[0].name else candidate.name
            session.mark("lossy", legend, percent, comparison.spread(candidate.name))


def bound(name: str, value: float) -> Candidate:
    """What is not measured but known."""
    return Candidate(name, lambda: {GOODPUT.name: value}, is_floor=True)


def handshakes(session: Session) -> None:
    count = session.amount(SHAKES, 3)
    metrics = [Metric(name, "ms") for name in ("median", "worst")]
    with session.world() as world:
        shakes = [Handshakes(world, percent, count) for percent in (SHAKE_LOSS, 0)]
        candidates = [Candidate(shake.name, shake.run) for shake in shakes]
        session.compare(f"`r2 connect udp://`, 50 ms, {count} times", metrics, candidates, rounds=1)


def serial(session: Session) -> None:
    total, limit = session.amount(128 * KIB, 12 * KIB), session.seconds(60, 10)
    metric = Metric("of the line", "%", more_is_better=True)
    with session.world() as world:
        ways = [R2Serial(world, NOISE), R2Serial(world, 0)]
        loads = [Stream(way, total, limit) for way in ways]
        candidates = [session.candidate(way, load.offer, load.run_line) for way, load in zip(ways, loads)]
        session.compare(f"a serial line of {BAUD:,} baud, {total // KIB} KiB one way", [metric], candidates)

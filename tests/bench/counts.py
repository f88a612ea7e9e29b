"""What can be counted instead of timed, and so does not depend on what else the machine does.

System calls and bytes on the wire come from a transfer of known size.  Under strace everything is slower, so blocks may
be larger or smaller than they are without: a count is right for what was counted, and near to what is usual.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .bulk import MIB, Transfer
from .many import KIB, memory
from .nodes import Nodes
from .rtt import Pinger
from .runs import Candidate, Metric, RunError, Target
from .session import Session
from .slow import relay
from .ways import LARGE, R2, Socat, Ssh
from .world import Program, World, free_port, resident, status, which

CALLS = [Metric(f"system calls, {end} end", "per MiB") for end in ("near", "far")]
KEEPALIVE = 15.0  # seconds of silence after which neighbours ask each other
AWAKE = 4  # times that one such question may wake a daemon: a timer, the answer, and the same from the other side


def calls_in(path: Path) -> int:
    """The number of calls in a summary of strace."""
    calls = 0
    for line in path.read_text().splitlines():
        words = line.split()
        if len(words) >= 5 and words[0][0].isdigit() and words[-1] != "total":
            calls += int(words[3])
    return calls


class Traced:
    """A transfer between two daemons that strace is attached to."""

    def __init__(self, way: R2, total: int) -> None:
        self._way = way
        self._total = total
        self._transfer = Transfer(way, total)
        self.offer = self._transfer.offer

    def run(self) -> Mapping[str, float]:
        world = self._way.world
        traces = []
        for daemon in self._way.nodes.daemons.values():
            summary = world.unique("strace")
            program = world.start(["strace", "-c", "-f", "-p", daemon.pid, "-o", summary])
            world.until(lambda: "attached" in program.last_words or program.has_ended, "strace")  # noqa: B023
            if program.has_ended:
                raise RunError(program.last_words)
            traces.append((program, summary))
        self._transfer.run()
        return {metric.name: self._count(*trace) for metric, trace in zip(CALLS, traces)}

    def _count(self, program: Program, summary: Path) -> float:
        program.popen.send_signal(signal.SIGINT)
        self._way.world.end(program, grace=10)
        return calls_in(summary) / (self._total / MIB)


class TracedSocat(Socat):
    """Each socat is started by strace, which leaves out what socat itself starts."""

    def __init__(self, world: World, total: int, options: str = "") -> None:
        super().__init__(world, options=options)
        self._total = total
        self.transfer = Transfer(self, total)

    def offer(self, name: str, far: str) -> None:
        self._far = far

    def join(self, name: str, near: str) -> list[Program]:
        port = free_port()
        self.summaries = [self.world.unique("strace") for _ in range(2)]
        trace = [["strace", "-c", "-o", str(summary), "socat", *self._options] for summary in self.summaries]
        far = self.world.start([*trace[1], f"tcp-l:{port},reuseaddr,bind=127.0.0.1", f"exec:{self._far}"])
        self.world.listens(port, "socat")
        return [self.world.start([*trace[0], f"tcp:127.0.0.1:{port}", f"exec:{near}"]), far]

    def run(self) -> Mapping[str, float]:
        self.transfer.run()
        counts = [calls_in(summary) / (self._total / MIB) for summary in self.summaries]
        return dict(zip((metric.name for metric in CALLS), counts))


def system_calls(session: Session) -> None:
    """system calls of each daemon for a MiB on one TCP link"""
    total = session.amount(64 * MIB, MIB)
    with session.world() as world:
        way = R2(world)
        traced = Traced(way, total)
        candidates = [session.candidate(way, traced.offer, traced.run)]
        for options in ("", LARGE):
            socat = TracedSocat(world, total, options)
            candidates.append(session.candidate(socat, socat.transfer.offer, socat.run))
        if not which("strace"):
            candidates = [Candidate(candidate.name, None, "strace is not installed") for candidate in candidates]
        session.compare(f"one TCP link, {total // MIB} MiB, under strace", CALLS, candidates)


class R2Metered(R2):
    """A chain of nodes with a meter in its first link."""

    def __init__(self, world: World, hops: int) -> None:
        super().__init__(world, hops)
        self.name = f"r2, {hops} hop{'s' * (hops > 1)}"

    def start(self) -> None:
        self._path = [f"m{self.hops}n{number}" for number in range(self.hops + 1)]
        for name in self._path:
            self.nodes.node(name)
        listen = free_port()
        dial, self.meter = relay(self.world, listen)
        self.nodes.link(self._path[0], self._path[1], listen=listen, dial=dial)
        for one, other in zip(self._path[1:], self._path[2:]):
            self.nodes.link(one, other)


class SshMetered(Ssh):
    def reach(self) -> int:
        port, self.meter = relay(self.world, self.port)
        return port


class Overhead:
    """What goes over the wire besides the data, in both directions together."""

    def __init__(self, way: R2Metered | SshMetered, total: int, count: int) -> None:
        self._way = way
        self._total, self._transfer = total, Transfer(way, total)
        self._pinger = Pinger(way, count, size=1)

    def offer(self) -> None:
        self._transfer.offer()
        self._pinger.offer()

    def _bytes(self) -> int:
        return sum(self._way.meter.ask("count"))

    def run(self) -> Mapping[str, float]:
        start = self._bytes()
        self._transfer.run()
        middle = self._bytes()
        self._pinger.run()
        bulk = middle - start - self._total
        single = self._bytes() - middle - 2 * self._pinger.sent
        return {"bulk": bulk / (self._total / MIB), "1-byte writes": single / (2 * self._pinger.sent)}


def wire_overhead(session: Session) -> None:
    """bytes on the wire besides the data, at 1 and 8 hops"""
    total, count = session.amount(64 * MIB, 4 * MIB), session.amount(2000, 200)
    with session.world() as world:
        candidates = []
        for way in (R2Metered(world, 1), R2Metered(world, 8), SshMetered(world)):
            overhead = Overhead(way, total, count)
            candidates.append(session.candidate(way, overhead.offer, overhead.run))
        metrics = [Metric("bulk", "bytes per MiB"), Metric("1-byte writes", "bytes per write")]
        targets = [Target(candidates[1].name, "<=", 1.05, candidates[0].name, "1-byte writes")]
        session.compare("overhead on the first link", metrics, candidates, targets)


def switches(pid: int) -> int:
    return status(pid, "voluntary_ctxt_switches") + status(pid, "nonvoluntary_ctxt_switches")


def values(awake: float, bytes_: int) -> Callable[[], Mapping[str, float]]:
    return lambda: {"wakeups": awake, "memory": bytes_ / MIB}


def idle(session: Session) -> None:
    """what a daemon with one link costs when nothing happens"""
    seconds = session.seconds(60, 3)
    with session.world() as world:
        nodes = Nodes(world)
        nodes.chain(1)
        ssh = Ssh(world)
        problem = session.ready(ssh, lambda: None)
        nothing = world.start([world.python, "-c", "import signal; signal.pause()"])
        time.sleep(1)
        pids = {name: daemon.pid for name, daemon in nodes.daemons.items()}
        if not problem:
            pids["ssh -L"] = ssh.master.pid
        before = {name: switches(pid) for name, pid in pids.items()}
        session.progress.say(f"{session.group}: {seconds:g} s of nothing")
        time.sleep(seconds)
        awake = {name: (switches(pid) - before[name]) * 60 / seconds for name, pid in pids.items()}
        one, other = nodes.daemons
        candidates = [
            Candidate(f"r2d, {end} end", values(awake[name], resident(pids[name])))
            for end, name in (("calling", one), ("listening", other))
        ]
        candidates.append(
            Candidate("ssh -L", None if problem else values(awake["ssh -L"], memory([ssh.master.pid])), problem)
        )
        candidates.append(Candidate("python3", values(0, resident(nothing.pid)), is_floor=True))
        targets = [
            target
            for candidate in candidates[:2]
            for target in (
                Target(candidate.name, "<=", AWAKE * 60 / KEEPALIVE, metric="wakeups"),
                Target(candidate.name, "<=", 16, metric="memory"),
            )
        ]
        metrics = [Metric("wakeups", "per minute"), Metric("memory", "MiB")]
        session.compare(f"{seconds:g} s of nothing on one link", metrics, candidates, targets, rounds=1)
    size = (session.options.dist / "r2box").stat().st_size / KIB
    candidates = [Candidate("r2box", lambda: {"size": size})]
    session.compare("the file", [Metric("size", "KiB")], candidates, [Target("r2box", "<=", 256)], rounds=1)

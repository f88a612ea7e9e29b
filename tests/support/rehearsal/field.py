"""The network in which one daemon is attacked, and what it costs there.

    alice - bob - carl     bob is attacked: both are linked to his door, a TCP listener at which everybody may knock.
                           The honest traffic goes from alice to carl.

    Field       the daemons, their doors and services, and the honest traffic
    Gauge       what bob uses: memory, descriptors, processes, processor, log
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import select
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.processes import (
    BUG,
    Place,
    Program,
    await_port,
    children,
    cpu_time,
    eventually,
    free_port,
    memory,
    open_files,
)

from .target import Target

MIB = 1 << 20
RATE = 10e6  # bytes a second of the honest stream
STUBBORN = "nohup sleep 600"  # a program that does not read and ignores SIGHUP
TESTS = Path(__file__).resolve().parents[2]


def descendants(pid: int) -> set[int]:
    """All processes below, as far as they have not been given to another parent."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for child in children(pid):
            found |= {child} | descendants(child)
    return found


class Gauge(threading.Thread):
    """What bob uses, looked at ten times a second until `stop`; peaks are those since `begin`."""

    def __init__(self, field: Field) -> None:
        super().__init__(daemon=True)
        self.field = field
        self.pid = field.nodes["bob"].pid
        self._ending = threading.Event()
        self.begin()
        self.start()

    def begin(self) -> None:
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # VmHWM begins anew
        self.most_files, self.most_programs = self.files(), self.programs()

    def run(self) -> None:
        while not self._ending.wait(0.1):
            with contextlib.suppress(OSError):
                self.most_files = max(self.most_files, self.files())
                self.most_programs = max(self.most_programs, self.programs())

    def files(self) -> int:
        return open_files(self.pid)

    def programs(self) -> int:
        """That run for bob's services."""
        return sum(len(descendants(server.pid)) for server in self.field.servers if server.runs)

    def now(self) -> dict[str, float]:
        if not self.field.nodes["bob"].runs:
            return {}
        return {
            "memory": memory(self.pid, "VmRSS"), "peak": memory(self.pid, "VmHWM"), "files": self.files(),
            "programs": self.programs(), "cpu": cpu_time(self.pid), "log": self.field.log_size(),
            "lines": self.field.log_lines(),
        }  # fmt: skip

    def stop(self) -> None:
        self._ending.set()
        self.join()


class Traffic:
    """The process of `support.rehearsal.honest`."""

    def __init__(self, field: Field) -> None:
        place = field.place
        module = f"python3 -m support.rehearsal.honest {place.box.dist / 'r2box'}"
        line = f"{module} alice.sock carl.sock carl carl/echo {field.rate:.0f}"
        self.program = place.start(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, PYTHONPATH=str(TESTS))
        assert self._line() == "ready", self.program

    def _line(self) -> str:
        readable, _, _ = select.select([self.program.stdout], [], [], 60)
        assert readable, f"no figures from {self.program}"
        return self.program.stdout.readline().decode().strip()

    def phase(self) -> dict[str, Any]:
        """The figures since it was last asked."""
        self.program.stdin.write(b"\n")
        line = self._line()
        assert line, f"no figures from {self.program}"
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        self.program.stdin.close()
        self.program.ends(0)


class Field:
    """The three daemons.  `descriptors`: how many bob may have; 0: as many as this process."""

    def __init__(self, place: Place, descriptors: int = 0, rate: float = RATE) -> None:
        self.place, self.rate = place, rate
        limit = f"ulimit -n {descriptors}; " if descriptors else ""
        self.nodes = {name: place.start(f"r2d -s {name}.sock {name}") for name in ("alice", "carl")}
        self.nodes["bob"] = place.start(f"{limit}exec r2d -s bob.sock bob", shell=True)
        for node in self.nodes.values():
            node.is_daemon = True
            node.says("listening at")
        door, side, udp = free_port(), free_port(), free_port()
        self.doors = {
            "bob's door": self._door("bob", f"tcp-listen://127.0.0.1:{door}"),
            "alice's door": self._door("alice", f"tcp-listen://127.0.0.1:{side}"),
            "bob's UDP door": self._door("bob", f"udp-listen://127.0.0.1:{udp}"),
        }
        self.servers = [self._serve("bob", "hold", "cat"), self._serve("bob", "stubborn", STUBBORN)]
        self.others = [self._serve("carl", "echo", "cat"), self._serve("carl", "hold", "cat"),
                       self._serve("carl", "private", "cat", "--allow bob")]  # fmt: skip
        line = f"connect --retry -n bob tcp://127.0.0.1:{door}"
        self.links = [place.start(f"r2 -v -s {name}.sock {line}") for name in ("alice", "carl")]
        for port in (door, side):
            await_port(port)
        eventually(lambda: f":{udp:04X} " in Path("/proc/net/udp").read_text(), "the UDP listener")
        for server in (*self.servers, *self.others):
            server.says("offering service/")
        for link in self.links:
            link.says("linked to")
        place.answers("alice", "carl")
        self.target = Target(door, udp, side, str(place.path / "bob.sock"), free_port())
        self.gauge: Gauge
        self.traffic = Traffic(self) if rate else None

    def _door(self, node: str, transport: str) -> Program:
        return self.place.start(f"r2 -v -s {node}.sock connect {transport}")

    def _serve(self, node: str, name: str, command: str, options: str = "") -> Program:
        return self.place.start(f"r2 -v -s {node}.sock serve -n {name} {options} '{command}'")

    def attack(self, name: str, seconds: float, seed: int = 1, **changes: Any) -> Program:
        """Start an attack in a process of its own, which ends after that time; `changes` are of the target."""
        target = json.dumps({**dataclasses.asdict(self.target), **changes})
        line = f"python3 -m support.rehearsal.attacks {name} {seconds} {seed} '{target}'"
        return self.place.start(line, PYTHONPATH=str(TESTS))

    # -- what is looked at ---------------------------------------------------------------------------------------

    def _logs(self) -> Iterator[Path]:
        for program in (self.nodes["bob"], self.doors["bob's door"], self.doors["bob's UDP door"], *self.servers):
            yield program.err_file

    def log_size(self) -> int:
        return sum(path.stat().st_size for path in self._logs())

    def log_lines(self) -> int:
        return sum(path.read_bytes().count(b"\n") for path in self._logs())

    def dead(self) -> list[str]:
        """Programs of ours that have ended and should not have."""
        programs = {**self.nodes, **self.doors, "the link of alice": self.links[0], "the link of carl": self.links[1],
                    "r2-serve hold": self.servers[0], "r2-serve stubborn": self.servers[1]}  # fmt: skip
        programs |= {f"r2-serve {number} of carl": server for number, server in enumerate(self.others)}
        return [name for name, program in programs.items() if not program.runs]

    def bugs(self) -> list[str]:
        """What the programs reported that is none of anybody's doing but ours."""
        return [line for program in self.place.programs for line in program.err.splitlines() if BUG.search(line)]

    def neighbours(self, timeout: float = 5.0) -> list[str]:
        """Bob's, as `r2 ls` has them."""
        listed = self.place.run("r2 -s bob.sock ls", status=None, patience=timeout + 60)
        return [line for line in listed.out.split() if "/" not in line]

    def lost_links(self) -> list[str]:
        return [f"the link to {name}" for name in ("alice", "carl") if name not in self.neighbours()]

"""Attacks on a daemon beside honest traffic through it, and what each costs: `make rehearsal ARGS=attack`.

    ROWS      what is run: attacks of `support.rehearsal.attacks`, and what must be so besides
    run_row   one of them: 3 s before it, the attack, and at most 30 s after it
    mixes     five of them at once, by a seed

What must hold in all of them is `FLOOR` and what stands below it.  Each row has three daemons of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import re
import shlex
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from r2box.api.session import Session
from r2box.errors import R2Error
from support import raw, raw_udp
from support.processes import Place, eventually
from support.rehearsal.field import MIB, STUBBORN, Field, Gauge, descendants

FLOOR = 0.8  # of the stream before
MOST_ECHO = 0.05  # seconds at p99
MOST_MEMORY = 96 * MIB  # over idle, at the peak
REST_MEMORY = 16 * MIB  # over idle, when it is over
REST_FILES = 4  # descriptors over those before
MOST_PROGRAMS = 256  # at once, for tunnels that are closed at once
MOST_HELD = 1024  # of one service, for tunnels that wait for another transport
REST = 30.0  # seconds for all to be as before
BEFORE = 3.0  # seconds
KILLED = 10.0  # seconds for the programs of what was killed to end
ENTER = 3.0  # seconds for a newcomer to be linked, and for a tunnel to stand

Counts = dict[str, Any]
Judge = Callable[[Field, Counts], Iterator[str]]


class Probe(threading.Thread):
    """What an honest newcomer meets meanwhile: a link at bob's door, and a new tunnel from alice to carl."""

    def __init__(self, field: Field) -> None:
        super().__init__(daemon=True)
        self.field = field
        self.times: dict[str, list[float]] = {"link": [], "tunnel": []}
        self.failed: dict[str, list[str]] = {"link": [], "tunnel": []}
        self._ending = threading.Event()
        self.start()

    def run(self) -> None:
        number = 0
        while not self._ending.wait(0.5):
            number += 1
            self._try("link", lambda: self._link(f"honest{number}"))  # noqa: B023  called at once
            self._try("tunnel", self._tunnel)

    def _try(self, what: str, do: Callable[[], None]) -> None:
        began = time.monotonic()
        try:
            do()
        except (OSError, R2Error) as error:
            self.failed[what].append(str(error))
        self.times[what].append(time.monotonic() - began)

    def _link(self, name: str) -> None:
        link = raw.dial(name, self.field.target.door, limit=ENTER)
        link.send(raw.frame(raw.BYE))
        link.close()

    def _tunnel(self) -> None:
        with Session(str(self.field.place.path / "alice.sock")) as session:
            session.dial("carl/echo", ENTER).close()

    def end(self) -> list[str]:
        """What was refused to them."""
        self._ending.set()
        self.join()
        return [f"{len(failed)} of {len(self.times[what])} new {what}s failed ({failed[-1][:80]})"
                for what, failed in self.failed.items() if failed]  # fmt: skip


@dataclasses.dataclass
class Row:
    """`attacks` at once; `judge(field, counts)` says what is not as it must be, besides what always counts."""

    name: str
    attacks: tuple[str, ...]
    judge: Judge | None = None
    descriptors: int = 0  # that bob may have; 0: as many as we
    during: Judge | None = None  # the same, in the middle of the attack
    held: int = 0  # programs that suspended links may still have afterwards


# -- what must be so besides ------------------------------------------------------------------------------------------


def answered(field: Field, counts: Counts) -> Iterator[str]:
    """Questions to the own daemon are answered."""
    listed = field.place.run("r2 -s bob.sock ls", status=None)
    if listed.status:
        yield f"r2 ls failed: {listed.err.strip()[:100]}"


def dialled_again(field: Field, counts: Counts) -> Iterator[str]:
    if counts["taken"] and "path" not in field.doors["bob's door"].err:  # lines like others may be counted instead
        yield "the listener was not told of the end of its links"
    if counts["dialled"] < 2:
        yield f"--retry dialled {counts['dialled']} times"


def dial_attacker(field: Field, counts: Counts) -> Iterator[str]:
    """Not a check: bob begins to dial the attacker."""
    field.place.start(f"r2 -v -s bob.sock connect --retry tcp://127.0.0.1:{field.target.own}")
    yield from ()


def udp_enters(field: Field, counts: Counts) -> Iterator[str]:
    try:
        link, peer = raw_udp.dial("late", field.target.udp, limit=ENTER)
    except (ConnectionError, OSError) as error:
        yield f"no new link over UDP: {error}"
        return
    link.close()
    peer.close()


def few_programs(field: Field, counts: Counts, most: int = MOST_PROGRAMS) -> Iterator[str]:
    if field.gauge.most_programs > most:
        yield f"{field.gauge.most_programs} programs at once"


def held_programs(field: Field, counts: Counts) -> Iterator[str]:
    yield from few_programs(field, counts, MOST_HELD)


def little_back(field: Field, counts: Counts) -> Iterator[str]:
    if counts["back"] > 3 * counts["sent"]:
        yield f"{counts['back']} bytes in {counts['datagrams']} datagrams back for {counts['sent']}"


def none_listed(field: Field, counts: Counts) -> Iterator[str]:
    if counts["opens"] and "mallory" in field.neighbours():
        yield "the link to mallory is listed for ever"


def not_let_in(field: Field, counts: Counts) -> Iterator[str]:
    if counts["accepted"]:
        yield "who is carried by bob is let in by --allow bob"


def strange_refused(field: Field, counts: Counts) -> Iterator[str]:
    if counts["taken"]:
        yield f"taken as names: {' '.join(counts['taken'])}"
    yield from foreign_socket(field.place)


def short_names(field: Field, counts: Counts) -> Iterator[str]:
    """What is listed of mallory, by the tool and by the library, fits a line."""
    listed = field.place.run("r2 -s bob.sock -t mallory ls -l", status=None)
    with Session(field.target.control) as session:
        named = [entry.name + entry.detail for entry in session.ls("mallory")]
    longest = max(map(len, listed.out.splitlines() + named), default=0)
    if longest > 2048:
        yield f"a line of a listing has {longest} characters"


# Another user, who was first at this path.  What comes there is printed, and its size.
SQUATTER = """
import os, socket, sys
os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
sock.listen()
print("listens", flush=True)
print(len(sock.accept()[0].recv(4096)), "bytes came", flush=True)
"""


def foreign_socket(place: Place) -> Iterator[str]:
    """A socket of another user's in a directory like /tmp must not be taken for a daemon's."""
    if os.geteuid():
        return
    folder = place.path / "sticky"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777 | stat.S_ISVTX)
    place.path.chmod(0o711)
    squatter = place.start(f"python3 -c {shlex.quote(SQUATTER)} sticky/r2.sock").prints("listens")
    asked = place.start("r2 ls", R2_SOCKET="sticky/r2.sock")
    eventually(lambda: not asked.runs or "bytes came" in squatter.out, "an end")
    if re.search(r"[1-9]\d* bytes came", squatter.out):
        yield "a socket of another user's was used"


def killed(victim: str) -> Judge:
    """kill -9 of r2-serve, or of the daemon: the programs that run for tunnels end."""

    def judge(field: Field, counts: Counts) -> Iterator[str]:
        place, name = field.place, f"with-{victim}"
        place.tolerate_orphans = True
        node, server = place.node(name), place.serve(name, STUBBORN, "stubborn")
        for _ in range(3):
            place.start(f"r2 -s {name}.sock -t stubborn tunnel - >/dev/null", shell=True)
        eventually(lambda: len(descendants(server.pid)) == 3, "three programs")
        programs = descendants(server.pid)
        (server if victim == "r2-serve" else node).kill()
        with contextlib.suppress(AssertionError):
            eventually(lambda: not alive(programs), "", KILLED)
        if left := alive(programs):
            yield f"{len(left)} of 3 programs outlive a killed {victim}"
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    return judge


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if os.path.exists(f"/proc/{pid}")}


ROWS = [
    Row("1-near", ("1-near",), during=answered), Row("1-far", ("1-far",), during=answered),
    *(Row(name, (name,)) for name in ("2-pings", "2-late", "2-unacked", "3-data", "3-credit", "3-list", "3-names",
                                      "3-unknown", "3-far", "3-farther")),
    Row("4-tunnels", ("4-tunnels",), descriptors=256), Row("4-links", ("4-links",), descriptors=256),
    Row("5-tcp", ("5-tcp",)), Row("5-udp", ("5-udp",), udp_enters),
    Row("6-tcp", ("6-tcp",), dialled_again, during=dial_attacker), Row("6-udp", ("6-udp",), udp_enters),
    *(Row(name, (name,)) for name in ("7-messages", "7-opens", "7-streams")),
    Row("8-churn", ("8-churn",), few_programs), Row("8-cut", ("8-cut",), held_programs, held=MOST_HELD),
    Row("9-echo", ("9-echo",), little_back), Row("10-hole", ("10-hole",)),
    Row("11-path", ("11-path",), none_listed), Row("12-carried", ("12-carried",), not_let_in),
    Row("13-serve", (), killed("r2-serve")), Row("13-daemon", (), killed("r2d")), Row("14-links", ("14-links",)),
    Row("15-names", ("15-names",), strange_refused, during=short_names),
]  # fmt: skip
# Those that go on for as long as they like: what a mix is made of.
LONG = [row.name for row in ROWS if row.name[:2] in ("2-", "3-", "5-", "7-", "8-") or row.name in ("1-near", "10-hole")]


# -- one row ----------------------------------------------------------------------------------------------------------


class Report:
    """What was measured, as (before, during, after)."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.problems: list[str] = []
        self.traffic: list[dict[str, Any]] = []
        self.used: list[dict[str, float]] = []
        self.counts: Counts = {}
        self.files = self.programs = 0
        self.rest = 0.0  # seconds until all was as before; inf: it was not

    def judge(self) -> None:
        before, during, _ = self.traffic
        first, peak, last = self.used
        if during["broken"]:
            self.problems.append(f"broken: {during['broken'][0]}")
        if during["rate"] < FLOOR * before["rate"]:
            self.problems.append("stream")
        if during["p99"] > MOST_ECHO:
            self.problems.append("echo")
        if not last:
            self.problems.append("bob died")
            return
        if max(peak["peak"], last["peak"]) > first["memory"] + MOST_MEMORY:
            self.problems.append("peak of memory")
        if last["memory"] > first["memory"] + REST_MEMORY:
            self.problems.append("memory afterwards")
        if last["files"] > first["files"] + REST_FILES + 4 * self.row.held:
            self.problems.append("descriptors afterwards")
        if last["programs"] > first["programs"] + self.row.held:
            self.problems.append("programs afterwards")

    def __str__(self) -> str:
        def row(what: str, key: str, scale: float, form: str = "{:.1f}") -> str:
            return f"{what} {' / '.join(form.format(phase[key] * scale) for phase in self.traffic)}"

        first, peak, last = (used or dict.fromkeys(self.used[0], 0) for used in self.used)
        most = max(peak["peak"], last["peak"]) / MIB
        parts = [
            f"stream {' / '.join(f'{phase[key] / 1e6:.1f}' for phase, key in self._rates())} MB/s",
            *(row(name, name, 1000) for name in ("p50", "p99", "max")),
            f"memory {first['memory'] / MIB:.0f} / {most:.0f} / {last['memory'] / MIB:.0f} MiB",
            f"descriptors {first['files']:.0f} / {self.files} / {last['files']:.0f}",
            f"programs {first['programs']:.0f} / {self.programs} / {last['programs']:.0f}",
            f"processor {peak['cpu'] - first['cpu']:.1f} s of {self.traffic[1]['seconds']:.1f}",
            f"log {peak['lines'] - first['lines']:.0f} lines, {(peak['log'] - first['log']) / 1000:.0f} kB",
            f"at rest after {self.rest:.0f} s", json.dumps(self.counts),
        ]  # fmt: skip
        verdict = f"FAILS: {', '.join(dict.fromkeys(self.problems))}" if self.problems else "holds"
        return f"{self.row.name}: {verdict}; {'; '.join(parts)}"

    def _rates(self) -> list[tuple[dict[str, Any], str]]:
        """Before, during, in the worst second, after."""
        before, during, after = self.traffic
        return [(before, "rate"), (during, "rate"), (during, "worst"), (after, "rate")]


def run_row(place: Place, row: Row, seconds: float, seed: int = 1, rest: float = REST, **changes: float) -> Report:
    report = Report(row)
    field = Field(place, row.descriptors, **changes)
    place.tolerate_orphans = place.tolerate_bugs = True
    gauge = field.gauge = Gauge(field)
    assert field.traffic is not None
    field.traffic.phase()
    time.sleep(BEFORE)
    gauge.begin()
    report.traffic.append(field.traffic.phase())
    report.used.append(gauge.now())
    probe = Probe(field)
    began = time.monotonic()
    attackers = [field.attack(name, seconds, seed + number) for number, name in enumerate(row.attacks)]
    if row.during is not None:
        time.sleep(seconds / 4)
        report.problems += row.during(field, {})
    time.sleep(max(began + (seconds if attackers else 1) - time.monotonic(), 0))
    report.traffic.append(field.traffic.phase())
    report.used.append(gauge.now())
    report.problems += probe.end()
    for name, attacker in zip(row.attacks, attackers):
        counts = json.loads(attacker.ends(0, seconds + 60).out)
        report.counts |= counts if len(attackers) == 1 else {name: counts}
    if row.judge is not None:
        report.problems += row.judge(field, report.counts)
    ended = time.monotonic()
    while not is_at_rest(report.used[0], gauge.now(), row.held) and time.monotonic() < ended + rest:
        time.sleep(0.2)
    report.rest = time.monotonic() - ended
    time.sleep(max(ended + BEFORE - time.monotonic(), 0))
    report.traffic.append(field.traffic.phase())
    report.used.append(gauge.now())
    report.files, report.programs = gauge.most_files, gauge.most_programs
    gauge.stop()
    report.problems += [f"{name} died" for name in field.dead()] or field.lost_links()
    report.problems += [f"bug: {bug}" for bug in field.bugs()]
    report.judge()
    return report


def is_at_rest(first: dict[str, float], now: dict[str, float], held: int) -> bool:
    return not now or (
        now["memory"] <= first["memory"] + REST_MEMORY
        and now["files"] <= first["files"] + REST_FILES + 4 * held
        and now["programs"] <= first["programs"] + held
    )


def mixes(number: int, seed: int) -> list[Row]:
    """Five attacks at once, by the seed."""
    dice = random.Random(seed)
    found = []
    for _ in range(number):
        names = tuple(dice.sample(LONG, 5))
        found.append(Row("mix of " + " ".join(names), names))
    return found


def chosen(row: int, number: int, seed: int) -> list[Row]:
    """The rows of that number, 0 for all, and then so many mixes."""
    return [it for it in ROWS if not row or re.match(rf"{row}-", it.name)] + mixes(number, seed)

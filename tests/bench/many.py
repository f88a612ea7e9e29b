"""Many tunnels at once, and one after the other: how fast they open, what each costs, what stays when they are closed.

Memory of a process does not shrink by as much as it has grown, so each round has daemons that have never done anything.
r2box is asked in two ways: by `dial` from eight threads, as the peers are, and by `Session.dial_all` from one.  What
listens for a peer says yes before the other end has been asked, so what is compared is opening and use together.

Processes of socat are counted by their share of memory (PSS), because what they share with each other is there once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .bulk import MIB
from .nodes import Nodes
from .runs import Candidate, Metric, RunError, Target
from .session import Session
from .ways import Ssh, socat_missing, ssh_missing
from .world import Program, World, descriptors, free_port, resident

KIB = 1024
THREADS = 8  # of the client, when each opens one after the other
SPARE = 100  # descriptors that a program needs besides those of its tunnels
PATIENCE = 60.0


@dataclass
class Field:
    """A client, where it dials, and the processes at the two ends of the link."""

    client: Program
    where: list[object]
    near: list[int]
    far: list[int]
    threads: int = THREADS  # 0: by one session, several at a time


def r2box_field(world: World, mode: str) -> Field:
    nodes = Nodes(world)
    one, other = nodes.chain(1)
    server = world.start(world.helper("library", world.dist, "serve", "many", nodes.socket(other), mode))
    nodes.offered(other, "many", server)
    client = world.converse(world.helper("library", world.dist, "client"))
    where: list[object] = [f"{other}/many", nodes.socket(one)]
    return Field(client, where, [nodes.daemons[one].pid], [nodes.daemons[other].pid], threads=0)


def tcp_service(world: World, mode: str) -> tuple[int, Program]:
    port = free_port()
    world.start(world.helper("library", "-", "serve", port, mode))
    world.listens(port, "the service")
    return port, world.converse(world.helper("library", "-", "client"))


def socat_field(world: World, mode: str) -> Field:
    port, client = tcp_service(world, mode)
    pids = []
    for _ in range(2):
        listen = free_port()
        address = f"tcp-l:{listen},fork,reuseaddr,bind=127.0.0.1,backlog=1024"
        pids.append(world.start(["socat", address, f"tcp:127.0.0.1:{port}"]).pid)
        world.listens(listen, "socat")
        port = listen
    return Field(client, [port], [pids[1]], [pids[0]])


def ssh_field(world: World, mode: str) -> Field:
    port, client = tcp_service(world, mode)
    ssh = Ssh(world)
    ssh.start()
    return Field(client, [ssh.forward(port)], [ssh.master.pid], [ssh.sshd.pid])


FIELDS = {"r2box": r2box_field, "socat": socat_field, "ssh -L": ssh_field}
PEERS = {"socat": 200, "ssh -L": 1000}  # how many they are given: a process for each, or no more than is usual


def missing(name: str) -> str:
    """Why it cannot be had here, or ""."""
    return {"r2box": lambda: "", "socat": socat_missing, "ssh -L": ssh_missing}[name]()


def candidate(name: str, title: str, run: Callable[[], Mapping[str, float]]) -> Candidate:
    problem = missing(name)
    return Candidate(title, None if problem else run, problem)


@contextmanager
def field(session: Session, name: str, mode: str) -> Iterator[Field]:
    with session.world() as world:
        yield FIELDS[name](world, mode)


def family(pids: list[int]) -> list[int]:
    """These processes and all that they have started."""
    found = list(pids)
    for pid in found:
        try:
            found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            continue  # it has just ended
    return found


def memory(pids: list[int]) -> int:
    """Bytes of memory: of one process what is resident, of a family the sum of their shares."""
    members = family(pids)
    if len(members) == 1:
        return resident(members[0])
    return sum(share(pid) for pid in members)


def share(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * KIB
    except OSError:
        pass  # it has just ended
    return 0


def files(pids: list[int]) -> int:
    return sum(descriptors(pid) for pid in pids)


@dataclass(frozen=True)
class State:
    """Memory and descriptors at both ends."""

    near: int
    far: int
    near_files: int
    far_files: int

    @classmethod
    def of(cls, field: Field) -> State:
        return cls(memory(field.near), memory(field.far), files(field.near), files(field.far))


def await_closed(field: Field, before: State) -> None:
    """Closing is passed on in its own time."""
    World.until(
        lambda: files(field.near) <= before.near_files and files(field.far) <= before.far_files,
        "descriptors of closed tunnels to be closed",
        PATIENCE,
    )


def settled(field: Field, count: int) -> State:
    """The state after so many tunnels have come and gone, when nothing is new any more."""
    fresh = State.of(field)
    field.client.ask(["churn", field.where, count])
    await_closed(field, fresh)
    return State.of(field)


def possible(count: int) -> int:
    """So many, or as many as there may be descriptors."""
    import resource

    return min(count, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE)


def open_all(session: Session, name: str, count: int, threads: int) -> Mapping[str, float]:
    with field(session, name, "echo") as place:
        before = settled(place, 2)
        seconds = place.client.ask(["open", place.where, count, threads])
        right, more = place.client.ask(["exchange"])
        if right != count:
            raise RunError(f"{count - right:.0f} of {count} tunnels did not give back what they were given")
        full = State.of(place)
        place.client.ask(["close"])
        found = {
            "opened and used": count / (seconds + more),
            "memory, near end": (full.near - before.near) / count / KIB,
            "memory, far end": (full.far - before.far) / count / KIB,
        }
        if name == "r2box":
            await_closed(place, before)
            after = State.of(place)
            found["opened"] = count / seconds
            found["descriptors of a daemon"] = (full.near_files - before.near_files) / count
            found["descriptors left"] = after.near_files - before.near_files + after.far_files - before.far_files
            found["memory left, near end"] = (after.near - before.near) / count / KIB
            found["memory left, far end"] = (after.far - before.far) / count / KIB
        return found


def ten_thousand(session: Session) -> None:
    """10,000 tunnels on one link: opened, used and closed"""
    count = possible(session.amount(10_000, 20))
    metrics = [Metric(what, "tunnels/s", more_is_better=True) for what in ("opened", "opened and used")]
    metrics += [Metric(f"memory, {end} end", "KiB/tunnel") for end in ("near", "far")]
    metrics += [Metric("descriptors of a daemon", "per tunnel"), Metric("descriptors left", "")]
    metrics += [Metric(f"memory left, {end} end", "KiB/tunnel") for end in ("near", "far")]
    ours = [f"r2 dial_all, {count:,}", f"r2 dial, {count:,}"]
    candidates = [
        candidate("r2box", title, partial(open_all, session, "r2box", count, threads))
        for title, threads in zip(ours, (0, THREADS))
    ]
    for name, most in PEERS.items():
        number = min(count, most)
        candidates.append(candidate(name, f"{name}, {number:,}", partial(open_all, session, name, number, THREADS)))
    targets = [
        target
        for who in ours
        for target in (
            Target(who, ">=", 3000, metric="opened"),
            Target(who, "<=", 4, metric="memory, near end"),
            Target(who, "<=", 4, metric="memory, far end"),
            Target(who, "<=", 1, metric="descriptors of a daemon"),
            Target(who, "<=", 0, metric="descriptors left"),
        )
    ]
    session.compare("tunnels open at once on one link", metrics, candidates, targets)


def in_turn(session: Session) -> None:
    """100,000 tunnels opened, used and closed one after the other"""
    count = session.amount(100_000, 50)

    def run() -> Mapping[str, float]:
        with field(session, "r2box", "echo") as place:
            before = settled(place, max(20, count // 50))
            seconds = place.client.ask(["churn", place.where, count])
            await_closed(place, before)
            after = State.of(place)
            return {
                "rate": count / seconds,
                "memory left, near end": (after.near - before.near) / KIB,
                "memory left, far end": (after.far - before.far) / KIB,
                "descriptors left": after.near_files - before.near_files + after.far_files - before.far_files,
            }

    metrics = [Metric("rate", "tunnels/s", more_is_better=True), Metric("descriptors left", "")]
    metrics += [Metric(f"memory left, {end} end", "KiB") for end in ("near", "far")]
    targets = [
        Target("r2", "<=", KIB, metric="memory left, near end"),
        Target("r2", "<=", KIB, metric="memory left, far end"),
        Target("r2", "<=", 0, metric="descriptors left"),
    ]
    session.compare(f"{count:,} tunnels in turn", metrics, [Candidate("r2", run)], targets, rounds=1)


def shared(session: Session, name: str, count: int, seconds: float) -> Mapping[str, float]:
    """So many equal transfers at once: what they reach together, and how equal they are."""
    with field(session, name, "flood") as place:
        place.client.ask(["open", place.where, count, min(count, place.threads)])
        got = place.client.ask(["read", seconds])
        return {"together": sum(got) / seconds / MIB, "least / most": min(got) / max(1, *got)}


def shared_candidate(session: Session, name: str, count: int, seconds: float) -> Candidate:
    return candidate(name, name.replace("r2box", "r2"), partial(shared, session, name, count, seconds))


def fairness(session: Session) -> None:
    """16 equal bulk tunnels at once: do they get the same?"""
    count, seconds = 16, session.seconds(5)
    candidates = [shared_candidate(session, name, count, seconds) for name in FIELDS]
    metrics = [Metric("together", "MiB/s", more_is_better=True), Metric("least / most", "", more_is_better=True)]
    targets = [Target("r2", ">=", 0.8, metric="least / most")]
    session.compare(f"{count} equal transfers on one link (socat: {count} links)", metrics, candidates, targets)

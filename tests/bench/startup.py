"""Starting: what a tool costs from nothing to its end, by the clock on the wall."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from .nodes import Nodes
from .runs import Candidate, Metric, RunError, Target
from .session import Session
from .ways import Ssh
from .world import World

TIME = Metric("time", "ms")


def timed(world: World, argv: Sequence[object]) -> Callable[[], Mapping[str, float]]:
    """Run it with nothing to read, and take the time from before its start to after its end.

    By posix_spawn, which costs the same for every program, whatever this one has in its memory.
    """
    words = [str(word) for word in argv]
    log = world.unique("log")

    def run() -> Mapping[str, float]:
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        environment = os.environ["PATH"]
        os.environ["PATH"] = world.env["PATH"]  # posix_spawnp looks there, not in what it passes on
        try:
            start = time.perf_counter()
            pid = os.posix_spawnp(words[0], words, world.env, file_actions=files)
            _, status = os.waitpid(pid, 0)
            seconds = time.perf_counter() - start
        finally:
            os.environ["PATH"] = environment
        if status:
            raise RunError(f"{words[0]}: status {status}: {log.read_text(errors='replace')[-300:]}")
        return {TIME.name: seconds * 1000}

    run()  # caches are filled, and it works
    return run


def from_nothing(session: Session) -> None:
    """`r2 ls` and `r2 tunnel -` from nothing, beside `python3 -c pass` and ssh by a ControlMaster"""
    with session.world() as world:
        nodes = Nodes(world)
        one, other = nodes.chain(1)
        nodes.serve(one, "near", "true")
        nodes.serve(other, "far", "true")
        ssh = Ssh(world)
        problem = session.ready(ssh, lambda: None)

        def candidate(name: str, argv: Sequence[object], problem: str = "", is_floor: bool = False) -> Candidate:
            return Candidate(name, None if problem else timed(world, argv), problem, is_floor)

        rounds = session.options.repeat * session.amount(20, 2)
        candidates = [
            candidate("r2 ls", ["r2", "-s", nodes.socket(one), "ls"]),
            candidate("r2 --version", ["r2", "--version"]),
            candidate("python3 -c pass", ["python3", "-c", "pass"], is_floor=True),
        ]
        targets = [Target("r2 ls", "<=", 2.5, "python3 -c pass")]
        session.compare("a tool from nothing to its end", [TIME], candidates, targets, rounds)
        candidates = [
            candidate("r2 tunnel, same node", nodes.tunnel([one, "near"], "-")),
            candidate("r2 tunnel, one link", nodes.tunnel([one, other, "far"], "-")),
            candidate("ssh by a ControlMaster", ssh.ssh("--", by_master=True) + ["true"], problem),
            candidate("ssh", ssh.ssh("--", by_master=False) + ["true"], problem),
        ]
        session.compare("running `true` through a tunnel", [TIME], candidates, rounds=rounds)

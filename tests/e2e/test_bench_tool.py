"""r2 bench as a program, between real nodes."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from r2box.tools.bench.bench import COMMAND
from support.processes import Place, cpu_time, eventually, open_files

TIMES = {"count", "min", "median", "p99"}
BULK = {"bytes", "seconds", "rate"}
FIELDS = [field for field, _, _ in COMMAND.json]
# What an older release is, as far as this one can tell: the name means nothing to it.
OLDER = (
    "python3 -c \"import sys; sys.path.insert(0, '{}/r2box'); from r2box import box;"
    " from r2box.proto.routing import router; router.BENCH = ''; sys.exit(box.main(['r2d', '-s', 'bob.sock', 'bob']))\""
)


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """The side that sees what is shown there, and the name of the other."""
    watcher, other = os.openpty()
    yield watcher, os.ttyname(other)
    os.close(other)
    os.close(watcher)


def shown(fd: int, until: str, seen: str = "") -> str:
    """What a terminal has been shown up to what matches `until`."""
    deadline = time.monotonic() + 20
    while not re.search(until, seen):
        assert select.select([fd], [], [], max(0, deadline - time.monotonic()))[0], f"no {until!r} in {seen!r}"
        seen += os.read(fd, 4096).decode()
    return seen


def check(found: dict[str, Any], target: str) -> None:
    """All was measured, and it says what the manual says."""
    assert list(found) == FIELDS
    assert found["target"] == target
    assert found["interrupted"] is False
    for name in ("idle", "up_beside", "down_beside"):
        assert set(found[name]) == TIMES, name
        assert found[name]["count"] > 0
        assert 0 < found[name]["min"] <= found[name]["median"] <= found[name]["p99"] < 10
    for name in ("up", "down"):
        assert set(found[name]) == BULK, name
        assert found[name]["bytes"] > 1 << 20
        assert found[name]["rate"] == pytest.approx(found[name]["bytes"] / found[name]["seconds"])


# -- what it measures --------------------------------------------------------------------------------------------------


@pytest.mark.every_python
def test_a_neighbour_and_one_behind_it(place: Place) -> None:
    daemons = [place.node(name) for name in ("alice", "bob", "carl")]
    place.link("alice", "bob")
    place.link("bob", "carl")
    before = [open_files(daemon.pid) for daemon in daemons]
    for target in ("bob", "bob/carl"):
        result = place.run(f"r2 -s alice.sock -t {target} bench --time 0.5 --json")
        assert result.err == ""
        check(json.loads(result.out), target)
    lines = place.run("r2 -s alice.sock -t bob/carl bench --time 0.2").out.splitlines()
    assert [line.split()[0] for line in lines] == ["MiB/s", "idle", "up", "down"]
    trip = r"[\d.]+/[\d.]+/[\d.]+"
    assert re.fullmatch(rf"idle +{trip}", lines[1])
    assert re.fullmatch(rf"up +[\d.]+  {trip}", lines[2])
    assert re.fullmatch(rf"down +[\d.]+  {trip}", lines[3])
    eventually(lambda: all(open_files(d.pid) <= n for d, n in zip(daemons, before)), "descriptors as before")
    assert place.run("r2 -s bob.sock ls").out == "alice\ncarl\n"


def test_back_to_the_own_node_by_way_of_another(place: Place) -> None:
    """A tunnel in a circle is refused; only a message may turn back, once."""
    place.pair()
    refused = place.run("r2 -s alice.sock -t bob/alice bench --time 0.5", status=1).err
    assert refused == "r2-bench: bob: the path leads in a circle: alice is on it already\n"
    assert place.run("r2 -s alice.sock -t bob/alice ping -c 1").out.startswith("answer from bob/alice: seq=1")


def test_over_a_forwarded_control_socket(place: Place) -> None:
    place.pair()
    place.forward_socket("alice")
    check(json.loads(place.run("r2 -s alice.fwd -t bob bench --time 0.5 --json").out), "bob")


def test_so_many_bytes_each_way(place: Place) -> None:
    place.pair()
    found = json.loads(place.run("r2 -s alice.sock -t bob bench --size 1234567 --json").out)
    assert found["up"]["bytes"] == found["down"]["bytes"] == 1_234_567


def test_the_rate_is_the_time_that_it_took(place: Place) -> None:
    """What it says agrees with a clock beside it: of a path that takes 4 MB/s."""
    place.node("alice")
    place.node("bob")
    back = "r2 -s bob.sock connect -n alice -"
    line = f"r2 -v -s alice.sock connect -n bob 'r2box lossy --rate 4M --queue 1M \"{back}\"'"
    place.start(line).says("linked to")
    place.answers("alice", "bob")
    found = json.loads(place.run("r2 -s alice.sock -t bob bench --time 2 --json").out)
    assert 2e6 < found["up"]["rate"] < 4.5e6
    assert 2e6 < found["down"]["rate"] < 4.5e6


def test_it_computes_nothing_while_it_waits(place: Place, terminal: tuple[int, str]) -> None:
    """The far end takes nothing for a while: no loop goes round meanwhile."""
    watcher, name = terminal
    _, bob = place.pair()
    program = place.start(f"r2 -s alice.sock -t bob bench --time 3 --json 2>{name}")
    shown(watcher, "\rup  ")
    bob.send(signal.SIGSTOP)

    def rests() -> bool:
        before = cpu_time(program.pid)
        time.sleep(1)
        return cpu_time(program.pid) - before < 0.1

    eventually(rests, "a rest, when what is on its way has filled up")
    bob.send(signal.SIGCONT)
    program.ends(0)


# -- what it shows meanwhile, and ^C -----------------------------------------------------------------------------------


def test_progress_on_a_terminal_and_interruption(place: Place, terminal: tuple[int, str]) -> None:
    watcher, name = terminal
    place.pair()
    program = place.start(f"r2 -s alice.sock -t bob bench --time 20 --json 2>{name}")
    seen = shown(watcher, "\rup  [1-9]")
    assert "\ridle" in seen
    seen = shown(watcher, r"\rup  [1-9]\d*\.\d s  [\d.]+ MiB/s", seen)
    assert "\n" not in seen
    program.interrupt()
    program.ends(128 + signal.SIGINT)
    found = json.loads(program.out)
    assert list(found) == FIELDS
    assert found["interrupted"] is True
    assert found["idle"]["count"] > 0
    assert found["up"]["bytes"] > 0
    assert 0.95 <= found["up"]["seconds"] < 15  # shown as 1.0
    assert found["down"] is found["up_beside"] is found["down_beside"] is None


def test_quiet(place: Place, terminal: tuple[int, str]) -> None:
    place.pair()
    place.run(f"r2 -q -s alice.sock -t bob bench --time 0.3 2>{terminal[1]}")
    assert not select.select([terminal[0]], [], [], 0)[0]


def test_interruption_while_the_far_end_says_nothing(place: Place, terminal: tuple[int, str]) -> None:
    watcher, name = terminal
    _, bob = place.pair()
    bob.send(signal.SIGSTOP)
    program = place.start(f"r2 -s alice.sock -t bob bench 2>{name}")
    shown(watcher, "\ridle")  # it heeds signals by now
    program.interrupt()
    program.ends(128 + signal.SIGINT)
    bob.send(signal.SIGCONT)


# -- what it does not measure ------------------------------------------------------------------------------------------


def test_who_cannot_be_measured(place: Place) -> None:
    place.pair()
    place.serve("bob", "cat", "cat")
    for target, why in (
        ("zed", "alice: does not know zed"),
        ("bob/zed", "bob: does not know zed"),
        ("bob/cat", "cat is a service, and nothing lies behind it"),
        ("alice", "alice: r2.bench measures the path to another node: give one with -t"),
    ):
        result = place.run(f"r2 -s alice.sock -t {target} bench --json", status=1)
        assert result.err.startswith("r2-bench: ")
        assert why in result.err
        assert result.out == ""
    assert "give one with -t" in place.run("r2 -s alice.sock bench", status=2).err
    assert "is reserved" in place.run("r2 -s alice.sock serve -n r2.bench cat", status=1).err


def test_a_node_of_an_older_version(place: Place) -> None:
    place.node("alice")
    place.start(OLDER.format(place.box.dist)).says("listening at")
    place.link("alice", "bob")
    result = place.run("r2 -s alice.sock -t bob bench", status=1)
    assert result.err == "r2-bench: bob: has no r2.bench: its r2box is older than this one\n"


def test_a_node_whose_owner_does_not_want_it(place: Place) -> None:
    place.node("alice")
    config = place.path / "bob.toml"
    text = f'[self]\naddr = "bob"\nsocket = "{place.path}/bob.sock"\nbench = false\n'
    config.write_text(text)
    bob = place.start("r2dm -f bob.toml").says("listening at")
    place.link("alice", "bob")
    line = "r2 -s alice.sock -t bob bench --time 0.1"
    assert "bob: r2.bench is disabled here ([self] bench)" in place.run(line, status=1).err
    config.write_text(text.replace("false", "true"))
    bob.send(signal.SIGHUP)
    bob.says("jobs removed")
    assert "idle" in place.run(line).out


def test_a_node_that_ends_meanwhile(place: Place, terminal: tuple[int, str]) -> None:
    """What was measured before is still shown."""
    watcher, name = terminal
    _, bob = place.pair()
    program = place.start(f"r2 -s alice.sock -t bob bench --time 20 2>{name}")
    seen = shown(watcher, "\rup  ")
    bob.send(signal.SIGTERM)
    program.ends(1)
    shown(watcher, r"\rr2-bench: .*bob.*\n", seen)
    assert program.out.splitlines()[1].startswith("idle ")
    bob.ends(0)

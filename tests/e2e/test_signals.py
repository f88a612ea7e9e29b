"""How every tool ends by signals: beside a daemon that hangs, as process 1, after a careless parent, at a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.processes import PATIENCE, Place, Program, children, eventually, free_port, need

SOON = 8.0  # seconds; a tool has 2, and what waits for a daemon by itself gives up after 10
HANGS = "alice.sock: the daemon does not answer"

# name: a command line for R2_SOCKET=alice.sock; PORT is a free one
TOOLS = {
    "ls": "r2 ls",
    "ls -R": "r2 ls -R",
    "map": "r2 map",
    "ping": "r2 ping",
    "trace": "r2 trace -t bob",
    "watch": "r2 watch",
    "wait": "r2 -t dora wait",
    "bench": "r2 -t bob bench --time 60",
    "status": "r2 status",
    "top": "r2 top -b",
    "connect COMMAND": "r2 connect 'exec sleep 1000'",
    "connect --retry": "r2 connect --retry tcp://127.0.0.1:PORT",
    "connect listen": "r2 -v connect tcp-listen://127.0.0.1:PORT",
    "connect -": "r2 connect -",
    "serve": "r2 serve -n echo cat",
    "tunnel -": "r2 -t bob/cat tunnel -",
    "tunnel COMMAND": "r2 -t bob/cat tunnel 'exec sleep 1000'",
    "tunnel udp": "r2 -t bob/cat tunnel udp-listen://127.0.0.1:PORT",
    "forward": "r2 -t bob/cat forward tcp-listen://127.0.0.1:PORT",
    "forward --retry": "r2 -t bob/cat forward --retry tcp-listen://127.0.0.1:PORT",
    "iosh": "iosh 'r2 -t bob/ioshd tunnel -' sleep 1000",
    "lossy": "r2box lossy 'r2 -t bob/cat tunnel -'",
    "r2-ssh": "r2-ssh -o StrictHostKeyChecking=no bob",
}
# Those that stay, and how one sees that the daemon has answered.
STAYS = {
    "ping": "answer from",
    "watch": "",
    "wait": "",
    "bench": "",
    "top": "tunnel",
    "connect COMMAND": "",
    "connect --retry": "trying again",
    "connect listen": "",
    "connect -": "",
    "serve": "offering service/echo",
    "tunnel -": "",
    "tunnel COMMAND": "",
    "tunnel udp": "listening at",
    "forward": "listening at",
    "forward --retry": "listening at",
    "iosh": "",
    "lossy": "",
}
# Those that say goodbye to the daemon, and so notice that it hangs.
PARTS = {*filter(lambda name: name.startswith(("connect", "serve", "tunnel udp", "forward")), TOOLS)}
NUMBERS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])


def statuses(name: str, number: int, parted: bool) -> set[int]:
    """How `name` may end by the signal `number`; `parted`: in good order."""
    killed = {-number, 128 + number}
    if name in PARTS:
        return {0} if parted else {255 if name == "tunnel udp" else 1}
    return {0} if name == "ping" else killed


def sockets(pid: int) -> list[str]:
    """What its descriptors that are sockets lead to; none if it has ended meanwhile."""
    found = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # it was closed meanwhile
                found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return [target for target in found if target.startswith("socket:")]


def sleeps(root: int) -> bool:
    """Whether a process and its children wait in their loops, or in a system call on a socket."""
    try:
        tree = [root, *children(root)]
        states = {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in tree}
    except OSError:  # one of them has ended meanwhile
        return False
    return states == {"S"} and any(map(sockets, tree))


def await_sleep(program: Program) -> None:
    eventually(lambda: sleeps(program.pid), f"{program} to wait")


def either(name: str, number: int) -> set[int]:
    return statuses(name, number, True) | statuses(name, number, False)


def wrong(programs: dict[str, Program], wanted: Callable[[str], set[int]]) -> dict[str, Program]:
    """Those that have ended with another status."""
    return {name: program for name, program in programs.items() if program.popen.returncode not in wanted(name)}


def start(place: Place, name: str, before: str = "") -> Program:
    if name == "r2-ssh":
        need("ssh")
    line = before + TOOLS[name].replace("PORT", str(free_port()))
    return place.start(line, stdin=subprocess.PIPE, R2_SOCKET="alice.sock")


@pytest.fixture
def alice(place: Place) -> Iterator[Program]:
    """alice, linked to bob, who serves cat and ioshd; she goes on at the end, however she was left."""
    alice, _ = place.pair()
    place.serve("bob", "cat")
    place.serve("bob", "ioshd")
    yield alice
    alice.send(signal.SIGCONT)


def all_end(programs: dict[str, Program], wanted: Callable[[str], set[int]], hang: set[str]) -> None:
    """All end soon, with the status that is wanted, and those of `hang` say that the daemon does."""
    for program in programs.values():
        program.ends(None, patience=SOON)
    assert not wrong(programs, wanted)
    assert {name for name, program in programs.items() if HANGS in program.err} == hang
    assert not [program for program in programs.values() if "daemon closed the connection" in program.err]


@NUMBERS
def test_a_signal_ends_every_tool_whose_daemon_has_not_answered(place: Place, alice: Program, number: int) -> None:
    alice.send(signal.SIGSTOP)
    programs = {name: start(place, name) for name in TOOLS}
    for program in programs.values():
        await_sleep(program)
        program.send(number)
    for program in programs.values():
        program.ends(None, patience=SOON)
    assert not wrong(programs, lambda name: either(name, number) | {-number})


@NUMBERS
def test_a_signal_ends_every_tool_whose_daemon_hangs(place: Place, alice: Program, number: int) -> None:
    programs = {name: start(place, name) for name in STAYS}
    for name, program in programs.items():
        await_work(place, program, name)
    alice.send(signal.SIGSTOP)
    for program in programs.values():
        (program.interrupt if number == signal.SIGINT else program.popen.terminate)()
    all_end(programs, lambda name: statuses(name, number, False), PARTS)


def test_a_second_signal_ends_every_tool_at_once(place: Place, alice: Program) -> None:
    programs = {name: start(place, name) for name in PARTS}
    for name, program in programs.items():
        await_work(place, program, name)
    alice.send(signal.SIGSTOP)
    for program in programs.values():
        program.send(signal.SIGTERM)
        await_sleep(program)
        program.send(signal.SIGINT)
    for program in programs.values():
        program.ends(None, patience=SOON)


def test_without_a_hanging_daemon_they_end_in_good_order(place: Place, alice: Program) -> None:
    programs = {name: start(place, name) for name in PARTS}
    for name, program in programs.items():
        await_work(place, program, name)
        program.send(signal.SIGTERM)
    all_end(programs, lambda name: statuses(name, signal.SIGTERM, True), set())


def await_work(place: Place, program: Program, name: str) -> None:
    """Until the daemon has answered: then it knows the client."""
    if STAYS[name]:
        eventually(lambda: STAYS[name] in program.err + program.out, lambda: f"{STAYS[name]!r} of {program}")
    else:
        await_sleep(program)
        place.run("r2 -s alice.sock ls")  # which comes after it
        await_sleep(program)


def test_a_daemon_that_hangs_is_not_one_that_went_away(place: Place, alice: Program) -> None:
    alice.send(signal.SIGSTOP)
    programs = [place.start(line) for line in ("r2 -s alice.sock ls", "r2 -s alice.sock serve -n x cat")]
    programs.append(place.start("r2 -s alice.sock -t bob wait --timeout 0.5s"))
    tunnel = place.start("r2 -s alice.sock tunnel -")
    for program, status in (*((program, 1) for program in programs), (tunnel, 255)):
        program.ends(status)
        assert HANGS in program.err, program
        assert "daemon closed the connection" not in program.err


# -- process 1 ---------------------------------------------------------------------------------------------------------

AS_FIRST = "unshare --pid --fork --mount-proc --kill-child "


@pytest.fixture
def first() -> None:
    """For tests that make a process the first one of a namespace."""
    if subprocess.run(f"{AS_FIRST} true", shell=True, capture_output=True).returncode:
        need("unshare")
        pytest.skip("not allowed to make namespaces")


@NUMBERS
def test_a_signal_ends_every_tool_as_process_1(first: None, place: Place, alice: Program, number: int) -> None:
    alice.send(signal.SIGSTOP)
    programs = {name: start(place, name, AS_FIRST) for name in TOOLS}
    for outer in programs.values():
        os.kill(await_first(outer), number)
    for outer in programs.values():
        outer.ends(None, patience=SOON)
    assert not wrong(programs, lambda name: either(name, number) | {128 + number})


def await_first(outer: Program) -> int:
    """The process 1 that it has started, once that waits."""
    first = eventually(lambda: children(outer.pid), "process 1")[0]
    eventually(lambda: sleeps(first), f"{outer} to wait")
    return first


def test_process_1_reaps_orphans_and_knows_its_own(first: None, place: Place) -> None:
    """Each program leaves two behind, one of which ends before it and one after."""
    (place.path / "x.toml").write_text(
        '[self]\naddr = "x"\nsocket = "x.sock"\n'
        '[[serve]]\nname = "orphans"\ncmd = "(sleep 0 & sleep 0.2 &) ; echo made; exit 7"\n'
    )
    outer = place.start(AS_FIRST + "r2dm -f x.toml").says("offers service/orphans")
    manager = children(outer.pid)[0]
    for _ in range(8):
        assert place.run("r2 -s x.sock -t orphans tunnel -", status=7).out == "made\n"
    eventually(lambda: not children(manager), lambda: f"no children of {manager}, but {children(manager)}")
    os.kill(manager, signal.SIGTERM)
    outer.ends(0)


def test_children_from_before_are_reaped(place: Place) -> None:
    """A shell's own, which it had before it became the daemon."""
    node = place.start("sleep 0.3 & exec r2d -s x.sock x", shell=True).says("listening at")
    eventually(lambda: not children(node.pid), "no children")


# -- careless parents --------------------------------------------------------------------------------------------------

CARELESS = """\
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTSTP):
    signal.signal(number, signal.SIG_IGN)
os.execvp(sys.argv[1], sys.argv[1:])
"""
INTERNAL = 3 << 31  # signals that glibc keeps for itself, and has ignored in what posix_spawn starts
STATE = "grep -E 'Sig(Blk|Ign)' /proc/self/status"


@NUMBERS
def test_what_a_parent_has_blocked_or_ignored_is_undone(place: Place, number: int) -> None:
    (place.path / "careless").write_text(CARELESS)
    careless = f"{sys.executable} careless "
    (place.path / "x.toml").write_text('[self]\naddr = "x"\nsocket = "x.sock"\n[[serve]]\nname = "y"\ncmd = "exit 7"\n')
    node = place.start(careless + "r2d -s alice.sock alice").says("listening at")
    manager = place.start(careless + "r2dm -f x.toml").says("offers service/y")
    server = place.start(careless + f'r2 -s alice.sock serve -n state "{STATE}"').says("offering")
    ended = place.start(careless + "r2 -s alice.sock serve -n seven 'exit 7'").says("offering")
    blocked, ignored = re.findall(r"\t(\w+)", place.run("r2 -s alice.sock -t state tunnel -").out)
    assert (int(blocked, 16), int(ignored, 16) & ~INTERNAL) == (0, 0)
    place.run("r2 -s alice.sock -t seven tunnel -", status=7)
    place.run("r2 -s x.sock -t y tunnel -", status=7)
    place.run(careless + "r2 -s alice.sock -t state tunnel 'cat >/dev/null; exit 5'", status=5)
    for program in (server, ended, node, manager):
        program.send(number)
        program.ends(0)


def test_nohup_keeps_a_hangup_away(place: Place) -> None:
    place.node("alice")
    server = place.serve("alice", STATE, "state")
    lines = ["r2d -s bob.sock bob", "r2 -s alice.sock tunnel -t cat -", "r2 -s alice.sock watch",
             "r2 -s alice.sock connect 'exec sleep 1000'"]  # fmt: skip
    place.serve("alice", "cat")
    programs = [place.start(f"nohup {line}", stdin=subprocess.PIPE) for line in lines]
    for program in programs:
        await_sleep(program)
        place.run("r2 -s alice.sock ls")
        program.send(signal.SIGHUP)
    place.run("r2 -s alice.sock ls")
    command = eventually(lambda: children(programs[3].pid), "the command")[0]
    ignored = re.search(r"SigIgn:\t(\w+)", Path(f"/proc/{command}/status").read_text())
    assert ignored is not None
    assert int(ignored[1], 16) & 1 << signal.SIGHUP - 1, "what is started in the same session is as safe"
    for program in programs:
        assert program.runs, program
    server.send(signal.SIGTERM)


# -- at a terminal -----------------------------------------------------------------------------------------------------


class Shell:
    """An interactive shell with job control, on a terminal of its own, in the directory of `place`."""

    def __init__(self, place: Place) -> None:
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.chdir(place.path)
            os.execvpe("sh", ["sh", "-i", "-m"], place.env(PS1="ready> ", R2_SOCKET="a.sock"))
        self.expect("ready> ")

    def type(self, line: str) -> None:
        os.write(self.fd, line.encode())

    def expect(self, text: str) -> str:
        """Wait until the terminal shows `text`; what has come up to there."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            ready = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} in vain: {self.seen!r}"
            self.seen += os.read(self.fd, 4096).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before

    def close(self) -> None:
        os.close(self.fd)  # which hangs up on all jobs
        os.waitpid(self.pid, 0)


@pytest.fixture
def shell(place: Place) -> Iterator[Shell]:
    shell = Shell(place)
    yield shell
    shell.close()


def test_a_terminal_is_not_handed_to_a_daemon(place: Place, shell: Shell) -> None:
    shell.type("r2d -s a.sock a &\n")
    shell.expect("listening at")
    shell.type("r2 -s a.sock connect -; echo status=$?\n")
    said = shell.expect("status=2")
    assert "stdin is a terminal" in said
    shell.type("r2 connect - </dev/null; echo status=$?\n")
    assert "stdout is a terminal" in shell.expect("status=2")
    shell.type("r2 serve -n upper 'while read line; do echo got $line; done' &\n")
    shell.expect("offering service/upper")
    shell.type("r2 -t upper tunnel -\n")
    for word in ("one", "two"):  # it is interactive
        shell.type(f"{word}\n")
        shell.expect(f"got {word}")
    shell.type("\x04")
    shell.expect("ready> ")
    shell.type("r2 connect fd://0 & sleep 0.5; r2 ls; echo status=$?\n")  # a client in the background may be stopped
    shell.expect("service/upper")
    shell.expect("status=0")
    shell.type("jobs\n")
    shell.expect("Running")
    shell.type("kill -TERM %1; wait %1; echo daemon=$?\n")
    shell.expect("daemon=0")


def test_job_control_cannot_stop_a_daemon(place: Place) -> None:
    node = place.node("alice")
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        node.send(number)
    place.run("r2 -s alice.sock ls")
    assert Path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T"

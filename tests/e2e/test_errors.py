"""What goes wrong: a clear message, the right exit status, and nothing else lost."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from r2box.proto.wire import frames
from support.processes import (
    PATIENCE,
    Place,
    Program,
    await_port,
    children,
    command_line,
    cpu_time,
    eventually,
    free_port,
    need,
)

ROOT = Path(__file__).resolve().parents[2]

MIB = 1 << 20
TOOL_FAILED = 255
BROKEN_PIPE = 128 + signal.SIGPIPE
SIDES = pytest.mark.parametrize("from_", ["alice", "bob"], ids=["remote", "local"])
NOW = "--resume 0"  # of a link: a cut is the end of its tunnels
# Says `ready`, and writes the file `hangup` when its line is cut.  (A child that is hung up on between fork and exec
# would lose the signal to the shell's trap; these live no longer than 0.1 s.)
WAITER = "trap 'echo hung up >hangup; exit 1' HUP; echo ready; while :; do sleep 0.1; done"


def tunnel(place: Place, from_: str, service: str, transport: str = "-", **options: int) -> Program:
    return place.start(f"r2 -s {from_}.sock -t bob/{service} tunnel {transport}", **options)  # type: ignore[arg-type]


def still_works(place: Place) -> None:
    """The nodes of `place.pair()` still do what they are for."""
    assert place.run("r2 -s alice.sock -t bob ping -c 1").status == 0
    server = place.serve("bob", "tr a-z A-Z", "still")
    assert place.run("r2 -s alice.sock -t bob/still tunnel -", b"hello").out == "HELLO"
    server.send(signal.SIGTERM)
    server.ends(0)


def hung_up(place: Place) -> None:
    eventually((place.path / "hangup").exists, "the service to be hung up on")


# -- the control socket ------------------------------------------------------------------------------------------------


@pytest.mark.old_and_new
def test_no_daemon(place: Place) -> None:
    for command, status in (
        ("ls", 1), ("ping -c 1", 1), ("serve cat", 1), ("connect cat", 1), ("connect --retry cat", 1), ("tunnel -", 255)
    ):  # fmt: skip
        error = place.run(f"r2 -s nobody.sock --wait 0.1 {command}", status=status).err
        assert error.count("\n") == 1, error
        assert error.startswith(f"r2-{command.split()[0]}: ")
        assert "nobody.sock: no daemon" in error
    (place.path / "file").write_text("precious")
    error = place.run("r2 -s file ls", status=1).err
    assert error == "r2-ls: file: no daemon: this is not a socket\n"  # and r2d would not start there


def test_stale_socket_is_taken_over(place: Place) -> None:
    place.node("alice").kill()
    assert (place.path / "alice.sock").exists()
    assert "nothing listens" in place.run("r2 -s alice.sock --wait 0 ls", status=1).err
    place.node("alice")
    assert place.run("r2 -s alice.sock ping -c 1").status == 0


def test_live_daemon_is_left_alone(place: Place) -> None:
    place.node("alice")
    assert "listens here already" in place.run("r2d -s alice.sock bob", status=1).err
    (place.path / "bob.toml").write_text('[self]\naddr = "bob"\nsocket = "alice.sock"\n')
    assert "listens here already" in place.run("r2dm -f bob.toml", status=1).err
    assert place.run("r2 -s alice.sock ping -c 1").status == 0


def test_two_daemons_that_start_at_once(place: Place) -> None:
    """Exactly one gets the socket, stale file or not."""
    place.node("alice").kill()
    daemons = [place.start(f"r2d -s alice.sock node{number}") for number in range(6)]
    eventually(lambda: sum(daemon.runs for daemon in daemons) == 1, "all but one to give up")
    for daemon in daemons:
        if not daemon.runs:
            assert daemon.popen.returncode == 1
            assert "listens here already" in daemon.err
    assert place.run("r2 -s alice.sock ping -c 1").status == 0


def test_unsafe_places_for_the_socket(place: Place) -> None:
    (place.path / "file").write_text("precious")
    assert "not a socket" in place.run("r2d -s file alice", status=1).err
    assert (place.path / "file").read_text() == "precious"
    open_for_all = place.path / "open"
    open_for_all.mkdir()
    open_for_all.chmod(0o777)
    assert "all users" in place.run("r2d -s open/alice.sock alice", status=1).err
    long_name = "x" * 120
    for command, status in ((f"r2d -s {long_name} alice", 1), (f"r2 -s {long_name} ls", 1)):
        assert "107" in place.run(command, status=status).err
    assert "there is no directory new/deep" in place.run("r2d -s new/deep/alice.sock alice", status=1).err
    assert not (place.path / "new").exists()


@pytest.mark.old_and_new
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("tool", ["r2d", "r2dm"])
def test_daemon_ends_in_good_order(place: Place, tool: str, number: int) -> None:
    (place.path / "alice.toml").write_text(
        '[self]\naddr = "alice"\nsocket = "alice.sock"\ncmd = "cat"\n[[conn]]\ncmd = "tail -f /dev/null"\n'
    )
    line = "r2d -s alice.sock alice" if tool == "r2d" else "r2dm -f alice.toml"
    daemon = place.start(line).says("listening at")
    server = place.serve("alice", WAITER, "wait")
    client = place.start("r2 -s alice.sock -t wait tunnel -", stdin=-1).prints("ready")
    daemon.send(number)
    daemon.ends(0)
    assert not (place.path / "alice.sock").exists()
    assert "daemon closed the connection" in server.ends(1).err
    assert "daemon closed the connection" in client.ends(TOOL_FAILED).err or "shutting down" in client.err
    hung_up(place)


def test_a_manager_that_ends_makes_no_links(place: Place) -> None:
    """Also where what it runs takes its time to end."""
    place.node("bob")
    link = "echo started >>starts; exec r2 -s bob.sock connect -"
    slow = "trap '' HUP TERM; echo ready; sleep 1.5"
    (place.path / "alice.toml").write_text(
        f'[self]\naddr = "alice"\nsocket = "alice.sock"\n[[conn]]\ncmd = "{link}"\n'
        f'[[serve]]\nname = "slow"\ncmd = "{slow}"\n'
    )
    manager = place.start("r2dm -f alice.toml").says("linked to bob")
    place.start("r2 -s alice.sock -t slow tunnel -", stdin=-1).prints("ready")
    manager.send(signal.SIGTERM)
    manager.ends(0)
    assert "trying again" not in manager.err
    assert (place.path / "starts").read_text() == "started\n"


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.old_and_new
def test_unknown_names(place: Place) -> None:
    place.pair()
    place.serve("bob", "cat")
    for target in ("carl", "bob/carl", "bob/service/carl", "bob/carl/cat"):
        error = place.run(f"r2 -s alice.sock -t {target} tunnel -", b"ignored", status=TOOL_FAILED).err
        assert error.startswith("r2-tunnel: ")
        assert "does not know" in error
        assert "carl" in error
        assert ("bob: " if target.startswith("bob") else "alice: ") in error
        assert ("service/cat" if target.startswith("bob") else "bob") in error.partition("(")[2]
    for command in ("ls", "ping -c 1", "trace"):
        result = place.run(f"r2 -s alice.sock -t bob -t carl {command}", status=1)
        assert "bob: does not know carl" in result.err + result.out
    assert "service" in place.run("r2 -s alice.sock -t bob -t cat ls", status=1).err
    assert "bob" in place.run("r2 -s alice.sock -t bob tunnel -", status=TOOL_FAILED).err  # no cmd of its own
    still_works(place)


def test_a_service_name_that_is_taken(place: Place) -> None:
    place.pair()
    first = place.serve("bob", "echo first", "name")
    assert "already" in place.run("r2 -s bob.sock serve -n name 'echo second'", status=1).err
    assert place.run("r2 -s alice.sock -t bob/name tunnel -").out == "first\n"
    first.send(signal.SIGTERM)
    first.ends(0)
    assert place.run("r2 -s bob.sock ls").out == "alice\n"
    place.serve("bob", "echo second", "name")
    assert place.run("r2 -s alice.sock -t bob/name tunnel -").out == "second\n"


def test_a_service_that_is_not_for_everybody(place: Place) -> None:
    place.pair()
    place.serve("bob", "echo private", "mine", options="--allow 'carl/*' --allow 'child/*' ")
    assert "not for alice" in place.run("r2 -s alice.sock -t bob/mine tunnel -", status=TOOL_FAILED).err
    assert place.run("r2 -s bob.sock -t mine tunnel -").out == "private\n"


# -- services that fail ------------------------------------------------------------------------------------------------


@pytest.mark.old_and_new
@SIDES
def test_how_a_service_ended_is_passed_on(place: Place, from_: str) -> None:
    place.pair()
    for name, command, status, words in (
        ("missing", "no-such-program", 127, "not found"),
        ("three", "printf partial; exit 3", 3, "3"),
        ("killed", "printf partial; kill -9 $$", 128 + 9, "signal 9"),
        ("crashed", "printf partial; kill -SEGV $$", 128 + 11, "signal 11"),
    ):
        place.serve("bob", command, name)
        result = place.run(f"r2 -s {from_}.sock -t bob/{name} tunnel -", status=status)
        assert words in result.err
        assert result.out == ("" if name == "missing" else "partial")
    still_works(place)


@pytest.mark.old_and_new
@SIDES
def test_a_failure_does_not_look_like_an_end(place: Place, from_: str) -> None:
    """Whoever reads a tunnel of which the service was killed is hung up on, before it sees an end of input.

    On one node the two are joined by the kernel, which may pass the end on before anybody can say that it was none.
    """
    place.pair()
    place.serve("bob", "printf partial; kill -9 $$", "killed")
    result = place.run(f"r2 -s {from_}.sock -t bob/killed tunnel 'cat >got; echo clean end >verdict'", status=255)
    assert "signal 9" in result.err
    assert from_ == "bob" or not (place.path / "verdict").exists()


@pytest.mark.parametrize("late", ["server", "client"])
def test_who_tells_of_a_failure_may_be_late(place: Place, late: str) -> None:
    """The end of a program's output is not taken for a good one before who runs it has said how it ended."""
    place.pair()
    writes, reads = "echo ready; exec sleep 1000", "cat >got; echo clean end >verdict"
    server = place.serve("bob", writes if late == "server" else reads, "late")
    client = tunnel(place, "alice", "late", f"'{reads if late == 'server' else writes}'")
    eventually(lambda: (place.path / "got").exists() and (place.path / "got").read_text(), "the tunnel")
    teller = server if late == "server" else client
    eventually(lambda: [command_line(pid)[:1] for pid in children(teller.pid)] == [[b"sleep"]], "the one that writes")
    teller.send(signal.SIGSTOP)
    os.kill(children(teller.pid)[0], signal.SIGKILL)
    time.sleep(0.5)  # more than is granted to who is not late
    teller.send(signal.SIGCONT)
    client.ends(TOOL_FAILED if late == "server" else 128 + 9)
    eventually(lambda: not children(server.pid), "the end of the service's program")
    assert not (place.path / "verdict").exists()


@SIDES
def test_a_service_that_reads_nothing(place: Place, from_: str) -> None:
    """It ends before its input does: the sender stops and passes on the status."""
    place.pair()
    place.serve("bob", "head -c 3; exit 6", "head")
    result = place.run(f"cat /dev/zero | r2 -s {from_}.sock -t bob/head tunnel -", status=6)
    assert result.raw == b"\0\0\0"


@SIDES
def test_the_server_is_killed(place: Place, from_: str) -> None:
    place.tolerate_orphans = True  # nobody is left to hang up on its programs
    place.pair()
    server = place.serve("bob", "echo ready; exec cat", "cat")
    plain = tunnel(place, from_, "cat", stdin=-1).prints("ready")
    joined = tunnel(place, from_, "cat", "'cat >got; echo clean end >verdict'")
    eventually(lambda: (place.path / "got").exists() and (place.path / "got").read_text(), "the second tunnel")
    server.kill()
    assert "the server of this service disconnected" in plain.ends(TOOL_FAILED).err
    joined.ends(TOOL_FAILED)
    assert not (place.path / "verdict").exists()
    assert place.run("r2 -s bob.sock ls").out == "alice\n"
    still_works(place)


@SIDES
def test_the_server_ends(place: Place, from_: str) -> None:
    place.pair()
    server = place.serve("bob", WAITER, "wait")
    client = tunnel(place, from_, "wait", stdin=-1).prints("ready")
    server.send(signal.SIGTERM)
    server.ends(0)
    client.ends(None)
    assert client.popen.returncode not in (0, None)
    hung_up(place)
    assert place.run("r2 -s bob.sock ls").out == "alice\n"


# -- clients that go away ----------------------------------------------------------------------------------------------


@SIDES
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_client_is_killed(place: Place, from_: str, number: int) -> None:
    place.pair()
    server = place.serve("bob", WAITER, "wait")
    client = tunnel(place, from_, "wait", stdin=-1).prints("ready")
    client.interrupt() if number == signal.SIGINT else client.send(number)
    client.ends(None)
    assert client.popen.returncode in (-number, 128 + number)
    hung_up(place)
    assert server.runs
    still_works(place)


@SIDES
def test_the_reader_goes_away(place: Place, from_: str) -> None:
    place.pair()
    server = place.serve("bob", "cat /dev/zero", "zeros")
    line = f"(r2 -s {from_}.sock -t bob/zeros tunnel - </dev/null; echo $? >client) | head -c 1"
    assert place.run(line).raw == b"\0"
    eventually((place.path / "client").exists, "the client's end")
    assert int((place.path / "client").read_text()) == BROKEN_PIPE
    eventually(lambda: not children(server.pid), "the service's end")
    still_works(place)


# -- daemons and links that go away ------------------------------------------------------------------------------------


def two_tunnels(place: Place, from_: str) -> tuple[Program, Program]:
    """Two tunnels to the service `wait`, both of which stand: one of stdin and stdout, one of a command.

    (The command writes the file `verdict` if it sees an end that looks like a good one.)
    """
    plain = tunnel(place, from_, "wait", stdin=-1).prints("ready")
    joined = tunnel(place, from_, "wait", "'cat >got; echo clean end >verdict'")
    eventually(lambda: (place.path / "got").exists() and (place.path / "got").read_text(), "the second tunnel")
    return plain, joined


@pytest.mark.old_and_new
@SIDES
def test_the_daemon_is_killed(place: Place, from_: str) -> None:
    """Clients of the daemon report it and end at once, as do those of a neighbour whose tunnels do not wait."""
    alice, bob = place.pair(NOW)
    server = place.serve("bob", "echo ready; exec cat", "cat")
    waiting = place.serve("bob", WAITER, "wait")
    plain = tunnel(place, from_, "cat", stdin=-1).prints("ready")
    tunnel(place, from_, "wait", stdin=-1).prints("ready")
    joined = tunnel(place, from_, "cat", "'cat >got; echo clean end >verdict'")
    eventually(lambda: (place.path / "got").exists() and (place.path / "got").read_text(), "the second tunnel")
    bob.kill()
    words = "daemon closed the connection" if from_ == "bob" else "the link to bob"
    assert words in plain.ends(TOOL_FAILED).err
    assert words in joined.ends(TOOL_FAILED).err
    assert not (place.path / "verdict").exists()
    assert "daemon closed the connection" in server.ends(1).err
    assert "daemon closed the connection" in waiting.ends(1).err
    hung_up(place)
    alice.says("link to bob closed")
    assert place.run("r2 -s alice.sock ls").out == ""


def waits(place: Place, node: str, neighbour: str) -> None:
    """The link is cut, and who asks is told; what the tunnels over it do is seen by their not having ended."""
    expected = re.compile(rf"^node +{neighbour} +suspended: ", re.MULTILINE)
    eventually(lambda: expected.search(place.run(f"r2 -s {node}.sock ls -l").out), f"{node} to wait for {neighbour}")
    assert neighbour in place.run(f"r2 -s {node}.sock ls").out.split()


@pytest.mark.old_and_new
def test_a_neighbour_that_was_killed_is_back(place: Place) -> None:
    """Tunnels wait for it, and end as soon as it is seen that it is not the one they have waited for."""
    alice, bob = place.node("alice"), place.node("bob")
    link = place.link("alice", "bob")
    place.serve("bob", WAITER, "wait")
    plain, joined = two_tunnels(place, "alice")
    bob.kill()
    words = "; its tunnels wait 10m for another transport"
    alice.says("link to bob suspended: ").says(words)
    assert "suspended: " in link.ends(1).err
    assert words in link.err
    hung_up(place)  # there, where nobody is left
    waits(place, "alice", "bob")
    assert "the link to bob is suspended" in place.run("r2 -s alice.sock -t bob ping -c 1", status=1).err
    assert plain.runs
    assert joined.runs
    place.node("bob")
    assert plain.runs  # it is not linked yet
    place.link("alice", "bob")
    alice.says("link to bob closed: bob has restarted")
    for client in (plain, joined):
        assert "bob has restarted" in client.ends(TOOL_FAILED).err
    assert not (place.path / "verdict").exists()
    assert "resumed" not in alice.err
    assert place.run("r2 -s alice.sock ls").out.split() == ["bob"]
    still_works(place)


@pytest.mark.parametrize("options", [NOW, ""], ids=["now", "waiting"])
def test_the_clients_own_daemon_is_killed(place: Place, options: str) -> None:
    alice, bob = place.pair(options)
    server = place.serve("bob", WAITER, "wait")
    client = tunnel(place, "alice", "wait", stdin=-1).prints("ready")
    alice.kill()
    assert "daemon closed the connection" in client.ends(TOOL_FAILED).err
    if not options:
        bob.says("link to alice suspended: ")
        waits(place, "bob", "alice")
        assert children(server.pid)
        assert not (place.path / "hangup").exists()
        place.node("alice")
        place.link("bob", "alice")
        bob.says("link to alice closed: alice has restarted")
    hung_up(place)
    place.run("r2 -s bob.sock ping -c 1")


@pytest.mark.parametrize(("ours", "theirs"), [(NOW, NOW), (NOW, ""), ("", NOW)], ids=["both", "ours", "theirs"])
def test_the_link_is_cut(place: Place, ours: str, theirs: str) -> None:
    """One side that does not want to wait is enough."""
    alice, bob = place.node("alice"), place.node("bob")
    link = place.link("alice", "bob", options=ours, theirs=theirs)
    place.serve("bob", WAITER, "wait")
    client, joined = two_tunnels(place, "alice")
    link.kill()
    assert "alice: the link to bob" in client.ends(TOOL_FAILED).err
    joined.ends(TOOL_FAILED)
    assert not (place.path / "verdict").exists()
    hung_up(place)
    bob.says("link to alice closed")
    assert " suspended" not in alice.err + bob.err
    assert place.run("r2 -s alice.sock ls").out == ""
    place.link("alice", "bob")
    still_works(place)


def test_tunnels_do_not_wait_for_ever(place: Place) -> None:
    """A link whose holder is killed is cut; nobody brings another transport, and the lesser time of both is over."""
    alice, bob = place.node("alice"), place.node("bob")
    link = place.link("alice", "bob", options="--resume 1s", theirs="--resume 1h")
    place.serve("bob", WAITER, "wait")
    plain, joined = two_tunnels(place, "alice")
    link.kill()
    for daemon, neighbour in ((alice, "bob"), (bob, "alice")):
        daemon.says(f"link to {neighbour} suspended: ").says("; its tunnels wait 1s for another transport")
        daemon.says(f"link to {neighbour} closed")
    for client in (plain, joined):
        assert "the link to bob" in client.ends(TOOL_FAILED).err
    assert not (place.path / "verdict").exists()
    hung_up(place)
    assert place.run("r2 -s alice.sock ls").out == ""
    place.link("alice", "bob")
    still_works(place)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_link_that_is_ended_on_purpose_is_not_waited_for(place: Place, number: int) -> None:
    alice, bob = place.node("alice"), place.node("bob")
    link = place.link("alice", "bob")
    place.serve("bob", WAITER, "wait")
    plain, joined = two_tunnels(place, "alice")
    link.interrupt() if number == signal.SIGINT else link.send(number)
    link.ends(0)
    for client in (plain, joined):
        assert "the link to bob" in client.ends(TOOL_FAILED).err
    assert not (place.path / "verdict").exists()
    hung_up(place)
    for daemon, neighbour in ((alice, "bob"), (bob, "alice")):
        daemon.says(f"link to {neighbour} closed")
        assert " suspended" not in daemon.err


@pytest.mark.parametrize("options", [NOW, ""], ids=["now", "waiting"])
def test_a_node_on_the_way_is_killed(place: Place, options: str) -> None:
    for name in ("alice", "carl", "bob"):
        place.node(name)
    place.link("alice", "carl", options=options)
    place.link("carl", "bob", options=options)
    place.serve("bob", WAITER, "wait")
    client = place.start("r2 -s alice.sock -t carl/bob/wait tunnel -", stdin=-1).prints("ready")
    place.programs[1].kill()
    if not options:
        waits(place, "alice", "carl")
        waits(place, "bob", "carl")
        assert client.runs
        assert not (place.path / "hangup").exists()
        place.node("carl")
        place.link("alice", "carl")
        assert "carl has restarted" in client.ends(TOOL_FAILED).err
        assert not (place.path / "hangup").exists()
        place.link("carl", "bob")
    assert "the link to carl" in client.ends(TOOL_FAILED).err
    hung_up(place)


@pytest.mark.parametrize("victim", ["alice", "bob"])
def test_sigterm_of_a_daemon_during_a_transfer(place: Place, victim: str) -> None:
    """It is cut, and both ends know it: the sender by its status, the receiver by SIGHUP and not by an end."""
    daemons = dict(zip(("alice", "bob"), place.pair()))
    server = place.serve("bob", "cat >got; echo clean end >verdict", "sink")
    sender = place.start("sh -c 'cat /dev/zero | r2 -s alice.sock -t bob/sink tunnel -'")
    eventually(lambda: (place.path / "got").exists() and (place.path / "got").stat().st_size > 5 * MIB, "the transfer")
    daemons[victim].send(signal.SIGTERM)
    daemons[victim].ends(0)
    sender.ends(TOOL_FAILED)
    assert sender.err.startswith("r2-tunnel: ")
    eventually(lambda: not server.runs or not children(server.pid), "the service's end")
    assert not (place.path / "verdict").exists()


# -- stdin and stdout of every kind ------------------------------------------------------------------------------------


@pytest.mark.old_and_new
@SIDES
def test_stdin_and_stdout_of_every_kind(place: Place, from_: str) -> None:
    place.pair()
    place.serve("bob", "cat", "cat")
    place.serve("bob", "echo hello; cat", "hello")
    data = os.urandom(3 * MIB)
    (place.path / "file").write_bytes(data)
    line = f"r2 -s {from_}.sock -t bob/cat tunnel -"
    hello = line.replace("/cat", "/hello")
    assert place.run(f"{hello} </dev/null").out == "hello\n"
    assert place.run(f"{hello} <&-").out == "hello\n"
    place.run(f"{line} <file >copy")
    assert (place.path / "copy").read_bytes() == data
    place.run(f"echo before >log; {hello} </dev/null >>log; echo after >>log")
    assert (place.path / "log").read_text() == "before\nhello\nafter\n"
    place.run(f"cat file | {line} | cat >copy2")
    assert (place.path / "copy2").read_bytes() == data
    place.run(f"{line} <file >/dev/null")
    assert "Bad file descriptor" not in place.run(f"{hello} >&- </dev/null", status=None).err
    full = place.run(f"{line} <file >/dev/full", status=None)
    assert full.status not in (0, None)
    still_works(place)


def test_closed_stderr(place: Place) -> None:
    place.node("alice")
    place.serve("alice", "echo hello", "hello")
    assert place.run("r2 -s alice.sock -t hello tunnel - 2>&-").out == "hello\n"
    assert place.run("r2 -s nobody.sock -t hello tunnel - 2>&-", status=TOOL_FAILED).out == ""
    place.run("r2 -s alice.sock ls 2>&-")
    daemon = place.start("r2d -s bob.sock bob 2>&-")
    eventually(lambda: place.run("r2 -s bob.sock ping -c 1", status=None).status == 0, "the silent daemon")
    assert daemon.runs


@SIDES
@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_shared_descriptors_stay_blocking(place: Place, from_: str, kind: str) -> None:
    """O_NONBLOCK belongs to everybody who shares stdin and stdout with us: it is as it was, during and after."""
    place.pair()
    place.serve("bob", "while read word; do echo you said $word; done", "talk")
    if kind == "pipe":
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
    elif kind == "socket":
        ours, theirs = socket.socketpair()
        ours_in = ours_out = ours.detach()
        theirs_in = theirs_out = theirs.detach()
    else:
        ours_in, theirs_in = pty.openpty()
        ours_out, theirs_out = ours_in, theirs_in
    descriptors = {ours_in, ours_out, theirs_in, theirs_out}
    try:
        client = tunnel(place, from_, "talk", stdin=theirs_in, stdout=theirs_out)
        os.write(ours_in, b"hello\n")
        got = b""
        while b"you said hello" not in got:
            got += os.read(ours_out, 1000)
        assert os.get_blocking(theirs_in)
        assert os.get_blocking(theirs_out)
        if kind == "pipe":
            os.close(ours_in)
            descriptors.discard(ours_in)
        elif kind == "socket":
            with socket.socket(fileno=os.dup(ours_in)) as sock:
                sock.shutdown(socket.SHUT_WR)
        else:
            os.write(ours_in, b"\x04")
        client.ends(0)
        assert os.get_blocking(theirs_in)
        assert os.get_blocking(theirs_out)
    finally:
        for fd in descriptors:
            os.close(fd)


def test_link_over_inherited_pipes_leaves_them_blocking(place: Place) -> None:
    place.node("alice")
    place.node("bob")
    left, right = socket.socketpair()
    with left, right:
        place.start("r2 -v -s alice.sock connect -", stdin=left.fileno(), stdout=left.fileno()).says("linked to bob", 0)
        place.start("r2 -v -s bob.sock connect -", stdin=right.fileno(), stdout=right.fileno()).says("linked to alice")
        place.answers("alice", "bob")
        assert left.getblocking()
        assert os.get_blocking(left.fileno())
        assert os.get_blocking(right.fileno())


@pytest.mark.old_and_new
def test_listing_to_a_closed_or_full_stdout(place: Place) -> None:
    place.node("alice")
    for number in range(3):
        place.serve("alice", "cat", f"cat{number}")
    result = place.run("(r2 -s alice.sock ls; echo $? >status) | head -0")
    assert int((place.path / "status").read_text()) in (0, BROKEN_PIPE)
    assert result.err == ""
    full = place.run("r2 -s alice.sock ls >/dev/full; r2 ls --help >/dev/full; r2box --list >/dev/full", status=1)
    assert full.err.splitlines() == [f"{tool}: stdout: No space left on device" for tool in ("r2-ls", "r2-ls", "r2box")]
    result = place.run("(r2 -s alice.sock ping -i 0; echo $? >status) | head -1")
    assert int((place.path / "status").read_text()) == BROKEN_PIPE
    assert result.err == ""
    assert place.run("r2 -s alice.sock ls >&-", status=1).err == "r2-ls: stdout: Bad file descriptor\n"


def test_an_error_counts_more_than_a_closed_stdout(place: Place) -> None:
    (place.path / "tool.py").write_text(
        "from r2box import box, errors\n"
        "def run():\n    print('something')\n    raise errors.DaemonError('what is wrong')\n"
        "box._open_standard_descriptors()\nraise SystemExit(box._guarded('tool', run))\n"
    )
    line = f"{sys.executable} tool.py"
    assert place.run(f"{line} >&-", status=1, PYTHONPATH=str(ROOT)).err == "tool: what is wrong\n"
    assert place.run(line, status=1, PYTHONPATH=str(ROOT)).out == "something\n"


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


@pytest.mark.every_python
def test_ctrl_c(place: Place) -> None:
    place.node("alice")
    bob = place.node("bob")
    link = place.link("alice", "bob")
    server = place.serve("bob", WAITER, "wait")
    client = tunnel(place, "alice", "wait", stdin=-1).prints("ready")
    ping = place.start("r2 -s alice.sock -t bob ping -i 1000").prints("seq=1")  # and then it waits for no answer
    ping.interrupt()
    assert "1 sent, 1 answered, 0% lost" in ping.ends(0).out
    client.interrupt()
    client.ends(None)
    assert client.popen.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    hung_up(place)
    server.interrupt()
    server.ends(0)
    link.interrupt()
    link.ends(0)
    bob.says("link to alice closed")
    bob.interrupt()
    bob.ends(0)
    for program in (ping, client, server, link, bob):
        assert "Traceback" not in program.err
        assert "KeyboardInterrupt" not in program.err


# -- neighbours that are none ------------------------------------------------------------------------------------------


def test_a_neighbour_that_is_not_r2(place: Place) -> None:
    place.pair()
    for command in ("cat /dev/urandom", "yes", "printf 'GET / HTTP/1.0\\r\\n\\r\\n'"):
        error = place.run(f'r2 -s alice.sock connect "{command}"', status=1).err
        assert "not an r2 neighbour" in error
    assert "before its hello was complete" in place.run('r2 -s alice.sock connect "true"', status=1).err
    assert "127" in place.run('r2 -s alice.sock connect "no-such-program"', status=1).err
    assert "status 3" in place.run('r2 -s alice.sock connect "exit 3"', status=1).err
    still_works(place)


def test_an_http_client_at_a_listening_link(place: Place) -> None:
    place.pair()
    port = free_port()
    listener = place.start(f"r2 -s alice.sock connect tcp-listen://127.0.0.1:{port}")
    await_port(port)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: alice\r\n\r\n")
        assert b"r2" in b"".join(iter(lambda: sock.recv(4096), b""))
    listener.says("not an r2 neighbour")
    assert listener.runs
    still_works(place)


def test_a_silent_neighbour_has_ten_seconds(place: Place) -> None:
    place.pair()
    silent = place.start('r2 -s alice.sock connect "tail -f /dev/null"')
    still_works(place)
    assert "no hello within 10 s" in silent.ends(1).err


def hello(address: str = "mallory", oldest: int = frames.OLDEST, newest: int = frames.VERSION) -> bytes:
    payload = frames.HELLO_FIELDS.encode(
        oldest=oldest, newest=newest, address=address, instance=os.urandom(16), role=frames.NODE
    )
    return frames.MAGIC + frames.encode_frame(frames.HELLO, 0, payload)


def say(place: Place, said: bytes) -> str:
    """What alice reports of a neighbour that says this and then listens."""
    (place.path / "said").write_bytes(said)
    return place.run('r2 -s alice.sock connect "cat said; exec >&2; cat >/dev/null"', status=1).err


def opening(path: str) -> bytes:
    ready = frames.encode_frame(frames.READY, 0)
    fields = frames.OPEN_FIELDS.encode(path=tuple(path.split("/")), window=1 << 20)
    return hello() + ready + frames.encode_frame(frames.OPEN, 1 << 1, fields)


@pytest.mark.parametrize(
    ("oldest", "newest"), [(frames.VERSION + 1, frames.VERSION + 3), (0, frames.OLDEST - 1)], ids=["newer", "older"]
)
def test_no_version_in_common(place: Place, oldest: int, newest: int) -> None:
    place.pair()
    error = say(place, hello(oldest=oldest, newest=newest))
    assert "version" in error
    still_works(place)


def test_a_newer_neighbour_that_still_speaks_ours(place: Place) -> None:
    alice, _ = place.pair()
    (place.path / "said").write_bytes(hello(newest=frames.VERSION + 5) + frames.encode_frame(frames.READY, 0))
    place.start('r2 -s alice.sock connect "cat said; exec tail -f /dev/null"')
    alice.says("linked to mallory")


def test_frames_that_break_the_rules(place: Place) -> None:
    place.pair()
    place.serve("alice", "exec tail -f /dev/null", "deaf")
    header = frames.encode_header(frames.DATA, 1 << 1, frames.MAX_DATA)
    for said, words in (
        (hello() + frames.encode_frame(frames.READY, 0) + frames.encode_header(frames.MESSAGE, 0, 1 << 20), "at most"),
        (hello() + frames.encode_header(frames.HELLO, 0, 1 << 20), "at most"),
        (hello("not/an address"), "hello"),
        (hello("alice"), "same address"),
        (hello() + frames.encode_frame(frames.READY, 0) + b"\x7f\x00\x00", "unknown type"),
        (opening("deaf") + 20 * (header + bytes(frames.MAX_DATA)), "credit overrun"),
    ):
        error = say(place, said)
        assert words in error
        assert "Traceback" not in error
    assert place.run("r2 -s alice.sock ls").out == "bob\nservice/deaf\n"
    still_works(place)


def test_a_link_that_is_tried_again_and_again(place: Place) -> None:
    """--retry says each failure once, ends in good order when it is told to, and not well when its daemon goes away."""
    alice, port = place.node("alice"), free_port()
    line = f"r2 -s alice.sock connect --retry tcp://127.0.0.1:{port}"
    trying, other = place.start(line).says("; trying again"), place.start(line).says("; trying again")
    for _ in range(3):
        trying.send(signal.SIGHUP)  # at once
        place.run("r2 -s alice.sock ping -c 1")
    assert trying.err.count("\n") == 1
    assert "refused" in trying.err
    trying.send(signal.SIGTERM)
    trying.ends(0)
    alice.send(signal.SIGTERM)
    alice.ends(0)
    assert "the daemon closed the connection" in other.ends(1).err


# -- links that must not be --------------------------------------------------------------------------------------------


def test_a_link_to_oneself(place: Place) -> None:
    place.pair()
    result = place.run('r2 -s alice.sock connect "r2 -s alice.sock connect -"', status=1)
    assert "itself" in result.err
    assert place.run("r2 -s alice.sock ls").out == "bob\n"


def test_a_second_link_is_refused_while_the_first_lives(place: Place) -> None:
    place.pair()
    result = place.run('r2 -s alice.sock connect "r2 -s bob.sock connect -"', status=1)
    assert "already linked" in result.err
    assert "bob" in result.err
    still_works(place)


def test_a_second_link_takes_the_place_of_a_dead_one(place: Place) -> None:
    need("socat")
    place.node("alice")
    place.node("bob")
    port = free_port()
    listener = f'socat tcp-l:{port},fork,reuseaddr exec:"r2 -s bob.sock connect -"'
    place.start(listener)
    place.start(f'r2 -v -s alice.sock connect "exec socat tcp:127.0.0.1:{port},retry=50,interval=0.1 -"').says("linked")
    for pid in place.left_over():
        try:
            if Path(f"/proc/{pid}/comm").read_text() == "socat\n":
                os.kill(pid, signal.SIGSTOP)  # the wire is silent, without a farewell
        except OSError:
            continue
    link = place.start('r2 -v -s alice.sock connect "r2 -s bob.sock connect -"')
    link.says("linked to bob")
    still_works(place)
    for pid in place.left_over():
        with contextlib.suppress(ProcessLookupError):  # of the dead link some are just ending
            os.kill(pid, signal.SIGCONT)


def test_two_neighbours_of_one_name(place: Place) -> None:
    place.pair()
    place.start("r2d -s other.sock bob").says("listening at")
    result = place.run('r2 -s alice.sock connect "r2 -s other.sock connect -"', status=1)
    assert "already linked to bob" in result.err
    still_works(place)


# -- configuration -----------------------------------------------------------------------------------------------------

SELF = '[self]\naddr = "alice"\nsocket = "alice.sock"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[self\n", ["line 1", "not TOML"]),
        ("", ["[self]", "missing"]),
        ('[self]\nsocket = "alice.sock"\n', ["addr", "missing"]),
        ("[self]\naddr = 5\n", ["line 2", "addr", "must be a string", "integer"]),
        ('[self]\naddr = "a/b"\n', ["line 2", "addr", "'/'"]),
        (SELF + 'sockt = "x"\n', ["line 4", "sockt", "unknown key", "did you mean socket?"]),
        (SELF + "[conn]\n", ["line 4", "[[conn]]"]),
        (SELF + '[[conn]]\naddr = "bob"\n', ["line 4", "cmd", "missing"]),
        (SELF + '[[conn]]\ncmd = "tpc://h:1"\n', ["line 5", "tpc", "did you mean tcp://h:1?"]),
        (SELF + '[[conn]]\ncmd = "tcp://host"\n', ["line 5", "port is missing"]),
        (SELF + 2 * '[[conn]]\naddr = "bob"\ncmd = "cat"\n', ["line 8", "bob", "already"]),
        (SELF + 2 * '[[serve]]\nname = "x"\ncmd = "cat"\n', ["line 8", "x", "already"]),
    ],
    ids="toml empty no-addr addr-type addr-form unknown-key table-form no-cmd scheme port two-conns two-serves".split(),
)
def test_wrong_configuration(place: Place, text: str, words: list[str]) -> None:
    (place.path / "alice.toml").write_text(text)
    for option in ("", "--check "):
        result = place.run(f"r2dm {option}-f alice.toml", status=1)
        assert result.err.startswith("r2dm: alice.toml: ")
        for word in words:
            assert word in result.err
        assert result.out == ""
    assert not (place.path / "alice.sock").exists()


@pytest.mark.every_python
def test_configuration_that_cannot_be_read(place: Place) -> None:
    assert "No such file" in place.run("r2dm -f nothing.toml", status=1).err
    assert "Is a directory" in place.run("r2dm -f .", status=1).err
    (place.path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in place.run("r2dm -f binary.toml", status=1).err
    (place.path / "alice.toml").write_text(SELF + 'sockt = 1\n[[conn]]\naddr = "b c"\n')
    assert place.run("r2dm -f alice.toml", status=1).err.count("r2dm: alice.toml: line ") == 3  # all at once
    (place.path / "alice.toml").write_text(SELF)
    assert "valid: node alice" in place.run("r2dm --check -f alice.toml").out
    assert not (place.path / "alice.sock").exists()


def test_reload(place: Place) -> None:
    def write(*services: str) -> None:
        tables = "".join(f'[[serve]]\nname = "{name}"\ncmd = "echo {name}"\n' for name in services)
        (place.path / "alice.toml").write_text(SELF + tables)

    def listing() -> str:
        return place.run("r2 -s alice.sock ls").out

    write("one", "two")
    daemon = place.start("r2dm -f alice.toml").says("listening at")
    eventually(lambda: listing() == "service/one\nservice/two\n", "both services")
    write("two", "three")
    daemon.send(signal.SIGHUP)
    eventually(lambda: listing() == "service/three\nservice/two\n", "the new service in place of the old")
    (place.path / "alice.toml").write_text("[self\n")
    daemon.send(signal.SIGHUP)
    daemon.says("not reloaded")
    assert listing() == "service/three\nservice/two\n"
    assert place.run("r2 -s alice.sock -t three tunnel -").out == "three\n"


# -- crowds ------------------------------------------------------------------------------------------------------------


def test_no_descriptors_left(place: Place) -> None:
    """New clients are refused with the reason, the daemon does not spin, and what there is goes on."""
    daemon = place.start("sh -c 'ulimit -n 24; exec r2d -s bob.sock bob'").says("listening at")
    first = place.serve("bob", "cat", "cat")
    held: list[socket.socket] = []
    try:
        for _ in range(30):
            held.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            held[-1].connect(str(place.path / "bob.sock"))
        daemon.says("too many open files")
        before = cpu_time(daemon.pid)
        for _ in range(3):
            assert "too many open files" in place.run("r2 -s bob.sock ls", status=1).err
        assert cpu_time(daemon.pid) - before < 0.5
        assert daemon.err.count("too many open files") == 1
    finally:
        for sock in held:
            sock.close()
    eventually(lambda: place.run("r2 -s bob.sock ls", status=None).out == "service/cat\n", "room for clients again")
    assert first.runs
    assert daemon.runs


def test_transfers_do_not_disturb_each_other(place: Place) -> None:
    """One tunnel after the other fails in its own way in the middle of a transfer, whose bytes all arrive."""
    place.pair()
    place.serve("bob", "sha256sum", "sum")
    place.serve("bob", "cat", "cat")
    place.serve("bob", "kill -9 $$", "dies")
    data = os.urandom(50 * MIB)
    (place.path / "data").write_bytes(data)
    os.mkfifo(place.path / "go")  # before anybody looks for it
    transfer = place.start("sh -c '(head -c 1000000 data; cat go; tail -c +1000001 data) | r2 -s alice.sock "
                           "-t bob/sum tunnel -'")  # fmt: skip
    for _ in range(3):
        place.run("r2 -s alice.sock -t bob/dies tunnel -", b"x" * 10_000, status=128 + 9)
        place.run("r2 -s alice.sock -t bob/nobody tunnel -", b"x" * 10_000, status=TOOL_FAILED)
        killed = tunnel(place, "alice", "cat", stdin=-1)
        killed.stdin.write(b"it stands")
        killed.prints("it stands").kill()
    with open(place.path / "go", "wb"):
        pass
    transfer.ends(0, patience=120)
    assert transfer.out.split()[0] == hashlib.sha256(data).hexdigest()

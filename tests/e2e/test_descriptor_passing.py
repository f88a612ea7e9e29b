"""Descriptors handed over: who reads and writes what, and that a user notices nothing of it but the speed.

Four ways lead to one service of bob (`WAYS`): from alice over a link, from bob itself, and both over a control socket
that somebody forwards, where no descriptor can pass and everything is relayed.
"""

from __future__ import annotations

import array
import fcntl
import hashlib
import os
import pty
import signal
import socket
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.processes import (
    PATIENCE,
    Place,
    Program,
    await_port,
    children,
    command_line,
    eventually,
    free_port,
    running,
)
from support.sshd import prepare_sshd
from support.tunnels import MIB, WAYS, build, make_ends, nothing_left, read_all, read_size, send, tunnel

TOOL_FAILED = 255
BROKEN_PIPE = 128 + signal.SIGPIPE
INTERRUPTED = (-signal.SIGINT, 128 + signal.SIGINT)
# Where the server is, as it is seen by itself.
AT = pytest.mark.parametrize("at", ["bob.sock", "bob.fwd"], ids=["server", "server-relayed"])
# Says `ready`, and writes the file `hangup` when its line is cut.  (A child that is hung up on between fork and exec
# would lose the signal to the shell's trap; these live no longer than 0.1 s.)
WAITER = "trap 'echo hung up >hangup; exit 1' HUP; echo ready; while :; do sleep 0.1; done"


# -- helpers -----------------------------------------------------------------------------------------------------------


def serve(place: Place, command: str, name: str, at: str = "bob.sock") -> Program:
    quoted = command.replace("'", "'\\''")
    return place.start(f"r2 -v -s {at} serve -n {name} '{quoted}'").says("offering service/")


@contextmanager
def closing(*fds: int) -> Iterator[None]:
    """Descriptors of a test, some of which it closes itself."""
    try:
        yield
    finally:
        for fd in fds:
            try:
                os.close(fd)
            except OSError:
                continue


def links(pid: int) -> set[str]:
    """What the descriptors of a process lead to, such as pipe:[123]."""
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            continue
    return found


def until_released(program: Program, names: set[str]) -> None:
    """Wait until a program has closed what it had been given."""
    eventually(lambda: not links(program.pid) & names, f"the end of {names} in {program.line}")


def link_of(fd: int, pid: int | str = "self") -> str:
    return os.readlink(f"/proc/{pid}/fd/{fd}")


def moved(pid: int) -> int:
    """Bytes that a process itself (not its children) has read and written with read(2), write(2) and their like."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/task/{pid}/io").read_text().splitlines())
    return int(fields["rchar"]) + int(fields["wchar"])


def tunnels(place: Place) -> list[int]:
    """Every r2-tunnel that runs."""
    found = []
    for pid in place.left_over():
        if any(word.endswith(b"r2-tunnel") for word in command_line(pid)[:3]):
            found.append(pid)
    return found


# -- who is in the way -------------------------------------------------------------------------------------------------


@pytest.mark.every_python
def test_nobody_is_in_the_way(place: Place) -> None:
    """Of a local tunnel only r2-tunnel has a byte, and leaves it to the kernel; of a remote one it has none.

    The program has sockets, and who writes and who reads pipes.
    """
    alice, bob = place.pair()
    data = os.urandom(20 * MIB)
    with nothing_left(alice, bob):
        server = place.serve("bob", "cat; read word <gate", "cat")  # so that r2-tunnel is still there when we look
        os.mkfifo(place.path / "gate")
        for from_, idle in (("bob.sock", (alice, bob, server)), ("alice.sock", (server,))):
            in_, ours_in = os.pipe()
            ours_out, out = os.pipe()
            with closing(in_, out, ours_out):
                pipes = link_of(in_), link_of(out)
                client = tunnel(place, from_, "cat", stdin=in_, stdout=out)
                os.close(in_)
                os.close(out)
                os.write(ours_in, b"first")
                assert read_size(ours_out, 5) == b"first"
                if from_ == "bob.sock":
                    program = eventually(lambda: running(server.pid, b"gate"), "the service's program")[0]
                    assert all("socket" in link_of(fd, program) for fd in (0, 1))
                else:
                    until_released(client, set(pipes))
                assert not any(links(other.pid) & set(pipes) for other in idle)
                watched = [*idle, client] if place.box.version >= (3, 10) or from_ != "bob.sock" else idle
                before = [moved(other.pid) for other in watched]
                send(ours_in, data)
                assert read_size(ours_out, len(data)) == data
                for other, old in zip(watched, before):
                    assert moved(other.pid) - old < 100_000, other
                (place.path / "gate").write_text("go\n")
                assert read_all(ours_out) == b""
                client.ends(0)
        server.send(signal.SIGTERM)
        server.ends(0)


def test_the_daemon_copies_nothing_for_a_local_command_or_connection(place: Place) -> None:
    """r2-tunnel has the connection of tcp://, or a command's sockets, and those of the service's program."""
    bob = place.node("bob")
    place.serve("bob", "echo ready; exec cat", "cat")
    server = place.serve("bob", "exec cat >there", "sink")
    with socket.create_server(("127.0.0.1", 0)) as listener, nothing_left(bob):
        client = tunnel(place, "bob.sock", "cat", f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        sock, _ = listener.accept()
        with sock:
            assert read_size(sock.fileno(), 6) == b"ready\n"
            assert not any("socket" in link for link in [link_of(0, client.pid), link_of(1, client.pid)])
            before = moved(client.pid), moved(bob.pid)
            data = os.urandom(MIB)
            send(os.dup(sock.fileno()), data)
            assert read_size(sock.fileno(), len(data)) == data
            assert moved(client.pid) - before[0] < 10_000
            assert moved(bob.pid) - before[1] < 10_000
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock.fileno()) == b""
        client.ends(0)
        place.run("r2 -s bob.sock -t sink tunnel 'head -c 1000000 /dev/zero'")
        eventually(lambda: (place.path / "there").stat().st_size == 1_000_000, "what the command wrote")
        eventually(lambda: not children(server.pid), "the end of the sink")


# -- how things end ----------------------------------------------------------------------------------------------------


@AT
def test_statuses_and_words(place: Place, at: str) -> None:
    """What a service wrote before its end comes first, then its end, then the status."""
    ways = ("alice.sock", "bob.sock", "alice.fwd", "bob.fwd")
    daemons = build(place, *ways, at)
    services = (
        ("three", "printf partial; exit 3", 3, "exited with status 3"),
        ("killed", "printf partial; kill -9 $$", 128 + 9, "signal 9"),
        ("missing", "no-such-program", 127, "not found"),
        ("good", "printf partial; cat >&2", 0, ""),
    )
    for name, command, _, _ in services:
        serve(place, command, name, at)
    with nothing_left(*daemons):
        runs = [
            (place.start(f"r2 -s {from_} -t bob/{name} tunnel - <&- | cat", shell=True), name)
            for from_ in ways
            for name, *_ in services
        ]
        for program, name in runs:
            assert program.ends(0).out == ("" if name == "missing" else "partial")
        for from_ in ways:
            for name, _, status, words in services:
                result = place.run(f"r2 -s {from_} -t bob/{name} tunnel -", b"x" * 10, status=status)
                assert words in result.err
                assert words or not result.err
                assert result.out == ("" if name == "missing" else "partial")
            assert "does not know" in place.run(f"r2 -s {from_} -t bob/nobody tunnel -", status=TOOL_FAILED).err


def test_each_direction_ends_by_itself(place: Place) -> None:
    daemons = build(place, *WAYS)
    place.serve("bob", "sort", "sort")
    place.serve("bob", "echo hi; exec >&-; cat >got; exit 4", "early")
    for from_ in WAYS:
        with nothing_left(*daemons):
            assert place.run(f"r2 -s {from_} -t bob/sort tunnel - | cat", b"b\na\n").out == "a\nb\n"
            client = tunnel(place, from_, "early", stdin=-1, stdout=-1)
            assert read_size(client.stdout.fileno(), 3) == b"hi\n"
            assert read_all(client.stdout.fileno()) == b""  # while r2-tunnel waits, and holds nothing
            assert client.runs
            data = os.urandom(MIB)
            client.stdin.write(data)
            client.stdin.close()
            client.ends(4)
            assert (place.path / "got").read_bytes() == data


def test_the_reader_sees_the_end_when_there_is_one(place: Place) -> None:
    """Not before, and not later because of somebody who does not write."""
    daemons = build(place, *WAYS)
    place.serve("bob", "(exec <&- >&-; sleep 30) & echo $! >sleeper; echo hi", "background")
    place.serve("bob", "echo a; sleep 0.3; echo b; exec >&-; read word <gate", "slow")
    os.mkfifo(place.path / "gate")
    for from_ in WAYS:
        with nothing_left(*daemons):
            client = tunnel(place, from_, "background", stdin=-1, stdout=-1)
            try:
                assert read_all(client.stdout.fileno()) == b"hi\n"
                client.ends(0)
            finally:
                os.kill(int((place.path / "sleeper").read_text()), signal.SIGKILL)
            client = tunnel(place, from_, "slow", stdin=-1, stdout=-1)
            assert read_all(client.stdout.fileno()) == b"a\nb\n"
            assert client.runs
            (place.path / "gate").write_text("go\n")
            client.ends(0)


@pytest.mark.parametrize("from_", ["alice.sock", "bob.sock", "bob.fwd"], ids=["remote", "local", "relayed"])
def test_a_reader_that_goes_away_ends_everything_without_a_word(place: Place, from_: str) -> None:
    daemons = build(place, from_)
    commands = {"cat": "cat", "pipeline": "cat | tr y n", "loop": "while :; do echo y; done", "status": "cat; exit $?"}
    servers = [place.serve("bob", command, name) for name, command in commands.items()]
    with nothing_left(*daemons):
        for name in commands:
            result = place.run(f"(yes | r2 -s {from_} -t bob/{name} tunnel -; echo $? >&2) | head -1")
            assert result.out in ("y\n", "n\n")
            assert result.err == f"{BROKEN_PIPE}\n", name
        eventually(lambda: not any(children(server.pid) for server in servers), "the services' end")


def test_the_client_is_killed(place: Place) -> None:
    """Its program is hung up on, and who reads sees the end."""
    daemons = build(place, *WAYS)
    server = place.serve("bob", WAITER, "wait")
    for from_ in WAYS:
        for number in (signal.SIGKILL, signal.SIGTERM):
            with nothing_left(*daemons):
                client = tunnel(place, from_, "wait", stdin=-1, stdout=-1)
                assert read_size(client.stdout.fileno(), 6) == b"ready\n"
                client.send(number)
                client.ends(-number if number == signal.SIGKILL else 128 + number)
                eventually((place.path / "hangup").exists, "the service to be hung up on")
                assert read_all(client.stdout.fileno()) == b""
                eventually(lambda: not children(server.pid), "the end of the service's program")
                (place.path / "hangup").unlink()


@AT
def test_the_service_is_killed(place: Place, at: str) -> None:
    """Its program, and then its server: neither looks like an end in good order.  (Within one node, where the kernel
    joins the two programs, the other may see a plain end before it is hung up on: README, Limits.)"""
    place.tolerate_orphans = True
    daemons = build(place, *WAYS, at)
    with nothing_left(*daemons):
        server = serve(place, "echo ready; exec cat", "cat", at)
        clients = [tunnel(place, from_, "cat", stdin=-1, stdout=-1) for from_ in WAYS]
        joined = [tunnel(place, from_, "cat", f"'cat >got; echo clean end >{from_}.verdict'") for from_ in WAYS]
        for client in clients:
            assert read_size(client.stdout.fileno(), 6) == b"ready\n"
        eventually(
            lambda: [command_line(pid) for pid in children(server.pid)] == len(clients + joined) * [[b"cat"]],
            "all of them to run",
        )
        for program in children(server.pid):
            os.kill(program, signal.SIGKILL)
        for client in clients:
            assert read_all(client.stdout.fileno()) == b""
            assert "signal 9" in client.ends(128 + 9).err
        for client in joined:
            assert "signal 9" in client.ends(TOOL_FAILED).err
        clients = [tunnel(place, from_, "cat", stdin=-1, stdout=-1) for from_ in WAYS]
        for client in clients:
            assert read_size(client.stdout.fileno(), 6) == b"ready\n"
        server.kill()
        for client in clients:
            assert "the server of this service disconnected" in client.ends(TOOL_FAILED).err
            client.stdin.close()
        assert [file.name for file in place.path.glob("alice.*.verdict")] == []


@pytest.mark.parametrize("from_", ["alice.sock", "alice.fwd", "bob.fwd"])
def test_the_link_or_the_forwarding_is_cut(place: Place, from_: str) -> None:
    """Both ends hear of a failure before they see an end.  (Over a link whose tunnels do not wait.)"""
    _, bob = build(place, from_, options="--resume 0")
    place.serve("bob", WAITER, "wait")
    client = tunnel(place, from_, "wait", stdin=-1, stdout=-1)
    joined = tunnel(place, from_, "wait", "'cat >got; echo clean end >verdict'")
    assert read_size(client.stdout.fileno(), 6) == b"ready\n"
    eventually(lambda: (place.path / "got").exists() and (place.path / "got").read_text(), "the second tunnel")
    if from_ == "alice.sock":
        bob.kill()
    for program in place.programs:
        if program.line.startswith("socat"):
            for child in children(program.pid):  # each carries one client
                os.kill(child, signal.SIGKILL)
    words = "alice: the link to bob" if from_ == "alice.sock" else "daemon closed the connection"
    assert words in client.ends(TOOL_FAILED).err
    assert words in joined.ends(TOOL_FAILED).err
    eventually((place.path / "hangup").exists, "the service to be hung up on")
    assert not (place.path / "verdict").exists()


# -- stdin and stdout of every kind ------------------------------------------------------------------------------------


def test_files_and_what_is_closed(place: Place) -> None:
    daemons = build(place, *WAYS)
    place.serve("bob", "cat", "cat")
    place.serve("bob", "echo hello; cat; exit 3", "hello")
    data = os.urandom(2 * MIB)
    (place.path / "file").write_bytes(data)
    for from_ in WAYS:
        line = f"r2 -s {from_} -t bob/cat tunnel -"
        hello = f"r2 -s {from_} -t bob/hello tunnel -"
        with nothing_left(*daemons):
            place.run(f"{line} <file >copy; test $? = 0 && cat copy | {line} >again")
            assert (place.path / "again").read_bytes() == data
            place.run(f"(echo before; {hello} </dev/null; echo after $?) >log")
            assert (place.path / "log").read_text() == "before\nhello\nafter 3\n"
            place.run(f"{hello} </dev/null >>log", status=3)
            assert (place.path / "log").read_text() == "before\nhello\nafter 3\nhello\n"
            assert place.run(f"{hello} <&-", status=3).out == "hello\n"
            for redirections in (">&-", "<&- >&-", "</dev/null >/dev/null", "<file >&-", "<file >/dev/null"):
                result = place.run(f"{hello} {redirections}", status=3)
                assert result.err == "r2-tunnel: bob/hello: exited with status 3\n", redirections
            full = place.run(f"{line} <file >/dev/full", status=None)
            assert full.status == TOOL_FAILED
            assert "No space left" in full.err


def test_a_terminal(place: Place) -> None:
    """Its modes are left alone, the service does not get it, and it ends the tunnel: ^D in order, ^C at once."""
    daemons = build(place, *WAYS)
    server = place.serve("bob", "read word; echo you said $word; exec cat >got", "talk")
    for from_ in WAYS:
        with nothing_left(*daemons):
            for key in (b"\x04", b"\x03"):
                ours, theirs = pty.openpty()
                with closing(ours, theirs):
                    name = os.ttyname(theirs)
                    modes = termios.tcgetattr(theirs)
                    # The shell leads a session, so the first terminal that it opens is its own.
                    client = tunnel(place, from_, "talk", f"- <{name} >{name}")
                    os.write(ours, b"hello\n")
                    got = b""
                    while b"you said hello" not in got and (piece := read_size(ours, 1)):
                        got += piece
                    assert termios.tcgetattr(theirs) == modes
                    assert os.get_blocking(theirs)
                    program = eventually(lambda: running(server.pid, b"cat"), "the service's program")[0]
                    assert not links(program) & {name}
                    os.write(ours, b"bye\n" + key)
                    if key == b"\x04":
                        client.ends(0)
                        assert (place.path / "got").read_text() == "bye\n"
                    else:
                        client.ends(None)
                        assert client.popen.returncode in INTERRUPTED
                    assert termios.tcgetattr(theirs) == modes
                    assert os.get_blocking(theirs)
                    eventually(lambda: not children(server.pid), "the end of the service's program")


def test_one_socket_is_both(place: Place) -> None:
    """As socat's exec and ssh's ProxyUseFdpass give it."""
    daemons = build(place, *WAYS)
    place.serve("bob", "exec cat", "cat")
    for from_ in WAYS:
        with nothing_left(*daemons):
            ours, theirs = socket.socketpair()
            with ours, theirs:
                client = tunnel(place, from_, "cat", stdin=theirs.fileno(), stdout=theirs.fileno())
                ours.sendall(b"first")
                assert read_size(ours.fileno(), 5) == b"first"
                assert theirs.getblocking()
                assert os.get_blocking(theirs.fileno())
                theirs.close()
                data = os.urandom(3 * MIB)
                sender = send(os.dup(ours.fileno()), data)
                assert read_size(ours.fileno(), len(data)) == data
                sender.join()
                ours.shutdown(socket.SHUT_WR)
                assert read_all(ours.fileno()) == b""
                client.ends(0)


@pytest.mark.parametrize("from_", ["alice.sock", "bob.sock"], ids=["remote", "local"])
def test_a_service_ends_its_output_on_a_socket_that_is_both(place: Place, from_: str) -> None:
    place.pair()
    place.serve("bob", "echo hi; exec >&-; cat >got; exit 4", "early")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = tunnel(place, from_, "early", stdin=theirs.fileno(), stdout=theirs.fileno())
        theirs.close()
        assert read_all(ours.fileno()) == b"hi\n"
        ours.sendall(b"more")
        ours.shutdown(socket.SHUT_WR)
        client.ends(4)
        assert (place.path / "got").read_bytes() == b"more"


def test_flags_of_other_peoples_descriptors(place: Place) -> None:
    """O_NONBLOCK belongs to all who share the open file: it is as it was, and the service does not suffer from it."""
    daemons = build(place, *WAYS)
    place.serve("bob", "cat", "cat")
    with nothing_left(*daemons):
        for from_ in WAYS:
            for kind in ("pipe", "socket"):
                for blocking in (True, False):
                    check_flags(place, from_, kind, blocking)


def check_flags(place: Place, from_: str, kind: str, blocking: bool) -> None:
    ours_in, in_, ours_out, out = make_ends(kind)
    what = f"{from_}, {kind}, {blocking}"
    with closing(in_, out, ours_in, ours_out):
        for fd in (in_, out):
            os.set_blocking(fd, blocking)
        flags = [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (in_, out)]
        client = tunnel(place, from_, "cat", stdin=in_, stdout=out)
        os.write(ours_in, b"first")
        assert read_size(ours_out, 5) == b"first", what
        assert [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (in_, out)] == flags, what
        data = os.urandom(MIB)  # more than fits
        send(os.dup(ours_in), data)
        assert read_size(ours_out, len(data)) == data, what
        assert [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (in_, out)] == flags, what
        if kind == "socket":
            with socket.socket(fileno=os.dup(ours_in)) as sock:
                sock.shutdown(socket.SHUT_WR)
        os.close(ours_in)
        client.ends(0)
        assert [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (in_, out)] == flags, what


def test_a_connection_that_is_given_is_blocking(place: Place) -> None:
    """tcp:// at the one or the other end of a local tunnel: the program there knows nothing of O_NONBLOCK."""
    place.node("bob")
    place.serve("bob", "echo ready; cat", "cat")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        place.serve("bob", address, "tcp")
        for service, transport in (("cat", address), ("tcp", "'echo ready; cat'")):
            client = tunnel(place, "bob.sock", service, transport)
            sock, _ = listener.accept()
            with sock:
                assert read_size(sock.fileno(), 6) == b"ready\n"
                sock.sendall(b"hello")
                assert read_size(sock.fileno(), 5) == b"hello"
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock.fileno()) == b""
            client.ends(0)


# -- r2-tunnel --fdpass ------------------------------------------------------------------------------------------------


def take(place: Place, line: str, status: int = 0) -> socket.socket | None:
    """What ssh does with a ProxyCommand under ProxyUseFdpass: run it on a socket, take the descriptor, wait."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            program = place.start(line, stdin=theirs.fileno(), stdout=theirs.fileno())
        ours.settimeout(PATIENCE)
        data, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
        program.ends(status)
        if not data:
            return None
        ((_, _, payload),) = ancillary
        return socket.socket(fileno=array.array("i", payload)[0])


@pytest.mark.old_and_new
def test_a_tunnel_that_is_passed_on(place: Place) -> None:
    daemons = build(place, *WAYS)
    server = place.serve("bob", "echo ready; exec cat", "cat")
    place.serve("bob", "echo hi; exec >&-; cat >got", "early")
    data = os.urandom(3 * MIB)
    for from_ in WAYS:
        line = f"r2-tunnel -s {from_} --fdpass -t bob/"
        with nothing_left(*daemons):
            sock = take(place, line + "cat -")
            assert sock is not None
            with sock:
                assert read_size(sock.fileno(), 6) == b"ready\n"
                assert os.get_blocking(sock.fileno())
                if not from_.endswith(".fwd"):
                    assert not tunnels(place)
                sender = send(os.dup(sock.fileno()), data)
                assert read_size(sock.fileno(), len(data)) == data
                sender.join()
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock.fileno()) == b""
            eventually(lambda: not children(server.pid), "the service's end")
            sock = take(place, line + "cat -")
            assert sock is not None
            sock.close()  # with bytes unread
            eventually(lambda: not children(server.pid), "the service's end")
            eventually(lambda: not tunnels(place), "the end of r2-tunnel")
            assert take(place, line + "nobody -", TOOL_FAILED) is None
            assert "does not know" in place.programs[-1].err
        assert "--fdpass" in place.run(line + "cat cat", status=2).err
        for redirection in ("", "</dev/null >/dev/null", ">&-"):
            error = place.run(f"{line}cat - {redirection}", status=TOOL_FAILED).err
            assert "cannot pass a descriptor over stdout" in error


def test_ssh_with_fdpass(place: Place) -> None:
    """Also where the control socket is one that ssh -L forwards, which carries no descriptors."""
    sshd, ssh = prepare_sshd(place)
    ssh += " -o HostKeyAlias=bob"
    place.pair()
    place.serve("bob", sshd, "sshd")
    data = os.urandom(MIB)
    place.start(
        f"ssh {ssh} -o ProxyCommand='{sshd}' -N"
        f" -L {place.path}/alice.fwd:{place.path}/alice.sock -L {place.path}/bob.fwd:{place.path}/bob.sock here"
    )
    place.await_socket("bob.fwd")
    for from_ in ("alice.sock", "bob.sock", "alice.fwd", "bob.fwd"):
        proxy = f"-o ProxyUseFdpass=yes -o ProxyCommand='r2-tunnel -s {from_} -t bob/sshd --fdpass -'"
        result = place.run(f"ssh {ssh} {proxy} there 'cat; exit 5'", data, status=5)
        assert result.raw == data
        if from_.endswith(".sock"):
            client = place.start(f"ssh {ssh} {proxy} there 'echo ready; cat'", stdin=-1).prints("ready")
            assert not tunnels(place)
            client.stdin.close()
            client.ends(0)
        # and without it, over the same sockets
        plain = f"-o ProxyCommand='r2 -s {from_} -t bob/sshd tunnel -'"
        assert place.run(f"ssh {ssh} {plain} there 'cat; exit 5'", data, status=5).raw == data
    place.serve("alice", "cat", "cat")
    server = place.start("r2 -v -s bob.fwd serve -n relayed cat").says("offering")
    assert place.run("r2 -s alice.fwd -t bob/relayed tunnel -", data).raw == data
    server.send(signal.SIGTERM)
    server.ends(0)


# -- over a socket that somebody forwards ------------------------------------------------------------------------------


@pytest.mark.old_and_new
def test_everything_over_a_forwarded_control_socket(place: Place) -> None:
    """Servers, clients and links, all of them relayed."""
    alice, bob = place.node("alice"), place.node("bob")
    place.forward_socket("alice")
    place.forward_socket("bob")
    with nothing_left(alice, bob):
        line = 'r2 -v -s alice.fwd connect -n bob "r2 -s bob.fwd connect -n alice -"'
        link = place.start(line).says("linked to")
        place.answers("alice", "bob")
        servers = [serve(place, "cat; exit 3", "cat", "bob.fwd"), serve(place, "sort", "sort", "bob.fwd")]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            servers.append(place.start(f"r2 -v -s bob.fwd serve -n tcp tcp://127.0.0.1:{port}").says("offering"))
            assert place.run("r2 -s alice.fwd -t bob ls").out == "alice\nservice/cat\nservice/sort\nservice/tcp\n"
            data = os.urandom(8 * MIB)
            digest = hashlib.sha256(data).hexdigest()
            with nothing_left(alice, bob):
                assert place.run("r2 -s alice.fwd -t bob/cat tunnel - | sha256sum", data).out.split()[0] == digest
                command = "'head -c 100000 /dev/zero; exec >&-; wc -c >counted; exit 7'"
                place.run(f"r2 -s alice.fwd -t bob/cat tunnel {command}", status=7)
                assert int((place.path / "counted").read_text()) == 100_000
                client = tunnel(place, "alice.fwd", "tcp", stdin=-1, stdout=-1)
                sock, _ = listener.accept()
                with sock:
                    client.stdin.write(b"hello")
                    client.stdin.close()
                    assert read_all(sock.fileno()) == b"hello"
                    sock.sendall(b"answer")
                assert read_all(client.stdout.fileno()) == b"answer"
                client.ends(0)
        assert "refused" in place.run("r2 -s alice.fwd -t bob/tcp tunnel -", b"", status=TOOL_FAILED).err
        for server in servers:
            server.send(signal.SIGTERM)
            server.ends(0)
        link.send(signal.SIGTERM)
        link.ends(0)
    alice.says("link to bob closed")
    bob.says("link to alice closed")


def test_links_over_a_forwarded_control_socket(place: Place) -> None:
    """tcp://, and stdin and stdout, from the one or the other side; each can be made again."""
    alice, bob = place.node("alice"), place.node("bob")
    place.forward_socket("alice")
    place.serve("bob", "cat", "cat")
    port = free_port()
    data = os.urandom(MIB)
    with nothing_left(alice, bob):
        listener = place.start(f"r2 -v -s bob.sock connect tcp-listen://127.0.0.1:{port}")
        await_port(port)
        for line in (
            f"r2 -v -s alice.fwd connect tcp://127.0.0.1:{port}",
            'r2 -v -s bob.sock connect "r2 -s alice.fwd connect -"',
        ):
            link = place.start(line).says("linked to")
            assert place.run("r2 -s alice.sock -t bob/cat tunnel -", data).raw == data
            link.send(signal.SIGTERM)
            link.ends(0)
            eventually(lambda: place.run("r2 -s alice.sock ls").out == "", "the end of the link")
            eventually(lambda: place.run("r2 -s bob.sock ls").out == "service/cat\n", "its end there")
        listener.send(signal.SIGTERM)
        listener.ends(0)
    assert "expected carl" in place.run('r2 -s alice.fwd connect -n carl "r2 -s bob.sock connect -"', status=1).err
    assert "status 3" in place.run('r2 -s alice.fwd connect "exit 3"', status=1).err


def test_many_relayed_tunnels(place: Place) -> None:
    daemons = build(place, "alice.fwd")
    server = place.serve("bob", "cat", "cat")
    (place.path / "data").write_bytes(os.urandom(MIB))
    with nothing_left(*daemons):
        clients = [place.start("r2 -s alice.fwd -t bob/cat tunnel - <data | cmp - data", shell=True) for _ in range(12)]
        for client in clients:
            client.ends(0, patience=120)
        eventually(lambda: not children(server.pid), "the services' end")


def test_a_relayed_reader_that_does_not_read(place: Place) -> None:
    """It holds up nobody else, and no memory is spent on it."""
    daemons = build(place, "alice.fwd")
    place.serve("bob", "cat /dev/zero", "zeros")
    place.serve("bob", "cat", "cat")
    with nothing_left(*daemons):
        stalled = tunnel(place, "alice.fwd", "zeros", stdout=-1)
        assert read_size(stalled.stdout.fileno(), 1) == b"\0"
        data = os.urandom(MIB)
        assert place.run("r2 -s alice.fwd -t bob/cat tunnel -", data).raw == data
        stalled.stdout.close()
        stalled.ends(BROKEN_PIPE)
        assert stalled.err == ""

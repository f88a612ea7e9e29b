"""At the limit of open files one request fails and says so; links, listeners and other clients go on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import r2box
from r2box.errors import R2Error
from support import raw
from support.processes import Place, Program, cpu_time, eventually, free_port, open_files

LIMIT = 64
WORDS = "too many open files"


def few(line: str, limit: int = LIMIT) -> str:
    """`line` with so few descriptors."""
    return f"ulimit -n {limit}; exec {line}"


def echo(place: Place, path: str = "bob/cat") -> bool:
    return place.run(f"r2 -s alice.sock -t {path} tunnel -", b"hello", status=None).out == "hello"


@contextlib.contextmanager
def full(socket_path: Path) -> Iterator[list[r2box.Session]]:
    """As many clients as the daemon takes; the first that it refuses is told why."""
    with contextlib.ExitStack() as stack:
        sessions: list[r2box.Session] = []
        why = until_refused(lambda: sessions.append(stack.enter_context(r2box.Session(str(socket_path)))))
        assert f"the daemon refused: {WORDS}" in why
        yield sessions


def until_refused(fn: Callable[[], object]) -> str:
    """fn(), again and again, until it fails: why."""
    for _ in range(LIMIT):
        try:
            fn()
        except R2Error as error:
            return str(error)
    raise AssertionError(f"{LIMIT} descriptors did not suffice to use up {LIMIT}")


@pytest.fixture
def nodes(place: Place) -> tuple[Program, Program]:
    """alice, with few descriptors, linked over tcp-listen to bob, who serves cat; and a tunnel client of alice."""
    alice = place.start(few("r2d -s alice.sock alice"), shell=True).says("listening at")
    place.node("bob")
    port = free_port()
    listener = place.start(f"r2 -v -s alice.sock connect tcp-listen://127.0.0.1:{port}")
    place.start(f"r2 -v -s bob.sock connect --retry tcp://127.0.0.1:{port}").says("linked to alice")
    place.serve("bob", "cat")
    eventually(lambda: echo(place), "an echo from bob")
    return alice, listener


def test_idle_clients_cost_no_link(place: Place, nodes: tuple[Program, Program]) -> None:
    alice, listener = nodes
    with full(place.path / "alice.sock") as sessions:
        refused = place.run("r2 -s alice.sock ls", status=1)
        assert WORDS in refused.err
        assert "ulimit -n" in refused.err
        assert "daemon closed the connection" not in refused.err
        assert sessions[0].ping("bob") > 0
        assert [entry.name for entry in sessions[1].ls("bob")]
        before = cpu_time(alice.pid)
        for _ in range(20):
            place.run("r2 -s alice.sock ls", status=1)
        assert cpu_time(alice.pid) - before < 5
    eventually(lambda: echo(place), "an echo from bob when the clients have gone")
    assert listener.runs
    assert alice.err.count(WORDS) == 1, "one line for one shortage"


def test_tunnels_use_up_the_descriptors(place: Place, nodes: tuple[Program, Program]) -> None:
    _, listener = nodes
    tunnels: list[socket.socket] = []
    with r2box.Session(str(place.path / "alice.sock")) as session:
        assert WORDS in until_refused(lambda: tunnels.append(session.dial("bob/cat", timeout=30)))
        assert len(tunnels) > LIMIT // 4
        for sock in (tunnels[0], tunnels[-1]):
            sock.sendall(b"still here")
            assert sock.recv(100) == b"still here"
        for _ in range(3):
            with pytest.raises(R2Error, match=WORDS):
                session.dial("bob/cat", timeout=30)
        tunnels.pop().close()
        eventually(lambda: dials(session, "bob/cat"), "room for one more")
        assert session.ping("bob") > 0
    for sock in tunnels:
        sock.close()
    assert listener.runs
    eventually(lambda: echo(place), "an echo from bob")


def dials(session: r2box.Session, path: str) -> bool:
    try:
        session.dial(path, timeout=30).close()
    except R2Error:
        return False
    return True


def test_incoming_tunnels_use_up_the_descriptors(place: Place, nodes: tuple[Program, Program]) -> None:
    """Of a neighbour's, for a service of the node that has few: the server and the link stay."""
    _, listener = nodes
    server = place.serve("alice", "cat", "mirror")
    tunnels: list[socket.socket] = []
    with r2box.Session(str(place.path / "bob.sock")) as session:
        assert WORDS in until_refused(lambda: tunnels.append(session.dial("alice/mirror", timeout=30)))
        tunnels[-1].sendall(b"still here")
        assert tunnels[-1].recv(100) == b"still here"
        port = int(listener.line.rpartition(":")[2])
        raw.dial("carl", port).close()  # others are let in: a neighbour's tunnels leave descriptors for links
        assert echo(place, "mirror"), "and a program of this host has its tunnel"
        for sock in tunnels:
            sock.close()
        eventually(lambda: dials(session, "alice/mirror"), "room again")
    assert server.runs
    assert listener.runs


def test_links_of_one_host_leave_descriptors_for_others(place: Place, nodes: tuple[Program, Program]) -> None:
    _, listener = nodes
    port = int(listener.line.rpartition(":")[2])
    with contextlib.ExitStack() as stack:

        def link(name: str, source: str) -> None:
            stack.callback(raw.dial(name, port, source).close)

        def crowd() -> None:
            for number in range(LIMIT):
                link(f"mallory{number}", "127.0.0.9")

        with pytest.raises(ConnectionError, match=r"few descriptors are free, and 127\.0\.0\.9 has more than 8 links"):
            crowd()
        link("carl", "127.0.0.8")
        assert echo(place)
    eventually(lambda: is_let_in(port), "room again")


def is_let_in(port: int) -> bool:
    try:
        raw.dial("mallory", port, source="127.0.0.9").close()
    except ConnectionError:
        return False
    return True


def test_a_link_for_which_there_is_no_descriptor(place: Place, nodes: tuple[Program, Program]) -> None:
    """A connection at a listener of a node whose clients have used them up."""
    _, listener = nodes
    port = int(listener.line.rpartition(":")[2])
    with full(place.path / "alice.sock") as sessions:
        with socket.create_connection(("127.0.0.1", port)):
            listener.says(WORDS)
        assert sessions[0].ping("bob", timeout=30) > 0
    eventually(lambda: echo(place), "an echo from bob")
    assert listener.runs


@pytest.mark.parametrize("tool", ["r2-forward", "r2dm"])
def test_a_listener_pauses_and_goes_on(place: Place, tool: str) -> None:
    """Connections wait while there is no descriptor, and are taken when there is; nothing spins meanwhile."""
    port = free_port()
    if tool == "r2dm":
        (place.path / "alice.toml").write_text(
            f'[self]\naddr = "alice"\nsocket = "alice.sock"\n'
            f'[[forward]]\nlisten = "tcp-listen://127.0.0.1:{port}"\ntarget = "cat"\n'
            f'[[serve]]\nname = "cat"\ncmd = "cat"\n'
        )
        program = place.start(few("r2dm -f alice.toml"), shell=True).says("listening at 127.0.0.1")
    else:
        place.node("alice")
        place.serve("alice", "cat")
        line = few(f"r2 -s alice.sock -t cat forward tcp-listen://127.0.0.1:{port}", 48)
        program = place.start(line, shell=True).says("listening at")
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(LIMIT)]
    sockets[0].sendall(b"first")
    assert sockets[0].recv(100) == b"first"
    eventually(lambda: settled(program), "no more to be taken")
    before = cpu_time(program.pid)
    sockets[1].sendall(b"second")
    assert sockets[1].recv(100) == b"second"
    assert program.runs
    for sock in sockets:
        sock.close()
    eventually(lambda: works(port), "a connection that is served again")
    assert cpu_time(program.pid) - before < 5


def settled(program: Program) -> bool:
    """Whether it has as many descriptors open as a moment ago."""
    count = open_files(program.pid)
    with contextlib.suppress(AssertionError):
        eventually(lambda: open_files(program.pid) != count, "", patience=0.3)
    return open_files(program.pid) == count


def works(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(5)
        try:
            sock.sendall(b"again")
            return sock.recv(100) == b"again"
        except OSError:
            return False


def test_a_client_whose_descriptors_are_used_up(place: Place) -> None:
    """What comes for it and finds no place is lost; the connection to its daemon is not."""
    place.node("alice")
    place.serve("alice", "cat")
    script = place.path / "dial.py"
    script.write_text(
        "import os, resource, r2box\n"
        "with r2box.Session('alice.sock') as session:\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))\n"
        "    kept = []\n"
        "    try:\n"
        "        while True:\n"
        "            kept.append(session.dial('cat', timeout=30))\n"
        "    except r2box.R2Error as error:\n"
        f"        assert '{WORDS}' in str(error), error\n"
        "    assert session.ping() > 0\n"
        "    kept.pop().close()\n"
        "    sock = session.dial('cat', timeout=30)\n"
        "    sock.sendall(b'hello')\n"
        "    print(sock.recv(100))\n"
    )
    root = Path(r2box.__file__).parent.parent
    assert place.run("python3 dial.py", PYTHONPATH=str(root)).out == "b'hello'\n"

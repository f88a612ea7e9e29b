"""A daemon inside a program: `r2box.Node`; and the small programs in tests/examples, run as a user would run them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import r2box
from support.processes import PATIENCE, Place, await_port, eventually, free_port, open_files

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "tests" / "examples"


def read_all(sock: socket.socket) -> bytes:
    sock.settimeout(PATIENCE)
    return b"".join(iter(lambda: sock.recv(65536), b""))


def asked(sock: socket.socket, data: bytes = b"hello") -> bytes:
    """What comes back for `data` and its end."""
    with sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def started() -> list[int]:
    """The children of this process, whichever of its threads has started them."""
    found: list[int] = []
    for file in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            found += map(int, file.read_text().split())
    return sorted(found)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a directory of our own; afterwards there are no more descriptors, threads and children, and handlers of
    signals and variables are the same."""

    def process() -> tuple[object, ...]:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP)
        handlers = [signal.getsignal(number) for number in numbers]
        variables = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
        return variables, os.getcwd(), handlers, signal.set_wakeup_fd(-1), started()

    monkeypatch.chdir(tmp_path)
    before, files, threads = process(), open_files(os.getpid()), threading.active_count()
    yield
    eventually(lambda: threading.active_count() <= threads, lambda: f"the end of {threading.enumerate()}")
    eventually(lambda: open_files(os.getpid()) <= files, "descriptors to be closed")
    assert process() == before


# -- ls and ping -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["alice.sock", "alice.fwd"], ids=["direct", "forwarded"])
def test_ls_and_ping(place: Place, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    place.pair()
    place.serve("bob", "cat", "cat")
    monkeypatch.chdir(place.path)
    if at == "alice.fwd":
        place.forward_socket("alice")
    assert r2box.ls("bob", socket=at) == [("node", "alice", ""), ("service", "service/cat", "")]
    entries = r2box.ls(socket=at, clients=True)
    assert [entry.kind for entry in entries][:1] == ["node"]
    assert "client" in {entry.kind for entry in entries}
    for path in ("", "bob", "bob/alice"):
        assert 0 < r2box.ping(path, socket=at) < 5
    with r2box.Session(at) as session:
        for call in (session.ls, session.ping):
            with pytest.raises(r2box.RefusedError, match="alice: does not know nobody"):
                call("nobody")
            with pytest.raises(r2box.AddressError):
                call("a b")
        assert session.ping("bob") > 0


def test_a_node_that_does_not_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    _, bob = place.pair()
    monkeypatch.chdir(place.path)
    bob.send(signal.SIGSTOP)
    with r2box.Session("alice.sock") as session:
        begin = time.monotonic()
        for call in (session.ls, session.ping):
            with pytest.raises(TimeoutError, match=r"bob: no answer within 0\.2 s"):
                call("bob", timeout=0.2)
        assert time.monotonic() - begin < 10  # which it takes where nothing is said
        bob.send(signal.SIGCONT)
        assert session.ping("bob", timeout=PATIENCE) < PATIENCE  # what comes late is not taken for this one's answer


def test_a_daemon_that_does_not_answer(place: Place) -> None:
    """Of its own socket: `timeout` counts from the call, not from an answer that does not come."""
    alice = place.node("alice")
    socket = str(place.path / "alice.sock")
    alice.send(signal.SIGSTOP)
    begin = time.monotonic()
    for call in (r2box.ls, r2box.ping, r2box.dial):
        with pytest.raises(TimeoutError, match=r"alice\.sock: no answer within 0\.2 s"):
            call("", socket=socket, timeout=0.2)
    assert time.monotonic() - begin < 15  # of 10 for a daemon and 5 for each answer
    alice.send(signal.SIGCONT)
    assert r2box.ping(socket=socket, timeout=PATIENCE) < PATIENCE


# -- Node --------------------------------------------------------------------------------------------------------------


def test_two_nodes_over_a_unix_socket(here: None) -> None:
    with r2box.Node("alice") as alice, r2box.Node("bob") as bob:
        bob.connect("unix-listen://link.sock")
        assert alice.connect("unix://link.sock", retry=True, node="bob").wait(timeout=PATIENCE) == "bob"
        bob.offer("upper", "tr a-z A-Z")
        assert asked(alice.dial("bob/upper", timeout=PATIENCE)) == b"HELLO"
        assert asked(bob.dial("upper", timeout=PATIENCE)) == b"HELLO"
        tunnels = bob.serve("echo")
        accepted: list[tuple[socket.socket, str]] = []
        server = threading.Thread(target=lambda: accepted.append(next(tunnels)))
        server.start()
        opened = alice.dial("bob/echo", timeout=PATIENCE)
        server.join()
        sock, origin = accepted[0]
        assert origin.startswith("alice/child/")
        big = os.urandom(3_000_000)
        sender = threading.Thread(target=sock.sendall, args=(big,))
        sender.start()
        opened.settimeout(PATIENCE)
        got = b""
        while len(got) < len(big):
            got += opened.recv(1 << 20)
        assert got == big
        sender.join()
        opened.close()
        assert read_all(sock) == b""
        sock.close()
        assert [entry.name for entry in bob.ls()] == ["alice", "service/echo", "service/upper"]
        assert 0 < alice.ping("bob") < 5
    assert list(tunnels) == []  # bob was stopped, which is no error


def test_in_a_thread_of_the_callers(here: None) -> None:
    node, ready = r2box.Node("alice", socket="alice.sock"), threading.Event()
    thread = threading.Thread(target=node.run, args=(ready.set,))
    thread.start()
    assert ready.wait(PATIENCE)
    assert (Path("alice.sock").stat().st_mode & 0o777) == 0o600
    assert node.ping() == pytest.approx(0, abs=5)
    with r2box.Session("alice.sock") as session:
        assert session.address == "alice"
    node.stop()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not Path("alice.sock").exists()
    node.stop()  # again
    for call in (node.start, node.ping, lambda: node.dial("x"), lambda: node.connect("unix://x")):
        with pytest.raises(r2box.DaemonError, match="alice"):
            call()


def test_what_a_caller_does_wrong(here: None) -> None:
    with pytest.raises(r2box.AddressError):
        r2box.Node("a b")
    with r2box.Node("alice", socket="alice.sock") as node:
        with pytest.raises(r2box.DaemonError, match="listens here already"):
            r2box.Node("bob", socket="alice.sock").start()
        with pytest.raises(r2box.UsageError, match="port is missing"):
            node.connect("tcp://host")
        with pytest.raises(r2box.UsageError):
            node.connect("-")
        with pytest.raises(r2box.UsageError):
            node.offer("x", "-")
        node.offer("x", "cat")
        with pytest.raises(r2box.RefusedError, match="already"):
            node.offer("x", "cat")
        with pytest.raises(r2box.AddressError):
            node.offer("a b", "cat")
        assert asked(node.dial("x")) == b"hello"
        assert issubclass(r2box.UsageError, r2box.R2Error)
    with r2box.Node("carl") as node, pytest.raises(r2box.UsageError, match="has none"):
        node.connect("socat tcp-l:1,fork exec:-")


def test_links_that_fail(here: None) -> None:
    with r2box.Node("alice") as alice:
        with pytest.raises(r2box.TransportError, match="No such file"):
            alice.connect("unix://there.sock").wait(timeout=PATIENCE)
        with pytest.raises(r2box.TransportError, match="status 3"):
            alice.connect("exit 3").wait(timeout=PATIENCE)
        link = alice.connect("sleep 1000")
        with pytest.raises(TimeoutError, match=r"no link within 0\.1 s"):
            link.wait(timeout=0.1)
        link.close(timeout=PATIENCE)
        link.close()
        with pytest.raises(r2box.TransportError):
            link.wait()
        retried = alice.connect("unix://there.sock", retry=True)
        with pytest.raises(TimeoutError):
            retried.wait(timeout=0.3)


def test_a_child_by_fork(here: None) -> None:
    """It has no node, and does not wait for one."""
    with r2box.Node("alice", socket="alice.sock") as alice:
        child = os.fork()
        if not child:
            signal.alarm(20)
            try:
                with pytest.raises(r2box.DaemonError, match="alice: this node runs in the process"):
                    alice.ping()
                alice.stop()
                with r2box.Node("carl") as carl:
                    carl.ping()
                r2box.ping(socket="alice.sock")
                os._exit(7)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert alice.ping() < 5


def test_listening(here: None) -> None:
    """When `connect` returns it listens, or it has said why it cannot."""
    with r2box.Node("alice") as alice, r2box.Node("bob") as bob, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for transport in (f"tcp-listen://127.0.0.1:{port}", "unix-listen:///dev/null/x", "tcp-listen://no.invalid:1"):
            with pytest.raises(r2box.TransportError, match="-listen://"):
                alice.connect(transport)
        alice.connect("unix-listen://there.sock")
        assert bob.connect("unix://there.sock").wait(timeout=PATIENCE) == "alice"
        port = free_port(socket.SOCK_DGRAM)
        alice.connect(f"udp-listen://127.0.0.1:{port}")
        with pytest.raises(r2box.TransportError, match="in use"):
            bob.connect(f"udp-listen://127.0.0.1:{port}")


def test_stopping_ends_what_it_has_started(here: None) -> None:
    begin = time.monotonic()
    with r2box.Node("alice") as alice:
        alice.connect("exec sleep 1000")
        alice.offer("wait", "exec sleep 1000")
        sock = alice.dial("wait")
        eventually(lambda: len(started()) >= 2, "two commands")
    assert read_all(sock) == b""
    sock.close()
    assert time.monotonic() - begin < 60  # and not the time that these take


def test_a_link_is_closed_and_its_neighbour_hears_of_it(here: None) -> None:
    with r2box.Node("alice") as alice, r2box.Node("bob") as bob:
        bob.connect("unix-listen://link.sock")
        link = alice.connect("unix://link.sock", retry=True)
        link.wait(PATIENCE)
        link.close(PATIENCE)
        eventually(lambda: not bob.ls(), "bob to hear of it")
        assert alice.connect("unix://link.sock").wait(PATIENCE) == "bob"


def test_many_threads(here: None) -> None:
    problems: list[BaseException] = []

    def work(node: r2box.Node) -> None:
        try:
            for number in range(10):
                assert asked(node.dial("bob/cat", timeout=20), b"%d" % number) == b"%d" % number
                assert node.ping("bob", timeout=20) > 0
        except BaseException as error:
            problems.append(error)

    with r2box.Node("alice") as alice, r2box.Node("bob") as bob:
        bob.connect("unix-listen://link.sock")
        alice.connect("unix://link.sock", retry=True).wait(PATIENCE)
        bob.offer("cat", "cat")
        threads = [threading.Thread(target=work, args=(node,)) for node in (alice, bob, alice, bob)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not problems


def test_nodes_of_one_process_do_not_mix_up_datagrams(here: None) -> None:
    """Both read at the same time, each in its thread."""
    echo, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with echo, client, r2box.Node("alice", socket="alice.sock") as alice, r2box.Node("bob") as bob:
        echo.bind(("127.0.0.1", 0))
        bob.connect("unix-listen://link.sock")
        assert alice.connect("unix://link.sock", retry=True).wait(timeout=PATIENCE) == "bob"
        bob.offer("echo", f"udp://127.0.0.1:{echo.getsockname()[1]}")
        command = [sys.executable, "-m", "r2box", "r2-forward", "-s", "alice.sock", "-t", "bob/echo"]
        tool = subprocess.Popen(
            [*command, "udp-listen://127.0.0.1:0"], env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert tool.stderr is not None
        listening = re.search(r"listening at .*:(\d+)$", tool.stderr.readline())
        assert listening
        client.connect(("127.0.0.1", int(listening[1])))
        client.settimeout(0.2)

        def answer() -> None:
            while True:
                data, sender = echo.recvfrom(65536)
                if data == b"end":
                    return
                with contextlib.suppress(OSError):
                    echo.sendto(data, sender)

        thread = threading.Thread(target=answer)
        thread.start()
        sent, came = set(), 0
        try:
            for number in range(4000):
                data = (b"%05d" % number) * 1000
                sent.add(data)
                client.send(data)
                if number % 8 == 7:
                    try:
                        while True:
                            assert client.recv(65536) in sent
                            came += 1
                            client.setblocking(False)
                    except (BlockingIOError, TimeoutError, socket.timeout):
                        client.settimeout(0.2)
        finally:
            tool.terminate()
            tool.wait()
            tool.stderr.close()
            client.connect(echo.getsockname())
            while thread.is_alive():
                client.send(b"end")
                thread.join(0.1)  # it was lost, if there was no room for it
    assert came > 100


# -- the examples ------------------------------------------------------------------------------------------------------


def example(place: Place, name: str, *words: str) -> str:
    """The command line of an example, with the library as it is in the built file."""
    shutil.copy(EXAMPLES / f"{name}.py", place.path)
    python = f"env PYTHONPATH={place.box.dist}/r2box PYTHONDONTWRITEBYTECODE=1 python3 -W error"
    return " ".join([python, f"{name}.py", *words])


@pytest.mark.old_and_new
def test_example_two_nodes(place: Place) -> None:
    result = place.run(example(place, "two_nodes", str(free_port())), patience=30)
    assert result.status == 0, result
    assert result.out.splitlines() == [
        "linked to bob", "WHO IS THERE?", "hello alice: who is there?",
        "['alice', 'service/greet', 'service/upper'] True",
    ]  # fmt: skip


@pytest.mark.old_and_new
def test_example_asyncio_echo(place: Place) -> None:
    place.pair()
    place.serve("bob", "cat", "echo")
    result = place.run(example(place, "asyncio_echo", "bob/echo"), R2_SOCKET="alice.sock", patience=30)
    assert result.out.splitlines() == [f"conversation {number}" for number in range(10)], result


@pytest.mark.old_and_new
def test_example_web(place: Place) -> None:
    place.pair()
    (place.path / "hello.txt").write_text("hello from a file\n")
    server = place.start(example(place, "web", "web"), R2_SOCKET="bob.sock").prints("serving")
    request = b"GET /hello.txt HTTP/1.0\r\n\r\n"
    answer = place.run("r2 -s alice.sock -t bob/web tunnel -", request, patience=20).out
    assert answer.startswith("HTTP/1.0 200 OK")
    assert answer.endswith("hello from a file\n")
    server.says("alice/child/")
    server.send(signal.SIGTERM)
    server.ends(None)


@pytest.mark.old_and_new
def test_example_embedded(place: Place) -> None:
    place.node("bob")
    place.start("r2 -s bob.sock connect unix-listen://link.sock")
    place.await_socket("link.sock")
    place.serve("bob", "cat", "cat")
    result = place.run(example(place, "embedded", "carl.sock", "unix://link.sock", "bob/cat"), patience=30)
    assert result.out == "linked to bob\nhello from inside\n", result


@pytest.mark.old_and_new
def test_example_own_loop(place: Place) -> None:
    """The protocol, pure, against a real daemon, both ways."""
    port = free_port()
    (place.path / "bob.toml").write_text('[self]\naddr = "bob"\nsocket = "bob.sock"\ncmd = "rev"\n')
    place.start("r2dm -v -f bob.toml").says("listening at")
    place.start(f"r2 -s bob.sock connect tcp-listen://127.0.0.1:{port}")
    await_port(port)
    guest = place.start(example(place, "own_loop", str(port))).prints("linked to bob").prints("olleh True")
    assert place.run("r2 -s bob.sock -t guest/upper tunnel -", b"hello" * 100_000, patience=20).out == "HELLO" * 100_000
    guest.send(signal.SIGTERM)
    guest.ends(None)


USER = """
from __future__ import annotations
import socket
import r2box

def use(path: str) -> float:
    sock: socket.socket = r2box.dial(path, timeout=1.5)
    with r2box.Session() as session:
        names: list[str] = [entry.name for entry in session.ls("bob")]
    for conn, origin in r2box.serve("echo", allow=["bob/*"]):
        conn.sendall(origin.encode() + names[0].encode())
    with r2box.Node("alice", socket="x") as node:
        address: str = node.connect("tcp://host:1", retry=True).wait(timeout=2)
        node.offer("x" + address, "cat")
    try:
        return r2box.ping("bob")
    except r2box.RefusedError as error:
        raise SystemExit(str(error)) from None
"""


def test_a_users_file_is_checked_by_mypy(tmp_path: Path) -> None:
    """Against the package as pip installs it."""
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("man", "r2box"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", site, source], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (site / "r2box" / "py.typed").exists()
    user = tmp_path / "user"
    user.mkdir()
    (user / "good.py").write_text(USER)
    (user / "bad.py").write_text("import r2box\nr2box.ping(1).upper()\n")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache")]
    env = {**os.environ, "MYPYPATH": "", "PYTHONPATH": str(site)}

    def check(name: str) -> str:
        return subprocess.run([*mypy, name], cwd=user, env=env, capture_output=True, text=True, timeout=300).stdout

    assert check("good.py").startswith("Success")
    wrong = check("bad.py")
    assert '"float" has no attribute "upper"' in wrong
    assert 'has incompatible type "int"; expected "str"' in wrong


def test_the_librarys_names() -> None:
    assert set(r2box.__all__) <= set(dir(r2box))  # which `help(r2box)` goes by
    for name in r2box.__all__:
        assert getattr(r2box, name) is not None
        assert name == "__version__" or getattr(r2box, name).__doc__, f"{name} says nothing of itself"
    assert [name for name in dir(r2box.NodeLink) if name[0] != "_"] == ["close", "wait"]
    with pytest.raises(AttributeError):
        r2box.nothing  # noqa: B018

"""The library: what `r2box.dial`, `r2box.serve` and `r2box.Session` give to a program in Python."""

from __future__ import annotations

import asyncio
import gc
import http.client
import http.server
import os
import signal
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import pytest

import r2box
from r2box.errors import AddressError, DaemonError, RefusedError
from support.processes import PATIENCE, Place, Program, children, eventually, open_files

MIB = 1 << 20
Handle = Callable[[socket.socket, str], None]
WAYS = pytest.mark.parametrize(
    "from_",
    ["alice.sock", "bob.sock", "alice.fwd", "bob.fwd"],
    ids=["remote", "local", "remote-relayed", "local-relayed"],
)
DIRECT = ("alice.sock", "bob.sock")  # remote, local


@pytest.fixture
def pair(place: Place, monkeypatch: pytest.MonkeyPatch) -> tuple[Program, Program]:
    """alice and bob, linked; this process is in their directory."""
    monkeypatch.chdir(place.path)
    return place.pair()


@contextmanager
def nothing_left(*daemons: Program) -> Iterator[None]:
    """At the end they, and we, have no more descriptors than at the beginning."""
    pids = [os.getpid(), *(daemon.pid for daemon in daemons)]
    before = [open_files(pid) for pid in pids]
    yield
    gc.collect()

    def excess() -> list[int]:
        return [open_files(pid) - number for pid, number in zip(pids, before)]

    eventually(lambda: max(excess()) <= 0, lambda: f"descriptors to be closed, of us and of the daemons: {excess()}")


def forward(place: Place, from_: str) -> None:
    """What NODE.fwd, if that is `from_`, leads to."""
    if from_.endswith(".fwd"):
        place.forward_socket(from_[:-4])


def converse(sock: socket.socket, data: bytes) -> bytes:
    """Send all of `data` and its end, and return what comes back."""
    sock.settimeout(PATIENCE)

    def work() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=work)
    sender.start()
    got = read_all(sock)
    sender.join()
    return got


def not_in_time(path: str, from_: str) -> None:
    """A tunnel to `path`, where the daemon answers and the service does not."""

    def missed() -> str:
        with pytest.raises(TimeoutError) as error:
            r2box.dial(path, socket=from_, timeout=0.1)
        return str(error.value)

    eventually(lambda: missed().startswith(f"{path}: not open within "), "the daemon to answer within 0.1 s")


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(MIB), b""))


class Service:
    """A service of the library in a thread: `handle(sock, origin)` for each tunnel, each in a thread of its own."""

    def __init__(self, name: str, handle: Handle, allow: Iterable[str] = ()) -> None:
        self.origins: list[str] = []
        self.error: Exception | None = None
        self._handle = handle
        self._tunnels = r2box.serve(name, socket="bob.sock", allow=allow)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self._tunnels.close()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        try:
            for sock, origin in self._tunnels:
                self.origins.append(origin)
                threading.Thread(target=self._one, args=(sock, origin), daemon=True).start()
        except DaemonError as error:
            self.error = error

    def _one(self, sock: socket.socket, origin: str) -> None:
        with sock:
            self._handle(sock, origin)


def echo(sock: socket.socket, origin: str) -> None:
    while True:
        data = sock.recv(MIB)
        if not data:
            break
        sock.sendall(data)


SERVER = """
import sys, threading
import r2box
def echo(sock, origin):
    with sock:
        sock.sendall(origin.encode() + b"\\n")
        while True:
            data = sock.recv(1 << 20)
            if not data:
                break
            sock.sendall(data)
tunnels = r2box.serve(sys.argv[1], allow=sys.argv[2:])
print("offering", flush=True)
for sock, origin in tunnels:
    threading.Thread(target=echo, args=(sock, origin), daemon=True).start()
"""

CLIENT = """
import sys, threading
import r2box
with r2box.dial(sys.argv[1], timeout=20) as sock:
    data = bytes(range(256)) * 8192
    threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(1)), daemon=True).start()
    origin = b""
    while not origin.endswith(b"\\n"):
        origin += sock.recv(1)
    got = b""
    while True:
        piece = sock.recv(1 << 20)
        if not piece:
            break
        got += piece
    assert got == data, len(got)
    print(origin.decode().strip(), sock.family.name, sock.getblocking(), sock.gettimeout())
"""


def python(place: Place, script: str, *words: str) -> str:
    """A command line that runs `script` with the library as it is in the built file."""
    name = place.path / f"script{abs(hash(script))}.py"
    name.write_text(script)
    return " ".join([f"env PYTHONPATH={place.box.dist}/r2box python3 -W error {name.name}", *words])


# -- dial and serve ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["bob.sock", "bob.fwd"], ids=["server", "server-relayed"])
@pytest.mark.parametrize("from_", ["alice.sock", "bob.sock", "bob.fwd"], ids=["remote", "local", "relayed"])
def test_two_programs(place: Place, from_: str, at: str) -> None:
    """As a user writes them, with R2_SOCKET and the built file."""
    place.pair()
    if "bob.fwd" in (from_, at):
        forward(place, "bob.fwd")
    server = place.start(python(place, SERVER, "echo"), R2_SOCKET=at).prints("offering")
    origin = "alice/child/" if from_ == "alice.sock" else "child/"
    client = place.run(python(place, CLIENT, "bob/echo"), R2_SOCKET=from_)
    assert client.out.startswith(origin)
    assert client.out.endswith(" AF_UNIX True None\n")
    tool = place.run(f"r2 -s {from_} -t bob/echo tunnel -", b"from a tool")
    assert tool.out.startswith(origin)
    assert tool.out.endswith("\nfrom a tool")
    server.send(signal.SIGTERM)
    server.ends(None)


@WAYS
def test_dial(place: Place, pair: tuple[Program, Program], from_: str) -> None:
    forward(place, from_)
    place.serve("bob", "cat", "cat")
    place.serve("bob", "sort", "sort")
    data = os.urandom(4 * MIB)
    with nothing_left(*pair):
        with r2box.Session(from_) as session:
            assert session.address == from_.partition(".")[0]
            with session.dial("bob/cat", timeout=PATIENCE) as sock:
                assert sock.getblocking()
                assert os.get_blocking(sock.fileno())
                assert not os.get_inheritable(sock.fileno())
                assert converse(sock, data) == data
            with session.dial("bob/sort") as sock:
                assert converse(sock, b"b\na\n") == b"a\nb\n"
        with r2box.dial("bob/cat", socket=from_) as sock:  # its session is over already
            assert converse(sock, data) == data
        with pytest.raises(RefusedError, match="does not know nobody"):
            r2box.dial("bob/nobody", socket=from_)


def test_what_was_sent_arrives_though_the_socket_is_closed_at_once(place: Place, pair: object) -> None:
    place.serve("bob", "cat >part.$$; mv part.$$ whole.$$", "sink")
    data = os.urandom(5 * MIB)
    for from_ in DIRECT:
        for _ in range(8):
            with r2box.dial("bob/sink", socket=from_) as sock:
                sock.sendall(data)
            whole = eventually(lambda: list(place.path.glob("whole.*")), "what was sent")[0]
            assert whole.read_bytes() == data
            whole.unlink()


def test_a_service_that_ends_first_is_read_to_its_end(place: Place, pair: object) -> None:
    place.serve("bob", "head -c 3000000 /dev/zero", "zeros")
    for from_ in DIRECT:
        for wait in (0.0, 0.0, 0.2):
            with r2box.dial("bob/zeros", socket=from_) as sock:
                sock.settimeout(PATIENCE)
                time.sleep(wait)
                assert len(read_all(sock)) == 3_000_000


def test_serve(place: Place, pair: tuple[Program, Program]) -> None:
    data = os.urandom(3 * MIB)
    for from_ in DIRECT:
        with nothing_left(*pair), Service("echo", echo) as service:
            with r2box.dial("bob/echo", socket=from_) as sock:
                assert converse(sock, data) == data
            assert service.origins[0].startswith("alice/child/" if from_ == "alice.sock" else "child/")
            assert place.run(f"r2 -s {from_} -t bob/echo tunnel -", data).raw == data
            lines = place.run(
                f"r2 -s {from_} -t bob/echo tunnel 'echo question; read answer; echo got $answer >&2'"
            ).err
            assert lines == "got question\n"
    eventually(lambda: place.run("r2 -s bob.sock ls").out == "alice\n", "the end of the services")


def test_each_side_ends_its_direction_by_itself(place: Place, pair: tuple[Program, Program]) -> None:
    got: list[bytes] = []

    def early(sock: socket.socket, origin: str) -> None:
        sock.sendall(b"hi")
        sock.shutdown(socket.SHUT_WR)
        got.append(read_all(sock))

    with nothing_left(*pair), Service("early", early):
        for from_ in ("alice.sock", "bob.sock"):
            with r2box.dial("bob/early", socket=from_) as sock:
                sock.settimeout(PATIENCE)
                assert read_all(sock) == b"hi"
                sock.sendall(b"still listening")
                sock.shutdown(socket.SHUT_WR)
            eventually(lambda: bool(got), "what came after our end")
            assert got.pop() == b"still listening"


def test_allow(place: Place, pair: tuple[Program, Program]) -> None:
    mine, theirs = Service("mine", echo, "child/*"), Service("theirs", echo, ["alice/*"])
    with nothing_left(*pair), mine, theirs:
        r2box.dial("bob/mine", socket="bob.sock").close()
        r2box.dial("bob/theirs", socket="alice.sock").close()
        with pytest.raises(RefusedError, match="not for alice"):
            r2box.dial("bob/mine", socket="alice.sock")
        with pytest.raises(RefusedError, match="not for local"):
            r2box.dial("bob/theirs", socket="bob.sock")


def test_two_services_of_one_session(place: Place, pair: tuple[Program, Program]) -> None:
    with nothing_left(*pair), r2box.Session("bob.sock") as session:
        services = {name: session.serve(name) for name in ("one", "two")}
        clients = {}
        for name in services:
            clients[name] = place.start(f"r2 -s bob.sock -t {name} tunnel -")
            eventually(lambda: place.run("r2 -s bob.sock status").out.count("child/") == len(clients), name)
        for name in ("two", "one"):
            with next(services[name])[0] as sock:
                sock.sendall(name.encode())
            clients[name].prints(name).ends(0)


@pytest.mark.every_python
@pytest.mark.parametrize("at", ["bob.sock", "bob.fwd"], ids=["direct", "forwarded"])
def test_a_service_is_closed(place: Place, pair: tuple[Program, Program], at: str) -> None:
    """Before anybody has asked for its first tunnel, in another thread than waits for one, in a signal handler."""
    forward(place, at)

    def is_gone() -> bool:
        return r2box.ls(socket="bob.sock", timeout=PATIENCE) == [("node", "alice", "")]

    with nothing_left(*pair):
        service = r2box.serve("x", socket=at)
        assert not is_gone()
        service.close()
        service.close()
        eventually(is_gone, "the end of it")
        assert list(service) == []
        service = r2box.serve("x", socket=at)
        waits = threading.Thread(target=list, args=(service,))
        waits.start()
        eventually(lambda: service._is_waiting, "the wait")
        service.close()
        waits.join(PATIENCE)
        assert not waits.is_alive()
        eventually(is_gone, "the end of it")
        with r2box.serve("x", socket=at) as service:
            before = signal.signal(signal.SIGALRM, lambda *_: service.close())
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            assert list(service) == []
            signal.signal(signal.SIGALRM, before)
        eventually(is_gone, "the end of it")
        r2box.serve("x", socket=at)  # which nobody holds
        eventually(is_gone, "the end of it")


@pytest.mark.every_python
@pytest.mark.parametrize("at", ["bob.sock", "bob.fwd"], ids=["direct", "forwarded"])
def test_a_service_that_forks(place: Place, pair: tuple[Program, Program], at: str) -> None:
    """A child for each tunnel takes nothing from its parent when it ends, and keeps nobody from closing the service."""
    forward(place, at)
    with nothing_left(*pair):
        service = r2box.serve("x", socket=at)
        for _ in range(3):
            client = place.start("echo hello | r2 -s alice.sock -t bob/x tunnel -")
            sock, _ = next(service)
            child = os.fork()
            if not child:
                signal.alarm(20)
                try:
                    sock.sendall(read_all(sock))
                    with pytest.raises(DaemonError, match="parent process"):
                        next(service)
                    service.close()
                    os._exit(7)
                finally:
                    os._exit(1)
            sock.close()
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            client.prints("hello").ends(0)
        child = os.fork()
        if not child:
            signal.pause()
            os._exit(0)
        try:
            waits = threading.Thread(target=list, args=(service,))
            waits.start()
            eventually(lambda: service._is_waiting, "the wait")
            closes = threading.Thread(target=service.close, daemon=True)
            closes.start()
            waits.join(PATIENCE)
            assert not waits.is_alive()
            closes.join(PATIENCE)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def test_many(place: Place, pair: tuple[Program, Program]) -> None:
    with nothing_left(*pair), Service("echo", echo) as service:
        for from_ in ("alice.sock", "bob.sock"):
            with r2box.Session(from_) as session:
                socks = list(session.dial_all(["bob/echo"] * 150))
            for number, sock in enumerate(socks):
                sock.settimeout(PATIENCE)
                sock.sendall(b"%d" % number)
            for number, sock in enumerate(socks):
                assert sock.recv(100) == b"%d" % number
                sock.close()
        assert len(service.origins) == 300


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.every_python
def test_errors(pair: tuple[Program, Program], place: Place) -> None:
    with nothing_left(*pair):
        for call in (lambda: r2box.dial("cat", socket="nobody.sock"), lambda: r2box.serve("x", socket="nobody.sock")):
            with pytest.raises(DaemonError, match=r"nobody\.sock: no daemon"):
                call()
        with pytest.raises(RefusedError, match="bob: does not know nobody"):
            r2box.dial("bob/nobody", socket="alice.sock")
        for path in ("a b", "bob//cat", "x" * 65, "/"):
            with pytest.raises(AddressError):
                r2box.dial(path, socket="bob.sock")
            with pytest.raises(AddressError):
                r2box.serve(path, socket="bob.sock")
        with r2box.Session("bob.sock") as session:
            tunnels = session.serve("taken")
            with pytest.raises(RefusedError, match="already"):
                r2box.serve("taken", socket="bob.sock")
            with pytest.raises(RefusedError):
                session.dial("nobody")
            del tunnels
        session.close()  # again
        eventually(lambda: "taken" not in place.run("r2 -s bob.sock ls").out, "the end of its service")
        with pytest.raises(RefusedError, match="bob"):
            r2box.dial("", socket="bob.sock")  # no command of its own


def test_a_session_that_is_closed(place: Place, pair: tuple[Program, Program]) -> None:
    with nothing_left(*pair):
        session = r2box.Session("bob.sock")
        tunnels = session.serve("x")
        session.close()
        with pytest.raises(DaemonError, match=r"bob\.sock: the session is closed"):
            session.dial("bob/x")
        with pytest.raises(DaemonError, match="closed"):
            next(tunnels)


def test_the_daemon_goes_away(place: Place, pair: tuple[Program, Program]) -> None:
    place.serve("bob", "cat", "cat")
    with nothing_left(pair[0]):
        service = Service("echo", echo)
        with r2box.Session("bob.sock") as session, session.dial("bob/cat") as local:
            remote = r2box.dial("bob/cat", socket="alice.sock")
            pair[1].kill()
            with pytest.raises(DaemonError, match="daemon closed the connection"):
                session.dial("bob/cat")
            eventually(lambda: service.error is not None, "the service to hear of it")
            local.settimeout(PATIENCE)
            assert read_all(local) == b""  # r2 serve has hung up
            with remote:
                pair[0].says("link to bob suspended")
                remote.settimeout(0.3)
                with pytest.raises(OSError, match="timed out"):  # it waits for another transport to bob
                    remote.recv(1)
                not_in_time("bob/cat", "alice.sock")
                place.node("bob")
                place.link("alice", "bob").send(signal.SIGTERM)
                remote.settimeout(PATIENCE)
                assert read_all(remote) == b""  # as from a connection that its other end closed


def test_timeouts(place: Place, pair: tuple[Program, Program]) -> None:
    """A server that does not answer, until it does."""
    server = place.serve("bob", "cat", "cat")
    with nothing_left(*pair):
        server.send(signal.SIGSTOP)
        for from_ in ("alice.sock", "bob.sock"):
            not_in_time("bob/cat", from_)
        with r2box.Session("alice.sock") as session:
            for _ in range(2):
                with pytest.raises(TimeoutError, match="bob/cat"):
                    session.dial("bob/cat", timeout=0.1)
            server.send(signal.SIGCONT)
            with session.dial("bob/cat", timeout=PATIENCE) as sock:  # a late answer is not taken for this one's
                assert converse(sock, b"hello") == b"hello"
            eventually(lambda: not children(server.pid), "the end of what nobody wants any more")


@pytest.mark.parametrize("at", ["bob.sock", "bob.fwd"], ids=["direct", "forwarded"])
def test_what_nobody_takes_is_closed(place: Place, pair: tuple[Program, Program], at: str) -> None:
    """Not when it is collected, with a warning: at once."""
    forward(place, at)
    place.serve("bob", "cat", "cat")
    with nothing_left(*pair), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with r2box.Session(at) as session:
            some = session.dial_all(["bob/cat"] * 30)
            next(some).close()
            session.ping()
            some.close()  # type: ignore[attr-defined]
            more = session.dial_all(["bob/cat", "nobody", "bob/cat"])
            next(more).close()
            with pytest.raises(RefusedError, match="nobody"):
                next(more)
            session.ping()
        session = r2box.Session(at)
        session.serve("x")
        others = [threading.Thread(target=lambda: r2box.dial("x", socket="bob.sock").close()) for _ in range(3)]
        for other in others:
            other.start()
        eventually(lambda: session.ping() and not any(other.is_alive() for other in others), "three tunnels")
        session.close()
        gc.collect()
    assert [str(warning.message) for warning in warned] == []


def test_a_limit(place: Place, pair: tuple[Program, Program]) -> None:
    with nothing_left(*pair), r2box.Session("alice.sock") as session:
        socks = [session.dial("bob/r2.bench") for _ in range(8)]
        with pytest.raises(r2box.BusyError, match="8 tunnels"):
            session.dial("bob/r2.bench")
        for sock in socks:
            sock.close()


# -- with other things -------------------------------------------------------------------------------------------------


def test_two_sessions_in_two_threads(place: Place, pair: tuple[Program, Program]) -> None:
    problems: list[object] = []

    def work(from_: str) -> None:
        try:
            with r2box.Session(from_) as session:
                for number in range(40):
                    with session.dial("bob/echo", timeout=PATIENCE) as sock:
                        data = b"%d" % number * 1000
                        assert converse(sock, data) == data
        except BaseException as error:
            problems.append(error)

    with nothing_left(*pair), Service("echo", echo):
        threads = [threading.Thread(target=work, args=(from_,)) for from_ in ("alice.sock", "bob.sock")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert not problems


def test_a_tunnel_outlives_its_session(place: Place, pair: tuple[Program, Program]) -> None:
    place.serve("bob", "cat", "cat")
    for from_ in DIRECT:
        with nothing_left(*pair):
            session = r2box.Session(from_)
            sock = session.dial("bob/cat")
            session.close()
            with sock:
                for number in range(3):
                    sock.settimeout(PATIENCE)
                    sock.sendall(b"%d" % number)
                    assert sock.recv(10) == b"%d" % number


def test_asyncio(place: Place, pair: tuple[Program, Program]) -> None:
    place.serve("bob", "cat", "cat")
    data = os.urandom(2 * MIB)

    async def talk(from_: str) -> bytes:
        reader, writer = await asyncio.open_connection(sock=r2box.dial("bob/cat", socket=from_))
        writer.write(data)
        writer.write_eof()
        got = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        await writer.wait_closed()
        return got

    with nothing_left(*pair):
        for from_ in DIRECT:
            assert asyncio.run(talk(from_)) == data


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.upper())

    def log_message(self, format: str, *args: object) -> None:
        return


def test_http(place: Place, pair: tuple[Program, Program]) -> None:
    """http.server behind a service, http.client in front of it."""

    def handle(sock: socket.socket, origin: str) -> None:
        Handler(sock, (origin, 0), None)  # type: ignore[arg-type]

    for from_ in DIRECT:
        with nothing_left(*pair), Service("web", handle):
            connection = http.client.HTTPConnection("bob")
            connection.sock = r2box.dial("bob/web", socket=from_)
            connection.request("POST", "/", b"hello" * 100_000)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, b"HELLO" * 100_000)
            connection.close()


def test_a_service_that_is_a_port(place: Place, pair: tuple[Program, Program]) -> None:
    """A local one gives the very connection, blocking as all that `dial` gives."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place.serve("bob", f"tcp://127.0.0.1:{listener.getsockname()[1]}", "port")
        for from_ in DIRECT:
            with nothing_left(*pair), r2box.dial("bob/port", socket=from_) as sock:
                assert sock.family == (socket.AF_INET if from_ == "bob.sock" else socket.AF_UNIX)
                assert os.get_blocking(sock.fileno())
                connection, _ = listener.accept()
                with connection:
                    sock.sendall(b"hello")
                    sock.shutdown(socket.SHUT_WR)
                    connection.settimeout(PATIENCE)
                    assert read_all(connection) == b"hello"
                    connection.sendall(b"answer" * 100_000)
                sock.settimeout(PATIENCE)
                assert read_all(sock) == b"answer" * 100_000


def test_the_default_daemon(place: Place, pair: object, monkeypatch: pytest.MonkeyPatch) -> None:
    place.serve("bob", "echo $R2_ORIGIN", "origin")
    monkeypatch.setenv("R2_SOCKET", str(place.path / "alice.sock"))
    with r2box.dial("bob/origin") as sock:
        assert read_all(sock).startswith(b"alice/child/")
    with r2box.Session() as session:
        assert session.address == "alice"


def test_children_inherit_nothing(place: Place, pair: tuple[Program, Program]) -> None:
    """A program that is started meanwhile does not keep a tunnel open."""

    def listing() -> str:
        return subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True, text=True).stdout

    place.serve("bob", "cat", "cat")
    with nothing_left(*pair):
        before = listing()
        with r2box.Session("bob.sock") as session, session.dial("bob/cat"):
            assert listing() == before


def test_nothing_is_left(place: Place, pair: tuple[Program, Program]) -> None:
    with nothing_left(*pair), Service("echo", echo):
        for _ in range(20):
            for from_ in ("alice.sock", "bob.sock"):
                with r2box.dial("bob/echo", socket=from_) as sock:
                    assert converse(sock, b"hello") == b"hello"
                r2box.dial("bob/echo", socket=from_).close()
                with pytest.raises(RefusedError):
                    r2box.dial("bob/nobody", socket=from_)

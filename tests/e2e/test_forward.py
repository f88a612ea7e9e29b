"""Forwarding: services of other nodes at ports of this host, for real clients and for bare sockets.

What a forwarded connection has in common with all ends of tunnels is in test_tunnel_contract.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from r2box.net.daemon.clients import HANGUP_TIME
from support.processes import Place, Program, await_port, eventually, free_port, need, open_files

MIB = 1 << 20
HOME = "127.0.0.1"


# -- helpers -----------------------------------------------------------------------------------------------------------


def forward(place: Place, target: str, transport: str = "tcp-listen://127.0.0.1:0", options: str = "") -> Program:
    return place.start(f"r2 -s alice.sock -t {target} forward {options} '{transport}'").says("listening at")


def port_of(program: Program) -> int:
    """The port that the system gave, as the program tells it."""
    found = re.search(r"listening at .*:(\d+)\n", program.err)
    assert found is not None, program
    return int(found[1])


def dial(port: int) -> socket.socket:
    return socket.create_connection((HOME, port), 20)


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def is_reset(sock: socket.socket) -> bool:
    try:
        read_all(sock)
    except ConnectionResetError:
        return True
    return False


def is_refused(port: int) -> bool:
    """By a reset, which may come before connect() has returned."""
    try:
        with dial(port) as client:
            return is_reset(client)
    except ConnectionResetError:
        return True


def fill(sock: socket.socket, most: int) -> int:
    """Send until nothing goes any more; how many bytes that were."""
    sent = 0
    try:
        while sent < most:
            sent += sock.send(bytes(MIB))
    except socket.timeout:
        return sent
    return sent


class Peer:
    """A server of ours whose connections a test has in its hands."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._sock = stack.enter_context(socket.create_server((HOME, 0), backlog=2000))
        self._sock.settimeout(20)
        self.port: int = self._sock.getsockname()[1]

    def take(self) -> socket.socket:
        sock = self._stack.enter_context(self._sock.accept()[0])
        sock.settimeout(20)
        return sock

    def close(self) -> None:
        self._sock.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    with ExitStack() as stack:
        yield Peer(stack)


def offer(place: Place, at: str, port: int, name: str = "web") -> None:
    """The port as a service of bob, who is `at` another node or the same."""
    place.serve(at, f"tcp://127.0.0.1:{port}", name)


# The service is at another node, or at the one that is asked, which then has no part in the bytes.
AT = pytest.mark.parametrize("at", ["bob", "alice"], ids=["remote", "local"])


@pytest.fixture
def nodes(place: Place) -> Place:
    place.pair()
    return place


# -- what a connection is told -----------------------------------------------------------------------------------------


@AT
def test_a_refusal_is_a_reset(nodes: Place, at: str) -> None:
    offer(nodes, at, free_port())
    program = forward(nodes, f"{at}/web")
    assert is_refused(port_of(program))
    program.says("service/web: Connection refused")
    assert program.runs


def test_a_service_that_is_not_there_is_a_reset(nodes: Place) -> None:
    program = forward(nodes, "bob/nothing")
    assert is_refused(port_of(program))
    program.says("does not know nothing")


@pytest.mark.parametrize("victim", ["alice", "bob"])
def test_a_daemon_that_is_killed_is_no_end_of_a_file(nodes: Place, peer: Peer, victim: str) -> None:
    offer(nodes, "bob", peer.port)
    program = forward(nodes, "bob/web")
    with dial(port_of(program)) as client:
        peer.take().sendall(b"part of it")
        assert client.recv(10) == b"part of it"
        node = next(program for program in nodes.programs if program.line.endswith(f" {victim}"))
        if victim == "alice":
            node.kill()
            program.ends(1)
            assert "the daemon closed the connection" in program.err
        else:
            node.send(signal.SIGTERM)
            node.ends(0)
        assert is_reset(client)


def test_a_failure_shows_at_a_unix_socket_at_once(nodes: Place, peer: Peer) -> None:
    offer(nodes, "bob", peer.port)
    forward(nodes, "bob/web", "unix-listen://here.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(f"{nodes.path}/here.sock")
        sock.sendall(b"a")
        far = peer.take()
        assert far.recv(1) == b"a"
        began = time.monotonic()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        assert sock.recv(1) == b""
        assert time.monotonic() - began < HANGUP_TIME


def test_retry_waits_for_the_daemon(place: Place, peer: Peer) -> None:
    port = free_port()
    program = place.start(f"r2 -s alice.sock -t web forward --retry tcp-listen://127.0.0.1:{port}").says("no daemon")
    for times in (1, 2):
        alice = place.node("alice")
        offer(place, "alice", peer.port)
        program.says("the daemon is there", times)
        program.says("listening at")
        with dial(port) as client:
            peer.take().sendall(b"hello")
            assert client.recv(5) == b"hello"
        alice.send(signal.SIGTERM)
        alice.ends(0)
        program.says("trying again", times + 1)
        eventually(lambda: is_refused(port), "a reset")


def test_a_slow_reader_is_waited_for(nodes: Place, peer: Peer) -> None:
    offer(nodes, "bob", peer.port)
    program = forward(nodes, "bob/web")
    with dial(port_of(program)) as client:
        server = peer.take()
        server.settimeout(0.5)
        sent = fill(server, 512 * MIB)
        assert sent < 128 * MIB
        server.close()
        assert len(read_all(client)) == sent


def test_a_thousand_connections_at_once(nodes: Place, peer: Peer) -> None:
    count = 1000
    offer(nodes, "bob", peer.port)
    program = forward(nodes, "bob/web")
    port = port_of(program)
    with ExitStack() as stack:
        clients = [stack.enter_context(dial(port)) for _ in range(count)]
        for number, client in enumerate(clients):
            client.sendall(struct.pack("!I", number))
        servers = [peer.take() for _ in range(count)]
        for server in servers:
            server.sendall(server.recv(4, socket.MSG_WAITALL))
            server.shutdown(socket.SHUT_WR)
        for number, client in enumerate(clients):
            assert read_all(client) == struct.pack("!I", number)
    for server in servers:
        server.close()
    eventually(lambda: open_files(program.pid) < 30, "the end of all connections")


def test_where_it_listens(nodes: Place) -> None:
    nodes.serve("bob", "cat", "echo")
    taken = port_of(forward(nodes, "bob/echo"))
    at_home = forward(nodes, "bob/echo", "tcp-listen://:0")
    assert f"127.0.0.1:{port_of(at_home)}" in at_home.err
    assert "0.0.0.0" not in at_home.err
    both = nodes.start("r2-forward -s alice.sock -t bob/echo tcp-listen://127.0.0.1:0 unix-listen://echo.sock")
    both.says("listening at", 2)
    for address in (f"tcp:127.0.0.1:{port_of(at_home)}", f"tcp:127.0.0.1:{port_of(both)}", "unix:echo.sock"):
        need("socat")
        assert nodes.run(f"socat -t 10 - {address}", b"hello").out == "hello"
    behind = nodes.start("r2 forward tcp-listen://127.0.0.1:0 -s alice.sock unix-listen://behind.sock -t bob/echo")
    behind.says("listening at", 2)
    line = "r2 -s alice.sock -t bob/echo forward "
    again = nodes.run(f"{line} tcp-listen://127.0.0.1:{taken}", status=1)
    assert again.err == f"r2-forward: tcp-listen://127.0.0.1:{taken}: Address already in use\n"
    assert "does not listen" in nodes.run(f"{line} tcp://127.0.0.1:1", status=2).err
    assert "does not listen" in nodes.run(f"{line} cat", status=2).err
    assert "which service" in nodes.run("r2 -s alice.sock forward unix-listen://x", status=2).err
    assert "no daemon" in nodes.run("r2 -s nobody.sock -t bob/echo forward unix-listen://x", status=1).err
    both.send(signal.SIGTERM)
    both.ends(0)
    assert not (nodes.path / "echo.sock").exists()


# -- real clients ------------------------------------------------------------------------------------------------------


class Web(BaseHTTPRequestHandler):
    """Streams /stream in chunks, one for each time that the test allows it, and digests what is posted."""

    protocol_version = "HTTP/1.1"
    go = threading.Semaphore(0)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(3):
            self.wfile.write(b"7\r\nchunk %d\r\n" % number)
            self.go.acquire(timeout=20)
        self.wfile.write(b"0\r\n\r\n")

    def do_POST(self) -> None:
        left, digest = int(self.headers["Content-Length"]), hashlib.sha256()
        while left:
            data = self.rfile.read(min(left, MIB))
            digest.update(data)
            left -= len(data)
        answer = f"{digest.hexdigest()} {self.client_address[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def web() -> Iterator[int]:
    with ThreadingHTTPServer((HOME, 0), Web) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@AT
def test_curl(nodes: Place, web: int, at: str) -> None:
    need("curl")
    offer(nodes, at, web)
    url = f"http://127.0.0.1:{port_of(forward(nodes, f'{at}/web'))}"
    stream = nodes.start(f"curl -sSN {url}/stream")
    for number in range(3):
        stream.prints(f"chunk {number}")
        assert f"chunk {number + 1}" not in stream.out
        Web.go.release()
    stream.ends(0)
    data = os.urandom(20 * MIB)
    (nodes.path / "big").write_bytes(data)
    posted = nodes.run(f"curl -sS --data-binary @big {url}/a --next -sS --data-binary @big {url}/b").out.split()
    assert posted[::2] == [hashlib.sha256(data).hexdigest()] * 2
    assert posted[1] == posted[3], "the connection was not kept"


def test_redis(nodes: Place) -> None:
    need("redis-server", "redis-cli")
    nodes.start("redis-server --port 0 --unixsocket redis.sock --save '' --appendonly no --dir .")
    nodes.await_socket("redis.sock")
    nodes.serve("bob", f"unix://{nodes.path}/redis.sock", "redis")
    forward(nodes, "bob/redis", "unix-listen://here.sock")
    tcp = f"redis-cli -p {port_of(forward(nodes, 'bob/redis'))}"
    assert nodes.run(f"{tcp} set key value").out == "OK\n"
    assert nodes.run("redis-cli -s here.sock get key").out == "value\n"
    listener = nodes.start(f"{tcp} subscribe news").prints("subscribe")
    eventually(lambda: nodes.run(f"{tcp} publish news fresh").out == "1\n", "a subscriber")
    listener.prints("fresh")
    assert nodes.run(f"{tcp} -x set big", os.urandom(MIB)).out == "OK\n"
    assert nodes.run(f"{tcp} strlen big").out == f"{MIB}\n"


def test_git(nodes: Place) -> None:
    """git daemon as a service of bob's, one run for each tunnel."""
    need("git")
    nodes.run("git init -q --bare -b main store.git && touch store.git/git-daemon-export-ok")
    base = f"--export-all --enable=receive-pack --base-path={nodes.path}"
    nodes.serve("bob", f"git daemon --inetd {base} {nodes.path}", "git")
    url = f"git://127.0.0.1:{port_of(forward(nodes, 'bob/git'))}/store.git"
    (nodes.path / "file").write_bytes(os.urandom(4 * MIB))
    who = "-c user.name=a -c user.email=a@b"
    nodes.run(f"git init -q -b main work && cp file work && cd work && git add . && git {who} commit -qm x")
    nodes.run(f"cd work && git push -q {url} main")
    nodes.run(f"git clone -q {url} copy && cmp file copy/file")


def test_rsync(nodes: Place) -> None:
    need("rsync")
    (nodes.path / "rsync.conf").write_text(
        f"use chroot = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n[files]\n"
        f"path = {nodes.path}/there\nread only = no\n"
    )
    nodes.run("mkdir here there && head -c 5000000 /dev/urandom >here/one && echo x >here/two")
    port = free_port()
    nodes.start(f"rsync --daemon --no-detach --address={HOME} --port={port} --config=rsync.conf")
    await_port(port)
    offer(nodes, "bob", port, "rsync")
    url = f"rsync://127.0.0.1:{port_of(forward(nodes, 'bob/rsync'))}/files/"
    nodes.run(f"rsync -a here/ {url}")
    nodes.run("diff -r here there && echo y >there/four")
    nodes.run(f"rsync -a {url} back/ && diff -r there back")


# -- in a file ---------------------------------------------------------------------------------------------------------

FORWARD = '[[forward]]\nlisten = "tcp-listen://127.0.0.1:{}"\ntarget = "{}"\n'


def test_reload_leaves_the_other_forwards_alone(place: Place) -> None:
    file = place.path / "alice.toml"
    own = '[self]\naddr = "alice"\nsocket = "alice.sock"\n[[serve]]\nname = "echo"\ncmd = "cat"\n'
    ports = [free_port() for _ in range(3)]
    targets = ("echo", "alice/echo", "any/echo")
    first, second, third = (FORWARD.format(port, target) for port, target in zip(ports, targets))
    file.write_text(own + first + second)
    program = place.start("r2dm -f alice.toml").says("listening at 127.0.0.1", 2)
    with dial(ports[0]) as stays, dial(ports[1]) as goes:
        for sock in (stays, goes):
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        file.write_text("# moved\n" + own + third + first)
        program.send(signal.SIGHUP)
        program.says(f"listening at 127.0.0.1:{ports[2]}")
        assert is_reset(goes)
        with pytest.raises(ConnectionRefusedError):
            dial(ports[1])
        with dial(ports[2]) as new:
            for sock in (stays, new):
                sock.sendall(b"y")
                assert sock.recv(1) == b"y"
    assert "1 service, 0 tasks, 2 forwards" in place.run("r2dm --check -f alice.toml").out


def test_who_comes_as_soon_as_it_listens_is_served(place: Place) -> None:
    """Though the daemon behind it has only just begun, and much to do."""
    port = free_port()
    services = "".join(f'[[serve]]\nname = "echo{number}"\ncmd = "cat"\n' for number in range(200))
    own = '[self]\naddr = "alice"\nsocket = "alice.sock"\n'
    (place.path / "alice.toml").write_text(own + services + FORWARD.format(port, "echo199"))
    program = place.start("r2dm -f alice.toml")
    client = None
    while client is None:  # at once, and not only when it says so
        assert program.runs, program
        with contextlib.suppress(ConnectionRefusedError):
            client = dial(port)
    with client:
        client.sendall(b"first")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"first"


def test_a_port_that_is_taken_is_tried_again(place: Place) -> None:
    with socket.create_server((HOME, 0)) as taken:
        port = taken.getsockname()[1]
        (place.path / "alice.toml").write_text('[self]\naddr = "alice"\nsocket = "s"\n' + FORWARD.format(port, "echo"))
        program = place.start("r2dm -f alice.toml").says("Address already in use; trying again")
    program.send(signal.SIGHUP)
    program.says(f"listening at 127.0.0.1:{port}")

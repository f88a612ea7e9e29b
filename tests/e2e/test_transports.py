"""Links and tunnels over every built-in transport, with real processes.

What this machine lacks (a vsock loopback, /dev/net/tun, namespaces) is skipped and says so.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import stat
import subprocess
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from r2box.errors import UsageError
from r2box.net.transport.transport import parse_transport
from r2box.net.transport.urls import CONNECT
from support.namespaces import Namespaces
from support.processes import PATIENCE, Place, Program, eventually, free_port, need


def link(place: Place, transport: str, *, to: str = "", start: bool = True) -> Program:
    """A link of alice over `transport`; with `to`, of somebody else."""
    line = f"r2 -v -s {to or 'alice'}.sock connect '{transport}'"
    return place.start(line).says("linked to") if start else place.start(line)


def works(place: Place) -> None:
    """Both nodes answer each other, and bytes go both ways."""
    place.answers("alice", "bob")
    place.answers("bob", "alice")
    server = place.serve("bob", "tr a-z A-Z", "upper")
    data = b"abcdefgh" * 40_000
    assert place.run("r2 -s alice.sock -t bob/upper tunnel -", data).raw == data.upper()
    server.send(signal.SIGTERM)
    server.ends(0)


def ends(*programs: Program) -> None:
    for program in programs:
        program.send(signal.SIGTERM)
        program.ends(0)


@pytest.fixture
def nodes(place: Place) -> Place:
    place.node("alice")
    place.node("bob")
    return place


# -- links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["x.sock", "@{}"], ids=["file", "abstract"])
def test_unix(nodes: Place, at: str) -> None:
    at = at.format(nodes.path.name)
    listener = link(nodes, f"unix-listen://{at}?keepalive=20s", start=False)
    path = nodes.path / at
    if at.startswith("@"):
        rows = Path("/proc/net/unix")
        what = re.compile(rf" 00010000 .* {at}$", re.MULTILINE)  # it listens
        eventually(lambda: what.search(rows.read_text()), "the socket")
    else:
        nodes.await_socket(at)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        refused = nodes.run(f"r2 -s bob.sock connect unix-listen://{at}", status=1)
        assert "already" in refused.err
    dialled = link(nodes, f"unix://{at}?timeout=5s", to="bob")
    listener.says("linked to bob")
    works(nodes)
    ends(dialled, listener)
    assert not path.exists()


def test_a_stale_socket_is_replaced_and_other_files_are_not(nodes: Place) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(nodes.path / "x.sock"))
    (nodes.path / "file").write_text("precious")
    assert "Connection refused" in nodes.run("r2 -s bob.sock connect unix://x.sock", status=1).err
    listener = link(nodes, "unix-listen://x.sock?mode=660", start=False)
    nodes.await_socket("x.sock")
    eventually(lambda: stat.S_IMODE((nodes.path / "x.sock").stat().st_mode) == 0o660, "the mode of the new socket")
    ends(link(nodes, "unix://x.sock", to="bob"), listener)
    assert "left alone" in nodes.run("r2 -s alice.sock connect unix-listen://file", status=1).err
    assert (nodes.path / "file").read_text() == "precious"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_tcp(nodes: Place, host: str) -> None:
    if host == "[::1]" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    port = free_port()
    listener = link(nodes, f"tcp-listen://{host}:{port}?keepalive=9", start=False)
    bind = f"?bind={'::1' if ':' in host else '127.0.0.1'}&timeout=9s"
    dialled = dial(nodes, f"tcp://{host}:{port}{bind}")
    works(nodes)
    ends(dialled, listener)


def dial(place: Place, transport: str) -> Program:
    """The link of bob over `transport`, as soon as somebody listens there."""

    def dialled() -> Program | None:
        program = link(place, transport, to="bob", start=False)
        eventually(lambda: "linked to" in program.err or not program.runs, "a link or an end")
        return program if program.runs else None

    program = eventually(dialled, "a link")
    assert program is not None
    return program


def test_a_bound_address_of_the_other_family_and_one_that_is_not_ours(nodes: Place) -> None:
    port = free_port()
    result = nodes.run(f"r2 -s alice.sock connect 'tcp://127.0.0.1:{port}?bind=::1'", status=1)
    assert "no address that can be reached from ::1" in result.err
    result = nodes.run(f"r2 -s alice.sock connect 'tcp://127.0.0.1:{port}?bind=192.0.2.1'", status=1)
    assert os.strerror(99) in result.err


def test_a_connection_that_does_not_come_about_in_time(nodes: Place) -> None:
    """A listener with a full queue does not answer."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        result = nodes.run(f"r2 -s alice.sock connect 'tcp://127.0.0.1:{port}?timeout=300ms'", status=1)
        assert os.strerror(110) in result.err


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_udp(nodes: Place, host: str) -> None:
    """Two senders at one port, each with a link of its own; one comes again after it has ended."""
    nodes.node("carl")
    port = free_port(socket.SOCK_DGRAM)
    listener = link(nodes, f"udp-listen://{host}:{port}", start=False)
    await_udp(port)
    dialled = link(nodes, f"udp://{host}:{port}?mtu=600", to="bob")
    other = link(nodes, f"udp://{host}:{port}", to="carl")
    works(nodes)
    nodes.answers("carl", "alice/bob")
    ends(dialled)
    again = link(nodes, f"udp://{host}:{port}?bind={host.strip('[]')}", to="bob")
    works(nodes)
    ends(again, other, listener)


def await_udp(port: int) -> None:
    tables = [Path("/proc/net/udp"), Path("/proc/net/udp6")]
    eventually(lambda: any(f":{port:04X} " in table.read_text() for table in tables if table.exists()), "the port")


def test_udp_takes_only_what_begins_a_link(nodes: Place) -> None:
    port = free_port(socket.SOCK_DGRAM)
    listener = link(nodes, f"udp-listen://127.0.0.1:{port}", start=False)
    await_udp(port)
    refused = nodes.run(f"r2 -s bob.sock connect udp-listen://127.0.0.1:{port}", status=1)
    assert os.strerror(98) in refused.err
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in (b"", b"\0", b"hello", os.urandom(1200)):
            stranger.sendto(data, ("127.0.0.1", port))
    dialled = link(nodes, f"udp://127.0.0.1:{port}", to="bob")
    assert listener.says("linked to bob").err.count("linked to") == 1  # each end says so in its own time
    assert "neighbour" not in listener.err
    ends(dialled, listener)


def test_a_lossy_command_gets_packets(place: Place) -> None:
    """Its stdio is a socket on which each write of the daemon is one read, and no read joins two."""
    place.node("alice")
    line = "r2 -s alice.sock connect --lossy 'readlink /proc/self/fd/0 >&2; exec sleep 60'"
    program = place.start(line).says("socket:")
    inode = program.err.partition("socket:[")[2].partition("]")[0]
    row = next(row.split() for row in Path("/proc/net/unix").read_text().splitlines() if inode in row.split())
    assert row[4] == "0005", "SOCK_SEQPACKET"
    ends(program)


def test_datagrams_of_socat(nodes: Place, socat: None) -> None:
    """A command that is lossy by its nature, at both ends; and one that starts a link for each sender."""
    port = free_port(socket.SOCK_DGRAM)
    first = link(nodes, f"socat udp-l:{port} -", start=False)
    await_udp(port)
    second = link(nodes, f"socat udp:127.0.0.1:{port} -", to="bob")
    first.says("linked to bob")
    works(nodes)
    ends(second)
    first.ends(None)
    starter = nodes.start(f"r2 -v -s alice.sock connect 'socat udp-l:{port},fork exec:-'")
    await_udp(port)
    third = link(nodes, f"socat udp:127.0.0.1:{port} -", to="bob")
    works(nodes)
    ends(third, starter)


@pytest.fixture
def line(place: Place) -> Iterator[tuple[str, str]]:
    """The two ends of a serial line: two terminals that socat joins."""
    need("socat")
    program = place.start("socat pty,rawer,link=tty0 pty,rawer,link=tty1")
    eventually(lambda: all((place.path / name).exists() for name in ("tty0", "tty1")), "the line")
    yield f"{place.path}/tty0", f"{place.path}/tty1"
    if program.runs:
        program.send(signal.SIGTERM)
        program.ends(None)


@pytest.mark.parametrize("options", ["?lossy=0", "?baud=9600&parity=even&flow=rtscts&stop=2&bits=8"])
def test_serial(place: Place, line: tuple[str, str], options: str) -> None:
    place.node("alice")
    place.node("bob")
    first = link(place, f"serial://{line[0]}{options}", start=False)
    second = link(place, f"serial://{line[1]}{options}", to="bob")
    first.says("linked to bob")
    works(place)
    busy = place.run(f"r2 -s bob.sock connect serial://{line[0]}", status=1)
    assert "another program uses this line" in busy.err or os.strerror(16) in busy.err
    ends(second)
    first.send(signal.SIGTERM)
    first.ends(None)


def test_a_serial_line_that_is_none(nodes: Place) -> None:
    for path, why in (("/dev/null", "not a serial line"), ("/dev/nothing", "No such file")):
        assert why in nodes.run(f"r2 -s alice.sock connect serial://{path}", status=1).err


def test_pty_with_a_command(nodes: Place) -> None:
    program = link(nodes, "pty://tty >&2; r2 -s bob.sock connect -")
    assert "/dev/pts/" in program.err
    works(nodes)
    ends(program)
    failed = nodes.run("r2 -s alice.sock connect 'pty://exit 3'", status=1)
    assert "exited with status 3" in failed.err


def test_pty_for_a_program_that_opens_it(nodes: Place) -> None:
    waiting = link(nodes, "pty://?link=modem", start=False)
    path = nodes.path / "modem"
    eventually(path.is_symlink, "the symlink")
    other = link(nodes, f"serial://{path}?lossy=0", to="bob")
    works(nodes)
    ends(other)
    waiting.send(signal.SIGTERM)
    waiting.ends(None)
    assert not path.is_symlink()


def test_fd(nodes: Place) -> None:
    """Inherited descriptors: one for each direction, one for both, and one that nobody has given."""
    os.mkfifo(nodes.path / "there")
    os.mkfifo(nodes.path / "back")
    first = nodes.start("r2 -v -s alice.sock connect fd://3,4 3<>there 4<>back")
    second = nodes.start("r2 -v -s bob.sock connect fd://3,4 3<>back 4<>there").says("linked to")
    works(nodes)
    ends(second)
    first.ends(0)  # by itself
    for number in (3, 7, 99):
        refused = nodes.run(f"r2 -s alice.sock connect fd://{number}", status=1)
        assert f"{number} is no descriptor" in refused.err


def test_exec_spelled_out(nodes: Place) -> None:
    program = link(nodes, "exec:r2 -s bob.sock connect -")
    works(nodes)
    ends(program)


def test_a_socat_that_starts_links_still_does(nodes: Place, socat: None) -> None:
    port = free_port()
    starter = nodes.start(f"r2 -v -s alice.sock connect 'socat tcp-l:{port},fork,reuseaddr exec:-'")
    dialled = dial(nodes, f"tcp://127.0.0.1:{port}")
    works(nodes)
    ends(dialled, starter)


def test_vsock(nodes: Place) -> None:
    if not hasattr(socket, "AF_VSOCK") or not os.path.exists("/dev/vsock"):
        pytest.skip("no vsock here")
    port = 47200 + os.getpid() % 1000
    with socket.socket(socket.AF_VSOCK) as listener, socket.socket(socket.AF_VSOCK) as probe:
        probe.settimeout(1)
        try:
            listener.bind((socket.VMADDR_CID_ANY, port))
            listener.listen()
            probe.connect((1, port))
        except OSError as error:
            pytest.skip(f"no loopback of vsock here: {error}")
    waiting = link(nodes, f"vsock-listen://:{port}", start=False)
    dialled = dial(nodes, f"vsock://local:{port}")
    works(nodes)
    ends(dialled, waiting)


def test_rfcomm_says_what_it_lacks(nodes: Place) -> None:
    """There is no Bluetooth on machines that run tests: how it fails is all that can be seen."""
    result = nodes.run("r2 -s alice.sock connect 'rfcomm://00:B0:D0:63:C2:26/3?timeout=2'", status=1)
    assert "rfcomm://" in result.err
    assert any(word in result.err for word in ("built without", "protocol", "family", "host", "timed out", "device"))


# -- tunnels and services -------------------------------------------------------------------------------------------


@pytest.fixture
def pair(nodes: Place) -> Place:
    nodes.link("alice", "bob")
    return nodes


@pytest.mark.parametrize("far", [False, True], ids=["here", "far"])
def test_a_service_at_a_unix_socket(pair: Place, far: bool) -> None:
    pair.serve("bob", "cat", "echo")
    waiting = pair.start("r2 -v -s bob.sock -t echo tunnel unix-listen://echo.sock")
    pair.await_socket("echo.sock")
    pair.serve("bob" if far else "alice", "unix://echo.sock", "again")
    for data in (b"", b"abc", b"x" * 300_000):
        way = "bob/again" if far else "again"
        assert pair.run(f"r2 -s alice.sock -t {way} tunnel -", data).raw == data
    ends(waiting)
    assert not (pair.path / "echo.sock").exists()


@pytest.mark.parametrize("target", ["bob/upper", "here"])
def test_each_connection_is_a_tunnel(pair: Place, target: str) -> None:
    """Of a listener: many at once, half-closed as they like; a service that is not there ends that connection only."""
    pair.serve("bob", "tr a-z A-Z", "upper")
    pair.serve("alice", "tr a-z A-Z", "here")
    port = free_port()
    waiting = pair.start(f"r2 -v -s alice.sock -t {target} tunnel tcp-listen://127.0.0.1:{port}")

    def connect() -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", port), 20)
        except ConnectionRefusedError:
            return None

    socks = [sock for sock in (eventually(connect, "the port") for _ in range(20)) if sock is not None]
    for number, sock in enumerate(socks):
        sock.sendall(b"hello %d" % number)
    for number, sock in enumerate(socks):
        sock.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda sock=sock: sock.recv(99), b"")) == b"HELLO %d" % number  # type: ignore[misc]
        sock.close()
    assert waiting.runs
    ends(waiting)


def test_a_listener_outlives_what_fails(pair: Place) -> None:
    port = free_port()
    waiting = pair.start(f"r2 -v -s alice.sock -t bob/nothing tunnel tcp-listen://127.0.0.1:{port}")
    for times in (1, 2):
        eventually(lambda: _closes(port), "the end of a connection")
        waiting.says("does not know nothing", times)
    ends(waiting)
    refused = pair.run("r2 -s alice.sock tunnel tcp-listen://192.0.2.1:5", status=255)
    assert os.strerror(99) in refused.err


def _closes(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 20) as sock:
            return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except ConnectionRefusedError:
        return False


@pytest.mark.parametrize("far", [False, True], ids=["here", "far"])
def test_a_service_on_a_terminal(pair: Place, far: bool) -> None:
    node = "bob" if far else "alice"
    way = "bob/" if far else ""
    pair.serve(node, "pty://tty; read x; echo got $x >&2; exit 5", "ask")
    result = pair.run(f"r2 -s alice.sock -t {way}ask tunnel -", b"this\n", status=5)
    assert result.out.startswith("/dev/pts/")
    assert "got this" in result.out
    pair.serve(node, "pty://cat", "cat")
    popen = pair.start(f"r2 -s alice.sock -t {way}cat tunnel -", stdin=subprocess.PIPE)
    popen.stdin.write(b"hello\n")
    popen.prints("hello")
    popen.send(signal.SIGTERM)
    popen.ends(None)


def test_a_tunnel_on_a_terminal(pair: Place) -> None:
    """The command's status is ours; what it says last arrives."""
    pair.serve("bob", "sh -c 'read x; echo $x >got'", "take")
    pair.run("r2 -s alice.sock -t bob/take tunnel 'pty://echo hello; exit 7'", status=7)
    eventually(lambda: (pair.path / "got").exists() and (pair.path / "got").read_text() == "hello\n", "the line")


def test_a_serial_line_at_both_ends_of_a_tunnel(pair: Place, line: tuple[str, str]) -> None:
    pair.serve("bob", f"serial://{line[0]}?baud=9600", "modem")
    master, slave = pty.openpty()
    try:
        tty.setraw(slave)
        tunnel = pair.start(f"r2 -v -s alice.sock -t bob/modem tunnel serial://{os.ttyname(slave)}").says("open")
        other = os.open(line[1], os.O_RDWR | os.O_NOCTTY)
        tty.setraw(other)
        # What is on the line while it is opened is thrown away, so knock until somebody is there.
        eventually(lambda: os.write(master, b"?") and _read(other, 0.2), "the first byte")
        os.write(master, b"!")
        eventually(lambda: _read(other, size=1) == b"!", "the end of the knocking")
        for _ in range(3):
            os.write(master, b"ATZ\r")
            assert _read(other, size=4) == b"ATZ\r"
            os.write(other, b"OK\r\n\0\xff")
            assert _read(master, size=6) == b"OK\r\n\0\xff"
        os.close(other)
        tunnel.send(signal.SIGTERM)
        tunnel.ends(None)
    finally:
        os.close(master)
        os.close(slave)


def _read(fd: int, patience: float = PATIENCE, size: int = 1 << 16) -> bytes:
    """Up to `size` bytes; what there is of them when nothing more comes for so long."""
    data = b""
    while len(data) < size and select.select([fd], [], [], patience)[0]:
        data += os.read(fd, size - len(data))
    return data


def test_descriptors_at_the_end_of_a_tunnel(pair: Place) -> None:
    pair.serve("bob", "tr a-z A-Z", "upper")
    line = "echo hello | r2 -s alice.sock -t bob/upper tunnel fd://3,4 3<&0 4>&1 </dev/null"
    assert pair.run(line).out == "HELLO\n"


@pytest.mark.parametrize("kind", ["tun", "tap"])
def test_networks_through_a_tunnel(pair: Place, kind: str) -> None:
    """Two network namespaces, an interface in each, and a tunnel between them: whole packets, both ways."""
    hosts = Namespaces(pair, "a", "b", tun=True)
    hosts.start("b", f'r2 -v -s bob.sock serve -n net "{kind}://r20?addr=10.99.0.1/24&mtu=1400&up"').says("offering")
    (pair.path / "ping.py").write_text(PING)
    join = f'r2 -v -s alice.sock -t bob/net tunnel "{kind}://r21?addr=10.99.0.2/24&mtu=1400&up=1"'
    (pair.path / "net.sh").write_text(f"{join} & python3 ping.py 10.99.0.1; cat /proc/net/dev; kill $!; wait $!\n")
    result = hosts.run("a", "sh net.sh", status=None, patience=90)
    assert "200 answered" in result.out, result
    assert "r21:" in result.out
    assert "r20:" not in result.out
    busy = hosts.run("a", join.replace("bob/net", "bob/nothing"), status=255)
    assert "does not know" in busy.err


# ICMP echo requests of many sizes, until 200 were answered with the same bytes.
PING = """
import os, socket, struct, sys, time
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
sock.settimeout(0.3)
deadline, answered, number = time.monotonic() + 60, 0, 0
while answered < 200 and time.monotonic() < deadline:
    number += 1
    data = os.urandom(number * 14 % 1372)
    request = struct.pack("!BBHHH", 8, 0, checksum(struct.pack("!BBHHH", 8, 0, 0, 77, number) + data), 77, number)
    try:
        sock.sendto(request + data, (sys.argv[1], 0))
        while True:
            answer = sock.recv(65536)[20:]
            if answer[:2] == bytes(2) and answer[4:] == struct.pack("!HH", 77, number) + data:
                answered += 1
                break
    except OSError:
        time.sleep(0.05)
print(answered, "answered")
"""


def test_what_cannot_be_where(pair: Place) -> None:
    for line, why in (
        ("connect tun://r20", "it is the end of a tunnel"),
        ("serve -n x udp-listen://127.0.0.1:9", "cannot be served"),
        ("serve -n x tcp-listen://127.0.0.1:9", "cannot be served"),
        ("serve -n x fd://3", "only one of it"),
        ("tunnel 'tcp://127.0.0.1:9?lossy=1'", "for links"),
    ):
        result = pair.run(f"r2 -s alice.sock {line}", status=None)
        assert result.status in (1, 2, 255), result
        assert why in result.err, result


def test_a_socket_and_a_serial_line_are_no_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("a.sock")
        with pytest.raises(UsageError, match=r"did you mean unix://\./a\.sock"):
            parse_transport("./a.sock").check_use(CONNECT)
    with pytest.raises(UsageError, match="did you mean serial:///dev/tty"):
        parse_transport("/dev/tty").check_use(CONNECT)

"""Tunnels of datagrams between real programs, UDP sockets and network interfaces in namespaces."""

from __future__ import annotations

import socket
import time
from functools import partial
from pathlib import Path

import pytest

from r2box.net.client.udp_forward import QUIET
from r2box.net.transport.udp import MAX_SENDERS
from support.namespaces import Namespaces
from support.processes import PATIENCE, Place, eventually, free_port, need

SIZES = [0, 1, 2, 255, 256, 1400, 1500, 9000, 65507]


# -- commands -------------------------------------------------------------------------------------------------------

ECHO = """
import os
while data := os.read(0, 65536):
    os.write(1, b"<" + data + b">")
"""
ASK = """
import os
for size in (1, 2, 1400, 1500, 9000, 65000):
    os.write(1, b"x" * size)  # none waits for an answer
for size in (1, 2, 1400, 1500, 9000, 65000):
    answer = os.read(0, 70000)
    assert answer == b"<" + b"x" * size + b">", (size, len(answer))
os.close(1)
print("all are whole", file=open("answers", "w"))
"""


@pytest.fixture
def pair(place: Place) -> Place:
    place.pair()
    return place


@pytest.mark.parametrize("node", ["alice", "bob"])
def test_commands_read_and_write_whole_datagrams(pair: Place, node: str) -> None:
    """At the same daemon, and over a link."""
    (pair.path / "echo.py").write_text(ECHO)
    (pair.path / "ask.py").write_text(ASK)
    pair.serve(node, "python3 echo.py", "echo", "--datagrams")
    pair.run(f"r2 -s alice.sock -t {node}/echo tunnel --datagrams 'python3 ask.py'")
    assert (pair.path / "answers").read_text() == "all are whole\n"


def test_stdin_and_stdout(pair: Place) -> None:
    (pair.path / "echo.py").write_text(ECHO)
    pair.serve("bob", "python3 echo.py", "echo", "--datagrams")
    assert pair.run("echo hello | r2 -s alice.sock -t bob/echo tunnel --datagrams -").out == "<hello\n>"


def test_the_two_kinds_do_not_meet(pair: Place) -> None:
    pair.serve("bob", "cat", "bytes")
    pair.serve("bob", "cat", "whole", "--datagrams")
    for node in ("alice", "bob"):
        err = pair.run(f"r2 -s {node}.sock -t bob/bytes tunnel --datagrams cat", status=255).err
        assert "bob: service/bytes takes a stream of bytes, and this is a tunnel of datagrams" in err
        err = pair.run(f"r2 -s {node}.sock -t bob/whole tunnel - </dev/null", status=255).err
        assert "bob: service/whole takes datagrams (--datagrams" in err
    err = pair.run("r2 -s alice.sock -t bob/whole tunnel --datagrams tcp://127.0.0.1:1", status=255).err
    assert "is a stream of bytes" in err


# -- UDP ------------------------------------------------------------------------------------------------------------


class Server:
    """A UDP socket of the test."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(PATIENCE)
        self.port = self.sock.getsockname()[1]


@pytest.mark.parametrize("node", ["alice", "bob"])
def test_udp_at_both_ends(pair: Place, node: str) -> None:
    """A tunnel for each sender; all sizes, also none; who is silent is forgotten, and may come again."""
    server, port = Server(), free_port(socket.SOCK_DGRAM)
    pair.serve(node, f"udp://127.0.0.1:{server.port}", "dns")
    line = f"r2 -vv -s alice.sock -t {node}/dns tunnel 'udp-listen://127.0.0.1:{port}?idle=4'"
    listener = pair.start(line)
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    eventually(lambda: f":{port:04X} " in Path("/proc/net/udp").read_text(), "the listener")
    seen = []
    for client in clients:
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", port))
        for size in SIZES:
            client.send(b"q" * size)
            data, address = server.sock.recvfrom(70000)
            assert len(data) == size
            server.sock.sendto(b"a" * size, address)
            assert client.recv(70000) == b"a" * size
            seen.append(address)
    assert len(set(seen)) == 3
    listener.says("datagrams from", 3)
    listener.says("no more from", 3)
    clients[0].send(b"again")
    assert server.sock.recvfrom(70000)[1] not in seen
    listener.send(15)
    assert "daemon closed the connection" not in listener.ends(0).err


def test_many_ask_once(pair: Place) -> None:
    """As of a name server: each question from a port of its own, and none is lost where others are long answered."""
    server, port = Server(), free_port(socket.SOCK_DGRAM)
    pair.serve("bob", f"udp://127.0.0.1:{server.port}", "dns")
    pair.start(f"r2 -s alice.sock -t bob/dns tunnel udp-listen://127.0.0.1:{port}").says("listening at")
    for number in range(MAX_SENDERS + 50):
        if number == MAX_SENDERS - 20:
            time.sleep(QUIET + 0.5)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"%d" % number, ("127.0.0.1", port))
            assert server.sock.recv(100) == b"%d" % number


def test_nobody_answers_at_first(pair: Place) -> None:
    """What ICMP says of a service that is not there yet ends no tunnel."""
    port, behind = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
    pair.serve("bob", f"udp://127.0.0.1:{behind}", "dns")
    pair.start(f"r2 -s alice.sock -t bob/dns tunnel udp-listen://127.0.0.1:{port}")
    eventually(lambda: f":{port:04X} " in Path("/proc/net/udp").read_text(), "the listener")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        for _ in range(5):
            client.send(b"lost")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
            late.bind(("127.0.0.1", behind))
            late.settimeout(0.1)

            def heard() -> bool:
                client.send(b"heard")
                try:
                    return late.recv(100) == b"heard"
                except OSError:
                    return False

            eventually(heard, "a datagram")


# -- network interfaces ---------------------------------------------------------------------------------------------

# Says what it sends, and what of that came back.
TCP = """
import socket, sys, threading
def serve():
    family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
    listener = socket.create_server((sys.argv[2], 5000), family=family)
    print("listens", file=sys.stderr, flush=True)
    while True:
        sock = listener.accept()[0]
        while data := sock.recv(1 << 16):
            sock.sendall(data)
        sock.close()
def ask():
    sock = socket.create_connection((sys.argv[2], 5000), timeout=20)
    data = bytes(range(256)) * (1 << 14)
    threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR))).start()
    got = bytearray()
    while more := sock.recv(1 << 16):
        got += more
    assert got == data
    print("4 MiB came back")
{"serve": serve, "ask": ask}[sys.argv[1]]()
"""


def networks(place: Place, *, through: bool = False) -> Namespaces:
    """alice and bob, linked, each in a namespace of her own by what is started there; with carl between."""
    hosts = Namespaces(place, "a", "b", tun=True)
    place.pair()
    (place.path / "tcp.py").write_text(TCP)
    if through:
        place.node("carl")
        place.link("bob", "carl")
    return hosts


def has_it(hosts: Namespaces, host: str) -> bool:
    return "r20" in hosts.run(host, "ip link").out


def lacks_it(hosts: Namespaces, host: str) -> bool:
    return not has_it(hosts, host)


@pytest.mark.parametrize(("kind", "through"), [("tun", False), ("tap", False), ("tun", True)])
def test_two_networks(place: Place, kind: str, through: bool) -> None:
    hosts = networks(place, through=through)
    node = "carl" if through else "bob"
    options = "mtu=1400"
    far = f"{kind}://r20?addr=10.7.0.1/24,fd07::1/64&{options}&route=10.9.0.0/24,10.10.0.0/16"
    near = f"{kind}://r20?addr=10.7.0.2/24,fd07::2/64&{options}&route=fd08::/64"
    hosts.start("b", f"r2 -v -s {node}.sock serve -n vpn '{far}'").says("offering")
    path = "bob/carl/vpn" if through else "bob/vpn"
    tunnel = hosts.start("a", f"r2 -v -s alice.sock -t {path} tunnel '{near}'").says("open")
    routes = hosts.run("b", "ip route show dev r20").out
    assert "10.9.0.0/24" in routes
    assert "10.10.0.0/16" in routes
    assert "fd08::/64" in hosts.run("a", "ip -6 route show dev r20").out
    assert "mtu 1400" in hosts.run("a", "ip link show r20").out
    hosts.start("b", "python3 tcp.py serve 10.7.0.1").says("listens")
    hosts.start("b", "python3 tcp.py serve fd07::1").says("listens")
    assert hosts.run("a", "python3 tcp.py ask 10.7.0.1", patience=60).out == "4 MiB came back\n"
    assert hosts.run("a", "python3 tcp.py ask fd07::1", patience=60).out == "4 MiB came back\n"
    tunnel.send(15)
    tunnel.ends(None)
    for host in "ab":
        eventually(partial(lacks_it, hosts, host), "the end of the interface")


@pytest.mark.parametrize(
    ("options", "is_up"),
    [("addr=10.7.0.1/24", True), ("addr=fd07::1/64", True), ("addr=10.7.0.1/24&up=no", False), ("up", True)],
)
def test_an_address_brings_an_interface_up(place: Place, options: str, is_up: bool) -> None:
    hosts = networks(place)
    hosts.start("b", "r2 -v -s bob.sock serve -n vpn 'tun://r20'").says("offering")
    hosts.start("a", f"r2 -v -s alice.sock -t bob/vpn tunnel 'tun://r20?{options}'").says("open")
    assert ("UP" in hosts.run("a", "ip link show r20").out) is is_up


def test_ping_at_the_edge(place: Place) -> None:
    need("ping")
    hosts = networks(place)
    hosts.start("b", "r2 -v -s bob.sock serve -n vpn 'tun://r20?addr=10.7.0.1/24&mtu=1400'").says("offering")
    line = "r2 -v -s alice.sock -t bob/vpn tunnel 'tun://r20?addr=10.7.0.2/24&mtu=1400'"
    hosts.start("a", line).says("open")
    for size in (0, 100, 1372):
        for _ in range(3):  # of several at once it would wait for the last no longer than the others took
            assert " 0% packet loss" in hosts.run("a", f"ping -c 1 -W 20 -M do -s {size} 10.7.0.1").out
    too_long = hosts.run("a", "ping -c 1 -W 1 -M do -s 1373 10.7.0.1", status=1)
    assert "mtu=1400" in too_long.err + too_long.out


def test_the_lines_of_the_overview(place: Place) -> None:
    """With socat at both ends: boundaries are kept without a word."""
    need("socat")
    hosts = networks(place)
    line = "socat tun,iff-up,device-name=r20 -"
    note = "socat has no option device-name=; tun-name= is used in its place"
    hosts.start("b", f'r2 -v -s bob.sock serve -n vpn "{line}"').says("offering").says(note)
    hosts.start("a", f'r2 -v -s alice.sock -t bob -t vpn tunnel "{line}"').says("open").says(note)
    for host, address in (("a", "10.7.0.2/24"), ("b", "10.7.0.1/24")):
        eventually(partial(has_it, hosts, host), "the interface")
        hosts.run(host, f"ip address add {address} dev r20")
    hosts.start("b", "python3 tcp.py serve 10.7.0.1").says("listens")
    assert hosts.run("a", "python3 tcp.py ask 10.7.0.1", patience=60).out == "4 MiB came back\n"

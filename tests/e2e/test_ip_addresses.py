"""Links and tunnels by names with several addresses, and by link-local ones, in networks of the test's own.

    a --- b      alice in a, bob in b; the interfaces are to-b and to-a
"""

from __future__ import annotations

import os
import signal
import textwrap

import pytest

from support.namespaces import Namespaces
from support.processes import Place, Program, eventually

PORT = 47210  # in a network of its own
LONG = "timeout=10m"  # a test that waits for a share of this fails


class Pair:
    """Two nodes on two hosts; the name `twohost` is first an address where nobody answers, and then bob's."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.hosts = Namespaces(place, "a", "b")
        self.hosts.join("a", "b", "10.77.1.1/24", "10.77.1.2/24")
        for host, number in (("a", 1), ("b", 2)):
            other = "b" if host == "a" else "a"
            self.hosts.run(host, f"ip address add fe80::{number}/64 dev to-{other} nodad")
            self.hosts.run(host, f"ip address add 2001:db8::{number}/64 dev to-{other} nodad")
        # Somebody is there, but does not answer: the frame goes to another host.
        self.hosts.run("a", "ip neigh add 2001:db8::dead lladdr 02:00:00:00:00:01 dev to-b nud permanent")
        self.hosts.start("a", "r2d -s alice.sock alice").says("listening at")
        self.hosts.start("b", "r2d -s bob.sock bob").says("listening at")
        (place.path / "hosts").write_text("2001:db8::dead twohost\n10.77.1.2 twohost\n127.0.0.1 localhost\n")

    def at_a(self, line: str) -> str:
        """`line` with hosts(5) as it is here."""
        return f"unshare -m sh -c 'mount --bind hosts /etc/hosts && exec \"$@\"' - {line}"

    def listener(self, transport: str) -> Program:
        program = self.hosts.start("b", f"r2 -v -s bob.sock connect {transport}")
        eventually(lambda: f":{PORT} " in self.hosts.run("b", "ss -Hltun").out, f"a listener at port {PORT}")
        return program

    def linked(self, transport: str) -> Program:
        return self.hosts.start("a", self.at_a(f"r2 -v -s alice.sock connect '{transport}'")).says("linked to bob")

    def works(self) -> None:
        assert self.place.run("r2 -s alice.sock ls").out == "bob\n"


@pytest.fixture
def pair(place: Place) -> Pair:
    return Pair(place)


# -- names with a dead address -----------------------------------------------------------------------------------------


def test_a_link_to_a_name_whose_first_address_is_dead(pair: Pair) -> None:
    listener = pair.listener(f"tcp-listen://:{PORT}")
    pair.linked(f"tcp://twohost:{PORT}?{LONG}")
    listener.says("linked to alice")
    pair.works()


def test_a_tunnel_from_and_to_such_a_name(pair: Pair) -> None:
    pair.listener(f"tcp-listen://:{PORT}")
    pair.linked(f"tcp://10.77.1.2:{PORT}")
    code = textwrap.dedent(f"""
        import socket
        with socket.create_server(("10.77.1.2", {PORT + 1})) as listener:
            print("ready", flush=True)
            while True:
                with listener.accept()[0] as sock:
                    data = sock.recv(100)
                    sock.sendall(data.upper())
                    print(data.decode(), flush=True)
    """)
    (pair.place.path / "upper.py").write_text(code)
    upper = pair.hosts.start("b", "python3 upper.py").prints("ready")
    target = f"tcp://twohost:{PORT + 1}?{LONG}"
    pair.hosts.start("a", pair.at_a(f"r2 -v -s alice.sock serve -n upper '{target}'")).says("offering")
    assert pair.place.run("r2 -s bob.sock -t alice/upper tunnel -", b"hello").out == "HELLO"
    pair.place.serve("bob", "echo hello from bob", "say")
    pair.hosts.run("a", pair.at_a(f"r2 -s alice.sock -t bob/say tunnel '{target}'"))
    upper.prints("hello from bob")


def test_a_link_over_udp_to_such_a_name(pair: Pair) -> None:
    """Connecting a UDP socket proves nothing, so the addresses are asked."""
    listener = pair.listener(f"udp-listen://:{PORT}")
    pair.linked(f"udp://twohost:{PORT}?{LONG}")
    listener.says("linked to alice")
    pair.works()


def test_udp_to_a_name_where_one_address_refuses(pair: Pair) -> None:
    (pair.place.path / "hosts").write_text("2001:db8::2 twohost\n10.77.1.2 twohost\n")
    pair.listener(f"udp-listen://10.77.1.2:{PORT}")
    pair.linked(f"udp://twohost:{PORT}?{LONG}")


def test_the_error_says_what_became_of_each_address(pair: Pair) -> None:
    (pair.place.path / "hosts").write_text("2001:db8::2 twohost\n10.77.1.2 twohost\n192.0.2.1 twohost\n")
    for kind in ("tcp", "udp"):
        result = pair.hosts.run("a", pair.at_a(f"r2 -s alice.sock connect {kind}://twohost:{PORT}"), status=1)
        assert "Connection refused (2001:db8::2, 10.77.1.2)" in result.err
        assert "Network is unreachable (192.0.2.1)" in result.err
        assert len(result.err.splitlines()) == 1


def test_the_library_too(pair: Pair) -> None:
    pair.listener(f"tcp-listen://:{PORT}")
    code = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, sys.argv[1])
        import r2box
        with r2box.Node("carl") as node:
            link = node.connect("tcp://twohost:{PORT}?{LONG}")
            link.wait(timeout=30)
            print(*(entry.name for entry in node.ls()))
    """)
    (pair.place.path / "carl.py").write_text(code)
    line = pair.at_a(f"python3 carl.py {pair.place.box.dist / 'r2box'}")
    assert "bob" in pair.hosts.run("a", line).out


# -- link-local addresses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("sign", ["%25", "%"])
def test_link_local_addresses(pair: Pair, kind: str, sign: str) -> None:
    """Listening, dialling and binding."""
    pair.listener(f"{kind}-listen://[fe80::2{sign}to-a]:{PORT}")
    there = f"{kind}://[fe80::2{sign}to-b]:{PORT}"
    for query in ("", f"?bind=fe80::1{sign}to-b", f"?bind=[fe80::1{sign}to-b]:{PORT + 1}"):
        linked = pair.linked(there + query)
        pair.works()
        linked.send(signal.SIGTERM)
        linked.ends(0)
        eventually(lambda: not pair.place.run("r2 -s bob.sock ls").out, "the end of the link")


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_what_is_printed_can_be_pasted(pair: Pair, kind: str) -> None:
    pair.listener(f"tcp-listen://:{PORT}")
    pair.linked(f"tcp://10.77.1.2:{PORT}")
    forward = pair.hosts.start("b", f"r2 -s bob.sock -t alice/echo forward {kind}-listen://[fe80::2%to-a]:{PORT + 1}")
    forward.says(f"[fe80::2%25to-a]:{PORT + 1}")


def test_link_local_errors(pair: Pair) -> None:
    def error(transport: str) -> str:
        result = pair.hosts.run("a", f"r2 -s alice.sock connect '{transport}'", status=None)
        assert result.status in (1, 2)
        return result.err

    assert "this host has no interface 'to-c'" in error(f"tcp://[fe80::2%25to-c]:{PORT}")
    assert "this host has no interface 'to-c'" in error(f"tcp-listen://[fe80::2%25to-c]:{PORT}")
    assert "this host has no interface 'to-c'" in error(f"udp://10.77.1.2:{PORT}?bind=fe80::1%25to-c")
    assert "needs its interface, as in [fe80::1%25eth0]:PORT" in error(f"tcp://[fe80::2]:{PORT}")
    assert os.strerror(99) in error(f"tcp://[fe80::2%25to-b]:{PORT}?bind=fe80::9%25to-b")

"""The command lines of the seed that are built so far, as typed there.

Adapted are only: /home/user and /run, which are folders of the test; the port, if somebody else has it; example.com,
which is this host; and R2_SOCKET, because all nodes are on one host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.examples import ALICE, BOB
from support.processes import Place, Program, eventually, free_port, need

PortOfTheSeed = Callable[[socket.SocketKind], str]


@pytest.fixture
def port_of_the_seed() -> Iterator[PortOfTheSeed]:
    """47210, or another one while somebody else has that, or a test that runs beside this one may take it."""

    def port(kind: socket.SocketKind) -> str:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, kind) as sock:
            claim.bind("\0r2box tests: 47210")  # until this test is over
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
            sock.bind(("127.0.0.1", 47210))
            return "47210"
        return str(free_port(kind))

    with socket.socket(socket.AF_UNIX) as claim:
        yield port


# -- Basic Example -----------------------------------------------------------------------------------------------------


@pytest.mark.every_python
def test_basic_example(port_of_the_seed: PortOfTheSeed, place: Place) -> None:
    need("socat")
    folder = place.home / ".config/r2"
    folder.mkdir(parents=True)
    port = port_of_the_seed(socket.SOCK_STREAM)
    for name, text in (("alice", ALICE), ("bob", BOB)):
        text = text.replace("/home/user", str(place.home)).replace("47210", port)
        (folder / f"{name}.toml").write_text(text)
    place.start("r2dm -f ~/.config/r2/alice.toml")
    bob = place.start("r2dm -f ~/.config/r2/bob.toml")
    alice = "r2 -s ~/.local/r2/alice.sock -t bob"
    eventually(lambda: place.run(f"{alice} ping -c 1", status=None).status == 0, "the link", 60)
    assert place.run("r2 -s ~/.local/r2/alice.sock -t bob ls").out == "alice\n"
    assert place.run(f"{alice} tunnel -").out == "Hello, I'm bob\n"
    assert place.run("r2 -s ~/.local/r2/bob.sock -t alice tunnel -").out == "hello from alice\n"
    bob.says("r2dm: bob: linked to alice\n").says("r2dm: link alice: linked to alice\n")  # the node, and its [[conn]]


# -- Service Exposure --------------------------------------------------------------------------------------------------


@pytest.fixture
def nodes(place: Place) -> Place:
    """The node of the seed's /run/node.sock, linked to one from where it is used."""
    place.start("r2d -s node.sock node").says("listening at")
    place.node("user")
    place.start("r2 -v -s user.sock connect -n node 'r2 -s node.sock connect -'").says("linked to node")
    return place


def test_expose_sshd(nodes: Place) -> None:
    """No path before sshd, as typed; the seed relies on the host's configuration, so only its greeting is awaited."""
    need("sshd", "ssh-keygen")
    if os.geteuid():
        pytest.skip("the host's sshd runs for root only")
    if not list(Path("/etc/ssh").glob("ssh_host_*_key")):
        pytest.skip("the host's sshd has no keys")
    Path("/run/sshd").mkdir(exist_ok=True)
    nodes.start('r2 -s node.sock serve "sshd -i"').says("offering service/sshd")
    assert nodes.run("r2 -s user.sock -t node ls").out == "user\nservice/sshd\n"
    client = nodes.start("r2 -s user.sock -t node -t service/sshd tunnel -", stdin=-1, stdout=-1)
    assert client.stdout.readline().startswith(b"SSH-2.0-")
    client.stdin.close()
    client.ends(None)


def test_expose_a_custom_service(nodes: Place) -> None:
    path = nodes.executable("ioshd", "echo ioshd with $# arguments; cat\n")
    nodes.start("r2 -s node.sock serve ioshd", PATH=path).says("offering service/ioshd")
    assert nodes.run("r2 -s user.sock -t node -t ioshd tunnel -", b"input").out == "ioshd with 0 arguments\ninput"


def test_expose_under_a_name(nodes: Place) -> None:
    """What the service of the seed does needs privileges; it is offered all the same, and what it says comes out.

    The real socat makes the interface in test_datagrams.
    """
    path = nodes.executable("socat", 'echo "socat $*"\n')
    line = 'r2 -s node.sock serve -n vpn "socat tun,iff-up,device-name=r20 -"'
    server = nodes.start(line, PATH=path).says("offering service/vpn")
    tunnel = "r2 -s user.sock -t node -t vpn tunnel --datagrams -"  # of packets, as an interface has them
    for _ in range(2):
        assert nodes.run(tunnel).out == "socat tun,iff-up,tun-name=r20 -\n"
    assert server.err.count("socat has no option device-name=; tun-name= is used in its place") == 1


def test_r2_ssh_is_what_the_seed_says_it_is(place: Place) -> None:
    place.executable("ssh", 'printf "%s\\n" "$@"\n')
    words = place.run("r2-ssh bob", PATH=f"{place.path}/bin:{place.box.path}", R2_SOCKET="node.sock").out.splitlines()
    assert words[0] == "-o"
    assert words[1].startswith("ProxyCommand=")
    assert words[1].endswith(" -t bob -t service/sshd --fdpass -")
    assert words[2:] == ["-o", "ProxyUseFdpass=yes", "r2/bob"]  # the tunnel is ssh's own from then on


# -- Connection Brokering ----------------------------------------------------------------------------------------------


def check_link(place: Place, alice: Program, bob: Program) -> None:
    alice.says("linked to bob", patience=30)
    bob.says("linked to alice")
    assert place.run("r2 -t bob ls", R2_SOCKET="alice.sock").out == "alice\n"
    place.serve("alice", "tr a-z A-Z", "upper")
    assert place.run("r2 -t alice -t upper tunnel -", b"over datagrams\n", R2_SOCKET="bob.sock").out == (
        "OVER DATAGRAMS\n"
    )


def bound(port: str) -> bool:
    return f":{int(port):04X} " in Path("/proc/net/udp").read_text() + Path("/proc/net/udp6").read_text()


@pytest.mark.old_and_new
@pytest.mark.parametrize("listener", ['exec:"r2 connect -n <node-id> -"', 'fork exec:"r2 connect -"'])
def test_connection_brokering(port_of_the_seed: PortOfTheSeed, place: Place, listener: str) -> None:
    need("socat")
    alice = place.start("r2d alice", R2_SOCKET="alice.sock").says("listening at")
    bob = place.start("r2d bob", R2_SOCKET="bob.sock").says("listening at")
    port = port_of_the_seed(socket.SOCK_DGRAM)
    separator = "," if listener.startswith("fork") else " "
    line = f"socat udp-l:47210{separator}{listener}".replace("47210", port).replace("<node-id>", "alice")
    place.start(line, R2_SOCKET="bob.sock")
    eventually(lambda: bound(port), "socat to listen")
    line = 'r2 connect -n <node-id> "socat udp:example.com:47210 -"'
    line = line.replace("<node-id>", "bob").replace("example.com", "127.0.0.1").replace("47210", port)
    place.start(line, R2_SOCKET="alice.sock")
    check_link(place, alice, bob)


def test_a_broker_for_several_neighbours(port_of_the_seed: PortOfTheSeed, place: Place) -> None:
    need("socat")
    bob = place.start("r2d bob", R2_SOCKET="bob.sock").says("listening at")
    port = port_of_the_seed(socket.SOCK_STREAM)
    place.start(f'socat tcp-l:{port},fork,reuseaddr exec:"r2 connect -"', R2_SOCKET="bob.sock")
    for name in ("alice", "carl", "dora"):
        place.node(name)
        place.start(f'r2 -s {name}.sock connect "socat tcp:127.0.0.1:{port},retry=50,interval=0.1 -"')
        bob.says(f"linked to {name}")
    assert place.run("r2 -s carl.sock -t bob ls").out == "alice\ncarl\ndora\n"
    assert place.run("r2 -s carl.sock -t bob -t dora ls").out == "bob\n"


# -- Installation & Usage ----------------------------------------------------------------------------------------------


def test_as_standalone_binaries(place: Place) -> None:
    """One file, copied alone and renamed, is the tool of that name."""
    folder = place.path / "alone"
    folder.mkdir()
    shutil.copy(place.box.dist / "r2box", folder / "r2d")
    shutil.copy(place.box.dist / "r2box", folder / "r2-serve")
    shutil.copy(place.box.dist / "r2box", folder / "r2")
    daemon = place.start("alone/r2d -s alice.sock alice").says("listening at")
    place.start("alone/r2-serve -s alice.sock cat").says("offering")
    assert place.run("alone/r2 -s alice.sock -t cat tunnel -", b"abc").out == "abc"
    daemon.send(signal.SIGTERM)
    daemon.ends(0)

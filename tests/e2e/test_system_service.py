"""At home on a host: told and watched by a supervisor, its socket handed over, another user's rights, its reloads.

The supervisor is played here: a datagram socket that is NOTIFY_SOCKET, and a program that hands over descriptors and
then becomes the daemon, as systemd's does.
"""

from __future__ import annotations

import itertools
import os
import pwd
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import PATIENCE, Place, await_port, eventually, free_port

ROOT = Path(__file__).resolve().parents[2]
PRIVATE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID")

# Hands over sockets as systemd does: each word before "--" is NAME=PATH.
HAND_OVER = """\
import os, socket, sys
place = sys.argv.index("--")
pairs = [word.split("=") for word in sys.argv[1:place]]
kept = []
for number, (name, path) in enumerate(pairs):
    kept.append(socket.socket(socket.AF_UNIX))
    kept[-1].bind(path)
    kept[-1].listen()
    os.chmod(path, 0o600)
high = [os.dup2(sock.fileno(), 100 + number) for number, sock in enumerate(kept)]
for number, fd in enumerate(high):
    os.dup2(fd, 3 + number)
    os.close(fd)
names = ":".join(name for name, path in pairs)
os.environ.update(LISTEN_FDS=str(len(pairs)), LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[place + 1], sys.argv[place + 1:])
"""


class Listener:
    """What a supervisor is told, at `address`: a path, or with "@" before it a name that is in no file system."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def next(self, patience: float = PATIENCE) -> dict[str, str]:
        """The next message, as its fields."""
        assert select.select([self.socket], [], [], patience)[0], "the supervisor waits in vain"
        text = self.socket.recv(65536).decode()
        return dict(line.split("=", 1) for line in text.splitlines())

    def until(self, field: str, patience: float = PATIENCE) -> dict[str, str]:
        """The next message that has `field`."""
        deadline = time.monotonic() + patience
        while True:
            message = self.next(max(0.0, deadline - time.monotonic()))
            if field in message:
                return message


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, place: Place) -> Iterator[Listener]:
    address = f"@{place.path.name}" if request.param == "abstract" else str(place.path / "notify")
    listener = Listener(address)
    yield listener
    listener.socket.close()


def write(place: Place, text: str, name: str = "alice") -> str:
    """A file for r2dm."""
    (place.path / f"{name}.toml").write_text(f'[self]\naddr = "{name}"\nsocket = "{name}.sock"\n{text}')
    return f"{name}.toml"


# -- a supervisor is told


def test_a_node_tells_its_supervisor_how_it_does(place: Place, supervisor: Listener) -> None:
    alice = place.start("r2d -s alice.sock alice", NOTIFY_SOCKET=supervisor.address)
    ready = supervisor.next()
    assert ready == {"READY": "1", "STATUS": "alice at alice.sock: 0 links, 0 services"}
    place.run("r2 -s alice.sock ls")  # it listens, as it has said
    place.node("bob")
    place.link("alice", "bob")
    assert supervisor.until("STATUS")["STATUS"] == "alice at alice.sock: 1 link, 0 services"
    alice.send(signal.SIGTERM)
    assert supervisor.until("STOPPING")["STOPPING"] == "1"
    alice.ends(0)


@pytest.mark.old_and_new
def test_a_node_from_a_file_is_ready_when_its_services_stand(place: Place, supervisor: Listener) -> None:
    file = write(place, '[[serve]]\ncmd = "cat"\n[[serve]]\nname = "also"\ncmd = "cat"\n')
    alice = place.start(f"r2dm -f {file}", NOTIFY_SOCKET=supervisor.address)
    assert supervisor.next() == {"READY": "1", "STATUS": f"alice at {place.path}/alice.sock: 0 links, 2 services"}
    assert place.run("r2 -s alice.sock -t also tunnel -", b"abc").out == "abc"

    write(place, '[[serve]]\ncmd = "cat"\n')
    before = time.monotonic_ns() // 1000
    alice.send(signal.SIGHUP)
    reloading = supervisor.next()
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert supervisor.next() == {"READY": "1", "STATUS": f"alice at {place.path}/alice.sock: 0 links, 1 service"}

    write(place, "[[serve]]\ncmmd = 1\n")
    alice.send(signal.SIGHUP)
    assert "RELOADING" in supervisor.next()
    again = supervisor.next()
    assert again["READY"] == "1"
    assert again["STATUS"].startswith("not reloaded: alice.toml: line ")
    alice.send(signal.SIGTERM)
    assert "STOPPING" in supervisor.next()
    alice.ends(0)


def test_a_service_that_cannot_stand_is_not_waited_for(place: Place, supervisor: Listener) -> None:
    """It is said on the log; a node with nine services of ten is better than none."""
    alice = place.start(f"r2dm -f {write(place, '')}", NOTIFY_SOCKET=supervisor.address)
    supervisor.until("READY")
    place.serve("alice", "cat", "taken")
    write(place, '[[serve]]\nname = "taken"\ncmd = "cat"\n')
    alice.send(signal.SIGHUP)
    supervisor.until("READY")
    alice.says("service taken: ")


def test_ready_is_when_forwards_listen(place: Place, supervisor: Listener) -> None:
    ports = [free_port() for _ in range(20)]
    forwards = "".join(f'[[forward]]\nlisten = "tcp-listen://127.0.0.1:{port}"\ntarget = "cat"\n' for port in ports)
    with socket.create_server(("127.0.0.1", ports[0])):  # this one cannot, and is not waited for
        alice = place.start(f"r2dm -f {write(place, forwards)}", NOTIFY_SOCKET=supervisor.address)
        supervisor.until("READY")
        for port in ports:
            socket.create_connection(("127.0.0.1", port)).close()
    alice.says("trying again")


@pytest.mark.parametrize("address", ["nowhere", "{}/nowhere", "{}", "@nobody-is-here", "vsock:2:1", "/dev/null", ""])
def test_a_supervisor_that_is_not_there_is_no_harm(place: Place, address: str) -> None:
    alice = place.start("r2d -s alice.sock alice", NOTIFY_SOCKET=address.format(place.path)).says("listening at")
    place.run("r2 -s alice.sock ls")
    alice.send(signal.SIGTERM)
    alice.ends(0)


def test_a_supervisor_that_does_not_read_holds_nobody_up(place: Place) -> None:
    """And hears what there is to know when it reads again."""
    listener = Listener(str(place.path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        while select.select([], [filler], [], 0)[1]:
            try:
                filler.sendto(b"X=1", listener.address)
            except BlockingIOError:
                break
    place.start("r2d -s alice.sock alice", NOTIFY_SOCKET=listener.address).says("listening at")
    place.run("r2 -s alice.sock ls")
    assert listener.until("READY")["READY"] == "1"
    listener.socket.close()


def test_signs_of_life_are_given_to_who_wants_them(place: Place, supervisor: Listener) -> None:
    wanted: Any = {"NOTIFY_SOCKET": supervisor.address, "WATCHDOG_USEC": "200000"}
    alice = place.start("r2d -s alice.sock alice", **wanted)
    supervisor.until("READY")
    for _ in range(3):
        assert supervisor.next() == {"WATCHDOG": "1"}
    alice.send(signal.SIGTERM)
    alice.ends(0)
    while select.select([supervisor.socket], [], [], 0)[0]:
        supervisor.next()
    place.start("r2d -s alice.sock alice", WATCHDOG_PID="1", **wanted)  # it is another that is watched
    assert supervisor.next()["READY"] == "1"
    assert not select.select([supervisor.socket], [], [], 0.5)[0]


@pytest.mark.old_and_new
def test_what_a_supervisor_says_is_not_told_on(place: Place) -> None:
    """Or a service that speaks to its own supervisor would speak for the node."""
    (place.path / "hand_over.py").write_text(HAND_OVER)
    file = write(place, '[[serve]]\nname = "env"\ncmd = "env; ls -l /proc/self/fd"\n')
    told: Any = {"NOTIFY_SOCKET": str(place.path / "notify"), "WATCHDOG_USEC": "9000000", "WATCHDOG_PID": "1"}
    place.start(f"{sys.executable} hand_over.py control=alice.sock -- r2dm -f {file}", **told).says("listening at")
    eventually(lambda: "env" in place.run("r2 -s alice.sock ls").out, "the service")
    out = place.run("r2 -s alice.sock -t env tunnel -").out
    assert "R2_NODE=alice" in out
    for name in PRIVATE:
        assert f"{name}=" not in out
    assert len(re.findall(r"-> socket:", out)) <= 2  # its stdin and stdout


# -- a supervisor hands over the control socket


@pytest.mark.parametrize("sockets", ["alice.socket={}", "other=other.sock control={}"])
@pytest.mark.parametrize("tool", ["r2d alice", "r2dm -f alice.toml"])
def test_the_control_socket_may_be_handed_over(place: Place, tool: str, sockets: str) -> None:
    (place.path / "hand_over.py").write_text(HAND_OVER)
    (place.path / "alice.toml").write_text('[self]\naddr = "alice"\n')
    path = place.path / "given.sock"
    alice = place.start(f"{sys.executable} hand_over.py {sockets.format(path)} -- {tool}").says(f"listening at {path}")
    assert place.run(f"r2 -s {path} ping -c 1").status == 0
    alice.send(signal.SIGTERM)
    alice.ends(0)
    assert stat.S_ISSOCK(path.stat().st_mode)  # it is its supervisor's, who may still listen there


def test_whoever_starts_a_node_by_its_socket_finds_its_services(place: Place) -> None:
    (place.path / "hand_over.py").write_text(HAND_OVER)
    file = write(place, "".join(f'[[serve]]\nname = "cat{number}"\ncmd = "cat"\n' for number in range(20)))
    start = f"sh -c 'read _; exec r2dm -f {file}'"
    control = str(place.path / "alice.sock")  # whole, so that it is no other test's
    node = place.start(f"{sys.executable} hand_over.py control={control} -- {start}", stdin=subprocess.PIPE)
    place.await_socket("alice.sock")
    first = [place.start("r2 -s alice.sock -t cat19 tunnel -") for _ in range(8)]
    eventually(lambda: Path("/proc/net/unix").read_text().count(f" {control}\n") > len(first), "all of them to call")
    node.stdin.write(b"\n")
    for program in first:
        program.ends(0)


def test_what_is_handed_to_another_process_is_not_taken(place: Place) -> None:
    alice = place.start("r2d -s alice.sock alice", LISTEN_FDS="1", LISTEN_PID="1")
    alice.says("listening at alice.sock")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("a=a.sock b=b.sock", "LISTEN_FDNAMES: of 2 sockets exactly one must be named control"),
        ("control=a.sock control=b.sock", "LISTEN_FDNAMES: of 2 sockets exactly one must be named control"),
    ],
)
def test_sockets_of_which_none_is_the_control_socket_are_refused(place: Place, line: str, complaint: str) -> None:
    (place.path / "hand_over.py").write_text(HAND_OVER)
    result = place.run(f"{sys.executable} hand_over.py {line} -- r2d alice", status=1)
    assert result.err == f"r2d: {complaint}\n"


def test_a_descriptor_that_is_no_listening_socket_is_refused(place: Place) -> None:
    line = "LISTEN_PID=$$ LISTEN_FDS=1 exec r2d alice 3</dev/null"
    result = place.run(line, status=1)
    assert re.fullmatch(r"r2d: LISTEN_FDS: descriptor 3: .+\n", result.err), result


# -- the journal


def journal_of(place: Place) -> Any:
    """The environment of a program whose stderr is the next file that `place` makes."""
    path = place.path / f"err{len(place.programs)}"
    path.touch()
    status = path.stat()
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


@pytest.mark.old_and_new
def test_lines_for_the_journal_have_priorities(place: Place) -> None:
    file = write(place, "")
    alice = place.start(f"r2dm -f {file}", **journal_of(place)).says("listening at")
    assert alice.err == f"<6>r2dm: alice: listening at {place.path}/alice.sock\n"
    write(place, "[wrong]\n")
    alice.send(signal.SIGHUP)
    alice.says("<3>r2dm: not reloaded: alice.toml: line 4")
    failed = place.start(f"r2dm -f {file}", **journal_of(place)).ends(1)
    assert failed.err.startswith("<3>r2dm: alice.toml: line 4")
    plain = place.start(f"r2dm -f {file}", JOURNAL_STREAM="1:2").ends(1)
    assert plain.err.startswith("r2dm: alice.toml: line 4")


def test_the_journal_is_not_told_a_name_that_it_knows(place: Place) -> None:
    line = "SYSTEMD_EXEC_PID=$$ exec r2d -s alice.sock alice"
    alice = place.start(line, shell=True, **journal_of(place)).says("listening")
    assert alice.err == "<6>alice: listening at alice.sock\n"


# -- a reload


@pytest.mark.old_and_new
def test_a_reload_leaves_alone_what_has_not_changed(place: Place) -> None:
    """An open tunnel over a link that stays goes on, while links and services come and go around it."""
    ports = [free_port() for _ in range(2)]
    for name, port in zip(("bob", "carl"), ports):
        place.node(name)
        place.serve(name, "cat")
        place.start(f"r2 -v -s {name}.sock connect tcp-listen://127.0.0.1:{port}")
        await_port(port)
    link = '[[conn]]\naddr = "{}"\ncmd = "tcp://127.0.0.1:{}"\n'
    bob, carl = link.format("bob", ports[0]), link.format("carl", ports[1])
    one, two = (f'[[serve]]\nname = "{name}"\ncmd = "cat"\n' for name in ("one", "two"))

    def listing() -> list[str]:
        return place.run("r2 -s alice.sock ls").out.split()

    def reload(text: str, expected: list[str]) -> None:
        write(place, text)
        alice.send(signal.SIGHUP)
        alice.says("jobs removed", next(reloads))
        eventually(lambda: listing() == expected, lambda: f"{expected} in {listing()}")
        for tunnel in tunnels:
            tunnel.stdin.write(b"still here\n")
            assert tunnel.stdout.readline() == b"still here\n"

    reloads = itertools.count(1)
    alice = place.start(f"r2dm -v -f {write(place, bob + one)}").says("linked to bob", 2)  # the node, and its [[conn]]
    eventually(lambda: "service/one" in listing(), "the service")
    lines = ("r2 -s alice.sock -t bob -t cat tunnel -", "r2 -s bob.sock -t alice -t one tunnel -")
    tunnels = [place.start(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for line in lines]
    links = alice.err.count("linked to bob")
    reload(bob + one, ["bob", "service/one"])
    reload(carl + two + bob + one, ["bob", "carl", "service/one", "service/two"])  # elsewhere in the file: the same
    reload(two + bob + one, ["bob", "service/one", "service/two"])
    reload(bob + one, ["bob", "service/one"])
    write(place, "[[conn]]\n")
    alice.send(signal.SIGHUP)
    alice.says("not reloaded: alice.toml: line 4: [[conn]] number 1: cmd: missing")
    reload(one + bob, ["bob", "service/one"])
    assert alice.err.count("linked to bob") == links, alice


def test_a_socket_that_cannot_be_is_found_by_check(place: Place) -> None:
    (place.path / "alice.toml").write_text(f'[self]\naddr = "alice"\nsocket = "{"x" * 120}"\n')
    result = place.run("r2dm --check -f alice.toml", status=1)
    assert result.err.startswith("r2dm: alice.toml: line 3: [self] socket: ")
    assert result.err.endswith(" bytes; the path of a socket has at most 107\n")


# -- another user

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@as_root
@pytest.mark.old_and_new
@pytest.mark.parametrize("tool", ["r2d -s {} --user {}", "r2dm -f alice.toml --user {1}"])
def test_roots_rights_are_given_up(place: Place, tool: str) -> None:
    nobody = pwd.getpwnam("nobody")
    place.path.chmod(0o755)
    socket_path = place.path / "alice.sock"
    write(place, "")
    line = tool.format("alice.sock", "nobody") + (" alice" if tool.startswith("r2d ") else "")
    alice = place.start(line).says("listening at")
    eventually(lambda: Path(f"/proc/{alice.pid}").stat().st_uid == nobody.pw_uid, "another user")
    status = Path(f"/proc/{alice.pid}/status").read_text()
    for field, id_ in (("Uid", nobody.pw_uid), ("Gid", nobody.pw_gid)):
        assert re.search(rf"^{field}:\t{id_}\t{id_}\t{id_}\t{id_}$", status, re.MULTILINE), status
    assert "0" not in re.findall(r"^Groups:\t(.*)$", status, re.MULTILINE)[0].split()
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    owner = socket_path.stat()
    assert (owner.st_uid, owner.st_gid, stat.S_IMODE(owner.st_mode)) == (nobody.pw_uid, nobody.pw_gid, 0o600)
    alice.send(signal.SIGTERM)
    alice.ends(0)
    again = place.start(line).says("listening at")  # what the first could not remove from root's directory is stale
    assert again.runs


@as_root
def test_programs_run_as_the_user(place: Place) -> None:
    nobody = pwd.getpwnam("nobody")
    place.path.chmod(0o755)
    file = write(place, '[[serve]]\nname = "me"\ncmd = "id -u; id -g; echo $HOME $USER $LOGNAME"\n')
    place.start(f"r2dm --user nobody:daemon -f {file}", USER="root", LOGNAME="root").says("listening at")
    eventually(lambda: "me" in place.run("r2 -s alice.sock ls").out, "the service")
    out = place.run("r2 -s alice.sock -t me tunnel -").out
    assert out == f"{nobody.pw_uid}\n1\n{nobody.pw_dir} nobody nobody\n"


@as_root
def test_a_directory_for_the_socket_is_made_for_the_user(place: Place) -> None:
    nobody = pwd.getpwnam("nobody")
    place.path.chmod(0o755)
    (place.path / "alice.toml").write_text('[self]\naddr = "alice"\nsocket = "run/r2/alice.sock"\n')
    alice = place.start("r2dm --user nobody -f alice.toml").says("listening at")
    assert (place.path / "run/r2").stat().st_uid == nobody.pw_uid
    alice.send(signal.SIGTERM)
    alice.ends(0)
    assert list((place.path / "run/r2").iterdir()) == []  # there it can remove what it has made


@as_root
def test_only_root_can_become_another(place: Place) -> None:
    place.path.chmod(0o755)
    here = f"{place.box.dist.resolve()}/r2box"
    code = "import os, sys; os.setgid(9); os.setuid(9); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    shutil.copy(here, place.path / "r2box")
    result = place.run(f"/usr/bin/python3 -c '{code}' r2box r2d --user root alice", status=1)
    assert result.err == "r2d: --user root: only root can become another user\n"


@pytest.mark.parametrize(
    ("user", "why"),
    [("no-such", "there is no user no-such"), ("root:no-such", "there is no group no-such"), (":daemon", "no user ")],
)
def test_an_unknown_user_is_refused(place: Place, user: str, why: str) -> None:
    result = place.run(f"r2d -s alice.sock --user {user} alice", status=2)
    assert result.err.startswith(f"r2d: --user {user}: ")
    assert why in result.err
    assert not (place.path / "alice.sock").exists()

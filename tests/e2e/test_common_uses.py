"""The main jobs, each done as a user does it: real programs, the built r2box, and its exit statuses."""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import io
import os
import re
import signal
import sys
import tarfile
from pathlib import Path

import pytest

from support.processes import Box, Place, Program, eventually, free_port, memory, need, open_files, running

MIB = 1 << 20


def config(place: Place, address: str, neighbour: str, transport: str, cmd: str) -> None:
    """ADDRESS.toml, as in the Basic Example."""
    (place.path / f"{address}.toml").write_text(
        f'[self]\naddr = "{address}"\nsocket = "{place.path}/{address}.sock"\ncmd = "{cmd}"\n\n'
        f'[[conn]]\naddr = "{neighbour}"\ncmd = "{transport}"\n'
    )


def manager(place: Place, address: str, box: Box | None = None) -> Program:
    return place.start(f"r2dm -f {address}.toml", box=box).says("listening at")


def check_greetings(place: Place) -> None:
    """What the Basic Example promises, in both directions, once the link is there."""
    place.answers("alice", "bob", patience=60)
    place.answers("bob", "alice", patience=60)
    assert place.run("r2 -s alice.sock -t bob ls").out == "alice\n"
    assert place.run("r2 -s bob.sock -t alice ls").out == "bob\n"
    assert place.run("r2 -s alice.sock -t bob tunnel -").out == "Hello, I'm bob\n"
    assert place.run("r2 -s bob.sock -t alice tunnel -").out == "hello from alice\n"


# -- 1: the Basic Example ---------------------------------------------------------------------------------------------


def basic_example(place: Place) -> int:
    port = free_port()
    config(place, "alice", "bob", f"socat tcp-l:{port},fork,reuseaddr exec:-", "echo hello from alice")
    config(place, "bob", "alice", f"socat tcp:127.0.0.1:{port} -", "echo Hello, I'm bob")
    return port


@pytest.mark.old_and_new
@pytest.mark.parametrize("order", [("alice", "bob"), ("bob", "alice")], ids=["listener-first", "caller-first"])
@pytest.mark.usefixtures("socat")
def test_basic_example_in_either_order(place: Place, order: tuple[str, str]) -> None:
    basic_example(place)
    manager(place, order[0])
    if order[0] == "bob":
        place.programs[0].says("alice: ")  # its first attempt has failed
    manager(place, order[1])
    check_greetings(place)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill-9", "SIGTERM"])
@pytest.mark.parametrize("victim", ["alice", "bob"])
@pytest.mark.usefixtures("socat")
def test_basic_example_with_one_restarted(place: Place, victim: str, number: int) -> None:
    basic_example(place)
    running = {address: manager(place, address) for address in ("alice", "bob")}
    check_greetings(place)
    other = "bob" if victim == "alice" else "alice"
    for times in (1, 2):
        running[victim].send(number)
        running[victim].ends(-signal.SIGKILL if number == signal.SIGKILL else 0)
        if number == signal.SIGKILL:
            running[other].says(f"link to {victim} suspended: ", times=times)
            running[other].says("; its tunnels wait 10m for another transport", times=times)
        else:
            running[other].says(f"link to {victim} closed: {victim} ended it", times=times)
        running[victim] = manager(place, victim)  # takes over the socket file and, by way of socat, the port
        check_greetings(place)
        if number == signal.SIGKILL:  # it is another one than the tunnels have waited for
            running[other].says(f"link to {victim} closed: {victim} has restarted", times=times)
    assert "resumed" not in running[other].err


@pytest.mark.usefixtures("socat")
def test_listener_does_not_outlive_its_manager(place: Place) -> None:
    port = basic_example(place)
    alice = manager(place, "alice")
    eventually(lambda: place.run(f"socat -u /dev/null tcp:127.0.0.1:{port}", status=None).status == 0, "the listener")
    alice.kill()
    eventually(lambda: not place.left_over(), "the end of the socat that listened")


def test_home_in_paths(place: Place) -> None:
    (place.home / "alice.toml").write_text('[self]\naddr = "alice"\nsocket = "~/.local/r2/alice.sock"\n')
    place.start("r2dm -f ~/alice.toml").says("listening at")
    assert place.run("r2 -s ~/.local/r2/alice.sock ping -c 1").out.startswith("answer from the local node")
    assert (place.home / ".local/r2").stat().st_mode & 0o777 == 0o700
    assert (place.home / ".local/r2/alice.sock").stat().st_mode & 0o777 == 0o600


# -- 2: the same without socat -----------------------------------------------------------------------------------------


@pytest.mark.old_and_new
def test_built_in_tcp(place: Place) -> None:
    port = free_port()
    config(place, "alice", "bob", f"tcp-listen://127.0.0.1:{port}", "echo hello from alice")
    config(place, "bob", "alice", f"tcp://127.0.0.1:{port}", "echo Hello, I'm bob")
    manager(place, "bob").says("alice: ")
    alice = manager(place, "alice")
    check_greetings(place)
    alice.kill()
    manager(place, "alice")
    check_greetings(place)


def test_oldest_and_newest_python_together(place: Place, boxes: dict[tuple[int, int], Box]) -> None:
    if len(boxes) < 2:
        pytest.skip("there is one Python here")
    oldest, *_, newest = boxes.values()
    port = free_port()
    config(place, "alice", "bob", f"tcp-listen://127.0.0.1:{port}", "echo hello from alice")
    config(place, "bob", "alice", f"tcp://127.0.0.1:{port}", "echo Hello, I'm bob")
    manager(place, "alice", oldest)
    manager(place, "bob", newest)
    check_greetings(place)
    data = os.urandom(8 * MIB)
    place.start("r2 -s alice.sock serve cat", box=newest).says("offering")
    assert place.run("r2 -s bob.sock -t alice/cat tunnel -", data, box=oldest).raw == data


# -- 3: by hand --------------------------------------------------------------------------------------------------------


@pytest.mark.old_and_new
@pytest.mark.parametrize("named", [True, False], ids=["with-n", "without-n"])
@pytest.mark.usefixtures("socat")
def test_link_by_hand(place: Place, named: bool) -> None:
    port = free_port()
    alice = place.start("r2d alice", R2_SOCKET="alice.sock").says("listening at")
    bob = place.start("r2d bob", R2_SOCKET="bob.sock").says("listening at")
    back = "-n alice -" if named else "-"
    listener = f'socat tcp-l:{port},fork,reuseaddr exec:"r2 connect {back}"'
    place.start(listener, R2_SOCKET="bob.sock")
    forward = "-n bob" if named else ""
    line = f'r2 connect {forward} "socat tcp:127.0.0.1:{port},retry=200,interval=0.1 -"'
    link = place.start(line, R2_SOCKET="alice.sock")
    alice.says("linked to bob")
    bob.says("linked to alice")
    assert place.run("r2 -t bob ls", R2_SOCKET="alice.sock").out == "alice\n"
    assert place.run("r2 ls", R2_SOCKET="alice.sock").out == "bob\n"
    link.send(signal.SIGTERM)
    link.ends(0)
    alice.says("link to bob closed")
    bob.says("link to alice closed")
    assert place.run("r2 ls", R2_SOCKET="alice.sock").out == ""
    place.start(line, R2_SOCKET="alice.sock")
    alice.says("linked to bob", times=2)


@pytest.mark.usefixtures("socat")
def test_wrong_neighbour_is_refused(place: Place) -> None:
    """Both sides are told whom the one expected and who the other is."""
    port = free_port()
    alice, bob = place.node("alice"), place.node("bob")
    listener = place.start(f'socat tcp-l:{port},fork,reuseaddr exec:"r2 -s bob.sock connect -"')
    line = f'r2 -s alice.sock connect -n carl "socat tcp:127.0.0.1:{port},retry=200,interval=0.1 -"'
    refused = place.run(line, status=1)
    for words in (refused.err, listener.says("carl").err):
        assert "expected carl" in words
        assert "bob" in words
    assert "linked to" not in alice.err + bob.err


@pytest.mark.usefixtures("socat")
def test_wrong_neighbour_is_refused_by_the_one_that_is_called(place: Place) -> None:
    port = free_port()
    place.node("alice")
    place.node("bob")
    place.start(f'socat tcp-l:{port},fork,reuseaddr exec:"r2 -s bob.sock connect -n carl -"')
    line = f'r2 -s alice.sock connect "socat tcp:127.0.0.1:{port},retry=200,interval=0.1 -"'
    refused = place.run(line, status=1)
    assert "expected carl" in refused.err
    assert "alice" in refused.err


HASTY = """
import os, select, signal, socket, subprocess, sys, threading
ours, theirs = socket.socketpair()
program = subprocess.Popen(sys.argv[1:], stdin=theirs, stdout=theirs)
theirs.close()
signal.signal(signal.SIGUSR1, lambda *_: program.terminate())
def inward():
    while data := os.read(0, 65536):
        ours.sendall(data)
    ours.shutdown(socket.SHUT_WR)
threading.Thread(target=inward, daemon=True).start()
while select.select([ours], [], []):
    try:
        program.wait(0.1)
        break
    except subprocess.TimeoutExpired:
        data = ours.recv(65536)
        if not data:
            break
        os.write(1, data)
"""  # carries what PROGRAM says, but not its last words when it ends within 0.1 s of them


@pytest.mark.parametrize("socket", ["bob.sock", "bob.fwd"])
def test_last_words_arrive_before_what_carries_them_is_ended(place: Place, socket: str) -> None:
    """Whoever runs `r2 connect -` may be gone as soon as it is, like socat when a program of its fails."""
    (place.path / "hasty.py").write_text(HASTY)
    place.node("alice")
    bob = place.node("bob")
    if socket == "bob.fwd":
        place.forward_socket("bob")
    line = f"r2 -v -s alice.sock connect 'exec {sys.executable} hasty.py r2 -s {socket} connect %s-'"
    refused = place.run(line % "-n carl ", status=1)
    assert refused.err.count("expected carl, but the neighbour is alice") == 2  # by both

    link = place.start(line % "").says("linked to bob")
    hasty, = running(link.pid, b"hasty")
    os.kill(hasty, signal.SIGUSR1)
    assert "bob ended it: its r2 connect ended" in link.ends(0).err

    link = place.start(line % "").says("linked to bob")
    bob.send(signal.SIGTERM)
    assert "bob is shutting down" in link.ends(0).err
    bob.ends(0)


def test_a_command_has_time_to_pass_on_why_there_is_no_link(place: Place) -> None:
    place.node("alice")
    place.node("bob")
    line = "r2 -s alice.sock connect -n carl \"r2-lossy -q --delay 400ms 'r2 -s bob.sock connect -'\""
    refused = place.run(line, status=1)
    assert refused.err.count("expected carl, but the neighbour is bob") == 2  # by both


# -- 4: serve and tunnel -----------------------------------------------------------------------------------------------


@pytest.mark.old_and_new
def test_every_way_to_name_a_service(place: Place) -> None:
    place.pair()
    place.serve("bob", "tr a-z A-Z", "upper")
    place.serve("bob", "cat")
    assert place.run("r2 -s alice.sock -t bob ls").out == "alice\nservice/cat\nservice/upper\n"
    for target in ("-t bob -t upper", "-t bob -t service/upper", "-t bob/upper", "-t bob/service/upper"):
        assert place.run(f"r2 -s alice.sock {target} tunnel -", b"hello\n").out == "HELLO\n", target
    assert place.run("r2-tunnel -s alice.sock -t bob/cat -", b"as it is").out == "as it is"
    for target in ("-t upper", "-t service/upper", "-t bob/upper"):  # from the node itself
        assert place.run(f"r2 -s bob.sock {target} tunnel -", b"hello\n").out == "HELLO\n", target


@pytest.mark.old_and_new
@pytest.mark.parametrize("from_", ["alice", "bob"], ids=["remote", "local"])
def test_a_service_has_its_own_stderr_and_environment(place: Place, from_: str) -> None:
    place.pair()
    server = place.serve(
        "bob", 'echo "$R2_ORIGIN $R2_SERVICE $R2_NODE $R2_SOCKET"; echo words for the server >&2', "env"
    )
    result = place.run(f"r2 -s {from_}.sock -t bob/env tunnel -")
    server.says("words for the server")
    assert "words" not in result.err + result.out
    origin, service, node, sock = result.out.split()
    assert re.fullmatch(r"alice/child/\d+" if from_ == "alice" else r"child/\d+", origin)
    assert (service, node) == ("env", "bob")
    assert place.run(f"r2 -s {sock} ls").status == 0


def test_each_tunnel_gets_a_run_of_its_own(place: Place) -> None:
    place.pair()
    server = place.serve("bob", "echo run $$; cat", "run")
    tunnels = [place.start("r2 -s alice.sock -t bob/run tunnel -", stdin=-1) for _ in range(3)]
    for tunnel in tunnels:
        tunnel.prints("run ")
    assert len({tunnel.out for tunnel in tunnels}) == 3
    assert server.runs
    for tunnel in tunnels:
        tunnel.stdin.close()
        tunnel.ends(0)


@pytest.mark.old_and_new
@pytest.mark.parametrize("from_", ["alice", "bob"], ids=["remote", "local"])
def test_tunnel_joins_a_command(place: Place, from_: str) -> None:
    place.pair()
    place.serve("bob", 'while read word; do echo "you said $word"; done', "talk")
    place.serve("bob", "cat > got", "sink")
    line = f"r2 -s {from_}.sock -t bob/talk tunnel "
    place.run(line + "'echo a b; read answer; test \"$answer\" = \"you said a b\" && exit 9'", status=9)
    assert place.run(line + "'echo x; exec >&-; cat >&2; exit 7'", status=7).err == "you said x\n"
    place.run(f"r2 -s {from_}.sock -t bob/sink tunnel 'printf abc'")
    eventually(lambda: text_of(place.path / "got") == "abc", "what the command wrote")
    assert "not found" in place.run(line + "no-such-program", status=127).err
    place.run(line + "'kill -TERM $$'", status=128 + signal.SIGTERM)


def text_of(path: Path) -> str:
    """What is in the file, which may not be there yet."""
    return path.read_text() if path.exists() else ""


def test_tunnel_joins_a_connection(place: Place) -> None:
    """tcp:// at both ends: a service that is somebody's port, from a tunnel that is a connection."""
    need("socat")
    place.pair()
    port, target = free_port(), free_port()
    place.start(f"socat -t 10 tcp-l:{port},fork,reuseaddr system:'tr a-z A-Z'")
    place.serve("bob", f"tcp://127.0.0.1:{port}", "upper")

    def ask() -> bool:
        return place.run("r2 -s alice.sock -t bob/upper tunnel -", b"hello\n", status=None).out == "HELLO\n"

    eventually(ask, "an answer through tcp://")
    place.start(f"socat -u -d -d tcp-l:{target},reuseaddr create:got").says("listening")
    place.serve("bob", "cat", "cat")
    place.serve("bob", "printf from-bob", "greeting")
    place.run(f"r2 -s alice.sock -t bob/greeting tunnel tcp://127.0.0.1:{target}")
    eventually(lambda: text_of(place.path / "got") == "from-bob", "what came over the connection")


# -- 5: nodes in a row -------------------------------------------------------------------------------------------------


@pytest.mark.every_python
def test_three_nodes_in_a_row(place: Place) -> None:
    row(place, "abc")


def test_five_nodes_in_a_row(place: Place) -> None:
    row(place, "abcde")


def row(place: Place, names: str) -> None:
    for name in names:
        place.node(name)
    for one, other in zip(names, names[1:]):
        place.link(one, other)
    place.serve(names[-1], "cat", "echo")
    place.serve(names[-1], "echo $R2_ORIGIN", "origin")
    path = ""
    for before, name, after in zip(names, names[1:], [*names[2:], "service/echo\nservice/origin"]):
        path += f" -t {name}"
        listing = place.run(f"r2 -s a.sock{path} ls").out
        assert listing == f"{before}\n{after}\n"
        pong = place.run(f"r2 -s a.sock{path} ping -c 2 -i 0").out
        assert "2 sent, 2 answered, 0% lost" in pong
    data = os.urandom(3 * MIB + 17)
    assert place.run(f"r2 -s a.sock{path} -t echo tunnel -", data).raw == data
    origin = place.run(f"r2 -s a.sock{path} -t origin tunnel -").out.strip()
    assert re.fullmatch("/".join(reversed(names[:-1])) + r"/child/\d+", origin)
    trace = place.run(f"r2 -s a.sock{path} trace").out
    assert len(trace.splitlines()) == len(names)
    eventually(lambda: "/".join(names[1:]) in place.run("r2 -s a.sock ls -R").out.split(), "the whole network")
    # what is not there is named by the last node that could be asked
    unknown = place.run(f"r2 -s a.sock{path} -t nobody tunnel -", status=255).err
    assert f"{names[-1]}: does not know nobody" in unknown
    assert "service/echo" in unknown


# -- 6: ssh ------------------------------------------------------------------------------------------------------------


def test_ssh(place: Place, ssh: str) -> None:
    proxied = f'ssh {ssh} -o ProxyCommand="r2 -s alice.sock -t bob -t sshd tunnel -" r2/bob'
    boxed = f"R2_SOCKET=alice.sock r2-ssh {ssh} bob"
    for line in (proxied, boxed):
        assert place.run(f"{line} 'echo hello; wc -c; exit 5'", b"abc", status=5).out.split() == ["hello", "3"]
    place.run(f"r2-ssh {ssh} {getpass.getuser()}@bob true", R2_SOCKET="alice.sock")
    service = "-o ProxyCommand='r2 -s alice.sock -t bob -t service/sshd tunnel -'"  # as the seed spells it
    place.run(f"ssh {ssh} {service} r2/bob true")


def test_scp_of_200_mb(place: Place, ssh: str) -> None:
    digest = hashlib.sha256()
    with open(place.path / "big", "wb") as file:
        for _ in range(200):
            block = os.urandom(1_000_000)
            digest.update(block)
            file.write(block)
    r2 = f"R2_SOCKET={place.path}/alice.sock"
    proxy = "-o ProxyCommand='r2 -s alice.sock -t bob -t sshd tunnel -'"
    place.run(f"scp {ssh} {proxy} big bob:{place.path}/there", patience=300)
    place.run(f"{r2} scp {ssh} -S r2-ssh bob:{place.path}/there back", patience=300)
    for copy in ("there", "back"):
        assert place.run(f"sha256sum < {copy}", patience=300).out.split()[0] == digest.hexdigest()


def test_ssh_port_forwarding(place: Place, ssh: str) -> None:
    need("socat")
    near, far = free_port(), free_port()
    place.start(f"socat -t 10 tcp-l:{far},fork,reuseaddr system:'tr a-z A-Z'")
    place.start(f"r2-ssh {ssh} -N -L {near}:127.0.0.1:{far} bob", R2_SOCKET="alice.sock")
    data = b"through all of it " * 50_000

    def ask() -> bool:
        return place.run(f"socat -t 10 - tcp:127.0.0.1:{near}", data, status=None).raw == data.upper()

    eventually(ask, "an answer through the forwarding")


# -- 7: half-close -----------------------------------------------------------------------------------------------------

SIDES = pytest.mark.parametrize("from_", ["alice", "bob"], ids=["remote", "local"])


@pytest.mark.old_and_new
@SIDES
def test_services_that_answer_after_the_end_of_their_input(place: Place, from_: str) -> None:
    place.pair()
    place.serve("bob", "sort")
    place.serve("bob", "sha256sum")
    place.serve("bob", "mkdir -p new && cd new && tar xvf -", "untar")
    data = os.urandom(5 * MIB)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))

    def tunnel(service: str, input: bytes) -> str:
        return place.run(f"r2 -s {from_}.sock -t bob/{service} tunnel -", input).out

    assert place.run(f"printf 'c\\na\\nb\\n' | r2 -s {from_}.sock -t bob/sort tunnel -").out == "a\nb\nc\n"
    assert tunnel("sha256sum", b"abc").split()[0] == hashlib.sha256(b"abc").hexdigest()
    assert tunnel("sha256sum", b"").split()[0] == hashlib.sha256().hexdigest()
    assert tunnel("sha256sum", data).split()[0] == hashlib.sha256(data).hexdigest()
    assert tunnel("untar", archive.getvalue()) == "file\n"
    assert (place.path / "new/file").read_bytes() == data
    lines = sorted(os.urandom(8).hex() for _ in range(200_000))
    assert tunnel("sort", "".join(line + "\n" for line in reversed(lines)).encode()).split() == lines


@pytest.mark.old_and_new
@SIDES
def test_a_service_that_closes_its_output_first(place: Place, from_: str) -> None:
    """The client sees the end while it is still sending, and what it sends arrives."""
    place.pair()
    place.serve("bob", "echo hi; exec >&-; cat >got; echo done >&2; exit 4", "early")
    tunnel = place.start(f"r2 -s {from_}.sock -t bob/early tunnel -", stdin=-1, stdout=-1)
    assert tunnel.stdout.read(3) == b"hi\n"
    assert tunnel.stdout.read() == b""
    assert tunnel.runs
    data = os.urandom(2 * MIB)
    tunnel.stdin.write(data)
    assert tunnel.runs
    tunnel.stdin.close()
    tunnel.ends(4)
    assert (place.path / "got").read_bytes() == data


@SIDES
def test_a_dialogue(place: Place, from_: str) -> None:
    """Neither side waits for an end, or for more bytes, before it passes on what there is."""
    place.pair()
    place.serve("bob", "while read word; do echo you said $word; done", "talk")
    tunnel = place.start(f"r2 -s {from_}.sock -t bob/talk tunnel -", stdin=-1, stdout=-1)
    for number in range(50):
        tunnel.stdin.write(b"%d\n" % number)
        assert tunnel.stdout.readline() == b"you said %d\n" % number
    tunnel.stdin.close()
    assert tunnel.stdout.read() == b""
    tunnel.ends(0)


# -- 8: many at once ---------------------------------------------------------------------------------------------------

TUNNELS = 200
SIZE = 2_500_000
# A receiving daemon holds at most what it has granted: 256 KiB for each of 201 tunnels and less than the 64 MiB budget
# of its one link, whatever the tunnels carry (here 0.5 GB a way).  To that come the Python that runs it, two sockets,
# their buffers and bookkeeping for each tunnel, and what the allocator does not give back: as much again for both.
MEMORY_LIMIT = 128 * MIB


def test_many_tunnels_and_one_that_is_stalled(place: Place) -> None:
    need("flock", "sha256sum")
    alice, bob = place.pair()
    place.serve("bob", "cat")
    place.serve("bob", "cat /dev/zero", "zeros")
    stalled = place.start("r2 -s alice.sock -t bob/zeros tunnel -", stdout=-1)  # nobody reads the pipe
    assert stalled.stdout.read(1) == b"\0"
    step = 997
    data = os.urandom(SIZE + step * TUNNELS)
    (place.path / "data").write_bytes(data)
    with open(place.path / "gate", "w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)  # nobody sends before all tunnels stand
        before = open_files(bob.pid)
        tunnels = [
            place.start(
                f"(flock -s gate true; tail -c +{number * step + 1} data | head -c {SIZE})"
                " | r2 -s alice.sock -t bob/cat tunnel - | sha256sum",
                shell=True,
            )
            for number in range(TUNNELS)
        ]
        eventually(lambda: open_files(bob.pid) >= before + TUNNELS, "the tunnels to be open", patience=300)
    for number, tunnel in enumerate(tunnels):
        tunnel.ends(0, patience=300)
        expected = hashlib.sha256(data[number * step : number * step + SIZE]).hexdigest()
        assert tunnel.out.split()[0] == expected, tunnel
        assert tunnel.err == ""
    assert stalled.runs
    assert stalled.err == ""
    for daemon in (alice, bob):
        assert memory(daemon.pid, "VmHWM") < MEMORY_LIMIT, daemon
    stalled.kill()
    eventually(lambda: open_files(bob.pid) <= before + 2, lambda: f"bob to close what is over: {open_files(bob.pid)}")

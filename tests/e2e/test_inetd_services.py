"""Programs made for inetd, which read and write descriptor 0, and what counts as the end of a program's output.

Each is served without an option, and reached by the `WAYS` of `support.tunnels`: over a link, locally, and both over
a control socket that is forwarded.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import BinaryIO

import pytest

from support.processes import PATIENCE, Place, Program, eventually, free_port, need
from support.tunnels import WAYS, build, make_ends, nothing_left, read_all, read_size, send, tunnel

MIB = 1 << 20
EACH_WAY = pytest.mark.parametrize("from_", WAYS)
FROM_BOTH = pytest.mark.parametrize("from_", ["alice.sock", "bob.sock"], ids=["remote", "local"])


def serve_python(place: Place, name: str, script: str) -> Program:
    """A service whose program is `script`; `sock` is its descriptor 0."""
    (place.path / f"{name}.py").write_text(f"import os, socket, sys\nsock = socket.socket(fileno=0)\n{script}")
    return place.serve("bob", f"python3 {name}.py", name)


# -- programs of others ------------------------------------------------------------------------------------------------


@pytest.fixture
def rsync(place: Place) -> int:
    """The line of a real rsync --daemon is in `rsync.sh`; the port that it opens where it takes itself for no child of
    inetd."""
    need("rsync")
    port = free_port()
    (place.path / "files").mkdir()
    (place.path / "rsync.conf").write_text(
        f"port = {port}\naddress = 127.0.0.1\nuse chroot = no\nreverse lookup = no\nlog file = {place.path}/rsync.log\n"
        f"[files]\npath = {place.path}/files\nread only = no\n"
        + (f"uid = {os.getuid()}\ngid = {os.getgid()}\n" if os.geteuid() == 0 else "")
    )
    return port


@EACH_WAY
def test_rsync_as_a_daemon(place: Place, rsync: int, from_: str) -> None:
    daemons = build(place, from_)
    place.serve("bob", f"rsync --daemon --config={place.path}/rsync.conf", "rsync")
    data = os.urandom(3 * MIB)
    (place.path / "files" / "there").write_bytes(data)
    (place.path / "here").write_bytes(data[::-1])
    with nothing_left(*daemons):
        environment = f"RSYNC_CONNECT_PROG='r2 -s {from_} -t bob/rsync tunnel -'"
        assert "there" in place.run(f"{environment} rsync rsync://bob/files/").out
        place.run(f"{environment} rsync rsync://bob/files/there got")
        place.run(f"{environment} rsync here rsync://bob/files/put")
        assert (place.path / "got").read_bytes() == data
        assert (place.path / "files" / "put").read_bytes() == data[::-1]
        # With pipes: its first line comes although nothing is said, and it does not open a port.
        for kind in ("pipe", "socket"):
            ours_in, in_, ours_out, out = make_ends(kind)
            client = tunnel(place, from_, "rsync", stdin=in_, stdout=out)
            for fd in {in_, out}:
                os.close(fd)
            assert read_size(ours_out, 9) == b"@RSYNCD: ", kind
            os.write(ours_in, b"@RSYNCD: 30.0\n#list\n")
            assert b"files" in read_all(ours_out)
            client.ends(255)  # rsync's
            for fd in {ours_in, ours_out}:
                os.close(fd)
        place.run(f"r2 -s {from_} -t bob/rsync tunnel - </dev/null >silent", status=None)
        assert (place.path / "silent").read_bytes().startswith(b"@RSYNCD: ")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", rsync)).close()


@EACH_WAY
def test_telnetd(place: Place, from_: str) -> None:
    """A terminal behind it: it waits for answers to its questions, writes, and ends when its program does."""
    need("telnetd")
    build(place, from_)
    script = place.path / "login"
    script.write_text("#!/bin/sh\nread word\necho you said $word\nread end\n")
    script.chmod(0o755)
    place.serve("bob", f"telnetd --exec-login={script}", "telnet")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = tunnel(place, from_, "telnet", stdin=theirs.fileno(), stdout=theirs.fileno())
        theirs.close()
        ours.settimeout(PATIENCE)
        ours.sendall(b"hello\r\n")
        with ours.makefile("rb") as stream:
            text = b""
            while b"you said hello" not in text:
                byte = stream.read(1)
                assert byte, text
                if byte[0] == IAC:
                    refuse(ours, stream)
                else:
                    text += byte
            ours.sendall(b"bye\r\n")
            stream.read()
        client.ends(None)


IAC, DONT, DO, WONT, WILL, SUB, END_SUB = 255, 254, 253, 252, 251, 250, 240


def refuse(sock: socket.socket, stream: BinaryIO) -> None:
    """Read a command of telnet, and answer that nothing of it will be done."""
    command = stream.read(1)[0]
    if command in (DO, WILL):
        sock.sendall(bytes((IAC, WONT if command == DO else DONT, *stream.read(1))))
    elif command in (DONT, WONT):
        stream.read(1)
    elif command == SUB:
        while stream.read(1) != bytes((END_SUB,)):
            pass


# -- programs of ours --------------------------------------------------------------------------------------------------

ANSWERS = """
got = b""
while piece := sock.recv(1 << 16):
    got += piece
sock.sendall(b"%d bytes" % len(got))
"""
SPEAKS = """
sock.sendall(b"hello")
sock.shutdown(socket.SHUT_WR)
with open("got", "wb") as file:
    while piece := sock.recv(1 << 16):
        file.write(piece)
sys.exit(4)
"""
MUTE = SPEAKS.replace('sock.sendall(b"hello")\n', "")
LATE = """
os.write(1, b"words")
os.close(1)
open("gate").read()
try:
    sock.send(b"late")
except BrokenPipeError:
    sys.exit(7)
"""
CLOSES = "os.close(1)\n"


@EACH_WAY
@pytest.mark.parametrize("before", ["", CLOSES], ids=["", "closes-1"])
def test_it_reads_to_the_end_and_answers(place: Place, from_: str, before: str) -> None:
    daemons = build(place, from_)
    serve_python(place, "answers", before + ANSWERS)
    with nothing_left(*daemons):
        data = os.urandom(MIB)
        assert place.run(f"r2 -s {from_} -t bob/answers tunnel -", data).out == f"{MIB} bytes"
        assert place.run(f"r2 -s {from_} -t bob/answers tunnel - | cat", data).out == f"{MIB} bytes"
        place.run(f"r2 -s {from_} -t bob/answers tunnel 'head -c 5 /dev/zero; exec >&-; cat >there'")
        assert (place.path / "there").read_text() == "5 bytes"


@EACH_WAY
@pytest.mark.parametrize("script", [SPEAKS, MUTE, CLOSES + SPEAKS, CLOSES + MUTE], ids=["", "mute", "1", "mute-1"])
def test_it_ends_its_output_and_reads_on(place: Place, from_: str, script: str) -> None:
    daemons = build(place, from_)
    serve_python(place, "speaks", script)
    words = b"hello" if "hello" in script else b""
    data = os.urandom(MIB)
    for kind in ("pipe", "socket"):
        with nothing_left(*daemons):
            ours_in, in_, ours_out, out = make_ends(kind)
            client = tunnel(place, from_, "speaks", stdin=in_, stdout=out)
            for fd in {in_, out}:
                os.close(fd)
            assert read_all(ours_out) == words, kind
            assert client.runs
            if kind == "socket":
                with socket.socket(fileno=os.dup(ours_in)) as sock:
                    sock.sendall(data)
                    sock.shutdown(socket.SHUT_WR)
            else:
                send(os.dup(ours_in), data)
            for fd in {ours_in, ours_out}:
                os.close(fd)
            client.ends(4)
            assert (place.path / "got").read_bytes() == data


@EACH_WAY
def test_a_filter_ends_its_output_and_reads_on(place: Place, from_: str) -> None:
    """Also one that has written nothing, which is what one made for inetd does before it writes to 0."""
    daemons = build(place, from_)
    data = os.urandom(MIB)
    for name, command, words in (
        ("silent", "exec >&-; cat >got; exit 4", b""),
        ("null", "exec >/dev/null; cat >got; exit 4", b""),
        ("said", "echo hi; exec >&-; cat >got; exit 4", b"hi\n"),
    ):
        place.serve("bob", command, name)
        with nothing_left(*daemons):
            client = tunnel(place, from_, name, stdin=-1, stdout=-1)
            assert read_all(client.stdout.fileno()) == words
            assert client.runs
            client.stdin.write(data)
            client.stdin.close()
            client.ends(4)
            assert (place.path / "got").read_bytes() == data
            joined = place.start(
                f"r2 -s {from_} -t bob/{name} tunnel 'cat >there; touch {name}.ended; cat there; echo bye; exit 5'"
            )
            eventually((place.path / f"{name}.ended").exists, "the end of the program's output")
            joined.ends(5)
            assert (place.path / "there").read_bytes() == words
            assert (place.path / "got").read_bytes() == words + b"bye\n"


@FROM_BOTH
def test_a_program_ends_its_input_and_writes_on(place: Place, from_: str) -> None:
    daemons = build(place, from_)
    place.serve("bob", "exec <&-; echo ready; read word <gate; echo done", "deaf")
    os.mkfifo(place.path / "gate")
    with nothing_left(*daemons):
        client = place.start(f"(yes; touch over) | r2 -s {from_} -t bob/deaf tunnel -", shell=True)
        eventually((place.path / "over").exists, "the end of who writes to it")
        client.prints("ready")
        (place.path / "gate").write_text("go\n")
        client.prints("done")
        client.ends(0)


@FROM_BOTH
def test_a_mute_program_without_input_is_not_cut_off(place: Place, from_: str) -> None:
    """Its 0 is closed and nothing was written for longer than the doubt lasts."""
    from r2box.net.io.program import UNDECIDED_TIME

    build(place, from_)
    place.serve("bob", f"exec <&-; sleep {UNDECIDED_TIME + 0.5}; echo done", "late")
    assert place.run(f"r2 -s {from_} -t bob/late tunnel - </dev/null").out == "done\n"


@FROM_BOTH
def test_what_is_written_after_the_end_of_the_output_fails(place: Place, from_: str) -> None:
    build(place, from_)
    serve_python(place, "late", LATE)
    os.mkfifo(place.path / "gate")
    client = tunnel(place, from_, "late", stdin=-1, stdout=-1)
    assert read_all(client.stdout.fileno()) == b"words"
    (place.path / "gate").write_text("go\n")
    client.stdin.close()
    client.ends(7)


@EACH_WAY
def test_order_and_exit_status(place: Place, from_: str) -> None:
    """A banner on 1 comes before what is said on 0; a program that is killed has not ended in good order."""
    build(place, from_)
    serve_python(place, "banner", "os.write(1, b'banner ')\nsock.sendall(b'talk')\nsys.exit(3)\n")
    serve_python(place, "killed", "sock.sendall(b'talk')\nos.kill(os.getpid(), 9)\n")
    result = place.run(f"r2 -s {from_} -t bob/banner tunnel - </dev/null", status=3)
    assert result.out == "banner talk"
    result = place.run(f"r2 -s {from_} -t bob/killed tunnel - </dev/null", status=128 + 9)
    assert result.out == "talk"


@FROM_BOTH
def test_forwarded_to_a_port(place: Place, from_: str) -> None:
    """r2-forward, and tcp:// in a tunnel: a connection, with half-close both ways."""
    build(place, from_)
    serve_python(place, "answers", CLOSES + ANSWERS)
    serve_python(place, "speaks", CLOSES + SPEAKS)
    place.serve("bob", "echo hi; exec >&-; cat >got; exit 4", "early")
    for service, answer in (("answers", b"5 bytes"), ("speaks", b"hello"), ("early", b"hi\n")):
        port = free_port()
        forward = place.start(f"r2 -v -s {from_} -t bob/{service} forward tcp-listen://127.0.0.1:{port}")
        forward.says("listening")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = tunnel(place, from_, service, f"tcp://127.0.0.1:{listener.getsockname()[1]}")
            with listener.accept()[0] as sock:
                check_connection(place, sock, service, answer)
            client.ends(0 if service == "answers" else 4)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            check_connection(place, sock, service, answer)
        forward.send(signal.SIGTERM)
        forward.ends(0)


def check_connection(place: Place, sock: socket.socket, service: str, answer: bytes) -> None:
    if service == "answers":
        sock.sendall(b"12345")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock.fileno()) == answer
        return
    got = place.path / "got"
    assert read_all(sock.fileno()) == answer
    sock.sendall(b"12345")
    sock.shutdown(socket.SHUT_WR)
    eventually(lambda: got.exists() and got.read_bytes() == b"12345", "what was written")
    got.unlink()

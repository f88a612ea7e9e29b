"""iosh: shells through real daemons at a terminal that the test types to."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

import pytest

from r2box.net.io.channel import BUFFER
from r2box.net.io.loop import Loop
from r2box.tools.iosh import protocol as t
from r2box.tools.iosh.connection import QUIET, StreamSource
from r2box.tools.iosh.heartbeat import MAX_PINGS, Heartbeat
from support.processes import PATIENCE, Place, await_port, command_line, eventually, free_port, memory, need
from support.rehearsal.transfers import Killed, read_until


def one(data: bytes) -> bytes:
    """The payload of the only frame, behind a greeting."""
    frames = list(t.ShellDecoder().feed(t.encode_hello() + data))
    assert len(frames) == 2
    return frames[1][1]


class Clock(Loop):
    """A loop whose time is made: nothing but timers runs."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 1000.0

    def now(self) -> float:  # type: ignore[override]
        return self.time

    def pass_on(self, seconds: float, step: float = 0.01) -> None:
        end = self.time + seconds
        while self.time < end:
            self.time = min(end, self.time + step)
            self._run_timers()


class Beats:
    """The connection of a Heartbeat, and a record of its calls."""

    def __init__(self) -> None:
        self.on_bytes: Callable[[], object] | None = None
        self.pings = 0
        self.said: list[str] = []
        self.clock = Clock()
        self.heart = Heartbeat(
            self.clock, self, lambda seconds: self.said.append(f"silent {seconds:.0f}"),  # type: ignore[arg-type]
            lambda seconds: self.said.append(f"back {seconds:.0f}"),
        )  # fmt: skip

    def send(self, data: bytes) -> None:
        assert list(t.ShellDecoder().feed(t.encode_hello() + data))[1:] == [(t.PING, b"")]
        self.pings += 1

    def hear(self) -> None:
        assert self.on_bytes is not None
        self.on_bytes()


def test_a_program_that_says_nothing_is_not_taken_for_a_cut() -> None:
    """Whose end answers, however slowly; and while output comes, it is not asked."""
    for delay in (0.01, 0.5, 1.5):
        beats = Beats()
        answered = 0
        for _ in range(600):
            if beats.pings > answered:
                beats.clock.later(delay, beats.hear)
                answered += 1
            beats.clock.pass_on(0.1)
        assert beats.said == []
        assert 20 <= beats.pings <= 60
    beats = Beats()
    for _ in range(100):
        beats.clock.pass_on(0.4)
        beats.hear()
    assert (beats.said, beats.pings) == ([], 0)


def test_a_silence_is_told_from_3_seconds_on_and_its_end() -> None:
    beats = Beats()
    beats.clock.pass_on(2.9)
    assert beats.said == []
    beats.clock.pass_on(2.2)
    assert beats.said == ["silent 3", "silent 4", "silent 5"]
    beats.clock.pass_on(1000)
    assert beats.pings == MAX_PINGS
    del beats.said[:]
    beats.hear()
    assert beats.said == ["back 1005"]
    beats.clock.pass_on(1.5)
    assert beats.pings == MAX_PINGS + 1


def test_a_time_in_which_we_were_stopped_is_no_silence() -> None:
    beats = Beats()
    beats.clock.pass_on(60, step=60)
    assert beats.said == []
    beats.clock.pass_on(2)
    beats.heart.restart()
    beats.clock.pass_on(2.5)
    assert beats.said == []
    beats.clock.pass_on(1)
    assert beats.said == ["silent 3"]
    beats.heart.close()
    beats.clock.pass_on(9)
    assert beats.said == ["silent 3"]


class Peer:
    """Stands for the ShellConnection of a Source: what it was given to send."""

    def __init__(self) -> None:
        self.payload = b""

    def send(self, data: bytes) -> None:
        self.payload += one(data)


def test_what_waits_for_a_credit_is_not_taken_for_silence() -> None:
    """When a program has ended, whose last words are still in its terminal."""
    loop, peer, (fd, theirs) = Loop(), Peer(), os.pipe()
    os.set_blocking(fd, False)
    ended: list[bool] = []
    source = StreamSource(loop, peer, fd, t.OUTPUT, lambda: ended.append(True))  # type: ignore[arg-type]
    for size in range(4096, t.WINDOW + 1, 4096):  # exactly
        os.write(theirs, bytes(4096))
        while len(peer.payload) < size:
            loop.run_once()
    os.write(theirs, b"the last words")
    source.finish()
    loop.later(3 * QUIET, loop.stop)
    loop.run()
    assert not ended
    source.give(t.WINDOW)
    while not ended:
        loop.run_once()
    assert peer.payload.endswith(b"the last words")
    os.close(theirs)
    loop.close()


# -- the tools, with real processes -----------------------------------------------------------------------------------

IOSH = 'iosh "r2 -s alice.sock -t bob -t ioshd tunnel -"'
RAW_PROMPT = "export PS1=; exec sh"  # a shell whose output is only what it was asked for

AT_SIZE = b'trap "stty size; go=1" WINCH; echo rea""dy; until [ $go ]; do sleep 0.05; done'


class Screen:
    """A terminal, and an iosh on it that we type to."""

    def __init__(self, place: Place, line: str, rows: int = 24, columns: int = 80, env: str = "") -> None:
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""
        self.iosh = place.start(f"env {env} {line}", stdin=self.slave, stdout=self.slave)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def shows(self, text: bytes) -> None:
        """Wait for `text`, behind what was waited for before."""
        self.seen += read_until(self.master, text) if text not in self.seen else b""
        self.seen = self.seen.partition(text)[2]

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def ends(self, status: int) -> None:
        """And leaves the terminal as it was."""
        self.iosh.ends(status)
        assert termios.tcgetattr(self.slave) == self.before


@pytest.fixture
def served(place: Place) -> Place:
    place.pair()
    place.serve("bob", "ioshd")
    return place


@pytest.mark.old_and_new
def test_a_shell_on_a_terminal(served: Place) -> None:
    with Screen(served, f"{IOSH} sh -c '{RAW_PROMPT}'", 33, 99, "TERM=vt220 LC_TIME=C") as screen:
        screen.type(b"stty size; echo $TERM.$LC_TIME; tty\n")
        screen.shows(b"33 99\r\nvt220.C\r\n/dev/")
        assert screen.is_raw()
        screen.type(b"sh -c '" + AT_SIZE + b"'\n")
        screen.shows(b"ready")
        screen.resize(44, 111)
        screen.iosh.send(signal.SIGWINCH)  # which the kernel sends only to those whose controlling terminal it is
        screen.shows(b"44 111")
        screen.type(b"sleep 101\n")
        eventually(lambda: running(served, b"101"), "the sleep")
        screen.type(b"\x03")
        screen.shows(b"^C")  # what was typed before it is lost, as at any terminal
        screen.type(b"echo still $((1 + 1))\n")
        screen.shows(b"still 2")
        screen.type(b"exit 7\n")
        screen.ends(7)


def test_the_login_shell(served: Place) -> None:
    with Screen(served, IOSH) as screen:
        screen.type(b"echo $((1000 + 1)) $HOME\n")
        screen.shows(b"1001 ")
        screen.type(b"kill -9 $$\n")
        screen.ends(128 + 9)
    assert served.run(f"{IOSH}", b"echo $0; exit 3\n", status=3).out.startswith("-")


def test_keys_for_iosh(served: Place) -> None:
    with Screen(served, f"{IOSH} sh -c 'PS1=; stty -echo; echo ready; exec sh'") as screen:
        screen.shows(b"ready")
        screen.type(b"~?")
        screen.shows(b"~.   leave")
        screen.type(b"\necho a~.b\n")
        screen.shows(b"a~.b")
        screen.type(b"~~() { echo home; }\n")  # ~ would be a strange name, but that it is one ~ is to be seen
        screen.type(b"echo 'x\n~~y\n~z'\n")
        screen.shows(b"x\r\n~y\r\n~z")
        screen.type(b"~.")
        screen.ends(255)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_leave_the_terminal_as_it_was(served: Place, number: int) -> None:
    with Screen(served, f"{IOSH} sh -c 'echo ready; exec sleep 100'") as screen:
        screen.shows(b"ready")
        assert screen.is_raw()
        screen.iosh.send(number)
        screen.ends(128 + number)
    gone(served, b"sleep")


def test_in_a_shell_with_job_control(served: Place) -> None:
    """On a controlling terminal: ~^Z gives it back to the shell here, and the kernel tells of a new size."""
    need("bash")
    with Screen(served, "true") as screen:
        opening = f"exec 0<>{os.ttyname(screen.slave)} 1>&0 2>&0"  # by which a leader of a session gets it
        shell = served.start(f"{opening}; exec bash --norc -i", shell=True, PS1="[$?]")
        screen.shows(b"[0]")
        screen.type(IOSH.encode() + b" sh -c '" + AT_SIZE + b"; cat'\n")
        screen.shows(b"ready")
        screen.resize(50, 120)
        screen.shows(b"50 120")
        screen.type(b"~\x1a")
        screen.shows(b"Stopped")
        screen.shows(b"[148]")
        assert not screen.is_raw()
        screen.resize(51, 121)
        screen.type(b"fg\n")
        eventually(screen.is_raw, "raw again")
        screen.type(b"more\n")
        screen.shows(b"more\r\nmore")
        screen.type(b"\x04")
        screen.shows(b"[0]")
        screen.type(b"exit\n")
        shell.ends(0)


def read_to(fd: int, text: bytes) -> int:
    """Read up to `text` and say how much that was."""
    count, kept = 0, b""
    while text not in kept:
        assert select.select([fd], [], [], PATIENCE)[0], f"{text[:20]!r} has not come"
        data = os.read(fd, 1 << 16)
        count += len(data)
        kept = (kept + data)[-2 * max(len(text), 1 << 15) :]
    return count


def running(place: Place, word: bytes) -> list[int]:
    """The programs that have this word in their command line."""
    return [pid for pid in place.left_over() if word in command_line(pid)]


def gone(place: Place, word: bytes) -> None:
    eventually(lambda: not running(place, word), lambda: f"the end of {word!r}")


def test_what_is_left_in_the_background_does_not_hold_it(served: Place) -> None:
    asked = IOSH.replace("iosh ", "iosh -t ", 1)
    line = "set -m; (trap '' HUP; exec sleep 5) & (trap '' HUP; exec yes) & seq 5000; exit 3"
    result = served.run(f'{asked} "{line}"', status=3)
    assert "\n5000\r" in result.out
    assert served.run(f'{asked} "sleep 20 & seq 20000; exit 4"', status=4).out.endswith("20000\r\n")


def test_our_own_daemon_dies(place: Place) -> None:
    """That is said by COMMAND, which is given the time for it."""
    alice, _ = place.pair()
    place.serve("bob", "ioshd")
    with Screen(place, f"{IOSH} sh -c 'echo ready; exec sleep 100'") as screen:
        screen.shows(b"ready")
        alice.kill()
        screen.ends(255)
        assert "alice.sock: the daemon closed the connection" in screen.iosh.err


@pytest.mark.parametrize("who", ["ioshd", "serve", "daemon"])
def test_the_far_side_dies(place: Place, who: str) -> None:
    _, bob = place.pair()
    server = place.serve("bob", "ioshd")
    place.tolerate_orphans = True
    with Screen(place, f"{IOSH} sh -c 'echo $PPID ready; exec sleep 100'") as screen:
        head = read_until(screen.master, b" ready")
        pid = {"ioshd": int(head.split()[-2]), "serve": server.pid, "daemon": bob.pid}[who]
        os.kill(pid, signal.SIGKILL)
        if pid == bob.pid:
            bob.was_killed = True
            screen.type(b"~.")  # as for all that it knows, the link may come again
        screen.ends(255)
        assert pid == bob.pid or "iosh: r2 -s alice.sock" in screen.iosh.err
    gone(place, b"sleep")


def test_without_a_terminal(served: Place) -> None:
    """As ssh: three streams, the end of input, the status of the program, bytes as they are."""
    data = os.urandom(1_000_000)
    assert served.run(f"{IOSH} cat", data).raw == data
    result = served.run(f"{IOSH} 'cat; echo err >&2; [ -t 0 ] || exit 6'", b"in", status=6)
    assert (result.out, result.err) == ("in", "err\n")
    assert served.run(f"{IOSH} -- echo -- a  b").out == "-- a b\n"
    assert served.run("iosh ''", status=2).err.startswith("iosh: an empty DESTINATION")
    assert served.run(f"{IOSH} nonesuch x", status=127).err == "iosh: nonesuch: No such file or directory\n"
    assert served.run(f"{IOSH} /etc x", status=126).err.startswith("iosh: /etc: ")
    assert served.run(f"{IOSH} echo $(seq 257)", status=2).err.startswith("iosh: PROGRAM: more than 256 words")
    assert served.run(f"{IOSH} echo $(printf %016384d 0)", status=2).err.startswith("iosh: PROGRAM: more than 16 KiB")
    assert served.run(f"{IOSH} sh -c 'kill -TERM $$'", status=143).err == ""
    assert served.run(f"{IOSH} env", SECRET="1", LC_TIME="C").out.count("LC_TIME=C") == 1
    assert served.run(f"{IOSH} yes | head -n 1").out == "y\n"
    gone(served, b"yes")
    assert served.run(f"{IOSH} pwd").out == f"{served.home}\n"


def test_who_reads_slowly_gets_all(served: Place) -> None:
    """Also when the program and its ioshd have ended long before."""
    size = BUFFER + t.WINDOW // 2  # what a pipe holds, and less than what may be under way
    line = f"{IOSH} 'head -c {size} /dev/zero; echo err >&2; exit 3'"
    result = served.run(f"{{ {line}; echo $? >status; }} | {{ sleep 2; wc -c; }}")
    assert (result.out.strip(), result.err) == (f"{size}", "err\n")
    assert (served.path / "status").read_text() == "3\n"


def test_an_interrupt_of_all_of_it(place: Place) -> None:
    """As ^C in a pipeline does it: COMMAND's end is no failure then."""
    for _ in range(6):
        shell = place.start('iosh ioshd "echo there; exec sleep 100"').prints("there")
        shell.interrupt()
        assert shell.ends(128 + signal.SIGINT).err == ""


def test_a_terminal_there_without_one_here(served: Place) -> None:
    asked = IOSH.replace("iosh ", "iosh -t ", 1)
    shown = served.run(f"{asked} 'tty; cat'", b"abc").out
    assert "/dev/" in shown
    assert shown.endswith("abc")
    with Screen(served, f"{IOSH.replace('iosh ', 'iosh -T ', 1)} 'tty; cat'") as screen:
        screen.shows(b"not a tty")
        assert not screen.is_raw()
        screen.type(b"\x04")
        screen.ends(0)


def test_what_has_too_much_to_say_is_stopped(served: Place) -> None:
    """^C comes through at once, behind it is no more than a window, and nobody's memory has grown."""
    with Screen(served, f"{IOSH} sh -c '{RAW_PROMPT}'") as screen:
        screen.type(b"yes\n")
        for _ in range(50):
            read_to(screen.master, b"y\r\n" * 1000)
        pids = [pid for pid in served.left_over() if b"iosh" in b" ".join(command_line(pid))]
        assert len(pids) >= 2
        before = {pid: memory(pid, "VmRSS") for pid in pids}
        time.sleep(0.5)  # in which nobody reads
        screen.type(b"\x03")
        screen.seen = b""
        behind = read_to(screen.master, b"^C")
        assert behind < 3 * t.WINDOW
        for pid in pids:
            assert memory(pid, "VmRSS") < before[pid] + 2_000_000
        screen.type(b"exit\n")
        screen.iosh.ends(None)


def test_what_is_no_iosh_is_told_so(served: Place) -> None:
    result = served.run("r2 -s alice.sock -t bob -t ioshd tunnel -", b"hello?\n", status=1)
    assert "this is a shell for iosh" in result.out
    assert "stdin is a terminal" in served.run("script -qec ioshd /dev/null", status=2).out
    assert "cat: the other side is not an ioshd" in served.run("iosh cat", status=255).err
    assert "does not speak iosh" in served.run("iosh 'echo hello'", status=255).err
    assert "no ioshd has answered" in served.run("iosh true", status=255).err
    assert "bob" in served.run(IOSH.replace("-t ioshd", "-t nothing"), status=255).err


def test_it_lives_through_cuts(place: Place) -> None:
    link = Killed(place)
    place.serve("bob", "ioshd")
    with Screen(place, f"{IOSH} sh -c '{RAW_PROMPT}'") as screen:
        for number in range(3):
            screen.type(b"echo got $((%d * 1000))_\n" % (number + 1))
            screen.shows(b"got %d_" % (1000 * (number + 1)))
            link.kill()
            screen.resize(30 + number, 90)
            screen.iosh.send(signal.SIGWINCH)
        screen.type(b"stty size\n")
        screen.shows(b"32 90")
        screen.type(b"exit 4\n")
        screen.ends(4)


class Cut:
    """A link of alice and bob that can be cut: whatever carries it is stopped, and nothing is said of it."""

    def __init__(self, place: Place) -> None:
        place.node("alice"), place.node("bob")
        ports = free_port(), free_port()
        place.start(f"r2 -v -s bob.sock connect tcp-listen://127.0.0.1:{ports[1]}")
        await_port(ports[1])
        self._relay = place.start(f"r2box lossy tcp-listen://127.0.0.1:{ports[0]} tcp://127.0.0.1:{ports[1]}")
        await_port(ports[0])
        place.start(f"r2 -v -s alice.sock connect tcp://127.0.0.1:{ports[0]}").says("linked to")
        place.serve("bob", "ioshd")
        place.answers("alice", "bob")

    def cut(self) -> None:
        self._relay.send(signal.SIGSTOP)

    def heal(self) -> None:
        self._relay.send(signal.SIGCONT)


def test_a_cut_is_shown_and_its_end(place: Place) -> None:
    link = Cut(place)
    with Screen(place, f"iosh -s alice.sock bob sh -c '{RAW_PROMPT}'", env="TERM=xterm") as screen:
        screen.type(b"echo rea''dy\n")
        screen.shows(b"ready")
        for _ in range(2):
            link.cut()
            screen.type(b"echo got $((500 + 500))\n")
            screen.shows(b"\x1b7\x1b[1;1H")
            screen.shows(b"iosh: no answer from bob since ")
            screen.shows(b"(5 s); Enter ~. leaves")
            link.heal()
            screen.shows(b"iosh: bob answers again, after ")
            screen.shows(b"\x1b[1;1H\x1b(B\x0f\x1b[0m\x1b[2K\x1b8")
            screen.shows(b"got 1000")
        screen.type(b"exit 4\n")
        screen.ends(4)


def test_a_program_is_asked_for_its_screen_after_a_cut(place: Place) -> None:
    """Also one that says nothing and reads nothing, so that nothing but the answer to a PING comes."""
    link = Cut(place)
    program = 'trap "stty size; go=1" WINCH; echo ready; until [ $go ]; do sleep 0.05; done; exit 6'
    with Screen(place, f"iosh -s alice.sock bob '{program}'", env="TERM=xterm") as screen:
        screen.shows(b"ready")
        link.cut()
        screen.shows(b"no answer from bob")
        link.heal()
        screen.shows(b"bob answers again")
        screen.shows(b"\x1b[2K\x1b8")
        screen.shows(b" 80\r\n")
        screen.ends(6)


def test_it_can_be_left_during_a_cut(place: Place) -> None:
    link = Cut(place)
    place.tolerate_orphans = True
    with Screen(place, f"iosh -s alice.sock bob sh -c '{RAW_PROMPT}'", env="TERM=xterm") as screen:
        screen.type(b"echo rea''dy\n")
        screen.shows(b"ready")
        link.cut()
        screen.shows(b"no answer from bob")
        screen.type(b"\r~.")
        screen.ends(255)
        screen.shows(b"\x1b[2K\x1b8\r\n")
    link.heal()


def test_a_terminal_without_a_cursor_gets_lines(place: Place) -> None:
    link = Cut(place)
    with Screen(place, f"iosh -s alice.sock bob sh -c '{RAW_PROMPT}'", env="TERM=dumb") as screen:
        screen.type(b"echo rea''dy\n")
        screen.shows(b"ready")
        link.cut()
        screen.shows(b"\r\niosh: no answer from bob since ")
        link.heal()
        screen.shows(b"\r\niosh: bob answers again")
        assert b"\x1b" not in screen.seen
        screen.type(b"exit 4\n")
        screen.ends(4)


def test_a_node_is_enough(served: Place) -> None:
    """As with ssh; a command when it is one."""
    for destination in ("-s alice.sock bob", "-s alice.sock r2://bob", "-s alice.sock bob/service/ioshd",
                        "-s alice.sock any/ioshd", "'exec:r2 -s alice.sock -t bob/ioshd tunnel -'", "ioshd"):
        assert served.run(f"iosh {destination} echo hello").out == "hello\n"
    assert served.run("iosh bob echo hello", R2_SOCKET="alice.sock").out == "hello\n"
    assert served.run("iosh -s bob.sock service/ioshd echo here").out == "here\n"
    assert "iosh: carl: " in served.run("iosh -s alice.sock carl", status=255).err
    assert "does not know carl" in served.run("iosh -s alice.sock carl", status=255).err
    assert "is not a path" in served.run("iosh r2://a//b", status=2).err
    assert "names its own daemon" in served.run("iosh -s alice.sock 'r2 tunnel -'", status=2).err
    assert "if a node is meant: iosh r2://cat" in served.run("iosh cat", status=255).err
    for nothing in ("", " ", "exec:", "r2://"):
        assert "an empty DESTINATION" in served.run(f"iosh '{nothing}'", status=2).err


def test_a_program_that_has_a_nodes_name_is_run(served: Place) -> None:
    path = served.executable("bob", "echo here >&2; exec ioshd\n")
    result = served.run("iosh bob echo hello", PATH=path)
    assert (result.out, result.err) == ("hello\n", "here\n")
    assert served.run("iosh -s alice.sock r2://bob echo hello", PATH=path).err == ""


def test_an_environment_that_does_not_fit_refuses_no_session(served: Place) -> None:
    """It is left out, with a warning that names it; what fits comes through."""
    more: dict[str, Any] = {"LC_HUGE": "x" * 17000, "LC_TIME": "C", "LANG": "C.UTF-8"}
    result = served.run(f"{IOSH} env", **more)
    assert "LC_TIME=C\n" in result.out
    assert "LC_HUGE" not in result.out
    assert result.err.startswith("iosh: LC_HUGE: not passed on: ")
    assert served.run(f"{IOSH.replace('iosh', 'iosh -q', 1)} true", **more).err == ""
    many: dict[str, Any] = {f"LC_X{number:03}": "1" for number in range(50)}
    result = served.run(f"{IOSH} env", **many, LC_TIME="C")
    assert "LC_TIME=C\n" in result.out
    assert result.out.count("LC_X") == 30
    assert "and 15 more: not passed on" in result.err
    name = "LC_" + "N" * 20000
    long: dict[str, Any] = {name: ""}
    assert served.run(f"{IOSH} true", **long).err.startswith(f"iosh: {name[:40]}...: not passed on")
    with Screen(served, f"{IOSH} sh -c '{RAW_PROMPT}'", env=f"TERM=xterm{'x' * 17000} LC_TIME=C") as screen:
        screen.type(b"echo $LC_TIME$((500 + 500))\n")
        screen.shows(b"C1000")
        assert screen.iosh.err.startswith("iosh: TERM: not passed on: ")
        screen.type(b"exit\n")
        screen.ends(0)


def test_what_is_typed_into_a_new_size_finds_it(served: Place) -> None:
    """Even if iosh hears of the signal later; here, never."""
    with Screen(served, f"{IOSH} sh -c '{RAW_PROMPT}'") as screen:
        screen.type(b"echo rea''dy\n")
        screen.shows(b"ready")
        screen.resize(35, 91)
        screen.type(b"stty size\n")
        screen.shows(b"35 91")
        screen.type(b"exit\n")
        screen.ends(0)


def test_names_beside_the_box_are_found(place: Place) -> None:
    """Where r2box is not on PATH."""
    path = os.pathsep.join(folder for folder in place.box.path.split(os.pathsep) if folder != str(place.box.dist))
    place.pair()
    place.start(f"{place.box.dist}/r2 -v -s bob.sock serve ioshd", PATH=path).says("offering service/ioshd")
    assert place.run(f"{place.box.dist}/{IOSH} echo hello", PATH=path).out == "hello\n"


def test_as_in_the_book(served: Place) -> None:
    need("zsh")
    with Screen(served, f"{IOSH} zsh -l", env="TERM=dumb") as screen:
        screen.type(b"[[ -o login ]] && echo $((1000 + 1)) in; exit 9\n")
        screen.shows(b"1001 in")
        screen.ends(9)

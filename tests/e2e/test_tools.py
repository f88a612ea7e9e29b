"""The box and its tools as programs: names, help, usage, exit statuses, installation."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from support.processes import Place, eventually, wakeups

TOOLS = "r2d r2dm r2 r2-connect r2-tunnel r2-serve r2-forward r2-ssh r2-lossy iosh ioshd".split()
WORDS = "ls ping trace bench connect tunnel open serve status top map watch wait".split()
MAN = Path(__file__).resolve().parents[2] / "man"


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.old_and_new
def test_every_tool_by_every_name(place: Place) -> None:
    """A symlink, a word after r2box, a word after r2: the same help and version, on stdout."""
    assert place.run("r2box --list").out.split() == TOOLS
    for tool in TOOLS:
        assert os.readlink(place.box.dist / tool) == "r2box"
        shown = place.run(f"{tool} --help").out
        assert "usage: " in shown.lower()
        if tool != "r2-ssh":  # which has only this one option that is not ssh's
            assert place.run(f"{tool} -h").out == shown
        assert place.run(f"r2box {tool} --help").out == shown
        if tool.startswith("r2-"):
            assert place.run(f"r2box {tool[3:]} --help").out == shown
        assert re.fullmatch(rf"{tool} \(r2box\) \d+\.\d+\S*\n", place.run(f"{tool} --version").out)
    for word in WORDS:
        shown = place.run(f"r2 {word} --help").out
        assert "usage: " in shown.lower()
        assert "--help" in shown
        assert place.run(f"r2box {word} --help").out == shown
    assert place.run("r2 tunnel --help").out == place.run("r2-tunnel --help").out


def test_help_names_every_option(place: Place) -> None:
    for tool, options in (
        ("r2", ["-s", "-t", "-v", "-q", *WORDS]),
        ("r2d", ["-s", "-v", "ADDRESS"]),
        ("r2dm", ["-f", "--check", "-v"]),
        ("r2 ls", ["-l", "-a", "-R", "--json"]),
        ("r2 ping", ["-c", "-i"]),
        ("r2 bench", ["-t", "--time", "--size", "--json"]),
        ("r2 connect", ["-n", "--lossy", "--resume", "--retry", "10m", "TRANSPORT"]),
        ("r2 serve", ["-n", "--allow", "TRANSPORT"]),
    ):
        shown = place.run(f"{tool} --help").out
        for option in options:
            assert option in shown, tool


def test_the_box_itself(place: Place) -> None:
    assert place.run("r2box --version").out.startswith("r2box ")
    assert "r2-connect" in place.run("r2box --help").out
    assert place.run("r2box", status=2).err.startswith("usage: r2box")
    assert "did you mean --install" in place.run("r2box --instal x", status=2).err
    assert "no such tool" in place.run("r2box nothing", status=2).err
    assert "did you mean status" in place.run("r2box statu", status=2).err
    assert "R2D 8" in place.run("r2box --man r2d").out
    for shell in ("bash", "zsh", "fish"):
        assert "r2-tunnel" in place.run(f"r2box --completion {shell}").out
    place.run("r2box --completion cmd", status=2)


def test_every_page_of_the_manual_is_in_the_file(place: Place) -> None:
    """By its name alone, and with its section in front of it or behind it."""
    for path in sorted(MAN.iterdir()):
        name, _, section = path.name.rpartition(".")
        text = path.read_text(encoding="utf-8")
        for spelled in (name, path.name, f"'{name}({section})'", f"{section} {name}"):
            assert place.run(f"r2box --man {spelled}").out == text
    assert ".Dt R2-LS 1" in place.run("r2box --man 'r2 ls'").out
    assert place.run("r2box --man protocol").out == place.run("r2box --man r2-protocol").out
    assert "r2-protocol is in section 7" in place.run("r2box --man r2-protocol.5", status=2).err
    listed = place.run("r2box --man r2-protocl", status=2).err
    assert "did you mean r2-protocol?" in listed
    for path in MAN.iterdir():
        name, _, section = path.name.rpartition(".")
        assert f"{name}({section})" in listed


def test_what_is_almost_a_url_is_not_run(place: Place) -> None:
    """With any tool that takes a TRANSPORT, and in a file."""
    place.node("alice")
    meant = "neither a URL nor a program (did you mean tcp://127.0.0.1:4721?)"
    for line in ("r2 -s alice.sock connect", "r2 -s alice.sock -t bob tunnel", "r2 -s alice.sock serve -n web"):
        assert meant in place.run(f"{line} 127.0.0.1:4721", status=2).err
        assert meant in place.run(f"{line} tcp:127.0.0.1:4721", status=2).err
    assert meant in place.run("r2box lossy 127.0.0.1:4721", status=2).err
    listen = "did you mean tcp-listen://127.0.0.1:4721?"
    assert listen in place.run("r2 -s alice.sock -t bob forward 127.0.0.1:4721", status=2).err
    (place.path / "a.toml").write_text('[self]\naddr = "a"\n[[conn]]\ncmd = "127.0.0.1:4721"\n')
    result = place.run("r2dm --check -f a.toml", status=None)
    assert (result.status != 0, meant in result.err) == (True, True)
    path = place.executable("tcp:hello", "echo hello\n")
    place.start("r2 -s alice.sock serve tcp:hello -n hello", PATH=path).says("offering")
    assert place.run("r2 -s alice.sock -t hello tunnel -").out == "hello\n"


def test_a_tunnel_without_a_target_asks_which_service(place: Place) -> None:
    place.node("alice")
    assert "which service? (it offers none)" in place.run("r2 -s alice.sock tunnel -", status=255).err
    place.serve("alice", "cat", "upper")
    place.serve("alice", "cat", "hidden", "--private")
    assert "which service? (-t upper; there are upper)" in place.run("r2 -s alice.sock tunnel -", status=255).err


def test_by_path_and_by_another_name(place: Place) -> None:
    (place.path / "mybox").symlink_to(place.box.dist / "r2box")
    assert place.run("./mybox r2 --version").out == place.run("r2 --version").out
    assert place.run(f"{place.box.dist}/r2-tunnel --version").out == place.run("r2-tunnel --version").out


# -- usage errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("r2d", "missing ADDRESS"),
        ("r2d a b", "unexpected argument 'b'"),
        ("r2d a/b", "'/'"),
        ("r2d service", "reserved"),
        ("r2d ''", "empty"),
        ("r2d --sokcet x a", "--sokcet"),
        ("r2d -s", "-s"),
        ("r2d -s '' a", "option -s: an empty SOCKET"),
        ("r2 --socket= ls", "option --socket: an empty SOCKET"),
        ("r2dm", "missing -f"),
        ("r2 lss", "did you mean ls?"),
        ("r2 -x ls", "-x"),
        ("r2 ls extra", "unexpected argument 'extra'"),
        ("r2 -t 'a b' ls", "' '"),
        ("r2 -t a//b ls", "r2-ls: 'a//b' is not a path: an address between slashes cannot be empty"),
        ("r2 ping -c 0", "-c"),
        ("r2 ping -c x", "x"),
        ("r2 bench", "bench measures the path to another node: give one with -t"),
        ("r2 -t bob bench --time 0", "--time"),
        ("r2 -t bob bench --size 0", "--size"),
        ("r2 tunnel", "missing TRANSPORT"),
        ("r2 serve", "missing TRANSPORT"),
        ("r2 -t bob serve cat", "-t"),
        ("r2 -t bob connect cat", "-t"),
        ("r2 connect -n a/b cat", "'/'"),
        ("r2d -- -oProxyCommand=id", "begins with a dash"),
        ("r2 connect --retry -", "--retry: a descriptor can be used once"),
        ("r2 connect --retry fd://0", "--retry: a descriptor can be used once"),
        ("r2 connect --resume nonsense cat", "--resume: 'nonsense' is not a duration"),
        ("r2 connect --resume -1 cat", "--resume: '-1' is not a duration"),
        ("r2 connect --resume 5x cat", "--resume: '5x' is not a duration"),
        ("r2 connect --resume '' cat", "--resume: '' is not a duration"),
        ("r2 connect --resume 367d cat", "--resume: '367d' is more than a year"),
        ("r2 connect cat --resume", "--resume needs a TIME"),
        ("r2 connect --retry=yes cat", "--retry"),
        ("r2 connect --lossless cat", "--lossless"),
        ("r2-ssh", "missing NODE"),
        ("iosh", "missing DESTINATION"),
        ("iosh -tT cat", "-t and -T"),
    ],
)
def test_usage_errors(place: Place, line: str, words: str) -> None:
    """Exit status 2, nothing on stdout, and on stderr what is wrong and where to read more."""
    result = place.run(line, status=None)
    assert words in result.err
    assert result.out == ""
    assert result.err.startswith(line.split(maxsplit=1)[0])
    assert result.status == (255 if "tunnel" in line and "missing" not in words else 2)


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("r2 connect tpc://h:1", 1, "did you mean tcp://h:1?"),
        ("r2 connect tcp://host", 1, "port is missing"),
        ("r2 connect tcp://host:99999", 1, "not a port"),
        ("r2 connect tcp://::1:5", 1, "brackets"),
        ("r2 connect ''", 1, "empty TRANSPORT"),
        ("r2 serve tcp://127.0.0.1:1", 1, "-n NAME"),
        ("r2 serve -n x -", 1, "cannot be served"),
        ("r2 serve -n x tcp-listen://127.0.0.1:1", 1, "cannot be served"),
        ("r2 serve -n x udp-listen://127.0.0.1:1", 1, "cannot be served"),
        ("r2 forward tcp://127.0.0.1:1", 1, "cannot be forwarded"),
        ("r2 tunnel tcp-listen://127.0.0.1", 255, "port is missing"),
        ("r2 connect tun://r20", 1, "cannot carry a link"),
        ("r2 connect --retry tun://r20", 1, "cannot carry a link"),
        ("r2 connect udp://127.0.0.1:1?mode=600", 1, "mode"),
        ("r2 connect tcp://127.0.0.1:1?timeut=1s", 1, "did you mean timeout?"),
    ],
)
def test_transports_that_are_none(place: Place, line: str, status: int, words: str) -> None:
    result = place.run(line, status=None, R2_SOCKET="none.sock")
    assert words in result.err
    assert result.status in (status, 2)


@pytest.mark.parametrize("word", ["connect", "serve", "watch"])
def test_a_target_without_a_meaning_is_not_offered(place: Place, word: str) -> None:
    assert "--target" not in place.run(f"r2 {word} --help").out
    assert "-t is not supported" in place.run(f"r2 -t bob {word} {'x' if word != 'watch' else ''}", status=2).err


def test_r2_without_a_command_shows_its_help(place: Place) -> None:
    result = place.run("r2", status=2)
    assert result.out == ""
    assert result.err == place.run("r2 --help").out


# -- options in front and behind ---------------------------------------------------------------------------------------


def test_common_options_before_and_after_the_command(place: Place) -> None:
    place.pair()
    expected = "alice\n"
    for line in (
        "r2 -s alice.sock -t bob ls",
        "r2 --socket=alice.sock --target bob ls",
        "r2 ls -s alice.sock -t bob",
        "r2 -salice.sock ls -tbob",
        "R2_SOCKET=alice.sock r2 -t bob ls",
        "R2_SOCKET=nowhere r2 -s alice.sock -t bob ls",
        "r2 -s alice.sock -t bob ls --",
        "r2 -s alice.sock -t alice/bob ls",
    ):
        assert place.run(line).out == expected, line
    assert place.run("r2-serve -s alice.sock -n x", status=2).out == ""


def test_a_command_that_begins_with_a_dash(place: Place) -> None:
    place.node("alice")
    place.serve("alice", "cat", "cat")
    assert "not found" in place.run("r2 -s alice.sock -t cat tunnel -- '--odd'", status=127).err


def test_open(place: Place) -> None:
    """The later spelling of tunnel, and of a service in a path."""
    place.pair()
    place.serve("bob", "tr a-z A-Z", "upper")
    for line in (
        "r2 -s alice.sock open bob/upper",
        "r2 -s alice.sock open bob/service:upper -",
        "r2 -s alice.sock -t bob open service:upper",
        "r2 -s alice.sock open -t bob upper",
        "r2 -s alice.sock -t bob -t service:upper tunnel -",
    ):
        assert place.run(line, b"hello").out == "HELLO", line
    assert place.run("r2 -s alice.sock open bob/upper 'printf hello; exec cat >got'").status == 0
    assert (place.path / "got").read_text() == "HELLO"
    said = place.run("r2 -s alice.sock open bob/lower", b"", status=255).err
    assert said.startswith("r2-open: ")
    assert "missing PATH" in place.run("r2 -s alice.sock open", status=2).err


# -- ls, ping, trace ---------------------------------------------------------------------------------------------------


@pytest.mark.every_python
def test_ls(place: Place) -> None:
    place.pair()
    place.serve("bob", "tr a-z A-Z", "upper")
    assert place.run("r2 -s alice.sock ls").out == "bob\n"
    assert place.run("r2 -s bob.sock ls").out == "alice\nservice/upper\n"
    long = place.run("r2 -s bob.sock ls -l").out
    assert re.search(r"^node +alice", long, re.MULTILINE)
    assert re.search(r"^service +service/upper +tr a-z A-Z$", long, re.MULTILINE)
    everything = place.run("r2 -s bob.sock ls -a").out
    assert re.search(r"^child/\d+$", everything, re.MULTILINE)
    entries = [json.loads(line) for line in place.run("r2 -s alice.sock -t bob ls --json").out.splitlines()]
    assert [(entry["kind"], entry["name"]) for entry in entries] == [("node", "alice"), ("service", "service/upper")]
    place.run("r2 -s alice.sock -t bob/upper wait --timeout 20s")
    rows = [line.split() for line in place.run("r2 -s alice.sock ls -R").out.splitlines()]
    assert [row[0] for row in rows] == ["bob", "bob/service/upper"]


def test_ls_of_a_large_node(place: Place) -> None:
    """A listing that does not fit into one message comes whole."""
    names = [f"service-{'x' * 40}-{number:04}" for number in range(1500)]
    tables = "".join(f'[[serve]]\nname = "{name}"\ncmd = "cat"\n' for name in names)
    (place.path / "alice.toml").write_text(f'[self]\naddr = "alice"\nsocket = "alice.sock"\n{tables}')
    place.start("r2dm -q -f alice.toml")
    expected = "".join(f"service/{name}\n" for name in names)
    eventually(lambda: place.run("r2 -s alice.sock ls", status=None).out == expected, "all services", 60)


def test_ping_and_trace(place: Place) -> None:
    place.pair()
    out = place.run("r2 -s alice.sock -t bob ping -c 3 -i 0.01").out
    assert re.search(r"^answer from bob: seq=3 time=\d+\.\d+ ms$", out, re.MULTILINE)
    assert re.search(r"^--- bob: 3 sent, 3 answered, 0% lost$", out, re.MULTILINE)
    assert "min/avg/max/mdev" in out
    assert place.run("r2 -q -s alice.sock ping -c 1").out.startswith("--- the local node: 1 sent")
    assert "1 sent, 0 answered, 100% lost" in place.run("r2 -s alice.sock -t carl ping -c 1", status=1).out
    assert len(place.run("r2 -s alice.sock -t bob -t alice trace").out.splitlines()) == 3
    place.serve("bob", "cat", "echo")
    for target in ("bob/echo", "bob/service/echo"):
        assert len(place.run(f"r2 -s alice.sock -t {target} trace").out.splitlines()) == 2, "its node is the last"


def test_ping_of_a_daemon_that_does_not_answer(place: Place) -> None:
    _, bob = place.pair()
    bob.send(signal.SIGSTOP)
    assert "no answer within 0.3 s" in place.run("r2 -s alice.sock -t bob ping -c 1 -W 0.3", status=1).err
    bob.send(signal.SIGCONT)
    place.answers("alice", "bob")


# -- what is said ------------------------------------------------------------------------------------------------------


def test_quiet_and_verbose(place: Place) -> None:
    quiet = place.start("r2d -q -s quiet.sock quiet")
    eventually(lambda: place.run("r2 -s quiet.sock ping -c 1", status=None).status == 0, "the quiet daemon")
    quiet.send(signal.SIGTERM)
    assert quiet.ends(0).err == ""
    place.node("alice", options="-v")
    server = place.start("r2 -vv -s alice.sock serve -n cat cat").says("offering service/cat")
    place.run("r2 -s alice.sock -t cat tunnel -", b"abc")
    server.says("a tunnel from child/")


def test_every_line_says_who_and_what(place: Place) -> None:
    alice, bob = place.pair()
    place.serve("bob", "exit 3", "three")
    place.run("r2 -s alice.sock -t bob/three tunnel -", status=3)
    bob.send(signal.SIGTERM)
    bob.ends(0)
    alice.says("link to bob closed")
    for program in place.programs:
        for line in program.err.splitlines():
            assert re.match(r"r2(d|-connect|-serve): \S", line), program


# -- installation ------------------------------------------------------------------------------------------------------


@pytest.mark.every_python
def test_install(place: Place) -> None:
    out = place.run("r2box --install bin").out
    assert out.count("\n") == len(TOOLS) + 1
    for tool in TOOLS:
        assert os.readlink(place.path / "bin" / tool) == "r2box"
    assert (place.path / "bin/r2box").read_bytes() == (place.box.dist / "r2box").read_bytes()
    assert place.run("bin/r2 --version").out == place.run("r2 --version").out
    place.run("r2box --install bin")  # again, over its own
    place.run("bin/r2box --install bin")  # by itself
    assert place.run("bin/r2d --version").status == 0
    place.run("r2box --install", status=2)
    place.run("r2box --install a b", status=2)


def test_an_install_that_does_not_fit_leaves_nothing(place: Place) -> None:
    result = place.run("ulimit -f 8; r2box --install bin", status=1)  # what a full disk does too
    assert result.err == "r2box: bin/r2box: File too large\n"
    assert list((place.path / "bin").iterdir()) == []


def test_install_leaves_a_foreign_r2_alone(place: Place) -> None:
    """radare2 has that name."""
    folder = place.path / "bin"
    folder.mkdir()
    radare = folder / "r2"
    radare.write_text("#!/bin/sh\necho radare2\n")
    radare.chmod(0o755)
    result = place.run("r2box --install bin", status=None)
    assert f"{'bin/r2'}: left alone" in result.err
    assert "--force" in result.err
    assert place.run("bin/r2").out == "radare2\n"
    assert place.run("bin/r2d --version").status == 0
    (folder / "r2-ssh").unlink()
    (folder / "r2-ssh").symlink_to("/usr/bin/true")
    assert "bin/r2-ssh" in place.run("r2box --install bin", status=None).err
    assert os.readlink(folder / "r2-ssh") == "/usr/bin/true"
    assert place.run("r2box --install bin --force").err == ""
    assert place.run("bin/r2 --version").out == place.run("r2 --version").out


def test_a_daemon_survives_the_replacement_of_its_file(place: Place) -> None:
    """What it needs it has read at its start, also what it has not used yet."""
    place.run("r2box --install bin")
    daemon = place.start("bin/r2d -s alice.sock alice").says("listening at")
    bob = place.start("bin/r2d -s bob.sock bob").says("listening at")
    server = place.start("bin/r2 -s bob.sock serve cat").says("offering")
    (place.path / "bin/r2box").unlink()
    (place.path / "bin/r2box").write_text("something else\n")
    place.link("alice", "bob")
    assert place.run("r2 -s alice.sock -t bob/cat tunnel -", b"abc").out == "abc"
    assert "does not know" in place.run("r2 -s alice.sock -t carl tunnel -", status=255).err
    bob.send(signal.SIGTERM)
    bob.ends(0)
    daemon.says("link to bob closed")
    server.ends(1)


@pytest.mark.old_and_new
def test_nothing_is_written_to_home(place: Place) -> None:
    place.home.chmod(0o500)
    place.pair()
    place.serve("bob", "cat", "cat")
    assert place.run("r2 -s alice.sock -t bob/cat tunnel -", b"abc").out == "abc"
    assert list(place.home.iterdir()) == []
    line = f"env -i PATH='{place.box.path}' r2 -s alice.sock ls"
    assert place.run(line).out == "bob\n"


def test_an_idle_daemon_sleeps(place: Place) -> None:
    """No wake-ups but keepalives, which are 15 s apart; counted by the kernel."""
    alice, _ = place.pair()
    eventually(lambda: wakeups(alice.pid, 0.5) == 0, "what the beginning of the link has left to do")
    eventually(lambda: wakeups(alice.pid, 2) <= 2, "two seconds of sleep")  # keepalives of both may fall into them

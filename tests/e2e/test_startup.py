"""What is loaded when: a tool only what it needs, a daemon at its start all that it will ever need."""

from __future__ import annotations

import pathlib
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from r2box.tools.r2 import R2
from support.processes import Place, Program, children, eventually, free_port

# Modules of Python that cost milliseconds, and modules of r2box that only others need.
HEAVY = """argparse ast asyncio configparser contextlib ctypes dataclasses datetime difflib email encodings.idna fnmatch
    inspect json logging pathlib re random shlex shutil ssl string subprocess tempfile textwrap threading tomli tomllib
    traceback typing unicodedata urllib""".split()
OURS = [
    "api.session", "cli.manual", "config.parse", "net.daemon.daemon", "net.daemon.switchboard", "net.daemon.status",
    "proto.routing.router", "tools.lossy", "tools.manager", "tools.r2d", "tools.status",
]  # fmt: skip
TOOLS = {"r2", "connect", "serve", "tunnel"}
LOADED = re.compile(r"^import time:\s+\d+ \|\s+\d+ \| +(\S+)$", re.MULTILINE)

# With its own Python, because what site-packages load at every start would hide what we do.
BARE = "python3 -S -E -X importtime {}/r2"

CARL = """\
[self]
addr = "carl"
socket = "carl.sock"
[[serve]]
cmd = "cat"
[[conn]]
cmd = "{}"
"""

ROOT = pathlib.Path(__file__).resolve().parents[2]


def loaded(text: str) -> list[str]:
    """What was imported, as Python has told on stderr, after it was ready to run an archive."""
    names = LOADED.findall(text)
    assert "runpy" in names, text
    return names[names.index("runpy") + 1 :]


def check(err: str, *tools: str) -> None:
    names = loaded(err)
    assert not [name for name in names if name in HEAVY or name.partition(".")[0] in HEAVY]
    others = {f"r2box.{name}" for name in OURS} | {f"r2box.tools.{name}" for name in TOOLS - {*tools}}
    assert not others.intersection(names)
    assert {f"r2box.tools.{name}" for name in tools} <= set(names), "this test sees nothing"


@pytest.mark.every_python
def test_what_is_started_often_loads_little(place: Place) -> None:
    alice, _ = place.node("alice"), place.node("bob")
    r2 = BARE.format(place.box.dist) + " -v -s alice.sock"
    link = place.start(f'{r2} connect -n bob "r2 -s bob.sock connect -"').says("linked to")
    place.answers("bob", "alice")
    server = place.start(f"{r2} serve cat").says("offering")
    tunnel = place.run(f"{r2} -t cat tunnel -", b"abc")
    remote = place.run(f"{r2} -t bob/child tunnel -", b"abc", status=None)
    far = place.run("r2 -s bob.sock -t alice/cat tunnel -", b"abc")
    assert (tunnel.out, far.out) == ("abc", "abc")
    ls = place.run(f"{r2} ls")
    assert "bob" in ls.out
    for program in (server, link):
        program.send(signal.SIGTERM)
        program.ends(0)
    check(ls.err, "r2")
    check(link.err, "connect")
    check(server.err, "serve")
    check(tunnel.err, "tunnel")
    check(remote.err, "tunnel")
    assert alice.runs


def test_r2_itself_has_no_options_but_the_common_ones() -> None:
    """So its module is not loaded to read what stands before `connect` and the like."""
    assert not R2.specific


@pytest.mark.every_python
def test_what_stays_loads_nothing_from_its_file_later(place: Place) -> None:
    """The file is replaced under it, and everything is used that has not been used before."""
    place.run("r2box --install bin")
    port = free_port()
    config = place.path / "carl.toml"
    config.write_text(CARL.format(f"tcp://127.0.0.1:{port}"))
    config.chmod(0o600)
    place.node("bob")
    started = [
        place.start(f"python3 -S -E -X importtime {line}").says(said)
        for line, said in (
            ("bin/r2d -s alice.sock alice", "listening at"),
            ("bin/r2dm -f carl.toml", "offers"),
            ("bin/r2 -s alice.sock serve 'sh -c \"echo $R2_ORIGIN; cat\"'", "offering"),
            (f"bin/r2 -s alice.sock serve -n web tcp://localhost:{port}", "offering"),
            ('bin/r2 -v -s alice.sock connect "r2 -s bob.sock connect -"', "linked to"),
        )
    ]
    lengths = [len(program.err) for program in started]
    (place.path / "bin/r2box").write_text("something else\n")

    listener = place.start(f"r2 -v -s alice.sock connect tcp-listen://127.0.0.1:{port}").says("linked to carl")
    place.answers("alice", "carl")
    use_everything(place, started[1])
    for program in (listener, *reversed(started)):
        program.send(signal.SIGTERM)
        program.ends(0)
    for program, length in zip(started, lengths):
        assert [name for name in LOADED.findall(program.err[:length]) if name.startswith("r2box.net")]
        later = LOADED.findall(program.err[length:])
        assert not [name for name in later if name.partition(".")[0] in ("r2box", "tomli")], program


def use_everything(place: Place, carl: Program) -> None:
    for from_ in ("alice", "carl"):
        for path in ("alice/sh", "carl/cat"):
            assert place.run(f"r2 -s {from_}.sock -t {path} tunnel -", b"abc").out.endswith("abc")
        place.run(f"r2 -s {from_}.sock -t nobody/cat tunnel -", status=255)
        place.run(f"r2 -s {from_}.sock ls -alR")
        place.run(f"r2 -s {from_}.sock status")
        place.run(f"r2 -s {from_}.sock -t carl trace", status=None)
    place.run("r2 -s carl.sock -t alice/web tunnel -", b"", status=None)
    right = (place.path / "carl.toml").read_text()
    for text, said in (("[self]\n", "missing"), (right + '[[conn]]\ncmd = "false"\n', "false: closed before")):
        (place.path / "carl.toml").write_text(text)
        carl.send(signal.SIGHUP)
        carl.says(said)


@pytest.mark.old_and_new
def test_a_daemon_that_is_killed_while_it_starts_leaves_no_child(place: Place) -> None:
    """The child that compiles for it has more to write than a pipe holds."""

    def caught() -> list[tuple[Program, int]]:
        """A daemon that is stopped while it has the child; none if this one was faster."""
        daemon = place.start("r2dm -f nothing.toml")
        while not (found := children(daemon.pid)):
            if not daemon.runs:
                return []
        daemon.send(signal.SIGSTOP)
        stat = Path(f"/proc/{daemon.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] in "TZ", "that it is stopped, or has ended")
        return [(daemon, found[0])] if daemon.runs else []

    [(daemon, child)] = eventually(caught, "a daemon with the child that compiles")
    daemon.kill()
    eventually(lambda: not Path(f"/proc/{child}").exists(), "its end")


# ---- start-up
def test_importing_it_imports_nothing_heavy() -> None:
    show = "import sys; before = set(sys.modules); import r2box.cli.command; print(*sorted(set(sys.modules) - before))"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {show}"
    run = subprocess.run([sys.executable, "-S", "-I", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy = {"argparse", "dataclasses", "typing", "enum", "re", "shutil", "textwrap", "collections", "collections.abc"}
    heavy |= {"difflib", "shlex", "datetime", "functools", "inspect", "subprocess", "logging", "r2box.cli.manual"}
    loaded = set(run.stdout.split())
    assert "r2box.cli.command" in loaded
    assert not loaded & heavy


# Lines


def test_what_is_rarely_needed_is_not_loaded() -> None:
    code = "import sys, r2box.config.parse; print('difflib' in sys.modules, 'dataclasses' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False False\n"

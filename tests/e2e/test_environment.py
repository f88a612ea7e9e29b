"""No environment that a user's shell may have keeps a tool from starting, and from doing its work."""

from __future__ import annotations

import pytest

from support.processes import Place

# What the shell does before it runs the tool.  `evil` is a directory of modules that nobody must load.
ENVIRONMENTS = [
    "PYTHONPATH=evil",
    "PYTHONSAFEPATH=1",
    "PYTHONHOME=/nonexistent",
    "PYTHONSTARTUP=evil/json.py",
    "PYTHONINSPECT=1",
    "PYTHONOPTIMIZE=2",
    "PYTHONWARNINGS=error",
    "PYTHONWARNINGS=bogus::x",
    "PYTHONDEVMODE=1",
    "PYTHONUTF8=0",
    "PYTHONUTF8=bogus",
    "PYTHONIOENCODING=bogus",
    "PYTHONIOENCODING=ascii:strict",
    "PYTHONHASHSEED=bogus",
    "PYTHONMALLOC=bogus",
    "PYTHONPLATLIBDIR=bogus",
    "PYTHONINTMAXSTRDIGITS=1",
    "PYTHONDONTWRITEBYTECODE=1",
    "PYTHONPYCACHEPREFIX=/nonexistent",
    "PYTHONUSERBASE=evil",
    "LANG=C",
    "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
    "LC_ALL=xx",
    "COLUMNS=0",
    "COLUMNS=abc",
    "COLUMNS=-5 LINES=-5",
    "TERM=",
    "TERM=bogus",
    "-u TERM",
    "TZ=no/such:zone",
    "TMPDIR=/nonexistent",
    "HOME=/nonexistent",
    "-u HOME",
    "R2_SOCKET=",
    "XDG_RUNTIME_DIR=relative XDG_STATE_HOME=",
]  # fmt: skip
# The same as redirections and as changes of the directory.
ELSEWHERE = [
    "{} <&-",
    "{} 2>&-",
    "{} <&- 2>&-",
    "cd evil && {}",
    "mkdir gone && cd gone && rmdir ../gone && {}",
]


@pytest.fixture
def node(place: Place) -> Place:
    (place.path / "evil").mkdir()
    for name in ("r2box", "json", "signal", "socket", "selectors", "sitecustomize", "usercustomize", "zipimport"):
        (place.path / "evil" / f"{name}.py").write_text(f"raise SystemExit('{name} of somebody else')\n")
    place.node("alice")
    place.serve("alice", "tr a-z A-Z", "upper")
    return place


def works(node: Place, tool: str) -> None:
    """`tool` is a line in which {} is the tool and its socket."""
    socket = node.path / "alice.sock"
    listed = node.run(tool.format(f"r2 -s {socket} ls"))
    assert listed.out == "service/upper\n"
    assert node.run(tool.format(f"r2 -s {socket} ls --json")).out.startswith("{")
    if "<&-" not in tool:
        assert node.run(tool.format(f"r2 -s {socket} -t upper tunnel -"), b"hello").out == "HELLO"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_no_environment_keeps_a_tool_from_starting(node: Place, environment: str) -> None:
    works(node, f"env {environment} {{}}")
    assert "usage" in node.run(f"env {environment} r2box r2d --help").out.lower()


@pytest.mark.parametrize("line", ELSEWHERE)
def test_nor_does_a_place_or_a_closed_descriptor(node: Place, line: str) -> None:
    works(node, line)


@pytest.mark.parametrize("path", ["PATH=", "-u PATH"])
def test_without_a_path_there_is_python3_where_it_usually_is(node: Place, path: str) -> None:
    """Which may be none, or an old one: then that is said."""
    result = node.run(f"env {path} $(command -v r2) -s alice.sock ls", status=None)
    assert result.out == "service/upper\n" or "python3" in result.err or "needs Python 3.9" in result.err


@pytest.mark.old_and_new
def test_a_daemon_and_what_it_starts(node: Place) -> None:
    """Programs get the environment as it was."""
    odd = "env PYTHONPATH=evil PYTHONHOME=/nonexistent LC_ALL=xx"
    node.start(f"{odd} r2d -s bob.sock bob").says("listening at")
    node.start(f"{odd} r2 -v -s alice.sock connect 'r2 -s bob.sock connect -'").says("linked to bob")
    node.start(f"{odd} r2 -s bob.sock serve -n env 'echo $PYTHONHOME'").says("offering")
    assert node.run("r2 -s alice.sock -t bob/env tunnel -", b"").out == "/nonexistent\n"

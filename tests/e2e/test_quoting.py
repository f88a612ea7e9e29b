"""Command lines as users write them, given to the real tools, sh and socat: odd words, odd paths, no names on PATH."""

from __future__ import annotations

import re

import pytest

from r2box.net.io.words import quote
from support.processes import Place, await_port, eventually, free_port, need

# As names of sockets: signs of the shell, and of socat's addresses.
NAMES = ["a(1)", "a b", "a&b", "$x", "a'b", 'a"b', "a,b", "a!b!!c", "a\\b", "a:b", "-%", "`id`", "{a}[b", "a;touch b#"]


def test_a_backslash_before_a_blank(place: Place) -> None:
    """In each tool that looks into a command line."""
    place.pair()
    (place.path / "my file").write_text("found\n")
    place.start("r2 -s bob.sock serve -n f 'cat my\\ file'").says("offering service/f")
    assert place.run("r2 -s alice.sock -t bob -t f tunnel -").out == "found\n"
    place.start("r2 -s bob.sock serve -n keep 'cat >out\\ file'").says("offering service/keep")
    place.run("r2 -s alice.sock -t bob -t keep tunnel 'cat my\\ file'")
    eventually(lambda: (place.path / "out file").read_text() == "found\n", "what the tunnel carried")
    place.node("carl")
    (place.path / "my run").write_text('exec "$@"\n')
    place.start("r2 -v -s carl.sock connect 'sh my\\ run r2 -s bob.sock connect -'").says("linked to bob")


def test_check_is_what_a_start_is(place: Place) -> None:
    """What --check calls right starts, and what cannot start is not right, also in a reload."""
    text = '[self]\naddr = "alice"\nsocket = "alice.sock"\ncmd = \'cat my\\ file\'\n'
    text += "[[serve]]\nname = 'x'\ncmd = 'cat \"it'\n[[task]]\ncmd = 'echo it\\'\n"
    (place.path / "alice.toml").write_text(text)
    (place.path / "my file").write_text("found\n")
    place.run("r2dm --check -f alice.toml")
    manager = place.start("r2dm -f alice.toml").says("listening at")
    assert place.run("r2 -s alice.sock tunnel -").out == "found\n"
    (place.path / "alice.toml").write_text(text + "[[serve]]\nname = 'y'\ncmd = 'tcp://h:1'\ndatagrams = true\n")
    wrong = place.run("r2dm --check -f alice.toml", status=1)
    assert "line 13: [[serve]] number 2: datagrams: tcp://h:1: is a stream of bytes" in wrong.err
    assert place.run("r2dm -f alice.toml", status=1).err == wrong.err
    manager.send(1)
    manager.says("not reloaded: alice.toml: line 13: [[serve]] number 2: datagrams")


@pytest.mark.parametrize("name", NAMES)
def test_paths_in_socat_and_sh(place: Place, name: str) -> None:
    """A socket at an odd path, in each place where our own command is put."""
    need("socat")
    path = quote(f"./{name}.sock")
    place.start(f"r2d -s {path} alice").says("listening at")
    place.node("bob")
    before = {file.name for file in place.path.iterdir()}
    for command in ("exec:-", "system:-", 'system:"-%"', "system:'cd /; exec -%'"):
        port = free_port()
        line = f"socat tcp-l:{port},bind=127.0.0.1,reuseaddr {command}"
        starter = place.start(f"r2 -v -s {path} connect {quote(line)}")
        await_port(port)
        link = place.start(f"r2 -v -s bob.sock connect tcp://127.0.0.1:{port}").says("linked to alice")
        link.send(15)
        link.ends()
        starter.send(15)
        starter.ends(None)
    link = place.start(f"r2 -v -s {path} connect {quote('sh -c -- ' + quote('exec r2 -s bob.sock connect -'))}")
    link.says("linked to bob")
    assert place.run(f"r2 -s {path} ls").out == "bob\n"
    made = {file.name for file in place.path.iterdir()} - before
    assert all(re.fullmatch(r"(out|err)\d+", file) for file in made), made


def test_tools_without_names(place: Place) -> None:
    """Where r2box has no symlinks and may not be executed, commands find its tools all the same."""
    folder = place.path / "bare"
    folder.mkdir()
    (folder / "r2box").write_bytes((place.box.dist / "r2box").read_bytes())
    path = place.box.path.replace(f"{place.box.dist}:", "")
    for node in ("alice", "bob"):
        place.start(f"python3 bare/r2box r2d -s {node}.sock {node}", PATH=path).says("listening at")
    line = "python3 bare/r2box r2 -v -s alice.sock connect 'R2_SOCKET=bob.sock r2 connect -n alice -'"
    place.start(line, PATH=path).says("linked to bob")
    failing = place.start("python3 bare/r2box r2 -s alice.sock connect 'env r2 connect -'", PATH=path).ends(1)
    assert "(if r2 was not found: r2box --install DIR puts it into DIR" in failing.err

"""The states of links, services and forwards: as programs report them, and as status, ls and top show them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

import r2box
from r2box.net.transport.peer import MAX_COMMAND, address_of, command_line
from support.processes import Place, eventually, free_port

Row = dict[str, Any]


# -- who is at the other side ------------------------------------------------------------------------------------------


def test_who_is_at_the_other_side(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert address_of(client.fileno()) == f"127.0.0.1:{server.getsockname()[1]}"
        assert client.getpeername() == server.getsockname(), "it is still open"
        assert address_of(server.fileno()) == "", "it is not connected"
    with open(tmp_path / "file", "w") as file:
        assert address_of(file.fileno()) == ""
    assert command_line(os.getpid())
    assert command_line(-1) == ""
    words = ["/bin/sh", "-c", "read x", "a\x1b[2J\nb", "y" * 1000]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as program:  # it ends when its input does
        eventually(lambda: command_line(program.pid), "a command line")  # there is none for a moment
        assert command_line(program.pid).startswith(r"sh -c read x a\x1b[2J\nb yyy")
        assert len(command_line(program.pid)) == MAX_COMMAND
    assert command_line(program.pid) == ""


# -- the tools ---------------------------------------------------------------------------------------------------------


def jobs(place: Place, node: str) -> list[Row]:
    found = [json.loads(line) for line in place.run(f"r2 -s {node}.sock status --json").out.splitlines()]
    return [row for row in found if row["kind"] == "job"]


def await_job(place: Place, node: str, **wanted: Any) -> Row:
    """The first job that has all that is `wanted`."""
    last: list[Row] = []

    def there() -> Row | None:
        last[:] = jobs(place, node)
        return next((row for row in last if row.items() >= wanted.items()), None)

    return eventually(there, lambda: f"{wanted} at {node}, but there is {last}")  # type: ignore[arg-type]


def shows(place: Place, line: str, pattern: str) -> None:
    """Wait until what `line` prints has a line like `pattern`; no line of it is longer than 80 characters."""
    last = [""]

    def there() -> bool:
        last[0] = place.run(line).out
        assert max(map(len, last[0].splitlines()), default=0) <= 80, last[0]
        return bool(re.search(f"^{pattern}$", last[0], re.MULTILINE))

    eventually(there, lambda: f"{pattern!r} of {line}; there is\n{last[0]}")


@pytest.mark.every_python
def test_a_link_that_is_retried_is_shown(place: Place) -> None:
    """With where to, why not, and when again; until its program is killed."""
    place.node("alice")
    port = free_port()
    target = f"tcp://127.0.0.1:{port}"
    held = place.start(f"r2 -s alice.sock connect --retry -n bob {target}")
    held.says(f"bob: {target}: Connection refused; trying again in ")
    row = await_job(place, "alice", state="retrying", name="bob")
    assert (row["job"], row["transport"], row["reason"], row["pid"]) == ("link", target, "Connection refused", held.pid)
    assert 0 < row["next"] <= 31
    assert row["tries"] > 0
    eventually(lambda: await_job(place, "alice", state="retrying")["next"] > 0.5, "longer and longer waits")
    shows(place, "r2 -s alice.sock status", rf"link +bob +retrying +\d+ s +{target} +Connection refused")
    shows(place, "r2 -s alice.sock ls -l", rf"link +bob +retrying in \d+ s, {target}: Connection refused")
    shows(place, "r2 -s alice.sock top -b -n 1", rf"link +bob +retrying +\d+ s +{target} +Connection refused")
    shows(place, "r2 -s alice.sock status -l", rf"link +bob +\d+ +\d+ .* {row['client']} +{held.pid} +{target}")

    place.node("bob")
    other = place.start(f"r2 -s bob.sock connect {target.replace('tcp', 'tcp-listen')}")
    other.says(f"listening at 127.0.0.1:{port}")
    held.send(signal.SIGHUP)  # at once
    row = await_job(place, "alice", state="up")
    assert (row["name"], row["reason"], row["next"], row["tries"]) == ("bob", "", None, 0)
    shows(place, "r2 -s alice.sock ls -l", rf"node +bob +up, 127.0.0.1:{port}")
    other.kill()
    await_job(place, "alice", state="retrying", name="bob")
    shows(place, "r2 -s alice.sock status", r"bob +suspended .* closed without BYE")
    held.kill()
    eventually(lambda: jobs(place, "alice") == [], "that the job is gone")


def test_a_link_that_listens_says_where(place: Place) -> None:
    """At port 0 the system chooses the port, which stderr, the table and a neighbour know."""
    place.node("alice")
    place.node("bob")
    held = place.start("r2 -s alice.sock connect tcp-listen://127.0.0.1:0").says("listening at 127.0.0.1:")
    found = re.search(r"r2-connect: tcp-listen://127.0.0.1:0: listening at (127.0.0.1:\d+)\n", held.err)
    assert found is not None
    where = found[1]
    assert not where.endswith(":0")
    assert await_job(place, "alice", state="listening")["where"] == where
    shows(place, "r2 -s alice.sock status", rf"link +- +listening +- +tcp-listen://127.0.0.1:0 +at {where}")
    shows(place, "r2 -s alice.sock ls -l", rf"link +tcp-listen://127.0.0.1:0 +listening at {where}")
    place.start(f"r2 -v -s bob.sock connect tcp://{where}").says("linked to alice")
    shows(place, "r2 -s bob.sock status", rf"alice +up .* {where}")
    with socket.create_connection(("127.0.0.1", int(where.rpartition(":")[2]))) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        mine = f"127.0.0.1:{sock.getsockname()[1]}"
        held.says(f"{mine}: not an r2 neighbour: it began with 'GET / HTTP/1.0'")
    quiet = place.start("r2 -q -s alice.sock connect udp-listen://127.0.0.1:0")
    row = await_job(place, "alice", state="listening", transport="udp-listen://127.0.0.1:0")
    assert re.fullmatch(r"127.0.0.1:[1-9]\d*", row["where"])
    assert quiet.err == ""


FILE = """\
[self]
addr = "alice"
socket = "alice.sock"
[[conn]]
addr = "carl"
cmd = "{command}"
[[serve]]
name = "up"
cmd = "tr a-z A-Z"
[[forward]]
listen = "tcp-listen://127.0.0.1:{port}"
target = "bob/web"
"""


def test_what_a_file_configures_is_shown_before_it_is_up(place: Place) -> None:
    port = free_port()
    (place.path / "alice.toml").write_text(FILE.format(command="echo no; exit 3", port=port))
    with socket.create_server(("127.0.0.1", port)):
        manager = place.start("r2dm -f alice.toml")
        manager.says(f"forward tcp-listen://127.0.0.1:{port}: Address already in use; trying again")
        manager.says("link carl: echo no; exit 3: not an r2 neighbour: it began with 'no'")
        row = await_job(place, "alice", job="forward", state="retrying")
        assert (row["name"], row["reason"], row["pid"]) == ("bob/web", "Address already in use", manager.pid)
        assert 0 < row["next"] <= 6
        row = await_job(place, "alice", job="link", state="retrying")
        assert (row["name"], row["transport"]) == ("carl", "echo no; exit 3")
        assert "not an r2 neighbour" in row["reason"]
        assert await_job(place, "alice", job="service")["state"] == "up"
        shows(place, "r2 -s alice.sock ls -l", r"forward +bob/web +retrying in \d s, tcp-listen:\S+ Address.*")
    manager.send(signal.SIGHUP)
    row = await_job(place, "alice", job="forward", state="listening")
    assert (row["where"], row["reason"]) == (f"127.0.0.1:{port}", "")
    (place.path / "alice.toml").write_text(FILE.format(command="cat", port=port).partition("[[serve]]")[0])
    manager.send(signal.SIGHUP)
    eventually(lambda: [row["transport"] for row in jobs(place, "alice")] == ["cat"], "that the others are gone")


def test_a_service_that_cannot_be_offered_is_shown(place: Place) -> None:
    text = '[self]\naddr = "alice"\nsocket = "alice.sock"\n'
    (place.path / "alice.toml").write_text(text)
    manager = place.start("r2dm -f alice.toml").says("listening at")
    place.serve("alice", "cat", "up")
    (place.path / "alice.toml").write_text(f'{text}[[serve]]\nname = "up"\ncmd = "tr a b"\n')
    manager.send(signal.SIGHUP)
    manager.says("service up: alice: service/up is already offered")
    row = await_job(place, "alice", state="stopped")
    assert (row["job"], row["name"], row["next"], row["pid"]) == ("service", "up", None, manager.pid)
    assert "already offered" in row["reason"]
    shows(place, "r2 -s alice.sock ls -l", r"service +service/up +stopped, tr a b: alice: .*")
    await_job(place, "alice", state="up", transport="cat")


def test_a_forward_and_its_daemon(place: Place) -> None:
    place.node("alice")
    held = place.start("r2 -s alice.sock -t bob/web forward --retry tcp-listen://127.0.0.1:0 unix-listen://web.sock")
    row = await_job(place, "alice", transport="tcp-listen://127.0.0.1:0", state="listening")
    held.says(f"listening at {row['where']}")
    await_job(place, "alice", transport="unix-listen://web.sock", state="listening", where="web.sock")
    place.programs[0].kill()
    place.node("alice")
    await_job(place, "alice", transport="tcp-listen://127.0.0.1:0", state="listening", where=row["where"])
    held.kill()
    eventually(lambda: jobs(place, "alice") == [], "that the jobs are gone")


def test_a_service_whose_target_is_away_says_where_it_tried(place: Place) -> None:
    place.node("alice")
    port = free_port()
    server = place.serve("alice", f"tcp://127.0.0.1:{port}", "web")
    said = place.run("r2 -s alice.sock -t web tunnel -", b"", status=255).err
    assert str(port) not in said, "who uses it needs not know"
    server.says(f"web: tcp://127.0.0.1:{port}: Connection refused")


def test_clients_are_shown_to_their_own_node_only(place: Place) -> None:
    place.pair()
    server = place.serve("bob", "cat", "echo")
    held = place.start("r2 -s bob.sock connect --retry tcp://127.0.0.1:1").says("trying again")
    name = next(row["client"] for row in jobs(place, "bob") if row["job"] == "service")
    shows(place, "r2 -s bob.sock ls -la", rf"client +{name} +pid {server.pid}, r2 -v -s bob.sock serve -n echo cat")
    rows = [json.loads(line) for line in place.run("r2 -s bob.sock ls -la --json").out.splitlines()]
    assert {row["pid"] for row in rows if row["kind"] == "client"} >= {server.pid, held.pid}
    assert [row["state"] for row in rows if row["kind"] == "link"] == ["retrying"]
    for line in ("r2 -s alice.sock -t bob ls -la", "r2 -s alice.sock -t bob ls -lR"):
        told = place.run(line).out
        assert "service/echo" in told
        for secret in ("pid", "cat", "retrying", "tcp://", "up,"):
            assert secret not in told
    assert place.run("r2 -s alice.sock -t bob status", status=1).out == ""


def test_an_embedded_node_reports_its_jobs(place: Place) -> None:
    with r2box.Node("alice", socket=str(place.path / "alice.sock")) as node:
        link = node.connect("tcp://127.0.0.1:1", retry=True)
        row = await_job(place, "alice", state="retrying")
        assert (row["transport"], row["reason"], row["pid"]) == ("tcp://127.0.0.1:1", "Connection refused", os.getpid())
        link.close()
        eventually(lambda: jobs(place, "alice") == [], "that the job is gone")
        node.connect("tcp-listen://127.0.0.1:0")
        node.offer("date", "date")
        assert re.fullmatch(r"127.0.0.1:[1-9]\d*", await_job(place, "alice", state="listening")["where"])
        assert await_job(place, "alice", state="up")["name"] == "date"


def test_long_names_in_80_columns(place: Place) -> None:
    """And everything with -w, on a wide terminal, or as JSON."""
    name = "n" * 64
    place.node("alice")
    place.start(f"r2 -s alice.sock connect --retry -n {name} 'sleep 0.1; : {'x' * 150}'").says("trying again")
    place.serve("alice", f"cat; : {'y' * 180}", "s" * 64)
    place.start(f"r2 -s alice.sock -t {name}/web forward unix-listen://{'w' * 80}").says("listening")
    await_job(place, "alice", state="retrying")
    for options in ("status", "status -l", "ls -l", "ls -la", "ls -R", "ls -lR", "top -b -n 1"):
        out = place.run(f"r2 -s alice.sock {options}").out
        assert max(map(len, out.splitlines())) <= 80, out
        assert "…" in out
    assert name in place.run("r2 -s alice.sock ls -l", COLUMNS="300").out
    for options in ("status -w", "status -lw", "ls -lw", "ls -lRw"):
        out = place.run(f"r2 -s alice.sock {options}").out
        assert "…" not in out
        assert "s" * 64 in out
    assert "…" not in place.run("r2 -s alice.sock ls").out

"""The limits of a node in its file and in `r2 status --limits`."""

from __future__ import annotations

import json
import signal
import textwrap

import r2box
from r2box.proto.limits import TABLE
from support.processes import Place, eventually


def shown(place: Place, name: str) -> dict[str, object]:
    lines = place.run("r2 -s alice.sock status --limits --json").out.splitlines()
    return next(row for row in map(json.loads, lines) if row["name"] == name)


def test_the_limits_of_a_file_are_shown_and_a_reload_changes_them(place: Place) -> None:
    text = """
        [self]
        addr = "alice"
        socket = "alice.sock"
        [limits]
        links = 1
        memory = "64MiB"
        """
    file = place.path / "alice.toml"
    file.write_text(textwrap.dedent(text))
    manager = place.start("r2dm -f alice.toml")
    place.await_socket("alice.sock")
    place.node("bob")
    place.node("carl")
    place.link("bob", "alice")
    lines = place.run("r2 -s alice.sock status --limits").out.splitlines()
    assert lines[0].split() == ["NAME", "LIMIT", "USED", "PEAK", "UNIT"]
    assert [line.split()[0] for line in lines[1:]] == list(TABLE)
    assert next(line.split() for line in lines if line.startswith("links ")) == ["links", "1", "1", "1", "links"]
    assert next(line.split()[1:3] for line in lines if line.startswith("memory ")) == ["64", "MiB"]
    long = place.run("r2 -s alice.sock status --limits -l").out
    assert max(map(len, long.splitlines())) <= 80
    assert f"links: {TABLE['links'].why}" in long
    refused = place.run("r2 -s carl.sock connect 'r2 -s alice.sock connect -'", status=1)
    assert "1 links are up already" in refused.err
    file.write_text(textwrap.dedent(text).replace("links = 1", "links = 2"))
    manager.send(signal.SIGHUP)
    eventually(lambda: shown(place, "links")["limit"] == 2, "the new limit")
    place.link("carl", "alice")
    assert shown(place, "links") == {
        "kind": "limit", "name": "links", "limit": 2, "used": 2, "peak": 2, "unit": "links", "why": TABLE["links"].why,
    }  # fmt: skip
    file.write_text(textwrap.dedent(text).replace("[limits]", "").replace("links = 1", "").replace("memory", "bench"))
    manager.send(signal.SIGHUP)
    manager.says("not reloaded")
    assert shown(place, "links")["limit"] == 2


def test_the_limits_of_a_node_in_a_program(place: Place) -> None:
    with r2box.Node("alice", socket=str(place.path / "alice.sock"), limits={"memory": 64 << 20, "links": 5}):
        assert shown(place, "memory")["limit"] == 64 << 20
        assert shown(place, "links")["limit"] == 5

"""The limits of a node: how much of each is used, in `r2 status --limits` too, and how they are changed."""

from __future__ import annotations

import json
import signal
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest
from mesh import Mesh
from processes import Place, eventually
from test_link import Raw, open_payload

from r2box import Node
from r2box.net.admission import Admission
from r2box.net.units import parse_size
from r2box.proto import wire
from r2box.proto.limits import LINKS_SHARE, TABLE, Limits
from r2box.proto.memory_limit import MemoryLimit
from r2box.proto.node import REQUESTS_AT_ONCE


def test_changes_hold_at_once_and_the_defaults_come_back() -> None:
    limits = Limits({"links": 5})
    assert limits["links"] == 5
    limits.change({"memory": 64 << 20})
    assert limits == {**{name: row.default for name, row in TABLE.items()}, "memory": 64 << 20}
    for name, value in (("lnks", 1), ("links", 0), ("links", 1 << 21), ("memory", 1 << 19)):
        with pytest.raises(ValueError, match=f"^{name}: "):
            limits.change({"opens": 1, name: value})
    assert limits["opens"] == TABLE["opens"].default


def test_what_is_measured_counts_for_the_high_water_mark() -> None:
    limits = Limits()
    limits.note("links", 7)
    limits.note("links", 3)
    assert (limits.used("links"), limits.peak["links"]) == (3, 7)
    limits.measures["links"] = lambda: 9
    assert (limits.used("links"), limits.peak["links"]) == (9, 9)


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("1KiB", 1024), ("256 MiB", 256 << 20), ("2GiB", 2 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "1MB", "1.5GiB", "-1", "1TiB", "1 2KiB", "\u0661KiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_use_is_that_of_the_link_that_uses_most() -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    limits = alice.node.limits
    loop: Any = SimpleNamespace(now=lambda: mesh.now)
    Admission(limits, MemoryLimit(), alice.node.links, loop, lambda link: None)
    alice.serve("stall", lambda program: setattr(program, "reads", False))
    one, two = Raw(alice, "one").up(), Raw(alice, "two").up()
    one.say(*((wire.OPEN, 2 * label, open_payload("stall")) for label in range(1, 4)))
    two.say((wire.OPEN, 2, open_payload("stall")))
    assert {name: limits.used(name) for name in ("links", "streams", "opens")} == {"links": 2, "streams": 3, "opens": 3}
    one.say((wire.CLOSE, 2, b""), (wire.CLOSE, 4, b""))
    mesh.now += 3
    assert {name: limits.used(name) for name in ("streams", "opens")} == {"streams": 1, "opens": 0}
    assert {name: limits.peak[name] for name in ("links", "streams", "opens")} == {"links": 2, "streams": 3, "opens": 3}


def test_a_rate_is_changed_for_links_that_are_up() -> None:
    mesh = Mesh()
    alice = mesh.station("alice")
    Raw(alice).up()
    (link,) = alice.node.links.values()
    requests = link.requests
    assert requests is not None
    now = mesh.now
    for _ in range(int(REQUESTS_AT_ONCE)):
        assert requests.take((), now)
    assert not requests.take((), now)
    alice.node.limits.change({"requests": 10})
    for _ in range(int(REQUESTS_AT_ONCE)):
        assert requests.take((), now)
    taken = sum(requests.take((), now + 1) for _ in range(100))
    assert (taken, requests.recent(now + 1), requests.recent(now + 9)) == (10, 4000, 0)


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


def test_the_limits_of_a_node_in_a_program() -> None:
    with pytest.raises(ValueError, match=r"^lnks: unknown limit \(there are pending, "):
        Node("alice", limits={"lnks": 1})
    with pytest.raises(ValueError, match=r"^links: must be from 1 to "):
        Node("alice", limits={"links": 0})
    with Node("alice", limits={"memory": 64 << 20}) as node:
        found = node._engine.call(lambda loop, daemon: (daemon.node.limits["memory"], daemon.memory.limit))
    assert found == (64 << 20, int((64 << 20) * LINKS_SHARE))

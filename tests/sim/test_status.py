"""What a node in the mesh reports of its links and tunnels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from r2box.net.daemon.status import MAX_ITEMS, StatusReport, stalled_on
from r2box.proto.link.stream import MAX_NAME
from r2box.proto.wire import messages
from r2box.proto.wire.address import parse_path
from support.mesh import Mesh, Program

Row = dict[str, Any]

MIB = 1 << 20


# -- jobs (in memory) --------------------------------------------------------------------------------------------------


def test_times_are_of_the_moment_and_not_of_the_last_event_on_the_link() -> None:
    """A link that is silent for a while has an old clock, by which a new tunnel seemed to be as old as the silence."""
    mesh = Mesh(seed=3)
    alice, _, carl = mesh.line("alice", "bob", "carl")
    mesh.join(alice, carl)
    carl.serve("echo", lambda program: program.echo())
    mesh.run(1.0)
    before = {link.now for link in alice.node.links.values()}
    mesh.run(13.0)
    assert max(link.now for link in alice.node.links.values()) <= mesh.now - 10, (before, "nothing has happened since")
    alice.tunnel("bob/carl/echo", b"abc", ends=False)
    [stream] = alice.link("bob").streams.values()
    assert stream.begun == stream.used == mesh.now
    mesh.run(13.0)
    began = mesh.now
    alice.link("carl").close("", orderly=True)
    known = alice.node.discovery.table.nodes["carl"]
    assert known.best is not None
    assert known.best.path == ("bob", "carl")
    assert known.since == began, "the way by bob is new"


# -- what is counted (in memory) --------------------------------------------------------------------------------------


def pages(report: StatusReport, now: float) -> Iterator[dict[str, Any]]:
    """All pages as they are sent, read as who asked for them does."""
    start = 0
    while True:
        page = report.page(start, now)
        data = messages.encode_body(messages.STATUS_IS, 1, address="bob", **page)
        assert len(data) < messages.MAX_LISTING + 1024
        body = messages.decode_body(data)
        yield body.values
        assert page["next"] == 0 or page["next"] > start
        start = page["next"]
        if not start:
            return


def routes(mesh: Mesh, name: str) -> list[Row]:
    node = mesh.stations[name].node
    report = StatusReport({}, node.links.values(), (), {}, {})
    return [messages.ROUTE.decode(line) for page in pages(report, mesh.now) for line in page["tunnels"]]


def test_bytes_are_counted_where_they_pass() -> None:
    mesh = Mesh()
    alice, _, carl = mesh.line("alice", "bob", "carl", slices=True)

    def answer(program: Program) -> None:
        program.on_eof = lambda: program.write(b"x" * 777)

    carl.serve("sink", answer)
    client = alice.tunnel("bob/carl/sink", bytes(300_000))
    mesh.run(5)
    assert len(client.sink) == 777
    [row] = routes(mesh, "bob")
    assert (row["who"], row["where"], row["way"]) == ("alice/child/1", "carl/sink", messages.WAY_ACROSS)
    assert (row["there"], row["back"], row["stalled"]) == (300_000, 777, messages.FREE)
    assert 4000 < row["idle"] < row["age"] <= 5100
    [stream] = alice.link("bob").streams.values()
    assert (stream.sent, stream.received) == (300_000, 777)
    [stream] = carl.link("bob").streams.values()
    assert (stream.sent, stream.received, stream.who, stream.where) == (777, 300_000, "bob/alice/child/1", "sink")


def test_a_long_way_is_not_kept_whole() -> None:
    mesh = Mesh()
    alice, _ = mesh.line("alice", "bob")
    names = "/".join(f"{number:064}" for number in range(20))
    alice.tunnel(f"bob/{names}")
    stream = next(iter(alice.link("bob").streams.values()))
    stream.name(parse_path(names), parse_path(names))
    assert len(stream.who) == len(stream.where) == MAX_NAME


def test_what_a_tunnel_waits_for_when_it_crosses_a_node() -> None:
    mesh = Mesh()
    alice, bob, carl = mesh.station("alice"), mesh.station("bob"), mesh.station("carl")
    left = mesh.join(alice, bob, resume_timeout=60)
    right = mesh.join(bob, carl, resume_timeout=60, latency=1.0, capacity=4096)
    mesh.run(5)
    readers: list[Program] = []
    carl.serve("sink", readers.append)
    client = alice.tunnel("bob/carl/sink", bytes(8 * MIB))
    mesh.run(0.5)
    [row] = routes(mesh, "bob")
    assert row["stalled"] == messages.SERVICE
    mesh.run(20)
    assert row["who"] == "alice/child/1"
    stalls = set()
    for _ in range(50):
        mesh.run(1)
        stalls.add(routes(mesh, "bob")[0]["stalled"])
    assert messages.TURN in stalls, "4 KiB a second pass here"
    readers[0].reads = False
    mesh.run(600)
    [row] = routes(mesh, "bob")
    assert row["stalled"] == messages.CREDIT
    assert stalled_on(client.stream, None) == messages.CREDIT  # type: ignore[arg-type]
    for wire in (right, left):
        wire.cut()
        assert routes(mesh, "bob")[0]["stalled"] == messages.CUT
    assert stalled_on(client.stream, None) == messages.CUT  # type: ignore[arg-type]


def test_a_report_of_many_comes_in_pages_and_tells_each_once() -> None:
    mesh = Mesh()
    alice, bob, carl = mesh.line("alice", "bob", "carl")
    carl.serve("echo", lambda program: program.echo())
    clients = []
    for _ in range(30):
        mesh.now += 1  # only so many may be opened in a second
        clients += [alice.tunnel("bob/carl/echo", b"abc", ends=False) for _ in range(MAX_ITEMS // 10)]
        mesh.idle()
    mesh.now += 1
    mesh.idle()
    node = bob.node
    report = StatusReport({}, node.links.values(), (), {}, {})
    labels: list[int] = []
    links: list[str] = []
    count = 0
    for page in pages(report, mesh.now):
        count += 1
        labels += [messages.ROUTE.decode(line)["label"] for line in page["tunnels"]]
        links += [messages.LINK.decode(line)["address"] for line in page["links"]]
        if count == 2:  # some go, others come
            for client in clients[:100] + clients[-100:]:
                client.end()
            for _ in range(50):
                alice.tunnel("bob/carl/echo", b"abc", ends=False)
            mesh.idle()
    assert len(set(labels)) == len(labels) == 3 * MAX_ITEMS - 100
    assert links == ["alice", "carl"]
    assert count > 5
    assert len(routes(mesh, "bob")) == 3 * MAX_ITEMS - 150

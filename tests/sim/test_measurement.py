"""The far end of measurements, r2.bench, on nodes in the mesh."""

from __future__ import annotations

import tracemalloc

import pytest

from r2box.errors import RefusedError
from r2box.proto.link.stream import INITIAL_WINDOW, MAX_WINDOW
from r2box.proto.routing.measurement import COUNT, ECHO, GIVE, MAX_METERS, TAKE
from r2box.proto.routing.service_entry import ServiceEntry
from r2box.proto.wire import messages
from r2box.proto.wire.outcome import BUSY, FAILED, LOST, REFUSED, UNKNOWN, Outcome
from support.mesh import Mesh, Program, Station

BENCH = "service/r2.bench"
HOPS = pytest.mark.parametrize("path", ["b", "b/c", "b/c/d"])


def row(path: str, **options: object) -> tuple[Mesh, Station, Station]:
    """The mesh, its first node, and the one at `path` from there."""
    mesh = Mesh(seed=7)
    stations = mesh.line("a", *path.split("/"), **options)
    return mesh, stations[0], stations[-1]


def measure(station: Station, path: str, choice: int, data: bytes = b"", *, ends: bool = True) -> Program:
    return station.tunnel(f"{path}/{BENCH}", bytes((choice,)) + data, ends=ends)


# -- what it does ------------------------------------------------------------------------------------------------------


@HOPS
@pytest.mark.parametrize("sliced", [False, True])
def test_echo_gives_back_what_comes(path: str, sliced: bool) -> None:
    mesh, first, _ = row(path, slices=sliced)
    data = mesh.random.randbytes(700_000)
    client = measure(first, path, ECHO, data)
    mesh.idle()
    assert client.sink == data
    assert client.eof
    assert client.outcome == Outcome()
    mesh.check_closed()


def test_echo_answers_before_the_end() -> None:
    mesh, first, _ = row("b")
    client = measure(first, "b", ECHO, ends=False)
    mesh.idle()
    assert client.accepted
    assert not client.sink
    for word in (b"one", b"two"):
        client.write(word)
        mesh.idle()
        assert client.sink.endswith(word)
    client.end()
    mesh.idle()
    assert client.sink == b"onetwo"
    assert client.outcome == Outcome()


@HOPS
@pytest.mark.parametrize("size", [0, 1, 700_000])
def test_take_counts(path: str, size: int) -> None:
    mesh, first, _ = row(path, slices=True)
    client = measure(first, path, TAKE, bytes(size))
    mesh.idle()
    assert client.sink == size.to_bytes(COUNT, "big")
    assert client.eof
    assert client.outcome == Outcome()
    mesh.check_closed()


def test_take_says_nothing_before_the_end() -> None:
    mesh, first, _ = row("b")
    client = measure(first, "b", TAKE, bytes(300_000), ends=False)
    mesh.idle()
    assert not client.unsent
    assert not client.sink
    client.end()
    mesh.idle()
    assert client.sink == (300_000).to_bytes(COUNT, "big")


@HOPS
def test_give_until_the_opener_ends(path: str) -> None:
    mesh, first, _ = row(path)
    client = measure(first, path, GIVE, ends=False)
    mesh.run(1)
    size = len(client.sink)
    assert size > INITIAL_WINDOW
    assert client.outcome is None
    client.end()
    mesh.idle()
    assert len(client.sink) >= size
    assert not client.sink.strip(b"\0")
    assert client.eof
    assert client.outcome == Outcome()
    mesh.check_closed()


@pytest.mark.parametrize("choice", [ECHO, TAKE, GIVE])
def test_an_opener_that_reads_no_more(choice: int) -> None:
    mesh, first, _ = row("b/c")
    client = measure(first, "b/c", choice, bytes(1000) if choice != GIVE else b"", ends=False)
    mesh.run(0.5)
    client.stop_reading()
    mesh.idle()
    assert client.outcome == Outcome()
    mesh.check_closed()


@pytest.mark.parametrize("choice", [ECHO, TAKE, GIVE])
def test_an_opener_that_goes_away(choice: int) -> None:
    mesh, first, last = row("b/c")
    for _ in range(MAX_METERS + 1):  # each leaves its place to the next
        client = measure(first, "b/c", choice, bytes(1000) if choice != GIVE else b"", ends=False)
        mesh.run(0.5)
        assert client.accepted
        assert client.outcome is None
        client.abort(Outcome(FAILED, "had enough"))
        mesh.idle()
    mesh.check_closed()
    assert not last.programs


# -- what it does not do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\0", "0x00 is none"),
        (b"GET / HTTP/1.1\r\n", "0x47 is none"),
        (b"", "an end is none"),
        (bytes((GIVE,)) + b"x", "no data is accepted"),
    ],
)
def test_garbage_ends_the_tunnel_with_a_reason(data: bytes, why: str) -> None:
    mesh, first, _ = row("b/c")
    client = first.tunnel(f"b/c/{BENCH}", data)
    mesh.idle()
    assert client.outcome is not None
    assert client.outcome.code == FAILED
    assert client.outcome.text.startswith("c: r2.bench: ")
    assert why in client.outcome.text
    mesh.check_closed()


def test_no_more_than_so_many_at_once() -> None:
    mesh, first, _ = row("b")
    clients = [measure(first, "b", ECHO, ends=False) for _ in range(MAX_METERS)]
    mesh.idle()
    late = measure(first, "b", ECHO, b"late")
    mesh.idle()
    assert late.outcome is not None
    assert late.outcome.code == BUSY
    assert f"b: {MAX_METERS} tunnels to r2.bench" in late.outcome.text
    clients[0].end()
    mesh.idle()
    again = measure(first, "b", ECHO, b"again")
    mesh.idle()
    assert again.sink == b"again"


def test_a_node_that_is_not_to_be_measured() -> None:
    mesh, first, last = row("b/c")
    last.node.meters.refusal = "not today"
    client = measure(first, "b/c", ECHO, b"x")
    mesh.idle()
    assert client.outcome == Outcome(REFUSED, "c: not today")


def test_a_node_that_ends() -> None:
    mesh, first, last = row("b")
    client = measure(first, "b", GIVE, ends=False)
    mesh.run(0.5)
    last.node.meters.end("is shutting down")
    mesh.idle()
    assert client.outcome == Outcome(LOST, "b: is shutting down")
    assert not client.eof
    late = measure(first, "b", ECHO)
    mesh.idle()
    assert late.outcome == Outcome(REFUSED, "b: is shutting down")


def test_a_link_that_is_cut_in_the_middle() -> None:
    mesh = Mesh(seed=3)
    first, last = mesh.station("a"), mesh.station("b")
    wire = mesh.join(first, last)
    mesh.idle()
    clients = [measure(first, "b", GIVE, ends=False) for _ in range(MAX_METERS)]
    mesh.run(0.5)
    wire.cut()
    mesh.idle()
    assert all(client.outcome is not None and client.outcome.code == LOST for client in clients)
    mesh.join(first, last)
    mesh.idle()
    again = measure(first, "b", ECHO, b"again")
    mesh.idle()
    assert again.sink == b"again"


# -- its name ----------------------------------------------------------------------------------------------------------


def test_the_name_is_taken_and_in_no_listing() -> None:
    mesh, first, last = row("b")
    with pytest.raises(RefusedError, match=r"b: service/r2\.bench is reserved"):
        last.node.add_service(ServiceEntry("r2.bench", None))
    listing = first.console().ask("b", messages.LIST)
    assert [messages.ENTRY.decode(entry)["name"] for entry in listing["entries"]] == ["a"]
    client = first.tunnel("b/r2.bench", bytes((ECHO,)) + b"short")
    mesh.idle()
    assert client.sink == b"short"


def test_nothing_lies_behind_it_and_it_answers_no_message() -> None:
    mesh, first, _ = row("b")
    client = first.tunnel(f"b/{BENCH}/x", b"")
    mesh.idle()
    assert client.outcome is not None
    assert client.outcome.code == UNKNOWN
    assert "nothing lies behind it" in client.outcome.text
    assert "only nodes answer" in first.console().ask(f"b/{BENCH}", messages.PING, data=b"")["text"]


# -- what it costs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", [ECHO, GIVE])
def test_a_reader_that_does_not_read_costs_a_window(choice: int) -> None:
    mesh, first, last = row("b", capacity=1 << 22)
    data = bytes(4 * MAX_WINDOW) if choice == ECHO else b""
    client = measure(first, "b", choice, data, ends=False)
    client.reads = False
    del data
    tracemalloc.start()
    try:
        mesh.run(5)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    links = (first.link("b"), last.link("a"))
    held = sum(stream.inbox.size for link in links for stream in link.streams.values())
    assert held <= 2 * INITIAL_WINDOW
    assert most < 2 * MAX_WINDOW
    assert client.outcome is None


def test_what_it_gives_takes_no_memory() -> None:
    """The block that everybody gets is one."""
    mesh, first, last = row("b")
    measure(first, "b", GIVE, ends=False)
    mesh.run(0.1)
    stream = next(iter(last.link("a").streams.values()))
    one, other = stream.far.pull(1 << 14), stream.far.pull(1 << 16)
    assert isinstance(one, memoryview)
    assert isinstance(other, memoryview)
    assert one.obj is other.obj


def test_a_measurement_takes_turns() -> None:
    """What others send over the same link gets its share."""
    mesh, first, last = row("b", latency=0.001, capacity=1 << 16)
    last.serve("sink", lambda program: None)
    size = 1 << 25
    meter = measure(first, "b", TAKE, bytes(size), ends=False)
    other = first.tunnel("b/sink", bytes(size), ends=False)
    mesh.run(0.3)
    assert 1 << 20 < other.unsent < size - (1 << 20), "this test sees nothing"
    assert 0.8 < (size - meter.unsent) / (size - other.unsent) < 1.25

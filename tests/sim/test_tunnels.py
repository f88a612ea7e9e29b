"""Whole nodes in the mesh: what a user of tunnels, pings and listings would notice."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from r2box.errors import RefusedError
from r2box.proto.link.scheduler import QUANTUM
from r2box.proto.link.stream import INITIAL_WINDOW, MAX_WINDOW, Stream
from r2box.proto.wire import messages
from r2box.proto.wire.address import MAX_HOPS
from r2box.proto.wire.fields import Fields
from r2box.proto.wire.outcome import ENDED, GONE, LOST, REFUSED, UNKNOWN, Outcome
from support.mesh import Mesh, Program, Station

LATER = 0x3F  # a kind of request that nobody knows yet
NAMES = ("a", "b", "c", "d", "e", "f")
HOPS = pytest.mark.parametrize("hops", [1, 2, 5])


def row(mesh: Mesh, hops: int, **options: object) -> tuple[Station, Station, str]:
    """A row of nodes: its first, its last, and the path from the one to the other."""
    stations = mesh.line(*NAMES[: hops + 1], **options)
    return stations[0], stations[-1], "/".join(NAMES[1 : hops + 1])


def echo(program: Program) -> None:
    program.echo()


def silent(program: Program) -> None:
    program.reads = False


def streams(mesh: Mesh) -> Iterator[Stream]:
    for port in mesh.ports:
        yield from port.link.streams.values()


# -- tunnels -----------------------------------------------------------------------------------------------------------


@HOPS
@pytest.mark.parametrize("sliced", [False, True])
def test_both_ways_over_hops(hops: int, sliced: bool) -> None:
    mesh = Mesh(seed=hops)
    first, last, path = row(mesh, hops, slices=sliced)
    last.serve("echo", echo)
    data = mesh.random.randbytes(700_000)
    client = first.tunnel(f"{path}/echo", data)
    mesh.idle()
    assert client.accepted
    assert client.sink == data
    assert client.eof
    assert client.outcome == Outcome()
    assert last.programs[0].origin == ("child/1" if hops == 0 else "", *reversed(NAMES[:hops]), "child/1")[1:]
    mesh.check_closed()


@HOPS
def test_half_close_from_the_client(hops: int) -> None:
    """`printf … | r2 tunnel -` into sort: it answers after the end of its input."""
    mesh = Mesh(seed=1)
    first, last, path = row(mesh, hops, slices=True)

    def sort(program: Program) -> None:
        def finish() -> None:
            program.write(bytes(sorted(program.sink)))
            program.exit(0)

        program.on_eof = finish

    last.serve("sort", sort)
    client = first.tunnel(f"{path}/sort", b"hgfedcba" * 9000)
    mesh.idle()
    assert client.sink == bytes(sorted(b"hgfedcba" * 9000))
    assert client.eof
    mesh.check_closed()


@HOPS
def test_half_close_from_the_service(hops: int) -> None:
    """A service that closes its output goes on reading."""
    mesh = Mesh(seed=2)
    first, last, path = row(mesh, hops)

    def finish_output(program: Program) -> None:
        program.write(b"bye")
        program.end()
        program.on_eof = lambda: program.exit(4)

    last.serve("count", finish_output)
    client = first.tunnel(f"{path}/count", ends=False)
    mesh.idle()
    assert (bytes(client.sink), client.eof, client.outcome) == (b"bye", True, None)
    data = mesh.random.randbytes(600_000)
    client.write(data)
    mesh.idle()
    assert last.programs[0].sink == data
    assert client.outcome is None
    client.end()
    mesh.idle()
    assert client.outcome == Outcome(ENDED, "", 4)
    mesh.check_closed()


@HOPS
@pytest.mark.parametrize("side", ["client", "service"])
def test_stop(hops: int, side: str) -> None:
    """A reader that has enough, as `head`: the writer is told, and the other direction goes on."""
    mesh = Mesh(seed=3)
    first, last, path = row(mesh, hops)
    last.serve("pipe", lambda program: None)
    client = first.tunnel(f"{path}/pipe", ends=False)
    mesh.idle()
    service = last.programs[0]
    reader, writer = (client, service) if side == "client" else (service, client)
    reader.reads = False
    writer.write(bytes(3_000_000))
    mesh.idle()
    assert not writer.stopped
    reader.stop_reading()
    mesh.idle()
    assert writer.stopped
    reader.write(b"and on it goes")
    mesh.idle()
    assert writer.sink == b"and on it goes"
    client.end()
    service.exit(141)
    mesh.idle()
    assert client.outcome == Outcome(ENDED, "", 141)
    mesh.check_closed()


@HOPS
def test_the_status_comes_after_the_data(hops: int) -> None:
    """A slow reader gets all that the service wrote before it ended, and then the outcome."""
    mesh = Mesh(seed=4)
    first, last, path = row(mesh, hops)
    data = mesh.random.randbytes(400_000)

    def begin(program: Program) -> None:
        program.write(data)
        program.exit(3, "")

    last.serve("once", begin)
    client = first.tunnel(f"{path}/once", ends=False)
    client.reads = False
    mesh.idle()
    assert client.outcome is None
    client.read()
    mesh.idle()
    assert client.sink == data
    assert client.eof
    assert client.outcome is not None
    assert client.outcome.exit_status == 3
    mesh.check_closed()


@HOPS
def test_a_killed_service_is_no_clean_end(hops: int) -> None:
    """What it wrote arrives, then the failure, and no end of the stream that it did not say."""
    mesh = Mesh(seed=5)
    first, last, path = row(mesh, hops)
    data = mesh.random.randbytes(200_000)
    last.serve("dies", lambda program: program.write(data))
    client = first.tunnel(f"{path}/dies", ends=False)
    client.reads = False
    mesh.idle()
    killed = Outcome(ENDED, "", 0, 9)
    last.programs[0].abort(killed)
    mesh.idle()
    client.read()
    mesh.idle()
    assert client.sink == data
    assert not client.eof
    assert client.outcome == killed
    mesh.check_closed()


@HOPS
def test_an_abort_from_the_client_overtakes(hops: int) -> None:
    mesh = Mesh(seed=6)
    first, last, path = row(mesh, hops)
    last.serve("silent", silent)
    client = first.tunnel(f"{path}/silent", bytes(3_000_000))
    mesh.idle()
    assert client.unsent
    client.abort(Outcome(GONE, "a: the program went away"))
    mesh.idle()
    service = last.programs[0]
    assert service.outcome == Outcome(GONE, "a: the program went away")
    assert not service.sink
    mesh.check_closed()


def test_a_tunnel_in_a_circle_is_refused_by_the_first_node_that_sees_it() -> None:
    mesh = Mesh(seed=7)
    alice, bob, carl = mesh.line("alice", "bob", "carl")
    alice.serve("echo", echo)
    for path, who, twice in (
        ("bob/alice/echo", "bob", "alice"),
        ("bob/carl/bob/alice/echo", "bob", "bob"),
        ("bob/carl/dora/carl", "bob", "carl"),
    ):
        client = alice.tunnel(path)
        mesh.idle()
        assert client.outcome is not None
        assert client.outcome.text == f"{who}: the path leads in a circle: {twice} is on it already"
    assert not carl.node.links["bob"].received - bob.node.links["carl"].sender.replay.sent
    mesh.check_closed()


def test_the_nodes_own_command() -> None:
    mesh = Mesh()
    alice, bob = mesh.line("alice", "bob")

    def greet(program: Program) -> None:
        program.write(b"hello from bob")
        program.exit()

    client = alice.tunnel("bob")
    mesh.idle()
    why = "bob: has no command of its own ([self] cmd); which service? "
    assert client.outcome == Outcome(UNKNOWN, why + "(it offers none)")
    bob.serve("upper", greet)
    bob.serve("sum", greet)
    client = alice.tunnel("bob")
    mesh.idle()
    assert client.outcome == Outcome(UNKNOWN, why + "(-t sum; there are sum, upper)")
    bob.serve("", greet)
    client = alice.tunnel("bob/bob")
    mesh.idle()
    assert client.sink == b"hello from bob"


# -- refusals ----------------------------------------------------------------------------------------------------------


@HOPS
@pytest.mark.parametrize("name", ["nobody", "service/nobody", "echo/further"])
def test_an_unknown_name_is_told_by_the_node_that_looked(hops: int, name: str) -> None:
    mesh = Mesh()
    first, last, path = row(mesh, hops)
    last.serve("echo", echo)
    client = first.tunnel(f"{path}/{name}", b"lost")
    mesh.idle()
    assert client.outcome is not None
    assert client.outcome.code == UNKNOWN
    assert client.outcome.text.startswith(f"{last.address}: ")
    assert not client.eof
    assert not client.accepted
    if "nobody" in name:
        assert name in client.outcome.text
        assert "it knows" in client.outcome.text
        assert "service/echo" in client.outcome.text
        assert NAMES[hops - 1] in client.outcome.text
    else:
        assert "echo is a service, and nothing lies behind it" in client.outcome.text
    mesh.check_closed()


def test_an_unknown_name_at_home() -> None:
    alice, _ = Mesh().line("alice", "bob")
    with pytest.raises(RefusedError, match=r"alice: does not know carl \(it knows bob\)"):
        alice.tunnel("carl/echo")


def test_a_long_list_of_names_is_cut() -> None:
    mesh = Mesh()
    alice, bob = mesh.line("alice", "bob")
    for number in range(300):
        bob.serve(f"{'x' * 50}{number}", echo)
    client = alice.tunnel("bob/y")
    mesh.idle()
    assert client.outcome is not None
    assert client.outcome.text.endswith("and 293 more)")


def test_a_service_that_is_not_for_everyone() -> None:
    mesh = Mesh()
    _, bob, carl = mesh.line("alice", "bob", "carl")
    alice = mesh.stations["alice"]
    carl.serve("some", echo, allow=("bob/alice/*",))
    good = alice.tunnel("bob/carl/some", b"x")
    bad = bob.tunnel("carl/some", b"x")
    mesh.idle()
    assert good.sink == b"x"
    assert bad.outcome == Outcome(REFUSED, "carl: service/some is not for bob/child/1")
    mesh.check_closed()


def test_a_path_has_only_so_many_steps() -> None:
    mesh = Mesh()
    alice, bob = mesh.line("alice", "bob")
    bob.serve("echo", echo)
    client = alice.tunnel("/".join(["bob", *(f"node{number}" for number in range(MAX_HOPS - 1))]))
    mesh.idle()
    assert client.outcome is not None
    assert client.outcome.text.endswith(f"more than {MAX_HOPS} hops")
    mesh.check_closed()


@pytest.mark.parametrize("cut", [0, 1])
def test_a_cut_link_is_a_failure_at_both_ends(cut: int) -> None:
    mesh = Mesh()
    alice, bob, carl = mesh.station("alice"), mesh.station("bob"), mesh.station("carl")
    wires = [mesh.join(alice, bob), mesh.join(bob, carl)]
    mesh.idle()
    carl.serve("pipe", lambda program: program.write(b"first words"))
    client = alice.tunnel("bob/carl/pipe", b"hello", ends=False)
    mesh.idle()
    wires[cut].cut()
    mesh.idle()
    for program in (client, carl.programs[0]):
        assert program.outcome is not None
        assert program.outcome.code == LOST
        assert not program.eof
        assert "is down" in program.outcome.text
    assert client.sink == b"first words"
    name = ("alice: the link to bob", "bob: the link to carl")[cut]
    assert client.outcome is not None
    assert client.outcome.text.startswith(name)
    for port in mesh.ports:
        assert not port.link.streams


def test_what_came_before_the_cut_is_delivered() -> None:
    mesh = Mesh()
    alice, bob = mesh.station("alice"), mesh.station("bob")
    wire = mesh.join(alice, bob)
    mesh.idle()
    bob.serve("say", lambda program: program.write(b"x" * 100_000))
    client = alice.tunnel("bob/say", ends=False)
    client.reads = False
    mesh.idle()
    wire.cut()
    mesh.idle()
    assert client.outcome is None
    client.read()
    assert client.sink == b"x" * 100_000
    assert not client.eof
    assert client.outcome is not None
    assert client.outcome.code == LOST


# -- many at once ------------------------------------------------------------------------------------------------------


def test_a_stalled_reader_stalls_nobody() -> None:
    """And holds at most a window in each node on the way."""
    mesh = Mesh(seed=8)
    first, last, path = row(mesh, 3)
    last.serve("silent", silent)
    last.serve("echo", echo)
    stalled = first.tunnel(f"{path}/silent", bytes(20_000_000))
    mesh.idle()
    for stream in streams(mesh):
        assert stream.inbox.size <= stream.window <= MAX_WINDOW
    held = len(stalled.wrote) - stalled.unsent
    nodes = 3
    assert held <= nodes * MAX_WINDOW
    assert held == sum(stream.inbox.size for stream in streams(mesh))
    data = mesh.random.randbytes(3_000_000)
    client = first.tunnel(f"{path}/echo", data)
    mesh.idle()
    assert client.sink == data
    assert last.programs[0].sink == b""
    last.programs[0].read()
    mesh.idle()
    assert len(last.programs[0].sink) == 20_000_000
    last.programs[0].exit()
    mesh.idle()
    mesh.check_closed()


def test_the_window_grows_with_the_path_and_is_its_bound() -> None:
    """A fast, long wire is filled; a stalled reader on a short one holds the first window."""
    mesh = Mesh()
    alice, bob = mesh.line("alice", "bob", latency=0.05, capacity=1 << 22)
    bob.serve("null", lambda program: None)
    started = mesh.now
    client = alice.tunnel("bob/null", bytes(40_000_000))
    mesh.idle()
    assert len(bob.programs[0].sink) == 40_000_000
    # 256 KiB in a round trip of 0.1 s would take 15 s; the wire alone takes 0.5 s
    assert mesh.now - started < 5
    window = max(stream.window for stream in streams(mesh))
    bob.programs[0].exit()
    mesh.idle()
    assert client.outcome == Outcome()
    assert INITIAL_WINDOW < window <= MAX_WINDOW
    mesh.check_closed()


def test_equal_streams_share_equally() -> None:
    mesh = Mesh(seed=9)
    alice, bob = mesh.line("alice", "bob", latency=0.01, capacity=1 << 16)
    bob.serve("null", lambda program: None)
    clients = [alice.tunnel("bob/null", bytes(30_000_000), ends=False) for _ in range(10)]
    mesh.run(3.0)
    got = [len(program.sink) for program in bob.programs]
    assert len(got) == 10
    mean = sum(got) / 10
    assert mean > 500_000
    assert all(0.8 * mean < size < 1.2 * mean for size in got), got
    for client in clients:
        client.abort(Outcome())
    mesh.idle()
    mesh.check_closed()


@HOPS
def test_a_keystroke_does_not_wait_behind_files(hops: int) -> None:
    """It waits for what is in the wire, and for a quantum of each stream that is before it."""
    mesh = Mesh(seed=10)
    latency, capacity = 0.01, 1 << 16
    first, last, path = row(mesh, hops, latency=latency, capacity=capacity)
    last.serve("null", lambda program: None)
    last.serve("echo", echo)
    for _ in range(10):
        first.tunnel(f"{path}/null", bytes(20_000_000), ends=False)
    client = first.tunnel(f"{path}/echo", ends=False)
    mesh.run(1.0)
    speed = capacity / latency / 2  # bytes a second on one wire, as it waits for half of it to be free
    waits = []
    for _ in range(10):
        before, size = mesh.now, len(client.sink)
        client.write(b"k")
        while len(client.sink) == size:
            mesh.run(0.001)
        waits.append(mesh.now - before)
    bound = hops * (2 * latency + (10 * QUANTUM + 2 * 4 * QUANTUM + capacity) / speed) + 0.01
    assert max(waits) < bound, (waits, bound)


def churn(seed: int) -> None:
    """Tunnels that open, talk, end and fail in any order; each service must only ever see its own client's bytes."""
    mesh = Mesh(seed=seed)
    random = Random(seed)
    hops = random.randint(1, 3)
    first, last, path = row(mesh, hops, slices=True, latency=0.01, capacity=random.choice((300, 5000, 1 << 16)))
    pairs: dict[bytes, Program] = {}

    def begin(program: Program) -> None:
        if random.random() < 0.3:
            program.echo()
        program.reads = random.random() < 0.8

    last.serve("each", begin)
    clients: list[Program] = []
    live: list[Program] = []
    for number in range(random.randint(5, 25)):
        tag = number.to_bytes(4, "big") + random.randbytes(4)
        client = first.tunnel(f"{path}/each", tag + random.randbytes(random.choice((0, 10, 3000))), ends=False)
        pairs[tag] = client
        clients.append(client)
        live.append(client)
        for _ in range(random.randint(0, 4)):
            act(random, random.choice([*live, *last.programs]))
        mesh.run(random.choice((0.0, 0.001, 0.03)))
    mesh.idle()
    for service in last.programs:
        for program in (service, *clients):
            if not program.is_over:
                program.read()
        tag = bytes(service.sink[:8])
        if len(tag) == 8:
            client = pairs[tag]
            assert client.wrote.startswith(service.sink)
            assert service.wrote.startswith(client.sink)
            if service.eof:
                assert service.sink == client.wrote
            if client.eof:
                assert client.sink == service.wrote
    mesh.idle()
    for program in (*clients, *last.programs):
        if not program.is_over:
            program.abort(Outcome())
    mesh.idle()
    assert all(program.is_over for program in (*clients, *last.programs))
    mesh.check_closed()


def act(random: Random, program: Program) -> None:
    """Something that a program might do."""
    if program.is_over:
        return
    what = random.randrange(8)
    if what < 3 and not program.ends:
        program.write(random.randbytes(random.choice((1, 100, 4000))))
    elif what == 3:
        program.end()
    elif what == 4:
        program.read()
    elif what == 5:
        program.stop_reading()
    elif what == 6:
        program.abort(Outcome(ENDED, "", random.randrange(3)))
    else:
        program.exit(random.randrange(3))


@pytest.mark.parametrize("block", range(20))
def test_labels_are_used_again_and_nothing_stale_arrives(block: int) -> None:
    for seed in range(10 * block, 10 * block + 10):
        try:
            churn(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_labels_are_used_again() -> None:
    mesh = Mesh()
    alice, bob = mesh.line("alice", "bob")
    bob.serve("echo", echo)
    for _ in range(50):
        client = alice.tunnel("bob/echo", b"x")
        assert max(stream.route for stream in streams(mesh)) <= 3
        mesh.idle()
        assert client.sink == b"x"
    mesh.check_closed()


# -- messages ----------------------------------------------------------------------------------------------------------


@HOPS
def test_ping_and_ls_of_every_node_on_the_way(hops: int) -> None:
    mesh = Mesh(seed=11)
    first, last, path = row(mesh, hops, slices=True)
    last.serve("echo", echo)
    console = first.console()
    for length in range(hops + 1):
        at = "/".join(path.split("/")[:length])
        assert console.ask(at, messages.PING, data=b"12345")["data"] == b"12345"
        listing = console.ask(at, messages.LIST)
        assert listing["address"] == NAMES[length]
        entries = [messages.ENTRY.decode(entry) for entry in listing["entries"]]
        names = [entry["name"] for entry in entries if entry["kind"] == "node"]
        assert names == [NAMES[i] for i in (length - 1, length + 1) if 0 <= i <= hops]
        assert ("service/echo" in [entry["name"] for entry in entries]) == (length == hops)


def test_ping_to_oneself_over_others() -> None:
    mesh = Mesh()
    alice, _ = mesh.line("alice", "bob")
    console = alice.console()
    for path in ("", "alice", "bob/alice", "alice/bob"):
        assert console.ask(path, messages.PING, data=b"x")["data"] == b"x"
    assert "in a circle" in console.ask("bob/alice/bob/alice", messages.PING, data=b"x")["text"]


def test_clients_are_listed_when_asked_for() -> None:
    alice, _ = Mesh().line("alice", "bob")
    console = alice.console()
    plain = [messages.ENTRY.decode(entry)["name"] for entry in console.ask("", messages.LIST)["entries"]]
    everyone = [messages.ENTRY.decode(entry)["name"] for entry in console.ask("", messages.LIST, clients=1)["entries"]]
    assert (plain, everyone) == (["bob"], ["bob", "child/1"])


def test_a_long_listing_comes_in_pages() -> None:
    mesh = Mesh()
    alice, bob = mesh.line("alice", "bob")
    for number in range(3000):
        bob.serve(f"service-with-a-rather-long-name-{number:04}", echo)
    console, names, start = alice.console(), [], 0
    while True:
        page = console.ask("bob", messages.LIST, start=start)
        names += [messages.ENTRY.decode(entry)["name"] for entry in page["entries"]]
        start = page["next"]
        if not start:
            break
    assert names == ["alice", *(f"service/service-with-a-rather-long-name-{number:04}" for number in range(3000))]


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        ("bob/nobody", messages.PING, "bob: does not know nobody (it knows alice, carl, service/echo)"),
        ("nobody", messages.LIST, "alice: does not know nobody (it knows bob)"),
        ("bob/echo", messages.PING, "bob: service/echo is a service; only nodes answer"),
        ("bob", messages.SERVE, "bob: this request is available on the local node only"),
        ("bob/carl", messages.TUNNEL, "carl: this request is available on the local node only"),
        ("bob", LATER, "bob: this request is available on the local node only"),
        ("/".join(["bob", "alice"] * 16), messages.PING, "more than 32 hops"),
    ],
)
def test_a_request_that_fails_is_answered_with_the_reason(
    path: str, kind: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(messages.BODIES, LATER, Fields("of a later version"))
    mesh = Mesh()
    alice, bob, _ = mesh.line("alice", "bob", "carl")
    bob.serve("echo", echo)
    console = alice.console()
    answer = console.ask(path, kind)
    assert answer.kind == messages.ERROR
    assert answer["text"].endswith(text)


def test_the_order_of_events_depends_on_the_seed_only() -> None:
    def run() -> tuple[float, int, list[str]]:
        mesh = Mesh(seed=5)
        first, last, path = row(mesh, 2, slices=True)
        last.serve("echo", echo)
        first.tunnel(f"{path}/echo", mesh.random.randbytes(100_000))
        mesh.idle()
        return mesh.now, next(mesh.serial), first.log + last.log

    assert run() == run()

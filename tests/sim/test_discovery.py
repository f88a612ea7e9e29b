"""Discovery in the mesh: what a user of names, services and tunnels would notice."""

from __future__ import annotations

from time import process_time
from typing import Any

import pytest

from r2box.errors import RefusedError
from r2box.proto.link.policy import Policy
from r2box.proto.routing.adjacency import CHUNK, IGNORE_TIME, MAX_BYTES, MAX_LEARNED, MAX_RELAYED, RESTATE
from r2box.proto.routing.discovery import CONFLICT_TIME, GRACE
from r2box.proto.routing.flap_damping import LAST_WAIT
from r2box.proto.routing.service_entry import ServiceEntry
from r2box.proto.wire import messages
from r2box.proto.wire.address import MAX_ADDRESS
from r2box.proto.wire.advertisement import (
    BEGIN,
    MAX_ADVERTISED_SERVICES,
    MAX_COST,
    AdvertisedNode,
    NodeRecord,
    decode_reach,
    pack_reach,
)
from r2box.proto.wire.frames import REACH
from r2box.proto.wire.outcome import UNKNOWN, Outcome
from sim.growth import measure, update
from sim.networks import Clockwork, check_routes, check_tables, simulate
from support.mesh import Mesh, Port, Program, Station, Wire
from support.shapes import SHAPES

LATENCY = 0.01  # seconds, where nothing else is said


class Links:
    """Stations by name, and the wires between them: `Links(mesh, "a-b b-c", slow={"b-c"})`."""

    def __init__(self, mesh: Mesh, pairs: str, slow: str = "", resume_timeout: int = 0, quick: str = "") -> None:
        self.mesh = mesh
        self.wires: dict[str, Wire] = {}
        self.resume_timeout = resume_timeout
        for name in sorted(set(pairs.replace("-", " ").split())):
            mesh.station(name).serve("echo", Program.echo)
        for pair in pairs.split():
            latency = 0.1 if pair in slow.split() else 0.001 if pair in quick.split() else LATENCY
            self.join(pair, latency)
        mesh.idle()

    def __getattr__(self, name: str) -> Station:
        return self.mesh.stations[name]

    def join(self, pair: str, latency: float = LATENCY) -> None:
        a, b = (self.mesh.stations[name] for name in pair.split("-"))
        self.wires[pair] = self.mesh.join(a, b, latency=latency, resume_timeout=self.resume_timeout)

    def cut(self, *pairs: str, first: bool = True, second: bool = True) -> None:
        for pair in pairs:
            self.wires[pair].cut(first, second)


def known(station: Station) -> dict[str, str]:
    """The best path to each node."""
    nodes = station.node.discovery.table.nodes
    return {address: "/".join(it.best.path) for address, it in sorted(nodes.items()) if it.best}


def services(station: Station, address: str) -> tuple[str, ...]:
    known = station.node.discovery.table.nodes.get(address)
    return known.best.record.services if known and known.best else ()


def listen(station: Station) -> list[tuple[str, list[AdvertisedNode]]]:
    """What is said to `station` from now on: by whom, and the entries of each frame."""
    heard: list[tuple[str, list[AdvertisedNode]]] = []
    discovery = station.node.discovery
    take = discovery.receive

    def listening(link: Any, payload: Any, now: float) -> None:
        heard.append((link.address, decode_reach(payload).entries))
        take(link, payload, now)

    discovery.receive = listening  # type: ignore[method-assign]
    return heard


def works(station: Station, path: str, size: int = 1000) -> Program:
    """A tunnel by `path` brings back what it is given."""
    data = station.mesh.random.randbytes(size)
    client = station.tunnel(path, data)
    station.mesh.idle()
    assert client.sink == data, f"{path}: {client.outcome}"
    assert client.eof
    return client


def ended(client: Program) -> Outcome:
    assert client.outcome is not None
    return client.outcome


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_name_is_enough() -> None:
    mesh = Mesh(seed=1)
    net = Links(mesh, "a-b b-c c-d d-e e-f")
    assert known(net.a) == {"b": "b", "c": "b/c", "d": "b/c/d", "e": "b/c/d/e", "f": "b/c/d/e/f"}
    assert known(net.c) == {"a": "b/a", "b": "b", "d": "d", "e": "d/e", "f": "d/e/f"}
    works(net.a, "f/echo")
    works(net.f, "a/echo")
    with pytest.raises(RefusedError, match=r"a: does not know fa \(.*did you mean f\?"):
        net.a.tunnel("fa/echo")
    net.f.serve("upper", Program.echo)
    mesh.idle()
    for word in ("uper", "upper"):
        with pytest.raises(RefusedError, match=r"did you mean any/upper\?"):
            net.a.tunnel(word)
    mesh.check_closed()


def test_nothing_is_sent_back_to_where_it_came_from() -> None:
    """The best way from b to d leads over a, who has asked b."""
    net = Links(Mesh(seed=41), "a-b a-d b-c c-d", slow="b-c c-d")
    assert known(net.b)["d"] == "a/d"
    works(net.a, "b/d/echo")
    assert net.d.programs[0].origin == ("c", "b", "a", "child/1")


def test_an_explicit_path_is_obeyed() -> None:
    net = Links(Mesh(seed=2), "a-b b-c a-d d-c", slow="a-d d-c")
    assert known(net.a)["c"] == "b/c"
    works(net.a, "d/c/echo")
    assert net.c.programs[0].origin == ("d", "a", "child/1")


@pytest.mark.parametrize("shape", SHAPES)
def test_networks_under_faults(shape: str) -> None:
    """A handful of what `make sim` does at length."""
    for seed, nodes in ((1, 6), (2, 11)):
        simulate(seed, shape, nodes, 40)


def test_a_network_that_went_wrong() -> None:
    """An alarm that came when it was due and, by the last bit of a float, too early."""
    simulate(3012, "tree", 13, 20)


@pytest.mark.parametrize("shape", SHAPES)
def test_growth_is_measured_and_right(shape: str) -> None:
    record = measure(shape, 40, check=True, changes=2)
    least = sum(record["known"] for _ in range(40))
    assert least <= record["cold"]["entries"] <= 8 * least
    assert record["notes"] == 0


def test_the_table_of_one_update() -> None:
    assert min(update(50).values()) > 0


# -- what is said, and when --------------------------------------------------------------------------------------------


def test_only_what_has_changed_is_said() -> None:
    mesh = Mesh(seed=3)
    net = Links(mesh, " ".join(f"hub-n{number}" for number in range(40)) + " hub-far far-end")
    mesh.run(1.0)
    heard = {name: listen(station) for name, station in mesh.stations.items()}
    net.end.serve("new", Program.echo)
    mesh.run(1.0)
    for name, said in heard.items():
        assert [len(entries) for _, entries in said] == ([] if name == "end" else [1]), name
    for said in heard.values():
        said.clear()
    net.cut("hub-n7")
    mesh.run(1.0)
    for name, said in heard.items():
        assert [[it.path for it in entries] for _, entries in said] == ([] if name in ("n7", "hub") else [[("n7",)]])
    check_routes([it for name, it in mesh.stations.items() if name != "n7"])


def test_what_is_gone_is_gone_at_once() -> None:
    """Everywhere within the time that bytes take to go there."""
    mesh = Mesh(seed=4)
    net = Links(mesh, "a-b b-c c-d d-e e-f")
    mesh.run(1.0)
    net.f.serve("web", owner := lambda program: None)
    mesh.run(5 * LATENCY + 0.001)
    assert services(net.a, "f") == ("echo", "web")
    mesh.run(1.0)
    net.f.node.remove_services(owner)
    mesh.run(5 * LATENCY + 0.001)
    assert services(net.a, "f") == ("echo",)
    net.f.serve("web", owner)
    mesh.run(LATENCY)
    net.cut("e-f")  # right behind another change
    mesh.run(4 * LATENCY + 0.001)
    assert list(known(net.a)) == ["b", "c", "d", "e"]
    assert "web" not in net.a.node.discovery.table.offers
    assert net.a.events[-2:] == [("service-down", "f/echo"), ("node-down", "f")]


def test_a_node_that_flaps_costs_others_little() -> None:
    """Fifty times a second, for ten seconds; then it is there again."""
    mesh = Clockwork(seed=5)
    net = Links(mesh, "a-b b-c c-d x-a", quick="x-a")
    mesh.run(1.0)
    heard = listen(net.c)
    for _ in range(500):
        net.cut("x-a")
        mesh.run(0.005)
        net.join("x-a", 0.001)
        mesh.run(0.015)
    assert ("node-up", "x") in net.a.events[-4:]
    assert net.a.events.count(("node-up", "x")) > 400
    assert len(heard) <= 30
    mesh.run(LAST_WAIT + 1.0)
    assert known(net.d)["x"] == "c/b/a/x"
    works(net.d, "x/echo")


def test_a_better_way_that_flaps_takes_no_other_away() -> None:
    """While a link comes and goes, the way around it stays known."""
    mesh = Mesh(seed=6)
    net = Links(mesh, "far-a a-x a-b b-x", quick="a-x")
    mesh.run(1.0)
    lost = 0
    for _ in range(40):
        net.cut("a-x")
        mesh.run(0.3)
        lost += "x" not in known(net.far)
        net.join("a-x", 0.001)
        mesh.run(0.3)
        lost += "x" not in known(net.far)
    assert lost == 0
    works(net.far, "x/echo")


def test_all_is_told_once_more_when_a_frame_is_missing() -> None:
    mesh = Mesh(seed=7)
    net = Links(mesh, "a-b b-c c-d c-e")
    mesh.run(10.0)

    def swallow(port: Port, chunk: bytes) -> bytes:
        return chunk.replace(bytes((REACH, 0)), bytes((REACH + 9, 0)))  # of a kind that nobody knows

    net.wires["a-b"].tap = swallow
    net.d.serve("web", Program.echo)
    net.cut("c-e")
    mesh.run(1.0)
    net.wires["a-b"].tap = lambda port, chunk: chunk
    mesh.run(100.0)
    assert (services(net.a, "d"), "e" in known(net.a)) == (("echo",), True)
    net.c.serve("other", Program.echo)  # in that the gap is seen
    mesh.run(1.0)
    assert (services(net.a, "d"), "e" in known(net.a)) == (("echo", "web"), False)
    check_routes([net.a, net.b, net.c, net.d])


def test_who_asks_twice_is_answered_in_time() -> None:
    """Not more often than every RESTATE seconds, and then without waiting for anything else."""
    mesh = Mesh(seed=8)
    net = Links(mesh, "a-b b-c")
    mesh.run(10.0)
    heard = listen(net.a)
    neighbour = net.a.node.discovery._neighbours["b"]
    for _ in range(2):
        neighbour.requests_restate = True
        net.a.node.discovery.measured(net.a.link("b"), mesh.now)
        mesh.run(1.0)
    assert len(heard) == 1
    mesh.run(RESTATE)
    assert len(heard) == 2
    assert [len(entries) for _, entries in heard] == [2, 2]


def test_all_is_told_anew_after_a_long_time() -> None:
    mesh = Mesh(seed=9)
    net = Links(mesh, "a-b b-c")
    heard = listen(net.a)
    mesh.run(1900.0)
    assert [sorted(it.path for it in entries) for _, entries in heard] == [[(), ("c",)]]
    check_routes(list(mesh.stations.values()))


def test_both_at_once() -> None:
    """Two links between the same two nodes at the same moment: one is left, and discovery is on it without delay."""
    mesh = Mesh(seed=10)
    net = Links(mesh, "a-b c-d")
    for seed in range(6):
        mesh.join(net.b, net.c, latency=0.01)
        mesh.join(net.c, net.b, latency=0.01 + 0.001 * seed)
        mesh.run(1.0)
        assert known(net.a) == {"b": "b", "c": "b/c", "d": "b/c/d"}, seed
        assert known(net.d) == {"a": "c/b/a", "b": "c/b", "c": "c"}, seed
        net.b.link("c").close("again")
        mesh.run(1.0)
        assert known(net.a) == {"b": "b"}


# -- who may -----------------------------------------------------------------------------------------------------------


def with_policy(mesh: Mesh, pairs: str, name: str, policy: Policy) -> Links:
    """The same, but the node `name` has this policy from the beginning."""
    make = mesh.station

    def station(address: str) -> Station:
        made = make(address)
        if address == name:
            made.node.discovery.policy = policy
        return made

    mesh.station = station  # type: ignore[method-assign, assignment]
    return Links(mesh, pairs)


def test_who_does_not_discover_tells_and_hears_nothing() -> None:
    net = with_policy(Mesh(seed=11), "a-b b-c c-d", "b", Policy(discover=False))
    assert (known(net.a), known(net.b)) == ({}, {})
    assert known(net.d) == {"c": "c"}
    works(net.a, "b/c/d/echo")


def test_only_some_services_are_advertised() -> None:
    mesh = Mesh(seed=12)
    net = with_policy(mesh, "a-b b-c", "c", Policy(advertise=("web-*", "sshd")))
    for name in ("web-one", "web", "sshd"):
        net.c.serve(name, Program.echo)
    net.c.node.add_service(ServiceEntry("web-own", Program.echo, private=True))
    mesh.idle()
    assert services(net.a, "c") == ("sshd", "web-one")
    works(net.a, "any/web-one")
    works(net.a, "c/web-own")
    with pytest.raises(RefusedError):
        net.a.tunnel("any/web-own")


def test_who_carries_nothing_is_no_way() -> None:
    mesh = Mesh(seed=13)
    net = with_policy(mesh, "a-b b-c", "b", Policy(transit=False))
    assert (known(net.a), known(net.b), known(net.c)) == ({"b": "b"}, {"a": "a", "c": "c"}, {"b": "b"})
    works(net.b, "c/echo")
    works(net.a, "b/echo")
    client = net.a.tunnel("b/c/echo")
    mesh.idle()
    assert ended(client) == Outcome(UNKNOWN, "b: carries nothing from a to c")
    console = net.a.console()
    answer = console.ask("b/c", 1, data=b"ping")
    assert "carries nothing" in answer["text"]


def test_a_link_over_which_nothing_is_carried() -> None:
    """For others: what lies behind it is told to nobody, nor is anything told over it, and no path leads there."""
    mesh = Mesh(seed=36)
    net = Links(mesh, "a-b b-d")
    mesh.station("c").serve("echo", Program.echo)
    net.join("b-c")
    net.wires["b-c"].ports[0].link.policy = Policy(transit=False)
    mesh.run(1.0)
    assert (list(known(net.a)), list(known(net.c))) == (["b", "d"], ["b"])
    works(net.b, "c/echo")
    listed = {it.address: it.console().ask("b", messages.NETWORK) for it in (net.a, net.c)}
    assert [messages.NETWORK_ENTRY.decode(it)["path"] for it in listed["a"]["entries"]] == [("a",), ("d",)]
    assert listed["c"]["text"] == "b: this request is available on the local node only"
    net.d.serve("secret", Program.echo)
    mesh.idle()
    for opener, is_told in ((net.a, True), (net.c, False)):
        client = opener.tunnel("b/any/secrets")
        mesh.idle()
        assert ("did you mean any/secret?" in ended(client).text) == is_told
    for opener, path in ((net.a, "b/c/echo"), (net.c, "b/a/echo")):
        client = opener.tunnel(path)
        mesh.idle()
        assert "carries nothing" in ended(client).text


def test_no_second_way_leads_where_nothing_is_carried() -> None:
    """Each way of a tunnel is held to the rules, not the best alone, and a dearer one that they allow is taken."""
    mesh = Mesh(seed=40)
    net = Links(mesh, "a-b b-c x-d", quick="x-d")
    net.join("c-d")
    net.join("b-x", 0.1)
    net.wires["b-x"].ports[0].link.policy = Policy(transit=False)
    mesh.run(1.0)
    assert known(net.b)["d"] == "c/d"
    net.c.link("d").close("gone")
    client = net.a.tunnel("b/d/echo")
    mesh.idle()
    assert ended(client).code == UNKNOWN
    assert not net.d.programs
    net.join("c-d", 0.1)
    mesh.run(1.0)
    assert known(net.b)["d"] == "x/d"
    works(net.a, "b/d/echo")
    assert net.d.programs[0].origin == ("c", "b", "a", "child/1")


def test_what_may_not_be_told_of_hides_nothing_else() -> None:
    """The best way to d leads where nothing is carried for others: they are told of the next best."""
    mesh = Mesh(seed=42)
    net = Links(mesh, "a-b b-c c-d x-d")
    net.join("b-x", 0.001)
    net.wires["b-x"].ports[0].link.policy = Policy(transit=False)
    mesh.run(1.0)
    assert (known(net.b)["d"], known(net.a)["d"]) == ("x/d", "b/c/d")
    works(net.a, "d/echo")
    net.c.link("d").close("gone")
    mesh.run(1.0)
    assert (known(net.b)["d"], list(known(net.a))) == ("x/d", ["b", "c"])
    net.join("c-d")
    mesh.run(1.0)
    assert known(net.a)["d"] == "b/c/d"
    net.b.link("x").close("gone")
    mesh.run(1.0)
    assert (known(net.b)["d"], known(net.a)["d"]) == ("c/d", "b/c/d")


RULES = [
    (Policy(), ["b", "c", "d"], ["a", "b", "d"], ["a", "c", "d"]),
    (Policy(transit=False), ["b", "c", "d"], ["a"], ["a", "d"]),
    (Policy(accept=("b",)), ["b", "c"], ["a", "b"], ["a", "c", "d"]),
    (Policy(discover=False), ["c"], ["a"], ["d"]),
]


@pytest.mark.parametrize("before", RULES)
@pytest.mark.parametrize("after", RULES)
def test_a_link_that_goes_on_under_other_rules(before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
    """As where one [[conn]] takes over from another: a's rules of the link to b, and what a, c and b know by them."""
    mesh = Mesh(seed=43)
    net = Links(mesh, "c-a b-d")
    for policy, *names in (before, after):
        net.wires["a-b"] = mesh.join(net.a, net.b, resume_timeout=600)
        net.wires["a-b"].ports[0].link.policy = policy
        mesh.run(8.0)
        assert [list(known(it)) for it in (net.a, net.c, net.b)] == names
        net.cut("a-b")
        mesh.run(1.0)
    assert "resumed b" in net.a.log


def test_rules_are_stronger_than_calm() -> None:
    """What is restless is told as it was for a while; not so what may be told no more."""
    mesh = Mesh(seed=46)
    net = Links(mesh, "c-a b-d d-x")
    net.join("a-x", 0.1)
    for number in range(11):
        net.wires["a-b"] = mesh.join(net.a, net.b, resume_timeout=600)
        net.wires["a-b"].ports[0].link.policy = Policy(transit=number < 10)
        mesh.run(0.5)
        if number < 10:
            assert known(net.c)["d"] == "a/b/d"
            net.cut("a-b")
            mesh.run(0.05)
    assert "d" in net.a.node.discovery._held
    assert (known(net.a)["d"], known(net.c)["d"]) == ("b/d", "a/x/d")
    works(net.c, "d/echo")


def test_those_that_offer_a_service_are_listed_once() -> None:
    """Though there are more than a page holds."""
    mesh, net, liar = honest(45)
    for start in range(0, 2000, 200):
        liar.say([AdvertisedNode((f"some-node-{start + at}",), 0, record(b"y", "web")) for at in range(200)])
        mesh.run(0.1)
    mesh.run(2.0)
    console = net.b.console()
    answer = console.ask("", messages.NETWORK, service="web")
    assert len(answer["entries"]) > 500
    assert not answer["after"], "what is nearest is on the first page"


def test_questions_without_end() -> None:
    """About the network, a neighbour and who lies behind it may ask so much at once; a program of the node, more."""
    mesh = Mesh(seed=47)
    net = Links(mesh, "a-b b-c c-dora")
    mesh.run(1.0)
    console = net.a.console()
    for _ in range(30):
        for _ in range(10):
            console.send("b", messages.NETWORK)
        mesh.idle()
    assert 100 <= [answer.kind for answer in console.answers.values()].count(messages.NETWORK_IS) < 150
    assert "b: too many queries" in console.ask("b", messages.NETWORK)["text"]
    hints = []
    for seconds in (0.0, 10.0):
        for _ in range(10):
            console.send("b", messages.NETWORK)
        mesh.run(seconds)
        client = net.a.tunnel("b/dorra")
        mesh.idle()
        hints.append("did you mean dora?" in ended(client).text)
    assert hints == [False, True]
    assert console.ask("b", messages.NETWORK).kind == messages.NETWORK_IS
    own = net.b.console()
    assert {own.ask("", messages.NETWORK).kind for _ in range(300)} == {messages.NETWORK_IS}


def test_names_that_are_not_accepted() -> None:
    net = with_policy(Mesh(seed=14), "a-b b-c b-dora", "a", Policy(accept=("d*",)))
    assert known(net.a) == {"b": "b", "dora": "b/dora"}
    assert Policy(accept=()).within(Policy(accept=("d*",))).accept == (), "a link that accepts none"


def test_regions_know_of_each_other_by_their_gates_only() -> None:
    """So a network grows beyond what its nodes may know: the gate resolves the rest of the path."""
    mesh = Mesh(seed=37)
    net = Links(mesh, "a1-gate1 gate1-a2 b1-gate2 gate2-b2 b1-b2 c1-gate3")
    for pair in ("gate1-gate2", "gate2-gate3"):
        net.join(pair)
        for port in net.wires[pair].ports:
            port.link.policy = Policy(accept=("gate*",))
    mesh.run(1.0)
    gates = ["gate1", "gate2", "gate3"]
    assert [list(known(net.a1)), list(known(net.b1))] == [["a2", *gates], ["b2", *gates]]
    works(net.a1, "gate2/b2/echo")
    works(net.b2, "gate3/c1/echo")
    assert net.c1.programs[0].origin == ("gate3", "gate2", "b2", "child/1")


# -- which way ---------------------------------------------------------------------------------------------------------


def test_the_faster_way_with_more_steps() -> None:
    net = Links(Mesh(seed=15), "a-slow slow-t a-b b-c c-t a-t2 t2-t", slow="a-slow a-t2")
    assert known(net.a)["t"] == "b/c/t"
    assert known(net.a)["slow"] == "slow", "a neighbour is reached over its own link"


def test_equals_are_taken_in_the_order_of_names() -> None:
    net = Links(Mesh(seed=16), "a-m m-t a-b b-t a-z z-t")
    assert known(net.a)["t"] == "b/t"


def test_jitter_changes_nothing() -> None:
    mesh = Mesh(seed=17)
    net = Links(mesh, "a-b b-t a-c c-t a-d")
    mesh.run(30.0)
    heard = listen(net.d)
    for _ in range(60):
        for wire in net.wires.values():
            latency = LATENCY * mesh.random.uniform(0.8, 1.2)
            wire.latencies = (latency, latency)
        mesh.run(16.0)
    assert [len(entries) for _, entries in heard] == []
    for pair in ("a-b", "b-t"):
        net.wires[pair].latencies = (0.05, 0.05)
    mesh.run(60.0)
    assert known(net.d)["t"] == "a/c/t", "but what has become much slower is left"


def test_the_next_way_is_tried() -> None:
    """The best breaks before the tunnel stands: the service is started once, by the next."""
    mesh = Mesh(seed=18)
    net = Links(mesh, "a-b b-t a-c c-t", slow="c-t")
    assert known(net.a)["t"] == "b/t"
    client = net.a.tunnel("t/echo", b"hello")
    net.wires["b-t"].freeze()
    mesh.run(0.015)
    net.cut("b-t")
    mesh.run(5.0)
    assert (bytes(client.sink), client.eof) == (b"hello", True)
    assert [it.origin for it in net.t.programs] == [("c", "a", "child/1")]
    assert not [link for it in mesh.stations.values() for link in it.node.links.values() if link.streams]


def test_any_goes_to_the_nearest_and_then_to_the_next() -> None:
    mesh = Mesh(seed=20)
    net = Links(mesh, "a-b b-c c-d d-e")
    net.c.serve("web", Program.echo)
    net.e.serve("web", Program.echo)
    mesh.idle()
    works(net.a, "any/web")
    assert (len(net.c.programs), len(net.e.programs)) == (1, 0)
    net.c.node.remove_services(net.c.node.services["web"].owner)
    mesh.idle()
    works(net.a, "any/web")
    assert (len(net.c.programs), len(net.e.programs)) == (1, 1)
    net.cut("d-e")
    mesh.idle()
    with pytest.raises(RefusedError, match="does not know any/web"):
        net.a.tunnel("any/web")


# -- links without a transport -----------------------------------------------------------------------------------------


def test_another_way_while_a_link_waits() -> None:
    mesh = Mesh(seed=21)
    net = Links(mesh, "a-b b-c a-x x-y y-c", resume_timeout=3600)
    net.cut("b-c")
    mesh.run(1.0)
    assert known(net.a)["c"] == "x/y/c"
    assert known(net.b)["c"] == "a/x/y/c"
    works(net.a, "c/echo")
    works(net.b, "c/echo")
    assert [it.origin[0] for it in net.c.programs] == ["y", "y"]


def test_a_tunnel_waits_where_there_is_no_other_way() -> None:
    mesh = Mesh(seed=22)
    net = Links(mesh, "a-b b-c", resume_timeout=3600)
    mesh.run(1.0)
    net.cut("b-c")
    mesh.run(1.0)
    client = net.a.tunnel("c/echo", b"hello")
    mesh.run(GRACE - 1.5)
    assert "c" in known(net.a)
    mesh.run(1.0)
    assert list(known(net.a)) == ["b"], "given up"
    assert not client.is_over
    with pytest.raises(RefusedError):
        net.a.tunnel("c/echo")
    net.join("b-c")
    mesh.run(1.0)
    assert client.sink == b"hello"
    assert known(net.a)["c"] == "b/c"
    check_routes(list(mesh.stations.values()))


def test_nobody_looks_for_ways_around_among_those_that_wait_themselves() -> None:
    """All links to a node are cut: a tunnel waits at the first, and no search goes through the network."""
    mesh = Mesh(seed=23)
    net = Links(mesh, "a-b b-x c-x d-x b-c c-d d-b", resume_timeout=3600)
    net.cut("b-x", "c-x", "d-x")
    mesh.run(1.0)
    client = net.b.tunnel("x/echo", b"hello")
    mesh.run(1.0)
    assert [len(net.b.link(name).streams) for name in ("c", "d", "x")] == [0, 0, 1]
    net.join("b-x")
    mesh.run(1.0)
    assert client.sink == b"hello"


# -- neighbours of other kinds -----------------------------------------------------------------------------------------


def test_a_node_that_knows_nothing_of_discovery() -> None:
    """What it does not understand it skips."""
    mesh = Mesh(seed=24)
    net = Links(mesh, "b-c")
    old = mesh.station("old")
    old.serve("echo", Program.echo)
    old.node.link_reach = lambda link, payload: None  # type: ignore[method-assign]
    old.node.link_measured = lambda link: None  # type: ignore[method-assign]
    net.join("b-old")
    mesh.run(100.0)
    assert "old" not in known(net.b)
    assert known(net.c) == {"b": "b"}
    works(net.b, "old/echo")
    works(net.c, "b/old/echo")
    works(old, "b/c/echo")


def test_two_nodes_of_one_name_are_noticed() -> None:
    mesh = Mesh(seed=25)
    net = Links(mesh, "a-b b-c a-x")
    other = Station(mesh, "x")
    mesh.join(net.c, other)
    mesh.run(CONFLICT_TIME - 1.0)
    assert not [line for it in mesh.stations.values() for line in it.log if "two nodes" in line]
    mesh.run(30.0)
    assert [line for line in net.b.log if "two nodes" in line] == ["b: two nodes have the address x: a/x, c/x"]


def test_a_node_that_begins_anew_is_not_two() -> None:
    mesh = Mesh(seed=26)
    net = Links(mesh, "a-b b-c a-x c-x", resume_timeout=30)
    net.wires["c-x"].freeze()  # which takes a minute to notice
    net.cut("a-x")
    old, new = net.x, mesh.station("x")
    for port in old.ports.values():
        mesh.ports.remove(port)
    net.join("a-x")
    mesh.run(200.0)
    assert not [line for it in mesh.stations.values() for line in it.log if "two nodes" in line]
    assert net.b.node.discovery.table.nodes["x"].routes["a"].record.identity == new.node.local_peer.instance[:8]


# -- one that lies -----------------------------------------------------------------------------------------------------


class Liar:
    """A neighbour of `victim` that says what it likes."""

    def __init__(self, net: Links, victim: str) -> None:
        self.mesh = net.mesh
        self.station = net.mesh.station("liar")
        self.station.node.discovery.policy = Policy(discover=False)
        net.join(f"liar-{victim}")
        net.mesh.run(1.0)
        self.link = self.station.link(victim)
        self.number = 0
        self.say([AdvertisedNode((), 0, record(b"liar"))], BEGIN)

    def say(self, entries: list[AdvertisedNode], flags: int = 0) -> None:
        while True:
            payload, count = pack_reach(self.number, flags, entries[:CHUNK])
            self.link.control(REACH, 0, payload)
            self.number += 1
            flags = 0
            entries = entries[count:]
            if not entries:
                return


def record(identity: bytes, *services: str) -> NodeRecord:
    return NodeRecord(identity.ljust(8, b"\0")[:8], services)


def honest(seed: int) -> tuple[Mesh, Links, Liar]:
    """Honest nodes in two places, one of them with a lying neighbour."""
    mesh = Mesh(seed=seed)
    net = Links(mesh, "a-b b-c c-d a-d d-e")
    mesh.run(1.0)
    return mesh, net, Liar(net, "b")


def unharmed(net: Links) -> None:
    """Everybody reaches everybody, by ways without the liar."""
    stations = [it for name, it in net.mesh.stations.items() if name != "liar"]
    for station in stations:
        check_tables(station)
        assert set(known(station)) >= {"a", "b", "c", "d", "e"} - {station.address}
        for other in stations:
            if other is not station:
                works(station, f"{other.address}/echo", 100)


def test_paths_that_cannot_be() -> None:
    mesh, net, liar = honest(30)
    lies = [("b",), ("x", "b", "y"), ("x", "y", "x"), ("liar",), ("x", "liar"), ("a", "b", "e"), ("b", "e")]
    for _ in range(3):
        liar.say([AdvertisedNode(path, 0, record(b"lie")) for path in lies])
        mesh.run(1.0)
    assert [it for it in known(net.b).values() if "liar" in it and it != "liar"] == []
    assert [it for it in net.b.log if "liar" in it and "up" not in it] == [
        "b: liar advertises another node of the name b"
    ]
    unharmed(net)
    assert "liar" in net.b.node.links


def test_costs_that_cannot_be() -> None:
    """The dearest way that can be told, with the next link on top, is told to the next neighbour all the same."""
    mesh, net, liar = honest(31)
    liar.say([AdvertisedNode(("far",), MAX_COST, record(b"far"))])
    mesh.run(5.0)
    assert known(net.e)["far"] == "d/a/b/liar/far"
    assert all(len(it.node.links) == len([1 for pair in net.wires if it.address in pair.split("-")])
               for it in mesh.stations.values())  # fmt: skip
    assert not [line for it in mesh.stations.values() for line in it.log if "down" in line]
    unharmed(net)


def test_what_there_is_room_for_again_is_told_on() -> None:
    """Of 5000 nodes the last are not told on; when the first are gone, they are, as soon as they are told of again."""
    mesh, net, liar = honest(46)
    names = [f"y{number}" for number in range(5000)]
    for cost, those in ((0, names), (None, names[:4000]), (0, names[4000:])):
        for start in range(0, len(those), 200):
            liar.say([AdvertisedNode((name,), cost, record(b"y")) for name in those[start : start + 200]])
            mesh.run(0.1)
        mesh.run(5.0)
    assert set(names[4000:]) <= set(known(net.a))
    check_tables(net.b)


def test_frames_that_are_short_and_cost_much() -> None:
    """To begin anew again and again, and services that change each time, count for what they cost."""
    names = [tuple(f"{letter}{number}" for number in range(MAX_ADVERTISED_SERVICES)) for letter in "ab"]
    for entries in ([], [AdvertisedNode(("x",), 0, NodeRecord(b"x" * 8, those)) for those in names]):
        mesh, net, liar = honest(44)
        for start in range(0, 8000, 200):
            liar.say([AdvertisedNode((f"y{start + at}",), 0, record(b"y")) for at in range(200)])
            mesh.run(0.1)
        mesh.run(5.0)
        for _ in range(100):
            for number in range(30):  # 3000 frames in all, in a second
                liar.say(entries[number % 2 :][:1], BEGIN * (not entries))
            mesh.run(0.01)
        assert [line for line in net.b.log if "advertises too many" in line]


def test_a_million_entries() -> None:
    """Bounded memory, one line in the log, and a pause in which it is not listened to."""
    mesh, net, liar = honest(32)
    frames = [
        pack_reach(number, 0, [AdvertisedNode((f"x{number * CHUNK + at}",), 0, record(b"x")) for at in range(CHUNK)])
        for number in range(1, 41)
    ]
    spent = process_time()
    for turn in range(100):
        for payload, _ in frames:
            liar.link.control(REACH, 0, payload)
        mesh.run(0.2)
        assert len(net.b.node.discovery.table.nodes) <= MAX_LEARNED + 5
        assert len(net.a.node.discovery.table.nodes) <= MAX_RELAYED + 5
        if turn % 10 == 0:
            check_tables(net.b)
    assert process_time() - spent < 10, "what is not listened to is not looked at"
    assert [it for it in net.b.log if "liar" in it and "up" not in it] == [
        "b: liar advertises more than 8192 nodes: the rest are ignored",
        "b: liar advertises too many changes: its advertisements are ignored for 30 s",
    ]
    assert len(net.b.node.discovery.table.nodes) == 5
    unharmed(net)
    mesh.run(IGNORE_TIME)
    unharmed(net)


def test_more_nodes_than_are_told_on() -> None:
    mesh, net, liar = honest(37)
    for part in range(5):
        liar.say([AdvertisedNode((f"x{part * 1000 + at}",), 0, record(b"x")) for at in range(1000)])
        mesh.run(2.0)
    check_tables(net.b)
    assert len(net.b.node.discovery.table.nodes) == 5 + 5000
    assert len(net.a.node.discovery.table.nodes) == 5 + MAX_RELAYED - 1, "the liar itself is one of them"
    unharmed(net)


def test_names_that_fill_memory() -> None:
    """Told small and then made large: it is what they are that counts."""
    mesh, net, liar = honest(33)
    names = [f"x{at}" for at in range(800)]
    liar.say([AdvertisedNode((name,), 0, record(b"x")) for name in names])
    mesh.run(2.0)
    services = tuple(f"{at:0{MAX_ADDRESS}}" for at in range(MAX_ADVERTISED_SERVICES))
    for at in range(0, 800, 100):
        liar.say([AdvertisedNode((name,), 0, record(b"x", *services)) for name in names[at : at + 100]])
        mesh.run(1.0)
        check_tables(net.b)
    assert net.b.node.discovery._neighbours["liar"].bytes <= MAX_BYTES
    unharmed(net)


def test_somebody_elses_name_flapping() -> None:
    """A thousand times a second: others keep their way to the real one."""
    mesh, net, liar = honest(34)
    heard = listen(net.c)
    for turn in range(3000):
        liar.say([AdvertisedNode(("e",), 0 if turn % 2 else None, record(b"lie"))])
        mesh.run(mesh.random.uniform(0.0005, 0.0015))
        for at in (net.a, net.c, net.d):
            assert "e" in at.node.discovery.table.nodes
        if turn % 100 == 0:
            assert {known(it)["e"] for it in (net.c, net.a)} <= {"d/e", "b/liar/e"}
            assert known(net.d)["e"] == "e"
            works(net.a, "e/echo", 10)
    assert len(heard) < 60
    liar.say([AdvertisedNode(("e",), None)])
    mesh.run(LAST_WAIT + 1.0)
    assert known(net.b)["e"] in ("a/d/e", "c/d/e")
    assert len([it for it in net.b.log if "liar" in it and "up" not in it]) == 0
    unharmed(net)


def test_everybodys_name_is_one_line_in_a_minute() -> None:
    mesh, net, liar = honest(35)
    names = [name for name in mesh.stations if name not in ("b", "liar")]
    for _ in range(130):
        liar.say([AdvertisedNode((name,), MAX_COST // 2, record(b"lie")) for name in names])
        mesh.run(1.0)
        check_tables(net.b)
    assert len([line for line in net.b.log if "two nodes" in line]) == 1
    unharmed(net)

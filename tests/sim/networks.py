"""Networks that are cut, healed, crashed and used at random, by seed, and an oracle that says what they must know.

    Network      stations of a mesh in some shape; what can happen to them; what must hold at every moment
    best_routes  what each node must have found once all is quiet, by the plainest means
    simulate     one network through so many steps

Everything comes from the seed: `simulate(seed, shape, nodes, steps)` is the same each time, and fewer steps are the
beginning of the same.
"""

from __future__ import annotations

import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from r2box.errors import RefusedError
from r2box.proto.link.link import DOWN
from r2box.proto.routing.adjacency import MAX_BYTES, MAX_LEARNED, MAX_RELAYED, Adjacency
from r2box.proto.routing.route_table import Route
from r2box.proto.wire.advertisement import IDENTITY, MAX_PATH
from r2box.proto.wire.outcome import ENDED
from support.mesh import Mesh, Port, Program, Station, Wire
from support.shapes import SHAPES

STEP = 0.05  # seconds: keepalives and late alarms come so late at most
QUIET = 130.0  # seconds: a frozen link is noticed after 60 to 75, given up 10 later, and what is held back waits 20
NAMES = ("alpha", "beta", "gamma")  # services that some offer, beside `echo`, which all do
PAUSES = (0.0, 0.004, 0.02, 0.1, 0.4, 1.5, 6.0, 20.0)  # seconds after a step
HEADER = 8  # bytes that say which tunnel this is

Way = tuple[int, int, str]  # cost, steps, the first of them: the lesser, the better


class Clockwork(Mesh):
    """A mesh that looks for keepalives only every STEP, as it has many links, and forgets wires that are done with."""

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            until = min(end, self.now + STEP)
            while self._events and self._events[0][0] <= until:
                self._step()
            self.now = until
            for port in self.ports:
                due = port.link.deadline()
                if due and due <= until:
                    port.link.tick(until)
            for station in self.stations.values():
                station.ring()
            self.flush()
            if not self._events:  # then nothing happens before the next of these
                dues = [due for due in (port.link.deadline() for port in self.ports) if due]
                dues += [station.due for station in self.stations.values()]
                self.now = min(end, max(self.now, min(dues, default=end) - STEP))
        self.ports = [it for it in self.ports if it.link.state != DOWN and not (it.wire.is_cut and is_left(it))]


def is_left(port: Port) -> bool:
    """Whether the link of `port` has another transport, or waits for one."""
    return port.ports.get(port.link) is not port and not port.link.is_suspended


def is_whole(wire: Wire) -> bool:
    """Whether there are links on it, or on their way to be."""
    return not wire.is_cut and all(port.link.state != DOWN for port in wire.ports)


class Tunnel:
    """A tunnel to an `echo`, and what of it has been checked."""

    def __init__(self, number: int, opener: Station, client: Program) -> None:
        self.number = number
        self.opener = opener
        self.client = client
        self.service: Program | None = None
        self._checked = [0, 0]

    def check(self) -> None:
        wrote = self.client.wrote
        for at, sink in enumerate((self.client.sink, self.service.sink if self.service else b"")):
            done = self._checked[at]
            assert sink[done:] == wrote[done : len(sink)], f"tunnel {self.number}: other bytes than were sent"
            self._checked[at] = len(sink)
        if self.client.eof:
            assert len(self.client.sink) == len(wrote), f"tunnel {self.number}: an end before all was there"


class Edge:
    """Where two nodes are linked, or could be."""

    def __init__(self, a: str, b: str, random: Random) -> None:
        self.ends = (a, b)
        there = random.uniform(0.0005, 0.03)
        self.latency = (there, there * random.uniform(0.8, 1.2))
        self.slices = random.random() < 0.3
        self.resume_timeout = random.choice((0, 0, 5, 30, 3600))
        self.wires: list[Wire] = []  # more than one when it was joined again


class Network:
    """`nodes` stations in `shape`.  Call `storm` for what may happen, and `rest` for what must come of it."""

    def __init__(self, seed: int, shape: str, nodes: int, say: Callable[[str], None] = lambda text: None) -> None:
        self.random = Random(seed)
        self.mesh = Clockwork(seed)
        self.say = say
        self.tunnels: dict[int, Tunnel] = {}  # that are open
        self.known: dict[int, Tunnel] = {}  # that ever were: of some, bytes are still on their way
        self.dead: set[str] = set()
        self.opened = 0
        names = [f"n{number}" for number in range(nodes)]
        for name in names:
            self._start(name)
        pairs = sorted(SHAPES[shape](nodes, self.random))
        self.edges = [Edge(names[a], names[b], self.random) for a, b in pairs]
        for edge in self.edges:
            self._join(edge)

    @property
    def live(self) -> list[Station]:
        return [it for address, it in self.mesh.stations.items() if address not in self.dead]

    # -- what happens ----------------------------------------------------------------------------------------------

    def storm(self, steps: int) -> None:
        actions = [action for action, weight in self._actions() for _ in range(weight)]
        for step in range(steps):
            action = self.random.choice(actions)
            told = action()
            pause = self.random.choice(PAUSES)
            if told:
                self.say(f"{step:4} {self.mesh.now:9.3f} {told}; then {pause} s")
            self.mesh.run(pause)
            self.check()

    def _actions(self) -> list[tuple[Callable[[], str], int]]:
        return [
            (self._cut, 4), (self._heal, 8), (self._crash, 1), (self._restart, 2), (self._divide, 1), (self._offer, 2),
            (self._withdraw, 2), (self._open, 8), (self._write, 3), (self._again, 1), (self._flap, 1),
        ]  # fmt: skip

    def _start(self, name: str) -> None:
        station = self.mesh.station(name)
        self.dead.discard(name)
        self._serve(station, "echo")

    def _serve(self, station: Station, name: str) -> None:
        station.serve(name, self._begin)

    def _begin(self, program: Program) -> None:
        """A service starts: which tunnel it belongs to, its first bytes will tell."""
        program.echo()
        echo = program.on_data

        def first(data: bytes) -> None:
            if len(program.sink) >= HEADER:
                tunnel = self.known.get(int.from_bytes(program.sink[:HEADER], "big"))
                assert tunnel is not None, "bytes that nobody sent"
                assert tunnel.service is None, f"tunnel {tunnel.number} has two services"
                tunnel.service = program
                program.on_data = echo
            echo(data)

        program.on_data = first

    def _join(self, edge: Edge) -> None:
        a, b = (self.mesh.stations[name] for name in edge.ends)
        wire = self.mesh.join(a, b, latency=edge.latency, slices=edge.slices, resume_timeout=edge.resume_timeout)
        edge.wires = [*(it for it in edge.wires if is_whole(it)), wire]

    def _is_whole(self, edge: Edge) -> bool:
        return any(map(is_whole, edge.wires))

    def _sever(self, edge: Edge, first: bool, second: bool) -> None:
        for wire in edge.wires:
            if not wire.is_cut:
                wire.cut(first, second)

    def _cut(self) -> str:
        edge = self.random.choice(self.edges)
        sees = self.random.choice(((True, True), (True, True), (True, False), (False, True), (False, False)))
        self._sever(edge, *sees)
        return f"cut {edge.ends}, seen by {sees}"

    def _heal(self) -> str:
        broken = [it for it in self.edges if not self._is_whole(it) and not self.dead.intersection(it.ends)]
        if not broken:
            return ""
        edge = self.random.choice(broken)
        self._join(edge)
        return f"heal {edge.ends}, resume_timeout {edge.resume_timeout}"

    def _again(self) -> str:
        """A second link where there is one, from the other side too perhaps."""
        whole = [it for it in self.edges if self._is_whole(it) and not self.dead.intersection(it.ends)]
        if not whole:
            return ""
        edge = self.random.choice(whole)
        for _ in range(self.random.randint(1, 2)):
            self._join(edge)
        return f"join {edge.ends} again"

    def _flap(self) -> str:
        edge = self.random.choice(self.edges)
        if self.dead.intersection(edge.ends):
            return ""
        times, up, down = self.random.randint(3, 20), self.random.uniform(0.02, 0.5), self.random.uniform(0.0, 0.2)
        for _ in range(times):
            self._sever(edge, True, True)
            self.mesh.run(down)
            self._join(edge)
            self.mesh.run(up)
        return f"flap {edge.ends} {times} times, {up:.3f} s up and {down:.3f} s down"

    def _crash(self) -> str:
        """Gone, and says nothing."""
        if len(self.live) < 3:
            return ""
        station = self.random.choice(self.live)
        self.dead.add(station.address)
        for edge in self.edges:
            if station.address in edge.ends:
                sees = self.random.random() < 0.7
                self._sever(edge, *(sees and end != station.address for end in edge.ends))
        self.mesh.ports = [port for port in self.mesh.ports if port.link.host is not station.node]
        station.ports.clear()
        station.due = float("inf")
        for number in [it.number for it in self.tunnels.values() if it.opener is station]:
            self.tunnels[number].check()
            self.tunnels[number].client.is_over = True
        return f"crash {station.address}"

    def _restart(self) -> str:
        if not self.dead:
            return ""
        name = self.random.choice(sorted(self.dead))
        self._start(name)
        for edge in self.edges:
            if name in edge.ends and not self.dead.intersection(edge.ends) and self.random.random() < 0.7:
                self._join(edge)
        return f"restart {name}"

    def _divide(self) -> str:
        """Cut all links between some nodes and the others."""
        here = {it.address for it in self.live if self.random.random() < 0.5}
        sees = self.random.random() < 0.7
        for edge in self.edges:
            if len(here.intersection(edge.ends)) == 1:
                self._sever(edge, sees, sees)
        return f"divide {' '.join(sorted(here))} from the others, seen: {sees}"

    def _offer(self) -> str:
        station, name = self.random.choice(self.live), self.random.choice(NAMES)
        if name in station.node.services:
            return ""
        self._serve(station, name)
        return f"offer {station.address}/{name}"

    def _withdraw(self) -> str:
        station, name = self.random.choice(self.live), self.random.choice(NAMES)
        if name not in station.node.services:
            return ""
        station.node.remove_services(station.node.services[name].owner)
        return f"withdraw {station.address}/{name}"

    def _open(self) -> str:
        """By name, by any, or by a path that some walk has found."""
        opener, how = self.random.choice(self.live), self.random.choice(("name", "name", "any", "path"))
        target = self.random.choice(sorted(self.mesh.stations))
        if how == "any":
            path = f"any/{self.random.choice((*NAMES, 'echo'))}"
        elif how == "name":
            path = f"{target}/{self.random.choice((*NAMES, 'echo', 'echo'))}"
        else:
            path = "/".join([*self._walk(opener.address), "echo"])
        size = self.random.choice((0, 1, 100, 5_000, 5_000, 60_000, 400_000))
        number = self._tunnel(opener, path, size, ends=self.random.random() < 0.7)
        return f"open {opener.address} -> {path}, {size} bytes: " + (f"tunnel {number}" if number else "refused")

    def _walk(self, at: str) -> list[str]:
        path = []
        for _ in range(self.random.randint(1, 4)):
            beside = [end for edge in self.edges if at in edge.ends for end in edge.ends if end != at]
            at = self.random.choice(beside) if beside else at
            path.append(at)
        return path

    def _tunnel(self, opener: Station, path: str, size: int, *, ends: bool) -> int:
        self.opened += 1
        number = self.opened
        data = number.to_bytes(HEADER, "big") + self.random.getrandbits(8 * size + 8).to_bytes(size + 1, "big")
        program = Program(self.mesh)
        self.tunnels[number] = self.known[number] = Tunnel(number, opener, program)
        try:
            self.tunnels[number].client = opener.tunnel(path, data, ends=ends)
        except RefusedError:
            del self.tunnels[number]
            return 0
        return number

    def _write(self) -> str:
        """Or end, a tunnel that is open."""
        waiting = [it for it in self.tunnels.values() if not (it.client.is_over or it.client.ends)]
        if not waiting:
            return ""
        tunnel = self.random.choice(waiting)
        if self.random.random() < 0.4:
            tunnel.client.end()
            return f"end tunnel {tunnel.number}"
        tunnel.client.write(self.random.randbytes(self.random.choice((10, 10_000, 100_000))))
        return f"write to tunnel {tunnel.number}"

    # -- what must hold at every moment ----------------------------------------------------------------------------

    def check(self) -> None:
        for number, tunnel in list(self.tunnels.items()):
            tunnel.check()
            if tunnel.client.is_over:
                del self.tunnels[number]
                outcome = tunnel.client.outcome
                if outcome is not None and outcome.code == ENDED and not (outcome.status or outcome.signal):
                    assert tunnel.client.eof, f"tunnel {number} ended well before its end"
        for station in self.live:
            check_tables(station)

    # -- what must come of it --------------------------------------------------------------------------------------

    def rest(self, *, healed: bool) -> None:
        """Nothing happens for so long that all must be known; with `healed`, after all has been put back."""
        for _ in range(3 if healed else 1):
            if healed:
                while self.dead:
                    self._restart()
                for edge in self.edges:
                    if not self._is_whole(edge):
                        self._join(edge)
            self.mesh.run(QUIET)
            self.check()
        self.say(f"     {self.mesh.now:9.3f} quiet")
        check_routes(self.live)
        if healed:
            self._finish()

    def _finish(self) -> None:
        """Nothing is stuck, and everybody reaches everybody."""
        for tunnel in self.tunnels.values():
            tunnel.client.end()
        self.mesh.run(30.0)
        self.check()
        stuck = [(it.number, it.opener.address) for it in self.tunnels.values()]
        assert not stuck, f"tunnels that are stuck, and where they begin: {stuck}"
        for _ in range(min(40, len(self.live) ** 2)):
            a, b = self.random.choice(self.live), self.random.choice(self.live)
            if b.address in a.node.discovery.table.nodes:
                assert self._tunnel(a, f"{b.address}/echo", 1000, ends=True), f"{a.address} does not reach {b.address}"
        clients = [it.client for it in self.tunnels.values()]
        self.mesh.run(10.0)
        self.check()
        for client in clients:
            assert client.eof, f"a tunnel by name failed: {client.outcome}"
        for port in self.mesh.ports:
            assert not port.link.streams, f"{port.link.local_peer.address}-{port.link.address} still has streams"


def neighbours(station: Station) -> Iterator[tuple[str, Adjacency]]:
    """Those that take part and whose link has a transport."""
    for address, neighbour in station.node.discovery._neighbours.items():
        if neighbour.has_advertised and neighbour.link.is_up and not neighbour.link.is_suspended:
            yield address, neighbour


def check_tables(station: Station) -> None:
    """Nothing loops, and nothing is more than it may be."""
    me, discovery = station.address, station.node.discovery
    table = discovery.table
    routes: dict[str, dict[str, Route]] = {}
    for via, neighbour in discovery._neighbours.items():
        heard = neighbour.learned
        assert len(heard) <= MAX_LEARNED
        assert sum(route.is_relayed for route in heard.values()) == neighbour.relayed <= MAX_RELAYED
        assert sum(route.size for route in heard.values()) == neighbour.bytes <= MAX_BYTES
        assert neighbour.dirty.keys() <= {"", *table.nodes, *discovery._shared}
        assert neighbour.overrides.keys() <= {"", *table.nodes, *discovery._shared, *neighbour.withdrawn}
        assert len(neighbour.withdrawn) <= len(neighbour.advertised)
        for address, route in heard.items():
            path = route.path
            assert (path[0], path[-1]) == (via, address), f"{me}: {route} is not what {via} may say of {address}"
            assert me not in path, f"{me}: {route} leads back here"
            assert len(set(path)) == len(path) <= MAX_PATH, f"{me}: {route} goes round"
            routes.setdefault(address, {})[via] = route
    assert {address: known.routes for address, known in table.nodes.items()} == routes, f"{me}: what is known was told"
    for known in table.nodes.values():
        assert known.best is min(known.routes.values(), key=lambda it: it.rank), f"{me}: {known.address} by a worse way"
        relayed = min((it for it in known.routes.values() if it.is_relayed), key=lambda it: it.rank, default=None)
        assert known.advertised is relayed, f"{me}: tells of {known.address} by a worse way"
    assert len(discovery._held) <= len(table.nodes)


def best_routes(stations: list[Station], target: str) -> dict[str, tuple[Way, tuple[str, ...]]]:
    """How each node must reach `target`: over its own link if it has one, else by the neighbour with whom it is least.

    Look again and again until nothing changes (Bellman and Ford).  Links cost what each side itself takes them to cost.
    """
    costs = {it.address: {via: neighbour.cost for via, neighbour in neighbours(it)} for it in stations}
    found: dict[str, tuple[Way, tuple[str, ...]]] = {}
    changed = True
    while changed:
        changed = False
        for me, links in costs.items():
            if me == target:
                continue
            if target in links:
                best = (links[target], 1, target), (target,)
            else:
                best = min(
                    (
                        ((cost + found[via][0][0], 1 + found[via][0][1], via), (via, *found[via][1]))
                        for via, cost in links.items()
                        if via in found and me not in found[via][1]
                    ),
                    default=None,
                )  # type: ignore[assignment]
            if best != found.get(me) and best is not None:
                found[me] = best
                changed = True
    return found


def check_routes(stations: list[Station]) -> None:
    """After quiet.  What has more than MAX_PATH steps cannot be told; there a node may know a dearer way, or none."""
    addresses = {it.address: it for it in stations}
    for me in stations:
        for via, neighbour in neighbours(me):
            other = dict(neighbours(addresses[via]))
            assert me.address in other, f"{me.address} has a link to {via}, which has none back"
            told = {address or via: (via, *route.path) for address, route in other[me.address].advertised.items()}
            heard = {address: route.path for address, route in neighbour.learned.items()}
            assert heard == told, f"{me.address} has not heard what {via} has said"
    wanted: dict[str, dict[str, tuple[Way, tuple[str, ...]]]] = {it.address: {} for it in stations}
    for target in stations:
        for source, best in best_routes(stations, target.address).items():
            wanted[source][target.address] = best
    for me in stations:
        table = me.node.discovery.table
        far = {address for address, (way, _) in wanted[me.address].items() if way[1] > MAX_PATH}
        has = {address: (it.best.cost, it.best.path) for address, it in table.nodes.items() if it.best}
        must = {address: (way[0], path) for address, (way, path) in wanted[me.address].items() if address not in far}
        differ = {it: (has.get(it), must.get(it)) for it in {*has, *must} - far if has.get(it) != must.get(it)}
        assert not differ, f"{me.address} knows and should know: {differ}"
        for address, known in table.nodes.items():
            other_node = addresses[address].node
            assert known.best is not None
            record = known.best.record
            identity = other_node.local_peer.instance[:IDENTITY]
            assert record.identity == identity, f"{me.address}: {address} is an older one"
            assert record.services == tuple(sorted(other_node.services)), f"{me.address}: what {address} offers"
        check_offers(me, wanted[me.address], addresses)


def check_offers(
    me: Station, wanted: dict[str, tuple[Way, tuple[str, ...]]], addresses: dict[str, Station]
) -> None:
    for name in (*NAMES, "echo"):
        offer = {address for address in wanted if name in addresses[address].node.services}
        ways = [wanted[address] for address in offer if wanted[address][0][1] <= MAX_PATH]
        if name in me.node.services:
            continue
        try:
            _, path, _ = me.node._targets((f"any/{name}",), ())[0]
        except RefusedError:
            assert not ways, f"{me.address} knows nobody who offers {name}: {offer}"
            continue
        assert min(ways)[1] == path[:-1], f"{me.address}: any/{name} goes to {path}, not to {min(ways)}"


def simulate(
    seed: int, shape: str = "random", nodes: int = 12, steps: int = 60, say: Callable[[str], None] = lambda text: None
) -> None:
    """AssertionError, or whatever the code under test raises, where something is wrong."""
    network = Network(seed, shape, nodes, say)
    network.mesh.run(5.0)
    network.check()
    check_routes(network.live)
    network.storm(steps // 2)
    network.rest(healed=False)
    network.storm(steps - steps // 2)
    network.rest(healed=True)


# -- many of them ------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """Arguments of `simulate`."""

    seed: int
    shape: str
    nodes: int
    steps: int

    @property
    def command(self) -> str:
        """What replays it, step by step."""
        return (
            f'make sim ARGS="network --seed {self.seed} --shape {self.shape} --nodes {self.nodes} '
            f'--steps {self.steps} --trace"'
        )


def make_case(seed: int, shape: str | None, nodes: int | None, steps: int) -> Case:
    """None: as the seed says."""
    return Case(seed, shape or list(SHAPES)[seed % len(SHAPES)], nodes or 4 + seed % 13, steps)


def fault(case: Case, say: Callable[[str], None] = lambda text: None) -> str:
    """What is wrong with it, or nothing."""
    try:
        simulate(*case, say)
    except Exception as error:  # whatever the code under test raises is a finding
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(at.filename).name}:{at.lineno}: {str(error)[:2000]}"
    return ""


def run(case: Case, say: Callable[[str], None]) -> bool:
    wrong = fault(case, say)
    say(wrong or f"seed {case.seed}: all is well")
    return not wrong


def shrink(case: Case, wrong: str) -> tuple[Case, str]:
    """A smaller one of the same seed that goes wrong too: first fewer steps, then fewer nodes, then fewer steps."""
    for field in ("steps", "nodes", "steps"):
        least = 3 if field == "nodes" else 0
        part = 2
        while part <= 16 and getattr(case, field) > least:
            size = getattr(case, field)
            smaller = case._replace(**{field: max(least, size - max(1, size // part))})
            also = fault(smaller)
            if also:
                case, wrong = smaller, also
            else:
                part *= 2
    return case, wrong


def look(case: Case) -> tuple[Case, str, Case, str]:
    """A case and what is wrong with it; a smaller one, and what is wrong with that."""
    wrong = fault(case)
    return (case, wrong, *(shrink(case, wrong) if wrong else (case, "")))


def run_all(cases: list[Case], jobs: int) -> bool:
    """Each of them; print those that go wrong, and how to see that again."""
    failed = 0
    with multiprocessing.Pool(jobs) as pool:
        for case, wrong, smaller, also in pool.imap_unordered(look, cases):
            if wrong:
                failed += 1
                print(f"seed {case.seed}: {wrong}\n    {case.command}", file=sys.stderr)
                print(f"  and smaller: {also}\n    {smaller.command}", file=sys.stderr, flush=True)
    print(f"{len(cases)} networks, {cases[0].steps} steps each: {failed} went wrong")
    return not failed

"""What discovery costs as networks grow: messages, bytes, virtual seconds, memory, and time of a processor.

The nodes are whole and unchanged; their wires are leaner than those of `mesh`: what a link has to say at one moment
arrives in one piece after the latency of the wire, 1 to 20 ms.  Keepalives are left out, so that it ends when all is
known, at the end of the last frame.
"""

from __future__ import annotations

import gc
import heapq
import importlib
import importlib.util
import itertools
import json
import os
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from r2box.proto.link.handshake import LocalPeer
from r2box.proto.link.link import DOWN, UP, Link
from r2box.proto.routing import discovery
from r2box.proto.routing.adjacency import CHUNK
from r2box.proto.routing.discovery import Discovery
from r2box.proto.routing.router import Router
from r2box.proto.routing.service_entry import ServiceEntry
from r2box.proto.wire import advertisement
from r2box.proto.wire.advertisement import AdvertisedNode, NodeRecord, Reach, pack_reach
from r2box.proto.wire.frames import REACH, encode_frame
from sim.networks import check_routes
from support.shapes import SHAPES

CALM = 100.0  # seconds between two changes: what has counted in dampers fades
CHANGES = 7  # links that are cut and put back


class Count:
    """What neighbours have told each other, by what it said."""

    def __init__(self) -> None:
        self.frames = self.bytes = 0
        self.entries: Counter[str] = Counter()
        self.last_at = 0.0
        self.nodes: set[str] = set()  # that anything was said of

    def as_record(self, since: float) -> dict[str, Any]:
        return {
            "frames": self.frames, "entries": sum(self.entries.values()), "bytes": self.bytes,
            "seconds": round(max(self.last_at - since, 0.0), 3), "nodes": len(self.nodes), **dict(self.entries),
        }  # fmt: skip


class Wire:
    """Two links, and how long bytes take from one to the other."""

    def __init__(self, net: Net, stations: tuple[Station, Station], latency: float) -> None:
        self.net = net
        self.latency = latency
        self.is_cut = False
        self.links = [Link(it.node, it.node.local_peer, net.now) for it in stations]
        for station, link, other in zip(stations, self.links, self.links[::-1]):
            station.wires[link] = self, other
            net.wake(self, link, other)

    def cut(self) -> None:
        self.is_cut = True
        for link in self.links:
            if link.state != DOWN:
                link.eof(self.net.now)

    def flush(self, link: Link, other: Link) -> None:
        if self.is_cut:
            return
        whole = bytearray()
        while True:
            buffers, _ = link.produce(self.net.now)
            if not buffers:
                break
            for buffer in buffers:
                whole += buffer
        if whole:
            self.net.later(self.latency, lambda: self._arrive(other, whole))

    def _arrive(self, link: Link, data: bytearray) -> None:
        if not self.is_cut:
            link.receive(data, self.net.now)
            link.settle()


class Station:
    """A node and as much of a host as it needs here."""

    def __init__(self, net: Net, address: str) -> None:
        self.net = net
        self.address = address
        self.wires: dict[Link, tuple[Wire, Link]] = {}
        self.due = float("inf")
        self.node = Router(LocalPeer(address, net.random.getrandbits(128).to_bytes(16, "big")), self)  # type: ignore[arg-type]
        self.node.add_service(ServiceEntry("sshd", self))

    def alarm(self, when: float) -> None:
        self.due = when
        self.net.later(max(0.0, when - self.net.now), self.ring)

    def ring(self) -> None:
        if self.net.now >= self.due:
            self.due = float("inf")
            self.node.tick(self.net.now)

    def wake(self, link: Link) -> None:
        if link in self.wires:
            wire, other = self.wires[link]
            self.net.wake(wire, link, other)

    def now(self) -> float:
        return self.net.now

    def up(self, link: Link) -> None:
        return

    def down(self, link: Link, reason: str) -> None:
        self.wires.pop(link, None)

    def note(self, text: str) -> None:
        self.net.notes.append(text)

    def news(self, what: str, name: str, path: tuple[str, ...], cost: int) -> None:
        if what == "node-up":
            self.net.known_at = self.net.now


class Net:
    """`nodes` stations in `shape`, none of them linked yet."""

    def __init__(self, shape: str, nodes: int, seed: int = 1) -> None:
        self.random = Random(seed)
        self.now = 1000.0
        self.notes: list[str] = []
        self.known_at = 0.0  # when a node last heard of one that it did not know
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._woken: dict[Link, None] = {}
        self.stations = [Station(self, f"node-{number:04}") for number in range(nodes)]
        self.pairs = sorted(SHAPES[shape](nodes, self.random))
        self.latencies = {pair: self.random.uniform(0.0005, 0.01) for pair in self.pairs}
        self.wires: dict[tuple[int, int], Wire] = {}

    def later(self, delay: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._serial), what))

    def wake(self, wire: Wire, link: Link, other: Link) -> None:
        if link not in self._woken:
            self._woken[link] = None

            def flush() -> None:
                del self._woken[link]
                wire.flush(link, other)

            self.later(0.0, flush)

    def join(self, pair: tuple[int, int]) -> None:
        self.wires[pair] = Wire(self, (self.stations[pair[0]], self.stations[pair[1]]), self.latencies[pair])

    def settle(self) -> Count:
        """Run until nobody has anything to say; what was said."""
        name, decode = "decode_reach", advertisement.decode_reach
        count = Count()

        def counting(payload: Any) -> Reach:
            reach = decode(payload)
            count.frames += 1
            count.bytes += len(encode_frame(REACH, 0, bytes(payload)))
            count.last_at = self.now
            for entry in reach.entries:
                count.entries["gone" if entry.cost is None else "whole" if entry.record else "changed"] += 1
                count.nodes.add(entry.path[-1] if entry.path else "")
            return reach

        setattr(discovery, name, counting)
        try:
            while self._events:
                self.now, _, what = heapq.heappop(self._events)
                what()
        finally:
            setattr(discovery, name, decode)
        return count


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure(shape: str, nodes: int, seed: int = 1, *, check: bool = False, changes: int = CHANGES) -> dict[str, Any]:
    """One network from cold, and then with some of its links cut and put back."""
    net = Net(shape, nodes, seed)
    gc.collect()
    gc.disable()
    before, begun, spent = resident(), net.now, time.process_time()
    for pair in net.pairs:
        net.join(pair)
    cold = {**net.settle().as_record(begun), "until known": round(net.known_at - begun, 3)}
    record: dict[str, Any] = {
        "shape": shape, "nodes": nodes, "links": len(net.pairs), "seed": seed, "cold": cold,
        "cpu": round(time.process_time() - spent, 2), "memory": (resident() - before) // nodes,
        "known": statistics.mean(len(it.node.discovery.table.nodes) for it in net.stations),
    }  # fmt: skip
    assert all(link.state == UP for wire in net.wires.values() for link in wire.links)
    if check:
        check_routes(net.stations)  # type: ignore[arg-type]
    record["cut"], record["back"] = [], []
    for pair in net.random.sample(net.pairs, min(changes, len(net.pairs))):
        for what in ("cut", "back"):
            net.now += CALM
            begun = net.now
            if what == "cut":
                net.wires[pair].cut()
            else:
                net.join(pair)
            record[what].append(net.settle().as_record(begun))
    if check:
        check_routes(net.stations)  # type: ignore[arg-type]
    record["notes"] = len(net.notes)
    gc.enable()
    return record


class Idle:
    """A host and a neighbour at once, for one node alone."""

    address, min_rtt, policy, is_up, is_suspended, is_backlogged = "hub", 0.01, None, True, False, False

    def __init__(self, address: str) -> None:
        self.address = address
        self.frames: list[bytes] = []

    def control(self, kind: int, route: int, payload: bytes) -> None:
        self.frames.append(payload)

    def now(self) -> float:
        return 0.0

    def alarm(self, when: float) -> None:
        return

    def note(self, text: str) -> None:
        return

    def news(self, what: str, name: str, path: tuple[str, ...], cost: int) -> None:
        return


def update(entries: int = 1000, listeners: int = 3) -> dict[str, float]:
    """Milliseconds of a processor that one node takes to hear of so many nodes, and to tell `listeners` of them; then
    for the same with other costs, and when all are gone."""
    found: dict[str, list[float]] = {}
    for _ in range(5):
        host = Idle("")
        node = Discovery(LocalPeer("hub", bytes(16)), host)
        links = [Idle(f"near-{number}") for number in range(listeners + 1)]
        for link in links:
            node.receive(link, pack_reach(0, 1, [AdvertisedNode((), 0, NodeRecord(bytes(8), ()))])[0], 0.0)  # type: ignore[arg-type]
        now = 1.0
        node.tick(now)
        number = 1
        for what in ("new", "cost", "gone"):
            now += 10.0
            rest = [
                AdvertisedNode((f"far-{at % 30}", f"node-{at:04}"), None if what == "gone" else 5000 + 100 * number,
                      NodeRecord(at.to_bytes(8, "big"), ("sshd",)) if what == "new" else None)
                for at in range(entries)
            ]  # fmt: skip
            frames = []
            while rest:
                payload, count = pack_reach(number, 0, rest[:CHUNK])
                frames.append(payload)
                del rest[:count]
                number += 1
            begun = time.process_time()
            for payload in frames:
                node.receive(links[0], payload, now)  # type: ignore[arg-type]
            heard = time.process_time()
            for _ in range(40):
                node.tick(now)
                now += 0.1
            found.setdefault(f"{what} heard", []).append((heard - begun) * 1e3)
            found.setdefault(f"{what} told", []).append((time.process_time() - heard) * 1e3)
    return {what: round(statistics.median(times), 2) for what, times in found.items()}


def save(folder: Path, records: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "growth.json").write_text(json.dumps(records, indent=1))


def grow(shapes: list[str], sizes: list[int], folder: Path | None, *, check: bool = False) -> None:
    """Measure each in a process of its own, print a row for each; with `folder` keep the figures and draw them."""
    records = []
    print("times in ms for 1,000 entries in one node with 3 listeners:", update())
    print(
        "shape      nodes  links |  from cold: frames   entries   MB  known    s |  KiB/node  CPU s | "
        "cut: frames entries   KB     s | back: frames entries   KB     s",
        flush=True,
    )
    for nodes, shape in itertools.product(sizes, shapes):
        record = apart(shape, nodes, check)
        records.append(record)
        print(row(record), flush=True)
        if folder is not None:
            save(folder, records)
    if folder is not None:
        draw(folder, records)


def apart(shape: str, nodes: int, check: bool) -> dict[str, Any]:
    """`measure` in a process of its own, so that memory is what this one takes."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(ours)
            with open(theirs, "w") as out:
                json.dump(measure(shape, nodes, check=check), out)
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(theirs)
    with open(ours) as came:
        text = came.read()
    assert os.waitpid(child, 0)[1] == 0, f"{shape} of {nodes} failed"
    return dict(json.loads(text))


def median(record: dict[str, Any], what: str, key: str) -> float:
    return float(statistics.median(it[key] for it in record[what]))


def row(record: dict[str, Any]) -> str:
    cold = record["cold"]
    size, known, spent = cold["bytes"] / 1e6, cold["until known"], record["cpu"]
    parts = [
        f"{record['shape']:10} {record['nodes']:5} {record['links']:6} | {cold['frames']:18} {cold['entries']:9} "
        f"{size:6.1f} {known:5.1f} {cold['seconds']:5.1f} | {record['memory'] / 1024:8.0f} {spent:6.1f}"
    ]
    for what in ("cut", "back"):
        frames, entries, size, seconds = (median(record, what, it) for it in ("frames", "entries", "bytes", "seconds"))
        parts.append(f"{frames:11.0f} {entries:7.0f} {size / 1e3:6.1f} {seconds:5.2f}")
    return " | ".join(parts)


PLOTS: dict[str, Callable[[dict[str, Any]], float]] = {
    "entries from cold, per node": lambda it: it["cold"]["entries"] / it["nodes"],
    "seconds from cold until every node is known": lambda it: it["cold"]["until known"],
    "KiB of memory per node": lambda it: it["memory"] / 1024,
    "entries after a cut, all nodes": lambda it: median(it, "cut", "entries"),
    "seconds after a cut": lambda it: median(it, "cut", "seconds"),
    "entries after it is back, all nodes": lambda it: median(it, "back", "entries"),
}


def draw(folder: Path, records: list[dict[str, Any]]) -> None:
    if not importlib.util.find_spec("matplotlib"):
        print("no plot: matplotlib is not installed; `make bench` installs it")
        return
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(2, 3, figsize=(14, 8), layout="constrained")
    for axis, (title, value) in zip(axes.flat, PLOTS.items()):
        for shape in SHAPES:
            points = [(it["nodes"], value(it)) for it in records if it["shape"] == shape]
            if points:
                axis.plot(*zip(*points), marker="o", label=shape)
        axis.set(title=title, xlabel="nodes", xscale="log", yscale="log")
        axis.grid(visible=True, alpha=0.3)
    axes.flat[0].legend()
    figure.savefig(folder / "growth.svg")
    pyplot.close(figure)
    print(folder / "growth.svg")

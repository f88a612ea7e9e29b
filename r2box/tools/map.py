"""r2 map: the network as known to a node, as a tree on the terminal or a graph for graphviz."""

from __future__ import annotations

import sys
from collections import deque

from ..cli.command import JSON, Command, Option
from ..cli.output import print_json
from ..errors import FAILED, OK, R2Error, UsageError
from ..net.client.client import ask
from ..net.client.query import COST_FIELD, PATH_FIELD, ask_all, give_up, names_of
from ..proto.wire import messages
from ..proto.wire.address import SERVICE, format_path, join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..cli.command import Args
    from ..errors import RefusedError
    from ..net.client.client import Client

    Path = tuple[str, ...]

COMMAND = Command(
    "r2 map",
    "draw the network as known to a node",
    options=[
        Option(("-a", "--all"), "query every node for its links, and draw them all", kind="flag"),
        Option(("--dot",), "print a graph for graphviz", kind="flag"),
        Option(("--svg",), "print an SVG image; requires dot of graphviz", kind="flag"),
        JSON,
    ],
    description=(
        "The tree shows each node at the end of the best route to it, with the cost of the route and the "
        "services of the node.  It shows the routes of the target; with -a every node is queried, and links "
        "that no best route uses are included."
    ),
    examples=[("r2 map --svg >network.svg", "draw the network as known to the local node")],
    statuses=[("0", "done"), ("1", "failed, or with -a a node did not answer"), ("2", "wrong usage")],
    seealso=["r2(1)"],
    json=[
        ("name", "text", "the node's address"),
        PATH_FIELD,
        COST_FIELD,
        ("parent", "text", "the previous node on the route; for the target, itself"),
        ("services", "list", "the names of its services"),
        ("links", "list", "the nodes that it is linked to, as far as known"),
    ],
)

MAX_QUERIES = 16  # nodes queried at a time


class _Map:
    """The nodes by name, in the order of their cost, and the links between them."""

    def __init__(self, root: str, listed: list[dict[str, Any]], known: list[dict[str, Any]]) -> None:
        self.root = root
        services = [entry["name"][len(SERVICE) :] for entry in listed if entry["kind"] == "service"]
        self.nodes: dict[str, dict[str, Any]] = {root: _node((), 0.0, root, services)}
        for entry in sorted(known, key=lambda entry: (entry["cost"], entry["path"])):
            self.add(entry["path"], entry["cost"] / 1e6, names_of(entry))
        for entry in listed:
            if entry["kind"] == "node":
                self.add((entry["name"],), 0.0, [])
        for node in list(self.nodes.values()):  # relays exist even if they are not advertised
            for length in range(1, len(node["way"])):
                self.add(node["way"][:length], 0.0, [])
        for name, node in self.nodes.items():
            if not self._is_reached(name):  # the answers are inconsistent
                node["parent"] = root
        self.links: dict[frozenset[str], None] = {}
        for node in self.nodes.values():
            way = (root, *node["way"])
            for one, other in zip(way, way[1:]):
                self.link(one, other)

    def _is_reached(self, name: str) -> bool:
        seen: set[str] = set()
        while name != self.root and name not in seen:
            seen.add(name)
            name = self.nodes[name]["parent"]
        return name == self.root

    def link(self, one: str, other: str) -> None:
        if one != other:
            self.links[frozenset((one, other))] = None

    def add(self, path: Path, cost: float, services: list[str]) -> None:
        self.nodes.setdefault(path[-1], _node(path, cost, (self.root, *path)[-2], services))

    def tree(self) -> list[str]:
        """Lines that show through which node each node is reached."""
        below: dict[str, list[str]] = {}
        for name, node in self.nodes.items():
            if name != self.root:
                below.setdefault(node["parent"], []).append(name)
        lines = [_label(self.root, self.nodes[self.root])]
        todo = [(name, "", name == below[self.root][-1]) for name in reversed(below.get(self.root, ()))]
        while todo:
            name, lead, is_last = todo.pop()
            lines.append(f"{lead}{'└─ ' if is_last else '├─ '}{_label(name, self.nodes[name])}")
            lead += "   " if is_last else "│  "
            todo += [(other, lead, other == below[name][-1]) for other in reversed(below.get(name, ()))]
        return lines

    def dot(self) -> str:
        lines = [f'graph "{self.root}" {{', "  node [shape=box, style=rounded, fontname=sans];"]
        for name, node in self.nodes.items():
            label = "\\n".join([name, *node["services"]])
            more = ", penwidth=2" if name == self.root else ""
            lines.append(f'  "{name}" [label="{label}"{more}];')
        used = {frozenset((name, node["parent"])) for name, node in self.nodes.items()}
        for pair in self.links:
            style = "" if pair in used else " [style=dashed]"
            lines.append("  " + " -- ".join(f'"{name}"' for name in sorted(pair)) + f"{style};")
        return "\n".join([*lines, "}", ""])

    def objects(self) -> list[dict[str, Any]]:
        """The objects of --json."""
        links: dict[str, list[str]] = {}
        for pair in self.links:
            one, other = sorted(pair)
            links.setdefault(one, []).append(other)
            links.setdefault(other, []).append(one)
        return [
            {
                "name": name,
                "path": format_path(node["way"]),
                "cost": node["cost"],
                "parent": node["parent"],
                "services": node["services"],
                "links": sorted(links.get(name, [])),
            }
            for name, node in self.nodes.items()
        ]


def _node(path: Path, cost: float, parent: str, services: list[str]) -> dict[str, Any]:
    return {"way": path, "cost": cost, "parent": parent, "services": services}


def _label(name: str, node: dict[str, Any]) -> str:
    cost = f"  {node['cost'] * 1000:.1f} ms" if node["cost"] else ""
    return name + cost + ("  " + ", ".join(node["services"]) if node["services"] else "")


def main(args: Args) -> int:
    path = join_targets(args.target)
    if args.dot + args.svg + args.json > 1:
        raise UsageError("--dot, --svg and --json are mutually exclusive")
    maps: list[_Map] = []
    failures: list[str] = []

    def steps(client: Client, done: Callable[[], None]) -> None:
        def listed(address: str, entries: list[dict[str, Any]]) -> None:
            def drawn(_: str, known: list[dict[str, Any]]) -> None:
                maps.append(_Map(address, entries, known))
                if args.all:
                    _query_all(client, path, maps[0], failures, done)
                else:
                    done()

            ask_all(client, messages.NETWORK, path, drawn, give_up)

        ask_all(client, messages.LIST, path, listed, give_up)

    ask(args.socket, steps, args.wait)
    _show(args, maps[0])
    for text in failures:
        print(f"r2-map: {text}", file=sys.stderr)
    return FAILED if failures else OK


def _query_all(client: Client, start: Path, found: _Map, failures: list[str], done: Callable[[], None]) -> None:
    """Query all known nodes for their links."""
    waiting = deque(name for name in found.nodes if name != found.root)
    running = 0

    def query_next() -> None:
        nonlocal running
        while waiting and running < MAX_QUERIES:
            running += 1
            name = waiting.popleft()
            ask_all(client, messages.LIST, (*start, *found.nodes[name]["way"]), answered, failed)
        if not waiting and not running:
            done()

    def answered(address: str, entries: list[dict[str, Any]]) -> None:
        nonlocal running
        for entry in entries:
            if entry["kind"] == "node" and entry["name"] in found.nodes and address in found.nodes:
                found.link(address, entry["name"])
        running -= 1
        query_next()

    def failed(error: RefusedError) -> None:
        nonlocal running
        failures.append(str(error))
        running -= 1
        query_next()

    query_next()


def _show(args: Args, found: _Map) -> None:
    if args.json:
        for line in found.objects():
            print_json(**line)
    elif args.svg:
        _draw(found.dot())
    else:
        print(found.dot() if args.dot else "\n".join(found.tree()) + "\n", end="")


def _draw(text: str) -> None:
    """Run dot of graphviz on `text`; it writes the image to stdout."""
    import subprocess

    sys.stdout.flush()
    try:
        status = subprocess.run(["dot", "-Tsvg"], input=text.encode()).returncode
    except FileNotFoundError:
        raise R2Error("--svg: dot: not found: install graphviz, or use --dot and draw it elsewhere") from None
    if status:
        raise R2Error(f"--svg: dot: failed with status {status}")

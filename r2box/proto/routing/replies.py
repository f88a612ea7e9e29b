"""Replies to LIST (what this node is connected to) and NETWORK (what discovery knows).

Both are paged: a request costs at most one page, and the requester keeps the position.
"""

from __future__ import annotations

from ..wire import messages
from ..wire.address import ANY, CHILD, SERVICE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Protocol

    from ..link.link import Link
    from .discovery import Discovery

    class NetworkView(Protocol):
        """What replies are made from: the connections of a node, and its discovery."""

        @property
        def address(self) -> str: ...
        @property
        def links(self) -> Mapping[str, Link]: ...
        @property
        def clients(self) -> Mapping[str, Link]: ...
        @property
        def services(self) -> Mapping[str, Any]: ...
        @property
        def discovery(self) -> Discovery: ...


def list_page(node: NetworkView, body: messages.Body, is_local: bool) -> bytes:
    """Encode a page of LISTING.  `is_local`: for a client of this node, with private services and details."""
    entries: list[bytes] = []
    size, start, after = 0, body["start"], 0
    for number, (kind, name, detail) in enumerate(_connected(node, bool(body["clients"]), is_local)):
        if number < start:
            continue
        entry = messages.ENTRY.encode(kind=kind, name=name, detail=detail[:256] if is_local else "")
        size += len(entry) + 4
        if size > messages.MAX_LISTING:
            after = number
            break
        entries.append(entry)
    return messages.encode_body(messages.LISTING, body.id, entries=tuple(entries), next=after, address=node.address)


def _connected(node: NetworkView, clients: bool, is_local: bool) -> Iterator[tuple[str, str, str]]:
    """Yield (kind, name, detail) of all that a node is connected to."""
    for address, link in sorted(node.links.items()):
        yield "node", address, f"suspended: {link.reason}" if link.is_suspended else ""
    for name in sorted(node.services):
        if name and (is_local or not node.services[name].private):
            yield "service", SERVICE + name, node.services[name].detail
    if clients:
        for address, link in sorted(node.clients.items(), key=lambda item: int(item[0][len(CHILD) :])):
            yield "client", address, link.peer["software"]


def network_page(node: NetworkView, body: messages.Body, is_local: bool, now: float) -> bytes:
    """Encode a page of NETWORK_IS: all nodes, one node, or the nodes that offer one service.

    Without `is_local`, only what may be advertised.
    """
    name, service = body["name"], body["service"]
    table = node.discovery.table
    if name or service:
        found = [route.path[-1] for route in node.discovery.nearest(service)] if service else [name]
        nodes = iter([table.nodes[address] for address in found if address in table.nodes])
    else:
        nodes = table.nodes_after(body["after"])
    entries: list[bytes] = []
    size, last = 0, ""
    for known in nodes:
        best = known.best if is_local else known.advertised
        if best is None:
            continue
        entry = messages.NETWORK_ENTRY.encode(
            path=best.path,
            cost=best.cost,
            age=int((now - known.since) * 1000),
            ways=len(known.routes),
            services=tuple(name.encode() for name in best.record.services),
        )
        size += len(entry) + 4
        if size > messages.MAX_LISTING:
            break
        entries.append(entry)
        last = known.address
    else:
        last = ""  # the last page
    if service:
        last = ""  # the nearest are enough
    return messages.encode_body(messages.NETWORK_IS, body.id, entries=tuple(entries), after=last, address=node.address)


def describe_known(node: NetworkView, word: str, most: int, network: bool) -> str:
    """For an error: the first `most` names that a node knows, and those (also of the `network`) like `word`."""
    from difflib import get_close_matches

    services = [name for name in sorted(node.services) if name and not node.services[name].private]
    names = [*sorted(node.links), *(SERVICE + name for name in services)]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    table = node.discovery.table
    nodes, offers = (table.nodes, table.offers) if network else (node.links, {})
    near = [name for name in dict.fromkeys((*nodes, *services, *offers)) if _is_near(word, name)]
    here = {*nodes, *services}
    close = [it if it in here else ANY + it for it in get_close_matches(word, near[:MAX_COMPARED], 3)]
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    what = f"it knows {', '.join(names[:most])}{more}" if names else "it knows no other node and no service"
    return what + hint


def describe_services(node: NetworkView, most: int = 10) -> str:
    """For the error of a tunnel to a node without `[self] cmd`: its services."""
    names = [name for name in sorted(node.services) if name and not node.services[name].private]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    what = f"-t {names[0]}; there are {', '.join(names[:most])}{more}" if names else "it offers none"
    return f"has no command of its own ([self] cmd); which service? ({what})"


MAX_COMPARED = 500  # names that are compared in full: 10 ms


def _is_near(word: str, name: str) -> bool:
    """Cheap test before the full comparison."""
    return abs(len(word) - len(name)) < 3 and (word[:1] == name[:1] or word[-1:] == name[-1:])


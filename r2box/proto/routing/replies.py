"""What a node answers when it is asked what it is connected to (LIST), and what it has heard of (NETWORK).

Both are answered a page at a time, so that no question costs more than a page, and the asker keeps the place.
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

    class KnownNetwork(Protocol):
        """What replies are made from: what a node is connected to, and what discovery knows."""

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


def list_page(node: KnownNetwork, body: messages.Body, to_own: bool) -> bytes:
    """Details, such as the command lines of services, are for the node's own clients; so are private services."""
    entries: list[bytes] = []
    size, start, after = 0, body["start"], 0
    for number, (kind, name, detail) in enumerate(_connected(node, bool(body["clients"]), to_own)):
        if number < start:
            continue
        entry = messages.ENTRY.encode(kind=kind, name=name, detail=detail[:256] if to_own else "")
        size += len(entry) + 4
        if size > messages.MAX_LISTING:
            after = number
            break
        entries.append(entry)
    return messages.encode_body(messages.LISTING, body.id, entries=tuple(entries), next=after, address=node.address)


def _connected(node: KnownNetwork, clients: bool, to_own: bool) -> Iterator[tuple[str, str, str]]:
    """What a node is connected to: (kind, name, detail)."""
    for address, link in sorted(node.links.items()):
        yield "node", address, f"suspended: {link.reason}" if link.is_suspended else ""
    for name in sorted(node.services):
        if name and (to_own or not node.services[name].private):
            yield "service", SERVICE + name, node.services[name].detail
    if clients:
        for address, link in sorted(node.clients.items(), key=lambda item: int(item[0][len(CHILD) :])):
            yield "client", address, link.peer["software"]


def network_page(node: KnownNetwork, body: messages.Body, to_own: bool, now: float) -> bytes:
    """All that discovery knows, or one node of it, or who offers one service.

    Other nodes' questions are answered with what other nodes may be told.
    """
    name, service = body["name"], body["service"]
    table = node.discovery.table
    if name or service:
        found = [route.path[-1] for route in node.discovery.nearest(service)] if service else [name]
        nodes = iter([table.nodes[address] for address in found if address in table.nodes])
    else:
        nodes = table.listed(body["after"])
    entries: list[bytes] = []
    size, last = 0, ""
    for known in nodes:
        best = known.best if to_own else known.told
        if best is None:
            continue
        entry = messages.KNOWN.encode(
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
        last = ""  # that was all
    if service:
        last = ""  # the nearest are enough
    return messages.encode_body(messages.NETWORK_IS, body.id, entries=tuple(entries), after=last, address=node.address)


def describe_known(node: KnownNetwork, word: str, most: int, network: bool) -> str:
    """For an error: what a node knows, and what of it, and of the `network`, looks most like `word`."""
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


def which_service(node: KnownNetwork, most: int = 10) -> str:
    """For an error: a tunnel to a node that has no command of its own needs a service."""
    names = [name for name in sorted(node.services) if name and not node.services[name].private]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    what = f"-t {names[0]}; there are {', '.join(names[:most])}{more}" if names else "it offers none"
    return f"has no command of its own ([self] cmd); which service? ({what})"


MAX_COMPARED = 500  # names that are looked at more closely: 10 ms


def _is_near(word: str, name: str) -> bool:
    """A glance, before the comparison that takes longer."""
    return abs(len(word) - len(name)) < 3 and (word[:1] == name[:1] or word[-1:] == name[-1:])


"""What a node has heard of others: for each of them the routes that neighbours offer, and the best of these.

    Route    a path, what it costs, and who is at its end
    Known    a node with its routes, one for each neighbour that offers any
    Table    all of them, and who offers which service

The best route is the cheapest; of equals the shorter, and then the one whose first step comes first in the alphabet, so
that it depends on nothing but what has been heard.  A neighbour is reached over its own link as long as that has a
transport, whatever it costs: who names a neighbour means that link.
"""

from __future__ import annotations

from ..wire.advertisement import MAX_COST, AdvertisedNode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..wire.advertisement import NodeRecord

CUT = 60_000_000  # the cost of a link without a transport, in microseconds: anything else is better


class Route:
    """A way to a node: `path`, the neighbour first; `cost` in microseconds.  `is_relayed`: others may be told of it.

    A tunnel has failed on it not long ago: until `doubted_until` others are tried before it.
    """

    __slots__ = ("_brief", "_full", "cost", "doubted_until", "is_relayed", "path", "record", "size")

    def __init__(
        self, path: tuple[str, ...], cost: int, record: NodeRecord, size: int = 0, is_relayed: bool = True
    ) -> None:
        self.path = path
        self.cost = cost
        self.record = record
        self.size = size
        self.is_relayed = is_relayed
        self.doubted_until = 0.0
        self._full: AdvertisedNode | None = None
        self._brief: AdvertisedNode | None = None

    def entry(self, *, has_record: bool) -> AdvertisedNode:
        """What a neighbour is told of it: the same object for all of them."""
        if has_record:
            if self._full is None:
                self._full = AdvertisedNode(self.path, min(self.cost, MAX_COST), self.record)
            return self._full
        if self._brief is None:
            self._brief = AdvertisedNode(self.path, min(self.cost, MAX_COST))
        return self._brief

    @property
    def rank(self) -> tuple[bool, int, int, str]:
        """The lower, the better."""
        path, cost = self.path, self.cost
        return len(path) > 1 or cost >= CUT, cost, len(path), path[0]

    def is_like(self, other: Route) -> bool:
        """Whether it says nothing that the other does not."""
        mine = self.path, self.cost, self.is_relayed, self.record
        return mine == (other.path, other.cost, other.is_relayed, other.record)

    def renewed(self, more: int, is_relayed: bool) -> Route:
        """The same, at a cost that is so much `more`."""
        route = Route(self.path, self.cost + more, self.record, self.size, is_relayed)
        route.doubted_until = self.doubted_until
        return route

    def __repr__(self) -> str:
        return f"Route({'/'.join(self.path)}, {self.cost})"


class KnownNode:
    """A node of which something has been heard."""

    __slots__ = ("address", "best", "born", "routes", "since", "told")

    def __init__(self, address: str, now: float) -> None:
        self.address = address
        self.routes: dict[str, Route] = {}  # by the neighbour that offers it
        self.best: Route | None = None
        self.told: Route | None = None  # the best of those that others may be told of
        self.since = now  # when its best path became what it is
        self.born = now  # when it was not known before

    def ways(self, now: float) -> list[Route]:
        """All routes, the best first, and last those that are doubted."""
        return sorted(self.routes.values(), key=lambda route: (route.doubted_until > now, route.rank))


class RouteTable:
    """`changed(known, before)` is called when the best route to a node is not what it was, or the one that is told.

    `before` was the best.
    """

    def __init__(self, changed: Callable[[KnownNode, Route | None], None]) -> None:
        self.nodes: dict[str, KnownNode] = {}
        self.offers: dict[str, dict[str, None]] = {}  # service: the nodes that offer it
        self._changed = changed

    def put(self, address: str, via: str, route: Route | None, now: float) -> None:
        """What the neighbour `via` offers to `address`; None: nothing any more."""
        known = self.nodes.get(address)
        if known is None:
            if route is None:
                return
            known = self.nodes[address] = KnownNode(address, now)
        if route is not None:
            known.routes[via] = route
        else:
            known.routes.pop(via, None)
        best, told = known.best, known.told
        chosen = _best_with(route, via, best, known.routes.values())
        if chosen is None or chosen.is_relayed:
            known.told = chosen
        else:
            known.told = _best_of(it for it in known.routes.values() if it.is_relayed)
        if chosen is not best:
            self._choose(known, chosen, now)
        elif known.told is not told:
            self._changed(known, best)

    def _choose(self, known: KnownNode, chosen: Route | None, now: float) -> None:
        before, known.best = known.best, chosen
        if before is None or chosen is None or before.path != chosen.path:
            known.since = now
        old = before.record.services if before else ()
        new = chosen.record.services if chosen else ()
        if old is not new:
            self._index(known.address, old, new)
        if chosen is None:
            del self.nodes[known.address]
        self._changed(known, before)

    def _index(self, address: str, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        before, after = set(old), set(new)
        for name in old:
            if name not in after:
                self.offers[name].pop(address, None)
                if not self.offers[name]:
                    del self.offers[name]
        for name in new:  # in their order, which sets do not keep
            if name not in before:
                self.offers.setdefault(name, {})[address] = None

    def routes_to(self, address: str, now: float) -> list[Route]:
        """The routes to a node, in the order in which they should be tried."""
        known = self.nodes.get(address)
        return known.ways(now) if known else []

    def nearest(self, service: str, now: float) -> list[Route]:
        """One route to each node that offers `service`, the nearest first, and last those that are doubted."""
        found = []
        for address in self.offers.get(service, ()):
            known = self.nodes[address]
            best = known.best
            if best is not None:
                found.append(best if best.doubted_until <= now else known.ways(now)[0])
        return sorted(found, key=lambda route: (route.doubted_until > now, route.rank[1:]))

    def suspect(self, route: Route, until: float) -> None:
        """A tunnel has failed on `route`, which may be another object by now."""
        known = self.nodes.get(route.path[-1])
        present = known.routes.get(route.path[0]) if known else None
        if present is not None and present.path == route.path:
            present.doubted_until = until

    def listed(self, after: str) -> Iterator[KnownNode]:
        """All nodes behind `after` in the order of their names."""
        return (self.nodes[address] for address in sorted(address for address in self.nodes if address > after))


def _best_of(routes: Iterable[Route]) -> Route | None:
    return min(routes, key=lambda it: it.rank, default=None)


def _best_with(route: Route | None, via: str, best: Route | None, routes: Iterable[Route]) -> Route | None:
    """The best of `routes`, of which that by `via` is new, when it was `best`."""
    if route is None or best is None or best.path[0] == via:
        return _best_of(routes)
    return best if best.rank <= route.rank else route  # the first, mostly

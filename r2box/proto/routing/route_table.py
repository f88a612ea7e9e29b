"""Route table: for each known node the routes that neighbours offer, and the best one.

    Route        a path, its cost, and the record of the node at its end
    Destination  a node with its routes, one for each neighbour that offers any
    RouteTable   all destinations, and the nodes that offer each service

The best route has the least cost, then the shortest path, then the first step that is first in the alphabet; so the
choice depends only on the routes.  A neighbour is always reached over its direct link while that is not suspended,
whatever the cost.
"""

from __future__ import annotations

from ..wire.advertisement import MAX_COST, AdvertisedNode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..wire.advertisement import NodeRecord

CUT = 60_000_000  # microseconds added to the cost of a suspended link: any other route is better


class Route:
    """A route to a node: `path`, the neighbour first; `cost` in microseconds.  `is_relayed`: it may be advertised.

    Until `suspected_until`, after a tunnel failed on it, it is tried last.
    """

    __slots__ = ("_brief", "_full", "cost", "suspected_until", "is_relayed", "path", "record", "size")

    def __init__(
        self, path: tuple[str, ...], cost: int, record: NodeRecord, size: int = 0, is_relayed: bool = True
    ) -> None:
        self.path = path
        self.cost = cost
        self.record = record
        self.size = size
        self.is_relayed = is_relayed
        self.suspected_until = 0.0
        self._full: AdvertisedNode | None = None
        self._brief: AdvertisedNode | None = None

    def entry(self, *, has_record: bool) -> AdvertisedNode:
        """Return its advertisement, an object that all neighbours share."""
        if has_record:
            if self._full is None:
                self._full = AdvertisedNode(self.path, min(self.cost, MAX_COST), self.record)
            return self._full
        if self._brief is None:
            self._brief = AdvertisedNode(self.path, min(self.cost, MAX_COST))
        return self._brief

    @property
    def rank(self) -> tuple[bool, int, int, str]:
        """Sort key: the lowest is the best."""
        path, cost = self.path, self.cost
        return len(path) > 1 or cost >= CUT, cost, len(path), path[0]

    def is_equal(self, other: Route) -> bool:
        """Whether both have the same path, cost, record and flag."""
        key = self.path, self.cost, self.is_relayed, self.record
        return key == (other.path, other.cost, other.is_relayed, other.record)

    def updated(self, more: int, is_relayed: bool) -> Route:
        """Return a copy whose cost is `more` higher."""
        route = Route(self.path, self.cost + more, self.record, self.size, is_relayed)
        route.suspected_until = self.suspected_until
        return route

    def __repr__(self) -> str:
        return f"Route({'/'.join(self.path)}, {self.cost})"


class Destination:
    """A known node and the routes to it."""

    __slots__ = ("address", "best", "born", "routes", "since", "advertised")

    def __init__(self, address: str, now: float) -> None:
        self.address = address
        self.routes: dict[str, Route] = {}  # by the neighbour that offers it
        self.best: Route | None = None
        self.advertised: Route | None = None  # the best of those with `is_relayed`
        self.since = now  # when its best path last changed
        self.born = now  # when it became known

    def ranked(self, now: float) -> list[Route]:
        """All routes, best first, suspected ones last."""
        return sorted(self.routes.values(), key=lambda route: (route.suspected_until > now, route.rank))


class RouteTable:
    """All destinations.

    `changed(known, before)` is called when the best route to a node changes, or the one to advertise; `before` was the
    best.
    """

    def __init__(self, changed: Callable[[Destination, Route | None], None]) -> None:
        self.nodes: dict[str, Destination] = {}
        self.offers: dict[str, dict[str, None]] = {}  # service: the nodes that offer it
        self._changed = changed

    def put(self, address: str, via: str, route: Route | None, now: float) -> None:
        """Set the route to `address` by the neighbour `via`; None removes it."""
        known = self.nodes.get(address)
        if known is None:
            if route is None:
                return
            known = self.nodes[address] = Destination(address, now)
        if route is not None:
            known.routes[via] = route
        else:
            known.routes.pop(via, None)
        best, advertised = known.best, known.advertised
        chosen = _best_with(route, via, best, known.routes.values())
        if chosen is None or chosen.is_relayed:
            known.advertised = chosen
        else:
            known.advertised = _best_of(it for it in known.routes.values() if it.is_relayed)
        if chosen is not best:
            self._choose(known, chosen, now)
        elif known.advertised is not advertised:
            self._changed(known, best)

    def _choose(self, known: Destination, chosen: Route | None, now: float) -> None:
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
        for name in new:  # keeps their order
            if name not in before:
                self.offers.setdefault(name, {})[address] = None

    def routes_to(self, address: str, now: float) -> list[Route]:
        """Return the routes to a node, best first."""
        known = self.nodes.get(address)
        return known.ranked(now) if known else []

    def nearest(self, service: str, now: float) -> list[Route]:
        """Return one route to each node that offers `service`, nearest first, suspected ones last."""
        found = []
        for address in self.offers.get(service, ()):
            known = self.nodes[address]
            best = known.best
            if best is not None:
                found.append(best if best.suspected_until <= now else known.ranked(now)[0])
        return sorted(found, key=lambda route: (route.suspected_until > now, route.rank[1:]))

    def suspect(self, route: Route, until: float) -> None:
        """Note that a tunnel failed on `route`, of which the table may hold a newer object."""
        known = self.nodes.get(route.path[-1])
        present = known.routes.get(route.path[0]) if known else None
        if present is not None and present.path == route.path:
            present.suspected_until = until

    def nodes_after(self, after: str) -> Iterator[Destination]:
        """Iterate over the nodes with names greater than `after`, in order."""
        return (self.nodes[address] for address in sorted(address for address in self.nodes if address > after))


def _best_of(routes: Iterable[Route]) -> Route | None:
    return min(routes, key=lambda it: it.rank, default=None)


def _best_with(route: Route | None, via: str, best: Route | None, routes: Iterable[Route]) -> Route | None:
    """The best of `routes`, after that by `via` was replaced by `route`; `best` was the best before."""
    if route is None or best is None or best.path[0] == via:
        return _best_of(routes)
    return best if best.rank <= route.rank else route

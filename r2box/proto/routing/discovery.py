"""Discovery: a path-vector routing protocol, as BGP's (RFC 4271).

Every node advertises to its neighbours the nodes that it reaches: the path, its cost, and the services at its end.  A
neighbour puts the advertiser's address in front of the path and advertises the route in turn.  A path through the
receiver is neither sent nor accepted, so there are no loops and no counting to infinity.  Links are reliable, so only
changes are sent.

    advertisement  the encoding
    route_table    routes, and the choice of the best
    adjacency      routes sent to and learned from one neighbour, and their limits
    flap_damping   delays for unstable routes

Routes are not authenticated: a node that lies can attract tunnels for the names that it claims, as any relay can.  It
cannot withdraw the routes of others, nor exceed the limits.  `Policy.accept` restricts the names that a neighbour may
advertise.

A suspended link costs a minute more, so that any other route is preferred; without one, tunnels wait.  After `GRACE`
seconds the routes through it are removed.

The rate of all advertisements together is limited: with n neighbours that are sent n nodes each, work would grow as n
squared.  Neighbours are served in turn; one that has waited is sent more in one frame.

There is no clock: `host.alarm(when)` requests a call of `tick`.
"""

from __future__ import annotations

import heapq

from ..link.policy import EVERYTHING, Policy
from ..wire.advertisement import AGAIN, END, IDENTITY, MAX_ADVERTISED_SERVICES, MAX_PATH, AdvertisedNode, decode_reach
from ..wire.frames import REACH
from .adjacency import IGNORE_TIME, MAX_LEARNED, RESTATE, Adjacency, local_record
from .flap_damping import LAST_WAIT, FlapDamping
from .route_table import Destination, Route, RouteTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..link.handshake import LocalPeer
    from ..link.link import Link
    from ..wire.advertisement import Reach
    from ..wire.fields import Buffer

    class DiscoveryHost(Protocol):
        """What discovery needs of its node."""

        def now(self) -> float:
            """The time in seconds, on the clock of the links."""

        def alarm(self, when: float) -> None:
            """Request a call of `tick`; replaces the request before."""

        def note(self, text: str) -> None:
            """Log a line."""

        def news(self, what: str, name: str, path: tuple[str, ...], cost: int) -> None:
            """Report one of `EVENTS` of `messages`."""


GRACE = 10.0  # seconds for which the routes of a suspended link are kept
SETTLED = 1.0  # seconds for which a path must be stable to be advertised although it is damped
SUSPECT_TIME = 60.0  # seconds for which a route that failed is tried last
NEAR = 8  # nearest nodes of a service for which alternative routes are tried
CONFLICT_TIME = 120.0  # seconds for which records from before a restart may circulate, over a link that has failed
MAX_CONFLICTS = 256  # names with a reported conflict
FRAME = 1 / 400  # seconds that a frame is charged: all neighbours together are sent 400 frames a second
ENTRY = 1 / 60_000  # seconds that an entry is charged: at some 2 us each, a fifth of a processor at most
AT_ONCE = 0.5  # seconds of these charges that may be spent at once: withdrawals must not wait
BATCH = 0.05  # seconds by which frames beyond that are delayed, to be sent together
NEVER = float("inf")


class Discovery:
    """Discovery of the node `local_peer`.  `policy` may be changed before there are links."""

    def __init__(self, local_peer: LocalPeer, host: DiscoveryHost) -> None:
        self.policy = EVERYTHING
        self.table = RouteTable(self._changed)
        self._local_peer = local_peer
        self._host = host
        self._neighbours: dict[str, Adjacency] = {}
        self._services: tuple[str, ...] = ()
        self._local_routes: dict[tuple[str, ...] | None, Route] = {}  # to this node itself, by `Policy.advertise`
        self._damping = FlapDamping()
        self._held: dict[str, float] = {}  # damped nodes, until when
        self._checks: list[tuple[float, str]] = []  # a heap of times at which to check nodes again
        self._conflicts: dict[str, float] = {}  # names with two identities, and since when, oldest first
        self._noted: dict[str, None] = {}  # names whose conflict was logged
        self._quiet_until = 0.0  # no other conflict is logged before this
        self._now = 0.0
        self._alarm = NEVER
        self._sent_until = 0.0  # when the charges for what was sent have expired
        self._updates: dict[str, bool] = {}  # nodes that have changed since `_publish`, and whether they were withdrawn
        self._shared: dict[str, Route] = {}  # the route to each node that neighbours may be sent, as of `_publish`

    # -- neighbours ----------------------------------------------------------------------------------------------

    def add(self, link: Link, now: float) -> Adjacency:
        """Begin with `link`, which is up and has a measured round trip."""
        self._now = now
        policy = (link.policy or EVERYTHING).within(self.policy)
        neighbour = self._neighbours[link.address] = Adjacency(link, policy, self._shared, now)
        neighbour.mark_dirty("")
        self._wake(now)
        return neighbour

    def _find(self, link: Link) -> Adjacency | None:
        neighbour = self._neighbours.get(link.address)
        return neighbour if neighbour is not None and neighbour.link is link else None

    def measured(self, link: Link, now: float) -> None:
        """The round trip of a link was measured, which happens at least four times a minute."""
        self._now = now
        neighbour = self._find(link)
        if neighbour is None:
            if link.address not in self._neighbours:
                self.add(link, now)
            return
        neighbour.update_cost(self.table, now)
        if neighbour.is_restate_due(now):
            neighbour.restate(self.table.nodes, now)
        if neighbour.has_updates:
            self._wake(max(now, neighbour.next_at))

    def suspended(self, link: Link, now: float) -> None:
        """The link is suspended."""
        self._now = now
        neighbour = self._find(link)
        if neighbour is not None:
            neighbour.update_cost(self.table, now)
            neighbour.next_at = now + GRACE  # when its routes expire
            self._wake(neighbour.next_at)

    def resumed(self, link: Link, now: float) -> None:
        """The link has resumed, perhaps with another policy."""
        self._now = now
        neighbour = self._find(link)
        if neighbour is None:
            return
        policy = (link.policy or EVERYTHING).within(self.policy)
        neighbour.next_at = now
        neighbour.update_cost(self.table, now)
        if neighbour.is_expired or policy != neighbour.policy:
            if policy != neighbour.policy:
                neighbour.apply_policy(policy, self.table, now)
            neighbour.is_expired = False
            neighbour.requests_restate = True
            neighbour.restate(self.table.nodes if neighbour.has_advertised else (), now)
        self._wake(now)

    def remove(self, link: Link, now: float) -> None:
        """The link is down."""
        self._now = now
        neighbour = self._find(link)
        if neighbour is not None:
            del self._neighbours[link.address]
            neighbour.forget(neighbour.learned, self.table, now)

    def may_query(self, link: Link) -> bool:
        """Whether the rate limit of `link` admits one more NETWORK request."""
        neighbour = self._find(link)
        return neighbour is not None and neighbour.queries.take(1.0, link.now)

    def offers(self, names: tuple[str, ...]) -> None:
        """Set the services of this node that may be advertised."""
        if names == self._services:
            return
        self._services = names
        self._local_routes.clear()
        for neighbour in self._neighbours.values():
            neighbour.mark_dirty("")
        self._wake(self._now)

    # -- queries -------------------------------------------------------------------------------------------------

    def routes_to(self, address: str) -> list[Route]:
        """Return the routes to a node, best first."""
        return self.table.routes_to(address, self._host.now())

    def nearest(self, service: str) -> list[Route]:
        """Return one route to each node that offers `service`, best first."""
        return self.table.nearest(service, self._host.now())

    def routes_to_any(self, service: str) -> list[Route]:
        """Return the same, followed by the other routes to the nearest of these nodes."""
        routes = self.nearest(service)
        return routes + [other for first in routes[:NEAR] for other in self.routes_to(first.path[-1])[1:]]

    def suspect(self, route: Route, now: float) -> None:
        """A tunnel by `route` found no node: try it last for SUSPECT_TIME, or until that neighbour has another path."""
        self._now = now
        self.table.suspect(route, now + SUSPECT_TIME)

    # -- routes in -----------------------------------------------------------------------------------------------

    def receive(self, link: Link, payload: Buffer, now: float) -> None:
        """Process a REACH frame.  WireError if it is malformed."""
        self._now = now
        neighbour = self._find(link)
        if neighbour is None:
            if link.address in self._neighbours:
                return  # a second link to the same neighbour
            neighbour = self.add(link, now)
        if not neighbour.policy.discover or now < neighbour.ignored_until:
            return  # undecoded: decoding is most of the work
        reach = decode_reach(payload)
        if not neighbour.accepts(reach, now):
            self._ignore(neighbour)
            return
        is_new = not neighbour.has_advertised
        if not neighbour.begin(reach):
            neighbour.requests_restate = True
        if is_new:
            neighbour.restate(self.table.nodes, now)
        self._take(neighbour, reach)
        if reach.flags & END and neighbour.unconfirmed is not None:
            neighbour.forget(neighbour.unconfirmed, self.table, now)
            neighbour.unconfirmed = None
        neighbour.restate_requested = neighbour.restate_requested or bool(reach.flags & AGAIN and not is_new)
        if neighbour.is_restate_due(now):
            neighbour.restate(self.table.nodes, now)
        if neighbour.has_updates or neighbour.restate_requested:
            self._wake(max(now, neighbour.next_at))

    def _take(self, neighbour: Adjacency, reach: Reach) -> None:
        local_address, table, now = self._local_peer.address, self.table, self._now
        for entry in reach.entries:
            address, route = neighbour.interpret(entry, local_address)
            old = neighbour.learned.get(address)
            if route is None:
                if entry.cost is not None:
                    self._on_rejected(neighbour, address)
                if old is None:
                    continue
            elif old is not None and route.is_equal(old):
                continue
            neighbour.store(address, route)
            table.put(address, neighbour.address, route, now)
            if route is not None:
                self._check_identity(address, route)

    def _on_rejected(self, neighbour: Adjacency, address: str) -> None:
        """A route was rejected: log the cause once, if it is a limit or a conflict."""
        if address == self._local_peer.address:
            why = f"advertises another node of the name {address}"
        elif len(neighbour.learned) >= MAX_LEARNED:
            why = f"advertises more than {MAX_LEARNED} nodes: the rest are ignored"
        else:
            return
        self._warn(neighbour, why)

    def _warn(self, neighbour: Adjacency, why: str) -> None:
        if why not in neighbour.faults:
            neighbour.faults.add(why)
            self._host.note(f"{self._local_peer.address}: {neighbour.address} {why}")

    def _ignore(self, neighbour: Adjacency) -> None:
        """The neighbour exceeds its rate: remove its routes and ignore it."""
        self._warn(neighbour, f"advertises too many changes: its advertisements are ignored for {IGNORE_TIME:.0f} s")
        neighbour.forget([it for it in neighbour.learned if it != neighbour.address], self.table, self._now)
        neighbour.unconfirmed = None
        self._wake(neighbour.ignored_until)

    def _check_identity(self, address: str, route: Route) -> None:
        """Detect two nodes of one name.  A restart looks like that, too, until the old record is replaced."""
        routes = self.table.nodes[address].routes.values()
        if all(other.record.identity == route.record.identity for other in routes):
            self._conflicts.pop(address, None)
        elif address not in self._conflicts:
            self._conflicts[address] = self._now
            self._wake(self._now + CONFLICT_TIME)

    def _report_conflicts(self) -> None:
        """Log conflicts that have lasted `CONFLICT_TIME`: once for each name, and at most one in that time."""
        now = self._now
        while self._conflicts:
            address, since = next(iter(self._conflicts.items()))
            if now < since + CONFLICT_TIME:
                self._wake(since + CONFLICT_TIME)
                return
            del self._conflicts[address]
            paths: dict[bytes, str] = {}
            for other in self.table.nodes[address].routes.values():
                paths.setdefault(other.record.identity, "/".join(other.path))
            if len(paths) > 1 and address not in self._noted and now >= self._quiet_until:
                self._quiet_until = now + CONFLICT_TIME
                self._noted[address] = None
                if len(self._noted) > MAX_CONFLICTS:
                    del self._noted[next(iter(self._noted))]
                both = ", ".join(list(paths.values())[:2])
                self._host.note(f"{self._local_peer.address}: two nodes have the address {address}: {both}")

    # -- routes out -----------------------------------------------------------------------------------------------

    def _changed(self, known: Destination, before: Route | None) -> None:
        """The best route to a node, or the one to advertise, has changed."""
        address, best, now = known.address, known.best, self._now
        self._report_change(known, before)
        is_better = best is not None and (before is None or best.rank < before.rank)
        wait = self._damping.wait(address, now, is_better)
        if best is None:
            self._held.pop(address, None)
            self._conflicts.pop(address, None)
        elif wait:
            if address not in self._held:
                self._held[address] = now + wait
                self._check_at(address, now + wait)
            if known.since == now:
                self._check_at(address, now + SETTLED)
        self._updates[address] = best is None
        self._wake(now)

    def _publish(self) -> None:
        """Queue what has changed since the last call for all neighbours."""
        if not self._updates:
            return
        lost = [address for address, is_withdrawn in self._updates.items() if is_withdrawn]
        withdrawn = {address: AdvertisedNode((address,), None) for address in lost}
        changed = dict.fromkeys(address for address in self._updates if address not in withdrawn)
        before = {address: self._shared.pop(address, None) for address in self._updates}
        for address in changed:
            route = self.table.nodes[address].advertised
            if route is not None:
                self._shared[address] = route
        for neighbour in self._neighbours.values():
            neighbour.has_changed(before, changed, withdrawn)
        self._updates = {}

    def _check_at(self, address: str, when: float) -> None:
        heapq.heappush(self._checks, (when, address))
        self._wake(when)

    def _report_change(self, known: Destination, before: Route | None) -> None:
        address, best = known.address, known.best
        advertised = best or before
        assert advertised is not None
        old = before.record.services if before else ()
        new = best.record.services if best else ()
        if old is not new and old != new:
            for name in set(old).difference(new):
                self._host.news("service-down", f"{address}/{name}", advertised.path, advertised.cost)
        if best is None:
            self._host.news("node-down", address, advertised.path, advertised.cost)
        elif before is None:
            self._host.news("node-up", address, best.path, best.cost)
        elif before.path != best.path:
            self._host.news("path", address, best.path, best.cost)
        if old is not new and old != new:
            for name in set(new).difference(old):
                self._host.news("service-up", f"{address}/{name}", advertised.path, advertised.cost)

    def _route_for(self, neighbour: Adjacency, address: str, advertised: Route | None) -> Route | None:
        """Return the route to `address` for `neighbour`, which was sent `advertised` last."""
        if not address:
            return self._local_route(neighbour.policy)
        known = self.table.nodes.get(address)
        route = known.advertised if known else None
        if known is None or route is None or not neighbour.policy.transit:
            return None
        if address in self._held:
            current = known.routes.get(advertised.path[0]) if advertised is not None else None
            if current is None or current.is_relayed:
                # Damped: the route that was sent last while it holds, until there is a stable one.
                if advertised is not None and current is not None and current.path == advertised.path:
                    return advertised
                if self._now < known.since + SETTLED or (advertised is None and self._now < known.born + LAST_WAIT):
                    return advertised
        if neighbour.address in route.path or len(route.path) >= MAX_PATH:
            return None
        return route

    def _local_route(self, policy: Policy) -> Route:
        route = self._local_routes.get(policy.advertise)
        if route is None:
            identity = self._local_peer.instance[:IDENTITY]
            record = local_record(identity, self._services, policy.advertise, MAX_ADVERTISED_SERVICES)
            route = self._local_routes[policy.advertise] = Route((), 0, record)
        return route

    # -- time ----------------------------------------------------------------------------------------------------

    def _wake(self, when: float) -> None:
        if when < self._alarm:
            self._alarm = when
            self._host.alarm(when)

    def tick(self, now: float) -> None:
        """Process what is due."""
        self._now = now
        self._alarm = NEVER
        while self._checks and self._checks[0][0] <= now:
            _, address = heapq.heappop(self._checks)
            if self._held.get(address, NEVER) <= now:
                del self._held[address]
            for neighbour in self._neighbours.values():
                if neighbour.receives_routes and address in self.table.nodes:
                    neighbour.mark_dirty(address)
        self._report_conflicts()
        if self._sent_until <= now + AT_ONCE:
            self._publish()
        for address, neighbour in list(self._neighbours.items()):
            if self._sent_until > now + AT_ONCE:
                self._wake(self._sent_until - AT_ONCE + BATCH)
                break
            if self._serve(neighbour):  # it moves to the end of the queue
                self._neighbours[address] = self._neighbours.pop(address)
        if self._checks:
            self._wake(self._checks[0][0])

    def _serve(self, neighbour: Adjacency) -> bool:
        """Send `neighbour` what is due; whether a frame was sent."""
        now = self._now
        if neighbour.link.is_suspended:
            if not neighbour.is_expired and now >= neighbour.next_at:
                neighbour.is_expired = True
                neighbour.forget(neighbour.learned, self.table, now)
            elif not neighbour.is_expired:
                self._wake(neighbour.next_at)
            return False
        if neighbour.ignored_until:
            if now < neighbour.ignored_until:
                self._wake(neighbour.ignored_until)
            else:
                neighbour.ignored_until = 0.0
                neighbour.requests_restate = True
        if neighbour.restate_requested:
            if neighbour.is_restate_due(now):
                neighbour.restate(self.table.nodes, now)
            else:
                self._wake(neighbour.restated_at + RESTATE)
        if not neighbour.has_updates:
            return False
        payload = neighbour.frame(lambda address, advertised: self._route_for(neighbour, address, advertised), now)
        if payload is not None:
            neighbour.link.control(REACH, 0, payload)
            self._sent_until = max(self._sent_until, now) + FRAME + ENTRY * neighbour.count
        if neighbour.has_updates:
            self._wake(now if neighbour.withdrawn else neighbour.next_at)
        return payload is not None

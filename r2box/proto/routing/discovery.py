"""The network knows itself: what neighbours tell of it is remembered, and told on.

Every node tells its neighbours to which nodes it has a way, by which path, at what cost, and which services they offer;
they put its address in front and tell that on.  A path that leads through the listener is not told to it, and would
not be taken: so there are no circles and nothing counts to infinity (a path vector, as BGP's, RFC 4271).  Links lose
nothing, so only changes are told.

    advert      the bytes
    table       routes, and which is best
    neighbour   what one neighbour was told and has said, within bounds
    damper      what never comes to rest

What a neighbour says is its word: a node that lies can draw tunnels for names behind it to itself, as everybody who
carries them can do what he likes with them.  It cannot take away what others say, nor make us spend more than bounds
allow.  Names that only some neighbours should speak for are for `Policy.accept`.

A link whose transport was cut costs a minute more: any other way is better, but where there is none, tunnels wait.
After `GRACE` seconds, what lies behind it is given up.

What all neighbours together are told in a second is bounded too: of n neighbours each is to be told of the n others, so
the work would grow with n squared.  They take turns; who has waited for its turn is told more in one frame.

Nothing here has a clock.  `host.alarm(when)` asks for a call of `tick`.
"""

from __future__ import annotations

import heapq

from ..link.policy import EVERYTHING, Policy
from ..wire.advertisement import AGAIN, END, IDENTITY, MAX_PATH, MAX_TOLD, AdvertisedNode, decode_reach
from ..wire.frames import REACH
from .adjacency import MAX_HEARD, RESTATE, Adjacency, own_record
from .flap_damping import LAST_WAIT, FlapDamping
from .route_table import KnownNode, Route, RouteTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..link.handshake import Me
    from ..link.link import Link
    from ..wire.advertisement import Reach
    from ..wire.fields import Buffer

    class DiscoveryHost(Protocol):
        """Who is told."""

        def now(self) -> float:
            """The time, on the clock of the links."""

        def alarm(self, when: float) -> None:
            """`tick` is to be called then; this takes the place of what was asked before."""

        def note(self, text: str) -> None:
            """A line for whoever looks after this node."""

        def news(self, what: str, name: str, path: tuple[str, ...], cost: int) -> None:
            """Something has come or gone: see `EVENTS` of `body`."""


GRACE = 10.0  # seconds
SETTLED = 1.0  # seconds for which a path has not changed: then even what is restless is told by it, if it must be
DOUBTED = 60.0  # seconds for which other ways are tried before one that led to nobody
NEAR = 8  # nodes that offer a service to which there may be more ways than the best
TWICE = 120.0  # seconds: as long as a node that has begun anew may still be told of as it was, over a link that is dead
MAX_TWICE = 256  # names that are remembered to be two nodes'
FRAME = 1 / 400  # seconds that a frame counts for: the neighbours together are sent 400 a second,
ENTRY = 1 / 60_000  # and what each entry adds to that, at some 2 us each: a fifth of a processor at worst
AT_ONCE = 0.5  # seconds of these that may be sent at once, after a silence: what is gone is to be told soon
BATCH = 0.05  # seconds for which frames are held back beyond that, to be sent together
NEVER = float("inf")


class Discovery:
    """Of the node `me`.  `policy` may be changed before there are links."""

    def __init__(self, me: Me, host: DiscoveryHost) -> None:
        self.policy = EVERYTHING
        self.table = RouteTable(self._changed)
        self._me = me
        self._host = host
        self._neighbours: dict[str, Adjacency] = {}
        self._services: tuple[str, ...] = ()
        self._own: dict[tuple[str, ...] | None, Route] = {}  # this node itself, by what is told of its services
        self._damping = FlapDamping()
        self._held: dict[str, float] = {}  # nodes whose news is held back, until when
        self._holds: list[tuple[float, str]] = []  # when to look at them again, as a heap
        self._twice: dict[str, float] = {}  # nodes of which two are said to be, and since when, the oldest first
        self._noted: dict[str, None] = {}  # of which that has been noted
        self._quiet_until = 0.0  # before that, no other is
        self._now = 0.0
        self._alarm = NEVER
        self._sent_until = 0.0  # what was sent is paid for then
        self._news: dict[str, bool] = {}  # nodes that have changed since `_spread`, and whether they are gone
        self._shown: dict[str, Route] = {}  # what neighbours may be told of each node, as of `_spread`

    # -- neighbours ----------------------------------------------------------------------------------------------

    def add(self, link: Link, now: float) -> Adjacency:
        """`link` is up, and its round trip is known."""
        self._now = now
        policy = (link.policy or EVERYTHING).within(self.policy)
        neighbour = self._neighbours[link.address] = Adjacency(link, policy, self._shown, now)
        neighbour.look_again("")
        self._wake(now)
        return neighbour

    def _find(self, link: Link) -> Adjacency | None:
        neighbour = self._neighbours.get(link.address)
        return neighbour if neighbour is not None and neighbour.link is link else None

    def measured(self, link: Link, now: float) -> None:
        """The round trip of a link was measured anew, as happens four times a minute at least."""
        self._now = now
        neighbour = self._find(link)
        if neighbour is None:
            if link.address not in self._neighbours:
                self.add(link, now)
            return
        neighbour.weigh(self.table, now)
        if neighbour.is_due_again(now):
            neighbour.tell_all(self.table.nodes, now)
        if neighbour.has_something:
            self._wake(max(now, neighbour.next_at))

    def suspended(self, link: Link, now: float) -> None:
        """It was cut, and may come back."""
        self._now = now
        neighbour = self._find(link)
        if neighbour is not None:
            neighbour.weigh(self.table, now)
            neighbour.next_at = now + GRACE  # when it is to be given up
            self._wake(neighbour.next_at)

    def resumed(self, link: Link, now: float) -> None:
        """It has a transport again, perhaps with another policy."""
        self._now = now
        neighbour = self._find(link)
        if neighbour is None:
            return
        policy = (link.policy or EVERYTHING).within(self.policy)
        neighbour.next_at = now
        neighbour.weigh(self.table, now)
        if neighbour.is_gone or policy != neighbour.policy:
            if policy != neighbour.policy:
                neighbour.obey(policy, self.table, now)
            neighbour.is_gone = False
            neighbour.is_asking = True
            neighbour.tell_all(self.table.nodes if neighbour.is_heard else (), now)
        self._wake(now)

    def remove(self, link: Link, now: float) -> None:
        """It has ended."""
        self._now = now
        neighbour = self._find(link)
        if neighbour is not None:
            del self._neighbours[link.address]
            neighbour.forget(neighbour.heard, self.table, now)

    def may_ask(self, link: Link) -> bool:
        """Whether one question more about the network, that came by `link`, is answered."""
        neighbour = self._find(link)
        return neighbour is not None and neighbour.questions.take(1.0, link.now)

    def offers(self, names: tuple[str, ...]) -> None:
        """The services of this node that may be told of are `names`."""
        if names == self._services:
            return
        self._services = names
        self._own.clear()
        for neighbour in self._neighbours.values():
            neighbour.look_again("")
        self._wake(self._now)

    # -- using ---------------------------------------------------------------------------------------------------

    def routes_to(self, address: str) -> list[Route]:
        """The routes to a node, in the order in which they should be tried."""
        return self.table.routes_to(address, self._host.now())

    def nearest(self, service: str) -> list[Route]:
        """One route to each node that offers `service`, in the order in which they should be tried."""
        return self.table.nearest(service, self._host.now())

    def routes_to_any(self, service: str) -> list[Route]:
        """The same, and behind them what else leads to the nearest of these nodes."""
        routes = self.nearest(service)
        return routes + [other for first in routes[:NEAR] for other in self.routes_to(first.path[-1])[1:]]

    def suspect(self, route: Route, now: float) -> None:
        """A tunnel that took `route` has found nobody: others come first for a while, unless that neighbour soon has
        another path."""
        self._now = now
        self.table.suspect(route, now + DOUBTED)

    # -- listening -----------------------------------------------------------------------------------------------

    def heard(self, link: Link, payload: Buffer, now: float) -> None:
        """A REACH frame.  WireError if it is none."""
        self._now = now
        neighbour = self._find(link)
        if neighbour is None:
            if link.address in self._neighbours:
                return  # a second link to the same neighbour
            neighbour = self.add(link, now)
        if not neighbour.policy.discover or now < neighbour.deaf_until:
            return  # not even decoded: that would be most of the work
        reach = decode_reach(payload)
        if not neighbour.listens(reach, now):
            self._turn_away(neighbour)
            return
        is_new = not neighbour.is_heard
        if not neighbour.begin(reach):
            neighbour.is_asking = True
        if is_new:
            neighbour.tell_all(self.table.nodes, now)
        self._take(neighbour, reach)
        if reach.flags & END and neighbour.stale is not None:
            neighbour.forget(neighbour.stale, self.table, now)
            neighbour.stale = None
        neighbour.is_asked = neighbour.is_asked or bool(reach.flags & AGAIN and not is_new)
        if neighbour.is_due_again(now):
            neighbour.tell_all(self.table.nodes, now)
        if neighbour.has_something or neighbour.is_asked:
            self._wake(max(now, neighbour.next_at))

    def _take(self, neighbour: Adjacency, reach: Reach) -> None:
        me, table, now = self._me.address, self.table, self._now
        for entry in reach.entries:
            address, route = neighbour.hear(entry, me)
            old = neighbour.heard.get(address)
            if route is None:
                if entry.cost is not None:
                    self._refused(neighbour, address)
                if old is None:
                    continue
            elif old is not None and route.is_like(old):
                continue
            neighbour.keep(address, route)
            table.put(address, neighbour.address, route, now)
            if route is not None:
                self._compare(address, route)

    def _refused(self, neighbour: Adjacency, address: str) -> None:
        """Something that it said is not believed; where that means something, say so once."""
        if address == self._me.address:
            why = f"says that it reaches another node of the name {address}"
        elif len(neighbour.heard) >= MAX_HEARD:
            why = f"tells of more than {MAX_HEARD} nodes: the rest is ignored"
        else:
            return
        self._complain(neighbour, why)

    def _complain(self, neighbour: Adjacency, why: str) -> None:
        if why not in neighbour.faults:
            neighbour.faults.add(why)
            self._host.note(f"{self._me.address}: {neighbour.address} {why}")

    def _turn_away(self, neighbour: Adjacency) -> None:
        """It says more than it may."""
        self._complain(neighbour, "says more of the network than can be true: it is not listened to for a while")
        neighbour.forget([it for it in neighbour.heard if it != neighbour.address], self.table, self._now)
        neighbour.stale = None
        self._wake(neighbour.deaf_until)

    def _compare(self, address: str, route: Route) -> None:
        """Are there two nodes of the same name?  For a moment that is so when one is started anew."""
        routes = self.table.nodes[address].routes.values()
        if all(other.record.identity == route.record.identity for other in routes):
            self._twice.pop(address, None)
        elif address not in self._twice:
            self._twice[address] = self._now
            self._wake(self._now + TWICE)

    def _decide(self) -> None:
        """About doubts that are old enough: it is not said twice of one node, nor more often than once in TWICE."""
        now = self._now
        while self._twice:
            address, since = next(iter(self._twice.items()))
            if now < since + TWICE:
                self._wake(since + TWICE)
                return
            del self._twice[address]
            ways: dict[bytes, str] = {}
            for other in self.table.nodes[address].routes.values():
                ways.setdefault(other.record.identity, "/".join(other.path))
            if len(ways) > 1 and address not in self._noted and now >= self._quiet_until:
                self._quiet_until = now + TWICE
                self._noted[address] = None
                if len(self._noted) > MAX_TWICE:
                    del self._noted[next(iter(self._noted))]
                both = ", ".join(list(ways.values())[:2])
                self._host.note(f"{self._me.address}: two nodes say that they are {address}: {both}")

    # -- telling -------------------------------------------------------------------------------------------------

    def _changed(self, known: KnownNode, before: Route | None) -> None:
        """The table has another best route to a node, or another to tell of."""
        address, best, now = known.address, known.best, self._now
        self._tell_host(known, before)
        is_better = best is not None and (before is None or best.rank < before.rank)
        wait = self._damping.wait(address, now, is_better)
        if best is None:
            self._held.pop(address, None)
            self._twice.pop(address, None)
        elif wait:
            if address not in self._held:
                self._held[address] = now + wait
                self._look_again(address, now + wait)
            if known.since == now:
                self._look_again(address, now + SETTLED)
        self._news[address] = best is None
        self._wake(now)

    def _spread(self) -> None:
        """What has changed since the last time is to be told to all neighbours."""
        if not self._news:
            return
        gone = {address: AdvertisedNode((address,), None) for address, is_gone in self._news.items() if is_gone}
        changed = dict.fromkeys(address for address, is_gone in self._news.items() if not is_gone)
        before = {address: self._shown.pop(address, None) for address in self._news}
        for address in changed:
            route = self.table.nodes[address].told
            if route is not None:
                self._shown[address] = route
        for neighbour in self._neighbours.values():
            neighbour.has_changed(before, changed, gone)
        self._news = {}

    def _look_again(self, address: str, when: float) -> None:
        heapq.heappush(self._holds, (when, address))
        self._wake(when)

    def _tell_host(self, known: KnownNode, before: Route | None) -> None:
        address, best = known.address, known.best
        told = best or before
        assert told is not None
        old = before.record.services if before else ()
        new = best.record.services if best else ()
        if old is not new and old != new:
            for name in set(old).difference(new):
                self._host.news("service-down", f"{address}/{name}", told.path, told.cost)
        if best is None:
            self._host.news("node-down", address, told.path, told.cost)
        elif before is None:
            self._host.news("node-up", address, best.path, best.cost)
        elif before.path != best.path:
            self._host.news("path", address, best.path, best.cost)
        if old is not new and old != new:
            for name in set(new).difference(old):
                self._host.news("service-up", f"{address}/{name}", told.path, told.cost)

    def _offer(self, neighbour: Adjacency, address: str, told: Route | None) -> Route | None:
        """What `neighbour` is to be told of `address`, where it was `told` that last."""
        if not address:
            return self._itself(neighbour.policy)
        known = self.table.nodes.get(address)
        route = known.told if known else None
        if known is None or route is None or not neighbour.policy.transit:
            return None
        if address in self._held:
            still = known.routes.get(told.path[0]) if told is not None else None
            if still is None or still.is_relayed:
                # What was told last, while it is true, and until there is something that stays so.
                if told is not None and still is not None and still.path == told.path:
                    return told
                if self._now < known.since + SETTLED or (told is None and self._now < known.born + LAST_WAIT):
                    return told
        if neighbour.address in route.path or len(route.path) >= MAX_PATH:
            return None
        return route

    def _itself(self, policy: Policy) -> Route:
        own = self._own.get(policy.advertise)
        if own is None:
            record = own_record(self._me.instance[:IDENTITY], self._services, policy.advertise, MAX_TOLD)
            own = self._own[policy.advertise] = Route((), 0, record)
        return own

    # -- time ----------------------------------------------------------------------------------------------------

    def _wake(self, when: float) -> None:
        if when < self._alarm:
            self._alarm = when
            self._host.alarm(when)

    def tick(self, now: float) -> None:
        """Time has passed."""
        self._now = now
        self._alarm = NEVER
        while self._holds and self._holds[0][0] <= now:
            _, address = heapq.heappop(self._holds)
            if self._held.get(address, NEVER) <= now:
                del self._held[address]
            for neighbour in self._neighbours.values():
                if neighbour.follows and address in self.table.nodes:
                    neighbour.look_again(address)
        self._decide()
        if self._sent_until <= now + AT_ONCE:
            self._spread()
        for address, neighbour in list(self._neighbours.items()):
            if self._sent_until > now + AT_ONCE:
                self._wake(self._sent_until - AT_ONCE + BATCH)
                break
            if self._serve(neighbour):  # the others come first next time
                self._neighbours[address] = self._neighbours.pop(address)
        if self._holds:
            self._wake(self._holds[0][0])

    def _serve(self, neighbour: Adjacency) -> bool:
        """Tell `neighbour` what it is time for; whether there was anything."""
        now = self._now
        if neighbour.link.is_suspended:
            if not neighbour.is_gone and now >= neighbour.next_at:
                neighbour.is_gone = True
                neighbour.forget(neighbour.heard, self.table, now)
            elif not neighbour.is_gone:
                self._wake(neighbour.next_at)
            return False
        if neighbour.deaf_until:
            if now < neighbour.deaf_until:
                self._wake(neighbour.deaf_until)
            else:
                neighbour.deaf_until = 0.0
                neighbour.is_asking = True
        if neighbour.is_asked:
            if neighbour.is_due_again(now):
                neighbour.tell_all(self.table.nodes, now)
            else:
                self._wake(neighbour.told_all_at + RESTATE)
        if not neighbour.has_something:
            return False
        payload = neighbour.frame(lambda address, told: self._offer(neighbour, address, told), now)
        if payload is not None:
            neighbour.link.control(REACH, 0, payload)
            self._sent_until = max(self._sent_until, now) + FRAME + ENTRY * neighbour.count
        if neighbour.has_something:
            self._wake(now if neighbour.gone else neighbour.next_at)
        return payload is not None

"""Adjacency: the routes sent to one neighbour and the routes learned from it (BGP's Adj-RIB-Out and Adj-RIB-In).

Out.  Only changes are sent, one frame at a time and at most one in `PAUSE` seconds; withdrawals are sent at once.
Several changes of one node before its turn are sent as one.  While the link's send queue is full, nothing is sent.  The
routes for all neighbours are in one dict, `shared`.  A neighbour has been sent the same, except for `dirty`, which is
due in its next frames, and `overrides`: routes that are damped, or that lead through the neighbour itself.  So n
neighbours that are sent n nodes each take memory for n nodes, not for n squared.

In.  The routes of a neighbour are limited in number, in bytes, and in rate.  Those beyond the first two limits are
dropped.  When a neighbour exceeds `RATE`, all that it advertised is removed, and its frames are ignored for
`IGNORE_TIME` seconds.  Only the first `MAX_RELAYED` nodes of one neighbour are advertised to others, so that it cannot
use up what they accept from this node.

The full table is sent between BEGIN and END when a link comes up, when the neighbour requests it since the frame
numbers had a gap, and once in `REFRESH` seconds.  At END, the receiver removes what was not repeated.
"""

from __future__ import annotations

from itertools import chain, islice

from ..link.policy import fits
from ..link.token_bucket import TokenBucket
from ..wire.advertisement import AGAIN, BEGIN, END, MAX_PATH, AdvertisedNode, NodeRecord, pack_reach, size_of
from ..wire.frames import REACH
from .route_table import CUT, Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..link.link import Link
    from ..link.policy import Policy
    from ..wire.advertisement import Reach
    from .route_table import RouteTable

MAX_LEARNED = 1 << 13  # nodes that a neighbour may advertise: some 1 KiB each
MAX_BYTES = 1 << 21  # of names that it may advertise
MAX_RELAYED = 1 << 12  # of its nodes that are advertised to others

PAUSE = 0.1  # seconds between two frames to the same neighbour
CHUNK = 256  # entries in a frame: with PAUSE, 2,560 a second are sent
RATE = 3000.0  # received entries a second, fewer with many services: at 30 us each a tenth of a processor at most
BURST = 1 << 13  # received entries at once
IGNORE_TIME = 30.0  # seconds
QUERY_RATE = 20.0  # NETWORK requests a second by the neighbour and nodes behind it: at 4 ms each a tenth, too
QUERY_BURST = 100.0  # pages: a listing of most networks
REFRESH = 1800.0  # seconds between full tables; links lose nothing, so this only repairs errors
RESTATE = 5.0  # seconds between requested full tables, at least

HOP = 1000  # microseconds that a link costs in addition to its round trip: among fast links, fewer hops win
CHANGED = 1.5  # factor by which the round trip must change to change the cost
STEADY = 10.0  # seconds between two changes of the cost, at least


class Adjacency:
    """The routes sent to and learned from the neighbour at the other end of `link`, under `policy`."""

    __slots__ = (
        "_base", "_begins", "_ends", "_priced_at", "bytes", "cost", "count", "dirty", "expected", "faults",
        "has_advertised", "ignored_until", "is_expired", "learned", "link", "next_at", "number", "overrides",
        "policy", "queries", "receive_rate", "relayed", "requests_restate", "restate_requested", "restated_at",
        "shared", "unconfirmed", "withdrawn",
    )  # fmt: skip

    def __init__(self, link: Link, policy: Policy, shared: dict[str, Route], now: float) -> None:
        self.link = link
        self.policy = policy
        self._base = HOP + int(link.min_rtt * 1e6)  # the cost while the link is not suspended
        self._priced_at = now
        self.cost = self._base
        self.is_expired = False  # suspended for GRACE seconds: its routes are removed
        # out
        self.has_advertised = False  # it takes part in discovery: a frame was received
        self.number = 0
        self.count = 0  # entries of the last frame
        self.shared = shared  # routes by node, the same for all neighbours
        self.withdrawn: dict[str, AdvertisedNode] = {}  # to be sent
        # Nodes that may have to be sent, and the route that was sent last; "" is this node itself.
        self.dirty: dict[str, Route | None] = {}
        self.overrides: dict[str, Route | None] = {}  # routes that were sent last, where they differ from `shared`
        self.next_at = now
        self.restated_at = now
        self.restate_requested = False  # by the neighbour
        self.requests_restate = False  # the next frame requests a full table
        self._begins = True  # the next frame has BEGIN
        self._ends = False  # the last frame of the table has END
        # in
        self.expected = 0  # the number of the next frame
        self.learned: dict[str, Route] = {}
        self.unconfirmed: dict[str, None] | None = None  # the nodes of `learned` that were not repeated since BEGIN
        self.bytes = 0
        self.relayed = 0
        self.receive_rate = TokenBucket(RATE, BURST, now)
        self.queries = TokenBucket(QUERY_RATE, QUERY_BURST, now)
        self.ignored_until = 0.0
        self.faults: set[str] = set()  # warnings that were logged

    @property
    def address(self) -> str:
        return self.link.address

    # -- routes out -------------------------------------------------------------------------------------------------

    def restate(self, addresses: Iterable[str], now: float) -> None:
        """Queue the full table: `addresses`, the shared routes, and this node itself."""
        self.restated_at = now
        self.restate_requested = False
        self.withdrawn, self.overrides = {}, {}
        self.dirty = {"": None}
        if self.receives_routes:
            self.dirty.update(dict.fromkeys(chain(self.shared, addresses)))
        self._begins = self._ends = True

    @property
    def receives_routes(self) -> bool:
        """Whether other nodes are advertised to it."""
        return self.has_advertised and self.policy.transit

    @property
    def advertised(self) -> dict[str, Route]:
        """The route to each node that was sent last."""
        advertised = {**(self.shared if self.receives_routes else {}), **self.overrides, **self.dirty}
        return {address: route for address, route in advertised.items() if route is not None}

    def has_changed(
        self, before: dict[str, Route | None], changed: dict[str, None], withdrawn: dict[str, AdvertisedNode]
    ) -> None:
        """The shared routes to `changed` were replaced, those to `withdrawn` removed; `before` holds the old ones."""
        if not self.receives_routes:
            return
        overrides, dirty = self.overrides, self.dirty
        for address, entry in withdrawn.items():
            advertised = dirty.pop(address) if address in dirty else overrides.pop(address, before[address])
            if advertised is not None:
                self.withdrawn[address] = entry
                overrides[address] = advertised
        for address in changed:
            self.withdrawn.pop(address, None)
            if address not in dirty:
                dirty[address] = overrides.pop(address, before[address])

    def mark_dirty(self, address: str) -> None:
        """The route to `address` may have to be sent again."""
        if address not in self.dirty and address not in self.withdrawn:
            self.dirty[address] = self.overrides.pop(address, self.shared.get(address))

    def is_restate_due(self, now: float) -> bool:
        """Whether the full table has to be sent again."""
        return self.has_advertised and now >= self.restated_at + (RESTATE if self.restate_requested else REFRESH)

    @property
    def may_send(self) -> bool:
        link = self.link
        return self.policy.discover and link.is_up and not link.is_suspended and not link.is_backlogged

    @property
    def has_updates(self) -> bool:
        return self.may_send and bool(self.withdrawn or self.dirty or self._ends or self.requests_restate)

    def frame(self, offer: Callable[[str, Route | None], Route | None], now: float) -> bytes | None:
        """Encode the next frame, or return None.  `offer` maps a node and the route sent last to the route to send."""
        withdrawn, self.withdrawn = self.withdrawn, {}
        overrides, dirty, shared = self.overrides, self.dirty, self.shared
        if now < self.next_at:
            due = list(islice(withdrawn, CHUNK))
        else:
            due = list(islice(chain(withdrawn, dirty), CHUNK))
            self.next_at = now + PAUSE
        entries: list[tuple[AdvertisedNode, str, Route | None]] = []
        for address in due:
            advertised = dirty[address] if address in dirty else overrides.get(address, shared.get(address))
            route = offer(address, advertised)
            if route is advertised:
                self._settle(address, route)
                withdrawn.pop(address, None)
            elif route is None:
                entries.append((withdrawn.get(address) or AdvertisedNode((address,), None), address, route))
            else:
                has_record = advertised is None or advertised.record != route.record
                entries.append((route.entry(has_record=has_record), address, route))
        entries.sort(key=lambda it: it[0].path)
        self.count, payload = self._pack(entries, len(withdrawn) + len(dirty))
        for _, address, route in entries[: self.count]:
            self._settle(address, route)
            withdrawn.pop(address, None)
        self.withdrawn = withdrawn
        if due and not dirty:
            self.dirty, self.overrides = {}, dict(overrides)  # a dict does not shrink
        return payload

    def _settle(self, address: str, route: Route | None) -> None:
        """Note that `route` was sent."""
        self.dirty.pop(address, None)
        if route is self.shared.get(address):
            self.overrides.pop(address, None)
        else:
            self.overrides[address] = route

    def _pack(self, entries: list[tuple[AdvertisedNode, str, Route | None]], left: int) -> tuple[int, bytes | None]:
        """Encode a frame; return how many of `entries` it holds, and it.  `left` entries are due, these included."""
        flags = AGAIN * self.requests_restate | BEGIN * self._begins
        ends = END * (self._ends and left == len(entries))
        if not (entries or flags or ends):
            return 0, None
        payload, count = pack_reach(self.number, flags | ends, (it[0] for it in entries))
        if ends and count < len(entries):
            ends = 0
            payload, count = pack_reach(self.number, flags, (it[0] for it in entries))
        self._ends = self._ends and not ends
        self._begins = self.requests_restate = False
        self.number += 1
        return count, payload

    # -- routes in -----------------------------------------------------------------------------------------------

    def accepts(self, reach: Reach, now: float) -> bool:
        """Charge a frame against the receive rate; False if it exceeds it: then the neighbour is ignored."""
        count = max(len(reach.entries), 1) + sum(len(it.record.services) >> 3 for it in reach.entries if it.record)
        if reach.flags & BEGIN:  # it walks all learned routes
            count += len(self.learned) >> 8
        if self.receive_rate.take(count, now):
            return True
        self.ignored_until = now + IGNORE_TIME
        self.receive_rate.refill()
        return False

    def begin(self, reach: Reach) -> bool:
        """Process the header of a frame; False if frames before it are missing."""
        is_next = reach.number == self.expected or reach.flags & BEGIN
        self.expected = reach.number + 1
        self.has_advertised = True
        if reach.flags & BEGIN:
            self.unconfirmed = dict.fromkeys(self.learned)
        return bool(is_next)

    def interpret(self, entry: AdvertisedNode, local_address: str) -> tuple[str, Route | None]:
        """Turn `entry` into its node and the route from here; None if it is withdrawn or rejected."""
        path = (self.address, *entry.path)
        address = path[-1]
        if self.unconfirmed is not None:
            self.unconfirmed.pop(address, None)
        old = self.learned.get(address)
        record = entry.record or (old.record if old else None)
        if entry.cost is None or record is None:
            return address, None
        if local_address in path or len(path) > MAX_PATH or len(set(path)) < len(path):
            return address, None
        if entry.path and not fits(address, self.policy.accept):
            return address, None
        if old is not None and old.record == record:
            record = old.record  # share the object
        size = size_of(entry if entry.record else AdvertisedNode(entry.path, entry.cost, record))
        more = size - (old.size if old else 0)
        if (old is None and len(self.learned) >= MAX_LEARNED) or (more > 0 and self.bytes + more > MAX_BYTES):
            return address, None
        was_relayed = old is not None and old.is_relayed
        is_relayed = self.policy.transit and (was_relayed or self.relayed < MAX_RELAYED)
        # A path costs at least HOP for each of its links, whatever the neighbour claims.
        cost = self.cost + max(entry.cost, HOP * len(entry.path))
        route = Route(path, cost, record, size, is_relayed)
        if old is not None and old.path == path:
            route.suspected_until = old.suspected_until
        return address, route

    def store(self, address: str, route: Route | None) -> None:
        """Store a route that `interpret` returned, or remove the one to `address`."""
        old = self.learned.pop(address, None)
        if old is not None:
            self.bytes -= old.size
            self.relayed -= old.is_relayed
        if route is not None:
            self.learned[address] = route
            self.bytes += route.size
            self.relayed += route.is_relayed

    def forget(self, addresses: Iterable[str], table: RouteTable, now: float) -> None:
        """Remove the routes to `addresses`."""
        for address in list(addresses):
            self.store(address, None)
            table.put(address, self.address, None, now)

    def apply_policy(self, policy: Policy, table: RouteTable, now: float) -> None:
        """Apply another policy, to learned routes too."""
        if self.policy.discover and not policy.discover and self.number:  # withdraw all
            self.link.control(REACH, 0, pack_reach(self.number, BEGIN | END, ())[0])
            self.number += 1
        self.policy = policy
        for address, old in list(self.learned.items()):
            self.store(address, None)
            if policy.discover and (address == self.address or fits(address, policy.accept)):
                self.store(address, old.updated(0, policy.transit and self.relayed < MAX_RELAYED))
            table.put(address, self.address, self.learned.get(address), now)

    # -- cost -------------------------------------------------------------------------------------------------------

    def update_cost(self, table: RouteTable, now: float) -> None:
        """Update the cost of the link: its shortest recent round trip, `HOP`, and `CUT` while it is suspended."""
        base = HOP + int(self.link.min_rtt * 1e6) if self.link.min_rtt else self._base
        is_new = not self._base / CHANGED <= base <= self._base * CHANGED and now - self._priced_at >= STEADY
        if is_new or self._base == HOP:
            self._base, self._priced_at = base, now
        cost = self._base + CUT * self.link.is_suspended
        if cost != self.cost:
            more, self.cost = cost - self.cost, cost
            self._reprice(more, table, now)

    def _reprice(self, more: int, table: RouteTable, now: float) -> None:
        """Add `more` to the cost of all learned routes."""
        for address, old in list(self.learned.items()):
            route = self.learned[address] = old.updated(more, old.is_relayed)
            table.put(address, self.address, route, now)


def local_record(identity: bytes, services: Iterable[str], advertise: Iterable[str] | None, most: int) -> NodeRecord:
    """Return the record of this node for a neighbour: at most `most` services, in the order of their names."""
    names = sorted(name for name in services if name and fits(name, advertise))
    return NodeRecord(identity, tuple(names[:most]))

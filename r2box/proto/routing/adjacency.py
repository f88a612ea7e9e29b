"""What one neighbour has been told, and what it has said, each within bounds.

Told is what has changed, a frame at a time and at most one in `PAUSE`, but that something is gone at once.  What
changes twice before its turn is told once.  All that is told is bounded by what we know; when the link has more to send
than it should, nothing is told until that has gone.

What is on offer to all is in one dict, `shown`.  A neighbour has been told the same, but for what is `dirty`, which is
for its next frames, and what is `odd`: held back, or not for it because the way leads through itself.  So n neighbours
that are told of n nodes take memory for n of them, and not for n squared.

What a neighbour says is bounded in number, in bytes, and in rate.  What is beyond the first two is not remembered; who
says more than `RATE` entries a second for long is not listened to for `DEAF` seconds, and what it has said before is
forgotten.  Of what one neighbour says only the first `MAX_RELAYED` nodes are told on, so that it cannot fill the room
that our other neighbours have for what we say.

Everything is told anew, between BEGIN and END, when a link comes up, when the other side asks for it (its numbers had a
gap), and once in `REFRESH` seconds.  What was not repeated is forgotten at END.
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

MAX_HEARD = 1 << 13  # nodes that a neighbour may tell us of: some 1 KiB each here
MAX_BYTES = 1 << 21  # of names that it may tell us
MAX_RELAYED = 1 << 12  # of them that we tell on

PAUSE = 0.1  # seconds between two frames for the same neighbour
CHUNK = 256  # entries of one frame: so we say 2,560 a second,
RATE = 3000.0  # and listen to so many, or fewer that name many services: at 30 us each a tenth of a processor at worst
BURST = 1 << 13  # and to so many more at once, after a silence
DEAF = 30.0  # seconds
ASKED = 20.0  # questions a second that it, and who lies behind it, may ask about the network: at 4 ms each a tenth too,
ASKED_AT_ONCE = 100.0  # and so many after a silence: a page each, so a listing of most networks
REFRESH = 1800.0  # seconds: links lose nothing, so this is for what should not happen
RESTATE = 5.0  # seconds: all is not told anew more often than that

HOP = 1000  # microseconds that a link costs beside its round trip: among fast links the fewest are best
CHANGED = 1.5  # times more or less: then it is a new cost,
STEADY = 10.0  # seconds after which there may be another


class Adjacency:
    """The neighbour at the other end of `link`, under `policy`."""

    __slots__ = (
        "_base", "_begins", "_ends", "_priced_at", "bytes", "cost", "count", "deaf_until", "dirty", "expected",
        "faults", "gone", "heard", "is_asked", "is_asking", "is_gone", "is_heard", "link", "next_at", "number", "odd",
        "policy", "questions", "relayed", "shown", "speech", "stale", "told_all_at",
    )  # fmt: skip

    def __init__(self, link: Link, policy: Policy, shown: dict[str, Route], now: float) -> None:
        self.link = link
        self.policy = policy
        self._base = HOP + int(link.trip * 1e6)  # while there is a transport
        self._priced_at = now
        self.cost = self._base
        self.is_gone = False  # it has no transport, and what lies behind it is given up
        # out
        self.is_heard = False  # it takes part: it has said something
        self.number = 0
        self.count = 0  # entries of the last frame
        self.shown = shown  # by node, shared by all neighbours
        self.gone: dict[str, AdvertisedNode] = {}  # what is not reached any more
        # What else may have to be told, and what was told of it last; "" is this node itself.
        self.dirty: dict[str, Route | None] = {}
        self.odd: dict[str, Route | None] = {}  # what was told last of others, where that is not what is shown
        self.next_at = now
        self.told_all_at = now
        self.is_asked = False  # to tell all once more
        self.is_asking = False  # for that
        self._begins = True
        self._ends = False  # when nothing more is to be told, that was all
        # in
        self.expected = 0  # the number of the next frame
        self.heard: dict[str, Route] = {}
        self.stale: dict[str, None] | None = None  # of `heard`, what was not repeated since BEGIN
        self.bytes = 0
        self.relayed = 0
        self.speech = TokenBucket(RATE, BURST, now)
        self.questions = TokenBucket(ASKED, ASKED_AT_ONCE, now)
        self.deaf_until = 0.0
        self.faults: set[str] = set()  # what has been said about it already

    @property
    def address(self) -> str:
        return self.link.address

    # -- telling -------------------------------------------------------------------------------------------------

    def tell_all(self, addresses: Iterable[str], now: float) -> None:
        """Begin anew: everything that is known, and this node itself."""
        self.told_all_at = now
        self.is_asked = False
        self.gone, self.odd = {}, {}
        self.dirty = {"": None}
        if self.follows:
            self.dirty.update(dict.fromkeys(chain(self.shown, addresses)))
        self._begins = self._ends = True

    @property
    def follows(self) -> bool:
        """Whether it is told of other nodes."""
        return self.is_heard and self.policy.transit

    @property
    def told(self) -> dict[str, Route]:
        """What it was told last of each node."""
        told = {**(self.shown if self.follows else {}), **self.odd, **self.dirty}
        return {address: route for address, route in told.items() if route is not None}

    def has_changed(
        self, before: dict[str, Route | None], changed: dict[str, None], gone: dict[str, AdvertisedNode]
    ) -> None:
        """Another route is shown to each of `changed`, and none to each of `gone` any more; `before` has what was."""
        if not self.follows:
            return
        odd, dirty = self.odd, self.dirty
        for address, entry in gone.items():
            told = dirty.pop(address) if address in dirty else odd.pop(address, before[address])
            if told is not None:
                self.gone[address] = entry
                odd[address] = told
        for address in changed:
            self.gone.pop(address, None)
            if address not in dirty:
                dirty[address] = odd.pop(address, before[address])

    def look_again(self, address: str) -> None:
        """Something else may have to be told of `address`."""
        if address not in self.dirty and address not in self.gone:
            self.dirty[address] = self.odd.pop(address, self.shown.get(address))

    def is_due_again(self, now: float) -> bool:
        """Whether all is to be told anew."""
        return self.is_heard and now >= self.told_all_at + (RESTATE if self.is_asked else REFRESH)

    @property
    def may_speak(self) -> bool:
        link = self.link
        return self.policy.discover and link.is_up and not link.is_suspended and not link.is_backlogged

    @property
    def has_something(self) -> bool:
        return self.may_speak and bool(self.gone or self.dirty or self._ends or self.is_asking)

    def frame(self, offer: Callable[[str, Route | None], Route | None], now: float) -> bytes | None:
        """The next frame for it, or None.  `offer` says what it may be told of a node, after what it was told last."""
        gone, self.gone = self.gone, {}
        odd, dirty, shown = self.odd, self.dirty, self.shown
        if now < self.next_at:
            due = list(islice(gone, CHUNK))
        else:
            due = list(islice(chain(gone, dirty), CHUNK))
            self.next_at = now + PAUSE
        entries: list[tuple[AdvertisedNode, str, Route | None]] = []
        for address in due:
            told = dirty[address] if address in dirty else odd.get(address, shown.get(address))
            route = offer(address, told)
            if route is told:
                self._settle(address, route)
                gone.pop(address, None)
            elif route is None:
                entries.append((gone.get(address) or AdvertisedNode((address,), None), address, route))
            else:
                entries.append((route.entry(has_record=told is None or told.record != route.record), address, route))
        entries.sort(key=lambda it: it[0].path)
        self.count, payload = self._pack(entries, len(gone) + len(dirty))
        for _, address, route in entries[: self.count]:
            self._settle(address, route)
            gone.pop(address, None)
        self.gone = gone
        if due and not dirty:
            self.dirty, self.odd = {}, dict(odd)  # a dict keeps the room that it once had
        return payload

    def _settle(self, address: str, route: Route | None) -> None:
        """It has been told `route`."""
        self.dirty.pop(address, None)
        if route is self.shown.get(address):
            self.odd.pop(address, None)
        else:
            self.odd[address] = route

    def _pack(self, entries: list[tuple[AdvertisedNode, str, Route | None]], left: int) -> tuple[int, bytes | None]:
        """How many of `entries` a frame holds, and the frame; `left` are to be told with these."""
        flags = AGAIN * self.is_asking | BEGIN * self._begins
        ends = END * (self._ends and left == len(entries))
        if not (entries or flags or ends):
            return 0, None
        payload, count = pack_reach(self.number, flags | ends, (it[0] for it in entries))
        if ends and count < len(entries):
            ends = 0
            payload, count = pack_reach(self.number, flags, (it[0] for it in entries))
        self._ends = self._ends and not ends
        self._begins = self.is_asking = False
        self.number += 1
        return count, payload

    # -- listening -----------------------------------------------------------------------------------------------

    def listens(self, reach: Reach, now: float) -> bool:
        """Whether a frame is still within what it may say; if not, it is not listened to."""
        count = max(len(reach.entries), 1) + sum(len(it.record.services) >> 3 for it in reach.entries if it.record)
        if reach.flags & BEGIN:  # which looks at all that was heard, if not for long
            count += len(self.heard) >> 8
        if self.speech.take(count, now):
            return True
        self.deaf_until = now + DEAF
        self.speech.renew()
        return False

    def begin(self, reach: Reach) -> bool:
        """Before the entries of a frame; False if frames before it are missing."""
        is_next = reach.number == self.expected or reach.flags & BEGIN
        self.expected = reach.number + 1
        self.is_heard = True
        if reach.flags & BEGIN:
            self.stale = dict.fromkeys(self.heard)
        return bool(is_next)

    def hear(self, entry: AdvertisedNode, me: str) -> tuple[str, Route | None]:
        """What `entry` means here: the node that it speaks of, and the route to it, None if there is none."""
        path = (self.address, *entry.path)
        address = path[-1]
        if self.stale is not None:
            self.stale.pop(address, None)
        old = self.heard.get(address)
        record = entry.record or (old.record if old else None)
        if entry.cost is None or record is None or me in path or len(path) > MAX_PATH or len(set(path)) < len(path):
            return address, None
        if entry.path and not fits(address, self.policy.accept):
            return address, None
        if old is not None and old.record == record:
            record = old.record  # one object for both
        size = size_of(entry if entry.record else AdvertisedNode(entry.path, entry.cost, record))
        more = size - (old.size if old else 0)
        if (old is None and len(self.heard) >= MAX_HEARD) or (more > 0 and self.bytes + more > MAX_BYTES):
            return address, None
        was_relayed = old is not None and old.is_relayed
        is_relayed = self.policy.transit and (was_relayed or self.relayed < MAX_RELAYED)
        # No path costs less than its links must.
        cost = self.cost + max(entry.cost, HOP * len(entry.path))
        route = Route(path, cost, record, size, is_relayed)
        if old is not None and old.path == path:
            route.doubted_until = old.doubted_until
        return address, route

    def keep(self, address: str, route: Route | None) -> None:
        """Remember what `hear` has made of an entry."""
        old = self.heard.pop(address, None)
        if old is not None:
            self.bytes -= old.size
            self.relayed -= old.is_relayed
        if route is not None:
            self.heard[address] = route
            self.bytes += route.size
            self.relayed += route.is_relayed

    def forget(self, addresses: Iterable[str], table: RouteTable, now: float) -> None:
        """It reaches these no longer."""
        for address in list(addresses):
            self.keep(address, None)
            table.put(address, self.address, None, now)

    def obey(self, policy: Policy, table: RouteTable, now: float) -> None:
        """Other rules hold from now on, for what it has said before too."""
        if self.policy.discover and not policy.discover and self.number:  # it is not to go on with what it was told
            self.link.control(REACH, 0, pack_reach(self.number, BEGIN | END, ())[0])
            self.number += 1
        self.policy = policy
        for address, old in list(self.heard.items()):
            self.keep(address, None)
            if policy.discover and (address == self.address or fits(address, policy.accept)):
                self.keep(address, old.renewed(0, policy.transit and self.relayed < MAX_RELAYED))
            table.put(address, self.address, self.heard.get(address), now)

    # -- what it costs -------------------------------------------------------------------------------------------

    def weigh(self, table: RouteTable, now: float) -> None:
        """Look what the link costs now: its shortest round trip of late, `HOP`, and `CUT` without a transport."""
        base = HOP + int(self.link.trip * 1e6) if self.link.trip else self._base
        is_new = not self._base / CHANGED <= base <= self._base * CHANGED and now - self._priced_at >= STEADY
        if is_new or self._base == HOP:
            self._base, self._priced_at = base, now
        cost = self._base + CUT * self.link.is_suspended
        if cost != self.cost:
            more, self.cost = cost - self.cost, cost
            self._reprice(more, table, now)

    def _reprice(self, more: int, table: RouteTable, now: float) -> None:
        """All that lies behind it costs `more`."""
        for address, old in list(self.heard.items()):
            route = self.heard[address] = old.renewed(more, old.is_relayed)
            table.put(address, self.address, route, now)


def own_record(identity: bytes, services: Iterable[str], advertise: Iterable[str] | None, most: int) -> NodeRecord:
    """What this node says of itself to a neighbour: at most `most` services, in the order of their names."""
    names = sorted(name for name in services if name and fits(name, advertise))
    return NodeRecord(identity, tuple(names[:most]))

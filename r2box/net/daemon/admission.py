"""Admission of links: limits on pending and suspended links, and on the memory of all.

A link is pending from its attachment until it is up, or until its transport is closed.  An incoming one costs a
descriptor and a timer, and any host that reaches a listener can make it.  So there are few places, and the oldest
pending link is closed for a new one: an honest neighbour needs its place for a few round trips only.  A neighbour that
resumes a suspended link is the last to lose its place.

Links that stay suspended have a common memory limit ("suspended-memory").  Without it, a neighbour that acknowledges
late and then disconnects would make this node keep what was sent to it until the resume timeout.

While few descriptors are free, a host that has several links gets no further one, to leave descriptors for others.

When all links together exceed the memory limit, they are closed in this order: pending, the oldest first; suspended
without tunnels, the longest suspended first; then the one that holds most.
"""

from __future__ import annotations

from collections import Counter

from ...errors import BusyError
from ...proto.limits import LINKS_SHARE
from .trim import MemoryTrim

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...proto.limits import Limits
    from ...proto.link.link import Link
    from ...proto.link.token_bucket import RequestLimit
    from ...proto.memory_limit import MemoryLimit
    from ..io.loop import Loop, Timer

MAX_OUTGOING = 256  # pending links that clients of this node dial: each may hold a descriptor for 10 s
FEW = 8  # links of one source while descriptors are scarce
SETTLE = 15.0  # seconds until the memory of a suspended link counts as "suspended-memory"
FIRST_BYTES_TIME = 2.0  # seconds for the first bytes when more than half of the places are taken


class Admission:
    """Decides which links stay.  `links` are those that are up, by address; `cut(link)` closes a transport at once."""

    def __init__(
        self,
        limits: Limits,
        memory: MemoryLimit,
        links: dict[str, Link],
        loop: Loop,
        cut: Callable[[Link], None],
    ) -> None:
        self._limits = limits
        self._memory = memory
        self._links = links
        self._loop = loop
        self._now = loop.now
        self._trim = MemoryTrim(loop, memory)
        self._cut = cut
        self._incoming: dict[Link, tuple[str, float]] = {}  # source and start; the oldest first
        self._outgoing: dict[Link, None] = {}
        self._sources: dict[Link, str] = {}  # of incoming links with a transport
        self._suspended: dict[Link, float] = {}  # start; the oldest first
        self._settling: Timer | None = None
        limits.measures.update(self._measures())
        self.change(dict(limits))

    def change(self, changes: Mapping[str, int]) -> None:
        """Set the limits of the node to the defaults with `changes`.  ValueError if one is invalid."""
        self._limits.change(changes)
        self._memory.limit = int(self._limits["memory"] * LINKS_SHARE)

    def _measures(self) -> dict[str, Callable[[], int]]:
        """What is in use; for a limit of each link, the maximum of all links."""

        def most(of: Callable[[Link], int]) -> Callable[[], int]:
            return lambda: max(map(of, self._links.values()), default=0)

        def recent(of: Callable[[Link], RequestLimit | None]) -> Callable[[], int]:
            def count(link: Link) -> int:
                limit = of(link)
                return limit.recent(self._now()) if limit is not None else 0

            return most(count)

        return {
            "pending": lambda: len(self._incoming),
            "pending-per-source": lambda: max(self._pending_by_source().values(), default=0),
            "links": lambda: len(self._links),
            "sessions": lambda: len(self._suspended),
            "suspended-memory": self._suspended_memory,
            "streams": most(lambda link: link.streams.used),
            "opens": recent(lambda link: link.opens),
            "relays": recent(lambda link: link.relays),
            "requests": recent(lambda link: link.requests),
            "memory": self._measure_memory,
        }

    def _suspended_memory(self) -> int:
        return sum(link.account.used for link in self._suspended)

    def _measure_memory(self) -> int:
        self._limits.note("memory", self._memory.peak)
        return self._memory.used

    def _pending_by_source(self) -> Counter[str]:
        """Number of pending links from each known source."""
        return Counter(source for source, _ in self._incoming.values() if source)

    @property
    def pending(self) -> tuple[Link, ...]:
        return (*self._incoming, *self._outgoing)

    # -- pending -------------------------------------------------------------------------------------------------

    def check(self, is_incoming: bool) -> None:
        """BusyError if a client of this node may not dial a link now."""
        if not is_incoming and len(self._outgoing) >= MAX_OUTGOING:
            raise BusyError(f"{MAX_OUTGOING} links are pending already; retry later")

    def add(self, link: Link, is_incoming: bool, source: str, is_scarce: bool = False) -> str:
        """Add a new link from the host `source` ("": not known).

        `is_scarce`: few descriptors are free.  Returns why the link is to be closed, or "".
        """
        if not is_incoming:
            self._outgoing[link] = None
            return ""
        self._make_room(source)
        self._incoming[link] = source, self._now()
        self._limits.note("pending", len(self._incoming))
        if source:
            self._limits.note("pending-per-source", self._pending_by_source()[source])
            self._sources[link] = source
            if is_scarce and list(self._sources.values()).count(source) > FEW:
                return f"few descriptors are free, and {source} has more than {FEW} links; retry later"
        return ""

    def _make_room(self, source: str) -> None:
        places = self._limits["pending"]
        same = [link for link, (it, _) in self._incoming.items() if source and it == source]
        if len(same) >= self._limits["pending-per-source"]:
            self._evict(same, f"too many links from {source} are pending")
        elif len(self._incoming) >= places:
            self._evict(list(self._incoming), "too many links are pending")
        elif len(self._incoming) > places // 2:
            before = self._now() - FIRST_BYTES_TIME
            for link, (_, since) in list(self._incoming.items()):
                if since > before:
                    break
                if not link.received:
                    self._end(link, f"nothing came within {FIRST_BYTES_TIME:.0f} s, and many links are pending")

    def _evict(self, links: list[Link], why: str) -> None:
        """End the oldest, or the oldest that does not resume a suspended link."""
        self._end(next((link for link in links if not self._resumes(link)), links[0]), why)

    def _resumes(self, link: Link) -> bool:
        old = self._links.get(link.address)
        return old is not None and old.is_suspended and old.peer["instance"] == link.peer["instance"]

    def _end(self, link: Link, why: str) -> None:
        self.forget(link)
        link.close(why)
        self._cut(link)

    def forget(self, link: Link) -> None:
        """Remove a pending link: it is up, or its transport is closed."""
        if not link.is_up:
            self._sources.pop(link, None)
        self._incoming.pop(link, None)
        self._outgoing.pop(link, None)

    # -- links that were up --------------------------------------------------------------------------------------

    def suspended(self, link: Link) -> None:
        """Add a suspended link."""
        self._suspended[link] = self._now()
        self._limits.note("sessions", len(self._suspended))
        self._limits.note("suspended-memory", self._suspended_memory())
        if len(self._suspended) > self._limits["sessions"]:
            # `min` returns the longest suspended of those with the fewest tunnels.
            least = min(self._suspended, key=lambda it: len(it.streams))
            least.close("too many links are suspended")
        self._settle_later()

    def _settle_later(self) -> None:
        if self._settling is None and self._suspended:
            since = next(iter(self._suspended.values()))
            self._settling = self._loop.later(max(since + SETTLE - self._now(), SETTLE / 4), self._settle)

    def _settle(self) -> None:
        """Close suspended links, those that hold most first, while they hold more than "suspended-memory"."""
        self._settling = None
        before = self._now() - SETTLE
        settled = [link for link, since in self._suspended.items() if since <= before]
        settled.sort(key=lambda link: link.account.used)
        held = sum(link.account.used for link in settled)
        while held > self._limits["suspended-memory"]:
            link = settled.pop()
            held -= link.account.used
            link.close("suspended links hold too much memory")
        self._settle_later()

    def resumed(self, link: Link, successor: Link | None = None) -> None:
        """Remove a suspended link: it has the transport of `successor`, or is down."""
        source = self._sources.pop(successor or link, "")
        if successor is not None and source:
            self._sources[link] = source
        self._suspended.pop(link, None)
        if link.is_down:
            self._trim.link_closed()

    # -- memory --------------------------------------------------------------------------------------------------

    @property
    def is_over_limit(self) -> bool:
        """Whether the links exceed the memory limit."""
        return self._memory.used > self._limits["memory"]

    def close_links(self) -> None:
        """Close links until the memory limit is met."""
        why = "the memory limit of this node is reached"
        while self.is_over_limit and self._incoming:
            self._end(next(iter(self._incoming)), why)
        for link in [link for link in self._suspended if not link.streams]:
            if self.is_over_limit:
                link.close(why)
        while self.is_over_limit and self._links:
            before = len(self._links)
            max(self._links.values(), key=lambda link: link.account.used).close(why)
            if len(self._links) == before:  # its place was taken: avoid an endless loop
                return

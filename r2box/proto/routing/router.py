"""Router: one node's links, clients and services, and path resolution.

A Router owns Links and receives their events.  It joins streams end to end and answers what every node answers (PING,
LIST, NETWORK).  What needs descriptors or programs goes to its `host`: the daemon, or the mesh of a test.

A path resolves by the first rule that applies:

    1. empty: the node itself
    2. the node's own address: it is removed, and the rest resolved
    3. the address of a neighbour or client: that link takes the rest
    4. `service/NAME`, or NAME as the last step: a service of this node
    5. `any/NAME`: that service here, or at the nearest node that offers it
    6. a node that discovery knows: the path to it is put in front
    7. an error that names the address, this node, and what this node knows
"""

from __future__ import annotations

from ...errors import BusyError, RefusedError, UnknownError, WireError
from ..limits import Limits
from ..link.link import Link
from ..link.policy import EVERYTHING, Policy, is_allowed
from ..link.token_bucket import RequestLimit
from ..wire import messages
from ..wire.address import ANY, BENCH, CHILD, MAX_HOPS, SERVICE, format_path
from ..wire.datagrams import describe_modes
from ..wire.frames import CLIENT, DATAGRAMS, DESCRIPTOR, STREAM
from ..wire.outcome import BUSY, FAILED, REFUSED, UNKNOWN, Outcome
from ..wire.route import Message, check_loop, hop
from .discovery import Discovery
from .failover import Candidate, Failover
from .link_collision import LinkCollision
from .liveness import LivenessProbes
from .measurement import Meters
from .relay_queue import RelayQueues
from .replies import describe_known, describe_services, list_page, network_page
from .route_table import CUT
from .service_entry import MAX_SERVICES, ServiceEntry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ..link.handshake import LocalPeer
    from ..link.stream import Stream, StreamEnd
    from ..wire.fields import Buffer
    from .route_table import Route

    Joined = Callable[[Stream], None]
    Target = tuple["Link | ServiceEntry | None", tuple[str, ...]]
    Choice = tuple["Link | ServiceEntry | None", tuple[str, ...], "Route | None"]  # and the route before it

    class RouterHost(Protocol):
        """What a router needs of the daemon, or of the mesh of a test."""

        def now(self) -> float: ...  # on the clock of the links
        def up(self, link: Link) -> None: ...
        def down(self, link: Link, reason: str) -> None: ...
        def suspended(self, link: Link, reason: str) -> None: ...
        def resumed(self, link: Link, second: Link) -> None: ...
        def wake(self, link: Link) -> None: ...
        def fd_relay(self, link: Link, stream: Stream) -> None: ...
        def offer(self, service: ServiceEntry, stream: Stream, origin: tuple[str, ...]) -> None: ...
        def request(self, link: Link, body: messages.Body, descriptors: tuple[int, ...]) -> None: ...
        def discard(self, descriptors: tuple[int, ...]) -> None: ...
        def alarm(self, when: float) -> None: ...
        def note(self, text: str) -> None: ...
        def news(self, what: str, name: str, path: tuple[str, ...], cost: int) -> None: ...


NAMED = 8  # names in an error message
# Bursts of the rate limits of the same names.
OPENS_AT_ONCE = 16384.0  # as many tunnels as a link may have
RELAYS_AT_ONCE, REQUESTS_AT_ONCE = 1000.0, 2000.0


class Router:
    """The node `local_peer.address`.  It is the `LinkHost` of its links."""

    def __init__(self, local_peer: LocalPeer, host: RouterHost, limits: Limits | None = None) -> None:
        self.local_peer = local_peer
        self.limits = limits or Limits()
        self.host = host
        self.links: dict[str, Link] = {}  # neighbours by address
        self.clients: dict[str, Link] = {}  # by virtual address: child/1
        self.services: dict[str, ServiceEntry] = {}
        self.discovery = Discovery(local_peer, host)
        self.settled = 0.0  # until then, by the host's clock, an unknown name may appear: links are being established
        self.meters = Meters(local_peer.address)
        self.bench = ServiceEntry(BENCH, self.meters)  # built in, and in no listing
        self._collision = LinkCollision(local_peer, self.links)
        self._last_client = 0
        self.suspect: Callable[[Failover], object] = lambda attempt: None  # see `net.daemon.blackhole`
        self.probes = LivenessProbes(self.links)
        self._relay_queues = RelayQueues()

    @property
    def address(self) -> str:
        return self.local_peer.address

    # -- links (LinkHost) ------------------------------------------------------------------------------------------

    def link_hello(self, link: Link) -> None:
        if link.peer["role"] == CLIENT:
            if not link.is_local:
                raise WireError("a client where a node was expected")
            self._last_client += 1
            link.address = f"{CHILD}{self._last_client}"
            link.accept()
            return
        if link.is_local:
            raise WireError("a node on the control socket: use r2 connect")
        if link.address not in self.links and not self.limits.has_room("links", len(self.links)):
            raise WireError(f"{self.address}: {len(self.links)} links are up already")
        self._collision.hello(link)

    def link_suspended(self, link: Link, reason: str) -> None:
        self.host.suspended(link, reason)
        self.discovery.suspended(link, link.now)
        self._relay_queues.wake(link)
        self._collision.suspended(link)

    def link_resumed(self, link: Link, second: Link) -> None:
        self._collision.resumed(link, second)
        self.host.resumed(link, second)
        link.policy = second.policy
        self.discovery.resumed(link, link.now)

    def link_alive(self, link: Link) -> None:
        self._collision.alive(link)

    def link_up(self, link: Link) -> None:
        if link.is_local:
            self.clients[link.address] = link
        elif not self._collision.up(link):
            return
        else:
            link.opens = RequestLimit(self.limits, "opens", OPENS_AT_ONCE, link.now)
            link.relays = RequestLimit(self.limits, "relays", RELAYS_AT_ONCE, link.now)
            link.requests = RequestLimit(self.limits, "requests", REQUESTS_AT_ONCE, link.now)
        self.host.up(link)

    def link_down(self, link: Link, reason: str) -> None:
        if link.is_local:
            self.clients.pop(link.address, None)
            self.host.down(link, reason)
            return
        self._collision.down(link)
        self.discovery.remove(link, self.host.now())
        self._relay_queues.remove(link)
        self.host.down(link, reason)
        self._collision.promote(link.address)

    def link_measured(self, link: Link) -> None:
        if self.links.get(link.address) is link:
            self.discovery.measured(link, link.now)

    def link_reach(self, link: Link, payload: Buffer) -> None:
        if self.links.get(link.address) is link:
            self.discovery.receive(link, payload, link.now)

    def link_wake(self, link: Link) -> None:
        self.host.wake(link)

    def tick(self, now: float) -> None:
        self.discovery.tick(now)

    # -- resolving -------------------------------------------------------------------------------------------------

    def resolve(self, path: tuple[str, ...], origin: tuple[str, ...] = ()) -> Target:
        """Resolve `path` to a Link and the path for it, which begins with its address (`hop` removes it); to a
        ServiceEntry; or to None, this node.  RefusedError if it does not resolve."""
        return self._targets(path, origin)[0][:2]

    def _targets(self, path: tuple[str, ...], origin: tuple[str, ...]) -> list[Choice]:
        """Return all targets of `path`, best first, without routes back through `origin` and links without transit."""
        choices = self._choices(path, origin)
        incoming = self.links.get(origin[0]) if origin else None
        if incoming is None or not isinstance(choices[0][0], Link) or choices[0][0].is_local:
            return choices
        carries = self._rules(incoming).transit
        carried = [it for it in choices if carries and isinstance(it[0], Link) and self._rules(it[0]).transit]
        if carried:
            return carried
        raise RefusedError(f"{self.address}: carries nothing from {incoming.address} to {choices[0][1][0]}")

    def _choices(self, path: tuple[str, ...], origin: tuple[str, ...]) -> list[Choice]:
        while path and path[0] == self.address:
            path = path[1:]
        if not path:
            return [(None, (), None)]
        head, rest = path[0], path[1:]
        link = self.links.get(head) or self.clients.get(head)
        if link is not None:
            around = [it for it in self.discovery.routes_to(head) if it.cost < CUT] if link.is_suspended else []
            return [*self._over(around, rest, origin), (link, path, None)]
        is_any, is_here = head.startswith(ANY), head.startswith(SERVICE)
        name = head.partition("/")[2] if is_any or is_here else head
        service = self.bench if name == BENCH else self.services.get(name)
        if service is not None and not rest:
            return [(service, (), None)]
        if rest and (service is not None or is_any):
            raise RefusedError(f"{self.address}: {head} is a service, and nothing lies behind it: {format_path(path)}")
        if is_any:
            candidates = self._over(self.discovery.routes_to_any(name), (SERVICE + name,), origin)
        else:
            candidates = self._over(self.discovery.routes_to(head), rest, origin)
        if not candidates:
            network = self._may_query(self.links.get(origin[0]) if origin else None)
            raise UnknownError(f"{self.address}: does not know {head} ({describe_known(self, name, NAMED, network)})")
        return candidates

    def _over(self, routes: list[Route], rest: tuple[str, ...], origin: tuple[str, ...]) -> list[Choice]:
        """Return the choices that `routes` make, with `rest` behind them."""
        return [
            (self.links[route.path[0]], route.path + rest, route)
            for route in routes
            if route.path[0] in self.links and not set(route.path).intersection(origin)
        ]

    def _rules(self, link: Link | None) -> Policy:
        """Return the policy of `link`.  Clients (None: one of them) are not restricted."""
        if link is None or link.is_local:
            return EVERYTHING
        return (link.policy or EVERYTHING).within(self.discovery.policy)

    def _may_query(self, link: Link | None) -> bool:
        """Whether a request by `link` (None: of a client) may be answered with other nodes now."""
        if link is None or link.is_local:
            return True
        return self._rules(link).advertises_network and self.discovery.may_query(link)

    # -- tunnels ---------------------------------------------------------------------------------------------------

    def open(self, n0: str, request: Message, far: StreamEnd, joined: Joined, mode: int = STREAM) -> Stream:
        """Open the tunnel `request` of n0: a stream to the next neighbour on `request.path`, joined to `far`.

        If it fails before the tunnel is accepted, another stream by another route replaces it: `joined` is called with
        that.  RefusedError if no neighbour leads there, or if all of their links are full.
        """
        candidates = [
            self._candidate(n0, link, Message(path, request.origin, b""), route, mode)
            for link, path, route in self._targets(request.path, request.received_from(n0).origin)
            if isinstance(link, Link) and not link.is_local
        ]
        if not candidates:
            raise RefusedError(f"{self.address}: {format_path(request.path)} takes messages, not tunnels")
        if len(candidates) == 1:
            return candidates[0].begin(far)
        return Failover(candidates, far, joined, self._suspect).start()

    def _suspect(self, route: Route) -> None:
        link = self.links.get(route.path[0])
        if link is not None:
            self.discovery.suspect(route, self.host.now())

    def _candidate(self, n0: str, link: Any, request: Message, route: Route | None, mode: int) -> Candidate:
        def begin(far: StreamEnd) -> Stream:
            onward = hop(n0, request)[1]
            link.now = self.host.now()
            stream: Stream | None = link.open({"path": onward.path, "origin": onward.origin, "mode": mode})
            if stream is None:
                raise BusyError(f"{self.address}: the link to {link.address} carries as many tunnels as it can")
            stream.far = far
            return stream

        return Candidate(begin, route)

    def itself(self) -> ServiceEntry:
        """Return the command of the node, the target of a tunnel to the node itself; RefusedError if there is none."""
        if "" not in self.services:
            raise RefusedError(f"{self.address}: {describe_services(self)}")
        return self.services[""]

    def link_open(self, link: Link, stream: Stream, fields: dict[str, Any]) -> None:
        request = Message(fields["path"], fields["origin"], b"")
        origin = request.received_from(link.address).origin
        if link.is_local and fields["mode"] == DESCRIPTOR:
            self.host.fd_relay(link, stream)
            return
        stream.name(origin, request.path or (self.address,))
        try:
            check_loop(self.address, request.path, origin)
        except RefusedError as error:
            stream.close(Outcome(REFUSED, str(error)))
            return
        try:
            if link.is_local:
                raise RefusedError(f"{self.address}: a client opens tunnels with TUNNEL, not with OPEN")
            if len(request.path) + len(origin) > MAX_HOPS:
                raise RefusedError(f"{self.address}: more than {MAX_HOPS} hops")
            if link.opens is not None and not link.opens.take(origin, link.now):
                raise BusyError(f"{self.address}: too many tunnels opened a second; retry later")
            if fields["mode"] not in (STREAM, DATAGRAMS):
                raise RefusedError(f"{self.address}: does not know tunnels of the kind {fields['mode']}")
            target, _ = self.resolve(request.path, origin)
            if isinstance(target, Link):
                if not target.is_local and not target.streams.may_relay(link.streams):
                    raise BusyError(f"{self.address}: {link.address} has too many tunnels through this node")
                if link.relays is not None and not link.relays.take(origin, link.now):
                    raise BusyError(f"{self.address}: too many tunnels through this node a second; retry later")
                stream.is_relayed, stream.origin = True, origin[:3]
                link.streams.relayed += 1
                self._relay_queues.add(link, target, stream, lambda: self._relay(link, stream, request, fields["mode"]))
                return
            service = target or self.itself()
        except RefusedError as error:
            stream.close(_refused(error))
            return
        if not is_allowed(service.allow, origin):
            stream.close(Outcome(REFUSED, f"{self.address}: {SERVICE}{service.name} is not for {format_path(origin)}"))
        elif fields["mode"] != service.mode:
            stream.close(Outcome(REFUSED, f"{self.address}: {SERVICE}{service.name} {describe_modes(service.mode)}"))
        elif service is self.bench:
            self.meters.open(stream)
        else:
            self.host.offer(service, stream, origin)

    def _relay(self, link: Link, stream: Stream, request: Message, mode: int) -> Stream | None:
        """Forward the tunnel `stream` of `link`; return the outgoing stream, or None if it is refused."""
        try:
            outgoing = self.open(link.address, request, stream, lambda other: _join(stream, other), mode)
        except RefusedError as error:
            stream.close(_refused(error))
            return None
        stream.far = outgoing
        stream.repeat_ends()
        if isinstance(outgoing.far, Failover):
            self.suspect(outgoing.far)
        return outgoing

    # -- messages --------------------------------------------------------------------------------------------------

    def link_message(self, link: Link, message: Message, descriptors: tuple[int, ...]) -> None:
        if descriptors and not link.is_local:
            self.host.discard(descriptors)
            descriptors = ()
        received = message.received_from(link.address)
        try:
            if len(received.origin) + len(received.path) > MAX_HOPS:
                raise RefusedError(f"{self.address}: more than {MAX_HOPS} hops")
            if link.requests is not None and not link.is_local and not link.requests.take(received.origin, link.now):
                raise BusyError(f"{self.address}: too many requests a second; retry later")
            check_loop(self.address, message.path, received.origin, spare=1)
            target, path = self.resolve(message.path, received.origin)
            if isinstance(target, ServiceEntry):
                raise RefusedError(f"{self.address}: {SERVICE}{target.name} is a service; only nodes answer")
            if isinstance(target, Link):
                if target.is_local and not messages.is_answer(message.body):
                    raise RefusedError(f"{self.address}: {target.address} is a client; only nodes answer")
                if target.is_suspended:  # only tunnels wait
                    raise RefusedError(f"{self.address}: the link to {target.address} is suspended: {target.reason}")
                _, onward = hop(link.address, Message(path, message.origin, message.body))
                self.host.discard(descriptors)
                if not target.message(onward):
                    raise RefusedError(f"{self.address}: the send queue to {target.address} is full")
                return
        except RefusedError as error:
            self.host.discard(descriptors)
            self._bounce(link, received, str(error), self.retry_time(error, link.now) if link.is_local else 0)
            return
        self._deliver(link, received, descriptors)

    def _deliver(self, link: Link, message: Message, descriptors: tuple[int, ...]) -> None:
        """Process a message to this node itself."""
        try:
            body = messages.decode_body(message.body)
        except WireError as error:
            self.host.discard(descriptors)
            self._bounce(link, message, f"{self.address}: {error}")
            return
        if body.kind == messages.PING:
            self._answer(link, message, messages.encode_body(messages.PONG, body.id, data=body["data"]))
        elif body.kind == messages.LIST:
            self._answer(link, message, list_page(self, body, link.is_local and len(message.origin) == 1))
        elif body.kind == messages.NETWORK and self._rules(link).advertises_network:
            if self._may_query(link):
                self._answer(link, message, network_page(self, body, link.is_local, link.now))
            else:
                self._bounce(link, message, f"{self.address}: too many queries; retry later")
        elif link.is_local and len(message.origin) == 1:
            self.host.request(link, body, descriptors)
            return
        elif body.is_request:
            self._bounce(link, message, f"{self.address}: this request is available on the local node only")
        elif body.kind in (messages.PONG, messages.ERROR):
            self.probes.on_answer(body, message.origin)
        self.host.discard(descriptors)

    def _answer(self, link: Link, message: Message, answer: bytes) -> None:
        """Send `answer` to the origin of `message`.  Dropped if the neighbour does not read."""
        link.message(Message(message.origin[1:], (), answer))

    def retry_time(self, error: Exception, now: float) -> int:
        """Milliseconds for which a client may retry after `error`, while links are being established."""
        return int(max(0.0, self.settled - now) * 1000) if isinstance(error, UnknownError) else 0

    def _bounce(self, link: Link, message: Message, text: str, again: int = 0) -> None:
        """Answer a request with ERROR.  Answers are never answered."""
        if messages.is_request(message.body):
            id_ = messages.decode_body(message.body).id
            answer = messages.encode_body(messages.ERROR, id_, code=FAILED, text=text[:900], again=again)
            self._answer(link, message, answer)

    # -- services --------------------------------------------------------------------------------------------------

    def add_service(self, service: ServiceEntry) -> None:
        """Offer a service.  RefusedError if the name is taken."""
        if service.name == BENCH:
            raise RefusedError(f"{self.address}: {SERVICE}{BENCH} is reserved: choose another name")
        if service.name in self.services:
            raise RefusedError(f"{self.address}: {SERVICE}{service.name} is already offered")
        if len(self.services) >= MAX_SERVICES:
            raise BusyError(f"{self.address}: offers {MAX_SERVICES} services already")
        self.services[service.name] = service
        self._offer_services()

    def remove_services(self, owner: Any) -> list[str]:
        """Withdraw all services of `owner`; return their names."""
        names = [name for name, service in self.services.items() if service.owner is owner]
        for name in names:
            del self.services[name]
        self._offer_services()
        return names

    def _offer_services(self) -> None:
        self.discovery.offers(tuple(sorted(it.name for it in self.services.values() if it.name and not it.private)))


def _refused(error: RefusedError) -> Outcome:
    return Outcome(BUSY if isinstance(error, BusyError) else UNKNOWN, str(error))


def _join(stream: Stream, other: Stream) -> None:
    """Join `stream` to `other`, which replaces a stream that failed."""
    stream.far = other

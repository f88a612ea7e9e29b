"""The exchange: how tunnels reach the services and clients of this node, with their descriptors.

A tunnel between a guest and a service of the same daemon is made of socketpairs of which each gets its ends: its bytes
never come here.  What must cross a link is read and written by an `Endpoint`.
"""

from __future__ import annotations

from ..errors import RefusedError
from ..proto import body as say
from ..proto.address import SERVICE, check_address, format_path
from ..proto.link import Link
from ..proto.node import Node, Service, is_allowed
from ..proto.outcome import BUSY, GONE, LOST, REFUSED, Outcome, make_outcome
from ..proto.route import Message
from ..proto.stream import Nobody
from . import endpoint as ends
from .channel import adopt, socketpair
from .endpoint import Endpoint
from .guest import HANGUP_TIME, Guest, Incoming, Tunnel, close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..proto.stream import Stream
    from .log import Log
    from .loop import Loop

END_TIME = 1.0  # seconds that programs have to end when the daemon does


class Exchange:
    """All tunnels and services of the guests of `node`."""

    def __init__(self, loop: Loop, log: Log, node: Node) -> None:
        self.loop = loop
        self.log = log
        self.node = node
        self.endpoints: set[Endpoint] = set()
        self.is_closed = False  # no new tunnels: the daemon is ending
        self.incoming: set[Incoming] = set()
        self._quiet: Callable[[], None] | None = None  # when the last program has ended

    def end(self, why: str, done: Callable[[], None]) -> None:
        """Hang up on every program that serves a tunnel; done() when they have ended, or have had their time.

        Until then the descriptors stay open, so that no program takes the end of this daemon for the end of its input.
        """
        self.is_closed = True
        timer = self.loop.later(END_TIME, self._is_quiet)

        def quiet() -> None:
            timer.cancel()
            done()

        self._quiet = quiet
        for incoming in list(self.incoming):
            incoming.hang_up(why)
        if not self.incoming:
            self._is_quiet()

    def dropped(self, incoming: Incoming) -> None:
        self.incoming.discard(incoming)
        if not self.incoming:
            self._is_quiet()

    def _is_quiet(self) -> None:
        quiet, self._quiet = self._quiet, None
        if quiet is not None:
            quiet()

    def forget(self, guest: Guest) -> None:
        """A guest is gone, and its tunnels and services go too."""
        for name in filter(None, self.node.remove_services(guest)):
            self.log.info(f"{self.node.address}: {SERVICE}{name} is no longer offered")
        for tunnel in list(guest.tunnels.values()):
            tunnel.cancel()
        for channel in guest.failed:
            channel.close()
        for incoming in list(guest.incoming.values()):
            incoming.end(Outcome(LOST, f"{self.node.address}: the server of this service went away"))

    # -- services ------------------------------------------------------------------------------------------------

    def on_serve(self, guest: Guest, body: say.Body, descriptors: tuple[int, ...]) -> None:
        name = check_address(body["name"]) if body["name"] else ""
        allow = tuple(pattern.decode("utf-8", "replace") for pattern in body["allow"])
        self.node.add_service(Service(name, guest, runs=body["runs"], allow=allow, detail=body["detail"]))
        if name:
            self.log.info(f"{self.node.address}: offers {SERVICE}{name}")
        guest.say(say.DONE, body.id)

    def announce(self, incoming: Incoming, service: Service, origin: tuple[str, ...], fds: tuple[int, ...]) -> bool:
        told = incoming.server.say(
            say.INCOMING, incoming.id, fds, service=service.name, origin=origin, node=self.node.address
        )
        if not told:
            incoming.end(Outcome(BUSY, f"{self.node.address}: the server of {SERVICE}{service.name} does not answer"))
        return told

    def on_started(self, guest: Guest, body: say.Body, descriptors: tuple[int, ...]) -> None:
        incoming = guest.incoming.get(body.id)
        if incoming is None:
            close_all(descriptors)
        else:
            incoming.started(descriptors)

    def on_exited(self, guest: Guest, body: say.Body, descriptors: tuple[int, ...]) -> None:
        if body.id in guest.incoming:
            guest.incoming[body.id].end(make_outcome(body))

    def on_halted(self, guest: Guest, body: say.Body, descriptors: tuple[int, ...]) -> None:
        if body.id in guest.tunnels:
            guest.tunnels[body.id].halted(make_outcome(body))

    def offer(self, service: Service, stream: Stream, origin: tuple[str, ...]) -> None:
        """A tunnel from a neighbour for a service here."""
        if self.is_closed:
            stream.close(Outcome(REFUSED, f"{self.node.address}: is shutting down"))
            return
        mine: tuple[int, ...] = ()
        theirs: tuple[int, ...] = ()
        try:
            mine, theirs = make_pairs(service.runs)
        except OSError as error:
            stream.close(Outcome(BUSY, f"{self.node.address}: {error.strerror}"))
            return
        _Relay(self, service, stream, origin, mine, theirs)

    # -- tunnels -------------------------------------------------------------------------------------------------

    def on_tunnel(self, guest: Guest, body: say.Body, descriptors: tuple[int, ...]) -> None:
        target, _ = self.node.resolve(body["target"])
        if self.is_closed:
            raise RefusedError(f"{self.node.address}: is shutting down")
        if body.id in guest.tunnels:
            raise RefusedError(f"{self.node.address}: a tunnel needs an id of its own")
        tunnel = Tunnel(guest, body.id)
        if isinstance(target, Link):
            self._tunnel_over(tunnel, body)
            return
        service = target or self.node.itself()
        if not is_allowed(service.allow, (guest.link.address,)):
            raise RefusedError(f"{self.node.address}: {SERVICE}{service.name} is not for local programs")
        self._tunnel_here(tunnel, service, bool(body["apart"]))

    def _tunnel_over(self, tunnel: Tunnel, body: say.Body) -> None:
        """Over a link: this daemon relays."""
        mine, theirs = make_pairs(say.APART if body["apart"] else say.SINGLE)
        guest = tunnel.guest
        waiting = [theirs]

        def accepted() -> None:
            tunnel.open(waiting.pop())
            end.begin()

        def closed(outcome: Outcome) -> None:
            self.endpoints.discard(end)
            tunnel.end(outcome)
            if waiting or outcome.is_clean or guest.is_gone:
                close_all(waiting.pop() if waiting else ())
                end.channel.close()
            else:
                guest.hold(end.channel, self.loop)

        end = Endpoint(self.loop, adopt(mine), closed, accepted, holds_eof=bool(body["runs"]))
        try:
            stream = self.node.open(guest.link.address, Message(body["target"], (), b""), end)
        except RefusedError:
            close_all(waiting.pop())
            end.channel.close()
            raise
        end.join(stream)
        self.endpoints.add(end)
        tunnel.halted = end.halted
        guest.tunnels[tunnel.id] = tunnel
        tunnel.cancel = lambda: end.abandon(Outcome(GONE, f"{self.node.address}: the client went away"))
        self.log.debug(f"{self.node.address}: a tunnel from {guest.link.address} to {format_path(body['target'])}")

    def _tunnel_here(self, tunnel: Tunnel, service: Service, apart: bool) -> None:
        """To a service of this daemon: each side gets its ends, and the bytes go between them without us."""
        server: Guest = service.owner
        mine, theirs = make_pairs(min(service.runs, say.APART if apart else say.SINGLE))

        def started(descriptors: tuple[int, ...]) -> None:
            if tunnel.opened or mine:
                close_all(descriptors)
            if not tunnel.opened:
                tunnel.open(mine or descriptors)
            if not mine:
                incoming.end(Outcome())  # nobody will tell of its end: it is the socket's

        def exited(outcome: Outcome) -> None:
            if not tunnel.opened:
                close_all(mine)
            tunnel.end(outcome)

        incoming = Incoming(self, server, started, exited)
        tunnel.guest.tunnels[tunnel.id] = tunnel
        tunnel.cancel = lambda: incoming.hang_up("the client went away")
        self.announce(incoming, service, (tunnel.guest.link.address,), theirs)


class _Relay:
    """A tunnel from a neighbour to a service here: its stream, our ends of its descriptors, and its server."""

    def __init__(
        self,
        exchange: Exchange,
        service: Service,
        stream: Stream,
        origin: tuple[str, ...],
        mine: tuple[int, ...],
        theirs: tuple[int, ...],
    ) -> None:
        self.exchange = exchange
        self.stream = stream
        self.end: Endpoint | None = None
        self._is_started = False
        if mine:
            self._make_end(mine, ends.PROGRAM if service.runs == say.APART else ends.SOCKET)
        else:
            stream.far = _Early(self)
        self.incoming = Incoming(exchange, service.owner, self._started, self._exited)
        name = SERVICE + service.name if service.name else "this node"
        exchange.log.debug(f"{exchange.node.address}: a tunnel from {format_path(origin)} to {name}")
        exchange.announce(self.incoming, service, origin, theirs)

    def _make_end(self, fds: tuple[int, ...], kind: int) -> None:
        self.end = Endpoint(self.exchange.loop, adopt(fds), self._closed, kind=kind)
        self.exchange.endpoints.add(self.end)
        self.end.join(self.stream)
        self.stream.far = self.end

    def _started(self, descriptors: tuple[int, ...]) -> None:
        if self.stream.close_received or self._is_started:
            close_all(descriptors)  # the far end was faster
            if self.end is None:
                self.incoming.drop()
            return
        self._is_started = True
        if self.end is not None:
            close_all(descriptors)  # the server has ours already
        else:
            if not descriptors:
                self.incoming.end(Outcome(REFUSED, f"{self.exchange.node.address}: the server gave no descriptor"))
                return
            self._make_end(descriptors, ends.SOCKET)
            self.incoming.drop()
        assert self.end is not None
        self.stream.accept()
        self.end.begin()

    def _exited(self, outcome: Outcome) -> None:
        if self.end is None:
            self.stream.close(outcome)
        elif not self.end.is_over:
            self.end.exited(outcome)
        else:
            self.end.channel.close()

    def _closed(self, outcome: Outcome) -> None:
        """The tunnel is over.  After a failure the program is told before it sees the end of its input."""
        assert self.end is not None
        self.exchange.endpoints.discard(self.end)
        if outcome.is_clean or not self.incoming.is_running:
            (self.end.channel.close if outcome.is_clean else self.end.channel.reset)()
            self.incoming.drop()
        else:
            self.incoming.hang_up(outcome.describe())
            self.exchange.loop.later(HANGUP_TIME, self.end.channel.close)


class _Early(Nobody):
    """The far end of a stream while its server makes the descriptor: nothing can flow yet."""

    def __init__(self, relay: _Relay) -> None:
        self._relay = relay

    def close(self, outcome: Outcome) -> None:
        self._relay.incoming.hang_up(outcome.describe())


def make_pairs(how: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The descriptors of a tunnel, as (ours, theirs); of each, to read and to write.  OSError if none are left.

    PROVIDES: none.  SINGLE: one that does both.  APART: one for each direction, so that a program can close its
    output and go on reading.
    """
    if how == say.PROVIDES:
        return (), ()
    a, b = socketpair()
    if how == say.SINGLE:
        return (a,), (b,)
    try:
        c, d = socketpair()
    except OSError:
        close_all((a, b))
        raise
    return (a, c), (d, b)


REQUESTS: dict[int, Callable[[Exchange, Guest, say.Body, tuple[int, ...]], None]] = {
    say.SERVE: Exchange.on_serve,
    say.STARTED: Exchange.on_started,
    say.EXITED: Exchange.on_exited,
    say.HALTED: Exchange.on_halted,
    say.TUNNEL: Exchange.on_tunnel,
}

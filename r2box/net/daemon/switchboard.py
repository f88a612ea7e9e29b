"""The exchange: how tunnels reach the services and clients of this node, with their descriptors.

A tunnel between a guest and a service of the same daemon is made of socketpairs of which each gets its ends: its bytes
never come here.  What must cross a link is read and written by an `Endpoint`.
"""

from __future__ import annotations

from ...errors import RefusedError
from ...proto.link.link import Link
from ...proto.link.policy import is_allowed
from ...proto.link.stream import NullEnd
from ...proto.routing.failover import Failover
from ...proto.routing.router import Router
from ...proto.routing.service_entry import ServiceEntry
from ...proto.wire import messages
from ...proto.wire.address import BENCH, SERVICE, check_address, format_path
from ...proto.wire.datagrams import describe_modes
from ...proto.wire.frames import DATAGRAMS, STREAM
from ...proto.wire.outcome import BUSY, GONE, LOST, REFUSED, Outcome, make_outcome
from ...proto.wire.route import Message
from ..io.channel import close_all, socketpair
from ..io.program import open_channel, program_pairs
from ..io.reserve import check_for_neighbour, is_short
from ..link import endpoint as ends
from ..link.datagram_endpoint import DatagramEndpoint, whole_pair
from ..link.endpoint import GRACE, Endpoint
from .blackhole import BlackholeCheck
from .clients import HANGUP_TIME, ClientTunnel, LocalClient
from .starts import Incoming, Starts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...proto.limits import Limits
    from ...proto.link.stream import Stream
    from ..io.log import Log
    from ..io.loop import Loop

END_TIME = 1.0  # seconds that programs have to end when the daemon does


class Switchboard:
    """All tunnels and services of the guests of `node`."""

    def __init__(self, loop: Loop, log: Log, node: Router, limits: Limits) -> None:
        self.loop = loop
        self.log = log
        self.node = node
        self.endpoints: dict[Endpoint, Stream] = {}  # with their streams, also when those are over
        self.is_closed = False  # no new tunnels: the daemon is ending
        self.starts = Starts(node.address, limits)

    def end(self, why: str, done: Callable[[], None]) -> None:
        """Hang up on every program that serves a tunnel; done() when they have ended, or have had their time.

        Until then the descriptors stay open, so that no program takes the end of this daemon for the end of its input.
        """
        self.is_closed = True
        timer = self.loop.later(END_TIME, self.starts.wait_no_longer)

        def quiet() -> None:
            timer.cancel()
            done()

        self.starts.hang_up_all(why, quiet)

    def forget(self, client: LocalClient) -> None:
        """A guest is gone, and its tunnels and services go too."""
        for name in filter(None, self.node.remove_services(client)):
            self.log.info(f"{self.node.address}: {SERVICE}{name} is no longer offered")
            self.node.host.news("service-down", f"{self.node.address}/{name}", (), 0)
        for tunnel in list(client.tunnels.values()):
            tunnel.cancel()
        for channel in client.failed:
            channel.close()
        client.starts.close()
        for incoming in list(client.incoming.values()):
            incoming.end(Outcome(LOST, f"{self.node.address}: the server of this service went away"))

    # -- services ------------------------------------------------------------------------------------------------

    def on_serve(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        name = check_address(body["name"]) if body["name"] else ""
        allow = tuple(pattern.decode("utf-8", "replace") for pattern in body["allow"])
        check_mode(client, body["mode"])
        private, mode = bool(body["private"]), body["mode"]
        self.node.add_service(
            ServiceEntry(
                name, client, runs=body["runs"], allow=allow, detail=body["detail"], private=private, mode=mode,
                begun=self.loop.now(),
            )
        )  # fmt: skip
        if name:
            self.log.info(f"{self.node.address}: offers {SERVICE}{name}")
            self.node.host.news("service-up", f"{self.node.address}/{name}", (), 0)
        client.send(messages.DONE, body.id)

    def on_started(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        incoming = client.incoming.get(body.id)
        if incoming is None:
            close_all(descriptors)
        else:
            incoming.started(descriptors)

    def refuse(self, client: LocalClient, body: messages.Body, error: OSError) -> None:
        """The system refuses what `body` asks for or brings, as when no descriptor is left."""
        why, code = f"{self.node.address}: {error.strerror}", BUSY if is_short(error) else 0
        incoming = client.incoming.get(body.id) if body.kind == messages.STARTED else None
        if incoming is not None:
            incoming.end(Outcome(BUSY, why))
        elif body.is_request:
            client.fail(body.id, why, code=code)

    def on_exited(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if body.id in client.incoming:
            client.incoming[body.id].end(make_outcome(body))

    def on_halted(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if body.id in client.tunnels:
            client.tunnels[body.id].halted(make_outcome(body))

    def offer(self, service: ServiceEntry, stream: Stream, origin: tuple[str, ...]) -> None:
        """A tunnel from a neighbour for a service here."""
        if self.is_closed:
            stream.close(Outcome(REFUSED, f"{self.node.address}: is shutting down"))
            return
        why = self.starts.refusal(service, origin[0])
        if why:
            stream.close(Outcome(BUSY, why))
            return
        try:
            _Relay(self, service, stream, origin)
        except OSError as error:
            stream.close(Outcome(BUSY, f"{self.node.address}: {error.strerror}"))

    # -- tunnels -------------------------------------------------------------------------------------------------

    def on_tunnel(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        """`descriptors` are the client's own stdin and stdout, or nothing."""
        try:
            check_mode(client, body["mode"])
            target, _ = self.node.resolve(body["target"])
            if self.is_closed:
                raise RefusedError(f"{self.node.address}: is shutting down")
            if body.id in client.tunnels:
                raise RefusedError(f"{self.node.address}: a tunnel needs an id of its own")
            if len(descriptors) not in (0, 2):
                raise RefusedError(f"{self.node.address}: a tunnel takes no descriptors, or an input and an output")
            service = None if isinstance(target, Link) else target or self.node.itself()
            if service is self.node.bench:
                raise RefusedError(f"{self.node.address}: {BENCH} measures the way to another node: give one with -t")
            if service is not None and not is_allowed(service.allow, (client.link.address,)):
                raise RefusedError(f"{self.node.address}: {SERVICE}{service.name} is not for local programs")
            if service is not None and service.mode != body["mode"]:
                why = describe_modes(service.mode)
                raise RefusedError(f"{self.node.address}: {SERVICE}{service.name} {why}")
            why = self.starts.refusal(service) if service is not None else ""
            if why:
                raise RefusedError(why)
        except RefusedError:
            close_all(descriptors)
            raise
        if service is None:
            _LinkTunnel(self, client, body, descriptors)
        else:
            LocalTunnel(self, client, body, service, descriptors)


class _LinkTunnel(ClientTunnel):
    """A tunnel over a link: this daemon relays between the stream and the client's descriptors."""

    __slots__ = ("_suspect", "_end", "_switchboard", "_theirs")

    def __init__(
        self, switchboard: Switchboard, client: LocalClient, body: messages.Body, given: tuple[int, ...]
    ) -> None:
        how = messages.APART if body["apart"] else messages.SINGLE
        mine, self._theirs = (given, ()) if given else make_pairs(how, body["mode"])
        super().__init__(client, body)
        self._switchboard = switchboard
        kind = ends.STDIO if given and not body["mode"] else ends.SOCKET if self.detached else ends.CLIENT
        is_program = bool(body["runs"]) and not given and body["mode"] == STREAM
        channel = open_channel(switchboard.loop, mine, is_program)
        self._end = ENDS[body["mode"]](switchboard.loop, channel, self, kind, holds_eof=bool(body["runs"]))
        self._end.teller = client.link

        def join(stream: Stream) -> None:
            """By the way that it goes now."""
            self._end.join(stream)
            stream.name((client.link.address,), body["target"])
            switchboard.endpoints[self._end] = stream

        try:
            wish = Message(body["target"], (), b"")
            stream = switchboard.node.open(client.link.address, wish, self._end, join, body["mode"])
        except RefusedError:
            del client.tunnels[self.id]
            close_all(self._theirs)
            self._end.channel.close()
            raise
        join(stream)
        attempt = stream.far
        self._suspect = None
        if isinstance(attempt, Failover):
            self._suspect = BlackholeCheck(switchboard.loop, switchboard.node, attempt)
        target = format_path(body["target"])
        switchboard.log.debug(f"{switchboard.node.address}: a tunnel from {client.link.address} to {target}")

    def accepted(self) -> None:
        self._settle()
        theirs, self._theirs = self._theirs, ()
        self.open(theirs)
        self._end.begin()

    def _settle(self) -> None:
        """It stands, or never will."""
        if self._suspect is not None:
            self._suspect.end()
            self._suspect = None

    def closed(self, outcome: Outcome) -> None:
        self._settle()
        self._switchboard.endpoints.pop(self._end, None)
        self.end(outcome)
        close_all(self._theirs)
        hears_first = not self.client.link.passes  # what we say overtakes the bytes
        if not self.opened or self.detached or outcome.is_clean or self.client.is_closed or hears_first:
            self._end.channel.close()
        elif self._end.channel.is_inet:
            self._end.channel.reset()  # which cannot be taken for an end, whenever it is seen
        else:
            self.client.close_later(self._end.channel, self._switchboard.loop)

    def cancel(self) -> None:
        self._end.abandon(Outcome(GONE, f"{self._switchboard.node.address}: the client went away"))

    def halted(self, outcome: Outcome) -> None:
        self._end.halted(outcome)


class LocalTunnel(ClientTunnel):
    """A tunnel to a service of this daemon: each side gets its ends, and the bytes go between them without us.

    A program gets sockets, and never the client's own stdin and stdout: one that was made for inetd asks whether 0 is a
    socket, and writes to it (see `program`).  Who opened the tunnel has the other ends, and copies if it has to.
    """

    __slots__ = ("_switchboard", "_incoming", "_is_program", "_mine", "_runs", "begun", "where")

    def __init__(
        self, switchboard: Switchboard, client: LocalClient, body: messages.Body, service: ServiceEntry,
        given: tuple[int, ...],
    ) -> None:
        self._switchboard = switchboard
        self._runs = service.runs
        self.begun = switchboard.loop.now()
        self.where = format_path(body["target"]) or switchboard.node.address
        close_all(given)
        how = min(service.runs, messages.APART if body["apart"] else messages.SINGLE)
        self._mine, theirs = make_pairs(how, service.mode)
        self._is_program = how == messages.APART and service.mode == STREAM
        super().__init__(client, body)
        self._incoming = Incoming(switchboard.starts, service, self, (client.link.address,), theirs)
        self._incoming.begin()

    def started(self, descriptors: tuple[int, ...]) -> None:
        if self.opened or self._runs != messages.PROVIDES:
            close_all(descriptors)
            descriptors = ()
        if not self.opened:
            mine, self._mine = self._mine, ()
            self.open(mine or descriptors, program=self._is_program)
        if self._runs != messages.APART:
            self._incoming.end(Outcome())  # nobody will tell of its end: it is the socket's

    def exited(self, outcome: Outcome) -> None:
        close_all(self._mine)
        self._mine = ()
        if self.opened and not self._incoming.server.link.passes:
            self._switchboard.loop.later(GRACE, lambda: self.end(outcome))  # its last bytes may still be on their way
        else:
            self.end(outcome)

    def cancel(self) -> None:
        self._incoming.hang_up("the client went away")


class _Relay:
    """A tunnel from a neighbour to a service here: its stream, our ends of its descriptors, and its server."""

    __slots__ = ("_end", "_switchboard", "_incoming", "_is_started", "_mode", "_runs", "_server", "_stream")

    def __init__(
        self, switchboard: Switchboard, service: ServiceEntry, stream: Stream, origin: tuple[str, ...]
    ) -> None:
        mine, theirs = make_pairs(service.runs, service.mode)
        check_for_neighbour(*mine, *theirs)
        self._mode = service.mode
        self._server: LocalClient = service.owner
        self._switchboard = switchboard
        self._stream = stream
        self._end: Endpoint | None = None
        self._is_started = False
        self._runs = service.runs
        if mine:
            self._make_end(mine, ends.PROGRAM if service.runs == messages.APART else ends.SOCKET)
        else:
            stream.far = _Early(self)
        self._incoming = Incoming(switchboard.starts, service, self, origin, theirs, origin[0])
        name = SERVICE + service.name if service.name else "this node"
        switchboard.log.debug(f"{switchboard.node.address}: a tunnel from {format_path(origin)} to {name}")
        self._incoming.begin()

    def _make_end(self, fds: tuple[int, ...], kind: int) -> None:
        channel = open_channel(self._switchboard.loop, fds, kind == ends.PROGRAM and self._mode == STREAM)
        self._end = ENDS[self._mode](self._switchboard.loop, channel, self, kind)
        self._end.teller = self._server.link
        self._switchboard.endpoints[self._end] = self._stream
        self._end.join(self._stream)
        self._stream.far = self._end

    def started(self, descriptors: tuple[int, ...]) -> None:
        """The server has taken it."""
        is_over = self._end is not None and self._end.is_over
        if self._stream.close_received or self._is_started or is_over:
            close_all(descriptors)  # the far end was faster
            if self._runs != messages.APART:
                self._incoming.drop()
            return
        self._is_started = True
        if self._end is not None:
            close_all(descriptors)  # the server has ours already
        elif descriptors:
            check_for_neighbour(*descriptors)  # OSError: see `Switchboard.refuse`
            self._make_end(descriptors, ends.SOCKET)
        else:
            self._incoming.end(Outcome(REFUSED, f"{self._switchboard.node.address}: the server gave no descriptor"))
            return
        if self._runs != messages.APART:
            self._incoming.drop()
        assert self._end is not None
        self._stream.accept()
        self._end.begin()

    def exited(self, outcome: Outcome) -> None:
        """The server has said how its program ended."""
        if self._end is None:
            self._stream.close(outcome)
        elif not self._end.is_over:
            self._end.exited(outcome)
        else:
            self._end.channel.close()

    def accepted(self) -> None:
        """We accept; nobody tells us so."""

    def closed(self, outcome: Outcome) -> None:
        """The tunnel is over.  After a failure the program is hung up on before it sees the end of its input."""
        assert self._end is not None
        self._switchboard.endpoints.pop(self._end, None)
        if outcome.is_clean or not self._incoming.is_running:
            (self._end.channel.close if outcome.is_clean else self._end.channel.reset)()
        else:
            self._switchboard.loop.later(HANGUP_TIME, self._end.channel.close)
        self._incoming.hang_up(outcome.describe() or "the tunnel is over")

    def hang_up(self, outcome: Outcome) -> None:
        """The far end went away before the server has answered."""
        self._incoming.hang_up(outcome.describe())


class _Early(NullEnd):
    """The far end of a stream while its server makes the descriptor: nothing can flow yet."""

    def __init__(self, relay: _Relay) -> None:
        self._relay = relay

    def close(self, outcome: Outcome) -> None:
        self._relay.hang_up(outcome)


def check_mode(client: LocalClient, mode: int) -> None:
    """RefusedError if `client` can have nothing to do with tunnels of this mode."""
    if mode not in ENDS:
        raise RefusedError(f"does not know tunnels of the kind {mode}")
    if mode == DATAGRAMS and not client.link.passes:
        raise RefusedError("datagrams do not pass a control socket that is forwarded: start this where the daemon runs")


def make_pairs(how: int, mode: int = STREAM) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The descriptors of a tunnel, as (ours, theirs); of each, to read and to write.  OSError if none are left.

    PROVIDES: none.  SINGLE: one that does both.  APART: one for each direction, so that a program can close its
    output and go on reading.
    """
    if how == messages.PROVIDES:
        return (), ()
    pair = whole_pair if mode == DATAGRAMS else socketpair
    if how == messages.APART and mode == STREAM:
        return program_pairs()
    a, b = pair()
    if how == messages.SINGLE:
        return (a,), (b,)
    try:
        c, d = pair()
    except OSError:
        close_all((a, b))
        raise
    return (a, c), (d, b)


ENDS: dict[int, type[Endpoint]] = {STREAM: Endpoint, DATAGRAMS: DatagramEndpoint}
REQUESTS: dict[int, Callable[[Switchboard, LocalClient, messages.Body, tuple[int, ...]], None]] = {
    messages.SERVE: Switchboard.on_serve,
    messages.STARTED: Switchboard.on_started,
    messages.EXITED: Switchboard.on_exited,
    messages.HALTED: Switchboard.on_halted,
    messages.TUNNEL: Switchboard.on_tunnel,
}

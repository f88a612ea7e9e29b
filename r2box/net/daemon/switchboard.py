"""Switchboard: connects tunnels to the services and clients of this node.

    LocalTunnel     client -> service here: socketpairs; the bytes do not pass through the daemon
    OutboundTunnel  client -> link: an `Endpoint` reads and writes the daemon's descriptors
    InboundTunnel   link -> service here: likewise
"""

from __future__ import annotations

from ...errors import RefusedError
from ...proto.link.link import Link
from ...proto.link.policy import is_allowed
from ...proto.link.stream import NullStreamEnd
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
from ..link.datagram_endpoint import DatagramEndpoint, datagram_pair
from ..link.endpoint import EXIT_GRACE, Endpoint
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
    """All tunnels and services of the clients of `node`."""

    def __init__(self, loop: Loop, log: Log, node: Router, limits: Limits) -> None:
        self.loop = loop
        self.log = log
        self.node = node
        self.endpoints: dict[Endpoint, Stream] = {}  # with their streams, also closed ones
        self.is_closed = False  # no new tunnels: the daemon is ending
        self.starts = Starts(node.address, limits)

    def end(self, why: str, done: Callable[[], None]) -> None:
        """Hang up on every program that serves a tunnel.  done() is called when all have ended, or after `END_TIME`.

        Until then the descriptors stay open: no program must read the end of the daemon as the end of its input.
        """
        self.is_closed = True
        timer = self.loop.later(END_TIME, self.starts.wait_no_longer)

        def ended() -> None:
            timer.cancel()
            done()

        self.starts.hang_up_all(why, ended)

    def forget(self, client: LocalClient) -> None:
        """End the tunnels and services of a client."""
        for name in filter(None, self.node.remove_services(client)):
            self.log.info(f"{self.node.address}: {SERVICE}{name} is no longer offered")
            self.node.host.news("service-down", f"{self.node.address}/{name}", (), 0)
        for tunnel in list(client.tunnels.values()):
            tunnel.cancel()
        for channel in client.failed:
            channel.close()
        client.starts.close()
        for incoming in list(client.incoming.values()):
            incoming.end(Outcome(LOST, f"{self.node.address}: the server of this service disconnected"))

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
        """Report a system error, such as no free descriptor, that the request `body` has caused."""
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
            InboundTunnel(self, service, stream, origin)
        except OSError as error:
            stream.close(Outcome(BUSY, f"{self.node.address}: {error.strerror}"))

    # -- tunnels -------------------------------------------------------------------------------------------------

    def on_tunnel(self, client: LocalClient, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        """`descriptors`: the client's stdin and stdout, or none."""
        try:
            check_mode(client, body["mode"])
            target, _ = self.node.resolve(body["target"])
            if self.is_closed:
                raise RefusedError(f"{self.node.address}: is shutting down")
            if body.id in client.tunnels:
                raise RefusedError(f"{self.node.address}: a tunnel needs an unused id")
            if len(descriptors) not in (0, 2):
                raise RefusedError(f"{self.node.address}: a tunnel takes no descriptors, or an input and an output")
            service = None if isinstance(target, Link) else target or self.node.itself()
            if service is self.node.bench:
                raise RefusedError(f"{self.node.address}: {BENCH} measures the path to another node: give one with -t")
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
            OutboundTunnel(self, client, body, descriptors)
        else:
            LocalTunnel(self, client, body, service, descriptors)


class OutboundTunnel(ClientTunnel):
    """A tunnel from a client to a link: the daemon copies between the stream and the client's descriptors."""

    __slots__ = ("_check", "_end", "_switchboard", "_theirs")

    def __init__(
        self, switchboard: Switchboard, client: LocalClient, body: messages.Body, given: tuple[int, ...]
    ) -> None:
        how = messages.APART if body["apart"] else messages.SINGLE
        ours, self._theirs = (given, ()) if given else make_pairs(how, body["mode"])
        super().__init__(client, body)
        self._switchboard = switchboard
        kind = ends.STDIO if given and not body["mode"] else ends.SOCKET if self.detached else ends.CLIENT
        is_program = bool(body["runs"]) and not given and body["mode"] == STREAM
        channel = open_channel(switchboard.loop, ours, is_program)
        self._end = ENDS[body["mode"]](switchboard.loop, channel, self, kind, holds_eof=bool(body["runs"]))
        self._end.exit_source = client.link

        def join(stream: Stream) -> None:
            """Use the stream of the present route."""
            self._end.join(stream)
            stream.name((client.link.address,), body["target"])
            switchboard.endpoints[self._end] = stream

        try:
            target = Message(body["target"], (), b"")
            stream = switchboard.node.open(client.link.address, target, self._end, join, body["mode"])
        except RefusedError:
            del client.tunnels[self.id]
            close_all(self._theirs)
            self._end.channel.close()
            raise
        join(stream)
        attempt = stream.far
        self._check = None
        if isinstance(attempt, Failover):
            self._check = BlackholeCheck(switchboard.loop, switchboard.node, attempt)
        where = format_path(body["target"])
        switchboard.log.debug(f"{switchboard.node.address}: a tunnel from {client.link.address} to {where}")

    def accepted(self) -> None:
        self._end_check()
        theirs, self._theirs = self._theirs, ()
        self.open(theirs)
        self._end.begin()

    def _end_check(self) -> None:
        if self._check is not None:
            self._check.end()
            self._check = None

    def closed(self, outcome: Outcome) -> None:
        self._end_check()
        self._switchboard.endpoints.pop(self._end, None)
        self.end(outcome)
        close_all(self._theirs)
        is_relayed = not self.client.link.passes_descriptors  # then ENDED arrives before the end of the bytes
        if not self.opened or self.detached or outcome.is_clean or self.client.is_closed or is_relayed:
            self._end.channel.close()
        elif self._end.channel.is_inet:
            self._end.channel.reset()  # cannot be mistaken for a clean end
        else:
            self.client.close_later(self._end.channel, self._switchboard.loop)

    def cancel(self) -> None:
        self._end.abandon(Outcome(GONE, f"{self._switchboard.node.address}: the client disconnected"))

    def halted(self, outcome: Outcome) -> None:
        self._end.halted(outcome)


class LocalTunnel(ClientTunnel):
    """A tunnel from a client to a service of this daemon: each gets one end of the socketpairs.

    A program gets sockets, never the client's stdin and stdout: one made for inetd checks whether 0 is a socket, and
    writes to it (see `net.io.program`).  The client has the other ends, and copies where necessary.
    """

    __slots__ = ("_incoming", "_is_program", "_ours", "_runs", "_switchboard", "begun", "where")

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
        self._ours, theirs = make_pairs(how, service.mode)
        self._is_program = how == messages.APART and service.mode == STREAM
        super().__init__(client, body)
        self._incoming = Incoming(switchboard.starts, service, self, (client.link.address,), theirs)
        self._incoming.begin()

    def started(self, descriptors: tuple[int, ...]) -> None:
        if self.opened or self._runs != messages.PROVIDES:
            close_all(descriptors)
            descriptors = ()
        if not self.opened:
            ours, self._ours = self._ours, ()
            self.open(ours or descriptors, self._is_program, connection=self._runs != messages.APART)
        if self._runs != messages.APART:
            self._incoming.end(Outcome())  # no exit is reported for a socket

    def exited(self, outcome: Outcome) -> None:
        close_all(self._ours)
        self._ours = ()
        if self.opened and not self._incoming.server.link.passes_descriptors:
            self._switchboard.loop.later(EXIT_GRACE, lambda: self.end(outcome))  # its last bytes may still be relayed
        else:
            self.end(outcome)

    def cancel(self) -> None:
        self._incoming.hang_up("the client disconnected")


class InboundTunnel:
    """A tunnel from a neighbour to a service here: its stream, the daemon's descriptors, and its server."""

    __slots__ = ("_end", "_incoming", "_is_started", "_mode", "_runs", "_server", "_stream", "_switchboard")

    def __init__(
        self, switchboard: Switchboard, service: ServiceEntry, stream: Stream, origin: tuple[str, ...]
    ) -> None:
        ours, theirs = make_pairs(service.runs, service.mode)
        check_for_neighbour(*ours, *theirs)
        self._mode = service.mode
        self._server: LocalClient = service.owner
        self._switchboard = switchboard
        self._stream = stream
        self._end: Endpoint | None = None
        self._is_started = False
        self._runs = service.runs
        if ours:
            self._make_end(ours, ends.PROGRAM if service.runs == messages.APART else ends.SOCKET)
        else:
            stream.far = _PendingEnd(self)
        self._incoming = Incoming(switchboard.starts, service, self, origin, theirs, origin[0])
        name = SERVICE + service.name if service.name else "this node"
        switchboard.log.debug(f"{switchboard.node.address}: a tunnel from {format_path(origin)} to {name}")
        self._incoming.begin()

    def _make_end(self, fds: tuple[int, ...], kind: int) -> None:
        channel = open_channel(self._switchboard.loop, fds, kind == ends.PROGRAM and self._mode == STREAM)
        self._end = ENDS[self._mode](self._switchboard.loop, channel, self, kind)
        self._end.exit_source = self._server.link
        self._switchboard.endpoints[self._end] = self._stream
        self._end.join(self._stream)
        self._stream.far = self._end

    def started(self, descriptors: tuple[int, ...]) -> None:
        """The server has answered."""
        is_over = self._end is not None and self._end.is_over
        if self._stream.close_received or self._is_started or is_over:
            close_all(descriptors)  # the far end has closed it meanwhile
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
        """The server has reported how its program ended."""
        if self._end is None:
            self._stream.close(outcome)
        elif not self._end.is_over:
            self._end.exited(outcome)
        else:
            self._end.channel.close()

    def accepted(self) -> None:
        """Not called: this end accepts the tunnel itself."""

    def closed(self, outcome: Outcome) -> None:
        """The tunnel has ended.  After a failure, hang up on the program before its input ends."""
        assert self._end is not None
        self._switchboard.endpoints.pop(self._end, None)
        if outcome.is_clean or not self._incoming.is_running:
            (self._end.channel.close if outcome.is_clean else self._end.channel.reset)()
        else:
            self._switchboard.loop.later(HANGUP_TIME, self._end.channel.close)
        self._incoming.hang_up(outcome.describe() or "the tunnel has ended")

    def hang_up(self, outcome: Outcome) -> None:
        """The far end has closed the tunnel before the server answered."""
        self._incoming.hang_up(outcome.describe())


class _PendingEnd(NullStreamEnd):
    """The far end of a stream while the server makes its descriptor: no bytes flow yet."""

    def __init__(self, tunnel: InboundTunnel) -> None:
        self._tunnel = tunnel

    def close(self, outcome: Outcome) -> None:
        self._tunnel.hang_up(outcome)


def check_mode(client: LocalClient, mode: int) -> None:
    """RefusedError if `client` cannot open or serve tunnels of this mode."""
    if mode not in ENDS:
        raise RefusedError(f"unknown tunnel mode {mode}")
    if mode == DATAGRAMS and not client.link.passes_descriptors:
        raise RefusedError("datagrams do not pass a control socket that is forwarded: start this where the daemon runs")


def make_pairs(how: int, mode: int = STREAM) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The descriptors of a tunnel as (ours, theirs), each (read, write) or both in one.  OSError if none are free.

    PROVIDES: none.  SINGLE: one for both directions.  APART: one for each, so that a program can close its output and
    continue to read.
    """
    if how == messages.PROVIDES:
        return (), ()
    pair = datagram_pair if mode == DATAGRAMS else socketpair
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

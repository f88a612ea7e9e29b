"""The daemon: joins a Node to the loop and to the control socket.

It is a switchboard.  Clients on the control socket ask for tunnels, links and services; descriptors travel beside
their messages (SCM_RIGHTS).  A tunnel between a client and a service of this daemon is made of socketpairs of which
each gets its ends: its bytes never come here.  Only what must cross a link is read and written by an `Endpoint`.

    _Client    one program on the control socket, and all that goes when it goes
    _Tunnel    a tunnel that a client asked for
    _Incoming  a tunnel that a server was told of, and what to do when the server answers
"""

from __future__ import annotations

import errno
import os

from .. import __version__
from ..errors import AddressError, RefusedError
from ..proto import body as say
from ..proto.address import SERVICE, check_address, format_path
from ..proto.link import Link, Me
from ..proto.node import Node, Service, is_allowed
from ..proto.outcome import BUSY, ENDED, GONE, LOST, REFUSED, Outcome, make_outcome
from ..proto.route import Message
from . import endpoint as ends
from .channel import Channel, adopt, socketpair
from .driver import Driver, Group
from .endpoint import Endpoint
from .socketfile import listen

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    from ..proto.stream import Stream
    from .log import Log
    from .loop import Loop, Timer

HANGUP_TIME = 5.0  # seconds that a program has to end after its tunnel failed, before it sees the end of its input
DRAIN_TIME = 2.0  # seconds for what has been accepted to be passed on when the daemon ends
ACCEPT_PAUSE = 1.0  # seconds without new clients when there are no descriptors left
PROVIDES, SINGLE, APART = range(3)  # a server makes the descriptor itself; wants one; wants stdin and stdout apart


class _Client:
    """A program on the control socket."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.attached: dict[int, Link] = {}
        self.tunnels: dict[int, _Tunnel] = {}
        self.incoming: dict[int, _Incoming] = {}
        self.failed: list[Channel] = []  # of tunnels that failed, held open until the client has gone
        self._last = 0

    def say(self, kind: int, id: int, descriptors: tuple[int, ...] = (), **fields: Any) -> bool:
        """Send a body; `descriptors` are given away.  False if the client does not read."""
        if self.link.message(Message((), (), say.encode_body(kind, id, **fields)), descriptors):
            return True
        close_all(descriptors)
        return False

    def fail(self, id: int, text: str) -> None:
        self.say(say.ERROR, id, text=text)

    def next_id(self) -> int:
        self._last += 1
        return self._last


class _Tunnel:
    """A tunnel that `client` asked for, under the id of its request."""

    def __init__(self, client: _Client, id: int) -> None:
        self.client = client
        self.id = id
        self.opened = False
        self.cancel: Callable[[], None] = lambda: None  # the client went away

    def open(self, descriptors: tuple[int, ...]) -> None:
        self.opened = True
        self.client.say(say.OPENED, self.id, descriptors)

    def end(self, outcome: Outcome) -> None:
        self.client.tunnels.pop(self.id, None)
        if self.opened:
            self.client.say(say.ENDED, self.id, **outcome.fields())
        else:
            self.client.say(say.ERROR, self.id, code=outcome.code, text=outcome.describe() or "it ended at once")


class _Incoming:
    """A tunnel for a service of `server`, from its announcement to the exit of its program."""

    def __init__(
        self, server: _Client, started: Callable[[tuple[int, ...]], None], exited: Callable[[Outcome], None]
    ) -> None:
        self.server = server
        self.id = server.next_id()
        self.started = started
        self.exited = exited
        server.incoming[self.id] = self

    def hang_up(self, text: str) -> None:
        if self.id in self.server.incoming:
            self.server.say(say.HANGUP, self.id, text=text)

    def end(self, outcome: Outcome) -> None:
        if self.server.incoming.pop(self.id, None) is not None:
            self.exited(outcome)


class Daemon:
    """The node `address`.  `done()` is called when it has ended.  It is the `Host` of its Node."""

    def __init__(self, loop: Loop, address: str, log: Log, done: Callable[[], None]) -> None:
        self.loop = loop
        self.log = log
        self.group = Group(loop)
        self.node = Node(Me(check_address(address), os.urandom(16), software=f"r2box {__version__}"), self)
        self._done = done
        self._drivers: dict[Link, Driver] = {}
        self._clients: dict[Link, _Client] = {}
        self._endpoints: set[Endpoint] = set()
        self._reports: dict[Link, tuple[_Client, int]] = {}  # who wants to hear of a link
        self._listener: socket.socket | None = None
        self._path = ""
        self._ending = False
        self._drain_timer: Timer | None = None
        self._spare = os.open(os.devnull, os.O_RDONLY)  # given up for a moment to answer when none are left

    # -- the control socket --------------------------------------------------------------------------------------

    def listen(self, path: str) -> None:
        """Take clients at `path`.  DaemonError if that cannot be."""
        self._listener = listen(path)
        self._path = path
        self.loop.watch(self._listener.fileno(), self._accept)
        self.log.info(f"{self.node.address}: listening at {path}")

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            else:
                self.log.error(f"{self._path}: accept: {error.strerror}")
            return
        self.adopt_client(sock.detach())

    def _turn_away(self) -> None:
        """No descriptor is left: close the caller's connection, so that it does not wait, and pause."""
        assert self._listener is not None
        self.log.error("no descriptors left: new clients are turned away (see ulimit -n)")
        os.close(self._spare)
        try:
            self._listener.accept()[0].close()
        except OSError as error:
            self.log.debug(f"accept: {error.strerror}")
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self.loop.watch(self._listener.fileno())
        self.loop.later(ACCEPT_PAUSE, self._accept_again)

    def _accept_again(self) -> None:
        if self._listener is not None:
            self.loop.watch(self._listener.fileno(), self._accept)

    def adopt_client(self, fd: int) -> None:
        """Take the other end of a connected UNIX socket as a client."""
        self._drive(Link(self.node, self.node.me, self.loop.now(), local=True), Channel(fd))

    def _drive(self, link: Link, channel: Channel) -> None:
        def gone() -> None:
            del self._drivers[link]
            if self._ending and not self._drivers:
                self._finish()

        self._drivers[link] = Driver(self.group, link, channel, self.loop, gone)

    # -- what the node wants (Host) --------------------------------------------------------------------------------

    def up(self, link: Link) -> None:
        if link.is_local:
            self._clients[link] = _Client(link)
            return
        self.log.info(f"{self.node.address}: linked to {link.address}")
        if link in self._reports:
            client, id_ = self._reports[link]
            client.say(say.LINKED, id_, address=link.address)

    def down(self, link: Link, reason: str) -> None:
        if link.is_local:
            client = self._clients.pop(link, None)
            if client is not None:
                self._forget(client)
            return
        if link.was_up or link not in self._reports:  # what never was a link is told to who tried
            name = link.address or "a neighbour"
            self.log.info(f"{self.node.address}: the link to {name} has ended{': ' + reason if reason else ''}")
        if link in self._reports:
            client, id_ = self._reports.pop(link)
            client.attached.pop(id_, None)
            client.say(say.ENDED, id_, code=LOST if reason else ENDED, text=reason)

    def wake(self, link: Link) -> None:
        driver = self._drivers.get(link)
        if driver is not None:
            driver.wake()

    def discard(self, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)

    def request(self, link: Link, body: say.Body, descriptors: tuple[int, ...]) -> None:
        client = self._clients.get(link)
        handler = _REQUESTS.get(body.kind)
        if client is None or handler is None:
            close_all(descriptors)
            if client is not None and body.is_request:
                client.fail(body.id, f"this daemon does not know the request 0x{body.kind:02x}")
            return
        try:
            handler(self, client, body, descriptors)
        except (RefusedError, AddressError) as error:
            close_all(descriptors)
            client.fail(body.id, str(error))
        except OSError as error:
            client.fail(body.id, f"{self.node.address}: {error.strerror}")

    def _forget(self, client: _Client) -> None:
        """A client is gone, and all that hung on it goes too."""
        for name in filter(None, self.node.remove_services(client)):
            self.log.info(f"{self.node.address}: {SERVICE}{name} is no longer offered")
        for link in list(client.attached.values()):
            self._reports.pop(link, None)
            link.close("its r2 connect has ended")
        for tunnel in list(client.tunnels.values()):
            tunnel.cancel()
        for channel in client.failed:
            channel.close()
        for incoming in list(client.incoming.values()):
            incoming.end(Outcome(LOST, f"{self.node.address}: the server of this service went away"))

    def _on_leave(self, client: _Client, body: say.Body, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)
        self._forget(client)
        client.say(say.DONE, body.id)

    # -- links ---------------------------------------------------------------------------------------------------

    def _on_attach(self, client: _Client, body: say.Body, descriptors: tuple[int, ...]) -> None:
        expect = check_address(body["address"]) if body["address"] else None
        if not 1 <= len(descriptors) <= 2 or self._ending:
            raise RefusedError(f"{self.node.address}: a link needs one descriptor, or two")
        link = Link(self.node, self.node.me, self.loop.now(), expect=expect)
        client.attached[body.id] = link
        self._reports[link] = (client, body.id)
        self._drive(link, adopt(descriptors))

    # -- services ------------------------------------------------------------------------------------------------

    def _on_serve(self, client: _Client, body: say.Body, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)
        name = check_address(body["name"]) if body["name"] else ""
        allow = tuple(pattern.decode("utf-8", "replace") for pattern in body["allow"])
        self.node.add_service(Service(name, client, runs=body["runs"], allow=allow, detail=body["detail"]))
        if name:
            self.log.info(f"{self.node.address}: offers {SERVICE}{name}")
        client.say(say.DONE, body.id)

    def _announce(self, incoming: _Incoming, service: Service, origin: tuple[str, ...], fds: tuple[int, ...]) -> bool:
        told = incoming.server.say(
            say.INCOMING, incoming.id, fds, service=service.name, origin=origin, node=self.node.address
        )
        if not told:
            incoming.end(Outcome(BUSY, f"{self.node.address}: the server of {SERVICE}{service.name} does not answer"))
        return told

    def _on_started(self, client: _Client, body: say.Body, descriptors: tuple[int, ...]) -> None:
        incoming = client.incoming.get(body.id)
        if incoming is None:
            close_all(descriptors)
        else:
            incoming.started(descriptors)

    def _on_exited(self, client: _Client, body: say.Body, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)
        if body.id in client.incoming:
            client.incoming[body.id].end(make_outcome(body))

    def offer(self, service: Service, stream: Stream, origin: tuple[str, ...]) -> None:
        """A tunnel from a neighbour for a service here."""
        mine: tuple[int, ...] = ()
        theirs: tuple[int, ...] = ()
        try:
            mine, theirs = make_pairs(service.runs)
        except OSError as error:
            stream.close(Outcome(BUSY, f"{self.node.address}: {error.strerror}"))
            return
        Relay(self, service, stream, origin, mine, theirs)

    # -- tunnels -------------------------------------------------------------------------------------------------

    def _on_tunnel(self, client: _Client, body: say.Body, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)
        target, _ = self.node.resolve(body["target"])
        if self._ending:
            raise RefusedError(f"{self.node.address}: is shutting down")
        tunnel = _Tunnel(client, body.id)
        if isinstance(target, Link):
            self._tunnel_over(tunnel, body)
            return
        service = target or self.node.itself()
        if not is_allowed(service.allow, (client.link.address,)):
            raise RefusedError(f"{self.node.address}: {SERVICE}{service.name} is not for local programs")
        self._tunnel_here(tunnel, service, bool(body["apart"]))

    def _tunnel_over(self, tunnel: _Tunnel, body: say.Body) -> None:
        """Over a link: this daemon relays."""
        mine, theirs = make_pairs(APART if body["apart"] else SINGLE)
        client = tunnel.client
        waiting = [theirs]

        def accepted() -> None:
            tunnel.open(waiting.pop())
            end.begin()

        def closed(outcome: Outcome) -> None:
            if waiting:
                close_all(waiting.pop())
            self._endpoints.discard(end)
            tunnel.end(outcome)
            if outcome.is_clean or client.link not in self._clients:
                end.channel.close()
            else:  # the client hears of the failure before it sees the end of the stream
                self.loop.later(HANGUP_TIME, end.channel.close)
                client.failed.append(end.channel)

        end = Endpoint(self.loop, adopt(mine), closed, accepted)
        try:
            stream = self.node.open(client.link.address, Message(body["target"], (), b""), end)
        except RefusedError:
            close_all(waiting.pop())
            end.channel.close()
            raise
        end.join(stream)
        self._endpoints.add(end)
        if body["detached"]:
            return
        client.tunnels[tunnel.id] = tunnel
        tunnel.cancel = lambda: end.abandon(Outcome(GONE, f"{self.node.address}: the client went away"))
        self.log.debug(f"{self.node.address}: a tunnel from {client.link.address} to {format_path(body['target'])}")

    def _tunnel_here(self, tunnel: _Tunnel, service: Service, apart: bool) -> None:
        """To a service of this daemon: each side gets its ends, and the bytes go between them without us."""
        server: _Client = service.owner
        mine, theirs = make_pairs(min(service.runs, APART if apart else SINGLE))

        def started(descriptors: tuple[int, ...]) -> None:
            tunnel.open(mine or descriptors)
            if not mine:
                incoming.end(Outcome())  # nobody will tell of its end: it is the socket's

        def exited(outcome: Outcome) -> None:
            if not tunnel.opened:
                close_all(mine)
            tunnel.end(outcome)

        incoming = _Incoming(server, started, exited)
        tunnel.client.tunnels[tunnel.id] = tunnel
        tunnel.cancel = lambda: incoming.hang_up("the client went away")
        self._announce(incoming, service, (tunnel.client.link.address,), theirs)

    # -- the end -------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """End in order: no new clients, what was accepted is passed on, neighbours and clients are told."""
        if self._ending:
            return
        self._ending = True
        self.log.info(f"{self.node.address}: ending")
        if self._listener is not None:
            self.loop.watch(self._listener.fileno())
            self._listener.close()
            self._listener = None
            os.unlink(self._path)
        for driver in self._drivers.values():
            driver.pause()
            driver.idle = self._maybe_drained
        for end in self._endpoints:
            end.idle = self._maybe_drained
        self._drain_timer = self.loop.later(DRAIN_TIME, self._drained)
        self._maybe_drained()

    def _maybe_drained(self) -> None:
        if all(driver.is_idle for driver in self._drivers.values()):
            if not any(end.is_writing for end in self._endpoints):
                self._drained()

    def _drained(self) -> None:
        """Nothing that was accepted is left here, or nobody takes it: part from everybody."""
        if self._drain_timer is None:
            return
        self._drain_timer.cancel()
        self._drain_timer = None
        for link in sorted(self._drivers, key=lambda link: link.is_local):  # clients hear of their tunnels first
            link.close(f"{self.node.address} is shutting down")
        if not self._drivers:
            self._finish()

    def _finish(self) -> None:
        os.close(self._spare)
        self._done()


class Relay:
    """A tunnel from a neighbour to a service here: its stream, our ends of its descriptors, and its server."""

    def __init__(
        self,
        daemon: Daemon,
        service: Service,
        stream: Stream,
        origin: tuple[str, ...],
        mine: tuple[int, ...],
        theirs: tuple[int, ...],
    ) -> None:
        self.daemon = daemon
        self.stream = stream
        self.end: Endpoint | None = None
        if mine:
            self._make_end(mine, ends.PROGRAM if service.runs == APART else ends.SOCKET)
        else:
            stream.far = _Early(self)
        self.incoming = _Incoming(service.owner, self._started, self._exited)
        name = SERVICE + service.name if service.name else "this node"
        daemon.log.debug(f"{daemon.node.address}: a tunnel from {format_path(origin)} to {name}")
        daemon._announce(self.incoming, service, origin, theirs)

    def _make_end(self, fds: tuple[int, ...], kind: int) -> None:
        self.end = Endpoint(self.daemon.loop, adopt(fds), self._closed, kind=kind)
        self.daemon._endpoints.add(self.end)
        self.end.join(self.stream)
        self.stream.far = self.end

    def _started(self, descriptors: tuple[int, ...]) -> None:
        if self.stream.close_received:
            close_all(descriptors)  # the far end was faster
            return
        if self.end is None:
            if not descriptors:
                self.incoming.end(Outcome(REFUSED, f"{self.daemon.node.address}: the server gave no descriptor"))
                return
            self._make_end(descriptors, ends.SOCKET)
            self.incoming.server.incoming.pop(self.incoming.id, None)
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
        self.daemon._endpoints.discard(self.end)
        if outcome.is_clean or self.incoming.id not in self.incoming.server.incoming:
            (self.end.channel.close if outcome.is_clean else self.end.channel.reset)()
            self.incoming.server.incoming.pop(self.incoming.id, None)
        else:
            self.hang_up(outcome.describe())
            self.daemon.loop.later(HANGUP_TIME, self.end.channel.close)

    def hang_up(self, text: str) -> None:
        self.incoming.hang_up(text)


class _Early:
    """The far end of a stream while its server makes the descriptor: nothing can flow yet."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def readable(self) -> None:
        return

    def pull(self, limit: int) -> None:
        return

    def more(self) -> bool:
        return False

    def stop(self) -> None:
        return

    def accept(self) -> None:
        return

    def close(self, outcome: Outcome) -> None:
        self._relay.hang_up(outcome.describe())


def make_pairs(how: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The descriptors of a tunnel, as (ours, theirs); of each, to read and to write.  OSError if none are left.

    PROVIDES: none.  SINGLE: one that does both.  APART: one for each direction, so that a program can close its
    output and go on reading.
    """
    if how == PROVIDES:
        return (), ()
    a, b = socketpair()
    if how == SINGLE:
        return (a,), (b,)
    try:
        c, d = socketpair()
    except OSError:
        close_all((a, b))
        raise
    return (a, c), (d, b)


def raise_file_limit() -> None:
    """Allow as many descriptors as the system lets us: each tunnel that crosses the node takes one."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def close_all(descriptors: tuple[int, ...]) -> None:
    for fd in descriptors:
        os.close(fd)


_REQUESTS: dict[int, Callable[[Daemon, _Client, say.Body, tuple[int, ...]], None]] = {
    say.LEAVE: Daemon._on_leave,
    say.ATTACH: Daemon._on_attach,
    say.SERVE: Daemon._on_serve,
    say.STARTED: Daemon._on_started,
    say.EXITED: Daemon._on_exited,
    say.TUNNEL: Daemon._on_tunnel,
}

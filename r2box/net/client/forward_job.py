"""A tunnel for each connection that somebody makes: what r2-forward, r2-tunnel and [[forward]] share.

    Forwarder   one place where connections are taken
    Forwarding  a run of a tool that has some of them, with or without the daemon
"""

from __future__ import annotations

import os

from ...errors import DaemonError
from ...proto.link.link import UP
from ...proto.wire import messages
from ...proto.wire.address import format_path
from ...proto.wire.job_states import JobKind, JobState
from ...proto.wire.outcome import GONE, UNREAD, make_outcome
from ..io.channel import Channel, close_all
from ..io.copier import Bridge
from ..io.loop import Loop
from ..io.process import raise_file_limit
from ..io.program import open_channel
from ..io.reserve import explain, is_short, room
from ..io.socket_path import default_path
from ..transport.sockets import Listener
from .client import Client
from .job import Job
from .reach import WAIT, reach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...errors import TransportError
    from ..io.log import Log
    from ..transport.transport import Transport
    from .udp_forward import UdpForwarder

MAX_TUNNELS = 4096  # at a time; more connections wait until one has ended
COST = 3  # descriptors of a tunnel here
AGAIN = 0.5  # seconds before a daemon that went away is looked for again


class _ForwardedTunnel:
    """One connection, on the descriptor `fd`, and its tunnel.

    The descriptor is kept while the daemon reads and writes its own copies of it: so a connection whose daemon dies
    does not look as if it had come to its end.
    """

    __slots__ = ("bridge", "fd", "forwarder", "id", "is_told")

    def __init__(self, forwarder: Forwarder, fd: int) -> None:
        self.forwarder = forwarder
        self.fd = fd
        self.id = 0
        self.bridge: Bridge | None = None
        self.is_told = False  # of its end: nothing more is to be heard of it

    def heard(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == messages.OPENED:
            if descriptors:  # our end of it, as the daemon could not use the connection itself
                fd, self.fd = self.fd, -1
                stream = open_channel(self.forwarder.loop, descriptors, body["program"])
                self.bridge = Bridge(self.forwarder.loop, Channel(fd), stream, self._bridged)
        elif body.kind == messages.ERROR:
            self.is_told = True
            self.end(body["text"], broken=True)
        elif body.kind == messages.ENDED:
            self.is_told = True
            outcome = make_outcome(body)
            if outcome.is_clean:
                self._maybe_end()
            else:
                # Who made the connection has ended it, if nobody is left to read: that is no news.
                self.end("" if outcome.code in (UNREAD, GONE) else outcome.describe(), broken=True)

    def _bridged(self, why: str) -> None:
        self.bridge = None
        self._maybe_end(why)

    def _maybe_end(self, why: str = "") -> None:
        if self.bridge is None and self.is_told:
            self.end(why)

    def end(self, why: str = "", broken: bool = False) -> None:
        """End the connection; if it is `broken`, so that it shows."""
        bridge, self.bridge = self.bridge, None
        if bridge is not None:
            bridge.close(broken)
        if self.fd >= 0:
            channel, self.fd = Channel(self.fd), -1
            if broken and not channel.is_inet:  # which has no reset; and the daemon may hold it for a while
                channel.close_read()
                channel.close_write()
            (channel.reset if broken else channel.close)()
        self.forwarder.over(self, why)


class Forwarder:
    """Listens at `transport` and joins each connection, or each sender of UDP, to the service at `path`.

    `listening(where)` is called when it does, `failed(TransportError)` once if it cannot at all.  A missing host
    is the loopback.  A connection for which there is no tunnel, or whose tunnel fails, is reset.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        transport: Transport,
        path: tuple[str, ...],
        failed: Callable[[TransportError], None],
        listening: Callable[[str], object] = lambda where: None,
    ) -> None:
        self.loop = loop
        self._log = log
        self._client: Client | None = None
        self._path = path
        self._name = format_path(path) or "this node"
        self._tunnels: set[_ForwardedTunnel] = set()
        self._room = room(COST, MAX_TUNNELS)
        self.is_listening = True  # or it is about to be known
        self._failed = failed
        self._on_listening = listening
        self._listener: Listener | UdpForwarder
        if transport.is_datagrams:
            from .udp_forward import UdpForwarder

            self._listener = UdpForwarder(loop, log, transport, path, self._unable, self._listening, at_home=True)
        else:
            self._listener = Listener(loop, transport, self._taken, self._unable, self._listening, at_home=True)

    def use(self, client: Client | None) -> None:
        """Reach the daemon by `client`; None: it is away, and with it all tunnels that it had a part in."""
        self._client = client
        if not isinstance(self._listener, Listener):
            self._listener.use(client)
        if client is None:
            for tunnel in [tunnel for tunnel in self._tunnels if not tunnel.is_told]:
                tunnel.end(broken=True)

    def _listening(self, where: str) -> None:
        self._log.info(f"{self._name}: listening at {where}")
        self._on_listening(where)

    def _unable(self, error: TransportError) -> None:
        self.is_listening = False
        self._failed(error)

    def _taken(self, fd: int) -> None:
        tunnel = _ForwardedTunnel(self, fd)
        self._tunnels.add(tunnel)
        if len(self._tunnels) >= self._room and isinstance(self._listener, Listener):
            self._listener.pause()
        self._log.debug(f"{self._name}: a connection")
        client = self._client
        if client is None or client.link.state != UP:
            tunnel.end("a connection, but there is no daemon", broken=True)
            return
        given: list[int] = []
        try:
            while client.link.passes and len(given) < 2:
                given.append(os.dup(fd))
        except OSError as error:
            close_all(given)
            tunnel.end(explain() if is_short(error) else str(error.strerror), broken=True)
            return
        tunnel.id = client.request(messages.TUNNEL, tunnel.heard, (), tuple(given), target=self._path, apart=1)

    def over(self, tunnel: _ForwardedTunnel, why: str) -> None:
        """A tunnel has ended, in good order if there is no reason."""
        if self._client is not None:
            self._client.forget(tunnel.id)
        was_full = len(self._tunnels) >= self._room
        self._tunnels.discard(tunnel)
        self.loop.freed()
        if was_full and len(self._tunnels) < self._room and isinstance(self._listener, Listener):
            self._listener.resume()
        if why:
            self._log.error(f"{self._name}: {why}")

    def end(self) -> None:
        """Take no more connections, and break those that there are."""
        self._listener.close()
        for tunnel in list(self._tunnels):
            tunnel.end(broken=True)


class Forwarding:
    """One run of a tool that listens at each of `transports` for the service at `path`, until a signal ends it.

    The daemon is found by `reach`, with the socket `given`, within `wait` seconds.  If it goes away, so does this; with
    `retry`, it looks for it again.
    """

    def __init__(
        self,
        log: Log,
        given: str | None,
        transports: Sequence[Transport],
        path: tuple[str, ...],
        retry: bool = False,
        wait: float = WAIT,
    ) -> None:
        self._log = log
        self._given = given
        self._socket = default_path(given)
        self._wait = 0.0 if retry else wait
        self._transports = transports
        self._path = path
        self._retry = retry
        self._loop = Loop()
        self._loop.failed = log.bug
        self._client: Client | None = None
        self._forwarders: list[Forwarder] = []
        name = format_path(path)
        self._jobs = [Job(self._loop, JobKind.FORWARD, it.text, name, at) for at, it in enumerate(transports)]
        self._is_stopping = False
        self._is_well = True
        self._is_away = False

    def run(self) -> bool:
        """Whether a signal ended it.  DaemonError if there is no daemon in the beginning."""
        raise_file_limit()
        self._connect()  # which may wait, and a signal ends that at once
        self._loop.on_end(self._stop, self._loop.stop)
        self._loop.run()
        return self._is_well

    def _connect(self) -> None:
        try:
            sock, self._socket = reach(self._given, self._wait)
        except DaemonError as error:
            if not self._retry:
                raise
            self._missing(str(error))
            return
        self._client = Client(self._loop, sock.detach(), ready=self._ready, gone=self._gone)

    def _ready(self) -> None:
        if self._is_away:
            self._log.info(f"{self._socket}: the daemon is there")
        self._is_away = False
        if not self._forwarders:
            self._forwarders = [self._make(*pair) for pair in zip(self._transports, self._jobs)]
        for job in self._jobs:
            job.use(self._client)
        for forwarder in self._forwarders:
            forwarder.use(self._client)

    def _make(self, transport: Transport, job: Job) -> Forwarder:
        return Forwarder(
            self._loop,
            self._log,
            transport,
            self._path,
            lambda error: self._fail(f"{transport}: {error}"),
            lambda where: job.enter(JobState.LISTENING, where=where),
        )

    def _gone(self, why: str) -> None:
        if not self._is_stopping:
            self._missing(f"{self._socket}: {why}")

    def _missing(self, why: str) -> None:
        self._client = None
        for job in self._jobs:
            job.use(None)
        for forwarder in self._forwarders:
            forwarder.use(None)
        if not self._retry:
            self._fail(why)
            return
        if not self._is_away:
            self._log.warning(f"{why}; trying again")
        self._is_away = True
        self._loop.later(AGAIN, self._connect)

    def _fail(self, why: str) -> None:
        self._log.error(why)
        self._is_well = False
        self._stop()

    def _silent(self, why: str) -> None:
        self._log.error(f"{self._socket}: {why}")
        self._is_well = False

    def _stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        for forwarder in self._forwarders:
            forwarder.end()
        if self._client is not None:
            self._client.leave(self._loop.stop, self._silent)
        else:
            self._loop.stop()

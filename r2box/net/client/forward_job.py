"""Forward job: listens at a transport, and opens a tunnel for each connection."""

from __future__ import annotations

import os

from ...proto.link.link import UP
from ...proto.wire import messages
from ...proto.wire.address import format_path
from ...proto.wire.job_states import JobKind, JobState
from ...proto.wire.outcome import GONE, UNREAD, make_outcome
from ..io.channel import Channel, close_all
from ..io.copier import Bridge
from ..io.program import open_channel
from ..io.reserve import explain, is_short, room
from ..transport.sockets import Listener
from .job import Job, JobReport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...errors import TransportError
    from ..io.log import Log
    from ..io.loop import Loop, Timer
    from ..transport.transport import Transport
    from .client import Client
    from .udp_forward import UdpForwarder

MAX_TUNNELS = 4096  # at a time; more connections wait until one has ended
COST = 3  # descriptors of a tunnel here
LISTEN_AGAIN = 5.0  # seconds before a forward that cannot listen tries again: its address may be added later


class _ForwardedTunnel:
    """A connection, on the descriptor `fd`, and its tunnel.

    The descriptor is kept while the daemon reads and writes its own copies of it: so a connection whose daemon is
    killed does not see an end of file.
    """

    __slots__ = ("bridge", "fd", "id", "is_ended", "job")

    def __init__(self, job: ForwardJob, fd: int) -> None:
        self.job = job
        self.fd = fd
        self.id = 0
        self.bridge: Bridge | None = None
        self.is_ended = False  # as the daemon has reported

    def receive(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == messages.OPENED:
            if descriptors:  # our end of it, as the daemon could not use the connection itself
                fd, self.fd = self.fd, -1
                stream = open_channel(self.job.loop, descriptors, body["program"])
                self.bridge = Bridge(self.job.loop, Channel(fd), stream, self._bridged)
        elif body.kind == messages.ERROR:
            self.is_ended = True
            self.end(body["text"], broken=True)
        elif body.kind == messages.ENDED:
            self.is_ended = True
            outcome = make_outcome(body)
            if outcome.is_clean:
                self._maybe_end()
            else:
                # If the reader has closed the connection, that is no error.
                self.end("" if outcome.code in (UNREAD, GONE) else outcome.describe(), broken=True)

    def _bridged(self, why: str) -> None:
        self.bridge = None
        self._maybe_end(why)

    def _maybe_end(self, why: str = "") -> None:
        if self.bridge is None and self.is_ended:
            self.end(why)

    def end(self, why: str = "", broken: bool = False) -> None:
        """End the connection; with a reset if it is `broken`."""
        bridge, self.bridge = self.bridge, None
        if bridge is not None:
            bridge.close(broken)
        if self.fd >= 0:
            channel, self.fd = Channel(self.fd), -1
            if broken and not channel.is_inet:  # which has no reset; and the daemon may hold a copy
                channel.close_read()
                channel.close_write()
            (channel.reset if broken else channel.close)()
        self.job.over(self, why)


class ForwardJob(Job):
    """Listens at `transport` and joins each connection, or each sender of UDP, to the service at `path`.

    It listens once the daemon has answered, and then also while there is none.  listening() is called when it does,
    failed(TransportError) if it cannot; with `retry` it tries again every `LISTEN_AGAIN` seconds, and reports each
    reason once.  A missing host is the loopback.  A connection for which there is no tunnel, or whose tunnel fails, is
    reset.  `number` distinguishes the forwards of one client.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        transport: Transport,
        path: tuple[str, ...],
        failed: Callable[[TransportError], None],
        listening: Callable[[], None] = lambda: None,
        *,
        retry: bool = False,
        number: int = 0,
    ) -> None:
        self.loop = loop
        self._log = log
        self._client: Client | None = None
        self._transport = transport
        self._path = path
        self._name = format_path(path) or "this node"
        self._report = JobReport(loop, JobKind.FORWARD, transport.text, format_path(path), number)
        self._tunnels: set[_ForwardedTunnel] = set()
        self._room = room(COST, MAX_TUNNELS)
        self._on_failed = failed
        self._on_listening = listening
        self._retry = retry
        self._failure = ""  # why it does not listen
        self._timer: Timer | None = None  # of the next attempt to listen
        self._is_stopped = False
        self._listener: Listener | UdpForwarder | None = None  # from `begin` on: the first connection has a tunnel too

    def begin(self, client: Client) -> None:
        self._client = client
        self._report.use(client)
        if self._listener is None:
            self._listen()
        elif not isinstance(self._listener, Listener):
            self._listener.use(client)

    def lose(self) -> None:
        """Reset the connections whose tunnels the daemon took part in."""
        self._client = None
        if self._listener is not None and not isinstance(self._listener, Listener):
            self._listener.use(None)
        for tunnel in [tunnel for tunnel in self._tunnels if not tunnel.is_ended]:
            tunnel.end(broken=True)

    def hurry(self) -> None:
        if self._timer is not None and not self._is_stopped:
            self._timer.cancel()
            self._listen()

    def stop(self) -> None:
        self._is_stopped = True

    def withdraw(self) -> None:
        """Take no more connections, and reset those that there are."""
        if self._listener is not None:
            self._listener.close()
        for tunnel in list(self._tunnels):
            tunnel.end(broken=True)

    def _listen(self) -> None:
        self._timer = None
        if self._transport.is_datagrams:
            from .udp_forward import UdpForwarder

            self._listener = UdpForwarder(
                self.loop, self._log, self._transport, self._path, self._failed, self._listening, at_home=True
            )
            self._listener.use(self._client)
        else:
            self._listener = Listener(
                self.loop, self._transport, self._taken, self._failed, self._listening, at_home=True
            )

    def _listening(self, where: str) -> None:
        self._log.info(f"{self._name}: listening at {where}")
        self._report.enter(JobState.LISTENING, where=where)
        self._on_listening()

    def _failed(self, error: TransportError) -> None:
        why = str(error)
        if self._retry:
            self._report.enter(JobState.RETRYING, reason=why, delay=LISTEN_AGAIN)
            self._timer = self.loop.later(LISTEN_AGAIN, self.hurry)
        else:
            self._report.enter(JobState.STOPPED, reason=why)
        if why != self._failure:
            self._failure = why
            self._on_failed(error)

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
            while client.link.passes_descriptors and len(given) < 2:
                given.append(os.dup(fd))
        except OSError as error:
            close_all(given)
            tunnel.end(explain() if is_short(error) else str(error.strerror), broken=True)
            return
        tunnel.id = client.request(messages.TUNNEL, tunnel.receive, (), tuple(given), target=self._path, apart=1)

    def over(self, tunnel: _ForwardedTunnel, why: str) -> None:
        """A tunnel has ended, without an error if there is no reason."""
        if self._client is not None:
            self._client.forget(tunnel.id)
        was_full = len(self._tunnels) >= self._room
        self._tunnels.discard(tunnel)
        self.loop.freed()
        if was_full and len(self._tunnels) < self._room and isinstance(self._listener, Listener):
            self._listener.resume()
        if why:
            self._log.error(f"{self._name}: {why}")

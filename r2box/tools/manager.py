"""r2dm: run a node from a TOML file, in one process: the daemon, its links and its services.

Links and services are clients of the daemon like any other, over socketpairs instead of the control socket, so each
stands and falls by itself.
"""

from __future__ import annotations

import os
import signal

from .. import config as files
from ..command import QUIET, USER, VERBOSE, Command, Option
from ..errors import OK, ConfigError, R2Error, TransportError, UsageError
from ..net import bridge, datagram, device, endpoint, senders, splice, whole  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..net.channel import socketpair
from ..net.child import raise_file_limit
from ..net.client import Client
from ..net.connector import Connector
from ..net.daemon import Daemon
from ..net.forward import Forwarder
from ..net.keeper import Keeper
from ..net.log import INFO, Log
from ..net.loop import Loop
from ..net.server import Server
from ..net.supervisor import Supervisor
from ..net.tasks import Tasks
from ..net.transport import parse_transport
from ..proto.address import BENCH, parse_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..command import Args
    from ..records import Config, Conn, Forward, Serve, Task

COMMAND = Command(
    "r2dm",
    "run a node from a configuration file",
    options=[
        Option(("-f", "--file"), "the configuration", "CONFIG", needed=True),
        Option(("--check",), "only say whether the configuration is right", kind="flag"),
        VERBOSE,
        QUIET,
        USER,
    ],
    common=False,
    section=8,
    description=(
        "One process runs the daemon, keeps the links of [[conn]] up, serves what [[serve]] names, takes the "
        "connections of [[forward]], and runs the commands of [[task]] when nodes and services come and go.  A link "
        "that ends is made again, first after 100 ms, then less and less often, at least every 30 s.\n\n"
        "SIGHUP reads the file again: links, services and forwards that were added or removed there are started or "
        "ended, and the others are left alone, but links that wait to be made again are made at once.  SIGTERM and "
        "SIGINT end the node in good order.  A file that is wrong when it is read again changes nothing.\n\n"
        "A supervisor such as systemd may hand over the control socket (LISTEN_FDS) and is told how the node does "
        "(NOTIFY_SOCKET, WATCHDOG_USEC); r2-host(7) has examples.  With --user only the control socket is made and "
        "the file first read as root; links, services, forwards, tasks and devices are opened as USER, who must be "
        "able to read the file for a reload."
    ),
    examples=[("r2dm -f ~/.config/r2/alice.toml", "run the node that alice.toml describes")],
    statuses=[
        ("0", "ended by SIGTERM or SIGINT; with --check, the file is right"), ("1", "a wrong file, or a taken socket"),
        ("2", "wrong usage"),
    ],
    seealso=["r2.toml(5)", "r2d(8)", "r2(1)", "r2-connect(1)", "r2-serve(1)", "r2-host(7)"],
    environment=[("R2_SOCKET", "the control socket, where CONFIG names none")],
    files=[("/etc/r2/NAME.toml, ~/.config/r2/NAME.toml", "where configurations are by custom")],
)

AGAIN = 1.0  # seconds before a part that lost the daemon connects again
LISTEN_AGAIN = 5.0  # seconds before a forward that cannot listen tries again: its address may be on its way
END_TIME = 5.0  # seconds for everything to end in good order


def main(args: Args) -> int:
    if not args.file:
        raise UsageError("missing -f CONFIG")
    config = files.load(args.file)
    if args.check:
        counts = (
            ("link", len(config.conns)), ("service", len(config.serves)), ("task", len(config.tasks)),
            ("forward", len(config.forwards)),
        )  # fmt: skip
        told = ", ".join(f"{count} {what}{'s' * (count != 1)}" for what, count in counts)
        print(f"{args.file}: {config.addr}: {told}: right")
        return OK
    return Manager(config, args.file, Log("r2dm", INFO + args.verbose - 2 * args.quiet), args.user).run()


class _Part:
    """A link or a service: something with a connection to the daemon of its own."""

    def __init__(self, manager: Manager) -> None:
        self.manager = manager
        self.loop = manager.loop
        self.ended = False

    def stop(self) -> None:
        """Begin nothing any more."""
        self.ended = True

    def leave(self, left: Callable[[], None], done: Callable[[], None]) -> None:
        """Withdraw from the daemon, left(), and end what runs, done()."""
        raise NotImplementedError

    def connect(self, ready: Callable[[], None]) -> Client:
        ours, theirs = socketpair()
        self.manager.daemon.adopt_client(theirs)
        return Client(self.loop, ours, ready=ready, gone=self._lost, event=self.event)

    def _lost(self, why: str) -> None:
        """The connection to our own daemon broke, as when no descriptors are left: begin again."""
        if not self.ended:
            self.manager.log.error(f"lost the daemon ({why}); trying again")
            self.loop.later(AGAIN, self._restart)

    def _restart(self) -> None:
        raise NotImplementedError

    def event(self, body: object, descriptors: tuple[int, ...]) -> None:
        """Only services have events."""
        for fd in descriptors:
            os.close(fd)


class _Link(_Part):
    """One [[conn]]: made again whenever it ends."""

    def __init__(self, manager: Manager, conn: Conn) -> None:
        super().__init__(manager)
        self._conn = conn
        self._transport = parse_transport(conn.cmd)
        name = f"link {conn.addr or conn.cmd}"
        self._keeper = Keeper(self.loop, manager.log, name, self._transport, self._make)
        self._client = self.connect(self._keeper.start)

    def _make(self, linked: Callable[[str], None], ended: Callable[[str, bool], None]) -> Connector:
        manager, conn = self.manager, self._conn
        return Connector(
            self.loop,
            manager.log,
            self._client,
            self._transport,
            manager.path,
            conn.addr or "",
            linked,
            ended,
            patience=conn.resume,
            lossy=conn.lossy,
            policy=conn.policy,
        )

    def _restart(self) -> None:
        if not self.ended:
            self._client = self.connect(self._keeper.restart)

    def hurry(self) -> None:
        """Do not wait for the next attempt."""
        self._keeper.hurry()

    def stop(self) -> None:
        super().stop()
        self._keeper.stop()

    def leave(self, left: Callable[[], None], done: Callable[[], None]) -> None:
        self.stop()

        def has_left() -> None:
            left()
            self._keeper.end(done)

        self._client.leave(has_left)


class _Service(_Part):
    """One [[serve]], or [self] cmd with the name ""."""

    def __init__(
        self,
        manager: Manager,
        name: str,
        cmd: str,
        allow: tuple[str, ...] = (),
        private: bool = False,
        datagrams: bool = False,
    ) -> None:
        super().__init__(manager)
        transport = parse_transport(cmd)
        self._server = Server(
            self.loop,
            manager.log,
            name,
            transport,
            manager.path,
            self._settled,
            self._failed,
            allow,
            private,
            datagrams,
        )
        self._is_settled = False
        manager.unsettled += 1
        self._client = self.connect(lambda: self._server.offer(self._client))

    def _restart(self) -> None:
        if not self.ended:
            self._client = self.connect(lambda: self._server.offer(self._client))

    def event(self, body: object, descriptors: tuple[int, ...]) -> None:
        self._server.event(body, descriptors)  # type: ignore[arg-type]

    def _failed(self, error: R2Error) -> None:
        self.manager.log.error(f"service {self._server.name}: {error}")
        self._settled()

    def _settled(self) -> None:
        """It stands, or cannot: nothing is waited for."""
        if not self._is_settled:
            self._is_settled = True
            self.manager.settled()

    def leave(self, left: Callable[[], None], done: Callable[[], None]) -> None:
        self.ended = True
        self._settled()

        def has_left() -> None:
            left()
            self._server.end(done)

        self._client.leave(has_left)


class _Port(_Part):
    """One [[forward]]."""

    def __init__(self, manager: Manager, forward: Forward) -> None:
        super().__init__(manager)
        self._transport = parse_transport(forward.listen)
        self._path = parse_path(forward.target)
        self._said = ""  # why it does not listen
        self._forwarder: Forwarder | None = None  # until the daemon has answered: the first connection is taken too
        self._restart()

    def _listen(self) -> None:
        self._forwarder = Forwarder(self.loop, self.manager.log, self._transport, self._path, self._failed)
        self._forwarder.use(self._client)

    def _ready(self) -> None:
        if self.ended:
            return
        if self._forwarder is None:
            self._listen()
        else:
            self._forwarder.use(self._client)

    def _failed(self, error: TransportError) -> None:
        if str(error) != self._said:
            self._said = str(error)
            self.manager.log.error(f"forward {self._transport}: {error}; trying again")
        self.loop.later(LISTEN_AGAIN, self.hurry)

    def hurry(self) -> None:
        """Listen now, if it waits for that."""
        if not self.ended and self._forwarder is not None and not self._forwarder.is_listening:
            self._listen()

    def _restart(self) -> None:
        if not self.ended:
            if self._forwarder is not None:
                self._forwarder.use(None)
            self._client = self.connect(self._ready)

    def leave(self, left: Callable[[], None], done: Callable[[], None]) -> None:
        self.ended = True
        if self._forwarder is not None:
            self._forwarder.end()

        def has_left() -> None:
            left()
            done()

        self._client.leave(has_left)


class _Tasks(_Part):
    """All of [[task]]."""

    def __init__(self, manager: Manager, tasks: list[Task]) -> None:
        super().__init__(manager)
        self.tasks = Tasks(self.loop, manager.log, manager.path, tasks)
        self._restart()

    def _restart(self) -> None:
        if not self.ended:
            self._client = self.connect(lambda: self.tasks.watch(self._client))

    def leave(self, left: Callable[[], None], done: Callable[[], None]) -> None:
        self.ended = True

        def has_left() -> None:
            left()
            self.tasks.end(done)

        self._client.leave(has_left)


class Manager:
    """A node and everything in its file."""

    def __init__(self, config: Config, file: str, log: Log, user: str | None = None) -> None:
        self.loop = Loop()
        self.log = log
        self.supervisor = Supervisor(self.loop)
        self.path = config.socket or ""  # known for sure when it listens
        self.unsettled = 0  # services that have not been offered yet
        self._user = user
        self._file = file
        self._config = config
        self._links: list[tuple[Conn, _Link]] = []
        self._services: list[tuple[Serve, _Service]] = []
        self._ports: list[tuple[Forward, _Port]] = []
        self._itself: _Service | None = None
        self._tasks: _Tasks | None = None
        self._leaving: set[_Part] = set()  # taken out of the file; what they ran has still to end
        self._ending = False
        self.loop.failed = log.bug
        self.daemon = Daemon(self.loop, config.addr, log, self._daemon_ended)
        self.daemon.node.discovery.policy = config.policy

    def run(self) -> int:
        raise_file_limit()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.on_signal(number, self._end)
        self.loop.on_signal(signal.SIGHUP, self._reload)
        self.path = self.supervisor.listen(self.daemon, self._config.socket, self._user)
        assert self.daemon.entrance is not None
        self.daemon.entrance.hold()
        self._start()
        self.loop.run()
        return OK

    def _start(self) -> None:
        """Start what is in the file and does not run.  (Another reload may have come while old parts left.)"""
        if self._ending:
            return
        config = self._config
        if config.tasks and self._tasks is None:  # before there is anything to hear of
            self._tasks = _Tasks(self, config.tasks)
        self.daemon.node.meters.refusal = "" if config.bench else f"{BENCH} is turned off here ([self] bench)"
        if config.cmd and self._itself is None:
            self._itself = _Service(self, "", config.cmd)
        for serve in config.serves:
            if serve not in [pair[0] for pair in self._services]:
                service = _Service(self, serve.name, serve.cmd, tuple(serve.allow), serve.private, serve.datagrams)
                self._services.append((serve, service))
        for forward in config.forwards:
            if forward not in [pair[0] for pair in self._ports]:
                self._ports.append((forward, _Port(self, forward)))
        for conn in config.conns:
            if conn not in [pair[0] for pair in self._links]:
                self._links.append((conn, _Link(self, conn)))
        self.unsettled += 1
        self.settled()

    def settled(self) -> None:
        """One service less is waited for; when all stand, the node is ready."""
        self.unsettled -= 1
        if not self.unsettled and not self._ending and self.daemon.entrance is not None:
            self.daemon.entrance.open()
            self.supervisor.ready(self.daemon.summary())

    def _reload(self) -> None:
        """Read the file again.  A file that is wrong changes nothing."""
        if self._ending:
            return
        self.supervisor.reloading()
        try:
            new = files.load(self._file)
        except ConfigError as error:
            for line in str(error).splitlines():
                self.log.error(f"not reloaded: {line}")
            self.supervisor.ready(f"not reloaded: {str(error).splitlines()[0]}")
            return
        old, self._config = self._config, new
        if (new.addr, new.socket, new.policy) != (old.addr, old.socket, old.policy):
            self.log.warning(f"{self._file}: a new addr or socket, or other rules in [self], take a restart")
        if self._tasks is not None:
            self._tasks.tasks.change(new.tasks)
        for _, link in self._links:
            link.hurry()
        for _, port in self._ports:
            port.hurry()
        gone: list[_Part] = [part for entry, part in self._links if entry not in new.conns]
        gone += [part for entry, part in self._services if entry not in new.serves]
        gone += [part for entry, part in self._ports if entry not in new.forwards]
        if new.cmd != old.cmd and self._itself is not None:
            gone.append(self._itself)
            self._itself = None
        self._links = [pair for pair in self._links if pair[0] in new.conns]
        self._services = [pair for pair in self._services if pair[0] in new.serves]
        self._ports = [pair for pair in self._ports if pair[0] in new.forwards]
        self._leaving.update(gone)
        self.log.info(f"{self._file}: read again: {len(gone)} parts end")
        # The new ones start when the names of the old are free; what those ran may take longer to end.
        waiting = len(gone)

        def left() -> None:
            nonlocal waiting
            waiting -= 1
            if waiting <= 0:
                self._start()

        for part in gone:
            part.leave(left, lambda part=part: self._leaving.discard(part))  # type: ignore[misc]
        if not gone:
            self._start()

    def _end(self) -> None:
        """The daemon first, so that neighbours hear it from the node itself; then what ran for it."""
        if self._ending:
            return
        self._ending = True
        self.supervisor.stopping()
        self.loop.later(END_TIME, self.loop.stop)
        for part in self._parts():
            part.stop()
        self.daemon.end()

    def _daemon_ended(self) -> None:
        end_all(self._parts(), self.loop.stop)

    def _parts(self) -> list[_Part]:
        parts: list[_Part] = [part for _, part in self._links]
        parts += [part for _, part in self._services]
        parts += [part for _, part in self._ports]
        parts += self._leaving
        parts += [part for part in (self._itself, self._tasks) if part is not None]
        return parts


def end_all(parts: list[_Part], done: Callable[[], None]) -> None:
    """End `parts`; done() when all of them have."""
    waiting = len(parts)

    def one_less() -> None:
        nonlocal waiting
        waiting -= 1
        if not waiting:
            done()

    if not parts:
        done()
    for part in parts:
        part.leave(lambda: None, one_less)

"""What runs for the tables of a configuration file: a part for each link, service and forward, and one for all tasks.

Parts are clients of the daemon like any other, over socketpairs instead of the control socket, so each stands and falls
by itself.  Making one checks all that it was given, and touches nothing; `start` begins.
"""

from __future__ import annotations

import os

from ..net.client.client import Client
from ..net.client.forward_job import Forwarder
from ..net.client.job import Job
from ..net.client.link_job import Connector
from ..net.client.reconnect import Reconnect
from ..net.client.service_job import Server
from ..net.io.channel import socketpair
from ..net.transport.transport import parse_transport
from ..proto.wire.address import parse_path
from ..proto.wire.job_states import JobKind, JobState
from .tasks import Tasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ..errors import R2Error, TransportError
    from ..net.daemon.daemon import Daemon
    from ..net.io.log import Log
    from ..net.io.loop import Loop, Timer
    from .records import Conn, Forward, Task

    class JobManager(Protocol):
        """Whose parts they are."""

        loop: Loop
        log: Log
        daemon: Daemon
        path: str  # of the control socket
        unsettled: int  # parts that do not stand yet

        def settled(self) -> None:
            """One less is waited for."""

AGAIN = 1.0  # seconds before a part that lost the daemon connects again
LISTEN_TIME = 2.0  # seconds for a forward to listen; one whose host's name takes longer to look up is not waited for
LISTEN_AGAIN = 5.0  # seconds before a forward that cannot listen tries again: its address may be on its way


class FileJob:
    """A link, a service, a forward or all tasks: something with a connection to the daemon of its own."""

    def __init__(self, manager: JobManager) -> None:
        self.manager = manager
        self.loop = manager.loop
        self.ended = False
        self._is_awaited = False
        self._client: Client

    def start(self) -> None:
        """Connect to the daemon, and begin."""
        self._connect()

    def await_it(self) -> None:
        """The node is ready when this part stands, or cannot, which `settled` says."""
        self._is_awaited = True
        self.manager.unsettled += 1

    def settled(self) -> None:
        """It stands, or cannot.  Safe to call again."""
        if self._is_awaited:
            self._is_awaited = False
            self.manager.settled()

    def stop(self) -> None:
        """Begin nothing any more."""
        self.ended = True

    def leave(self, left: Callable[[], None], done: Callable[[], None]) -> None:
        """Withdraw from the daemon, left(), and end what runs, done()."""
        self.stop()
        self.settled()

        def has_left() -> None:
            left()
            self._finish(done)

        self._client.leave(has_left)

    def _finish(self, done: Callable[[], None]) -> None:
        """End what runs, done()."""
        done()

    def _connect(self) -> None:
        ours, theirs = socketpair()
        self.manager.daemon.adopt_client(theirs)
        self._client = Client(self.loop, ours, ready=self._answered, gone=self._lost, event=self.event)

    def _answered(self) -> None:
        if not self.ended:
            self._ready()

    def _ready(self) -> None:
        """The daemon has answered, for the first time or again."""
        raise NotImplementedError

    def _lost(self, why: str) -> None:
        """The connection to our own daemon broke, as when no descriptors are left: begin again."""
        if not self.ended:
            self.manager.log.error(f"{why}; trying again")
            self.loop.later(AGAIN, self._again)

    def _again(self) -> None:
        if self.ended:
            return
        try:
            self._connect()
        except OSError:  # there are still no descriptors
            self.loop.later(AGAIN, self._again)

    def event(self, body: object, descriptors: tuple[int, ...]) -> None:
        """Only services have events."""
        for fd in descriptors:
            os.close(fd)


class LinkFileJob(FileJob):
    """One [[conn]]: made again whenever it ends."""

    def __init__(self, manager: JobManager, conn: Conn) -> None:
        super().__init__(manager)
        self._conn = conn
        self._transport = parse_transport(conn.cmd)
        neighbour = conn.addr or ""
        self._job = Job(self.loop, JobKind.LINK, self._transport.text, neighbour)
        name = f"link {conn.addr or conn.cmd}"
        self._reconnect = Reconnect(self.loop, manager.log, name, self._transport, self._job, self._make)

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
            self._job,
            resume_timeout=conn.resume,
            lossy=conn.lossy,
            policy=conn.policy,
        )

    def _ready(self) -> None:
        self._job.use(self._client)
        self._reconnect.restart()

    def hurry(self) -> None:
        """Do not wait for the next attempt."""
        self._reconnect.hurry()

    def stop(self) -> None:
        super().stop()
        self._reconnect.stop()

    def _finish(self, done: Callable[[], None]) -> None:
        self._reconnect.end(done)


class ServiceFileJob(FileJob):
    """One [[serve]], or [self] cmd with the name ""."""

    def __init__(
        self,
        manager: JobManager,
        name: str,
        cmd: str,
        allow: tuple[str, ...] = (),
        private: bool = False,
        datagrams: bool = False,
    ) -> None:
        super().__init__(manager)
        transport = parse_transport(cmd)
        self._job = Job(self.loop, JobKind.SERVICE, transport.text, name)
        self._server = Server(
            self.loop,
            manager.log,
            name,
            transport,
            manager.path,
            self.settled,
            self._failed,
            allow,
            private,
            datagrams,
        )

    def start(self) -> None:
        self.await_it()
        super().start()

    def _ready(self) -> None:
        self._server.offer(self._client)

    def event(self, body: object, descriptors: tuple[int, ...]) -> None:
        self._server.event(body, descriptors)  # type: ignore[arg-type]

    def _failed(self, error: R2Error) -> None:
        self.manager.log.error(f"service {self._server.name}: {error}")
        self._job.enter(JobState.STOPPED, reason=str(error))
        self._job.use(self._client)
        self.settled()

    def _finish(self, done: Callable[[], None]) -> None:
        self._server.end(done)


class ForwardFileJob(FileJob):
    """One [[forward]]."""

    def __init__(self, manager: JobManager, forward: Forward) -> None:
        super().__init__(manager)
        self._transport = parse_transport(forward.listen)
        self._path = parse_path(forward.target)
        self._job = Job(self.loop, JobKind.FORWARD, forward.listen, forward.target)
        self._said = ""  # why it does not listen
        self._forwarder: Forwarder | None = None  # until the daemon has answered: the first connection is taken too
        self._timer: Timer | None = None  # of the next attempt to listen

    def start(self) -> None:
        self.await_it()
        self.loop.later(LISTEN_TIME, self.settled)
        super().start()

    def _listen(self) -> None:
        self._forwarder = Forwarder(
            self.loop, self.manager.log, self._transport, self._path, self._failed, self._listening
        )
        self._forwarder.use(self._client)

    def _connect(self) -> None:
        if self._forwarder is not None:
            self._forwarder.use(None)
        super()._connect()

    def _listening(self, where: str) -> None:
        self._job.enter(JobState.LISTENING, where=where)
        self.settled()

    def _ready(self) -> None:
        self._job.use(self._client)
        if self._forwarder is None:
            self._listen()
        else:
            self._forwarder.use(self._client)

    def _failed(self, error: TransportError) -> None:
        if str(error) != self._said:
            self._said = str(error)
            self.manager.log.error(f"forward {self._transport}: {error}; trying again")
        self._job.enter(JobState.RETRYING, reason=str(error), delay=LISTEN_AGAIN)
        self.settled()
        self._timer = self.loop.later(LISTEN_AGAIN, self.hurry)

    def hurry(self) -> None:
        """Listen now, if it waits for that."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.ended and self._forwarder is not None and not self._forwarder.is_listening:
            self._listen()

    def leave(self, left: Callable[[], None], done: Callable[[], None]) -> None:
        if self._forwarder is not None:
            self._forwarder.end()
        super().leave(left, done)


class TasksFileJob(FileJob):
    """All of [[task]]."""

    def __init__(self, manager: JobManager, tasks: list[Task]) -> None:
        super().__init__(manager)
        self.tasks = Tasks(self.loop, manager.log, manager.path, tasks)

    def _ready(self) -> None:
        self.tasks.watch(self._client)

    def _finish(self, done: Callable[[], None]) -> None:
        self.tasks.end(done)

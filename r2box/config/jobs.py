"""Jobs of a configuration file: one for each link, service and forward, and one for all tasks.

Each has a connection of its own to the daemon in this process, so that none fails with another.  Making one checks all
that it was given, and touches nothing; `start` begins.
"""

from __future__ import annotations

from ..net.client.connector import LinkOptions
from ..net.client.forward_job import ForwardJob
from ..net.client.job import Job, JobClient
from ..net.client.link_job import LinkJob
from ..net.client.service_job import ServiceJob
from ..net.transport.transport import parse_transport
from ..proto.wire.address import parse_path
from .records import ConfigRecord, Conn, Forward, Serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ..errors import R2Error, TransportError
    from ..net.daemon.daemon import Daemon
    from ..net.io.log import Log
    from ..net.io.loop import Loop

    class JobManager(Protocol):
        """The node that has the jobs."""

        loop: Loop
        log: Log
        daemon: Daemon
        path: str  # of the control socket
        unsettled: int  # jobs that are waited for

        def settled(self) -> None:
            """One less is waited for."""

AGAIN = 1.0  # seconds before a job that lost the daemon connects again
LISTEN_TIME = 2.0  # seconds for a forward to listen; one whose host's name takes longer to look up is not waited for


class FileJob(JobClient):
    """One job.  If it `is_awaited`, the node is ready only when it stands or cannot, or after `limit` seconds."""

    def __init__(self, manager: JobManager, *jobs: Job, is_awaited: bool = False, limit: float = 0.0) -> None:
        super().__init__(manager.loop, *jobs)
        self._manager = manager
        self._is_awaited = is_awaited
        self._limit = limit

    def start(self) -> None:
        """Connect to the daemon, and begin."""
        if self._is_awaited:
            self._manager.unsettled += 1
        if self._limit:
            self.loop.later(self._limit, self.settled)
        self.embed(self._manager.daemon.adopt_client)

    def settled(self) -> None:
        """It stands, or cannot.  Safe to call again."""
        if self._is_awaited:
            self._is_awaited = False
            self._manager.settled()

    def stop(self) -> None:
        super().stop()
        self.settled()

    def lost(self, why: str) -> None:
        """The connection to our own daemon failed, as when no descriptors are left: connect again."""
        if not self.is_stopped:
            self._manager.log.error(f"{why}; trying again")
            self.loop.later(AGAIN, self._again)

    def _again(self) -> None:
        if self.is_stopped:
            return
        try:
            self.embed(self._manager.daemon.adopt_client)
        except OSError:  # there are still no descriptors
            self.loop.later(AGAIN, self._again)


def make_job(manager: JobManager, record: ConfigRecord) -> FileJob:
    """The job of one table.  UsageError if it cannot be."""
    return _MAKERS[type(record)](manager, record)


def _make_link(manager: JobManager, conn: Conn) -> FileJob:
    options = LinkOptions(parse_transport(conn.cmd), conn.addr or "", conn.resume, conn.lossy, conn.policy)
    name = f"link {conn.addr or conn.cmd}"
    return FileJob(manager, LinkJob(manager.loop, manager.log, manager.path, options, name))


def _make_service(manager: JobManager, serve: Serve) -> FileJob:
    job = FileJob(manager, is_awaited=True)

    def failed(error: R2Error) -> None:
        manager.log.error(f"service {serve.name}: {error}")
        job.settled()

    job.jobs = [ServiceJob(
        manager.loop, manager.log, serve.name, parse_transport(serve.cmd), manager.path, job.settled, failed,
        tuple(serve.allow), serve.private, serve.datagrams,
    )]  # fmt: skip
    return job


def _make_forward(manager: JobManager, forward: Forward) -> FileJob:
    job = FileJob(manager, is_awaited=True, limit=LISTEN_TIME)
    transport = parse_transport(forward.listen)

    def failed(error: TransportError) -> None:
        manager.log.error(f"forward {transport}: {error}; trying again")
        job.settled()

    path = parse_path(forward.target)
    job.jobs = [ForwardJob(manager.loop, manager.log, transport, path, failed, job.settled, retry=True)]
    return job


_MAKERS: dict[type[ConfigRecord], Callable[[JobManager, Any], FileJob]] = {
    Conn: _make_link, Serve: _make_service, Forward: _make_forward,
}  # fmt: skip

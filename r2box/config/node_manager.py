"""Node manager: a daemon with the jobs of a configuration file, which a reload removes and adds."""

from __future__ import annotations

import signal

from ..errors import OK, ConfigError
from ..net.client import udp_forward  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..net.client.job import countdown
from ..net.daemon.daemon import Daemon
from ..net.io import copier  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..net.io.process import raise_file_limit
from ..net.io.signals import ignore_terminal
from ..net.link import datagram_endpoint, endpoint  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..net.transport import devices, udp  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..proto.limits import Limits
from ..proto.wire.address import BENCH
from .jobs import FileJob, make_job
from .parse import load
from .tasks import Tasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..net.daemon.systemd import ServiceManager
    from ..net.io.log import Log
    from .records import Config, ConfigRecord

SHUTDOWN_TIMEOUT = 5.0  # seconds


class NodeManager:
    """A node with the jobs of its file, at the control socket of `supervisor`.

    ready(log) is called whenever all jobs are ready or refused.
    """

    def __init__(
        self,
        config: Config,
        file: str,
        log: Log,
        supervisor: ServiceManager,
        ready: Callable[[Log], None] | None = None,
    ) -> None:
        self.loop = supervisor.loop
        self.log = log
        self.supervisor = supervisor
        self.path = supervisor.path
        self.unsettled = 0  # services and forwards that are neither ready nor refused
        self._on_ready = ready
        self._file = file
        self._config = config
        self._jobs: list[tuple[ConfigRecord | None, FileJob]] = []  # None: all tasks
        self._tasks: Tasks | None = None
        self._leaving: set[FileJob] = set()  # removed; their processes have not ended
        self._ending = False
        self.loop.failed = log.bug
        self.daemon = Daemon(self.loop, config.addr, log, self._daemon_ended, Limits(config.limits))
        self.daemon.node.discovery.policy = config.policy

    def run(self) -> int:
        raise_file_limit()
        ignore_terminal()
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.on_signal(number, self._end)
        self.loop.on_signal(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        self.supervisor.listen(self.daemon)
        assert self.daemon.control_listener is not None
        self.daemon.control_listener.pause()
        self.unsettled += 1
        self._start()
        self.settled()
        self.loop.run()
        return OK

    def _start(self) -> None:
        """Start the new jobs.  (The file may have been reloaded again while removed jobs ended.)"""
        if not self._ending:
            for job in self.build():
                job.start()

    def build(self) -> list[FileJob]:
        """Create the jobs of the file that do not exist yet, in the order of their start.

        Raises UsageError if one of them is invalid.
        """
        config = self._config
        before = len(self._jobs)
        if config.tasks and self._tasks is None:  # first, to miss no event
            self._tasks = Tasks(self.loop, self.log, self.path, config.tasks)
            self._jobs.append((None, FileJob(self, self._tasks)))
        self.daemon.node.meters.refusal = "" if config.bench else f"{BENCH} is disabled here ([self] bench)"
        for record in config.jobs:
            if record not in [known for known, _ in self._jobs]:
                self._jobs.append((record, make_job(self, record)))
        return [job for _, job in self._jobs[before:]]

    def settled(self) -> None:
        """A job is ready or refused.  After the last one, the node is ready."""
        self.unsettled -= 1
        if not self.unsettled and not self._ending and self.daemon.control_listener is not None:
            self.daemon.control_listener.resume()
            self.supervisor.ready(self.daemon.summary())
            if self._on_ready is not None:
                self._on_ready(self.log)

    def _reload(self) -> None:
        """Reload the file.  A file with an error changes nothing."""
        if self._ending:
            return
        self.supervisor.reloading()
        try:
            new = load(self._file)
        except ConfigError as error:
            for line in str(error).splitlines():
                self.log.error(f"not reloaded: {line}")
            notify = self.supervisor.status if self.unsettled else self.supervisor.ready
            notify(f"not reloaded: {str(error).splitlines()[0]}")
            return
        old, self._config = self._config, new
        if (new.addr, new.socket, new.policy) != (old.addr, old.socket, old.policy):
            self.log.warning(f"{self._file}: changes of addr, socket or discovery in [self] require a restart")
        self.daemon.admission.change(new.limits)
        if self._tasks is not None:
            self._tasks.change(new.tasks)
        for _, job in self._jobs:
            job.hurry()
        wanted = [None, *new.jobs]
        removed = [job for record, job in self._jobs if record not in wanted]
        added = [record for record in new.jobs if record not in [known for known, _ in self._jobs]]
        self._jobs = [pair for pair in self._jobs if pair[0] in wanted]
        self._leaving.update(removed)
        self.log.info(f"{self._file}: reloaded: {len(removed)} jobs removed, {len(added)} added")
        # New jobs start when the names of the removed ones are free, before the processes of those have ended.
        self.unsettled += 1

        def start() -> None:
            self._start()
            self.settled()

        left = countdown(len(removed), start)
        for job in removed:
            job.leave(lambda job=job: self._leaving.discard(job), left)  # type: ignore[misc]

    def _end(self) -> None:
        """Shut down the daemon first, so that it closes the links itself; then the jobs."""
        if self._ending:
            return
        self._ending = True
        self.supervisor.stopping()
        self.loop.later(SHUTDOWN_TIMEOUT, self.loop.stop)
        for job in self._all_jobs():
            job.stop()
        self.daemon.end()

    def _daemon_ended(self) -> None:
        jobs = self._all_jobs()
        ended = countdown(len(jobs), self.loop.stop)
        for job in jobs:
            job.leave(ended)

    def _all_jobs(self) -> list[FileJob]:
        return [*(job for _, job in self._jobs), *self._leaving]

"""r2dm: a node from a TOML file: the daemon and the jobs of the file, in one process."""

from __future__ import annotations

import signal

from ..cli.background import Background
from ..cli.command import BACKGROUND, QUIET, USER, VERBOSE, Command, Option
from ..config import parse as files
from ..config.jobs import FileJob, make_job
from ..config.tasks import Tasks
from ..errors import OK, ConfigError, UsageError
from ..net.client import udp_forward  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..net.client.job import countdown
from ..net.daemon.daemon import Daemon
from ..net.daemon.systemd import ServiceManager
from ..net.io import copier  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..net.io.log import INFO, Log
from ..net.io.loop import Loop
from ..net.io.process import raise_file_limit
from ..net.io.signals import ignore_terminal
from ..net.link import datagram_endpoint, endpoint  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..net.transport import devices, udp  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..proto.limits import Limits
from ..proto.wire.address import BENCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.command import Args
    from ..config.records import Config, ConfigRecord

COMMAND = Command(
    "r2dm",
    "run a node from a configuration file",
    options=[
        Option(("-f", "--file"), "the configuration file", "CONFIG", needed=True),
        Option(("--check",), "check the configuration and exit", kind="flag"),
        VERBOSE,
        QUIET,
        USER,
        BACKGROUND,
    ],
    common=False,
    section=8,
    description=(
        "Runs the daemon, the links of [[conn]], the services of [[serve]], the listeners of [[forward]], and "
        "the commands of [[task]] on events, in one process.  A link that ends is reconnected, first after 100 "
        "ms, then with increasing delays of at most 30 s.\n\n"
        "SIGHUP reloads the file: links, services and forwards that were added or removed are started or "
        "ended; others are not affected, except that links that wait for a retry reconnect at once.  If the "
        "file has an error, the reload changes nothing.  SIGTERM and SIGINT shut the node down cleanly.\n\n"
        "r2dm runs in the foreground and logs to stderr.  With --background it returns when each service and "
        "forward is ready or has been refused; see r2d(8).\n\n"
        "A supervisor such as systemd may pass the control socket (LISTEN_FDS) and is notified of the state of "
        "the node (NOTIFY_SOCKET, WATCHDOG_USEC); see r2-host(7).  With --user, r2dm creates the control "
        "socket and first reads the file as root; it opens links, services, forwards, tasks and devices as "
        "USER, who must be able to read the file for a reload."
    ),
    examples=[("r2dm -f ~/.config/r2/alice.toml", "run the node that alice.toml describes")],
    statuses=[
        ("0", "ended by SIGTERM or SIGINT; with --background, ready; with --check, the file is valid"),
        ("1", "the file has an error, or the socket is in use"),
        ("2", "wrong usage"),
    ],
    seealso=["r2.toml(5)", "r2d(8)", "r2(1)", "r2-connect(1)", "r2-serve(1)", "r2-host(7)"],
    environment=[("R2_SOCKET", "the control socket, unless CONFIG names one")],
    files=[("/etc/r2/NAME.toml, ~/.config/r2/NAME.toml", "configuration files, by convention")],
)

SHUTDOWN_TIMEOUT = 5.0  # seconds


def main(args: Args) -> int:
    if not args.file:
        raise UsageError("missing -f CONFIG")
    config = files.load(args.file)
    log = Log("r2dm", INFO + args.verbose - 2 * args.quiet)
    if args.check:
        NodeManager(config, args.file, log).build()
        counts = (
            ("link", len(config.conns)), ("service", len(config.serves)), ("task", len(config.tasks)),
            ("forward", len(config.forwards)),
        )  # fmt: skip
        jobs = ", ".join(f"{count} {what}{'s' * (count != 1)}" for what, count in counts)
        print(f"{args.file}: valid: node {config.addr}, {jobs}")
        return OK
    background = Background() if args.background else None
    return NodeManager(config, args.file, log, args.user, background).run()


class NodeManager:
    """A node with the jobs of its file."""

    def __init__(
        self, config: Config, file: str, log: Log, user: str | None = None, background: Background | None = None
    ) -> None:
        self.loop = Loop()
        self.log = log
        self.supervisor = ServiceManager(self.loop)
        self.path = config.socket or ""  # updated when the socket listens
        self.unsettled = 0  # services and forwards that are neither ready nor refused
        self._user = user
        self._background = background
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
        self.path = self.supervisor.listen(self.daemon, self._config.socket, self._user, bool(self._config.socket))
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
            if self._background is not None:
                self._background.ready(self.log)

    def _reload(self) -> None:
        """Reload the file.  A file with an error changes nothing."""
        if self._ending:
            return
        self.supervisor.reloading()
        try:
            new = files.load(self._file)
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

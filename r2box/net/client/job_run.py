"""Run of a tool that keeps jobs at the daemon, until a signal ends it or a job fails."""

from __future__ import annotations

from ...errors import FAILED, OK, DaemonError
from ..io.loop import Loop
from ..io.process import raise_file_limit
from ..io.socket_path import default_path
from .job import Job, JobClient
from .reach import WAIT, reach

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from ..io.log import Log
    from ..transport.transport import Transport

AGAIN = 0.5  # seconds before a daemon that was lost is looked for again


class JobRun(JobClient):
    """Finds the daemon by `reach`, with the socket `given`, within `wait` seconds: DaemonError if there is none.

    If the daemon is lost, the run ends, after `end_delay` seconds.  With `retry` it looks for the daemon again, also in
    the beginning, and waits for none.
    """

    def __init__(
        self, log: Log, given: str | None, wait: float = WAIT, *, retry: bool = False, end_delay: float = 0.0
    ) -> None:
        super().__init__(Loop())
        self.path = default_path(given)  # of the control socket
        self.status = OK
        self._log = log
        self._given = given
        self._wait = 0.0 if retry else wait
        self._retry = retry
        self._end_delay = end_delay
        self._is_away = False
        self._sock: socket.socket | None = None
        self._find()

    def _find(self) -> None:
        try:
            self._sock, self.path = reach(self._given, self._wait)
        except DaemonError as error:
            if not self._retry:
                raise
            self._find_later(str(error))

    def _find_later(self, why: str) -> None:
        if not self._is_away:
            self._log.warning(f"{why}; trying again")
        self._is_away = True
        self.loop.later(AGAIN, self._again)

    def _again(self) -> None:
        self._find()
        self._connect()

    def _connect(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            self.attach(sock.detach())

    def run(self, *jobs: Job) -> int:
        """Keep `jobs` until the run ends; the exit status."""
        self.jobs = jobs
        self._connect()
        self.loop.on_end(self.end, self._abort)
        self.loop.run()
        return self.status

    def _ready(self) -> None:
        if self._is_away:
            self._log.info(f"{self.path}: the daemon is there")
        self._is_away = False
        super()._ready()

    def lost(self, why: str) -> None:
        if self.is_stopped:
            return
        why = f"{self.path}: {why}"
        if self._retry:
            self._find_later(why)
        elif self._end_delay:
            self._failed(why)
            self.loop.later(self._end_delay, self.end)
        else:
            self.fail(why)

    def fail(self, why: str) -> None:
        """End with an error."""
        self._failed(why)
        self.end()

    def _failed(self, why: str) -> None:
        self._log.error(why)
        self.status = FAILED

    def end(self) -> None:
        """Leave the daemon, and end what runs."""
        if not self.is_stopped:
            self.leave(self.loop.stop, silent=lambda why: self._failed(f"{self.path}: {why}"))

    def _abort(self) -> None:
        """End at once: kill what runs, as nothing else is left that would end it."""
        for job in self.jobs:
            job.kill()
        self.loop.stop()


def forward(
    log: Log,
    given: str | None,
    transports: Sequence[Transport],
    path: tuple[str, ...],
    *,
    retry: bool = False,
    wait: float = WAIT,
) -> bool:
    """Forward each of `transports` to the service at `path`, by a `JobRun`.  Whether a signal ended it."""
    from .forward_job import ForwardJob

    raise_file_limit()
    run = JobRun(log, given, wait, retry=retry)
    run.loop.failed = log.bug

    def make(number: int, transport: Transport) -> ForwardJob:
        return ForwardJob(
            run.loop, log, transport, path, lambda error: run.fail(f"{transport}: {error}"), number=number
        )

    return run.run(*(make(*pair) for pair in enumerate(transports))) == OK

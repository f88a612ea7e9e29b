"""Engine of an embedded node: a daemon whose loop runs in any thread, and calls into it from other threads.

It does not touch what belongs to the process: signals, environment, limits.
"""

from __future__ import annotations

import logging
import os
import threading

from ..errors import DaemonError
from ..net.client.job import JobClient
from ..net.daemon.daemon import Daemon
from ..net.io import copier  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..net.io.log import DEBUG, ERROR, INFO, WARNING, Log
from ..net.io.loop import Loop
from ..net.link import endpoint  # noqa: F401  a daemon imports all it will need, before the file under it changes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ..net.client.job import Job
    from ..proto.limits import Limits

    T = TypeVar("T")

END_TIME = 5.0  # seconds for the commands of links and services to end after the daemon has


class Engine:
    """The node `address`, with a control socket at the path `socket` if there is one."""

    def __init__(self, address: str, socket: str | None, limits: Limits) -> None:
        self.address = address
        self.socket = socket
        self._limits = limits
        self.path = socket or os.devnull  # R2_SOCKET of commands: no daemon listens there
        self.log = _LoggingLog("r2box", DEBUG)
        self.is_ending = False  # `stop` was called
        self.jobs: dict[EngineJob, None] = {}  # used in the loop only
        self._is_daemon_over = False  # the daemon has ended, its jobs perhaps not
        self._lock = threading.Lock()  # for what follows
        self._loop: Loop | None = None  # while it runs
        self._daemon: Daemon | None = None
        self._was_run = False
        self._calls: set[threading.Event] = set()  # of other threads that wait
        self._ended = threading.Event()
        self._process = os.getpid()  # a child made by fork has no thread that runs it

    def prepare(self) -> Loop:
        """Take the socket.  DaemonError if that cannot be."""
        with self._lock:
            self._process = os.getpid()
            if self._was_run:
                raise DaemonError(f"{self.address}: a node runs once; make a new one")
            loop = Loop()
            loop.takes_signals = False
            loop.failed = self.log.bug
            daemon = Daemon(loop, self.address, self.log, self._daemon_ended, self._limits)
            try:
                if self.socket is not None:
                    daemon.listen(self.socket)
            except BaseException:
                daemon.release()
                loop.close()
                raise
            loop.enable_post()
            self._loop, self._daemon, self._was_run = loop, daemon, True
            return loop

    def run(self, loop: Loop) -> None:
        """Until it has ended."""
        try:
            loop.run()
        finally:
            with self._lock:
                assert self._daemon is not None
                self._daemon.release()
                self._loop = self._daemon = None
                loop.close()
                self._ended.set()
                for call in self._calls:
                    call.set()

    def stop(self, timeout: float | None) -> None:
        """End in order, from another thread.  TimeoutError after `timeout` seconds."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._was_run = True
            if self._loop is None:
                return
            self._loop.post(self._end)
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self.address}: has not ended within {timeout:g} s")

    def _end(self) -> None:
        if not self.is_ending:
            self.is_ending = True
            for job in self.jobs:
                job.stop()
            assert self._daemon is not None
            self._daemon.end()

    def _daemon_ended(self) -> None:
        assert self._loop is not None
        self._is_daemon_over = True
        self._loop.later(END_TIME, self._loop.stop)
        for job in list(self.jobs):
            job.end()
        self.maybe_over()

    def maybe_over(self) -> None:
        if self._loop is not None and self._is_daemon_over and not self.jobs:
            self._loop.stop()

    def call(self, fn: Callable[[Loop, Daemon], T]) -> T:
        """fn(), in the node's thread, and what it returns or raises."""
        if os.getpid() != self._process:
            raise DaemonError(f"{self.address}: this node runs in the process that this one was forked from")
        got: list[T | Exception] = []
        done = threading.Event()
        with self._lock:
            loop, daemon = self._loop, self._daemon
            if loop is None or daemon is None:
                raise DaemonError(f"{self.address}: this node does not run")
            inside = (loop, daemon)

            def work() -> None:
                try:
                    got.append(fn(*inside))
                except Exception as error:
                    got.append(error)
                done.set()

            self._calls.add(done)
            loop.post(work)
        done.wait()
        with self._lock:
            self._calls.discard(done)
        if not got:
            raise DaemonError(f"{self.address}: this node has ended")
        if isinstance(got[0], Exception):
            raise got[0]
        return got[0]


class EngineJob(JobClient):
    """A job of a node.  Its methods are for the node's thread; `wait_for` is for others."""

    def __init__(self, engine: Engine, loop: Loop) -> None:
        super().__init__(loop)
        self._engine = engine
        self._changed = threading.Condition()  # of the next three
        self.got: str | None = None  # the last neighbour's address, or the service that is offered
        self.where: str | None = None  # where a transport listens
        self.why: str | None = None  # why it is over
        self._is_leaving = False

    def begin(self, job: Job, daemon: Daemon) -> None:
        """Keep `job` at `daemon`."""
        self.jobs = [job]
        self.embed(daemon.adopt_client)
        self._engine.jobs[self] = None

    def note(self, *, got: str | None = None, where: str | None = None, why: str | None = None) -> None:
        """Wake those that wait for this; the first `why` is kept."""
        with self._changed:
            self.got = got or self.got
            self.where = where or self.where
            self.why = why if self.why is None else self.why
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until condition() or the end of the job; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: condition() or self.why is not None, timeout)

    def lost(self, why: str) -> None:
        self.note(why=why)

    def end(self) -> None:
        """Leave the daemon, and end what runs.  Safe to call again."""
        if not self._is_leaving:
            self._is_leaving = True
            self.leave(self._left)

    def _left(self) -> None:
        self.note(why="it was ended")
        self._engine.jobs.pop(self, None)
        self._engine.maybe_over()


class _LoggingLog(Log):
    """Log that writes to the logger "r2box"."""

    def _write(self, level: int, text: str) -> None:
        logging.getLogger(self.name).log(_LEVELS[level], text)


_LEVELS = {ERROR: logging.ERROR, WARNING: logging.WARNING, INFO: logging.INFO, DEBUG: logging.DEBUG}

"""A daemon in somebody else's process: its loop in any thread, and what other threads may ask of it.

Nothing here touches what belongs to the whole process: no signal, no environment, no limit.
"""

from __future__ import annotations

import logging
import os
import threading

from ..errors import DaemonError, R2Error
from ..net.client.client import Client
from ..net.client.service_job import Server
from ..net.daemon.daemon import Daemon
from ..net.io import copier  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..net.io.channel import close_all, socketpair
from ..net.io.log import DEBUG, ERROR, INFO, WARNING, Log
from ..net.io.loop import Loop
from ..net.io.process import HANG_UP_TIME
from ..net.link import endpoint  # noqa: F401  a daemon imports all it will need, before the file under it changes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from ..net.transport.transport import Transport
    from ..proto.limits import Limits
    from ..proto.wire import messages

    T = TypeVar("T")

END_TIME = 5.0  # seconds for the commands of links and services to end after the daemon has


class Engine:
    """The node `address`, with a control socket at the path `socket` if there is one."""

    def __init__(self, address: str, socket: str | None, limits: Limits) -> None:
        self.address = address
        self.socket = socket
        self._limits = limits
        self.path = socket or os.devnull  # what R2_SOCKET says to commands: there, no daemon is
        self.log = _LoggingLog("r2box", DEBUG)
        self.is_ending = False  # as it was asked to
        self.parts: dict[EngineJob, None] = {}  # in the loop only, as the next
        self._is_parted = False  # the daemon has ended; what ran for it has still to
        self._lock = threading.Lock()  # of these
        self._loop: Loop | None = None  # while it runs
        self._daemon: Daemon | None = None
        self._was_run = False
        self._calls: set[threading.Event] = set()  # of other threads that wait
        self._ended = threading.Event()
        self._process = os.getpid()  # that it runs in: a child by fork has the memory of it, but no thread

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
            loop.open_to_threads()
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
            for part in self.parts:
                part._halt()
            assert self._daemon is not None
            self._daemon.end()

    def _daemon_ended(self) -> None:
        assert self._loop is not None
        self._is_parted = True
        self._loop.later(END_TIME, self._loop.stop)
        for part in list(self.parts):
            part._leave()
        self.maybe_over()

    def maybe_over(self) -> None:
        if self._loop is not None and self._is_parted and not self.parts:
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


class EngineJob:
    """A link, or a command that is offered: something with a connection to the daemon of its own.

    It lives in the node's loop; what other threads wait for is under `_changed`.  Its public methods are for these.
    """

    def __init__(self, engine: Engine, loop: Loop, daemon: Daemon) -> None:
        self._engine = engine
        self._loop = loop
        self._changed = threading.Condition()
        self._got: str | None = None  # what is waited for: it is there
        self._why: str | None = None  # it is over, and why
        self._is_leaving = False
        ours, theirs = socketpair()
        daemon.adopt_client(theirs)
        self._client = Client(loop, ours, ready=self._begin, gone=self._over, event=self._event)
        engine.parts[self] = None

    def _begin(self) -> None:
        raise NotImplementedError

    def _event(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        close_all(descriptors)  # only a service has any

    def _finish(self, done: Callable[[], None]) -> None:
        """End what runs for it, and done()."""
        raise NotImplementedError

    def _halt(self) -> None:
        """Begin nothing any more."""

    def _leave(self) -> None:
        """Withdraw from the daemon, and end what runs."""
        if not self._is_leaving:
            self._is_leaving = True
            self._halt()
            self._client.leave(lambda: self._finish(self._left))

    def _left(self) -> None:
        self._over("it was ended")
        self._engine.parts.pop(self, None)
        self._engine.maybe_over()

    def _is_there(self, what: str) -> None:
        with self._changed:
            self._got = what
            self._changed.notify_all()

    def _over(self, why: str) -> None:
        with self._changed:
            self._why = why if self._why is None else self._why
            self._changed.notify_all()


class ServiceOffer(EngineJob):
    """A service that is a TRANSPORT."""

    def __init__(
        self, engine: Engine, loop: Loop, daemon: Daemon, name: str, transport: Transport, allow: tuple[str, ...]
    ) -> None:
        self._error: R2Error | None = None
        self._server = Server(
            loop, engine.log, name, transport, engine.path, lambda: self._is_there(name), self._failed, allow
        )
        super().__init__(engine, loop, daemon)

    def wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._got is not None or self._why is not None)
            if self._got is None:
                raise self._error or DaemonError(f"{self._engine.address}: this node has ended")

    def _begin(self) -> None:
        self._server.offer(self._client)

    def _event(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        self._server.event(body, descriptors)

    def _failed(self, error: R2Error) -> None:
        self._error = error
        self._over(str(error))
        self._leave()

    def _finish(self, done: Callable[[], None]) -> None:
        self._server.end(done, HANG_UP_TIME)  # the process goes on, and would not reap them


class _LoggingLog(Log):
    """What a daemon says, for whoever listens to the logger "r2box"."""

    def _say(self, level: int, text: str) -> None:
        logging.getLogger(self.name).log(_LEVELS[level], text)


_LEVELS = {ERROR: logging.ERROR, WARNING: logging.WARNING, INFO: logging.INFO, DEBUG: logging.DEBUG}

"""Service job: runs a command, or makes a connection, for each tunnel that the daemon announces."""

from __future__ import annotations

import os

from ...errors import R2Error, RefusedError, TransportError
from ...proto.link.link import UP
from ...proto.wire import messages
from ...proto.wire.address import SERVICE, format_path
from ...proto.wire.job_states import JobKind, JobState
from ...proto.wire.outcome import FAILED, Outcome
from ..io import process
from ..io.channel import adopt, close_all
from ..io.leash import Leash
from ..io.process import Child
from ..transport.sockets import Dial
from ..transport.transport import COMMAND, Transport
from ..transport.urls import DEVICE, INTERFACES, SERVE
from .client import checked
from .job import Job, JobReport
from .start_pace import Settling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..io.log import Log
    from ..io.loop import Loop
    from .client import Client


class ServiceJob(Job):
    """Offers `transport` as `name` ("" for the node's own command).

    Programs find the daemon at `socket_path` (R2_SOCKET).  ready() is called when the service is offered, failed(error)
    if it cannot be.  UsageError if `transport` cannot be served.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        name: str,
        transport: Transport,
        socket_path: str,
        ready: Callable[[], None],
        failed: Callable[[R2Error], None],
        allow: tuple[str, ...] = (),
        private: bool = False,
        datagrams: bool = False,
        end_time: float = process.LEAVE_TIME,
    ) -> None:
        self._loop = loop
        self._log = log
        self.name = name
        self.transport = transport.check_use(SERVE)
        self._socket_path = os.path.abspath(socket_path)
        self._ready = ready
        self._failed = failed
        self._allow = allow
        self._private = private
        self._mode = transport.mode(datagrams)
        self._end_time = end_time
        log.once(transport.note)
        self._runs = transport.how in (COMMAND, DEVICE) and transport.kind not in INTERFACES
        self._report = JobReport(loop, JobKind.SERVICE, transport.text, name)  # while offered, the daemon shows it
        self._client: Client | None = None
        self._leash = loop.shared(Leash)
        self._settling = Settling(loop, self._start_next)
        self._waiting: dict[int, tuple[messages.Body, tuple[int, ...]]] = {}  # tunnel: what its program is to get
        self._running: dict[int, Child] = {}  # tunnel: program
        self._bridges: dict[int, Callable[[], None]] = {}  # tunnel: what ends the use of its device
        self._dials: dict[int, Dial] = {}
        self._failure = ""  # of the last connection, until one is made
        self._done: Callable[[], None] | None = None
        if transport.how == DEVICE:
            from ..io import copier  # noqa: F401  now, as the file under us may change before the first tunnel
            from ..transport import devices  # noqa: F401  now, as the file under us may change before the first tunnel

    def begin(self, client: Client) -> None:
        """Offer the service to the daemon behind `client`."""
        self._client = client
        client.request(
            messages.SERVE,
            self._answered,
            name=self.name,
            runs=messages.APART if self._runs else messages.PROVIDES,
            mode=self._mode,
            allow=tuple(pattern.encode() for pattern in self._allow),
            detail=self.transport.text[:200],
            private=int(self._private),
        )

    def _answered(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        try:
            checked(body)
        except RefusedError as error:
            assert self._client is not None
            self._report.enter(JobState.STOPPED, reason=str(error))
            self._report.use(self._client)
            self._failed(error)
            return
        self._ready()

    def event(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        """INCOMING or HANGUP.

        Programs are started one in a round of the loop, so that a HANGUP that came with its INCOMING is seen first,
        and as their pace allows.
        """
        if body.kind == messages.INCOMING and self._runs:
            if not self._waiting:
                self._loop.soon(self._start_next)
            self._waiting[body.id] = (body, descriptors)
            return
        try:
            if body.kind == messages.INCOMING:
                self._incoming(body)
            elif body.kind == messages.HANGUP:
                self._hang_up(body.id, body["text"])
        finally:
            for fd in descriptors:
                os.close(fd)

    def _incoming(self, body: messages.Body) -> None:
        self._log.debug(f"{self.name or 'cmd'}: a tunnel from {format_path(body['origin'])}")
        if self.transport.kind in INTERFACES:
            self._give_interface(body.id)
        else:
            self._dials[body.id] = Dial(self._loop, self.transport, lambda got: self._dialled(body.id, got))

    def _start_next(self) -> None:
        if not self._waiting:
            return
        if not self._settling.has_room:
            self._settling.wait()
            return
        id_ = next(iter(self._waiting))
        body, descriptors = self._waiting.pop(id_)
        try:
            if self._client is not None and self._client.link.state == UP:
                self._start(body, descriptors)
        finally:
            close_all(descriptors)
        if self._waiting:
            self._loop.soon(self._start_next)

    def _start(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        origin = format_path(body["origin"])
        self._log.debug(f"{self.name or 'cmd'}: a tunnel from {origin}")
        environment = {
            "R2_ORIGIN": origin,
            "R2_SERVICE": self.name,
            "R2_NODE": body["node"],
            "R2_SOCKET": self._socket_path,
        }
        if self.transport.how == DEVICE:
            self._join_device(body.id, descriptors, environment)
            return
        try:
            pid = process.start(
                self.transport.command,
                descriptors[0],
                descriptors[-1],
                environment=environment,
                new_session=True,
                leash=self._leash.open(),
            )
        except OSError as error:
            self._exited(body.id, Outcome(FAILED, f"{SERVICE}{self.name}: cannot be started: {error.strerror}"))
            return
        self._send(messages.STARTED, body.id)
        self._run(body.id, pid)

    def _run(self, id: int, pid: int) -> None:
        self._settling.add(pid)
        self._running[id] = Child(
            self._loop, pid, lambda status: self._ended(id, status), group=True, leash=self._leash
        )

    def _give_interface(self, id: int) -> None:
        """The interface is deleted when the daemon, or the client that gets it, closes it."""
        from ..transport.devices import open_device

        try:
            self._send(messages.STARTED, id, open_device(self.transport).fds)
        except TransportError as error:
            self._exited(id, Outcome(FAILED, f"{SERVICE}{self.name}: {error}"))

    def _join_device(self, id: int, descriptors: tuple[int, ...], environment: dict[str, str]) -> None:
        from ..io.copier import Bridge
        from ..transport.devices import open_device

        try:
            stream = adopt(tuple(os.dup(fd) for fd in descriptors))
        except OSError as error:
            self._exited(id, Outcome(FAILED, f"{SERVICE}{self.name}: {error.strerror}"))
            return
        try:
            leash = self._leash.open() if self.transport.command else -1
            devices = open_device(self.transport, environment, with_stderr=True, leash=leash)
        except (OSError, TransportError) as error:
            stream.close()
            why = error.strerror if isinstance(error, OSError) else error
            self._exited(id, Outcome(FAILED, f"{SERVICE}{self.name}: {why}"))
            return

        def ended(why: str) -> None:
            self._bridges.pop(id, None)
            devices.release()
            if not devices.pid:
                self._exited(id, Outcome(FAILED, f"{SERVICE}{self.name}: {why}") if why else Outcome())

        def close() -> None:
            bridge.close()
            devices.release()

        bridge = Bridge(self._loop, adopt(devices.fds), stream, ended)
        self._bridges[id] = close
        self._send(messages.STARTED, id)
        if devices.pid:
            self._run(id, devices.pid)

    def _ended(self, id: int, status: int) -> None:
        self._settling.discard(self._running.pop(id).pid)
        self._exited(id, Outcome(signal=-status) if status < 0 else Outcome(status=status))
        if not self._running:
            self._leave()

    def _dialled(self, id: int, got: int | TransportError) -> None:
        del self._dials[id]
        if isinstance(got, int):
            self._failure = ""
            self._send(messages.STARTED, id, (got,))
        else:
            if str(got) != self._failure:
                self._failure = str(got)
                self._log.warning(f"{self.name or 'cmd'}: {self.transport}: {got}")
            self._exited(id, Outcome(FAILED, f"{SERVICE}{self.name}: {got}"))

    def _exited(self, id: int, outcome: Outcome) -> None:
        if not outcome.is_clean or outcome.status:
            # Many programs exit so when their connection is closed (sshd: 255); the client gets the outcome.
            self._log.debug(f"{self.name or 'cmd'}: {outcome.describe()}")
        self._send(messages.EXITED, id, **outcome.fields())

    def _send(self, kind: int, id: int, descriptors: tuple[int, ...] = (), **fields: object) -> None:
        assert self._client is not None
        self._client.send(kind, id, (), descriptors, **fields)

    def _hang_up(self, id: int, why: str) -> None:
        if id in self._waiting:
            close_all(self._waiting.pop(id)[1])
            self._exited(id, Outcome(FAILED, why))
            return
        dial = self._dials.pop(id, None)
        if dial is not None:
            dial.cancel()
            self._exited(id, Outcome(FAILED, why))
            return
        close = self._bridges.pop(id, None)
        if close is not None:
            close()
            if id not in self._running:
                self._exited(id, Outcome(FAILED, why))
        if id in self._running:
            self._log.debug(f"{self.name or 'cmd'}: hanging up: {why}")
            self._running[id].end()

    def end(self, done: Callable[[], None]) -> None:
        """Hang up on everything that runs; done() when all of it has ended, or has had `end_time` seconds.

        What is left then is ended as long as this process continues, and after that by the leash.
        """
        for _, descriptors in self._waiting.values():
            close_all(descriptors)
        self._waiting.clear()
        for dial in self._dials.values():
            dial.cancel()
        for close in self._bridges.values():
            close()
        for program in self._running.values():
            program.end()
        if self._running:
            self._done = done
            self._loop.later(self._end_time, self._leave)
        else:
            done()

    def kill(self) -> None:
        for program in self._running.values():
            program.kill()

    def _leave(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done()

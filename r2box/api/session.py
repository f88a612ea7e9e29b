"""The library: tunnels and services as plain sockets, for programs in Python.

    sock = r2box.dial("bob/echo")                  # a connected socket.socket
    for sock, origin in r2box.serve("echo"): ...   # accepted ones
    for entry in r2box.ls("bob"): ...              # what that node is connected to
    seconds = r2box.ping("bob")                    # a round trip to it

The daemon passes these sockets as descriptors, so this process copies nothing.  (Only where the control socket is
forwarded and passes no descriptors, a thread of the session copies.)  They are stream sockets of the family AF_UNIX,
or what the service itself provides: AF_INET for a service of the same node that is `tcp://…`.  A tunnel lives as long
as its socket, not as long as the `Session` that opened it.

All calls block; `timeout` is in seconds (None: no limit).  The functions may be called from any thread; a Session may
be used by one thread at a time.  Errors are R2Error or TimeoutError.  No signal handler is set.  With asyncio, use
`asyncio.to_thread`.

A child process made by fork inherits the sockets, but may not use sessions or services: they stay with the parent.
"""

from __future__ import annotations

import atexit
import os
import socket as sockets
import threading
from collections import deque
from typing import NamedTuple

from ..errors import BusyError, DaemonError, RefusedError
from ..net.client.client import Client, checked
from ..net.client.query import ask_all
from ..net.client.reach import WAIT, reach
from ..net.io.channel import close_all
from ..net.io.loop import Loop
from ..proto.wire import messages
from ..proto.wire.address import check_address, format_path, parse_path
from ..proto.wire.outcome import BUSY
from .service import Closing, Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")

LINGER = 1.0  # seconds that the exit of the process waits for the thread to copy the rest
MAX_PENDING = 64  # tunnels that `Session.dial_all` opens at the same time


class Entry(NamedTuple):
    """A neighbour, service or client of a node."""

    kind: str  # "node", "service" or "client"
    name: str  # its address, "service/NAME" or "child/ID"
    detail: str  # of a link, what it waits for; of a service, its command; of a client, its software; or ""


class Session(Closing):
    """A connection to the daemon at `socket`, for any number of calls.  A context manager that closes it.

    `socket` is a path (default: the same as for the tools), or a connected UNIX socket, which the session then owns.
    The session waits up to `wait` seconds, and at most `timeout`, for a daemon that is starting.  DaemonError if there
    is none, or if it does not answer within 10 seconds; TimeoutError after `timeout` seconds.

    >>> with r2box.Session() as session:  # doctest: +SKIP
    ...     socks = [session.dial("bob/echo", timeout=5) for _ in range(10)]
    """

    def __init__(
        self, socket: str | sockets.socket | None = None, timeout: float | None = None, *, wait: float = WAIT
    ) -> None:
        self._begun = Loop.now()
        if isinstance(socket, sockets.socket):
            self._path = "the node"
        else:
            socket, self._path = reach(socket, wait if timeout is None else min(wait, timeout))
        self._loop = Loop()
        self._process = os.getpid()  # a child made by fork inherits the descriptors, but may not use them
        self._lost_why: str | None = None
        self._is_closed = False
        self._incoming: dict[str, deque[tuple[sockets.socket, str]]] = {}  # by service: tunnels not accepted yet
        self._is_ready = False
        self._thread: threading.Thread | None = None  # runs the loop where descriptors do not pass
        self._client = Client(self._loop, socket.detach(), ready=self._ready, lost=self._lost, event=self._event)
        try:
            if not self._wait(lambda: self._is_ready, _left(self, timeout)):
                raise TimeoutError(f"{self._path}: no answer within {timeout:g} s")
        except BaseException:
            self.close()
            raise
        if not self._client.link.passes_descriptors:
            self._start_copying()

    def close(self) -> None:
        """Disconnect from the daemon.  Services of this session end, tunnels do not.  Safe to call again.

        A child made by fork only closes its copies of the descriptors.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._lost_why = self._lost_why or "the session is closed"
        if os.getpid() != self._process:
            self._client.abandon()
            self._loop.close()
            self._drop_incoming()
            return
        if self._thread is not None:
            self._loop.post(self._disconnect_when_idle)
            return
        self._disconnect()
        self._loop.run()
        self._loop.close()
        self._drop_incoming()

    def _disconnect(self) -> None:
        self._client.close()
        self._loop.soon(self._loop.stop)

    @property
    def address(self) -> str:
        """The address of the daemon."""
        return self._client.address

    # -- tunnels ---------------------------------------------------------------------------------------------------

    def dial(self, path: str, timeout: float | None = None) -> sockets.socket:
        """A tunnel to `path` (such as "bob/echo"; "" is the node's own command) as a connected, blocking socket.

        RefusedError if it cannot be opened, or its subclass BusyError if a later attempt may succeed; TimeoutError
        after `timeout` seconds; DaemonError if the connection to the daemon is lost.  A later failure reads as
        end of file.
        """
        got: list[sockets.socket | Exception] = []
        self._ask(path, got)
        return self._take(got, timeout, f"{path}: not open")

    def dial_all(self, paths: Iterable[str]) -> Iterator[sockets.socket]:
        """A tunnel to each of `paths`, in order; opens `MAX_PENDING` at the same time.  Errors as `dial`."""
        waiting: deque[list[sockets.socket | Exception]] = deque()
        try:
            for path in paths:
                waiting.append([])
                self._ask(path, waiting[-1])
                if len(waiting) >= MAX_PENDING:
                    yield self._first(waiting)
            while waiting:
                yield self._first(waiting)
        finally:
            for got in waiting:
                _drop(got)

    def _first(self, waiting: deque[list[sockets.socket | Exception]]) -> sockets.socket:
        got = waiting.popleft()
        return self._take(got, None, "")

    def _ask(self, path: str, got: list[sockets.socket | Exception]) -> None:
        """Request a tunnel, and append its socket, or an error, to `got`."""

        def answered(body: messages.Body, descriptors: tuple[int, ...]) -> None:
            self._client.forget(body.id)
            if body.kind == messages.OPENED and descriptors and not got:
                got.append(sockets.socket(fileno=descriptors[0]))
                return
            close_all(descriptors)
            got.append(_refusal(body, path))

        target = _steps(path)
        self._do(lambda: self._client.request(messages.TUNNEL, answered, target=target, detached=1))

    # -- queries ---------------------------------------------------------------------------------------------------

    def ls(self, path: str = "", *, clients: bool = False, timeout: float | None = 5.0) -> list[Entry]:
        """Neighbours and services of the node at `path` ("": this node), with `clients` also its clients.

        RefusedError if it cannot be reached; TimeoutError if the answer is not complete within `timeout` seconds.
        """
        got: list[list[dict[str, Any]] | Exception] = []
        target = _steps(path)
        self._do(
            lambda: ask_all(
                self._client,
                messages.LIST,
                target,
                lambda _, entries: got.append(entries),
                got.append,
                clients=int(clients),
            )
        )
        return [Entry(**entry) for entry in self._take(got, timeout, f"{path or self.address}: no answer")]

    def ping(self, path: str = "", *, timeout: float | None = 5.0) -> float:
        """The round trip time to the node at `path` ("": this node), in seconds.

        RefusedError if it cannot be reached, TimeoutError after `timeout` seconds.
        """
        got: list[float | Exception] = []
        target = _steps(path)

        def answered(body: messages.Body, descriptors: tuple[int, ...]) -> None:
            self._client.forget(body.id)
            close_all(descriptors)
            if body.kind == messages.PONG:
                got.append(self._loop.now() - begin)
            else:
                got.append(_refusal(body, path))

        begin = self._loop.now()
        self._do(lambda: self._client.request(messages.PING, answered, target, data=os.urandom(16)))
        return self._take(got, timeout, f"{path or self.address}: no answer")

    # -- services --------------------------------------------------------------------------------------------------

    def serve(self, name: str, allow: Iterable[str] = ()) -> Iterator[tuple[sockets.socket, str]]:
        """Offer the service `name`, and yield a connected, blocking socket and its origin for each tunnel to it.

        The origin is the path back to the client that opened the tunnel, nearest node first, such as "bob/child/7".
        With `allow`, a pattern or several, tunnels from other origins are refused.  RefusedError if the name is taken,
        AddressError if it is invalid.  The service is offered from this call on, not from the first `next`.
        """
        answers: list[messages.Body] = []
        patterns = tuple(pattern.encode() for pattern in ((allow,) if isinstance(allow, str) else allow))
        check_address(name)

        def ask() -> None:
            self._client.request(
                messages.SERVE, lambda body, _: answers.append(body), name=name, runs=messages.SINGLE, allow=patterns
            )

        self._do(ask)
        self._wait(lambda: bool(answers))
        checked(answers[0])
        return self._accept(self._incoming.setdefault(name, deque()))

    def _bell(self) -> sockets.socket:
        """A socket whose close makes a waiting call raise DaemonError."""
        bell, other = sockets.socketpair()

        def closed() -> None:
            self._loop.watch(other.fileno())
            other.close()
            self._lost("the service is closed")

        self._do(lambda: self._loop.watch(other.fileno(), closed))
        return bell

    def _accept(self, incoming: deque[tuple[sockets.socket, str]]) -> Iterator[tuple[sockets.socket, str]]:
        while True:
            self._wait(lambda: bool(incoming))
            yield incoming.popleft()

    def _event(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == messages.INCOMING and descriptors:
            incoming = self._incoming.setdefault(body["service"], deque())
            incoming.append((sockets.socket(fileno=descriptors[0]), format_path(body["origin"])))
            self._client.send(messages.STARTED, body.id)

    def _drop_incoming(self) -> None:
        """Close the tunnels that were not accepted."""
        for incoming in self._incoming.values():
            while incoming:
                incoming.popleft()[0].close()

    # -- the loop --------------------------------------------------------------------------------------------------

    def _ready(self) -> None:
        self._is_ready = True

    def _lost(self, why: str) -> None:
        self._lost_why = why

    def _do(self, fn: Callable[[], object]) -> None:
        """Call fn() in the thread of the loop."""
        self._check_process()
        if self._thread is None:
            fn()
        else:
            self._loop.post(fn)

    def _wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until done(), up to `timeout` seconds, and return done().  DaemonError if the daemon is lost first."""

        def over() -> bool:
            return done() or self._lost_why is not None

        self._check_process()
        if self._thread is not None:
            with self._changed:
                self._changed.wait_for(over, timeout)
        elif not over():
            timer = self._loop.later(timeout, lambda: None) if timeout is not None else None
            end = self._loop.now() + (timeout or 0)
            while not over() and (timer is None or self._loop.now() < end):
                self._loop.run_once()
            if timer is not None:
                timer.cancel()
        if self._lost_why is not None and not done():
            raise DaemonError(f"{self._path}: {self._lost_why}")
        return done()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise DaemonError(f"{self._path}: this session belongs to the parent process")

    def _take(self, got: list[T | Exception], timeout: float | None, missed: str) -> T:
        """Wait for the first item of `got`, and return or raise it.  TimeoutError with `missed` after `timeout` s."""
        try:
            if not self._wait(lambda: bool(got), timeout):
                raise TimeoutError(f"{missed} within {round(timeout or 0, 2):g} s")
        finally:
            if not got:
                got.append(TimeoutError(missed))  # a late result is dropped
        first = got[0]
        if isinstance(first, Exception):
            raise first
        return first

    # -- where descriptors do not pass -----------------------------------------------------------------------------

    def _start_copying(self) -> None:
        """Run the loop in a thread, which copies the bytes of all tunnels."""
        self._changed = threading.Condition()
        self._loop.enable_post()
        self._thread = threading.Thread(target=self._copy, name="r2box", daemon=True)
        self._thread.start()
        atexit.register(self._finish)

    def _copy(self) -> None:
        self._loop.is_running = True
        while self._loop.is_running:
            self._loop.run_once()
            with self._changed:
                self._changed.notify_all()
        self._loop.close()
        self._drop_incoming()
        atexit.unregister(self._finish)  # which would keep each session until the exit

    def _disconnect_when_idle(self) -> None:
        self._client.fd_relay.idle = self._disconnect
        if not self._client.fd_relay.active:
            self._disconnect()

    def _finish(self) -> None:
        """Send what was written to the sockets before the process exits."""
        self.close()
        assert self._thread is not None
        self._thread.join(LINGER)


def _steps(path: str) -> tuple[str, ...]:
    return parse_path(path) if path else ()


def _drop(got: list[sockets.socket | Exception]) -> None:
    """Discard the result in `got`, also one that arrives later."""
    got.append(TimeoutError())
    if isinstance(got[0], sockets.socket):
        got[0].close()


def _refusal(body: messages.Body, path: str) -> RefusedError:
    """The error for `body`, which is not the expected response."""
    if body.kind != messages.ERROR:
        return RefusedError(f"{path}: unexpected response")
    return (BusyError if body["code"] == BUSY else RefusedError)(body["text"])


def _left(session: Session, timeout: float | None) -> float | None:
    """The part of `timeout` that is left since the beginning of `session`."""
    return None if timeout is None else max(0.0, timeout - (Loop.now() - session._begun))


def dial(
    path: str, *, socket: str | None = None, timeout: float | None = None, wait: float = WAIT
) -> sockets.socket:
    """A tunnel to `path` as a connected socket: see `Session.dial`, and `Session` for `socket` and `wait`.

    >>> sock = r2box.dial("bob/echo")  # doctest: +SKIP
    """
    with Session(socket, timeout, wait=wait) as session:
        return session.dial(path, _left(session, timeout))


def ls(
    path: str = "",
    *,
    clients: bool = False,
    socket: str | None = None,
    timeout: float | None = 5.0,
    wait: float = WAIT,
) -> list[Entry]:
    """Neighbours and services of the node at `path`: see `Session.ls`, and `Session` for `socket` and `wait`.

    >>> [entry.name for entry in r2box.ls("bob") if entry.kind == "service"]  # doctest: +SKIP
    ['service/echo']
    """
    with Session(socket, timeout, wait=wait) as session:
        return session.ls(path, clients=clients, timeout=_left(session, timeout))


def ping(
    path: str = "", *, socket: str | None = None, timeout: float | None = 5.0, wait: float = WAIT
) -> float:
    """The round trip time to the node at `path`, in seconds: see `Session.ping`, and `Session` for `socket` and `wait`.

    >>> f"{r2box.ping('bob') * 1000:.1f} ms"  # doctest: +SKIP
    '0.2 ms'
    """
    with Session(socket, timeout, wait=wait) as session:
        return session.ping(path, timeout=_left(session, timeout))


def serve(
    name: str, *, socket: str | None = None, allow: Iterable[str] = (), wait: float = WAIT
) -> Service:
    """Offer the service `name`, and iterate over its tunnels: see `Service`, and `Session` for `socket` and `wait`.
    Errors as `Session.serve`.

    >>> for sock, origin in r2box.serve("echo"):  # doctest: +SKIP
    ...     threading.Thread(target=handle, args=(sock,)).start()
    """
    return offer(Session(socket, wait=wait), name, allow)


def offer(
    session: Session, name: str, allow: Iterable[str], is_over: Callable[[], bool] = lambda: False
) -> Service:
    """`serve` for a `session` that the Service owns.  is_over(): whether the end of the daemon is expected."""
    bell = session._bell()
    try:
        return Service(session.serve(name, allow), bell, session.close, is_over)
    except BaseException:
        bell.close()
        session.close()
        raise

"""The library: tunnels and services as plain sockets, for programs in Python.

    sock = r2box.dial("bob/echo")                  # a connected socket.socket
    for sock, origin in r2box.serve("echo"): ...   # accepted ones

The sockets are real: the daemon hands them over, and nothing of this process is in the way.  (Only where the control
socket is forwarded and passes no descriptors, a thread of the session copies.)  They are stream sockets of the family
AF_UNIX, or what the service itself gave: AF_INET of a service of the same node that is `tcp://…`.  A tunnel lives as
long as its socket, not as long as the `Session` that opened it.

Everything here blocks; give each thread a Session of its own.
"""

from __future__ import annotations

import atexit
import socket as sockets
from collections import deque

from .errors import DaemonError, RefusedError
from .net import socketfile
from .net.channel import close_all
from .net.client import Client, checked
from .net.loop import Loop
from .proto import body as say
from .proto.address import check_address, format_path, parse_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from threading import Thread
    from types import TracebackType

LINGER = 1.0  # seconds that the end of a process waits for what a thread of ours has still to copy
AT_ONCE = 64  # tunnels that `Session.dial_all` has on the way


class Session:
    """A connection to the daemon at `socket` (a path; by default as every tool finds it), for any number of calls.

    DaemonError if there is no daemon.  A context manager: at its end it parts from the daemon.
    """

    def __init__(self, socket: str | None = None) -> None:
        self._path = socket or socketfile.default_path()
        self._loop = Loop()
        self._gone: str | None = None
        self._is_closed = False
        self._incoming: deque[tuple[sockets.socket, str]] = deque()
        self._is_ready = False
        self._thread: Thread | None = None  # runs the loop, where descriptors do not pass
        try:
            fd = socketfile.connect(self._path).detach()
        except DaemonError:
            self._loop.close()
            raise
        self._client = Client(self._loop, fd, ready=self._ready, gone=self._lost, event=self._event)
        self._wait(lambda: self._is_ready)
        if not self._client.link.passes:
            self._start_copying()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Part from the daemon; services of this session end, tunnels do not.  Safe to call again."""
        if self._is_closed:
            return
        self._is_closed = True
        self._gone = self._gone or "the session is closed"
        if self._thread is not None:
            self._loop.post(self._part_when_empty)
            return
        self._part()
        self._loop.run()
        self._loop.close()

    def _part(self) -> None:
        self._client.close()
        self._loop.soon(self._loop.stop)

    @property
    def address(self) -> str:
        """The daemon's."""
        return self._client.address

    # -- tunnels ---------------------------------------------------------------------------------------------------

    def dial(self, path: str, timeout: float | None = None) -> sockets.socket:
        """A tunnel to `path` (such as "bob/echo"; "" is the node's own command) as a connected, blocking socket.

        RefusedError if it cannot be opened, TimeoutError after `timeout` seconds, DaemonError if the daemon goes away.
        A tunnel that fails later looks like a connection that its other end closed.
        """
        got: list[sockets.socket | Exception] = []
        self._ask(path, got)
        if not self._wait(lambda: bool(got), timeout):
            got.append(TimeoutError(f"{path}: not open within {timeout:g} s"))
        return _socket_of(got)

    def dial_all(self, paths: Iterable[str]) -> Iterator[sockets.socket]:
        """A tunnel to each of `paths`, in their order; up to `AT_ONCE` are on the way at the same time.

        Errors as `dial`.
        """
        waiting: deque[list[sockets.socket | Exception]] = deque()
        for path in paths:
            waiting.append([])
            self._ask(path, waiting[-1])
            if len(waiting) >= AT_ONCE:
                yield self._first(waiting)
        while waiting:
            yield self._first(waiting)

    def _first(self, waiting: deque[list[sockets.socket | Exception]]) -> sockets.socket:
        got = waiting.popleft()
        self._wait(lambda: bool(got))
        return _socket_of(got)

    def _ask(self, path: str, got: list[sockets.socket | Exception]) -> None:
        """Ask for a tunnel; what comes of it goes to `got`."""

        def answered(body: say.Body, descriptors: tuple[int, ...]) -> None:
            self._client.forget(body.id)
            if body.kind == say.OPENED and descriptors and not got:
                got.append(sockets.socket(fileno=descriptors[0]))
                return
            close_all(descriptors)
            got.append(RefusedError(body["text"] if body.kind == say.ERROR else f"{path}: an answer that is none"))

        target = parse_path(path) if path else ()
        self._do(lambda: self._client.request(say.TUNNEL, answered, target=target, detached=1))

    # -- services --------------------------------------------------------------------------------------------------

    def serve(self, name: str, allow: Iterable[str] = ()) -> Iterator[tuple[sockets.socket, str]]:
        """Offer the service `name`, and yield a connected, blocking socket and its origin for each tunnel to it.

        The origin is the way back to who opened it, nearest node first, such as "bob/child/7".  With `allow`, only
        tunnels whose origin matches one of these patterns come.  RefusedError if the name is taken, AddressError if
        it is none.  It is offered from this call on, not from the first `next`.
        """
        answers: list[say.Body] = []
        patterns = tuple(pattern.encode() for pattern in allow)
        check_address(name)

        def ask() -> None:
            self._client.request(
                say.SERVE, lambda body, _: answers.append(body), name=name, runs=say.SINGLE, allow=patterns
            )

        self._do(ask)
        self._wait(lambda: bool(answers))
        checked(answers[0])
        return self._accept()

    def _accept(self) -> Iterator[tuple[sockets.socket, str]]:
        while True:
            self._wait(lambda: bool(self._incoming))
            yield self._incoming.popleft()

    def _event(self, body: say.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == say.INCOMING and descriptors:
            self._incoming.append((sockets.socket(fileno=descriptors[0]), format_path(body["origin"])))
            self._client.send(say.STARTED, body.id)

    # -- the loop --------------------------------------------------------------------------------------------------

    def _ready(self) -> None:
        self._is_ready = True

    def _lost(self, why: str) -> None:
        self._gone = why

    def _do(self, fn: Callable[[], object]) -> None:
        """fn(), where the loop runs."""
        if self._thread is None:
            fn()
        else:
            self._loop.post(fn)

    def _wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Until done(), or for `timeout` seconds; whether it is.  DaemonError if the daemon goes away first."""

        def over() -> bool:
            return done() or self._gone is not None

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
        if self._gone is not None and not done():
            raise DaemonError(f"{self._path}: the daemon went away: {self._gone}")
        return done()

    # -- where descriptors do not pass -----------------------------------------------------------------------------

    def _start_copying(self) -> None:
        """Have a thread run the loop: our ends of all tunnels are copied there, while the caller does what it likes."""
        import threading

        self._changed = threading.Condition()
        self._loop.open_to_threads()
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
        atexit.unregister(self._finish)  # or every session that ever was would be kept until the end

    def _part_when_empty(self) -> None:
        self._client.ferry.emptied = self._part
        if not self._client.ferry.carried:
            self._part()

    def _finish(self) -> None:
        """This process ends: what its sockets were given should have gone out before."""
        self.close()
        assert self._thread is not None
        self._thread.join(LINGER)


def _socket_of(got: list[sockets.socket | Exception]) -> sockets.socket:
    if isinstance(got[0], Exception):
        raise got[0]
    return got[0]


def dial(path: str, *, socket: str | None = None, timeout: float | None = None) -> sockets.socket:
    """A tunnel to `path` as a connected socket: see `Session.dial`.

    >>> sock = r2box.dial("bob/echo")  # doctest: +SKIP
    """
    with Session(socket) as session:
        return session.dial(path, timeout)


def serve(
    name: str, *, socket: str | None = None, allow: Iterable[str] = ()
) -> Iterator[tuple[sockets.socket, str]]:
    """Offer the service `name` for as long as the iterator lives: see `Session.serve`.

    >>> for sock, origin in r2box.serve("echo"):  # doctest: +SKIP
    ...     threading.Thread(target=handle, args=(sock,)).start()
    """
    session = Session(socket)
    try:
        tunnels = session.serve(name, allow)
    except Exception:
        session.close()
        raise
    return _closing(session, tunnels)


def _closing(
    session: Session, tunnels: Iterator[tuple[sockets.socket, str]]
) -> Iterator[tuple[sockets.socket, str]]:
    with session:
        yield from tunnels

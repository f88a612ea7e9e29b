"""The library: tunnels and services as plain sockets, for programs in Python.

    sock = r2box.dial("bob/echo")                  # a connected socket.socket
    for sock, origin in r2box.serve("echo"): ...   # accepted ones

The sockets are real: the daemon hands them over, and what comes out of them does not pass through this process a
second time.  They are stream sockets of the family AF_UNIX, or what the service itself gave (AF_INET of a service that
is `tcp://…`).  A tunnel lives as long as its socket, not as long as the `Session` that opened it.

Everything here blocks; give each thread a Session of its own.
"""

from __future__ import annotations

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
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Any

    from .net.loop import Timer

AT_ONCE = 64  # tunnels that `Session.dial_all` has on the way


class Session:
    """A connection to the daemon at `socket` (a path; by default as every tool finds it), for any number of calls.

    DaemonError if there is no daemon.  A context manager: at its end it parts from the daemon.
    """

    def __init__(self, socket: str | None = None) -> None:
        self._path = socket or socketfile.default_path()
        self._loop = Loop()
        self._gone: str | None = None
        self._incoming: deque[tuple[sockets.socket, str]] = deque()
        self._is_ready = False
        try:
            fd = socketfile.connect(self._path).detach()
        except DaemonError:
            self._loop.close()
            raise
        self._client = Client(self._loop, fd, ready=self._ready, gone=self._lost, event=self._event)
        self._wait(lambda: self._is_ready)

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Part from the daemon; services of this session end, tunnels do not.  Safe to call again."""
        if self._gone is None:
            self._gone = "closed"
            self._client.close()
            self._loop.soon(self._loop.stop)
            self._loop.run()
        self._loop.close()

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
        timer: list[Timer] = []
        if timeout is not None:
            late = TimeoutError(f"{path}: not open within {timeout:g} s")
            timer.append(self._loop.later(timeout, lambda: got.append(late)))
        self._ask(path, got)
        self._wait(lambda: bool(got))
        for pending in timer:
            pending.cancel()
        if isinstance(got[0], Exception):
            raise got[0]
        return got[0]

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
        if isinstance(got[0], Exception):
            raise got[0]
        return got[0]

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
        self._client.request(say.TUNNEL, answered, target=target, detached=1)

    # -- services --------------------------------------------------------------------------------------------------

    def serve(self, name: str, allow: Iterable[str] = ()) -> Iterator[tuple[sockets.socket, str]]:
        """Offer the service `name`, and yield a connected, blocking socket and its origin for each tunnel to it.

        The origin is the way back to who opened it, nearest node first, such as "bob/child/7".  With `allow`, only
        tunnels whose origin matches one of these patterns come.  RefusedError if the name is taken, AddressError if
        it is none.  It is offered from this call on, not from the first `next`.
        """
        answers: list[say.Body] = []
        patterns = tuple(pattern.encode() for pattern in allow)
        self._client.request(
            say.SERVE, lambda body, _: answers.append(body), name=check_address(name), runs=say.SINGLE, allow=patterns
        )
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

    def _wait(self, done: Any) -> None:
        """Run the loop until done(); DaemonError if the daemon goes away first."""
        while not done():
            if self._gone is not None:
                raise DaemonError(f"{self._path}: the daemon went away: {self._gone}")
            self._loop.run_once()


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

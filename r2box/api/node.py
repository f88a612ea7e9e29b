"""Embedded node: all that `r2d` does, inside a Python program.

    with r2box.Node("alice") as alice, r2box.Node("bob") as bob:
        bob.connect("tcp-listen://127.0.0.1:4721")
        alice.connect("tcp://127.0.0.1:4721", retry=True).wait(timeout=5)
        sock = alice.dial("bob/echo", timeout=5)

A Node runs its loop in a separate thread from `start` to `stop` (a `with` does both), or in the calling thread with
`run`.  A process may have any number of nodes.  A node sets no signal handler, changes no environment and raises no
limits; what `r2d` writes on stderr goes to the logger "r2box" of `logging`, from the node's thread.

All methods may be called from any thread but the node's, and block: with asyncio, use `asyncio.to_thread`.  In a child
process made by fork the node does not run; the child may make another one.
"""

from __future__ import annotations

import socket as sockets
import threading

from ..errors import DaemonError, R2Error, TransportError, UsageError
from ..net.client.connector import LinkOptions
from ..net.client.link_job import LinkJob
from ..net.client.service_job import ServiceJob
from ..net.io.process import HANG_UP_TIME
from ..net.io.units import RESUME_TIMEOUT
from ..net.transport.transport import LINK_COMMAND, STDIO, parse_transport
from ..net.transport.urls import CONNECT, GATHER, LISTEN
from ..proto.limits import Limits
from ..proto.wire.address import check_address
from .engine import Engine, EngineJob
from .session import Entry, Session, offer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from ..net.daemon.daemon import Daemon
    from ..net.io.loop import Loop
    from ..net.transport.transport import Transport
    from .service import Service


class Node:
    """The node `address`.  With `socket`, a path, the tools and other programs reach it there too.

    `limits` are as in [limits] of r2.toml(5), as integers: `{"memory": 64 << 20}`.

    AddressError if `address` is invalid, ValueError for an invalid limit.  Nothing runs before `start` or `run`; a
    node that was stopped cannot be started again.

    >>> with r2box.Node("alice", socket="alice.sock") as node:  # doctest: +SKIP
    ...     node.offer("date", "date -u")
    ...     node.connect("tcp://host:4721", retry=True).wait(timeout=10)
    ...     node.ping("bob")
    """

    def __init__(
        self, address: str, *, socket: str | None = None, limits: Mapping[str, int] | None = None
    ) -> None:
        self.address = check_address(address)
        self.socket = socket
        self._engine = Engine(self.address, socket, Limits(limits))
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Node:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- running ---------------------------------------------------------------------------------------------------

    def start(self) -> Node:
        """Run in a new thread; the node is ready when this returns.  DaemonError if `socket` is taken or unsafe."""
        loop = self._engine.prepare()
        name = f"r2box {self.address}"
        self._thread = threading.Thread(target=self._engine.run, args=(loop,), name=name, daemon=True)
        self._thread.start()
        return self

    def run(self, ready: Callable[[], object] | None = None) -> None:
        """Run in this thread until `stop` is called in another.  DaemonError as `start`.

        `ready()` is called in this thread when the node is ready; it must not block or call this node.

        >>> threading.Thread(target=node.run, args=(event.set,)).start()  # doctest: +SKIP
        """
        loop = self._engine.prepare()
        if ready is not None:
            loop.soon(ready)
        self._engine.run(loop)

    def stop(self, timeout: float | None = None) -> None:
        """Shut down as `r2d` does on SIGTERM: send what was accepted, close links and end commands.

        This takes at most 20 seconds.  TimeoutError after `timeout` seconds.  Safe to call again.
        """
        self._engine.stop(timeout)
        if self._thread is not None:
            self._thread.join()

    # -- as with any daemon ----------------------------------------------------------------------------------------

    def session(self) -> Session:
        """A Session of this node, for any number of calls in one thread.  DaemonError if the node does not run."""
        ours, theirs = sockets.socketpair()
        with ours, theirs:
            self._engine.call(lambda loop, daemon: daemon.adopt_client(theirs.detach()))
            return Session(ours)

    def dial(self, path: str, timeout: float | None = None) -> sockets.socket:
        """A tunnel to `path` as a connected, blocking socket: see `Session.dial`.

        >>> sock = node.dial("bob/echo", timeout=5)  # doctest: +SKIP
        """
        with self.session() as session:
            return session.dial(path, timeout)

    def serve(self, name: str, allow: Iterable[str] = ()) -> Service:
        """Offer the service `name`, and iterate over its tunnels: see `Service`.  The iteration ends with the node.

        >>> for sock, origin in node.serve("echo"):  # doctest: +SKIP
        ...     threading.Thread(target=handle, args=(sock,)).start()
        """
        return offer(self.session(), name, allow, lambda: self._engine.is_ending)

    def ls(self, path: str = "", *, clients: bool = False, timeout: float | None = 5.0) -> list[Entry]:
        """Neighbours and services of the node at `path` ("": this one): see `Session.ls`.

        >>> [entry.name for entry in node.ls()]  # doctest: +SKIP
        ['bob', 'service/date']
        """
        with self.session() as session:
            return session.ls(path, clients=clients, timeout=timeout)

    def ping(self, path: str = "", *, timeout: float | None = 5.0) -> float:
        """The round trip time to the node at `path`, in seconds: see `Session.ping`.

        >>> node.ping("bob") < 0.1  # doctest: +SKIP
        True
        """
        with self.session() as session:
            return session.ping(path, timeout=timeout)

    # -- services and links ----------------------------------------------------------------------------------------

    def offer(self, name: str, transport: str, allow: Iterable[str] = ()) -> None:
        """Offer what `r2 serve -n NAME TRANSPORT` does, until the node ends: a command line, "tcp://host:port" ...

        `allow` is as in `Session.serve`.  UsageError if `transport` is invalid or cannot be served, AddressError if
        `name` is invalid, RefusedError if it is taken.

        >>> node.offer("sshd", "tcp://127.0.0.1:22")  # doctest: +SKIP
        """
        parsed, patterns = parse_transport(transport), (allow,) if isinstance(allow, str) else tuple(allow)
        check_address(name)
        if parsed.kind == STDIO:
            raise UsageError("-: stdin and stdout belong to the process; use serve()")
        engine, errors = self._engine, list[R2Error]()

        def make(loop: Loop, daemon: Daemon) -> EngineJob:
            job = EngineJob(engine, loop)

            def failed(error: R2Error) -> None:
                errors.append(error)
                job.note(why=str(error))
                job.end()

            # The process continues after the node, and would not reap what is left.
            job.begin(ServiceJob(
                loop, engine.log, name, parsed, engine.path, lambda: job.note(got=name), failed, patterns,
                end_time=HANG_UP_TIME,
            ), daemon)  # fmt: skip
            return job

        job = engine.call(make)
        job.wait_for(lambda: job.got is not None)
        if job.got is None:
            raise errors[0] if errors else DaemonError(f"{self.address}: this node has ended")

    def connect(
        self, transport: str, *, node: str = "", retry: bool = False, lossy: bool = False, resume: int = RESUME_TIMEOUT
    ) -> NodeLink:
        """Begin a link over `transport`, as `r2 connect` does, and return at once; `NodeLink.wait` waits for the link.

        Without `retry`, a transport that listens does so when this returns; TransportError if it cannot.

        `node` is the only address that the neighbour may have ("": any).  With `retry` the link is made again whenever
        it ends.  After a cut its tunnels wait `resume` seconds for another transport.  `lossy`: bytes may be lost.
        UsageError if `transport` is spelled wrong, is "-", or starts links by itself and the node has no socket.

        >>> node.connect("ssh bob r2-connect -", retry=True).wait(timeout=10)  # doctest: +SKIP
        'bob'
        """
        parsed = parse_transport(transport).check_use(CONNECT)
        if parsed.kind == STDIO or (retry and parsed.descriptors):
            raise UsageError(f"{transport}: cannot be used here")
        if parsed.kind == LINK_COMMAND and self.socket is None:
            raise UsageError(f"{transport}: it connects to the node's socket, and this node has none")
        expect = check_address(node) if node else ""
        engine, options = self._engine, LinkOptions(parsed, expect, resume, lossy)

        def make(loop: Loop, daemon: Daemon) -> EngineJob:
            job = EngineJob(engine, loop)

            def ended(why: str) -> None:
                job.note(why=why or "the link ended")
                job.end()

            job.begin(LinkJob(
                loop, engine.log, engine.path, options, linked=lambda address: job.note(got=address),
                listening=lambda where: job.note(where=where), ended=None if retry else ended,
            ), daemon)  # fmt: skip
            return job

        job = engine.call(make)
        if parsed.how in (LISTEN, GATHER) and not retry:
            job.wait_for(lambda: job.where is not None)
            if job.where is None:
                raise TransportError(f"{parsed}: {job.why}")
        return NodeLink(engine, job, parsed)


class NodeLink:
    """A link that `Node.connect` has begun.  It continues whether or not this object is kept."""

    def __init__(self, engine: Engine, job: EngineJob, transport: Transport) -> None:
        self._engine = engine
        self._job = job
        self._transport = transport

    def wait(self, timeout: float | None = None) -> str:
        """Wait until there has been a link, and return the neighbour's address.

        TransportError if it is over before, TimeoutError after `timeout` seconds.
        """
        job = self._job
        if not job.wait_for(lambda: job.got is not None, timeout):
            raise TimeoutError(f"{self._transport}: no link within {timeout:g} s")
        if job.got is None:
            raise TransportError(f"{self._transport}: {job.why}")
        return job.got

    def close(self, timeout: float | None = None) -> None:
        """End the link, and wait for its command to end; TimeoutError after `timeout` seconds.  Safe to call again."""
        try:
            self._engine.call(lambda loop, daemon: self._job.end())
        except DaemonError:
            return  # it has ended with its node
        if not self._job.wait_for(lambda: False, timeout):
            raise TimeoutError(f"{self._transport}: has not ended within {timeout:g} s")

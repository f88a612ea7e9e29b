"""Connections: making one, and taking any number of them, without blocking.

    resolve    the addresses that a transport stands for; names are looked up in a thread
    Dial       a connection to a host, by whichever of its addresses answers
    Listener   connections of others

All of them give the connected socket away as a descriptor.
"""

from __future__ import annotations

import errno
import os
import socket

from ...errors import DaemonError, TransportError
from ..io import reserve
from . import socket_file
from .connecting import INET, Connecting, explain, make_probe, tune
from .eyeballs import Race
from .sockaddr import numeric, spell, spell_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Union

    from ..io.loop import Loop
    from .eyeballs import Failures, Report
    from .sockaddr import Address
    from .transport import Transport

    Opened = Callable[[Union[int, TransportError]], None]
    Addresses = Sequence[Address]

CONNECT_TIMEOUT = 20.0  # seconds for all addresses of a host
QUEUE = 1024  # connections that wait to be taken: as many as a client opens at once


def resolve(loop: Loop, transport: Transport, found: Callable[[Any], None], passive: bool = False) -> None:
    """Find where the transport leads: `found(Addresses, or TransportError)`, at once or later.

    Only a host that is no number takes a look-up, which is done in a thread.
    """
    scheme = transport.kind.partition("-")[0]
    if scheme in _FAMILIES:
        try:
            found([_FAMILIES[scheme](transport)])
        except AttributeError:
            found(TransportError(f"the Python here was built without the sockets of {scheme}"))
        return
    kind = _kind(transport)
    flags = socket.AI_PASSIVE if passive else 0

    def look_up() -> Addresses:
        # As bytes where it can be, as in `numeric`.
        host = transport.host.encode() if transport.host.isascii() else transport.host
        return socket.getaddrinfo(host, transport.port, type=kind, flags=flags)

    def looked_up(result: Any) -> None:
        if isinstance(result, Exception):
            why = result.strerror if isinstance(result, OSError) else None
            result = TransportError(why or str(result))
        found(result)

    try:
        numbers = numeric(transport.host, transport.port, kind, flags)
    except TransportError as error:
        found(error)
        return
    except (OSError, UnicodeError):
        loop.thread(look_up, looked_up)
        return
    found(numbers)


def _kind(transport: Transport) -> int:
    return socket.SOCK_DGRAM if transport.is_datagrams else socket.SOCK_STREAM


def _unix(transport: Transport) -> Address:
    path = transport.path
    return socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "\0" + path[1:] if path.startswith("@") else path


def _vsock(transport: Transport) -> Address:
    return socket.AF_VSOCK, socket.SOCK_STREAM, 0, "", (int(transport.host), transport.port)  # type: ignore[attr-defined, unused-ignore]


def _rfcomm(transport: Transport) -> Address:
    family, protocol = socket.AF_BLUETOOTH, socket.BTPROTO_RFCOMM  # type: ignore[attr-defined, unused-ignore]
    return family, socket.SOCK_STREAM, protocol, "", (transport.host, transport.port)


_FAMILIES: dict[str, Callable[[Transport], Address]] = {
    "unix": _unix,
    "vsock": _vsock,
    "rfcomm": _rfcomm,
}


class Dial:
    """One attempt to connect, to all addresses of the host: `opened(fd)` or `opened(TransportError)`, once.

    The error says what became of each address.  `for_link`: the other side is to be a node, so that UDP can ask which
    address has one.
    """

    def __init__(self, loop: Loop, transport: Transport, opened: Opened, for_link: bool = False) -> None:
        self._loop = loop
        self._transport = transport
        self._opened: Opened | None = opened
        self._for_link = for_link
        self._race: Race | None = None
        self._timer = loop.later(transport.options.get("timeout", CONNECT_TIMEOUT), self._timed_out)
        loop.soon(self._start)  # so that nothing is called before the caller has us

    def _start(self) -> None:
        if self._opened is not None:
            resolve(self._loop, self._transport, self._found)

    def _found(self, addresses: Addresses | TransportError) -> None:
        if self._opened is None:
            return
        try:
            if isinstance(addresses, TransportError):
                raise addresses
            local = self._local()
        except TransportError as error:
            self._done(error)
            return
        if local is not None:
            addresses = [address for address in addresses if address[0] == local[0]]
            if not addresses:
                self._done(
                    TransportError(f"the host has no address that can be reached from {spell_host(local[-1])}")
                )
                return
        is_choice = len(set(addresses)) > 1
        probe = make_probe() if is_choice and self._for_link and self._transport.is_datagrams else b""

        def begin(address: Address, report: Report) -> Connecting:
            return Connecting(self._loop, self._transport, address, local, probe, report)

        self._race = Race(self._loop, addresses, begin, self._ended)
        self._race.start()

    def _local(self) -> Address | None:
        """The address of ?bind=."""
        bind = self._transport.options.get("bind")
        if bind is None:
            return None
        try:
            return numeric(bind[0], bind[1], _kind(self._transport), socket.AI_PASSIVE)[0]
        except OSError as error:
            raise TransportError(f"bind: {bind[0]}: {error.strerror}") from None

    def _ended(self, result: int | Failures) -> None:
        self._done(result if isinstance(result, int) else TransportError(explain(result, self._transport.host)))

    def _timed_out(self) -> None:
        if self._race is not None:
            self._race.expire()
        else:
            self._done(TransportError(f"the name {self._transport.host} was not found in time"))

    def _done(self, result: int | TransportError) -> None:
        opened, self._opened = self._opened, None
        self._timer.cancel()
        if opened is not None:
            opened(result)
        elif isinstance(result, int):
            os.close(result)

    def cancel(self) -> None:
        """Give up; nothing is called any more."""
        self._opened = None
        self._timer.cancel()
        if self._race is not None:
            self._race.close()


class Listener:
    """Takes connections: `opened(fd)` for each; `failed(TransportError)` once if it cannot listen at all.

    `listening(where)` tells when it does, and at which addresses.  A host that is missing is every address of this
    one, or with `at_home` those of the loopback alone.
    """

    def __init__(
        self,
        loop: Loop,
        transport: Transport,
        opened: Callable[[int], None],
        failed: Callable[[TransportError], None],
        listening: Callable[[str], None] = lambda where: None,
        at_home: bool = False,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._opened = opened
        self._failed = failed
        self._listening = listening
        self._at_home = at_home
        self._socks: list[socket.socket] = []
        self._file: tuple[int, int] | None = None  # the socket's file, which is ours to remove
        self._held: socket.socket | None = None  # a connection for which there was no descriptor left
        self._closed = False
        loop.soon(self._start)  # so that nothing is called before the caller has us

    def _start(self) -> None:
        if self._closed:
            return
        if self._transport.path and not self._transport.path.startswith("@"):
            self._listen_at_file(self._transport.path)
        else:
            resolve(self._loop, self._transport, self._found, passive=not self._at_home)

    def _listen_at_file(self, path: str) -> None:
        try:
            sock = socket_file.listen(path)
            os.chmod(path, self._transport.options.get("mode", 0o600))
            self._file = socket_file.identity(path)
        except (DaemonError, OSError) as error:
            self._failed(TransportError(getattr(error, "strerror", None) or str(error)))
            return
        self._add(sock)
        self._listening(path)

    def _found(self, addresses: Addresses | TransportError) -> None:
        if self._closed:
            return
        if isinstance(addresses, TransportError):
            self._failed(addresses)
            return
        problem, port = None, 0
        for family, kind, protocol, _, address in addresses:
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:  # a family that this kernel has not
                problem = problem or error
                continue
            try:
                if family in INET:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                if port and not self._transport.port:  # the one that the system gave for the first address
                    address = (address[0], port, *address[2:])
                sock.bind(address)
                sock.listen(QUEUE)
                sock.setblocking(False)
            except OSError as error:
                sock.close()
                problem = problem or error
                continue
            self._add(sock)
            if not port and family in INET:
                port = sock.getsockname()[1]
        if problem and problem.errno == errno.EADDRINUSE and self._transport.port:
            self.close()  # who connects to localhost would find somebody else behind the same port
        if not self._socks:
            self._failed(TransportError((problem and problem.strerror) or "the host has no address"))
        else:
            self._listening(", ".join(spell(sock) for sock in self._socks))

    def _add(self, sock: socket.socket) -> None:
        self._socks.append(sock)
        self._watch(sock)

    def _watch(self, sock: socket.socket) -> None:
        self._loop.watch(sock.fileno(), lambda: self._accept(sock))

    def _accept(self, sock: socket.socket) -> None:
        try:
            connection, _ = sock.accept()
        except OSError as error:
            if reserve.is_short(error):
                self._wait()
            return
        if reserve.is_last(connection.fileno()):
            self._held = connection
            self._wait()
        else:
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        try:
            tune(connection, self._transport.keepalive)
        except OSError:  # it was reset before it was ours
            connection.close()
            return
        self._opened(connection.detach())

    def _wait(self) -> None:
        """Take no more connections before there are free descriptors again."""
        self.pause()
        self._loop.when_free(self._go_on)

    def _go_on(self) -> None:
        """There are free descriptors: take what came last, by a number that is not of the reserve."""
        held, self._held = self._held, None
        self.resume()
        if held is not None:
            with held:
                self._take(held.dup())

    def pause(self) -> None:
        """Let further connections wait."""
        for sock in self._socks:
            self._loop.watch(sock.fileno())

    def resume(self) -> None:
        """Take them again."""
        for sock in self._socks:
            self._watch(sock)

    def close(self) -> None:
        """Take no more, and remove the socket's file."""
        self._closed = True
        for sock in self._socks:
            self._loop.watch(sock.fileno())
            sock.close()
        self._socks = []
        if self._held is not None:
            self._held.close()
            self._held = None
        if self._file is not None:
            socket_file.remove(self._transport.path, self._file)
            self._file = None

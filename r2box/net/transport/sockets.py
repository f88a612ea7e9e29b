"""Connections: dialling and accepting, without blocking.

    resolve          the addresses of a transport; names are looked up in a thread
    Dial             one connection, to any of the addresses of a host
    AddressListener  sockets at all addresses of a transport
    Listener         accepts connections

A connected socket is handed to the caller as a descriptor.
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
QUEUE = 1024  # backlog of listen(2): as many connections as a client opens at once


def resolve(loop: Loop, transport: Transport, found: Callable[[Any], None], passive: bool = False) -> None:
    """Find the addresses of a transport: calls `found(Addresses or TransportError)`, at once or later.

    A host that is not numeric is looked up in a thread.
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
        # As bytes if possible: see `numeric`.
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
    """One connection, to any address of the host: calls `opened(fd)` or `opened(TransportError)`, once.

    The error gives the reason for each address.  `for_link`: the peer must be a node, so that UDP can probe which
    address has one.
    """

    def __init__(self, loop: Loop, transport: Transport, opened: Opened, for_link: bool = False) -> None:
        self._loop = loop
        self._transport = transport
        self._opened: Opened | None = opened
        self._for_link = for_link
        self._race: Race | None = None
        self._timer = loop.later(transport.options.get("timeout", CONNECT_TIMEOUT), self._timed_out)
        loop.soon(self._start)  # no callback before the constructor returns

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
        """Stop; call nothing any more."""
        self._opened = None
        self._timer.cancel()
        if self._race is not None:
            self._race.close()


class AddressListener:
    """Sockets at all addresses of a transport.  `bind(sock, address)` and `readable(sock)` are the subclass's.

    Calls `listening(where)` with the addresses when it listens, or `failed(TransportError)` once if it cannot.  Without
    a host it listens at all addresses of this host, or with `at_home` at those of the loopback.
    """

    needs_all = False  # whether one address in use makes it fail

    def __init__(
        self,
        loop: Loop,
        transport: Transport,
        failed: Callable[[TransportError], None],
        listening: Callable[[str], None] = lambda where: None,
        at_home: bool = False,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._failed = failed
        self._listening = listening
        self._at_home = at_home
        self._socks: list[socket.socket] = []
        self._closed = False
        loop.soon(self._start)  # no callback before the constructor returns

    def _start(self) -> None:
        if not self._closed:
            resolve(self._loop, self._transport, self._found, passive=not self._at_home)

    def _found(self, addresses: Addresses | TransportError) -> None:
        if self._closed:
            return
        if isinstance(addresses, TransportError):
            self._failed(addresses)
            return
        problem, port = None, 0
        for family, kind, protocol, _, address in addresses:
            if port and not self._transport.port:  # the port that the system assigned to the first address
                address = (address[0], port, *address[2:])
            try:
                self._open(socket.socket(family, kind, protocol), address)
            except OSError as error:  # such as a family that this kernel lacks
                problem = problem or error
                continue
            if not port and family in INET:
                port = self._socks[-1].getsockname()[1]
        if self.needs_all and problem and problem.errno == errno.EADDRINUSE and self._transport.port:
            self.close()  # else localhost could lead to another program behind the same port
        if not self._socks:
            self._failed(TransportError((problem and problem.strerror) or "the host has no address"))
        else:
            self._listening(", ".join(map(spell, self._socks)))

    def _open(self, sock: socket.socket, address: Any) -> None:
        try:
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self.bind(sock, address)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        self._add(sock)

    def _add(self, sock: socket.socket) -> None:
        self._socks.append(sock)
        self._watch(sock)

    def _watch(self, sock: socket.socket) -> None:
        if not self._closed:
            self._loop.watch(sock.fileno(), lambda: self.readable(sock))

    def bind(self, sock: socket.socket, address: Any) -> None:
        """Set the options of `sock` and bind it.  OSError if that fails."""
        raise NotImplementedError

    def readable(self, sock: socket.socket) -> None:
        """Take what `sock` has received."""
        raise NotImplementedError

    def close(self) -> None:
        """Close all sockets; call nothing any more."""
        self._closed = True
        for sock in self._socks:
            self._loop.watch(sock.fileno())
            sock.close()
        self._socks = []


class Listener(AddressListener):
    """Accepts connections: `opened(fd)` for each."""

    needs_all = True

    def __init__(
        self,
        loop: Loop,
        transport: Transport,
        opened: Callable[[int], None],
        failed: Callable[[TransportError], None],
        listening: Callable[[str], None] = lambda where: None,
        at_home: bool = False,
    ) -> None:
        super().__init__(loop, transport, failed, listening, at_home)
        self._opened = opened
        self._file: tuple[int, int] | None = None  # the file of the UNIX socket, to remove
        self._held: socket.socket | None = None  # a connection whose descriptor is in the reserve

    def _start(self) -> None:
        path = self._transport.path
        if self._closed or not path or path.startswith("@"):
            super()._start()
            return
        try:
            sock = socket_file.listen(path)
            os.chmod(path, self._transport.options.get("mode", 0o600))
            self._file = socket_file.identity(path)
        except (DaemonError, OSError) as error:
            self._failed(TransportError(getattr(error, "strerror", None) or str(error)))
            return
        self._add(sock)
        self._listening(path)

    def bind(self, sock: socket.socket, address: Any) -> None:
        if sock.family in INET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(QUEUE)

    def readable(self, sock: socket.socket) -> None:
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
        except OSError:  # it was reset already
            connection.close()
            return
        self._opened(connection.detach())

    def _wait(self) -> None:
        """Accept no connections until descriptors are free."""
        self.pause()
        self._loop.when_free(self._continue)

    def _continue(self) -> None:
        """Accept again; hand the held connection over under a descriptor that is not in the reserve."""
        held, self._held = self._held, None
        self.resume()
        if held is not None:
            with held:
                self._take(held.dup())

    def pause(self) -> None:
        """Accept no connections until `resume`."""
        for sock in self._socks:
            self._loop.watch(sock.fileno())

    def resume(self) -> None:
        """Accept connections again."""
        for sock in self._socks:
            self._watch(sock)

    def close(self) -> None:
        """Close all sockets, and remove the file of a UNIX socket."""
        super().close()
        if self._held is not None:
            self._held.close()
            self._held = None
        if self._file is not None:
            socket_file.remove(self._transport.path, self._file)
            self._file = None

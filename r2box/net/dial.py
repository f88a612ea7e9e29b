"""Connections: making one, and taking any number of them, without blocking.

    resolve    the addresses that a transport stands for; names are looked up in a thread
    Dial       one attempt to connect, over all addresses in turn
    Listener   connections of others

All of them give the connected socket away as a descriptor.
"""

from __future__ import annotations

import errno
import os
import socket

from ..errors import DaemonError, TransportError
from .channel import Channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Union

    from .loop import Loop, Timer
    from .transport import Transport

    Opened = Callable[[Union[int, TransportError]], None]
    Address = tuple[int, int, int, str, Any]  # as socket.getaddrinfo has it
    Addresses = Sequence[Address]

UNSENT = 1 << 20  # bytes that the kernel may hold back, beside what is on its way; `proto.flight` bounds both
CONNECT_TIMEOUT = 20.0  # seconds for all addresses of a host
AGAIN = 0.05  # seconds after which a UNIX socket is asked again whose queue was full
QUEUE = 1024  # connections that wait to be taken: as many as a client opens at once
DATAGRAMS = 1 << 20  # bytes of datagrams that the kernel may hold: what a fast sender sends while we do something else
PROBES = 3  # of the kernel's sign of life that may stay unanswered


def tune(sock: socket.socket, keepalive: int = 0) -> None:
    """What every socket of ours gets, as its family has it.

    TCP: no waiting for more to send, and the kernel's own sign of life, after `keepalive` seconds of silence (0: when
    the system thinks).  UDP: room for datagrams, as far as the system allows.
    """
    if sock.type == socket.SOCK_DGRAM:
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, buffer, DATAGRAMS)
    elif sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if keepalive and hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, keepalive // PROBES))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)  # no deep queue below our own


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
    kind = socket.SOCK_DGRAM if transport.is_datagrams else socket.SOCK_STREAM
    flags = socket.AI_PASSIVE if passive else 0
    # As bytes where it can be: for a text Python loads its tables of IDNA, most of a MiB.
    host = (transport.host.encode() if transport.host.isascii() else transport.host) or None

    def look_up(more: int = 0) -> Addresses:
        return socket.getaddrinfo(host, transport.port, type=kind, flags=flags | more)

    def looked_up(result: Any) -> None:
        if isinstance(result, Exception):
            why = result.strerror if isinstance(result, OSError) else None
            result = TransportError(why or str(result))
        found(result)

    try:
        numbers = look_up(socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        loop.thread(look_up, looked_up)
        return
    found(numbers)


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


def is_self_connected(sock: socket.socket) -> bool:
    """Whether a connected socket is its own peer.

    While nothing listens at a port of the ephemeral range, the kernel may choose that very port as the local one; TCP
    then connects the socket to itself (simultaneous open), and UDP receives what it sends.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # it is disconnected already
        return False


class Dial:
    """One attempt to connect, over all addresses in turn: `opened(fd)` or `opened(TransportError)`, once."""

    def __init__(self, loop: Loop, transport: Transport, opened: Opened) -> None:
        self._loop = loop
        self._transport = transport
        self._opened: Opened | None = opened
        self._addresses: list[Address] = []
        self._sock: socket.socket | None = None
        self._deadline = loop.now() + transport.options.get("timeout", CONNECT_TIMEOUT)
        self._timer = loop.later(self._deadline - loop.now(), lambda: self._failed(errno.ETIMEDOUT))
        self._again: Timer | None = None
        self._last = TransportError("the host has no address")
        loop.soon(self._start)  # so that nothing is called before the caller has us

    def _start(self) -> None:
        if self._opened is not None:
            resolve(self._loop, self._transport, self._found)

    def _found(self, addresses: Addresses | TransportError) -> None:
        if self._opened is None:
            return
        if isinstance(addresses, TransportError):
            self._done(addresses)
            return
        bind = self._transport.options.get("bind")
        if bind is not None:
            family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
            addresses = [address for address in addresses if address[0] == family]
            self._last = TransportError(f"the host has no address that can be reached from {bind[0]}")
        self._addresses = list(addresses)
        self._next()

    def _next(self) -> None:
        if not self._addresses:
            self._done(self._last)
            return
        # What is left is shared out, so that one address that does not answer leaves time for the others.
        share = (self._deadline - self._loop.now()) / len(self._addresses)
        family, kind, protocol, _, address = self._addresses.pop(0)
        self._timer.cancel()
        self._timer = self._loop.later(max(share, 0), lambda: self._failed(errno.ETIMEDOUT))
        try:
            self._sock = socket.socket(family, kind, protocol)
            self._sock.setblocking(False)
            if "bind" in self._transport.options:
                if kind == socket.SOCK_STREAM:
                    self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._sock.bind(self._transport.options["bind"])
        except OSError as error:
            self._failed(error.errno or errno.EIO)
            return
        self._connect(address)

    def _connect(self, address: Any) -> None:
        assert self._sock is not None
        try:
            code = self._sock.connect_ex(address)
        except OSError as error:  # an address that Python itself refuses
            self._failed(error.errno or errno.EINVAL)
            return
        if code in (0, errno.EINPROGRESS):
            self._loop.watch(self._sock.fileno(), None, self._connected)
        elif code == errno.EAGAIN:  # of a UNIX socket: so many others wait there
            self._again = self._loop.later(AGAIN, lambda: self._connect(address))
        else:
            self._failed(code)

    def _connected(self) -> None:
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(code)
            return
        if is_self_connected(self._sock):
            Channel(self._release().detach()).reset()  # so that no TIME_WAIT keeps the listener out
            self._failed(errno.ECONNREFUSED)
            return
        sock = self._release()
        sock.setblocking(True)  # it may become a program's, which would not expect anything else
        tune(sock, self._transport.keepalive)
        self._done(sock.detach())

    def _release(self) -> socket.socket:
        sock, self._sock = self._sock, None
        assert sock is not None
        self._loop.watch(sock.fileno())
        if self._again is not None:
            self._again.cancel()
        return sock

    def _failed(self, code: int) -> None:
        if self._sock is not None:
            self._release().close()
        self._last = TransportError(os.strerror(code))
        self._next()

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
        if self._sock is not None:
            self._release().close()


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
        from . import socketfile  # in every tool already

        try:
            sock = socketfile.listen(path)
            os.chmod(path, self._transport.options.get("mode", 0o600))
            self._file = socketfile.identity(path)
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
                if family in (socket.AF_INET, socket.AF_INET6):
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
            if not port and family in (socket.AF_INET, socket.AF_INET6):
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
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.pause()
                self._loop.later(1.0, self.resume)
            return
        try:
            tune(connection, self._transport.keepalive)
        except OSError:  # it was reset before it was ours
            connection.close()
            return
        self._opened(connection.detach())

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
        if self._file is not None:
            from . import socketfile

            socketfile.remove(self._transport.path, self._file)
            self._file = None


def spell(sock: socket.socket) -> str:
    """Where it listens, as a URL has it."""
    name = sock.getsockname()
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    return ":".join(map(str, name)) if isinstance(name, tuple) else os.fsdecode(name).replace("\0", "@")

"""TRANSPORT: what carries a link, or stands at an end of a tunnel, and how each kind is opened without blocking.

    -                          our own stdin and stdout
    tcp://HOST:PORT            a connection to there
    tcp-listen://HOST:PORT     connections from there, any number
    anything else              a command line for /bin/sh

A command may instead *start* the program that speaks (`socat tcp-l:1,fork exec:-`): then it has a place where that
program's command line belongs, a lone dash behind `exec:` or `system:`, or the word `-%` anywhere.
"""

from __future__ import annotations

import errno
import os
import socket

from ..errors import TransportError, UsageError
from .shell import quote, scan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Union

    from .loop import Loop, Timer

    Opened = Callable[[Union[int, TransportError]], None]

STDIO, COMMAND, STARTER, TCP, TCP_LISTEN = "stdio", "command", "starter", "tcp", "tcp-listen"
SCHEMES = (TCP, TCP_LISTEN)
UNSENT = 1 << 20  # bytes that the kernel may hold back, beside what is on its way; `proto.flight` bounds both
CONNECT_TIMEOUT = 20.0  # seconds for one address of a host
STARTS = ("exec:-", "system:-", "shell:-")  # socat's addresses that run a program
PLACE = "-%"
# socat reads exec: twice: as an address, where these end a part of it, and then as words.
_SOCAT = {**{c: "\\" + c for c in ",:!()[]{}"}, **{c: "\\\\\\" + c for c in " '\""}, "\\": "\\" * 4}


class Transport:
    """A parsed TRANSPORT.  `kind` is one of the constants above; `host` and `port` are for TCP."""

    __slots__ = ("host", "kind", "port", "text")

    def __init__(self, text: str, kind: str, host: str = "", port: int = 0) -> None:
        self.text = text
        self.kind = kind
        self.host = host
        self.port = port

    def __str__(self) -> str:
        return self.text


def parse_transport(text: str) -> Transport:
    """The transport that `text` spells.  UsageError that says what is wrong with which part."""
    if not text.strip():
        raise UsageError("an empty TRANSPORT: give a command, - or tcp://HOST:PORT")
    if text == "-":
        return Transport(text, STDIO)
    scheme, separator, rest = text.partition("://")
    if separator and scheme and all(c.isalnum() or c in "+-." for c in scheme):
        if scheme not in SCHEMES:
            from ..command import closest

            known = ", ".join(f"{name}://" for name in SCHEMES)
            raise UsageError(f"{text}: no transport {scheme}://{closest(scheme, SCHEMES)}; there are {known}")
        return Transport(text, scheme, *_host_and_port(text, rest))
    return Transport(text, STARTER if find_place(text) else COMMAND)


def _host_and_port(text: str, rest: str) -> tuple[str, int]:
    host, colon, digits = rest.rpartition(":")
    if not colon or not digits:
        raise UsageError(f"{text}: the port is missing: {rest or 'HOST'}:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"{text}: an IPv6 address is written in brackets: [{host}]:{digits}")
    if not (digits.isascii() and digits.isdigit() and 0 < int(digits) < 65536):
        raise UsageError(f"{text}: {digits!r} is not a port (1 to 65535)")
    return host, int(digits)


# -- commands that start the link -----------------------------------------------------------------------------------


def find_place(command: str) -> tuple[int, int] | None:
    """Where in `command` the dash stands that a whole command line is to replace: its start and end."""
    lower = command.lower()
    for start in STARTS:
        at = lower.find(start)
        while at >= 0:
            end = at + len(start)
            if end == len(command) or command[end] in " \t,'\"!":
                return end - 1, end
            at = lower.find(start, end)
    at = f" {command} ".find(f" {PLACE} ")
    if at < 0:
        at = next((command.find(q + PLACE + q) + 1 for q in "\"'" if q + PLACE + q in command), -1)
    return (at, at + len(PLACE)) if at >= 0 else None


def fill_place(command: str, words: list[str]) -> str:
    """`command` with `words`, as one command line, in its place; quoted for the shell and for socat."""
    place = find_place(command)
    assert place is not None
    before, after = command[: place[0]], command[place[1] :]
    if command[place[0] : place[1]] == PLACE and not before.endswith(("'", '"')):
        return before + " ".join(map(quote, words)) + after
    if command[place[0] : place[1]] == PLACE:
        line = " ".join(map(quote, words))
    else:
        line = " ".join("".join(_SOCAT.get(c, c) for c in word) for word in words)
    inside = scan(before)[1]
    if inside == "'":
        line = line.replace("'", "'\\''")
    elif inside == '"':
        line = "".join("\\" + c if c in '\\"$`' else c for c in line)
    else:
        line = quote(line)
    return before + line + after


# -- TCP ------------------------------------------------------------------------------------------------------------


def tune(sock: socket.socket) -> None:
    """What every TCP connection of ours gets: no waiting for more to send, and the kernel's own sign of life."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)  # no deep queue below our own


def resolve(loop: Loop, transport: Transport, found: Callable[[Any], None], passive: bool = False) -> None:
    """Look the host up, in a thread unless it is a number: `found(list of addresses, or TransportError)`."""
    flags = socket.AI_PASSIVE if passive else 0
    # As bytes where it can be: for a text Python loads its tables of IDNA, most of a MiB.
    host = (transport.host.encode() if transport.host.isascii() else transport.host) or None

    def look_up() -> Any:
        try:
            return socket.getaddrinfo(host, transport.port, type=socket.SOCK_STREAM, flags=flags)
        except OSError as error:
            return TransportError(error.strerror or str(error))

    try:
        numbers = socket.getaddrinfo(
            host, transport.port, type=socket.SOCK_STREAM, flags=flags | socket.AI_NUMERICHOST
        )
    except OSError:
        loop.thread(look_up, found)
        return
    found(numbers)


class Dial:
    """One connection attempt, over all addresses of the host in turn: `opened(fd)` or `opened(TransportError)`."""

    def __init__(self, loop: Loop, transport: Transport, opened: Opened) -> None:
        self._loop = loop
        self._transport = transport
        self._opened = opened
        self._addresses: list[Any] = []
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        self._cancelled = False
        self._last = TransportError("the host has no address")
        loop.soon(self._start)  # so that nothing is called before the caller has us

    def _start(self) -> None:
        if not self._cancelled:
            resolve(self._loop, self._transport, self._found)

    def _found(self, addresses: Any) -> None:
        if self._cancelled:
            return
        if isinstance(addresses, Exception):
            self._opened(addresses if isinstance(addresses, TransportError) else TransportError(str(addresses)))
            return
        self._addresses = list(addresses)
        self._next()

    def _next(self) -> None:
        if not self._addresses:
            self._opened(self._last)
            return
        family, kind, protocol, _, address = self._addresses.pop(0)
        try:
            self._sock = socket.socket(family, kind, protocol)
            self._sock.setblocking(False)
            code = self._sock.connect_ex(address)
        except OSError as error:
            code = error.errno or errno.EIO
        if code in (0, errno.EINPROGRESS) and self._sock is not None:
            self._timer = self._loop.later(CONNECT_TIMEOUT, lambda: self._failed(errno.ETIMEDOUT))
            self._loop.watch(self._sock.fileno(), None, self._connected)
        else:
            self._failed(code)

    def _connected(self) -> None:
        assert self._sock is not None
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._failed(code)
            return
        sock = self._release()
        sock.setblocking(True)  # it may become a program's, which would not expect anything else
        tune(sock)
        self._opened(sock.detach())

    def _release(self) -> socket.socket:
        sock, self._sock = self._sock, None
        assert sock is not None
        self._loop.watch(sock.fileno())
        if self._timer is not None:
            self._timer.cancel()
        return sock

    def _failed(self, code: int) -> None:
        if self._sock is not None:
            self._release().close()
        self._last = TransportError(os.strerror(code))
        self._next()

    def cancel(self) -> None:
        """Give up; nothing is called any more."""
        self._cancelled = True
        if self._sock is not None:
            self._release().close()


class Listener:
    """Takes connections: `opened(fd)` for each; `failed(TransportError)` once if it cannot listen at all."""

    def __init__(
        self,
        loop: Loop,
        transport: Transport,
        opened: Callable[[int], None],
        failed: Callable[[TransportError], None],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._opened = opened
        self._failed = failed
        self._socks: list[socket.socket] = []
        self._closed = False
        loop.soon(self._start)  # so that nothing is called before the caller has us

    def _start(self) -> None:
        if not self._closed:
            resolve(self._loop, self._transport, self._found, passive=True)

    def _found(self, addresses: Any) -> None:
        if self._closed:
            return
        if isinstance(addresses, Exception):
            self._failed(addresses if isinstance(addresses, TransportError) else TransportError(str(addresses)))
            return
        problem = None
        for family, kind, protocol, _, address in addresses:
            try:
                sock = socket.socket(family, kind, protocol)
            except OSError as error:  # a family that this kernel has not
                problem = problem or error
                continue
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
                sock.listen(128)
                sock.setblocking(False)
            except OSError as error:
                sock.close()
                problem = problem or error
                continue
            self._socks.append(sock)
            self._loop.watch(sock.fileno(), lambda sock=sock: self._accept(sock))  # type: ignore[misc]
        if not self._socks:
            self._failed(TransportError((problem and problem.strerror) or "the host has no address"))

    def _accept(self, sock: socket.socket) -> None:
        try:
            connection, _ = sock.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._loop.watch(sock.fileno())
                self._loop.later(1.0, lambda: self._resume(sock))
            return
        tune(connection)
        self._opened(connection.detach())

    def _resume(self, sock: socket.socket) -> None:
        if not self._closed:
            self._loop.watch(sock.fileno(), lambda: self._accept(sock))

    def close(self) -> None:
        self._closed = True
        for sock in self._socks:
            self._loop.watch(sock.fileno())
            sock.close()

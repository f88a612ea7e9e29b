"""Socket addresses as text in the form of URLs, such as `[fe80::1%25eth0]:4721`, and back.

A link-local IPv6 address (fe80::/10) needs its interface, the zone (RFC 4007).  In a URL the zone follows %25 (RFC
6874), in a host name a lone %, and in a socket address it is a number.  The text is valid after SCHEME://.
"""

from __future__ import annotations

import os
import socket

from ...errors import TransportError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Address = tuple[int, int, int, str, Any]  # as socket.getaddrinfo has it

UNESCAPED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")  # RFC 3986, 2.3


def spell_address(name: Any) -> str:
    """The text of an address from `getsockname`, `accept`, `recvfrom`, or the last field of `getaddrinfo`."""
    if not isinstance(name, tuple):
        return os.fsdecode(name).replace("\0", "@")
    if ":" in str(name[0]) and len(name) == 4:
        return f"[{spell_host(name)}]:{name[1]}"
    return ":".join(map(str, name))


def spell_host(name: Any) -> str:
    """The host only, without brackets, and with the zone in the form of URLs."""
    host = str(name[0])
    if len(name) < 4 or not name[3] or "%" in host:
        return host
    try:
        zone = socket.if_indextoname(name[3])
    except OSError:  # the interface no longer exists
        zone = str(name[3])
    return f"{host}%25" + "".join(c if c in UNESCAPED else f"%{ord(c):02X}" for c in zone)


def spell(sock: socket.socket) -> str:
    """The local address of `sock`, in the form of URLs."""
    return spell_address(sock.getsockname())


def numeric(host: str, port: int, kind: int, flags: int = 0) -> Sequence[Address]:
    """The socket addresses of a numeric host, with zone and flow.

    TransportError if its zone is not an interface of this host; OSError or UnicodeError if it is not numeric.
    """
    # As bytes if possible: for a str Python loads its IDNA tables, almost a MiB.
    name = (host.encode() if host.isascii() else host) or None
    try:
        return socket.getaddrinfo(name, port, type=kind, flags=flags | socket.AI_NUMERICHOST)
    except OSError:
        zone = host.partition("%")[2]
        if zone and ":" in host and not _is_interface(zone):
            raise TransportError(f"this host has no interface {zone!r}") from None
        raise


def _is_interface(zone: str) -> bool:
    try:
        return bool(socket.if_nametoindex(zone))
    except OSError:
        return False

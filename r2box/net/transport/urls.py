"""Table of the built-in transports: a row for each URL scheme, with the options that may follow its ?.

Parsing, checks, errors, help and manual pages come from `SCHEMES`.  A new scheme needs a row there and a function that
opens it.  This module handles text only.
"""

from __future__ import annotations

from ...errors import suggestion
from ..io.units import parse_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DIAL, LISTEN, GATHER, DEVICE = "dial", "listen", "gather", "device"  # ways to open it
CONNECT, TUNNEL, SERVE, FORWARD = "connect", "tunnel", "serve", "forward"  # uses
INTERFACES = ("tun", "tap")
WORDS = {CONNECT: "carry a link", TUNNEL: "be the end of a tunnel", SERVE: "be served", FORWARD: "be forwarded"}

MAX_KEEPALIVE = 32767  # seconds; the limit of tcp(7)
MAX_PATH = 107  # bytes; sun_path holds 108 with the final NUL (unix(7))
MAX_INTERFACE = 15  # bytes; IFNAMSIZ is 16 with the final NUL
MAX_MTU = 65507  # bytes; the payload of UDP in one IPv4 packet
BAUDS = (
    50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800,
    500000, 576000, 921600, 1000000, 1152000, 1500000, 2000000, 2500000, 3000000, 3500000, 4000000,
)  # fmt: skip
CIDS = {"any": 0xFFFFFFFF, "hypervisor": 0, "local": 1, "host": 2}  # vsock(7)


DATAGRAMS_HELP = (
    "With --datagrams, and always for tun://, tap://, udp:// and a socat with a tun address, the tunnel keeps "
    "the boundaries of datagrams of up to 65535 bytes.  Both ends must be of this kind.  A command has packet "
    "sockets (SOCK_SEQPACKET) as its stdin and stdout: each read and each write is one datagram.  Datagrams "
    "that arrive faster than the tunnel carries them are dropped at its entry; none is lost, split or merged "
    "on the way.  Empty datagrams are delivered to UDP, but not to a command, which would read them as the end "
    "of its input."
)


# Of what `transport.explain` lists.
URL_HELP = (
    "In a URL, %XX is the byte with that hexadecimal value, such as %3F for a ? in a path.  A link-local IPv6 "
    "address requires its interface, as in tcp://[fe80::1%25eth0]:4721.  For a name with several addresses, "
    "the next is tried after 250 ms, or at once when one fails, and the first that answers is used.  A "
    "DURATION is a number with the unit ms, s, m, h or d."
)
EXEC_HELP = "exec:COMMAND is always a command.  "


# -- values of options: (text) -> value, or ValueError with the reason ------------------------------------------------


def _number(low: int, high: int, what: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high):
            raise ValueError(f"{text!r} is not {what} ({low} to {high})")
        return int(text)

    return read


def _choice(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not one of {', '.join(words)}{suggestion(text, words)}")
        return text

    return read


def switch(text: str) -> bool:
    """Parse yes or no, or 1 or 0; an empty text means yes."""
    return _choice("yes", "no", "1", "0")(text or "yes") in ("yes", "1")


def _baud(text: str) -> int:
    if text not in map(str, BAUDS):
        raise ValueError(f"{text!r} is not a baud rate: use one of {' '.join(map(str, BAUDS))}")
    return int(text)


def _seconds(text: str) -> float:
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError(f"{text!r} is not a positive duration")
    return seconds


def _keepalive(text: str) -> int:
    seconds = _seconds(text)
    if not 1 <= seconds <= MAX_KEEPALIVE:
        raise ValueError(f"{text!r} is not 1 to {MAX_KEEPALIVE} seconds")
    return round(seconds)


def ip_version(text: str) -> int:
    """4 or 6 for an IP address, with a zone if it is link-local (fe80::1%eth0); 0 for any other text."""
    import socket

    host, percent, zone = text.partition("%")
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        is_right = not percent or (version == 6 and is_link_local(host) and is_interface(zone))
        return version if is_right else 0
    return 0


def is_link_local(host: str) -> bool:
    """Whether an IPv6 address needs its interface (RFC 4007): fe80::/10, and ffx2::/16."""
    import socket

    first, second = socket.inet_pton(socket.AF_INET6, host)[:2]
    return (first == 0xFE and second & 0xC0 == 0x80) or (first == 0xFF and second & 0x0F == 0x02)


def is_interface(name: str) -> bool:
    """Whether `name` is valid as the name or number of a network interface."""
    return name.isprintable() and 0 < len(name.encode()) <= MAX_INTERFACE and not set(name) & set("/ :")


def _local(text: str) -> tuple[str, int]:
    """Parse a local address: IP or IP:PORT; for IPv6, [IP]:PORT."""
    host, port = text, 0
    if text.startswith("[") or text.count(":") == 1:
        host, colon, digits = text.rpartition(":") if not text.endswith("]") else (text, "", "")
        port = _port(digits) if colon else 0
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not ip_version(host):
        raise ValueError(f"{host!r} is not an IP address of this host{_zone_help(host)}")
    return host, port


def _zone_help(host: str) -> str:
    """Advice for an address with a wrong zone."""
    is_number = "%" in host and ip_version(host.partition("%")[0])
    return " (only a link-local one, fe80::, has an interface behind %25)" if is_number else ""


def _network(text: str) -> tuple[str, int]:
    """Parse ADDRESS/PREFIX of an interface."""
    host, slash, prefix = text.partition("/")
    version = ip_version(host)
    if not version or not slash or "%" in host:
        raise ValueError(f"{text!r} is not an address with its prefix, such as 10.0.0.1/24")
    return host, _number(0, 32 if version == 4 else 128, "a prefix")(prefix)


def _networks(text: str) -> tuple[tuple[str, int], ...]:
    """Parse a list of them, separated by commas."""
    return tuple(map(_network, text.split(",")))


def _mode(text: str) -> int:
    if not (0 < len(text) <= 4 and set(text) <= set("01234567")):
        raise ValueError(f"{text!r} is not a file mode, such as 660")
    return int(text, 8)


def unescape(text: str) -> str:
    """Decode each %XX of `text`.  ValueError for any other %, and for NUL."""
    import os

    head, *parts = text.split("%")
    data = os.fsencode(head)
    for part in parts:
        if len(part) < 2 or not _is_hex(part[:2]):
            raise ValueError(f"'%{part[:2]}' is not %XX (a % itself is %25)")
        data += bytes((int(part[:2], 16),)) + os.fsencode(part[2:])
    if b"\0" in data:
        raise ValueError("%00 (NUL) is not allowed in a URL")
    return os.fsdecode(data)


def unescape_host(text: str) -> str:
    """`unescape` for a host, which may be an IPv6 address with a zone: [fe80::1%25eth0] (RFC 6874) or [fe80::1%eth0].

    As in curl, text after a lone % that is not 25 is the literal name of the interface.
    """
    host, percent, zone = text.partition("%")
    if not percent or ip_version(host.lstrip("[")) != 6:
        return unescape(text)
    name, bracket, rest = zone.partition("]")
    name = unescape(name[2:] if name.startswith("25") and len(name) > 2 else name)
    return f"{host}%{name}{bracket}{unescape(rest)}"


_port = _number(1, 65535, "a port")

# -- after ://  (text, whether it listens) -> fields of a Transport, or ValueError -----------------------------------


def _host_and_port(rest: str, listens: bool) -> dict[str, Any]:
    host, colon, digits = rest.rpartition(":")
    if rest.isdigit():
        raise ValueError(f"the host is missing: HOST:{rest}")
    if not colon or not digits:
        raise ValueError(f"the port is missing: {rest.rstrip(':') or 'HOST'}:PORT")
    host, digits = unescape_host(host), unescape(digits)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ip_version(host) != 6:
            raise ValueError(f"{host!r} is not an IPv6 address, and brackets are for those{_zone_help(host)}")
    elif ":" in host:
        raise ValueError(f"an IPv6 address is written in brackets: [{host}]:{digits}")
    if not host and not listens:
        raise ValueError(f"the host is missing: HOST:{digits}")
    if host and (not host.isprintable() or " " in host or "/" in host):
        raise ValueError(f"{host!r} is not a host")
    return {"host": host, "port": _number(0, 65535, "a port")(digits) if listens else _port(digits)}


def _path(rest: str, listens: bool) -> dict[str, Any]:
    import os

    path = unescape(rest)
    if not path:
        raise ValueError("the path is missing, such as /run/name.sock or name.sock")
    if path.startswith("~"):
        from ..io.socket_path import expand  # loaded in every daemon

        path = expand(path)
    size = len(os.fsencode(path))
    if size > MAX_PATH:
        raise ValueError(f"the path has {size} bytes; that of a socket has at most {MAX_PATH}")
    return {"path": path}


def _device(rest: str, listens: bool) -> dict[str, Any]:
    path = unescape(rest)
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is not the full path of a device, such as /dev/ttyUSB0")
    return {"path": path}


def _descriptors(rest: str, listens: bool) -> dict[str, Any]:
    numbers = unescape(rest).split(",")
    if len(numbers) > 2:
        raise ValueError("at most two descriptors: one to read, one to write")
    read = _number(0, 1 << 20, "the number of a descriptor")
    return {"descriptors": tuple(map(read, numbers))}


def command_line(rest: str, listens: bool) -> dict[str, Any]:
    if rest.strip() == "-":
        raise ValueError("- is our stdin and stdout, and not a command")
    return {"command": rest}


def _cid_and_port(rest: str, listens: bool) -> dict[str, Any]:
    cid, colon, port = unescape(rest).rpartition(":")
    if not colon:
        raise ValueError("the port is missing: CID:PORT")
    if not cid and not listens:
        raise ValueError(f"the CID is missing: a number, local, or host, as in host:{port}")
    number = CIDS[cid or "any"] if cid in CIDS or not cid else _number(0, 0xFFFFFFFF, "a CID")(cid)
    return {"host": str(number), "port": _number(0, 0xFFFFFFFE, "a port of vsock")(port)}


def _bluetooth(rest: str, listens: bool) -> dict[str, Any]:
    address, slash, channel = unescape(rest).partition("/")
    if not slash:
        raise ValueError("the channel is missing: ADDRESS/CHANNEL")
    parts = address.split(":")
    if (address or not listens) and not (
        len(parts) == 6 and all(len(part) == 2 and part.isalnum() and _is_hex(part) for part in parts)
    ):
        raise ValueError(f"{address!r} is not a Bluetooth address, such as 00:B0:D0:63:C2:26")
    read = _number(1, 30, "a channel of RFCOMM")
    return {"host": address.upper() or "00:00:00:00:00:00", "port": read(channel)}


def _is_hex(text: str) -> bool:
    return set(text) <= set("0123456789abcdefABCDEF")


def _interface(rest: str, listens: bool) -> dict[str, Any]:
    name = unescape(rest)
    if name and not is_interface(name):
        raise ValueError(f"{name!r} is not a name of a network interface (at most {MAX_INTERFACE} bytes)")
    return {"path": name}


# -- the tables -----------------------------------------------------------------------------------------------------


class UrlOption:
    """Option `?name=FORM`; `read` makes its value from the text, after `unescape`.

    An option `for_links` is not for ends of tunnels; one `for_tunnels` is only for them.
    """

    __slots__ = ("for_links", "for_tunnels", "form", "help", "name", "read", "unescape")

    def __init__(
        self,
        name: str,
        form: str,
        read: Callable[[str], object],
        help: str,
        for_links: bool = False,
        for_tunnels: bool = False,
        unescape: Callable[[str], str] = unescape,
    ) -> None:
        self.name, self.form, self.read, self.help = name, form, read, help
        self.for_links, self.for_tunnels = for_links, for_tunnels
        self.unescape = unescape

    def fits(self, use: str) -> bool:
        return not (self.for_tunnels if use == CONNECT else self.for_links)


class Scheme:
    """Scheme `name://form`: the way to open it, its uses, its options, and whether it can lose bytes."""

    __slots__ = ("form", "help", "how", "is_lossy", "name", "options", "read", "uses")

    def __init__(
        self, name: str, form: str, read: Callable[[str, bool], dict[str, Any]], how: str, uses: str,
        options: tuple[UrlOption, ...], help: str, is_lossy: bool = False,
    ) -> None:
        self.name, self.form, self.read, self.how, self.uses = name, form, read, how, tuple(uses.split())
        if TUNNEL in self.uses and how in (LISTEN, GATHER):
            self.uses += (FORWARD,)
        self.options = {option.name: option for option in options}
        self.help, self.is_lossy = help, is_lossy


BIND = UrlOption("bind", "IP[:PORT]", _local, "the local address", unescape=unescape_host)
TIMEOUT = UrlOption("timeout", "DURATION", _seconds, "timeout for connecting (default 20s)")
ALIVE = UrlOption("keepalive", "DURATION", _keepalive, "idle time before a keepalive probe")
LINK_ALIVE = UrlOption(ALIVE.name, ALIVE.form, _keepalive, ALIVE.help, for_links=True)
LOSSY = UrlOption("lossy", "yes|no", switch, "whether the transport may lose or corrupt bytes; enables "
                                             "retransmission", True)
MTU = UrlOption("mtu", "BYTES", _number(64, MAX_MTU, "a size of packets"), "maximum packet size on a lossy "
                                                                           "link (default 1200)",
             True)  # fmt: skip
MODE = UrlOption("mode", "OCTAL", _mode, "the file mode of the socket (default 600)")
BAUD = UrlOption("baud", "N", _baud, "bits per second (default 115200)")
PARITY = UrlOption("parity", "none|even|odd", _choice("none", "even", "odd"), "(default none)")
FLOW = UrlOption("flow", "none|rtscts|xonxoff", _choice("none", "rtscts", "xonxoff"), "flow control (default none)")
STOP = UrlOption("stop", "1|2", _choice("1", "2"), "stop bits (default 1)")
BITS = UrlOption("bits", "5|6|7|8", _choice("5", "6", "7", "8"), "data bits (default 8)")
LINE = UrlOption("link", "PATH", str, "without COMMAND: create a symlink to the terminal")
ADDR = UrlOption("addr", "IP/PREFIX[,...]", _networks, "addresses of the interface; brings it up")
ROUTE = UrlOption(
    "route", "IP/PREFIX[,...]", _networks, "routes through the interface; brings it up"
)
IDLE = UrlOption(
    "idle", "DURATION", _seconds, "idle time after which a sender is dropped (default 60s)", for_tunnels=True
)
DEVICE_MTU = UrlOption("mtu", "BYTES", _number(68, 65535, "an MTU"), "the MTU of the interface")
UP = UrlOption("up", "yes|no", switch, "bring the interface up (default yes with addr or route, else no)")

_TCP = (BIND, TIMEOUT, ALIVE, LOSSY, MTU)
_HERE = (LINK_ALIVE, LOSSY, MTU)
_UDP = (BIND, TIMEOUT, LINK_ALIVE, MTU)
_SERIAL = (BAUD, PARITY, FLOW, STOP, BITS, *_HERE)

SCHEMES = {row.name: row for row in (
    Scheme("tcp", "HOST:PORT", _host_and_port, DIAL, "connect tunnel serve", _TCP, "connect by TCP"),
    Scheme("tcp-listen", "[HOST]:PORT", _host_and_port, LISTEN, "connect tunnel", (ALIVE, LOSSY, MTU),
           "accept TCP connections"),
    Scheme("unix", "PATH", _path, DIAL, "connect tunnel serve", (TIMEOUT, *_HERE),
           "connect to a UNIX socket; @NAME: abstract"),
    Scheme("unix-listen", "PATH", _path, LISTEN, "connect tunnel", (MODE, *_HERE),
           "accept connections at a UNIX socket"),
    Scheme("udp", "HOST:PORT", _host_and_port, DIAL, "connect tunnel serve", _UDP, "send and receive UDP", True),
    Scheme("udp-listen", "[HOST]:PORT", _host_and_port, GATHER, "connect tunnel", (LINK_ALIVE, MTU, IDLE),
           "accept UDP, one link or tunnel for each sender", True),
    Scheme("serial", "DEVICE", _device, DEVICE, "connect tunnel serve", _SERIAL, "a serial line", True),
    Scheme("pty", "COMMAND", command_line, DEVICE, "connect tunnel serve", (LINE, *_HERE),
           "COMMAND on a pseudo-terminal, in raw mode"),
    Scheme("fd", "N[,M]", _descriptors, DEVICE, "connect tunnel", _HERE,
           "an inherited descriptor, or one to read and one to write"),
    Scheme("rfcomm", "ADDRESS/CHANNEL", _bluetooth, DIAL, "connect tunnel serve", (TIMEOUT, *_HERE),
           "connect by Bluetooth"),
    Scheme("rfcomm-listen", "[ADDRESS]/CHANNEL", _bluetooth, LISTEN, "connect tunnel", _HERE,
           "accept Bluetooth connections"),
    Scheme("vsock", "CID:PORT", _cid_and_port, DIAL, "connect tunnel serve", (TIMEOUT, *_HERE),
           "connect between a virtual machine and its host"),
    Scheme("vsock-listen", "[CID]:PORT", _cid_and_port, LISTEN, "connect tunnel", _HERE,
           "accept connections between a virtual machine and its host"),
    Scheme("tun", "[NAME]", _interface, DEVICE, "tunnel serve", (ADDR, DEVICE_MTU, UP, ROUTE),
           "a network interface for IP packets, for the life of the tunnel; the other end must be a tun://"),
    Scheme("tap", "[NAME]", _interface, DEVICE, "tunnel serve", (ADDR, DEVICE_MTU, UP, ROUTE),
           "a network interface for Ethernet frames; the other end must be a tap://"),
)}  # fmt: skip

OPTION_NAMES = sorted({name for row in SCHEMES.values() for name in row.options})
WHY_NOT = {
    **dict.fromkeys(
        ((LISTEN, SERVE), (GATHER, SERVE)), "each tunnel to a service starts something, and this waits for others to"
    ),
    **{(how, FORWARD): "it does not listen" for how in (DIAL, DEVICE)},
    (DEVICE, CONNECT): "it is the end of a tunnel",
}

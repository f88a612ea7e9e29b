"""Parser of TRANSPORT, which carries a link or is the end of a tunnel.

    -                    stdin and stdout
    SCHEME://...         a built-in transport: a row of `urls.SCHEMES`
    exec:COMMAND         a command line for /bin/sh
    anything else        the same, unless the command makes links itself: see `socat`

A URL is SCHEME://REST?NAME=VALUE&NAME=VALUE.  In paths and values, %XX is the byte XX.  A COMMAND is not decoded, so
only a URL without one has options.

This module only parses; transports are opened by `sockets` (connections), `udp` (senders of UDP) and `devices`.
"""

from __future__ import annotations

import os

from ...errors import AddressError, UsageError, suggestion
from ...proto.wire.frames import DATAGRAMS, STREAM
from ..io import shell
from .socat import find_places, has_tun, is_lossy_command, with_tun_name
from .urls import (
    CONNECT,
    FORWARD,
    GATHER,
    INTERFACES,
    LISTEN,
    OPTION_NAMES,
    SCHEMES,
    SERVE,
    WHY_NOT,
    WORDS,
    command_line,
    switch,
    unescape,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .urls import Scheme, UrlOption

TUN_NOTE = "socat has no option device-name=; tun-name= is used in its place"
STDIO, COMMAND, LINK_COMMAND = "stdio", "command", "link command"  # the kinds without a scheme


class Transport:
    """A parsed TRANSPORT.

    `kind` is STDIO, COMMAND, LINK_COMMAND or the name of a scheme; `how`, the way to open it, is one of the first
    three, or DIAL, LISTEN, GATHER or DEVICE.  `host` and `port` are a network address (for vsock, `host` is the number
    of the CID), `path` is a file or an interface, `command` a command line, `descriptors` those of fd://, `options` the
    given options by name.  `note` warns the user about a change of the command; mostly empty.
    """

    __slots__ = ("_has_tun", "_loses", "command", "descriptors", "host", "how", "kind", "note", "options", "path",
                 "port", "text")  # fmt: skip

    def __init__(
        self, text: str, kind: str, *, host: str = "", port: int = 0, path: str = "", command: str = "",
        descriptors: tuple[int, ...] = (), options: dict[str, Any] | None = None,
    ) -> None:
        self.text, self.kind = text, kind
        self.how = SCHEMES[kind].how if kind in SCHEMES else kind
        self.host, self.port, self.path, self.descriptors = host, port, path, descriptors
        self.options = options or {}
        # The command is parsed here, so that every error of it is found now.
        self.command = with_tun_name(command)
        self.note = TUN_NOTE if self.command != command else ""
        self._loses, self._has_tun = is_lossy_command(self.command), has_tun(self.command)

    def __str__(self) -> str:
        return self.text

    @property
    def is_lossy(self) -> bool:
        """Whether bytes may be lost, added or damaged on the way."""
        if self.kind in SCHEMES:
            return bool(self.options.get("lossy", SCHEMES[self.kind].is_lossy))
        return self._loses

    @property
    def is_datagrams(self) -> bool:
        """Whether each read and write of its descriptor is one datagram."""
        return self.kind in ("udp", "udp-listen")

    @property
    def implies_datagrams(self) -> bool:
        """Whether it makes a tunnel of datagrams without --datagrams."""
        return self.is_datagrams or self.kind in INTERFACES or (self.kind == COMMAND and self._has_tun)

    def mode(self, datagrams: bool) -> int:
        """The mode of a tunnel that ends here; `datagrams`: with --datagrams.  UsageError if it cannot be so."""
        if datagrams and not self.implies_datagrams and self.kind not in (STDIO, COMMAND):
            raise UsageError(
                f"{self}: is a stream of bytes: --datagrams is for commands and -; udp://, tun:// imply it"
            )
        return DATAGRAMS if datagrams or self.implies_datagrams else STREAM

    @property
    def mtu(self) -> int:
        """Packet size of a lossy link, in bytes; 0: the default of links."""
        return int(self.options.get("mtu", 0))

    @property
    def keepalive(self) -> int:
        """Seconds of silence before a keepalive; 0: the default of links."""
        return int(self.options.get("keepalive", 0))

    def check_use(self, use: str) -> Transport:
        """Return this transport if it fits CONNECT, TUNNEL, SERVE or FORWARD; else raise UsageError with the reason."""
        row = SCHEMES.get(self.kind)
        if row is None:
            if self.kind == COMMAND and not self.text.startswith("exec:"):
                _refuse_near_url(self.text, use)
            if use == FORWARD:
                raise UsageError(f"{self}: cannot {WORDS[use]}: it does not listen ({summary(use)})")
            if use != CONNECT and self.kind == LINK_COMMAND:
                raise UsageError(f"{self}: cannot {WORDS[use]}: it starts links itself (but for exec:COMMAND)")
            if use == SERVE and self.kind == STDIO:
                raise UsageError("-: cannot be served: there is only one stdin and stdout, for any number of tunnels")
            return self
        if use not in row.uses:
            why = WHY_NOT.get((row.how, use), "there is only one of it, for any number of tunnels")
            instead = ", ".join(f"{name}://" for name, other in SCHEMES.items() if use in other.uses)
            from . import hints

            hint = hints.did_you_mean(hints.instead(self.text, self.kind, use))
            raise UsageError(f"{self}: cannot {WORDS[use]}: {why}{hint or f' (there are {instead})'}")
        for name in self.options:
            if use == CONNECT and row.options[name].for_tunnels:
                raise UsageError(f"{self}: {name}= is for tunnels, and this is to {WORDS[use]}")
            if use != CONNECT and row.options[name].for_links:
                raise UsageError(f"{self}: {name}= is for links, and this cannot be one: it is to {WORDS[use]}")
        return self


def _refuse_near_url(text: str, use: str) -> None:
    first = text.split(None, 1)[0]
    if ":" in first or "//" in first or ("/" in first and first == text):
        from . import hints

        url = hints.meant_url(text, use)
        if url:
            raise UsageError(f"{text}: neither a URL nor a program{hints.did_you_mean(url)}")


def parse_transport(text: str) -> Transport:
    """Parse `text`.  UsageError names the wrong part and the reason."""
    if not text.strip():
        raise UsageError("an empty TRANSPORT: give a command, - or a URL such as tcp://HOST:PORT")
    if text == "-":
        return Transport(text, STDIO)
    if "\0" in text or not _can_be_passed(text):
        raise UsageError(f"{text!a}: has a character that no argument of a program can have")
    scheme, separator, rest = text.partition("://")
    if separator and scheme and all(c.isalnum() or c in "+-." for c in scheme):
        row = SCHEMES.get(scheme)
        if row is None:
            from . import hints

            hint = hints.did_you_mean(hints.repair_url(scheme, rest))
            known = ", ".join(f"{name}://" for name in SCHEMES)
            raise UsageError(f"{text}: no transport {scheme}://{hint}; there are {known}")
        try:
            return _read_url(text, row, rest)
        except ValueError as error:
            from . import hints

            raise UsageError(f"{text}: {error}{hints.did_you_mean(hints.repair_url(scheme, rest))}") from None
    spelled, colon, command = text.partition(":")
    if colon and spelled == "exec":
        if command.strip() in ("", "-"):
            raise UsageError(f"{text}: the command is missing: exec:COMMAND")
        return Transport(text, COMMAND, command=command)
    return Transport(text, LINK_COMMAND if find_places(text) else COMMAND, command=text)


def _can_be_passed(text: str) -> bool:
    """Whether it can be encoded as an argument."""
    try:
        return bool(os.fsencode(text))
    except UnicodeEncodeError:  # a surrogate that encodes no byte
        return False


def _read_url(text: str, row: Scheme, rest: str) -> Transport:
    query = ""
    if row.read is not command_line or rest.startswith("?"):
        rest, _, query = rest.partition("?")
    fields = row.read(rest, row.how in (LISTEN, GATHER))
    options: dict[str, Any] = {}
    for word in filter(None, query.split("&")):
        name, _, value = word.partition("=")
        name = unescape(name)
        option = row.options.get(name)
        if option is None:
            taken = f"{row.name}:// takes {', '.join(f'{known}=' for known in row.options)}"
            if name in OPTION_NAMES:
                raise ValueError(f"no {name}= here: {taken}")
            raise ValueError(f"no option {name!r}{suggestion(name, row.options)}; {taken}")
        if name in options:
            raise ValueError(f"{name}= is given twice")
        if not value and option.read is not switch:
            raise ValueError(f"{name}= needs a value: {option.form}")
        try:
            options[name] = option.read(option.unescape(value))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if "route" in options and not options.get("up", True):
        raise ValueError("route= needs the interface up, and up=no keeps it down")
    if row.read is command_line and not fields["command"].strip() and "link" not in options:
        raise ValueError("the command is missing (or ?link=PATH, for a program that opens the terminal itself)")
    return Transport(text, row.name, options=options, **fields)


def service_name(text: str) -> str:
    """Default name of a service: the base name of its command.  AddressError if it has none."""
    command = text.partition(":")[2] if text.startswith("exec:") else text
    if command.startswith("pty://") and not command.startswith("pty://?"):
        command = command[len("pty://") :]
    try:
        return shell.service_name(command)
    except AddressError:
        if "://" in command:
            raise AddressError("a scheme:// has no base name") from None
        raise


def summary(use: str) -> str:
    """One line of help: the forms of TRANSPORT for CONNECT, TUNNEL, SERVE or FORWARD."""
    names = ", ".join(row.name for row in SCHEMES.values() if use in row.uses)
    if use == FORWARD:
        return f"where to listen, a URL: SCHEME://... of {names}"
    stdio = "" if use == SERVE else "- for stdin and stdout, "
    return f"a command, {stdio}or a URL: SCHEME://... of {names}"


def explain(use: str) -> tuple[tuple[str, list[tuple[str, str]]], ...]:
    """Two lists for a manual page: the URLs for one of the four uses, and their options."""
    rows = [row for row in SCHEMES.values() if use in row.uses]
    seen: dict[str, UrlOption] = {}
    urls = []
    for row in rows:
        mine = [option for option in row.options.values() if option.fits(use)]
        for option in mine:
            seen.setdefault(option.name, option)
        takes = f"; takes {', '.join(option.name for option in mine)}" if mine else ""
        urls.append((f"{row.name}://{row.form}", f"{row.help}{takes}"))
    options = [(f"{option.name}={option.form}", option.help) for option in seen.values()]
    return ("URLs", urls), ("options of URLs, which follow a ? and are separated by &,", options)

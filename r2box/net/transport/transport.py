"""TRANSPORT: what carries a link, or stands at an end of a tunnel, as one spells it.

    -                    our own stdin and stdout
    SCHEME://...         what we open ourselves: the rows of `scheme.SCHEMES`
    exec:COMMAND         a command line for /bin/sh
    anything else        the same, unless the command starts links itself: see `starter`

A URL is SCHEME://REST?NAME=VALUE&NAME=VALUE.  In paths and values, %XX is the byte XX.  A COMMAND is taken as it
stands, so only a URL without one has options.

This module reads; what opens a transport is `dial` (connections), `datagram` (the senders of UDP) and `device`.
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
    switch,
    unescape,
    whole_line,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .urls import Scheme, UrlOption

TUN_NOTE = "socat has no option device-name=; tun-name= is used in its place"
STDIO, COMMAND, STARTER = "stdio", "command", "starter"  # the kinds that have no scheme


class Transport:
    """A parsed TRANSPORT.

    `kind` is STDIO, COMMAND, STARTER or the name of a scheme; `how` it is opened is one of those three, or DIAL,
    LISTEN, GATHER or DEVICE.  `host` and `port` are what a network has for it (of vsock the number of the CID), `path`
    a file or an interface, `command` a command line, `descriptors` those of fd://.  `options` has those that were
    given, by name.  `note` is what users should know of how their text was read; mostly empty.
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
        # All that is to be seen in the command is looked at here, so that a transport that was parsed can be used.
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
        """Whether each read and write of its descriptor is one packet."""
        return self.kind in ("udp", "udp-listen")

    @property
    def is_whole(self) -> bool:
        """Whether a tunnel with this at its end is one of datagrams without a word."""
        return self.is_datagrams or self.kind in INTERFACES or (self.kind == COMMAND and self._has_tun)

    def mode(self, asked: bool) -> int:
        """The mode of a tunnel with this at its end; `asked`: --datagrams was given.  UsageError if it has none."""
        if asked and not self.is_whole and self.kind not in (STDIO, COMMAND):
            raise UsageError(
                f"{self}: is a stream of bytes: --datagrams is for commands and -; udp://, tun:// imply it"
            )
        return DATAGRAMS if asked or self.is_whole else STREAM

    @property
    def mtu(self) -> int:
        """Bytes of the packets of a lossy link; 0: as the link has it."""
        return int(self.options.get("mtu", 0))

    @property
    def keepalive(self) -> int:
        """Seconds of silence before a sign of life is sent; 0: as the link has it."""
        return int(self.options.get("keepalive", 0))

    def check_use(self, use: str) -> Transport:
        """This, if it may be used for CONNECT, TUNNEL, SERVE or FORWARD; UsageError with the reason if not."""
        row = SCHEMES.get(self.kind)
        if row is None:
            if self.kind == COMMAND and not self.text.startswith("exec:"):
                _refuse_near_url(self.text, use)
            if use == FORWARD:
                raise UsageError(f"{self}: cannot {WORDS[use]}: it does not listen ({summary(use)})")
            if use != CONNECT and self.kind == STARTER:
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
    """The transport that `text` spells.  UsageError that says what is wrong with which part."""
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
    return Transport(text, STARTER if find_places(text) else COMMAND, command=text)


def _can_be_passed(text: str) -> bool:
    """Whether there are bytes for it."""
    try:
        return bool(os.fsencode(text))
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return False


def _read_url(text: str, row: Scheme, rest: str) -> Transport:
    query = ""
    if row.read is not whole_line or rest.startswith("?"):
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
    if row.read is whole_line and not fields["command"].strip() and "link" not in options:
        raise ValueError("the command is missing (or ?link=PATH, for a program that opens the terminal itself)")
    return Transport(text, row.name, options=options, **fields)


def service_name(text: str) -> str:
    """The name that a service gets from its transport: the base name of its command.  AddressError if it has none."""
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
    """What TRANSPORT may be for CONNECT, TUNNEL, SERVE or FORWARD, in one line of help."""
    names = ", ".join(row.name for row in SCHEMES.values() if use in row.uses)
    if use == FORWARD:
        return f"where to listen, a URL: SCHEME://... of {names}"
    stdio = "" if use == SERVE else "- for stdin and stdout, "
    return f"a command, {stdio}or a URL: SCHEME://... of {names}"


def explain(use: str) -> tuple[tuple[str, list[tuple[str, str]]], ...]:
    """The URLs that may be used for one of the four uses, and their options: two lists for a page."""
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

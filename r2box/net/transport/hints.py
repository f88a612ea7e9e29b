"""Hints for errors: the URL that a TRANSPORT, neither a valid URL nor a program, most likely stands for.

The file system is checked only for a word that looks like an address; a program named `tcp:foo` still runs.
"""

from __future__ import annotations

import os
import stat

from ..io.shell import find_program
from .urls import CONNECT, FORWARD, GATHER, LISTEN, SCHEMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .urls import Scheme

LINES = ("/dev/tty", "/dev/serial", "/dev/rfcomm")
LOOPBACK = "127.0.0.1"
_HOST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%[]*")
_SOCAT = {"l": "-listen", "listen": "-listen", "connect": "", "client": "", "recv": "-listen", "recvfrom": "-listen"}


def near_scheme(word: str) -> str:
    """The scheme closest to `word`, which precedes a colon; "" if none is close."""
    from difflib import get_close_matches

    base, _, variant = word.lower().partition("-")
    if variant in _SOCAT:
        base += _SOCAT[variant]
        variant = ""
    if base[:4] in ("tcp4", "tcp6", "udp4", "udp6"):
        base = base[:3] + base[4:]
    name = f"{base}-{variant}" if variant else base
    return name if name in SCHEMES else next(iter(get_close_matches(name, SCHEMES, 1)), "")


def did_you_mean(url: str) -> str:
    """The end of an error that suggests `url`; "" for ""."""
    return f" (did you mean {url}?)" if url else ""


def repair_url(scheme: str, rest: str) -> str:
    """The valid URL closest to the invalid `scheme://rest`; "" if none is close."""
    name = near_scheme(scheme)
    url = _spell(SCHEMES[name], rest) if name else ""
    return url if url != f"{scheme}://{rest}" else ""  # else an option is wrong


def meant_url(text: str, use: str) -> str:
    """The URL that `text`, a command line for `use`, most likely stands for; "" if it may be a command."""
    word = text.strip()
    first = word.split(None, 1)[0] if word else ""
    if not ("/" in first or ":" in first) or find_program(first):
        return ""
    url = (_from_file(word) if "/" in first else "") or _from_prefix(word) or _from_host(word, use)
    kind = url.partition("://")[0]
    return url if not url or use in SCHEMES[kind].uses else instead(url, kind, use) or url


def instead(text: str, kind: str, use: str) -> str:
    """The URL `text`, with the scheme that dials or listens instead, if that one fits `use`; else ""."""
    other = kind.rpartition("-listen")[0] or f"{kind}-listen"
    return other + text[len(kind) :] if other in SCHEMES and use in SCHEMES[other].uses else ""


def _spell(row: Scheme, rest: str) -> str:
    """A valid URL of scheme `row` from an almost valid rest; "" if there is none."""
    head = rest.partition(",")[0]  # options of socat follow a comma
    guesses = [rest, head]
    if "HOST" in row.form:
        host, _, port = head.rpartition(":")
        at_loopback = f"{LOOPBACK}:{head.lstrip(':')}"
        guesses += [head.lstrip("/"), f"[{host}]:{port}", at_loopback]
    for guess in guesses:
        try:
            row.read(guess.partition("?")[0], row.how in (LISTEN, GATHER))
        except ValueError:
            continue
        return f"{row.name}://{guess}"
    return ""


def _from_file(word: str) -> str:
    """The URL of an existing UNIX socket or serial line."""
    try:
        mode = os.stat(word).st_mode
    except (OSError, ValueError):
        return ""
    if stat.S_ISSOCK(mode):
        return _spell(SCHEMES["unix"], word)
    return _spell(SCHEMES["serial"], word) if stat.S_ISCHR(mode) and word.startswith(LINES) else ""


def _from_prefix(word: str) -> str:
    """The URL for tcp:HOST:PORT, tcp//HOST:PORT, tcp-l:PORT and similar."""
    size = next((at for at, c in enumerate(word) if not (c.isalnum() or c == "-")), 0)
    name, rest = word[:size], word[size:]
    if not name or not rest.startswith((":", "//")):
        return ""
    rest = rest.removeprefix(":").removeprefix("//")
    scheme = near_scheme(name)
    if scheme != name.lower() and rest.isdigit() and "-" not in name:
        return ""  # HOST:PORT, of a host whose name is like a scheme
    if not scheme or (" " in word and SCHEMES[scheme].form != "COMMAND"):
        return ""
    return _spell(SCHEMES[scheme], rest) or f"{scheme}://{SCHEMES[scheme].form}"


def _from_host(word: str, use: str) -> str:
    """The URL for HOST:PORT, [IPV6]:PORT, :PORT."""
    host, colon, port = word.rpartition(":")
    if not (colon and port.isdigit() and word.isascii() and set(host) <= _HOST):
        return ""
    scheme = "tcp-listen" if use == FORWARD or (host == "*" and use == CONNECT) else "tcp"
    return _spell(SCHEMES[scheme], word.lstrip("*"))

"""Addresses and paths: the names of nodes, services and clients.

An *address* is 1 to 64 ASCII letters, digits and ``. _ : + -``.  Remote addresses end in command lines, environments
and file names; so an address does not begin with ``-`` (an option), is not ``.`` or ``..``, and holds no ``=`` (an
assignment) and no ``@`` (the user of ``ssh``).  A *virtual* address exists only inside a daemon and holds a slash:
``service/NAME`` is a service, ``child/ID`` a client, ``any/NAME`` the service NAME of the nearest node that offers it.
A *path* is a tuple of addresses, one for each hop.  Its text form joins them by ``/``; ``service:NAME`` is another
spelling of ``service/NAME``.
"""

from __future__ import annotations

from ...errors import AddressError

MAX_ADDRESS = 64  # long enough for a host name or a key's fingerprint, short enough for a line of a listing
MAX_HOPS = 32  # of a path, and of an origin; loops must end early

SERVICE = "service/"
CHILD = "child/"
ANY = "any/"
SERVICE_TOO = "service:"  # another spelling
BENCH = "r2.bench"  # the built-in service for measurements: see `measurement`
RESERVED = frozenset(("service", "child", "any"))
_ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:+-")


def check_address(text: str) -> str:
    """Return `text` if it is a valid node address or service name; raise AddressError with the reason if not."""
    if not text:
        raise AddressError("an address cannot be empty")
    if len(text) > MAX_ADDRESS:
        raise AddressError(f"the address {text[:16]!r}… has {len(text)} characters; at most {MAX_ADDRESS} are allowed")
    if text[0] == "-":
        raise AddressError(f"{text!r} is not an address: it begins with a dash, as options do")
    for character in text:
        if character not in _ALLOWED:
            raise AddressError(f"{text!r} is not an address: {character!r} is not a letter, digit or one of . _ : + -")
    if text in (".", ".."):
        raise AddressError(f"{text!r} is not an address: it is a directory")
    if text in RESERVED or text.startswith(SERVICE_TOO):
        raise AddressError(f"the address {text!r} is reserved")
    return text


def parse_path(text: str) -> tuple[str, ...]:
    """Parse `a/b/service/c` to `("a", "b", "service/c")`.  The empty text is the empty path: the node itself."""
    if not text:
        return ()
    words = text.split("/", 2 * MAX_HOPS)
    if "" in words:
        raise AddressError(f"{text!r} is not a path: an address between slashes cannot be empty")
    path: list[str] = []
    following = iter(words)
    for word in following:
        if word in RESERVED:
            name = next(following, None)
            if name is None:
                raise AddressError(f"{text!r} ends with the reserved word {word!r}: a name must follow")
            path.append(f"{word}/{check_address(name)}")
        elif word.startswith(SERVICE_TOO):
            path.append(SERVICE + check_address(word[len(SERVICE_TOO) :]))
        else:
            path.append(check_address(word))
        if len(path) > MAX_HOPS:
            raise AddressError(f"a path of more than {MAX_HOPS} steps")
    return tuple(path)


def format_path(path: tuple[str, ...]) -> str:
    """The inverse of `parse_path`."""
    return "/".join(path)


def join_targets(targets: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Return the path of the options `-t a -t b/c`.  AddressError if it is invalid."""
    return parse_path("/".join(targets))

"""Addresses and paths: how nodes, services and clients are named.

An *address* is 1 to 64 of the ASCII letters, digits and ``. _ : + -``.  A name that others choose ends in command
lines, environments and file names, so it does not begin with ``-`` (an option), is not ``.`` or ``..``, and holds no
``=`` (an assignment) and no ``@`` (the user of ``ssh``).  A *virtual* address exists only inside a daemon and is
spelled with a slash: ``service/NAME`` for a service, ``child/ID`` for a client; ``any/NAME`` is a service of
whichever node is nearest.  A *path* is a tuple of addresses, each the next step from the one before; as text they are
joined by ``/``, and ``service:NAME`` is read as ``service/NAME``.
"""

from __future__ import annotations

from ...errors import AddressError

MAX_ADDRESS = 64  # long enough for a host name or a key's fingerprint, short enough for a line of a listing
MAX_HOPS = 32  # steps in a path, and in an origin: the 255 of an IP packet is never used, and loops must end early

SERVICE = "service/"
CHILD = "child/"
ANY = "any/"
SERVICE_TOO = "service:"  # another spelling
BENCH = "r2.bench"  # the service that every node has built in: see `meter`
RESERVED = frozenset(("service", "child", "any"))
_ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:+-")


def check_address(text: str) -> str:
    """Return `text` if it is an address of a node or a service's name; raise AddressError with the reason if not."""
    if not text:
        raise AddressError("an address cannot be empty")
    if len(text) > MAX_ADDRESS:
        raise AddressError(f"the address {text[:16]!r}… has {len(text)} characters; at most {MAX_ADDRESS} are allowed")
    if text[0] == "-":
        raise AddressError(f"{text!r} is no address: it begins with a dash, as options do")
    for character in text:
        if character not in _ALLOWED:
            raise AddressError(f"{text!r} is no address: {character!r} is no letter, digit or one of . _ : + -")
    if text in (".", ".."):
        raise AddressError(f"{text!r} is no address: it is a directory")
    if text in RESERVED or text.startswith(SERVICE_TOO):
        raise AddressError(f"the address {text!r} is reserved")
    return text


def parse_path(text: str) -> tuple[str, ...]:
    """Turn `a/b/service/c` into `("a", "b", "service/c")`.  The empty text is the empty path: the node itself."""
    if not text:
        return ()
    words = text.split("/", 2 * MAX_HOPS)
    if "" in words:
        raise AddressError(f"{text!r} is no path: an address between slashes cannot be empty")
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
    """The path that `-t a -t b/c` spells.  AddressError if it is none."""
    return parse_path("/".join(targets))

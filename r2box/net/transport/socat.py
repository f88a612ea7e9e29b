"""Analysis of commands that carry links: places for r2-connect, and addresses of socat.

    find_places, fill_places   the places where a command that makes links starts r2-connect, and its command line there
    is_lossy_command, has_tun  whether a socat in it has an address that loses bytes, or one of a network interface
    with_tun_name              socat's option tun-name= in place of device-name=, which no socat has

A place is a lone dash as the command of exec: or system: (`socat tcp-l:1,fork exec:-`), or the word `-%` anywhere.  The
analysis includes quoted command lines (`ssh HOST "socat ..."`), `DEPTH` levels deep, and those in exec: and system:.
"""

from __future__ import annotations

from ..io.words import OPAQUE, LexText, lex, quote, splice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..io.words import Token

DEPTH = 8  # levels of nested command lines
PLACE = "-%"
EXEC, SYSTEM = "exec", "system"  # quoting in an address of socat that runs a program directly, or by a shell
_PROGRAMS = {"exec:": EXEC, "system:": SYSTEM, "shell:": SYSTEM}
# Special characters of socat: in an address, and again in the words of an exec: (its nestlex.c).
_IN_ADDRESS = frozenset(",:!\"'\\()[]{}")
_IN_EXEC = frozenset(" \t\"'\\()[]{}")

# socat's addresses that can lose bytes, without the parts that distinguish variants (udp4-listen, ip6-sendto).
_LOSSY = frozenset(("udp", "udplite", "ip", "dtls", "openssl-dtls", "interface", "if", "tun"))
_INTERFACES = frozenset(("tun", "interface", "if"))
_FILES = frozenset(("open", "file", "gopen", "create", "creat"))  # addresses that open a file
# Serial lines, but not the ttys of RFCOMM: Bluetooth retransmits.
_LINES = ("/dev/tty", "/dev/cua", "/dev/cu.", "/dev/serial")
OLD_NAME, TUN_NAME = "device-name=", "tun-name="


# -- quoting ---------------------------------------------------------------------------------------------------------


def _escape(text: str, special: frozenset[str]) -> str:
    return "".join("\\" + character if character in special else character for character in text)


def quote_for(text: str, context: str) -> str:
    """Quote `text` for `context`: EXEC or SYSTEM, an address of socat; a quote, inside which it is; "", the shell."""
    if context in (EXEC, SYSTEM):
        return _escape(text, _IN_ADDRESS)
    if context == "'":
        return text.replace("'", "'\\''")
    if context == '"':
        return _escape(text, frozenset('\\"$`'))
    return quote(text)


def join_words(words: list[str], context: str = "") -> str:
    """Join `words` to one command line, for the shell or, with EXEC, for socat's exec:."""
    return " ".join(_escape(word, _IN_EXEC) if context == EXEC else quote(word) for word in words)


# -- command lines within command lines ------------------------------------------------------------------------------


def _walk(text: LexText, depth: int = DEPTH) -> Iterator[tuple[LexText, Token, bool]]:
    """Every word of a command line and of those nested in it: the line, the word, and whether socat gets it."""
    is_socat = is_file = False
    for token in lex(text).tokens:
        if token.is_operator:
            is_file = token.is_redirection
            is_socat = is_socat and is_file
        elif is_file:
            is_file = False
        else:
            yield text, token, is_socat
            for inner in _lines_in(token.text) if depth else ():
                yield from _walk(inner, depth - 1)
            is_socat = is_socat or token.text.rpartition("/")[2] == "socat"


def _lines_in(word: LexText) -> Iterator[LexText]:
    """The command lines in `word`: those of socat's exec: and system:, else the word itself."""
    is_found = False
    for address in _addresses_in(word):
        for prefix, kind in _PROGRAMS.items():
            if address[: len(prefix)].lower() == prefix:
                is_found = True
                yield _command_of(address, len(prefix), kind)
    if not is_found and any(blank in word for blank in " \t\n"):  # ssh HOST "socat ..."
        yield word


def _addresses_in(word: LexText) -> Iterator[LexText]:
    """Addresses of socat: one, or two separated by !!."""
    at = 0
    while at >= 0:
        end = word.find("!!", at)
        yield word.part(at, len(word) if end < 0 else end)
        at = end + 2 if end >= 0 else -1


def _command_of(address: LexText, at: int, kind: str) -> LexText:
    """The command of an exec: or system:, from `at` up to the options, as socat unquotes it."""
    chars, spots, inside = [], [], ""
    while at < len(address) and (inside or address[at] != ","):
        character, start = address[at], at
        at += 1
        if character == "\\" and inside != "'" and at < len(address):
            at += 1
        elif character in (inside or "'\""):
            inside = "" if inside else character
            continue
        first, last = address.spots[start], address.spots[at - 1]
        chars.append(address[at - 1])
        spots.append((first[0], last[1], (OPAQUE if inside == "'" else kind, *last[2])))
    return LexText("".join(chars), spots)


# -- places ----------------------------------------------------------------------------------------------------------


def find_places(command: str) -> list[tuple[int, int, tuple[str, ...]]]:
    """The places for a command line in `command`: start, end, and their quotings, the innermost first."""
    places = []
    for text, token, _ in _walk(LexText(command)):
        if token.text not in ("-", PLACE):
            continue
        start, end, contexts = token.text.spots[0]
        if token.text == PLACE:
            end = token.text.spots[1][1]
            is_place = OPAQUE not in contexts and end - start == len(PLACE)
        else:
            is_place = token.is_bare and text.strip() == "-" and contexts[1:2] in ((EXEC,), (SYSTEM,))
        if is_place:
            places.append((start, end, contexts))
    return places


def fill_places(command: str, words: list[str]) -> str:
    """`command` with the command line `words` in its places, quoted for the shell and for socat."""
    changes = []
    for start, end, contexts in find_places(command):
        is_word = contexts[0] in ("'", '"')  # whose text is the command line; else the place takes all `words`
        around = contexts if is_word else contexts[1:]
        line = join_words(words, "" if is_word else contexts[1] if len(contexts) > 1 else "")
        for context in around:
            line = quote_for(line, context)
        changes.append((start, end, line))
    return splice(command, changes)


# -- socat's addresses -----------------------------------------------------------------------------------------------


def is_lossy_command(command: str) -> bool:
    """Whether a socat in `command` has an address that can lose bytes."""
    return any(map(_is_lossy_address, _addresses(command)))


def has_tun(command: str) -> bool:
    """Whether a socat in `command` has a network interface, which needs packet boundaries."""
    return any(_name(address) == "tun" for address in _addresses(command))


def with_tun_name(command: str) -> str:
    """`command` with tun-name= in place of device-name= in socat's addresses of network interfaces."""
    changes = []
    for address in _addresses(command):
        if _name(address) not in _INTERFACES:
            continue
        at = address.find(",")
        while at >= 0:
            name = address.part(at + 1, at + 1 + len(OLD_NAME))
            spots = name.spots
            if name.lower() == OLD_NAME and spots[-1][1] - spots[0][0] == len(name):
                changes.append((spots[0][0], spots[-1][1], TUN_NAME))
            at = address.find(",", at + 1)
    return splice(command, changes)


def _name(address: str) -> str:
    return address.partition(",")[0].partition(":")[0].lower()


def _is_lossy_address(address: str) -> bool:
    """For NAME:PARAMETERS,OPTIONS, an address of socat; with a slash, it is a file up to its first comma or colon."""
    address, _, _ = address.partition(",")
    name, _, rest = address.partition(":")
    name = name.lower()
    if name in _FILES or "/" in name:
        path = rest.partition(":")[0] if name in _FILES else address
        return path.startswith(_LINES) and path != "/dev/tty"  # the controlling terminal
    family = name if name in _LOSSY else name[:12] if name.startswith("openssl-dtls") else name.partition("-")[0]
    if family.endswith(("4", "6")):
        family = family[:-1]
    return family in _LOSSY


def _addresses(command: str) -> Iterator[LexText]:
    """The addresses of every socat in `command`."""
    for _, token, is_socat in _walk(LexText(command)):
        if is_socat:
            yield from _addresses_in(token.text)

"""Command lines that carry links: those that start a program for each link, and those that may lose bytes.

A command may *start* the program that speaks (`socat tcp-l:1,fork exec:-`): then it has a place where that program's
command line belongs, a lone dash behind `exec:` or `system:`, or the word `-%` anywhere.

A socat that speaks UDP, raw packets or a serial line loses bytes as these do; its addresses tell.
"""

from __future__ import annotations

from .shell import quote, scan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

STARTS = ("exec:-", "system:-", "shell:-")  # socat's addresses that run a program
PLACE = "-%"
# socat reads exec: twice: as an address, where these end a part of it, and then as words.
_SOCAT = {**{c: "\\" + c for c in ",:!()[]{}"}, **{c: "\\\\\\" + c for c in " '\""}, "\\": "\\" * 4}

# socat's addresses whose bytes may be lost, without what distinguishes their variants (udp4-listen, ip6-sendto).
_LOSSY = frozenset(("udp", "udplite", "ip", "dtls", "openssl-dtls", "interface", "if", "tun"))
_FILES = frozenset(("open", "file", "gopen", "create", "creat"))  # and those that open a file
# Serial lines.  (RFCOMM's ttys are not among them: Bluetooth repeats what was lost.)
_LINES = ("/dev/tty", "/dev/cua", "/dev/cu.", "/dev/serial")
_SEPARATORS = frozenset(";|&")


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


def is_lossy_command(command: str) -> bool:
    """Whether `command` is a socat, however deep in other commands, with an address that may lose bytes."""
    return _has_address(command, _is_lossy_address)


def has_tun(command: str) -> bool:
    """The same with a network interface of its own, whose packets are to stay whole."""
    return _has_address(command, lambda address: address.partition(",")[0].partition(":")[0].lower() == "tun")


def _has_address(command: str, is_it: Callable[[str], bool]) -> bool:
    is_socat = False
    for word in _words(command):
        if word in _SEPARATORS:
            is_socat = False
        elif is_socat:
            if any(is_it(address) for address in word.split("!!")):
                return True
        elif " " in word and _has_address(word, is_it):  # ssh HOST "socat ..."
            return True
        is_socat = is_socat or word.rpartition("/")[2] == "socat"
    return False


def _is_lossy_address(address: str) -> bool:
    """Of socat: NAME:PARAMETERS,OPTIONS; what begins with a slash is a file, as far as its first comma or colon."""
    address, _, _ = address.partition(",")
    name, _, rest = address.partition(":")
    name = name.lower()
    if name in _FILES or "/" in name:
        path = rest.partition(":")[0] if name in _FILES else address
        return path.startswith(_LINES) and path != "/dev/tty"  # which is the terminal that one sits at
    family = name if name in _LOSSY else name[:12] if name.startswith("openssl-dtls") else name.partition("-")[0]
    if family.endswith(("4", "6")):
        family = family[:-1]
    return family in _LOSSY


def _words(line: str) -> list[str]:
    """The words of a command line, without the quotes around them."""
    words, word, is_word = [], "", False
    for character, mark in zip(line, scan(line)[0]):
        if mark == "." and character.isspace():
            words += [word] * is_word
            word, is_word = "", False
        elif mark == "." and character in ";|&":
            words += [word] * is_word + [character]
            word, is_word = "", False
        else:
            is_word = True
            word += "" if character == mark and character in "'\"" else character
    return words + [word] * is_word

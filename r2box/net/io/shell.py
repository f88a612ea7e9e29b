"""What is done to a command line before `/bin/sh -c` gets it, so that it does what its writer meant.

The first word of a line that is a plain program is given its full path: some programs want to be called so (sshd
refuses to run otherwise), and users' PATH often lacks the sbin directories where services live, and the one where r2box
has its names.  Where r2box has no names at all, its tools are called by the file.  A line that is one program takes the
shell's place (exec).  And a line that is no shell command because a quote in it is never closed (echo Hello, I'm bob)
is taken word by word.
"""

from __future__ import annotations

import os
import sys

from ...errors import AddressError
from ...proto.wire.address import check_address
from .words import BLANKS, OPAQUE, TOOLS, lex, quote, splice, this_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .words import Token

SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# Words of the shell's own, some of which are files too and do a little else.
_RESERVED = frozenset("! { } case do done elif else esac fi for if in then until while".split())
_BUILTINS = _RESERVED | frozenset(
    ". : [ alias bg break cd command continue echo eval exec exit export false fc fg getopts hash jobs kill local "
    "printf pwd read readonly return set shift test time times trap true type ulimit umask unalias unset wait".split()
)
_BEFORE_COMMANDS = frozenset("! { do elif else exec if then time until while".split())
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")
BOX = "r2box"
SHELL = "/bin/sh"
LEASH_FD = 9  # of a shell, while it enters itself in a leash
NOT_FOUND = 127  # what a shell says of a program that is not there


def with_full_paths(command: str) -> str:
    """`command` with its first word as a full path, if that word is a program's bare name; and with r2box's own file in
    place of its tools' names, wherever these begin a command and would not be found."""
    lexed = lex(command)
    first = next((token for token in lexed.tokens if token.text != "\n"), None)
    changes = []
    for token in _beginnings(lexed.tokens):
        word = str(token.text)
        if word in _BUILTINS or not (token.is_bare and set(word) <= _PLAIN):
            continue
        path = find_program(word) if token is first else ""
        if not path and word in TOOLS and not (_is_on_path(word) or "PATH=" in command):
            path = find_program(word) or " ".join(map(quote, [*this_command(), *[word] * (word != BOX)]))
        changes += [(token.start, token.end, path)] * bool(path)
    return splice(command, changes)


def find_program(word: str) -> str:
    """The full path of the program `word`; "" if there is none, or only one that would have to be quoted."""
    own = os.path.dirname(os.path.abspath(sys.argv[0]))  # where r2box's other names are, if it is not on PATH
    for folder in [*os.environ.get("PATH", os.defpath).split(os.pathsep), *SYSTEM_PATH, own]:
        path = os.path.join(folder, word)
        if os.path.isabs(path) and set(path) <= _PLAIN | {"/"} and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def _beginnings(tokens: list[Token]) -> Iterator[Token]:
    """The first words of the commands in a line, behind assignments and words such as `if`."""
    is_at_beginning, is_file = True, False
    for number, token in enumerate(tokens):
        follower = tokens[number + 1] if number + 1 < len(tokens) else None
        if token.is_redirection:
            is_file = True
        elif token.is_operator:
            is_at_beginning = True
        elif is_file:
            is_file = False
        elif follower is not None and follower.text == "(":
            is_at_beginning = False  # a function is defined
        elif is_at_beginning:
            if _is_descriptor(token, follower):
                continue
            is_at_beginning = token.text in _BEFORE_COMMANDS or _is_assignment(str(token.text))
            if not is_at_beginning:
                yield token


def _is_descriptor(token: Token, follower: Token | None) -> bool:
    """Whether `token` is the number in front of a redirection (2>file)."""
    return follower is not None and follower.is_redirection and follower.start == token.end and token.text.isdigit()


def _is_assignment(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()


def with_quotes_closed(command: str) -> str:
    """`command`, or, if a quote in it is never closed, its words as they stand.

    The shell would refuse such a line, so nothing that works is changed; where that is not certain, nothing is either.
    """
    lexed = lex(command)
    if not (lexed.open and lexed.is_sure) or "\n" in command:
        return command
    words = command.replace("\t", " ").split(" ")
    return " ".join(quote(word) for word in words if word)


def shell_line(command: str) -> str:
    """What is given to the shell for `command`.

    A single program takes the shell's place: one process less, and signals and statuses are the program's own.
    """
    line = with_full_paths(with_quotes_closed(command)).lstrip(BLANKS + "\n")
    lexed = lex(line)
    words = [token for token in lexed.tokens if token.text != "\n" or not token.is_operator]
    is_one = lexed.is_sure and lexed.tokens[: len(words)] == words and not any(word.is_operator for word in words)
    return f"exec {line}" if line.startswith("/") and is_one else line


def service_name(cmd: str) -> str:
    """The service name that a command gets by default: `/usr/sbin/sshd -i` -> `sshd`.  AddressError if it has none."""
    tokens = lex(cmd).tokens
    first = tokens[0] if tokens else None
    word = str(first.text) if first else ""
    if "://" in word:
        raise AddressError("a scheme:// has no base name")
    if first and (
        first.is_operator
        or any(spot[2][0] == OPAQUE for spot in first.text.spots)
        or _is_descriptor(first, (*tokens, None)[1])
        or _is_assignment(word)
        or word in _RESERVED
    ):
        raise AddressError("its first word is not the plain name of a program")
    return check_address(word.rpartition("/")[2])


def missing_tool(command: str, status: int) -> str:
    """Advice, where `command` has exited with `status` and may not have found a tool of ours; else ""."""
    mentioned = "".join(c if c in _PLAIN else " " for c in command).split()
    word = next((word for word in mentioned if word in TOOLS), "") if status == NOT_FOUND else ""
    return f" (if {word} was not found: r2box --install DIR puts it into DIR, which must be on PATH there)" * bool(word)


def _is_on_path(word: str) -> bool:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(os.path.join(folder, word), os.X_OK) for folder in folders)

"""Command lines as `/bin/sh -c` gets them.

The first word of a line, if it is the plain name of a program, becomes a full path: sshd refuses to run otherwise, and
the PATH of a user often lacks the sbin directories and the directory of r2box's names.  Where r2box is not installed
under these names, its tools are called through its file.  A line that is one program replaces the shell (exec).  A line
with a quote that is never closed (echo Hello, I'm bob) is not valid for the shell and is quoted word by word.
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
# Words that the shell runs itself; some are files too, which behave differently.
_RESERVED = frozenset("! { } case do done elif else esac fi for if in then until while".split())
_BUILTINS = _RESERVED | frozenset(
    ". : [ alias bg break cd command continue echo eval exec exit export false fc fg getopts hash jobs kill local "
    "printf pwd read readonly return set shift test time times trap true type ulimit umask unalias unset wait".split()
)
_BEFORE_COMMANDS = frozenset("! { do elif else exec if then time until while".split())
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")
BOX = "r2box"
SHELL = "/bin/sh"
LEASH_FD = 9  # of a shell while it registers itself with a leash
NOT_FOUND = 127  # status of a shell that does not find a program


def with_full_paths(command: str) -> str:
    """`command` with a full path for its first word, if that is the bare name of a program, and with the file of r2box
    for each of its tools that begins a command and is not on PATH."""
    lexed = lex(command)
    first = next((token for token in lexed.tokens if token.text != "\n"), None)
    changes = []
    for token in _beginnings(lexed.tokens):
        word = str(token.text)
        if word in _BUILTINS or not (token.is_bare and set(word) <= _PLAIN):
            continue
        path = find_program(word, is_plain=True) if token is first else ""
        if not path and word in TOOLS and not (_is_on_path(word) or "PATH=" in command):
            path = find_program(word, is_plain=True) or " ".join(map(quote, [*this_command(), *[word] * (word != BOX)]))
        changes += [(token.start, token.end, path)] * bool(path)
    return splice(command, changes)


def find_program(word: str, is_plain: bool = False) -> str:
    """The executable file for `word`, which is a path, or a name on PATH, in the sbin directories, or beside r2box.

    "" if there is none.  With `is_plain`, only a full path that needs no quotes counts.
    """
    beside = os.path.dirname(os.path.abspath(sys.argv[0]))  # r2box's other names, if they are not on PATH
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), *SYSTEM_PATH, beside]
    for path in [word] if "/" in word else [os.path.join(folder, word) for folder in folders]:
        if is_plain and not (os.path.isabs(path) and set(path) <= _PLAIN | {"/"}):
            continue
        try:
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        except ValueError:  # a NUL
            return ""
    return ""


def _beginnings(tokens: list[Token]) -> Iterator[Token]:
    """The first words of the commands in a line, after assignments and words such as `if`."""
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
    """Whether `token` is the number of a redirection (2>file)."""
    return follower is not None and follower.is_redirection and follower.start == token.end and token.text.isdigit()


def _is_assignment(word: str) -> bool:
    name, equals, _ = word.partition("=")
    return bool(equals) and name.isidentifier()


def with_quotes_closed(command: str) -> str:
    """`command`; if a quote in it is certainly never closed, its words, each quoted.

    The shell would refuse such a line, so no line that works is changed.
    """
    lexed = lex(command)
    if not (lexed.open and lexed.is_sure) or "\n" in command:
        return command
    words = command.replace("\t", " ").split(" ")
    return " ".join(quote(word) for word in words if word)


def shell_line(command: str) -> str:
    """The line that the shell runs for `command`.

    A single program replaces the shell: one process less, and signals reach the program directly.
    """
    line = with_full_paths(with_quotes_closed(command)).lstrip(BLANKS + "\n")
    lexed = lex(line)
    words = [token for token in lexed.tokens if token.text != "\n" or not token.is_operator]
    is_one = lexed.is_sure and lexed.tokens[: len(words)] == words and not any(word.is_operator for word in words)
    return f"exec {line}" if line.startswith("/") and is_one else line


def service_name(cmd: str) -> str:
    """Default service name of a command: `/usr/sbin/sshd -i` -> `sshd`.  AddressError if it has none."""
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
    """Advice for an error, if `command` exited with `status` because a tool of r2box was not found; else ""."""
    mentioned = "".join(c if c in _PLAIN else " " for c in command).split()
    word = next((word for word in mentioned if word in TOOLS), "") if status == NOT_FOUND else ""
    return f" (if {word} was not found: r2box --install DIR puts it into DIR, which must be on PATH there)" * bool(word)


def _is_on_path(word: str) -> bool:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(os.path.join(folder, word), os.X_OK) for folder in folders)

"""What has to be known of the shell's language to give it command lines that do what their writers meant.

A command line goes to `/bin/sh -c`.  Three things are done to it first.  The first word of a line that is a plain
program is given its full path: some programs want to be called so (sshd refuses to run otherwise), and users' PATH
often lacks the sbin directories where services live, and the one where r2box has its names.  A line that is one program
takes the shell's place (exec).  And a line that is no shell command because a quote in it is never closed (echo Hello,
I'm bob) is taken word by word.
"""

from __future__ import annotations

import os
import sys

from ..errors import AddressError
from ..proto.address import check_address

SYSTEM_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# Words that are files too, but that the shell does itself and a little differently.
_BUILTINS = frozenset(
    "alias bg cd command echo false fc fg getopts hash jobs kill printf pwd read test time true type ulimit umask "
    "unalias wait [".split()
)
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-")
_COMPOUND = frozenset(";&|<>(){}\n")  # outside quotes: not one program, as far as can be seen


def scan(line: str) -> tuple[str, str]:
    """How the shell reads each character of `line`: "." as it is, a quote inside such quotes or being one, a backslash
    where it is escaped; and the quote that is still open at the end, or ""."""
    marks: list[str] = []
    quote, escaped = "", False
    for character in line:
        if escaped:
            escaped = False
            marks.append("\\")
        elif character == "\\" and quote != "'":
            escaped = True
            marks.append("\\")
        elif quote:
            marks.append(quote)
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
            marks.append(quote)
        else:
            marks.append(".")
    return "".join(marks), quote


def quote(word: str) -> str:
    """`word` as one word for the shell (POSIX 2.2.2)."""
    if word and set(word) <= _PLAIN | frozenset("/:=@,%"):
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def with_full_path(command: str) -> str:
    """`command` with its first word as a full path, if that word is a program's bare name."""
    word = command.split(None, 1)[0] if command.strip() else ""
    if not word or word in _BUILTINS or not set(word) <= _PLAIN:
        return command
    own = os.path.dirname(os.path.abspath(sys.argv[0]))  # where r2box's other names are, if it is not on PATH
    for folder in [*os.environ.get("PATH", os.defpath).split(os.pathsep), *SYSTEM_PATH, own]:
        path = os.path.join(folder, word)
        if os.path.isabs(path) and set(path) <= _PLAIN | {"/"} and os.path.isfile(path) and os.access(path, os.X_OK):
            return command.replace(word, path, 1)
    return command


def with_quotes_closed(command: str) -> str:
    """`command`, or, if a quote in it is never closed, its words as they stand.

    The shell would refuse such a line, so nothing that works is changed; where a comment or a here-document might hold
    the quote, nothing is changed either.
    """
    if not scan(command)[1] or any(text in command for text in ("\n", "<<", "#")):
        return command
    return " ".join(map(quote, command.split()))


def shell_line(command: str) -> str:
    """What is given to the shell for `command`.

    A single program takes the shell's place: one process less, and signals and statuses are the program's own.
    """
    line = with_full_path(with_quotes_closed(command))
    one = all(character not in _COMPOUND or mark != "." for character, mark in zip(line, scan(line)[0]))
    return f"exec {line}" if line.startswith("/") and one else line


def service_name(cmd: str) -> str:
    """The service name that a command gets by default: `/usr/sbin/sshd -i` -> `sshd`.  AddressError if it has none."""
    word = (cmd.split() or [""])[0]
    if "://" in word:
        raise AddressError("a scheme:// has no base name")
    if set("'\"\\=") & set(word):  # quoted blanks, or an assignment: the shell's first word is another
        raise AddressError("its first word is not the plain name of a program")
    return check_address(word.rpartition("/")[2])

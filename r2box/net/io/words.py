"""Shell lexer: the words of a command line as `sh` reads them, with the position of each of their characters.

    lex           splits a line into words and operators (POSIX 2.3), without expansion
    LexText       text whose characters have positions in the original line, through any number of quotings
    quote         quotes a word for the shell
    this_command  the words that run this r2box

A substitution ($(...), `...`, ${...}) is part of its word and is kept unchanged.  Here-documents are not recognized:
their lines come out as commands.  No text is an error: an open quote extends to the end.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    # Start and end of a character, and its quotings, the innermost first: "" for none, "\\", "'", '"', OPAQUE inside a
    # substitution, or a word of the caller.
    Spot = tuple[int, int, tuple[str, ...]]

BLANKS = " \t"
# The names of r2box, as in `cli.registry`, which this layer may not import.
TOOLS = frozenset("r2 r2box r2d r2dm r2-connect r2-forward r2-lossy r2-serve r2-ssh r2-tunnel iosh ioshd".split())
OPAQUE = "$"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-/:=@,%")
_OPERATORS = tuple(map(frozenset, (";&|<>()\n", ("&&", "||", ";;", "<<", ">>", "<&", ">&", "<>", ">|"), ("<<-",))))
_ESCAPED_IN_DOUBLE = '$`"\\'
_UNSURE = ("'", '"', "\\", "#", "<<", "case")  # in a substitution these have rules that the lexer does not follow


class LexText(str):
    """Text, with the position of each character in `spots`."""

    spots: Sequence[Spot]

    def __new__(cls, text: str, spots: Sequence[Spot] | None = None) -> LexText:
        self = super().__new__(cls, text)
        self.spots = [(at, at + 1, ()) for at in range(len(text))] if spots is None else spots
        return self

    def part(self, start: int, end: int, *contexts: str) -> LexText:
        """A slice, with the quotings `contexts` inside those of this text."""
        return LexText(self[start:end], [(a, b, contexts + quoting) for a, b, quoting in self.spots[start:end]])


class Token:
    """A word, without its quotes, or an operator; `start` and `end` are its position in the text."""

    __slots__ = ("end", "is_operator", "start", "text")

    def __init__(self, text: LexText, start: int, end: int, is_operator: bool = False) -> None:
        self.text, self.start, self.end, self.is_operator = text, start, end, is_operator

    @property
    def is_redirection(self) -> bool:
        """Whether it is an operator before a file or descriptor."""
        return self.is_operator and self.text[0] in "<>"

    @property
    def is_bare(self) -> bool:
        """Whether no character of it is quoted or substituted."""
        return self.end - self.start == len(self.text) and not any(spot[2][:1] != ("",) for spot in self.text.spots)


class Lexed:
    """The `tokens` of a line; `open`: the quote that is never closed, or ""; `is_sure`: sh certainly agrees."""

    __slots__ = ("is_sure", "open", "tokens")

    def __init__(self) -> None:
        self.tokens: list[Token] = []
        self.open = ""
        self.is_sure = True


def lex(line: str) -> Lexed:
    """Split `line` into tokens."""
    text = line if isinstance(line, LexText) else LexText(line)
    lexed = Lexed()
    at, end = 0, len(text)
    while at < end:
        if text[at] in _OPERATORS[0]:
            stop = _operator_end(text, at)
            lexed.tokens.append(Token(text.part(at, stop), at, stop, is_operator=True))
            lexed.is_sure = lexed.is_sure and not text.startswith("<<", at)
            at = stop
        elif text[at] in BLANKS:
            at += 1
        elif text.startswith("\\\n", at):
            at += 2
        elif text[at] == "#":
            newline = text.find("\n", at)
            at = end if newline < 0 else newline
        else:
            at = _Word(text, at, lexed).end
    return lexed


def _operator_end(text: str, at: int) -> int:
    end = at + 1
    while end - at < len(_OPERATORS) and text[at : end + 1] in _OPERATORS[end - at]:
        end += 1
    return end


class _Word:
    """Reads the word at `start`, and adds it to `lexed`; `end` is its end."""

    def __init__(self, text: LexText, start: int, lexed: Lexed) -> None:
        self._text, self._lexed = text, lexed
        self._out: list[str] = []
        self._spots: list[Spot] = []
        at = start
        while at < len(text):
            character = text[at]
            if character in BLANKS or character in _OPERATORS[0]:
                break
            at = self._step(character, at)
        self.end = at
        lexed.tokens.append(Token(LexText("".join(self._out), self._spots), start, at))

    def _add(self, start: int, end: int, context: str) -> int:
        """Add the last character of text[start:end] to the word."""
        first, last = self._text.spots[start], self._text.spots[end - 1]
        self._out.append(self._text[end - 1])
        self._spots.append((first[0], last[1], (context, *last[2])))
        return end

    def _step(self, character: str, at: int) -> int:
        text, lexed = self._text, self._lexed
        if character == "\\":
            if text.startswith("\n", at + 1):
                return at + 2
            return self._add(at, min(at + 2, len(text)), "\\")
        if character == "'":
            close = text.find("'", at + 1)
            for place in range(at + 1, close if close >= 0 else len(text)):
                self._add(place, place + 1, "'")
            lexed.open = "'" if close < 0 else ""
            return len(text) if close < 0 else close + 1
        if character == '"':
            return self._double(at + 1)
        if character == "`" or text.startswith(("$(", "${"), at):
            return self._substituted(at)
        if text.startswith("$'", at):  # bash reads escapes in it, dash does not
            lexed.is_sure = False
        return self._add(at, at + 1, "")

    def _double(self, at: int) -> int:
        text = self._text
        while at < len(text):
            character = text[at]
            if character == '"':
                return at + 1
            if character == "\\" and text[at + 1 : at + 2] == "\n":
                at += 2
            elif character == "\\" and text[at + 1 : at + 2] and text[at + 1] in _ESCAPED_IN_DOUBLE:
                at = self._add(at, at + 2, '"')
            elif character == "`" or text.startswith(("$(", "${"), at):
                at = self._substituted(at)
            else:
                at = self._add(at, at + 1, '"')
        self._lexed.open = self._lexed.open or '"'
        return at

    def _substituted(self, at: int) -> int:
        end, is_closed = substitution_end(self._text, at)
        if not is_closed or any(self._text.find(what, at + 2, end) >= 0 for what in _UNSURE):
            self._lexed.is_sure = False
        for place in range(at, end):
            self._add(place, place + 1, OPAQUE)
        return end


def substitution_end(text: str, at: int) -> tuple[int, bool]:
    """The end of the substitution that begins at `at`, and whether it is closed."""
    waits: list[str] = []  # the characters that close what is open
    tick = -1  # index of a backtick in `waits`: it closes all that is open within it
    while at < len(text):
        character, wait = text[at], waits[-1] if waits else ""
        size = 1
        if wait == "'":
            if character == "'":
                waits.pop()
        elif character == "\\":
            size = 2
        elif character == "`":
            if tick >= 0:
                del waits[tick:]
                tick = -1
            else:
                tick = len(waits)
                waits.append("`")
        elif text.startswith(("$(", "${"), at):
            size = 2
            waits.append(")" if text[at + 1] == "(" else "}")
        elif character == wait:
            waits.pop()
        elif character == '"' or (character == "'" and wait != '"'):
            waits.append(character)
        elif character == "(" and wait in (")", "`"):
            waits.append(")")
        at += size
        if not waits:
            return at, True
    return len(text), False


def quote(word: str) -> str:
    """`word` as one word for the shell (POSIX 2.2.2)."""
    if word and set(word) <= _PLAIN:
        return word
    return "'" + word.replace("'", "'\\''") + "'"


def splice(line: str, changes: list[tuple[int, int, str]]) -> str:
    """`line` with the ranges (start, end) replaced by text; they do not overlap."""
    out, at = [], 0
    for start, end, text in sorted(changes):
        out += [line[at:start], text]
        at = end
    return "".join(out) + line[at:]


def this_command() -> list[str]:
    """The words that run this r2box, independent of PATH."""
    package = __name__.split(".")[0]
    spec = sys.modules[package].__spec__
    archive = getattr(spec.loader, "archive", None) if spec else None
    if archive:
        return [sys.executable, "-IS", os.path.realpath(archive)]  # as the first lines of the archive do
    return [sys.executable, "-m", package]

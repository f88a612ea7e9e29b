"""Command declarations and the command line parser.

A tool declares a `Command` of `Option` and `Argument` records.  `parse` reads a command line as GNU getopt does;
`help`, `manual` and `completion` are generated from the same declaration, so they always agree with the parser.

Every tool imports this module at its start.  It is not argparse, which takes 6 ms to import, and what only help or an
error message needs is imported where it is used.
"""

from __future__ import annotations

from ..errors import UsageError, suggestion

TYPE_CHECKING = False  # `typing` is slow to import
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_DEFAULTS: dict[str, object] = {
    "flag": False, "count": 0, "text": None, "int": None, "float": None, "time": None, "list": (),
}  # fmt: skip


class Option:
    """One option.  `flags` has the short form first, as in ("-s", "--socket").

    `kind` is "flag" (bool), "count" (int, incremented by each use), "text", "int", "float" (a finite number), "time"
    (seconds, in the form of `parse_duration`) or "list" (text, repeatable; a list).  `default` applies unless the
    option is used; help and manual append it as "(default X)".  `dest` is the attribute of the result; by default the
    first long flag, with underscores for dashes.  A `hidden` option is parsed, but not shown.  `choices` lists the
    valid texts, if limited.  `needed` shows the option as mandatory; the tool checks that.  Raises ValueError for an
    unknown kind.
    """

    __slots__ = ("choices", "default", "dest", "flags", "help", "hidden", "kind", "metavar", "needed", "text")

    def __init__(
        self, flags: tuple[str, ...], help: str, metavar: str | None = None, kind: str = "text",
        default: object = None, hidden: bool = False, dest: str | None = None, choices: Sequence[str] = (),
        needed: bool = False,
    ) -> None:
        if kind not in _DEFAULTS:
            raise ValueError(f"{flags[0]}: no such kind of option: {kind}")
        long = next((flag for flag in flags if flag.startswith("--")), flags[0])
        self.flags, self.help, self.kind, self.hidden = flags, help, kind, hidden
        self.dest = dest or long.lstrip("-").replace("-", "_")
        self.default = _DEFAULTS[kind] if default is None else default
        self.choices, self.needed = choices, needed
        self.metavar = "" if kind in ("flag", "count") else metavar or self.dest.upper()
        unit = "s" * (kind == "time")
        self.text = f"{help} (default {default}{unit})" if self.metavar and default not in (None, (), []) else help


class Argument:
    """One positional argument, shown as `name` in capitals; the attribute of the result is `name` in lower case.

    An absent optional argument is None.  `rest` takes all remaining words unparsed, as a list (empty only if not
    `required`).  It starts after the previous argument, or if there is none, at the first word that is not an option.
    With `mixed`, options among its words are parsed.
    """

    __slots__ = ("dest", "help", "mixed", "name", "required", "rest")

    def __init__(
        self, name: str, help: str, required: bool = True, rest: bool = False, mixed: bool = False
    ) -> None:
        self.name, self.help, self.required, self.rest, self.mixed = name.upper(), help, required, rest, mixed
        self.dest = name.lower().replace("-", "_")


VERBOSE = Option(("-v", "--verbose"), "be verbose; -vv: more verbose", kind="count")
QUIET = Option(("-q", "--quiet"), "report errors only", kind="flag")
SOCKET = Option(("-s", "--socket"), "the daemon's control socket", "SOCKET")
USER = Option(("--user",), "create the control socket, then drop privileges and run as USER", "USER[:GROUP]")
BACKGROUND = Option(("--background",), "run in the background; return when the node is ready", kind="flag")
_WAY = "target node or service, hop by hop or joined by /"
TARGET = Option(("-t", "--target"), _WAY, "TARGET", kind="list")
NO_TARGET = Option(("-t", "--target"), _WAY, "TARGET", kind="list", hidden=True)  # where the tool rejects it
WAIT = Option(("--wait",), "wait up to TIME for a daemon", "TIME", kind="time", default=2)
COMMON = (VERBOSE, QUIET, SOCKET, WAIT, TARGET)
WIDE = Option(("-w", "--wide"), "do not truncate lines", kind="flag")
JSON = Option(("--json",), "print JSON, one object per line", kind="flag")
_HELP = Option(("-h", "--help"), "show this help", kind="flag")
STANDARD = (_HELP, Option(("--version",), "show the version", kind="flag"))


class Command:
    """One command.  `name` is a program ("r2d") or a program and its subcommand ("r2 ls"); so is each alias.

    `summary` is one line without a full stop.  `description` is paragraphs separated by blank lines, `examples` are
    (command line, description), `statuses` (exit status, meaning), `seealso` texts such as "r2d(8)".  `json` lists the
    fields of its JSON objects as (field, type, meaning); if there are several kinds of objects, each starts with
    "kind". `environment` and `files` are (name, meaning), `lists` (title, such rows).  `common` adds the options of
    COMMON, and `local` hides --target, which the tool rejects.  -h, --help and --version are always added.  Raises
    ValueError for a flag or an attribute that is declared twice, and for an argument after a `rest`.
    """

    __slots__ = ("aliases", "arguments", "description", "environment", "examples", "files", "json", "lists", "name",
                 "options", "section", "seealso", "shown", "specific", "statuses", "summary")

    def __init__(
        self, name: str, summary: str, arguments: Sequence[Argument] = (), options: Sequence[Option] = (),
        description: str = "", examples: Sequence[tuple[str, str]] = (), statuses: Sequence[tuple[str, str]] = (),
        seealso: Sequence[str] = (), common: bool = True, section: int = 1, aliases: Sequence[str] = (),
        json: Sequence[tuple[str, str, str]] = (), local: bool = False,
        environment: Sequence[tuple[str, str]] = (), files: Sequence[tuple[str, str]] = (),
        lists: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (),
    ) -> None:
        self.name, self.summary, self.arguments, self.specific = name, summary, arguments, options
        self.description, self.examples, self.statuses, self.seealso = description, examples, statuses, seealso
        self.section, self.aliases, self.json = section, aliases, json
        self.environment, self.files, self.lists = environment, files, lists
        usual = (*COMMON[:-1], NO_TARGET if local else TARGET) if common else ()
        self.options: tuple[Option, ...] = (*options, *usual, *STANDARD)
        self.shown = [option for option in self.options if not option.hidden]
        names = [argument.dest for argument in arguments]
        names += [name for option in self.options for name in (option.dest, *option.flags)]
        if len(set(names)) < len(names):
            raise ValueError(f"{name}: declared twice: {sorted(n for n in set(names) if names.count(n) > 1)}")
        if any(argument.rest for argument in arguments[:-1]):
            raise ValueError(f"{name}: no argument can follow one that takes the rest")


class Args:
    """A parsed command line: an attribute for each option and argument of its command.

    `name in args` is whether the command line has it.  Raises AttributeError for an undeclared name.
    """

    __slots__ = ("_given", "_values")

    def __init__(self, defaults: dict[str, Any], given: dict[str, Any] | None = None) -> None:
        self._given = given or {}
        self._values = {**defaults, **self._given}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:  # copy() looks up names before _values exists
            raise AttributeError(f"no option or argument is called {name!r}")
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Args) and self._values == other._values

    def __repr__(self) -> str:
        return f"Args({self._values})"


def parse(command: Command, words: Sequence[str], lead: Args | None = None) -> Args:
    """Parse `words`, the command line without the command's name; `lead` is the result of `parse_leading`.

    Counts are added to those of `lead`, lists appended; a later text or number replaces an earlier one.  As in GNU
    programs, --help and --version end the parsing: later words are not read, and missing or excess arguments are not
    reported.  Raises UsageError.
    """
    given: dict[str, Any] = {}
    for name, value in lead._given.items() if lead is not None else ():
        if name not in [option.dest for option in command.options]:
            raise UsageError(f"{command.name} has no option --{name.replace('_', '-')}")
        given[name] = list(value) if isinstance(value, list) else value
    rest = [place for place, argument in enumerate(command.arguments) if argument.rest and not argument.mixed]
    takes_command = bool(command.arguments) and command.arguments[-1].name == "TRANSPORT"
    advice = " (a command of several words is one argument: put it in quotes)" if takes_command else ""
    plain = _scan(command.options, words, given, rest[0] if rest else len(words) + 1, advice)
    lenient = "help" in given or "version" in given
    for argument in command.arguments:
        if not plain and argument.required and not lenient:
            raise UsageError(f"missing {argument.name}")
        if plain:
            given[argument.dest], plain = (plain, []) if argument.rest else (plain[0], plain[1:])
    if plain and not lenient:
        raise UsageError(f"unexpected argument {plain[0]!r}{advice or _target(command, plain[0])}")
    return Args(_defaults(command.options, command.arguments), given)


def _target(command: Command, word: str) -> str:
    """A hint for an unexpected argument."""
    return f" (to name a node or service, use -t {word})" if TARGET in command.options and word.isprintable() else ""


def parse_leading(options: Sequence[Option], words: Sequence[str]) -> tuple[Args, list[str]]:
    """Parse the options before the first argument; return them and the remaining words.

    `--` ends the options and is dropped.  -h, --help and --version are accepted, and end them too.  Raises UsageError.
    """
    given: dict[str, Any] = {}
    options = (*options, *STANDARD)
    rest = _scan(options, words, given, 0)
    return Args(_defaults(options, ()), given), rest


def _defaults(options: Sequence[Option], arguments: Sequence[Argument]) -> dict[str, Any]:
    values: dict[str, Any] = {argument.dest: [] if argument.rest else None for argument in arguments}
    for option in options:  # lists are copied: callers may change them
        values[option.dest] = list(option.default) if option.kind == "list" else option.default  # type: ignore[call-overload]
    return values


def _scan(
    options: Sequence[Option], words: Sequence[str], given: dict[str, Any], limit: int, advice: str = ""
) -> list[str]:
    """Move options from `words` into `given`, up to argument number `limit`; return the other words.

    With a limit of 0, the first argument ends the options.  `advice` is appended to the error for an unknown option
    that follows an argument.
    """
    index = {flag: option for option in options for flag in option.flags}
    left = list(reversed(words))  # a stack: the next word is the last one
    plain: list[str] = []
    while left and (not plain or len(plain) < limit) and "help" not in given and "version" not in given:
        word = left.pop()
        if word.startswith("-") and word not in ("-", "--"):
            _take(index, word, left, given, advice if plain else "")
        elif word == "--":
            break
        else:
            plain.append(word)
    return plain + left[::-1]


def _take(index: dict[str, Option], word: str, left: list[str], given: dict[str, Any], advice: str) -> None:
    """Store the option in `word`.  A separate value is taken from `left`; the rest of a bundle is pushed there."""
    long = word.startswith("--")
    flag, equals, value = word.partition("=") if long else (word[:2], word[2:], word[2:])
    option = index.get(flag)
    if option is None:
        longs = [known for known, other in index.items() if known.startswith("--") and not other.hidden]
        meant = suggestion(flag if long else "-" + word, longs) if len(word) > 2 else ""  # not for one letter
        raise UsageError(f"unknown option {flag if flag.isprintable() else repr(flag)}{meant or advice}")
    if option.metavar and not equals:
        if not left:
            raise UsageError(f"option {flag} needs {'an' if option.metavar[0] in 'AEIOU' else 'a'} {option.metavar}")
        value = left.pop()
    elif long and equals and not option.metavar:
        raise UsageError(f"option {flag} takes no value")
    _store(option, flag, value, given)
    if value and not option.metavar:
        if value.startswith("-"):  # -v-q: "-" + "-q" would be a long option
            raise UsageError(f"unknown option -- in {word}")
        left.append("-" + value)


def _store(option: Option, flag: str, text: str, given: dict[str, Any]) -> None:
    if option.choices and text not in option.choices:
        names = ", ".join(option.choices)
        raise UsageError(f"option {flag}: {text!r} is not one of {names}{suggestion(text, option.choices)}")
    if option.kind == "flag":
        given[option.dest] = True
    elif option.kind == "count":
        given[option.dest] = given.get(option.dest, 0) + 1
    elif option.kind == "list":
        given.setdefault(option.dest, []).append(text)
    elif option.kind == "text":
        if not text and option is SOCKET:  # as of "$UNSET": never use the default daemon instead
            raise UsageError(f"option {flag}: an empty {option.metavar}")
        given[option.dest] = text
    elif option.kind == "time":
        from ..net.io.units import parse_duration

        try:
            given[option.dest] = parse_duration(text)
        except ValueError as error:
            raise UsageError(f"option {flag}: {error}") from None
    else:
        what, make = ("a whole number", int) if option.kind == "int" else ("a number", float)
        try:
            number = make(text)
        except ValueError:
            number = float("inf")
        # int() and float() also accept blanks, 1_000, non-ASCII digits, nan and inf
        if not (text.isascii() and "_" not in text and text == text.strip() and abs(number) < float("inf")):
            raise UsageError(f"option {flag}: {text!r} is not {what}")
        given[option.dest] = number

"""One declaration of every command: parsing, `--help`, man page and completions all come from it.

A tool declares a `Command` made of `Option` and `Argument` records.  `parse` reads a command line by it the way
GNU programs do, `render_help` and `render_man` describe it, `render_completion` teaches it to a shell.  Nothing
about the command line is written down twice, so the page cannot promise an option that the parser lacks.

This module is imported by every start of every tool, which is why it is not argparse (6 ms of imports) and why
what only a page or an error needs is imported inside the function that needs it.
"""

from __future__ import annotations

from .errors import UsageError

TYPE_CHECKING = False  # as `typing` has it; importing `typing` would cost more than all of the rest
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

_DEFAULTS: dict[str, object] = {"flag": False, "count": 0, "text": None, "int": None, "float": None, "list": ()}
_SHELLS = ("bash", "zsh", "fish")


class Option:
    """One option.  `flags` has the short form first, as in ("-s", "--socket").

    `kind` is "flag" (bool), "count" (int, one more for each use), "text", "int", "float" (a finite number; seconds
    where it is a time) or "list" (text, repeatable; a list).  `default` holds until the option is used; a list that
    is used replaces it, and help and man page append it as "(default X)".  `dest` is the attribute on the result:
    without it the first long flag, dashes within it as underscores.  A `hidden` option works but is never shown.
    Raises ValueError for an unknown kind.
    """

    __slots__ = ("default", "dest", "flags", "help", "hidden", "kind", "metavar", "text")

    def __init__(
        self, flags: tuple[str, ...], help: str, metavar: str | None = None, kind: str = "text",
        default: object = None, hidden: bool = False, dest: str | None = None,
    ) -> None:
        if kind not in _DEFAULTS:
            raise ValueError(f"{flags[0]}: no such kind of option: {kind}")
        long = next((flag for flag in flags if flag.startswith("--")), flags[0])
        self.flags, self.help, self.kind, self.hidden = flags, help, kind, hidden
        self.dest = dest or long.lstrip("-").replace("-", "_")
        self.default = _DEFAULTS[kind] if default is None else default
        self.metavar = "" if kind in ("flag", "count") else metavar or self.dest.upper()
        self.text = f"{help} (default {default})" if self.metavar and default not in (None, (), []) else help


class Argument:
    """One word that is not an option, shown as `name` in capitals and found under it in small letters.

    One that is not required is None when absent.  `rest` takes every remaining word untouched, as a list that may
    be empty unless `required`: nothing in it is read as an option.  It starts right behind the argument before it,
    or, where there is none, at the first word that is not an option.
    """

    __slots__ = ("dest", "help", "name", "required", "rest")

    def __init__(self, name: str, help: str, required: bool = True, rest: bool = False) -> None:
        self.name, self.help, self.required, self.rest = name.upper(), help, required, rest
        self.dest = name.lower().replace("-", "_")


VERBOSE = Option(("-v", "--verbose"), "say more on stderr; -vv says still more", kind="count")
QUIET = Option(("-q", "--quiet"), "say nothing but errors", kind="flag")
SOCKET = Option(("-s", "--socket"), "the daemon's control socket", "SOCKET")
_WAY = "the node or service to talk to; repeated, or joined by /, for each step of the way"
TARGET = Option(("-t", "--target"), _WAY, "TARGET", kind="list")
COMMON = (VERBOSE, QUIET, SOCKET, TARGET)
_HELP = Option(("-h", "--help"), "show this help", kind="flag")
STANDARD = (_HELP, Option(("--version",), "show the version", kind="flag"))


class Command:
    """One command.  `name` is a program ("r2d") or a program and its subcommand ("r2 ls"); so is each alias.

    `summary` is one line without a full stop.  `description` is paragraphs separated by blank lines, `examples` are
    (command line, what it does), `statuses` (exit status, meaning), `seealso` texts such as "r2d(8)".  With `common`
    the options of COMMON are accepted too; -h, --help and --version always are.
    Raises ValueError for a flag or an attribute that is declared twice, and for arguments behind a `rest`.
    """

    __slots__ = ("aliases", "arguments", "description", "examples", "name", "options", "own", "section", "seealso",
                 "shown", "statuses", "summary")

    def __init__(
        self, name: str, summary: str, arguments: Sequence[Argument] = (), options: Sequence[Option] = (),
        description: str = "", examples: Sequence[tuple[str, str]] = (), statuses: Sequence[tuple[str, str]] = (),
        seealso: Sequence[str] = (), common: bool = True, section: int = 1, aliases: Sequence[str] = (),
    ) -> None:
        self.name, self.summary, self.arguments, self.own = name, summary, arguments, options
        self.description, self.examples, self.statuses, self.seealso = description, examples, statuses, seealso
        self.section, self.aliases = section, aliases
        self.options: tuple[Option, ...] = (*options, *(COMMON if common else ()), *STANDARD)
        self.shown = [option for option in self.options if not option.hidden]
        names = [argument.dest for argument in arguments]
        names += [name for option in self.options for name in (option.dest, *option.flags)]
        if len(set(names)) < len(names):
            raise ValueError(f"{name}: declared twice: {sorted(n for n in set(names) if names.count(n) > 1)}")
        if any(argument.rest for argument in arguments[:-1]):
            raise ValueError(f"{name}: nothing can follow an argument that takes the rest")


class Args:
    """What a command line said, as attributes: one for each option and argument of its command, given or not.

    `name in args` tells whether the command line gave it.  Raises AttributeError for what was never declared.
    """

    __slots__ = ("_given", "_values")

    def __init__(self, defaults: dict[str, Any], given: dict[str, Any] | None = None) -> None:
        self._given = given or {}
        self._values = {**defaults, **self._given}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._values:  # copy() asks before there are any _values
            raise AttributeError(f"no option or argument is called {name!r}")
        return self._values[name]

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Args) and self._values == other._values

    def __repr__(self) -> str:
        return f"Args({self._values})"


def closest(word: str, choices: Iterable[str]) -> str:
    """` (did you mean X?)` for the choice most like `word`, or an empty text when none is."""
    from difflib import get_close_matches

    return "".join(f" (did you mean {match}?)" for match in get_close_matches(word, list(choices), 1))


def parse(command: Command, words: Sequence[str], lead: Args | None = None) -> Args:
    """Read `words`, the command line without the command's name; `lead` is what `parse_leading` found before it.

    To a `lead`, counts are added and lists appended; a later text or number takes the place of an earlier one.
    As GNU programs do, it acts on --help and --version where they stand: what comes after is not read, and what
    is missing or too much is not complained about.  Raises UsageError.
    """
    given: dict[str, Any] = {}
    for name, value in lead._given.items() if lead is not None else ():
        if name not in [option.dest for option in command.options]:
            raise UsageError(f"{command.name} has no option --{name.replace('_', '-')}")
        given[name] = list(value) if isinstance(value, list) else value
    rest = [place for place, argument in enumerate(command.arguments) if argument.rest]
    plain = _scan(command.options, words, given, rest[0] if rest else len(words) + 1)
    lenient = "help" in given or "version" in given
    for argument in command.arguments:
        if not plain and argument.required and not lenient:
            raise UsageError(f"missing {argument.name}")
        if plain:
            given[argument.dest], plain = (plain, []) if argument.rest else (plain[0], plain[1:])
    if plain and not lenient:
        raise UsageError(f"unexpected argument {plain[0]!r}")
    return Args(_defaults(command.options, command.arguments), given)


def parse_leading(options: Sequence[Option], words: Sequence[str]) -> tuple[Args, list[str]]:
    """Read the options in front of the first word that is not one; return them and the words from there on.

    `--` ends the options and is dropped; -h, --help and --version are accepted, and end them too.  Raises UsageError.
    """
    given: dict[str, Any] = {}
    options = (*options, *STANDARD)
    rest = _scan(options, words, given, 0)
    return Args(_defaults(options, ()), given), rest


def _defaults(options: Sequence[Option], arguments: Sequence[Argument]) -> dict[str, Any]:
    values: dict[str, Any] = {argument.dest: [] if argument.rest else None for argument in arguments}
    for option in options:  # lists are made anew each time: callers may change theirs
        values[option.dest] = list(option.default) if option.kind == "list" else option.default  # type: ignore[call-overload]
    return values


def _scan(options: Sequence[Option], words: Sequence[str], given: dict[str, Any], limit: int) -> list[str]:
    """Move options from `words` into `given`, up to and with word number `limit` that is not one; return the others.

    With a limit of 0 the first word that is not an option ends them, and no option behind it is looked at.
    """
    index = {flag: option for option in options for flag in option.flags}
    left = list(reversed(words))  # the next word is the last one
    plain: list[str] = []
    while left and (not plain or len(plain) < limit) and "help" not in given and "version" not in given:
        word = left.pop()
        if word.startswith("-") and word not in ("-", "--"):
            _take(index, word, left, given)
        elif word == "--":
            break
        else:
            plain.append(word)
    return plain + left[::-1]


def _take(index: dict[str, Option], word: str, left: list[str], given: dict[str, Any]) -> None:
    """Store the option in `word`; a value that it lacks comes from `left`, and the rest of a bundle goes back there."""
    long = word.startswith("--")
    flag, equals, value = word.partition("=") if long else (word[:2], word[2:], word[2:])
    option = index.get(flag)
    if option is None:
        longs = [known for known, other in index.items() if known.startswith("--") and not other.hidden]
        meant = closest(flag if long else "-" + word, longs)
        raise UsageError(f"unknown option {flag if flag.isprintable() else repr(flag)}{meant}")
    if option.metavar and not equals:
        if not left:
            raise UsageError(f"option {flag} needs {'an' if option.metavar[0] in 'AEIOU' else 'a'} {option.metavar}")
        value = left.pop()
    elif long and equals and not option.metavar:
        raise UsageError(f"option {flag} takes no value")
    _store(option, flag, value, given)
    if value and not option.metavar:
        if value.startswith("-"):  # -v-q: a bundle has no use for a dash, and "-" + "-q" would be something else
            raise UsageError(f"unknown option -- in {word}")
        left.append("-" + value)


def _store(option: Option, flag: str, text: str, given: dict[str, Any]) -> None:
    if option.kind == "flag":
        given[option.dest] = True
    elif option.kind == "count":
        given[option.dest] = given.get(option.dest, 0) + 1
    elif option.kind == "list":
        given.setdefault(option.dest, []).append(text)
    elif option.kind == "text":
        given[option.dest] = text
    else:
        what, make = ("a whole number", int) if option.kind == "int" else ("a number", float)
        try:
            number = make(text)
        except ValueError:
            number = float("inf")
        # int() and float() also take blanks, 1_000, foreign digits, nan and inf, none of which is meant on purpose
        if not (text.isascii() and "_" not in text and text == text.strip() and abs(number) < float("inf")):
            raise UsageError(f"option {flag}: {text!r} is not {what}")
        given[option.dest] = number


def _synopsis(command: Command) -> list[tuple[str, str, bool, bool]]:
    """The parts of a usage line: (flags, metavar, may be left out, may be repeated).  Plain flags share one part."""
    shown = [option for option in command.shown if option not in STANDARD]
    letters = "".join(o.flags[0][1] for o in shown if o.kind == "flag" and len(o.flags[0]) == 2)
    parts = [("-" + letters, "", True, False)] if letters else []
    for option in shown:
        if option.kind != "flag" or len(option.flags[0]) > 2:
            parts.append((option.flags[0], option.metavar, True, option.kind in ("count", "list")))
    return parts + [("", argument.name, not argument.required, argument.rest) for argument in command.arguments]


def render_help(command: Command, commands: Sequence[Command] = ()) -> str:
    """What --help prints, at most 80 columns wide; `commands` are the subcommands to list, if it has any."""
    import textwrap

    def wrap(text: str, start: str = "") -> list[str]:
        made = textwrap.wrap(text, 80, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)
        return made or [start.rstrip()]

    parts = []
    for flag, metavar, optional, repeated in _synopsis(command):
        text = f"{flag} {metavar}".strip().replace(" ", "\xa0")  # a blank that must not become a line break
        parts.append((f"[{text}]" if optional else text) + "..." * repeated)
    lines = [line.replace("\xa0", " ") for line in wrap(" ".join(parts), f"usage: {command.name} ")]
    lines += [f"   or: {alias} ..." for alias in command.aliases]
    lines += ["", *wrap(command.summary[:1].upper() + command.summary[1:] + ".")]
    groups = [[(argument.name, argument.help) for argument in command.arguments]]
    groups += [[(word, sub.summary) for word, sub in _subcommands(command.name, commands)], []]
    for option in command.shown:
        left = " " * 4 * option.flags[0].startswith("--") + ", ".join(option.flags)
        groups[-1] += [(f"{left} {option.metavar}".rstrip(), option.text)] * (option not in STANDARD)
    groups[-1].append(("-h, --help, --version", "show this help, or the version"))
    width = min(max(len(left) for group in groups for left, _ in group), 26)
    for group in groups:
        lines += [""] * bool(group)
        for left, text in group:
            lines += wrap(text, f"  {left:{width}}  ")
    for line, text in command.examples[:1]:
        lines += ["", f"example: {line}", *wrap(text, " " * 9)]
    return "\n".join(lines) + "\n"


def _subcommands(name: str, commands: Iterable[Command]) -> list[tuple[str, Command]]:
    names = [(full.split(), command) for command in commands for full in (command.name, *command.aliases)]
    return [(words[1], command) for words, command in names if words[0] == name and len(words) == 2]


def _roff(text: str, code: bool = False) -> str:
    """`text` as roff prints it unchanged; `code`, as words that are options always are, so that it can be pasted."""
    signs = {"\\": "\\e", '"': "\\(dq", "~": "\\(ti"}
    signs.update({"-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha"} if code else {})
    made = [signs.get(c, c) if c < "\x7f" else f"\\[u{ord(c):04X}]" for c in text]
    for at, c in enumerate(text if not code else ""):
        if c == "-" and (at == 0 or text[at - 1] in " -('/"):
            made[at] = "\\-"
    return "\\&" * text.startswith((".", "'")) + "".join(made)


def _words(text: str) -> str:
    """`text` as the arguments of a macro: `\\&` keeps roff from seeing a macro or punctuation in a short word."""
    return " ".join("\\&" * (len(word) < 4 and not word.isupper()) + _roff(word, True) for word in text.split())


def render_man(command: Command, version: str, date: str, commands: Sequence[Command] = ()) -> str:
    """The page as mdoc(7).  `commands` are the subcommands to list, if any.

    `date` is YYYY-MM-DD; raises ValueError if it is not.
    """
    import datetime
    import re
    import textwrap

    def prose(text: str) -> list[str]:
        sentences = re.split(r"(?<=[.!?])\s+(?=[^a-z])", text.strip())  # mdoc wants each to begin a line
        return [_roff(line) for s in sentences for line in textwrap.wrap(s, 76, break_on_hyphens=False)]

    def listing(rows: Iterable[tuple[str, str]]) -> list[str]:
        return [".Bl -tag -width Ds", *(line for head, text in rows for line in (".It " + head, *prose(text))), ".El"]

    day = datetime.date.fromisoformat(date)
    lines = [f".Dd {day:%B} {day.day}, {day.year}"]
    lines += [f".Dt {command.name.replace(' ', '-').upper()} {command.section}", f".Os r2box {version}", ".Sh NAME"]
    names = [f'.Nm "{_roff(name, True)}"' for name in (command.name, *command.aliases)]
    lines += [*(name + " ," for name in names[:-1]), names[-1], f".Nd {_words(command.summary)}"]
    lines += [".Sh SYNOPSIS", names[0]]
    for flag, metavar, optional, repeated in _synopsis(command):
        text = f"Fl {_roff(flag[1:], True)} " * bool(flag) + f"Ar {_words(metavar)}" * bool(metavar)
        lines.append(f".{'Oo ' * optional}{text.rstrip()}{' Oc' * optional}{' Ns ...' * repeated}")
    description = command.description or command.summary[:1].upper() + command.summary[1:] + "."
    parts = [prose(paragraph) for paragraph in description.split("\n\n")]
    flags = [(" , ".join(f"Fl {_roff(flag[1:], True)}" for flag in o.flags), o) for o in command.shown]
    for title, rows in (
        ("arguments", [(f"Ar {_words(a.name)}", a.help) for a in command.arguments]),
        ("commands", [(f"Cm {_words(word)}", sub.summary) for word, sub in _subcommands(command.name, commands)]),
        ("options", [(left + f" Ar {_words(o.metavar)}" * bool(o.metavar), o.text) for left, o in flags]),
    ):
        parts += [[f"The {title} are:", *listing(rows)]] if rows else []
    for place, part in enumerate(parts):
        lines += [".Pp" if place else ".Sh DESCRIPTION", *part]
    if command.statuses:
        lines += [".Sh EXIT STATUS", *listing([(_words(status), text) for status, text in command.statuses])]
    for place, (line, text) in enumerate(command.examples):
        lines += [".Pp" if place else ".Sh EXAMPLES", *prose(text.rstrip(".") + ":")]
        lines += [".Bd -literal -offset indent", *(_roff(part, True) for part in line.split("\n")), ".Ed"]
    pages = [page.rstrip(")").partition("(") for page in command.seealso]
    pages.sort(key=lambda page: (page[2], page[0]))
    lines += [".Sh SEE ALSO"] * bool(pages)
    lines += [" ,\n".join(f".Xr {_roff(name, True)} {section or 1}" for name, _, section in pages)] * bool(pages)
    return "\n".join(lines) + "\n"


# One function of each script prints the candidates, each with a tab and what it does; the rest fits them to the shell.
# Names that come from the network are never evaluated (as `compgen -W` would), and bash is given none that it would
# have to quote.
_SH = """\
_r2box_candidates() {
    local prev=$1 cur=$2 tool=$3 way; way=(); shift 3
    while (($#)); do
        case $1 in
            -s|--socket|-t|--target) (($# > 1)) && way+=("$1" "${2/#\\~/$HOME}") && shift ;;
            -*) ;;
            *) case $tool in @GROUPS@) tool="$tool $1" ;; esac ;;
        esac
        shift
    done
    case $prev in
        -s|--socket|-f|--file) return ;;
        -t|--target) @LIVE@ "${way[@]}" 2>/dev/null
            [[ $cur == */* ]] && @LIVE@ "${way[@]}" -t "${cur%/*}" 2>/dev/null | sed "s|^|${cur%/*}/|"
            return ;;
    esac
@TABLE@
}
"""
_BASH = """\
_r2box() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} word words=()
    [[ $cur == = ]] && cur=
    [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD-2]}
    [[ $prev == -t || $prev == --target ]] && compopt +o default 2>/dev/null
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do [[ $word != = ]] && words+=("$word"); done
    COMPREPLY=()
    while IFS=$'\\t' read -r word _; do
        [[ $word == "$cur"* && $word != *[!A-Za-z0-9._:=+@/-]* ]] && COMPREPLY+=("$word")
    done < <(_r2box_candidates "$prev" "$cur" "${1##*/}" "${words[@]}")
}
complete -o default -F _r2box @PROGRAMS@
"""
_ZSH = """\
_r2box() {
    local cur=${words[CURRENT]} prev=${words[CURRENT-1]} found
    [[ $cur == --*=* ]] && prev=${cur%%=*} cur=${cur#*=} && compset -P '*='
    found=("${(@f)$(_r2box_candidates "$prev" "$cur" "${words[1]:t}" "${(@)words[2,CURRENT-1]}")}")
    found=("${(@)${(@)found//:/\\\\:}/$'\\t'/:}")
    if [[ -n $found ]]; then _describe r2box found; else _files; fi
}
if [[ ${funcstack[1]} == _r2box ]]; then _r2box "$@"; else compdef _r2box @PROGRAMS@; fi
"""
_FISH = """\
function __r2box
    set -l words (commandline -opc)
    set -l cur (commandline -ct)
    set -l tool (string replace -r '.*/' '' -- $words[1])
    set -l prev $words[-1]
    set -e words[1]
    contains -- $prev -s --socket -t --target; and set -e words[-1]
    argparse -i s/socket= t/target=+ -- $words 2>/dev/null
    if contains -- $prev -t --target
        @LIVE@ -s$_flag_s -t$_flag_t 2>/dev/null
        set -l path (string match -r '^(.*)/' -- $cur)[2]
        and string replace -r '^' $path/ -- (@LIVE@ -s$_flag_s -t$_flag_t -t$path 2>/dev/null)
        return
    end
    set -l command (string match -v -- '-*' $argv)[1]
    contains -- $tool @GROUPS@; and set tool (string join ' ' $tool $command)
    contains -- $prev -s --socket -f --file; or not contains -- $tool @GROUPS@; and __fish_complete_path $cur
@TABLE@
end
for program in @PROGRAMS@; complete -c $program -f -a '(__r2box)'; end
"""


def render_completion(shell: str, commands: Sequence[Command], live: str = "r2 ls") -> str:
    """The completion script for bash, zsh or fish.  Raises UsageError for another shell.

    `live` is the command that prints what can follow in a path, one name per line; it gets the -s and -t typed so
    far, and its errors are not shown.
    """
    if shell not in _SHELLS:
        raise UsageError(f"no completion for shell {shell!r}; there is {', '.join(_SHELLS)}")
    from shlex import quote

    names = [name for command in commands for name in (command.name, *command.aliases)]
    programs = list(dict.fromkeys(name.split()[0] for name in names))
    groups = [program for program in programs if _subcommands(program, commands)]
    table = [([group], [(word, sub.summary) for word, sub in _subcommands(group, commands)]) for group in groups]
    for command in commands:
        flags = [(flag, option.help) for option in command.shown for flag in option.flags]
        table.append(([command.name, *command.aliases], flags))
    between, form = "|", "    case $tool in {}) printf '%s\\n' {} ;; esac"
    if shell == "fish":
        between, form = " ", "    switch $tool; case {}; printf '%s\\n' {}; end"
    lines = []
    for names, rows in table:
        shown = " ".join(quote(f"{word}\t{text}".replace("\\", "")) for word, text in rows)
        lines.append(form.format(between.join(map(quote, names)), shown))
    text = {"bash": _SH + _BASH, "zsh": "#compdef @PROGRAMS@\n" + _SH + _ZSH, "fish": _FISH}[shell]
    text = text.replace("@GROUPS@", between.join(map(quote, groups or [""]))).replace("@TABLE@", "\n".join(lines))
    return text.replace("@PROGRAMS@", " ".join(map(quote, programs))).replace("@LIVE@", live)

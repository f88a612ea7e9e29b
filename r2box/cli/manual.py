"""Manual pages in mdoc(7), generated from the declarations of `command`.

Used by `r2box --man` and by build/pages.py.  `render_man` renders the page of a command; the other public functions
also serve pages that do not describe a command.
"""

from __future__ import annotations

import datetime
import re
import textwrap

from .command import SOCKET, Command, Option
from .help import subcommands, synopsis

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Of all tools that use the control socket.
ENVIRONMENT = (("R2_SOCKET", "the control socket, unless -s is given"),)
FILES = (
    ("/run/r2.sock", "the default control socket of root's daemon"),
    ("/run/user/UID/r2.sock", "the default control socket of other users' daemons"),
    ("$XDG_STATE_HOME/r2/r2.sock", "the same without /run/user/UID; default: ~/.local/state"),
    ("/run/r2/NAME.sock, /run/user/UID/r2/NAME.sock", "sockets of units; used without -s if there is exactly "
                                                      "one: see r2(1)"),
)


# ---- mdoc(7): each function returns lines, or text within a line


def roff(text: str, code: bool = False) -> str:
    """Escape `text` for roff.  With `code`, dashes and quotes are ASCII, so that the output can be pasted."""
    signs = {'\\': "\\e", '"': "\\(dq", "~": "\\(ti"}
    signs.update({"-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha"} if code else {})
    made = [signs.get(c, c) if c < "\x7f" else f"\\[u{ord(c):04X}]" for c in text]
    for at, c in enumerate(text if not code else ""):
        if c == "-" and (at == 0 or text[at - 1] in " -('/"):
            made[at] = "\\-"
    return "\\&" * text.startswith((".", "'")) + "".join(made)


def words(text: str) -> str:
    """Escape `text` as macro arguments.  `\\&` prevents that a short word is read as a macro or punctuation."""
    return " ".join("\\&" * (len(word) < 4 and not word.isupper()) + roff(word, True) for word in text.split())


def prose(text: str) -> list[str]:
    """One paragraph.  In mdoc, each sentence starts on a new line."""
    sentences = re.split(r"(?<=[.!?])\s+(?=[^a-z\s])", text.strip())
    return [roff(line) for s in sentences for line in textwrap.wrap(s, 76, break_on_hyphens=False)]


def listing(rows: Iterable[tuple[str, list[str]]]) -> list[str]:
    """A list of tagged paragraphs: (macros of the tag, lines of the text)."""
    return [".Bl -tag -width Ds", *(line for head, text in rows for line in (".It " + head, *text)), ".El"]


def literal(text: str) -> list[str]:
    """A literal block: lines to type or to put into a file."""
    return [".Bd -literal -offset indent", *(roff(line, True) for line in text.split("\n")), ".Ed"]


def examples(rows: Sequence[tuple[str, str]]) -> list[str]:
    """EXAMPLES: rows of (command line, description)."""
    lines = [".Sh EXAMPLES"] * bool(rows)
    for place, (line, text) in enumerate(rows):
        lines += [*([".Pp"] * bool(place)), *prose(text.rstrip(".") + ":")] if text else []
        lines += literal(line)
    return lines


def see_also(names: Iterable[str]) -> list[str]:
    """SEE ALSO: `names` such as "r2d(8)", in the order of mdoc: by section, then by name."""
    pages = sorted((name.rstrip(")").partition("(") for name in names), key=lambda page: (page[2], page[0]))
    return [".Sh SEE ALSO", " ,\n".join(f".Xr {roff(n, True)} {section or 1}" for n, _, section in pages)] * bool(pages)


def page(title: str, section: int, version: str, date: str, names: Sequence[str], summary: str) -> list[str]:
    """The head of a page that describes `names`.  Raises ValueError if `date` is not YYYY-MM-DD."""
    day = datetime.date.fromisoformat(date)
    lines = [f".Dd {day:%B} {day.day}, {day.year}", f".Dt {title.upper()} {section}", f".Os r2box {version}"]
    shown = [_name(name) for name in names]
    return [*lines, ".Sh NAME", *(name + " ," for name in shown[:-1]), shown[-1], f".Nd {words(summary)}"]


# ---- the page of a command


def render_man(command: Command, version: str, date: str, commands: Sequence[Command] = ()) -> str:
    """The page as mdoc(7).  `commands` are the subcommands; those without a separate page are described here.

    `date` is YYYY-MM-DD; raises ValueError if it is not.
    """
    names = (command.name, *command.aliases)
    lines = page(command.name.replace(" ", "-"), command.section, version, date, names, command.summary)
    lines += [".Sh SYNOPSIS", _name(command.name), *("." + part for part in _usage(command))]
    below = subcommands(command.name, commands)
    parts = _paragraphs(command)
    for title, rows in (
        ("arguments", [(f"Ar {words(a.name)}", prose(a.help)) for a in command.arguments]),
        ("commands", [(f"Cm {words(word)}", _pointer(command, word, sub)) for word, sub in below]),
        ("options", _options(command.shown)),
        *((title, [(f"Cm {words(head)}", prose(text)) for head, text in rows]) for title, rows in command.lists),
    ):
        parts += [[f"The {title} are:", *listing(rows)]] if rows else []
    lines += _section(".Sh DESCRIPTION", parts)
    described = [sub for word, sub in below if sub.name == f"{command.name} {word}"]
    lines += [line for sub in described for line in _subcommand(sub)]
    if command.json:
        lines += [".Sh JSON", *_json(command)]
    is_usual = SOCKET in command.shown
    lines += _definitions("ENVIRONMENT", "Ev", (*(ENVIRONMENT if is_usual else ()), *command.environment))
    lines += _definitions("FILES", "Pa", (*(FILES if is_usual else ()), *command.files))
    if command.statuses:
        lines += [".Sh EXIT STATUS", *listing([(words(status), prose(text)) for status, text in command.statuses])]
    lines += examples([row for each in (command, *described) for row in each.examples])
    return "\n".join(lines + see_also(command.seealso)) + "\n"


def _definitions(title: str, macro: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    items = [(" , ".join(f"{macro} {name}" for name in head.split(", ")), prose(text)) for head, text in rows]
    return [".Sh " + title, *listing(items)] if rows else []


def _name(name: str) -> str:
    return f'.Nm "{roff(name, True)}"'


def _usage(command: Command) -> list[str]:
    """What follows the name in a synopsis, as macros."""
    made = []
    for flag, metavar, optional, repeated in synopsis(command):
        text = f"Fl {roff(flag[1:], True)} " * bool(flag) + f"Ar {words(metavar)}" * bool(metavar)
        made.append(f"{'Oo ' * optional}{text.rstrip()}{' Oc' * optional}{' Ns ...' * repeated}")
    return made


def _paragraphs(command: Command) -> list[list[str]]:
    text = command.description or command.summary[:1].upper() + command.summary[1:] + "."
    return [prose(paragraph) for paragraph in text.split("\n\n")]


def _section(head: str, parts: Sequence[list[str]]) -> list[str]:
    return [line for place, part in enumerate(parts) for line in (".Pp" if place else head, *part)]


def _options(options: Iterable[Option]) -> list[tuple[str, list[str]]]:
    rows = []
    for option in options:
        flags = " , ".join(f"Fl {roff(flag[1:], True)}" for flag in option.flags)
        rows.append((flags + f" Ar {words(option.metavar)}" * bool(option.metavar), prose(option.text)))
    return rows


def _pointer(command: Command, word: str, sub: Command) -> list[str]:
    """A subcommand in the list of all: its summary, and the page that describes it if it is not this one."""
    text = prose(sub.summary)
    if sub.name != f"{command.name} {word}":
        text += [f".Pq see Xr {roff(sub.name, True)} {sub.section}"]
    return text


def _json(command: Command) -> list[str]:
    """The fields of the objects of --json."""
    rows = [(f"Cm {words(field)} Pq {words(kind)}", prose(meaning)) for field, kind, meaning in command.json]
    return [*prose("An object of --json has these fields:"), *listing(rows)]


def _subcommand(sub: Command) -> list[str]:
    """The description of a subcommand without a separate page, less the options that all of them have."""
    bare = Command(sub.name, sub.summary, sub.arguments, sub.specific, common=False)
    parts = [[_name(sub.name), *("." + part for part in _usage(bare))]]
    rows = [(f"Ar {words(a.name)}", prose(a.help)) for a in sub.arguments]
    rows += _options(option for option in sub.specific if not option.hidden)
    parts += _paragraphs(sub)
    parts[-1] += listing(rows) if rows else []
    if sub.json:
        parts.append(_json(sub))
    if sub.statuses:
        statuses = "; ".join(f"{status}, {text}" for status, text in sub.statuses)
        parts.append(prose(f"Exit status: {statuses}."))
    return _section(f".Ss {words(sub.name)}", parts)

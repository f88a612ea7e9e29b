"""--help of a Command; also the synopsis and subcommands for the manual."""

from __future__ import annotations

from .command import STANDARD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .command import Command


SCREEN = 24  # lines


def synopsis(command: Command) -> list[tuple[str, str, bool, bool]]:
    """The items of a usage line: (flags, metavar, is optional, is repeatable).  Short flags share one item."""
    shown = [option for option in command.shown if option not in STANDARD]
    letters = "".join(o.flags[0][1] for o in shown if o.kind == "flag" and len(o.flags[0]) == 2)
    parts = [("-" + letters, "", True, False)] if letters else []
    for option in shown:
        if option.kind != "flag" or len(option.flags[0]) > 2:
            parts.append((option.flags[0], option.metavar, not option.needed, option.kind in ("count", "list")))
    return parts + [("", argument.name, not argument.required, argument.rest) for argument in command.arguments]


def render_help(command: Command, commands: Sequence[Command] = ()) -> str:
    """Render --help, at most 80 columns wide; `commands` are the subcommands to list, if any."""
    import textwrap

    def wrap(text: str, start: str = "") -> list[str]:
        made = textwrap.wrap(text, 80, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)
        return made or [start.rstrip()]

    parts = []
    for flag, metavar, optional, repeated in synopsis(command):
        text = f"{flag} {metavar}".strip().replace(" ", "\xa0")  # no line break there
        parts.append((f"[{text}]" if optional else text) + "..." * repeated)
    lines = wrap(" ".join(parts), f"usage: {command.name} ")
    if len(lines) > 2:  # options are listed below
        names = parts[len(parts) - len(command.arguments) :]
        lines = wrap(" ".join(["[OPTION]...", *names]), f"usage: {command.name} ")
    lines = [line.replace("\xa0", " ") for line in lines]
    lines[-1] += "".join(f"    or: {alias} ..." for alias in command.aliases)
    lines += ["", *wrap(command.summary[:1].upper() + command.summary[1:] + ".")]
    groups = [[(argument.name, argument.help) for argument in command.arguments if not commands]]
    groups += [[(word, sub.summary) for word, sub in subcommands(command.name, commands)], []]
    for option in command.shown:
        left = " " * 4 * option.flags[0].startswith("--") + ", ".join(option.flags)
        groups[-1] += [(f"{left} {option.metavar}".rstrip(), option.text)] * (option not in STANDARD)
    groups[-1].append(("-h, --help, --version", "show this help, or the version"))
    width = min(max(len(left) for group in groups for left, _ in group), 26)
    for group in groups:
        lines += [""] * bool(group)
        for left, text in group:
            lines += wrap(text, f"  {left:{width}}  ")
    if len(lines) > SCREEN - 2:  # no room for the example
        lines = lines[:2] + [line for line in lines[2:] if line]
    for line, text in command.examples[:1]:
        lines += [""] * (len(lines) < SCREEN - 1)
        both = f"example: {line}    {text}"
        lines += [both] if len(both) <= 80 else [f"example: {line}", *wrap(text, " " * 9)]
    return "\n".join(lines) + "\n"


def subcommands(name: str, commands: Iterable[Command]) -> list[tuple[str, Command]]:
    names = [(full.split(), command) for command in commands for full in (command.name, *command.aliases)]
    return [(words[1], command) for words, command in names if words[0] == name and len(words) == 2]

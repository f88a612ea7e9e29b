"""Manual pages in the archive: those of the tools, which are generated, and those that are files."""

from __future__ import annotations

import os

from ..errors import R2Error, UsageError, suggestion
from ..version import __version__
from .registry import TOOLS, WORDS, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .command import Command

TEXTS = {"r2.toml": 5, "r2-examples": 7, "r2-host": 7, "r2-protocol": 7}  # in man/, with their sections


def names(sections: bool = False) -> list[str]:
    """The names of all pages.  With `sections`, as `r2d(8)`, without commands that another page describes."""
    if not sections:
        return ["r2box", *TOOLS, *(f"r2-{word}" for word in WORDS if f"r2-{word}" not in TOOLS), *TEXTS]
    tools = [f"{name}({load(place)[0].section})" for name, place in TOOLS.items()]
    return ["r2box(1)", *tools, *(f"{name}({section})" for name, section in TEXTS.items())]


def render(wanted: str, box: Command, date: str) -> str:
    """Render the page `wanted` as mdoc(7); `box` is the command of r2box itself, `date` that of the last change.

    `wanted` has a form such as `r2d`, `ls`, `r2 ls`, `r2.toml`, `r2.toml.5`, `r2.toml(5)` or `5 r2.toml`.  UsageError
    if there is no such page, or it is in another section.
    """
    name, section = _split(wanted)
    if name in TEXTS:
        found = TEXTS[name]
        text = _read(f"{name}.{found}") if section in ("", str(found)) else ""
    else:
        place = TOOLS.get(name) or WORDS.get(name.partition("-")[2] if name.startswith("r2-") else "")
        command = load(place)[0] if place else box
        found = command.section
        text = _render(command, date) if section in ("", str(found)) else ""
    if not text:
        raise UsageError(f"--man {wanted}: {name} is in section {found}")
    return text


def _render(command: Command, date: str) -> str:
    from .manual import render_man

    subcommands = [load(place)[0] for place in WORDS.values()] if command.name == "r2" else []
    return render_man(command, __version__, date, subcommands)


def _split(wanted: str) -> tuple[str, str]:
    """Return the name of an existing page, and the section that was given, if any."""
    text, section = wanted.strip(), ""
    if text[:1].isdigit() and text[1:2] == " ":
        section, _, text = text.partition(" ")
    elif text.endswith(")") and "(" in text:
        text, _, section = text[:-1].rpartition("(")
    elif text[-2:-1] == "." and text[-1:].isdigit():
        text, _, section = text.rpartition(".")
    name = "-".join(text.split())
    known = names()
    for guess in (name, f"r2-{name}", f"r2.{name}"):
        if guess in known:
            return guess, section
    there = ", ".join(names(sections=True))
    raise UsageError(f"--man {wanted}: no such page{suggestion(name, known)}; pages are {there}")


def _read(file: str) -> str:
    """Read man/`file` in the archive, beside the package, or in a checkout one folder up."""
    import sys

    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    loader = getattr(sys.modules["r2box"], "__loader__", None)
    for path in (os.path.join(folder, "man", file), os.path.join(os.path.dirname(folder), "man", file)):
        try:
            data: bytes = loader.get_data(path)  # type: ignore[union-attr]
        except (OSError, AttributeError):
            continue
        return data.decode()
    raise R2Error(f"{file}: this r2box is installed without its manual")

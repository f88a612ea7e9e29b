"""What r2box does under its own name: list, install and describe the tools."""

from __future__ import annotations

import os
import sys

from . import __version__
from .errors import OK, USAGE, R2Error, UsageError
from .index import TOOLS, WORDS, all_commands, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAN_DATE = "2026-11-25"  # of the last change to a manual page

USAGE_TEXT = """\
usage: r2box TOOL [ARGUMENT]...
       r2box --list | --install DIR [--force] | --man TOOL | --completion SHELL | --version

Programs joined to programs, on one machine and across many.  TOOL is one of
  {tools}
or r2box is called by the name of a tool (a symlink).

  --list              the names of all tools
  --install DIR       put r2box and a symlink for every tool into DIR
  --force             replace a foreign file of the same name too
  --man TOOL          the tool's manual page, for: r2box --man r2d | man -l -
  --completion SHELL  a completion script for bash, zsh or fish
  --help, --version   this text; the version

For the options of a tool: TOOL --help.  Example: r2box r2d alice
"""


def main(words: list[str]) -> int:
    """Act on the command line `words` of r2box itself."""
    usage = USAGE_TEXT.format(tools=" ".join(TOOLS))
    if not words:
        print(usage, end="", file=sys.stderr)
        return USAGE
    option, values = words[0], words[1:]
    if option in ("-h", "--help"):
        print(usage, end="")
    elif option == "--version":
        print(f"r2box {__version__}")
    elif option == "--list":
        print("\n".join(TOOLS))
    elif option in _WITH_ONE:
        force = "--force" in values
        values = [value for value in values if value != "--force"]
        if len(values) != 1:
            raise UsageError(f"{option} needs one {_WITH_ONE[option][0]}")
        return _WITH_ONE[option][1](values[0], force)
    else:
        from .command import closest

        raise UsageError(f"{option}: no such tool or option{closest(option, [*TOOLS, *_WITH_ONE])}")
    return OK


def _install(folder: str, force: bool) -> int:
    """Copy this file to `folder` and link every tool's name to it; names that are not ours are left alone."""
    from .net.connector import own_command

    source = own_command()[-1]
    if not os.path.isfile(source):
        raise R2Error("--install: this r2box is not one file; build it first (make)")
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, "r2box")
    if not (os.path.exists(target) and os.path.samefile(source, target)):
        import shutil

        shutil.copyfile(source, target + ".new")
        os.chmod(target + ".new", 0o755)
        os.replace(target + ".new", target)
    print(target)
    for name in TOOLS:
        path = os.path.join(folder, name)
        if os.path.lexists(path) and not force and os.path.realpath(path) != os.path.realpath(target):
            way = f"--force replaces it; r2box {name} works without"
            print(f"r2box: {path}: left alone: it is not r2box's ({way})", file=sys.stderr)
            continue
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink("r2box", path)
        print(f"{path} -> r2box")
    return OK


def _man(name: str, force: bool) -> int:
    from .manual import render_man

    place = TOOLS.get(name) or WORDS.get(name.removeprefix("r2-") if sys.version_info >= (3, 9) else name)
    if place is None:
        raise UsageError(f"--man {name}: no such tool; there are {', '.join(TOOLS)}")
    subcommands = [load(word)[0] for word in WORDS.values()] if name == "r2" else []
    print(render_man(load(place)[0], __version__, MAN_DATE, subcommands), end="")
    return OK


def _completion(shell: str, force: bool) -> int:
    from .manual import render_completion

    print(render_completion(shell, all_commands()), end="")
    return OK


_WITH_ONE: dict[str, tuple[str, Callable[[str, bool], int]]] = {
    "--install": ("DIR", _install),
    "--man": ("TOOL", _man),
    "--completion": ("SHELL", _completion),
}

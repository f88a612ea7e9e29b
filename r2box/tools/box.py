"""r2box: list, install and describe the tools."""

from __future__ import annotations

import os
import sys

from ..cli import completion
from ..cli.command import Argument, Command, Option, parse
from ..cli.completion import SCRIPTS
from ..cli.help import render_help
from ..cli.registry import TOOLS, WORDS
from ..errors import OK, USAGE, R2Error, UsageError, suggestion
from ..version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAN_DATE = "2026-11-25"  # of the last change to a manual page

BOX = Command(
    "r2box",
    "connect programs, on one machine and across many",
    arguments=[
        Argument("TOOL", f"one of {' '.join(TOOLS)}, or a command of r2, such as ls or connect", required=False),
        Argument("ARGUMENT", "arguments of the tool; see TOOL --help", required=False, rest=True),
    ],
    options=[
        Option(("--list",), "print the names of all tools", kind="flag"),
        Option(("--install",), "copy r2box into DIR and put a symlink for every tool beside it", "DIR"),
        Option(("--force",), "with --install: replace files of other programs", kind="flag"),
        Option(("--man",), "print a manual page as mdoc(7): of a tool or command, or r2.toml, r2-examples, r2-host, "
               "r2-protocol", "PAGE"),
        Option(("--completion",), "print a completion script for bash, zsh or fish", "SHELL", choices=[*SCRIPTS]),
    ],
    description=(
        "r2box connects programs on one machine, and programs on machines far apart.  r2d(8) runs a node, and "
        "r2dm(8) runs one from a file; r2-connect(1) links two nodes over any transport; r2-serve(1) offers a "
        "program as a service; r2-tunnel(1) connects a program to a service, through as many nodes as it "
        "takes.\n\n"
        "All tools are one file.  It runs the tool whose name it is called by (a symlink), or TOOL, its first "
        "argument.  It requires Python 3.9 or newer and nothing else.\n\n"
        "--install leaves a file alone that has the name of a tool and belongs to another program, such as the "
        "r2 of radare2, and reports it; the exit status is still 0, since all other tools are installed."
    ),
    examples=[
        ("r2box --install ~/.local/bin", "install all tools in a directory on PATH"),
        ("r2box r2d alice", "run a tool without a symlink"),
        ("r2box ls", "the same as r2 ls, without a symlink"),
        ("r2box --man r2d | man -l -", "read a page that is not installed"),
        ("r2box --man 7 r2-protocol | man -l -", "the same, with the section"),
        ("r2box --completion bash >~/.local/share/bash-completion/completions/r2", "complete r2 in bash"),
    ],
    statuses=[("0", "done"), ("1", "failed"), ("2", "wrong usage"), ("the tool's", "if one was run")],
    seealso=["r2(1)", "r2-connect(1)", "r2-tunnel(1)", "r2-serve(1)", "r2-ssh(1)", "r2-forward(1)", "r2-lossy(1)",
             "iosh(1)", "r2d(8)", "r2dm(8)", "r2.toml(5)", "r2-examples(7)", "r2-protocol(7)", "r2-host(7)"],
    common=False,
)


def main(words: list[str]) -> int:
    """Run the command line `words` of r2box itself."""
    if words[:1] == ["--complete"]:  # used by the completion scripts only
        return completion.main(BOX, words[1:])
    args = parse(BOX, words)
    page = f"{args.man} {args.tool}" if "man" in args and args.tool is not None else args.man
    if args.tool is not None and page == args.man:
        known = [*TOOLS, *(word for word in WORDS if f"r2-{word}" not in TOOLS)]
        raise UsageError(f"{args.tool}: no such tool{suggestion(args.tool, known)}; there are {', '.join(known)}")
    given = [name for name in _ACTIONS if name in args]
    if args.help or not given:
        print(render_help(BOX), end="", file=sys.stdout if args.help else sys.stderr)
        return OK if args.help else USAGE
    if len(given) > 1:
        raise UsageError(f"--{given[0]} and --{given[1]} are mutually exclusive")
    return _ACTIONS[given[0]](page if given[0] == "man" else getattr(args, given[0]), args.force)


def _version(_: bool, force: bool) -> int:
    print(f"r2box {__version__}")
    return OK


def _list(_: bool, force: bool) -> int:
    print("\n".join(TOOLS))
    return OK


def _install(folder: str, force: bool) -> int:
    """Copy this file to `folder`, and create a symlink for each tool.  Files of other programs are left alone."""
    from ..net.io.words import this_command

    source = this_command()[-1]
    if not os.path.isfile(source):
        raise R2Error("--install: this r2box is not a single file; build it first (make)")
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, "r2box")
    if not (os.path.exists(target) and os.path.samefile(source, target)):
        _copy(source, target)
    print(target)
    for name in TOOLS:
        path = os.path.join(folder, name)
        if os.path.lexists(path) and not force and os.path.realpath(path) != os.path.realpath(target):
            advice = f"use --force to replace it, or run r2box {name}"
            print(f"r2box: {path}: left alone: it belongs to another program ({advice})", file=sys.stderr)
            continue
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink("r2box", path)
        print(f"{path} -> r2box")
    return OK


def _copy(source: str, target: str) -> None:
    """Replace `target` atomically; remove a partial copy, as on a full disk.  Raises R2Error."""
    import contextlib
    import shutil

    new = target + ".new"
    try:
        shutil.copyfile(source, new)
        os.chmod(new, 0o755)
        os.replace(new, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise R2Error(f"{target}: {error.strerror}") from None  # shutil names the source


def _man(name: str, force: bool) -> int:
    from ..cli.pages import render

    print(render(name, BOX, MAN_DATE), end="")
    return OK


def _completion(shell: str, force: bool) -> int:
    print(completion.script(shell), end="")
    return OK


_ACTIONS: dict[str, Callable[[Any, bool], int]] = {
    "version": _version,
    "list": _list,
    "install": _install,
    "man": _man,
    "completion": _completion,
}

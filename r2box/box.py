"""Dispatcher: selects a tool, parses its command line, and runs it.

The tool is selected by the name of the program (a symlink), or for r2box by its first argument.  `r2 WORD` is a command
of r2 or the tool r2-WORD; `r2box WORD` is the same.  A tool is a module with a `Command` and a function that maps its
arguments to an exit status; only the module of the selected tool is imported.
"""

from __future__ import annotations

import os
import sys

from .cli.registry import TOOLS, WORDS, load, resolve
from .errors import BROKEN_PIPE, OK, USAGE, R2Error, UsageError, suggestion
from .version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .cli.command import Args, Command

def entry() -> int:
    """Run as a program; return the exit status."""
    return main(sys.argv)


def main(argv: list[str]) -> int:
    """Run the tool that `argv` names and return its exit status."""
    _open_standard_descriptors()
    name = os.path.basename(argv[0]) if argv else ""
    words = argv[1:]
    if name not in TOOLS:
        name, words = resolve(words)
        if not name:
            from .tools import box

            return _guarded("r2box", lambda: box.main(words))
    return _guarded(name, lambda: _run(name, words))


def _open_standard_descriptors() -> None:
    """Open 0, 1 and 2 at /dev/null where they are closed, so that no socket gets one of these numbers.

    Data of a tunnel to a closed stdout is discarded; printing there fails.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:  # it was closed when Python started
            fd = os.open(os.devnull, mode)
            setattr(sys, name, open(fd, "w", encoding="utf-8"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="replace")  # the encoding may lack characters of a peer's names


def _guarded(name: str, run: Callable[[], int]) -> int:
    """Call run(); report an error as `TOOL: what: why` and return its exit status."""
    from .net.io.signals import prepare

    prepare()
    try:
        return _flushed(run())
    except R2Error as error:
        lines = str(error).splitlines() + ["see --help"] * isinstance(error, UsageError)
        _complain(getattr(error, "tool", name), lines)
        try:
            sys.stdout.flush()
        except OSError:
            _forget_stdout()  # the first error counts
        return error.status
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _complain(getattr(error, "tool", name), [f"{where}{error.strerror or error}"])
        _forget_stdout()
        return 1


def _forget_stdout() -> None:
    """Redirect stdout to /dev/null: Python would fail again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _flushed(status: int) -> int:
    """Flush stdout; return `status`.  OSError names stdout."""
    try:
        sys.stdout.flush()
    except OSError as error:
        error.filename = "stdout"
        raise
    return status


def _complain(name: str, lines: list[str]) -> None:
    from .net.io.log import ERROR, prefix, printable

    for line in lines:
        print(f"{prefix(name, ERROR)}{printable(line)}", file=sys.stderr)


def _run(name: str, words: list[str]) -> int:
    from .cli.command import COMMON, parse, parse_leading

    lead = None
    place = TOOLS[name]
    if name == "r2":
        lead, words = parse_leading(COMMON, words)  # r2 itself has no other options
        if lead.help or lead.version or not words:
            return _show(load(place)[0], lead, missing=not (lead.help or lead.version))
        word, words = words[0], words[1:]
        if word not in WORDS:
            raise UsageError(f"{word}: no such command{suggestion(word, WORDS)}; there are {', '.join(WORDS)}")
        place = WORDS[word]
        name = f"r2-{word}"
    command, run = load(place)
    try:
        flags = [flag for option in command.options for flag in option.flags if flag.startswith("--")]
        if command.arguments and command.arguments[0].rest and not (words and words[0] in flags):
            words = ["--", *words]  # all are arguments of the program that the tool runs
        args = parse(command, words, lead)
        if args.help or args.version:
            from .cli.help import render_help

            print(render_help(command) if args.help else f"{name} (r2box) {__version__}\n", end="")
            return _flushed(OK)
        return _flushed(run(args))
    except (R2Error, OSError) as error:
        error.tool = name  # type: ignore[union-attr]
        raise


def _show(command: Command, args: Args, missing: bool) -> int:
    """Print the help or version of r2 itself; the help to stderr if the command is missing."""
    from .cli.help import render_help

    if args.version:
        print(f"r2 (r2box) {__version__}")
        return OK
    subcommands = [load(place)[0] for place in WORDS.values()]
    print(render_help(command, subcommands), end="", file=sys.stderr if missing else sys.stdout)
    return USAGE if missing else OK

"""The box: finds out which tool it is called as, reads its command line, and runs it.

The name it was called by (a symlink) says which; called as r2box, the first word does.  `r2 WORD` is r2's own, or the
tool r2-WORD; `r2box WORD` is the same.  Every tool is a module with a `Command` and a function from its arguments to an
exit status; only the module that is called for is imported.
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
    """Run as a program: the exit status for sys.exit."""
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
    """Whoever closed 0, 1 or 2 for us must not find a socket of ours there.

    A tunnel throws away what would go to a closed stdout; what is printed there fails.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:  # Python has noticed too
            fd = os.open(os.devnull, mode)
            setattr(sys, name, open(fd, "w", encoding="utf-8"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="replace")  # a peer's names may be more than the terminal can show


def _guarded(name: str, run: Callable[[], int]) -> int:
    """run(), with what goes wrong as `TOOL: what: why` and the right exit status."""
    from .net.io.signals import prepare

    prepare()
    try:
        return _flushed(run())
    except R2Error as error:
        lines = str(error).splitlines() + ["--help shows what is possible"] * isinstance(error, UsageError)
        _complain(getattr(error, "tool", name), lines)
        try:
            sys.stdout.flush()
        except OSError:
            _forget_stdout()  # the error that was said first counts
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
    """Or Python fails again when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _flushed(status: int) -> int:
    """`status`, once stdout has taken all that was printed."""
    try:
        sys.stdout.flush()
    except OSError as error:
        error.filename = "stdout"
        raise
    return status


def _complain(name: str, lines: list[str]) -> None:
    from .net.io.log import ERROR, lead, printable

    for line in lines:
        print(f"{lead(name, ERROR)}{printable(line)}", file=sys.stderr)


def _run(name: str, words: list[str]) -> int:
    from .cli.command import COMMON, parse, parse_leading

    lead = None
    place = TOOLS[name]
    if name == "r2":
        lead, words = parse_leading(COMMON, words)  # which are all that r2 itself has
        if lead.help or lead.version or not words:
            return _show(load(place)[0], lead, missing=not (lead.help or lead.version))
        word, words = words[0], words[1:]
        if word not in WORDS:
            raise UsageError(f"{word}: no such command{suggestion(word, WORDS)}; there are {', '.join(WORDS)}")
        place = WORDS[word]
        name = f"r2-{word}"
    command, run = load(place)
    try:
        box = [flag for option in command.options for flag in option.flags if flag.startswith("--")]
        if command.arguments and command.arguments[0].rest and not (words and words[0] in box):
            words = ["--", *words]  # all of them belong to the program behind the tool
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
    """The help or version of r2 itself; the help on stderr if a command is missing."""
    from .cli.help import render_help

    if args.version:
        print(f"r2 (r2box) {__version__}")
        return OK
    subcommands = [load(place)[0] for place in WORDS.values()]
    print(render_help(command, subcommands), end="", file=sys.stderr if missing else sys.stdout)
    return USAGE if missing else OK

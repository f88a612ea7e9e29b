"""The box: finds out which tool it is called as, reads its command line, and runs it.

The name it was called by (a symlink) says which; called as r2box, the first word does.  `r2 WORD` is r2's own, or the
tool r2-WORD.  Every tool is a module with a `Command` and a function from its arguments to an exit status; only the
module that is called for is imported.
"""

from __future__ import annotations

import os
import sys

from . import __version__
from .errors import OK, SIGNALLED, USAGE, R2Error, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .command import Args, Command

    Main = Callable[[Args], int]

# name: module in tools, the Command there, the function there
TOOLS: dict[str, tuple[str, str, str]] = {
    "r2d": ("r2d", "COMMAND", "main"),
    "r2dm": ("manager", "COMMAND", "main"),
    "r2": ("r2", "R2", ""),
    "r2-connect": ("connect", "COMMAND", "main"),
    "r2-tunnel": ("tunnel", "COMMAND", "main"),
    "r2-serve": ("serve", "COMMAND", "main"),
    "r2-ssh": ("ssh", "COMMAND", "main"),
    "r2-lossy": ("lossy", "COMMAND", "main"),
}
# r2 WORD
WORDS: dict[str, tuple[str, str, str]] = {
    "ls": ("r2", "LS", "main_ls"),
    "ping": ("r2", "PING", "main_ping"),
    "trace": ("r2", "TRACE", "main_trace"),
    "status": ("status", "STATUS", "main"),
    "top": ("top", "TOP", "main"),
    "connect": TOOLS["r2-connect"],
    "tunnel": TOOLS["r2-tunnel"],
    "serve": TOOLS["r2-serve"],
}

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


def load(place: tuple[str, str, str]) -> tuple[Command, Main]:
    """The Command and the function at `place`, an entry of TOOLS or WORDS."""
    module_name, command, function = place
    # Not importlib: it costs a quarter of the start-up time.
    module = __import__(f"{__package__}.tools.{module_name}", fromlist=["*"])
    return getattr(module, command), getattr(module, function or "main", lambda args: OK)


def all_commands() -> list[Command]:
    """Every Command of the box, in the order of the manual."""
    places = list(dict.fromkeys([*TOOLS.values(), *WORDS.values()]))
    return [load(place)[0] for place in places]


def entry() -> int:
    """Run as a program: the exit status for sys.exit."""
    return main(sys.argv)


def main(argv: list[str]) -> int:
    """Run the tool that `argv` names and return its exit status."""
    _open_standard_descriptors()
    name = os.path.basename(argv[0]) if argv else ""
    words = argv[1:]
    if name not in TOOLS:
        name = next((tool for word in words[:1] for tool in (word, f"r2-{word}") if tool in TOOLS), "")
        if not name:
            return _guarded("r2box", lambda: _box(words))
        words = words[1:]
    return _guarded(name, lambda: _run(name, words))


def _open_standard_descriptors() -> None:
    """Whoever closed 0, 1 or 2 for us must not find a socket of ours there."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # Python has noticed too
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors="replace")  # a peer's names may be more than the terminal can show


def _guarded(name: str, run: Callable[[], int]) -> int:
    """run(), with what goes wrong as `TOOL: what: why` and the right exit status."""
    import signal

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would take the children's statuses away
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as every other program dies of it; tools that wait for it say so
    try:
        status = run()
        sys.stdout.flush()
        return status
    except R2Error as error:
        for line in str(error).splitlines():
            print(f"{getattr(error, 'tool', name)}: {line}", file=sys.stderr)
        if isinstance(error, UsageError):
            print(f"{getattr(error, 'tool', name)}: --help shows what is possible", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python fails again when it flushes at its end
        return SIGNALLED + signal.SIGPIPE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"{name}: {where}{error.strerror or error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def _run(name: str, words: list[str]) -> int:
    from .command import COMMON, parse, parse_leading, render_help

    lead = None
    place = TOOLS[name]
    if name == "r2":
        lead, words = parse_leading(COMMON, words)  # which are all that r2 itself has
        if lead.help or lead.version or not words:
            return _show(load(place)[0], lead, missing=not (lead.help or lead.version))
        word, words = words[0], words[1:]
        if word not in WORDS:
            from .command import closest

            raise UsageError(f"{word}: no such command{closest(word, WORDS)}; there are {', '.join(WORDS)}")
        place = WORDS[word]
        name = f"r2-{word}"
    command, run = load(place)
    try:
        if command.arguments and command.arguments[0].rest and words[:1] not in (["--help"], ["--version"]):
            words = ["--", *words]  # all of them belong to the program behind the tool
        args = parse(command, words, lead)
        if args.help or args.version:
            print(render_help(command) if args.help else f"{name} (r2box) {__version__}\n", end="")
            return OK
        return run(args)
    except R2Error as error:
        error.tool = name  # type: ignore[attr-defined]
        raise


def _show(command: Command, args: Args, missing: bool) -> int:
    """The help or version of r2 itself; the help on stderr if a command is missing."""
    from .command import render_help

    if args.version:
        print(f"r2 (r2box) {__version__}")
        return OK
    subcommands = [load(place)[0] for place in WORDS.values()]
    print(render_help(command, subcommands), end="", file=sys.stderr if missing else sys.stdout)
    return USAGE if missing else OK


# -- r2box's own options ----------------------------------------------------------------------------------------------


def _box(words: list[str]) -> int:
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
            print(f"r2box: {path}: left alone: it is not r2box's (--force replaces it)", file=sys.stderr)
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


MAN_DATE = "2026-11-22"  # of the last change to a manual page

_WITH_ONE: dict[str, tuple[str, Callable[[str, bool], int]]] = {
    "--install": ("DIR", _install),
    "--man": ("TOOL", _man),
    "--completion": ("SHELL", _completion),
}

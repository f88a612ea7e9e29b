"""Table of the tools and of the commands of r2, with the module of each."""

from __future__ import annotations

from ..errors import OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .command import Args, Command

    Main = Callable[[Args], int]

# name: (module in tools, name of its Command, name of its function)
TOOLS: dict[str, tuple[str, str, str]] = {
    "r2d": ("r2d", "COMMAND", "main"),
    "r2dm": ("manager", "COMMAND", "main"),
    "r2": ("r2", "R2", ""),
    "r2-connect": ("connect", "COMMAND", "main"),
    "r2-tunnel": ("tunnel", "COMMAND", "main"),
    "r2-serve": ("serve", "COMMAND", "main"),
    "r2-forward": ("forward", "COMMAND", "main"),
    "r2-ssh": ("ssh", "COMMAND", "main"),
    "r2-lossy": ("lossy.lossy", "COMMAND", "main"),
    "iosh": ("iosh.iosh", "COMMAND", "main"),
    "ioshd": ("iosh.ioshd", "COMMAND", "main"),
}
# r2 WORD
WORDS: dict[str, tuple[str, str, str]] = {
    "ls": ("r2", "LS", "main_ls"),
    "ping": ("ping", "PING", "main_ping"),
    "trace": ("ping", "TRACE", "main_trace"),
    "map": ("map", "COMMAND", "main"),
    "bench": ("bench.bench", "COMMAND", "main"),
    "status": ("status.status", "STATUS", "main"),
    "top": ("status.top", "TOP", "main"),
    "watch": ("watch", "WATCH", "main_watch"),
    "wait": ("watch", "WAIT", "main_wait"),
    "connect": TOOLS["r2-connect"],
    "tunnel": TOOLS["r2-tunnel"],
    "open": ("tunnel", "OPEN", "main_open"),
    "serve": TOOLS["r2-serve"],
    "forward": TOOLS["r2-forward"],
}


def resolve(words: list[str]) -> tuple[str, list[str]]:
    """Return the tool that `words`, arguments of r2box, select ("" for none), and the arguments of that tool.

    >>> resolve(["connect", "-"]), resolve(["ls", "-l"]), resolve(["--list"])
    (('r2-connect', ['-']), ('r2', ['ls', '-l']), ('', ['--list']))
    """
    word = words[0] if words else ""
    for tool in (word, f"r2-{word}"):
        if tool in TOOLS:
            return tool, words[1:]
    return ("r2" if word in WORDS else ""), words


def load(place: tuple[str, str, str]) -> tuple[Command, Main]:
    """Import the Command and the function of `place`, an entry of TOOLS or WORDS."""
    module_name, command, function = place
    # Not importlib: it costs a quarter of the start-up time.
    module = __import__(f"r2box.tools.{module_name}", fromlist=["*"])
    return getattr(module, command), getattr(module, function or "main", lambda args: OK)

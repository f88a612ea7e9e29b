"""Write the manual pages of the tools and of the configuration file into `man/`, from their declarations.

    python build/pages.py [DIRECTORY]        (DIRECTORY: the output directory, `man` by default)

The pages are checked in, so that a checkout can be read and installed without a build; a test fails if they differ from
the declarations.  r2-protocol.7 is written by hand and not touched.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from r2box import __version__  # noqa: E402
from r2box.cli import manual, registry  # noqa: E402
from r2box.config import parse  # noqa: E402
from r2box.net.daemon import admission  # noqa: E402
from r2box.net.io import log  # noqa: E402
from r2box.net.link import turns  # noqa: E402
from r2box.proto.link import scheduler  # noqa: E402
from r2box.proto.routing import adjacency, discovery  # noqa: E402
from r2box.tools import box  # noqa: E402

# How each kind of value in a configuration is written, by the name of the check in `config` that takes it.
KINDS = {
    "_address": "an address",
    "_service": "an address",
    "_path": "a path",
    "_text": "a string",
    "_task_command": "a string",
    "_transport_for": "a transport",
    "_resume_timeout": "a time",
    "_flag": "true or false",
    "_patterns": "a list of patterns",
    "_event": "an event",
    "_target": "a path",
    "_limit_for": "a number",
}

CONFIG_TEXT = (
    "A TOML file describes a node that r2dm(8) runs: UTF-8, at most {limit} MiB, by convention "
    "/etc/r2/NAME.toml or ~/.config/r2/NAME.toml.  Values are strings, except that a list of patterns is an array of "
    "strings, a switch is true or false, and a limit or a time in seconds may be an integer.  A file with an error is "
    "rejected as a whole, before anything starts; each error is reported, with its line if it has one.",
    "The address of a node and the name of a service are 1 to 64 letters, digits and characters of ._:+-, and do not "
    "begin with a dash.  The words service, child and any are reserved.",
    "A transport is a command line for sh -c, or a built-in transport such as tcp://HOST:PORT or "
    "tcp-listen://HOST:PORT; r2-connect(1) lists these with their options.  In the cmd of a link, a lone dash after "
    "exec: or system:, or the word -%, is replaced by the command that links to this node, with its full path.",
    "A time is a number with the unit ms, s, m, h or d; the default unit is the second.",
    "A pattern is matched against the origin of a tunnel: the path back to the node or program that opened it, nearest "
    "node first.  It must match the whole path, and may contain the shell's * and ?.  The pattern bob matches the node "
    "bob and the programs on it; bob/* matches what comes through bob.",
)

# Limits that no key changes: they follow from the protocol, or from what a turn of the loop may take.
FIXED = (
    (f"{log.LineLimit.FIRST} log lines of a kind in {log.LineLimit.PERIOD:.0f} s",
     "Further ones that neighbours cause are counted and reported in one line, so that no neighbour can fill a disk."),
    (f"{admission.MAX_OUTGOING} links",
     "Pending links dialled by programs of this host: each may hold a descriptor for 10 s."),
    (f"{scheduler.MAX_BACKLOG >> 20} MiB", "Control frames queued on a link.  While it is full, nothing is read from "
     "that neighbour."),
    (f"{scheduler.MAX_MESSAGES >> 10} KiB", "Messages queued on a link.  Further ones are refused, since any origin "
     "that sends through this node could fill the queue."),
    (f"{turns.TURN * 1000:.0f} ms, {turns.WORK} units", "Work for one link in one turn of the event loop.  More than "
     f"{turns.FULL_TURNS} busy links share what {turns.FULL_TURNS} may use, with {turns.MIN_WORK} units at least for "
     "each, so that an echo does not wait for all of them.  A unit is some 4 us; a frame costs 1 to 32 units."),
    (f"{turns.PENDING_TIME * 1000:.0f} ms", "Work in one turn of the event loop for all pending links "
     f"together, and {turns.PENDING_SHARE:.0%} of a processor.  A UDP listener has as much for unknown senders."),
    ("what is free", "Tunnels of one incoming link through one outgoing link: as many as the outgoing link has free, "
     "in number and in memory.  So one neighbour can take at most half of it, and leaves room for others."),
    (f"{adjacency.MAX_LEARNED} nodes, {adjacency.MAX_BYTES >> 20} MiB of names", "What a neighbour may "
     "advertise: the table of a large network, some 1 KiB for each node."),
    (f"{adjacency.RATE:.0f} entries a second", f"The rate of advertised entries, after a burst of {adjacency.BURST}: "
     "a tenth of a processor.  The advertisements of a neighbour that exceeds it are ignored for "
     f"{adjacency.IGNORE_TIME:.0f} s."),
    (f"{1 / discovery.FRAME:.0f} frames, {1 / discovery.ENTRY:.0f} entries a second", "What is advertised "
     "to all neighbours together, since with n neighbours each receives the entries of the n others.  Neighbours take "
     f"turns, and one that has waited longer receives more at once.  The burst is {discovery.AT_ONCE} s of this rate."),
)  # fmt: skip

CONFIG_EXAMPLES = (
    (
        '[self]\naddr = "alice"\nsocket = "/home/user/.local/r2/alice.sock"\ncmd = "echo hello from alice"\n\n'
        '[[conn]]\naddr = "bob"\ncmd = "socat tcp-l:47210,fork,reuseaddr exec:-"',
        "The node alice, which prints a line to each tunnel and accepts links from bob over TCP",
    ),
    (
        '[self]\naddr = "bob"\n\n[[conn]]\naddr = "alice"\ncmd = "tcp://127.0.0.1:47210"\n\n'
        '[[serve]]\nname = "sshd"\ncmd = "/usr/sbin/sshd -i"\nallow = ["alice"]',
        "The node bob, which links to alice without another program and lets alice log in",
    ),
)


def config_page(date: str) -> str:
    """r2.toml(5), from the tables of `config`."""
    lines = manual.page("r2.toml", 5, __version__, date, ["r2.toml"], "the configuration file of an r2 node")
    limit = parse.MAX_FILE >> 20
    parts = [manual.prose(text.format(limit=limit)) for text in CONFIG_TEXT]
    lines += [line for place, part in enumerate(parts) for line in (".Pp" if place else ".Sh DESCRIPTION", *part)]
    for name, table in parse.TABLES.items():
        only = "At most one." if name in parse.OPTIONAL else "Exactly one."
        many = "There may be any number of these tables." if table.header.startswith("[[") else only
        rows = []
        for word, key in table.keys.items():
            need = "required" if key.required is True else "optional"
            kind = KINDS[key.check.__qualname__.partition(".")[0]]  # some checks are made by a function of that name
            rows.append((f"Cm {manual.words(word)}", [*manual.prose(f"({kind}, {need})"), *manual.prose(key.help)]))
        lines += [f".Ss {table.header}", *manual.prose(f"{table.help} {many}"), *manual.listing(rows)]
    lines += [".Ss Fixed limits", *manual.prose("These limits cannot be configured:")]
    lines += manual.listing((manual.words(head), manual.prose(text)) for head, text in FIXED)
    lines += manual.examples(CONFIG_EXAMPLES)
    lines += manual.see_also(["r2box(1)", "r2(1)", "r2-connect(1)", "r2-serve(1)", "r2-forward(1)", "r2dm(8)"])
    return "\n".join(lines) + "\n"


def render_all(date: str = box.MAN_DATE) -> dict[str, str]:
    """Every generated page: file name -> text."""
    below = [registry.load(place)[0] for place in registry.WORDS.values()]
    pages = {"r2.toml.5": config_page(date)}
    for command in (box.BOX, *(registry.load(place)[0] for place in registry.TOOLS.values())):
        commands = below if command.name == "r2" else []
        pages[f"{command.name}.{command.section}"] = manual.render_man(command, __version__, date, commands)
    return dict(sorted(pages.items()))


def main(argv: list[str]) -> int:
    folder = Path(argv[1]) if len(argv) > 1 else ROOT / "man"
    for name, text in render_all().items():
        (folder / name).write_text(text, encoding="ascii")
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

"""Write the manual pages of the tools and of the configuration file into `man/`, from their declarations.

    python build/pages.py [DIRECTORY]        (DIRECTORY: where to put them, `man` by default)

The pages are checked in, so that a checkout can be read and installed without running anything; a test says when
they are no longer what the declarations give.  r2-protocol.7 is written by hand and left alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from r2box import __version__, config, index, manual, own  # noqa: E402
from r2box.net import admission, driver, log  # noqa: E402
from r2box.proto import discovery, neighbour, outbox  # noqa: E402

# How each kind of value in a configuration is written, by the name of the check in `config` that takes it.
KINDS = {
    "_address": "an address",
    "_service": "an address",
    "_path": "a path",
    "_text": "a text",
    "_task_command": "a text",
    "_transport_for": "a transport",
    "_patience": "a time",
    "_flag": "true or false",
    "_patterns": "a list of patterns",
    "_event": "an event",
    "_target": "a path",
    "_limit_for": "a number",
}

CONFIG_TEXT = (
    "A node that r2dm(8) runs is described by a file in TOML: UTF-8, at most {limit} MiB, by custom "
    "/etc/r2/NAME.toml or ~/.config/r2/NAME.toml.  Values are texts, but for patterns, a list of texts, what is "
    "true or false, and a time in seconds, which may be a whole number.  A file with a mistake is refused as a whole, "
    "before anything starts, and every mistake in it is named, with its line where it has one.",
    "The address of a node, or the name of a service, is 1 to 64 letters, digits and signs out of ._:+-, the first "
    "of which is no dash.  The words service, child and any are not addresses.",
    "A transport is a command line for sh -c, or one of the built-in ones, such as tcp://HOST:PORT and "
    "tcp-listen://HOST:PORT, which r2-connect(1) lists with their options.  In the cmd of a link, a lone dash behind "
    "exec: or system:, or the word -%, is replaced by the command that links to this node, with its full path.",
    "A time is a number with ms, s, m, h or d behind it; of seconds, if nothing is.",
    "A pattern is compared with the origin of a tunnel, the way back to who opened it, nearest node first.  It is "
    "the whole path, and may hold the shell's * and ?: bob is bob and the programs on bob's node, bob/* is what comes "
    "through bob.",
)

# Limits that no key changes: they follow from the protocol, or from what a turn of the loop may take.
FIXED = (
    (f"{log.LineLimit.FIRST} log lines of a kind in {log.LineLimit.PERIOD:.0f} s",
     "What neighbours cause more often is counted, and told in one line, so that nobody can fill a disk."),
    (f"{admission.MAX_OWN} links",
     "Pending links that programs of this host dial: each may keep a descriptor for 10 s."),
    (f"{outbox.MAX_BACKLOG >> 20} MiB", "Control frames that wait to be sent on a link: a neighbour that does not read "
     "them is not read from either."),
    (f"{outbox.MAX_MESSAGES >> 10} KiB", "Messages that wait to be sent on a link: more are turned away, as every "
     "origin that passes them through this node may send too many."),
    (f"{driver.TURN * 1000:.0f} ms, {driver.WORK} units", "What one link may take of a turn of the loop: 10 links at "
     "their worst then delay an echo by 10 ms. A unit is some 4 us; frames cost from 1 to 32."),
    ("what is free", "Tunnels of one incoming link that leave by another, which is as many as that one has room for "
     "besides, in number and in memory: so half of it is the most that one neighbour can take, and others find room."),
    (f"{neighbour.MAX_HEARD} nodes, {neighbour.MAX_BYTES >> 20} MiB of names", "What a neighbour may tell of the "
     "network: a table of the size of a large network, some 1 KiB a node."),
    (f"{neighbour.RATE:.0f} entries a second", f"The same, after a first {neighbour.BURST} at once: a tenth of a "
     f"processor. A neighbour that says more is not listened to for {neighbour.DEAF:.0f} s."),
    (f"{1 / discovery.FRAME:.0f} frames, {1 / discovery.ENTRY:.0f} entries a second", "What all neighbours together "
     "are told of the network: of n neighbours each is told of the n others. They take turns, and who has waited "
     f"longer is told more at once. After a silence {discovery.AT_ONCE} s of it may be sent at once."),
)  # fmt: skip

CONFIG_EXAMPLES = (
    (
        '[self]\naddr = "alice"\nsocket = "/home/user/.local/r2/alice.sock"\ncmd = "echo hello from alice"\n\n'
        '[[conn]]\naddr = "bob"\ncmd = "socat tcp-l:47210,fork,reuseaddr exec:-"',
        "The node alice, which greets whoever tunnels to it and takes links from bob over TCP",
    ),
    (
        '[self]\naddr = "bob"\n\n[[conn]]\naddr = "alice"\ncmd = "tcp://127.0.0.1:47210"\n\n'
        '[[serve]]\nname = "sshd"\ncmd = "/usr/sbin/sshd -i"\nallow = ["alice"]',
        "The node bob, which links to alice without any other program and lets alice log in",
    ),
)


def config_page(date: str) -> str:
    """r2.toml(5), from the tables of `config`."""
    lines = manual.page("r2.toml", 5, __version__, date, ["r2.toml"], "the configuration file of an r2 node")
    limit = config.MAX_FILE >> 20
    parts = [manual.prose(text.format(limit=limit)) for text in CONFIG_TEXT]
    lines += [line for place, part in enumerate(parts) for line in (".Pp" if place else ".Sh DESCRIPTION", *part)]
    for name, table in config.TABLES.items():
        only = "At most one." if name in config.OPTIONAL else "Exactly one."
        many = "There may be any number of these tables." if table.header.startswith("[[") else only
        rows = []
        for word, key in table.keys.items():
            need = "required" if key.required is True else "optional"
            kind = KINDS[key.check.__qualname__.partition(".")[0]]  # some checks are made by a function of that name
            rows.append((f"Cm {manual.words(word)}", [*manual.prose(f"({kind}, {need})"), *manual.prose(key.help)]))
        lines += [f".Ss {table.header}", *manual.prose(f"{table.help} {many}"), *manual.listing(rows)]
    lines += [".Ss Fixed limits", *manual.prose("These are not set in a file:")]
    lines += manual.listing((manual.words(head), manual.prose(text)) for head, text in FIXED)
    lines += manual.examples(CONFIG_EXAMPLES)
    lines += manual.see_also(["r2box(1)", "r2(1)", "r2-connect(1)", "r2-serve(1)", "r2-forward(1)", "r2dm(8)"])
    return "\n".join(lines) + "\n"


def render_all(date: str = own.MAN_DATE) -> dict[str, str]:
    """Every generated page: file name -> text."""
    below = [index.load(place)[0] for place in index.WORDS.values()]
    pages = {"r2.toml.5": config_page(date)}
    for command in (own.BOX, *(index.load(place)[0] for place in index.TOOLS.values())):
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

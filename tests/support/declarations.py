"""Command declarations, as the tools have them, that use all that a declaration can say."""

from __future__ import annotations

from r2box.cli.command import SOCKET, VERBOSE, Argument, Command, Option

LS = Command(
    "r2 ls",
    "list what the target node is connected to",
    options=(
        Option(("-l", "--long"), "one line with all that is known of each", kind="flag"),
        Option(("-a", "--all"), "clients too", kind="flag"),
        Option(("-R", "--recursive"), "the whole network, with the path to each", kind="flag"),
        Option(("--json",), "print JSON", kind="flag"),
        Option(("-c", "--count"), "stop after so many", metavar="N", kind="int"),
        Option(("-i", "--interval"), "seconds between two looks", metavar="S", kind="float", default=1.5),
        Option(("-o", "--order"), "sort by COLUMN", metavar="COLUMN", choices=("name", "state")),
        Option(("--secret-door",), "not for everybody", hidden=True),
    ),
    description='Prints one name per line. Don\'t expect "quotes" or \\e or ~/x; -t may be repeated.\n\n'
    ".Dd is not a date here. 'Tis caf\u00e9.",
    examples=(
        ("r2 -s ~/.local/alice.sock -t bob ls", "what bob is connected to"),
        (".x '-a' \\\n  | No", "Two lines."),
    ),
    statuses=(("0", "done"), (">0", "it failed"), ("128+N", "No such signal"), ("No", ".x")),
    seealso=("r2(1)", "r2-protocol(7)", "r2d(8)"),
)
CONNECT = Command(
    "r2-connect",
    "make a link",
    arguments=(Argument("TRANSPORT", "what carries the link's bytes"),),
    options=(
        Option(("-n", "--node"), "the neighbour's address", metavar="ADDRESS"),
        Option(("--allow",), "who may", metavar="PATTERN", kind="list", default=("*",)),
    ),
    aliases=("r2 connect",),
)
R2 = Command("r2", "work with a node", arguments=(Argument("COMMAND", "a command and its words", rest=True),))
R2D = Command("r2d", "run a node", (Argument("ADDRESS", "its address"),), (VERBOSE, SOCKET), common=False, section=8)
SSH = Command(
    "r2-ssh",
    "ssh to a node",
    arguments=(Argument("NODE", "the node"), Argument("ARGUMENT", "for ssh", required=False, rest=True)),
)
ALL = [R2, LS, CONNECT, R2D, SSH]

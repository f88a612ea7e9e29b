"""r2 status: what a node's links and tunnels do at this moment."""

from __future__ import annotations

from ..command import Command, Option
from ..errors import OK
from ..net.client import Client, ask
from ..net.view import LINK_JSON, TUNNEL_JSON, fetch, table
from ..proto.address import join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..command import Args
    from ..net.view import Row

STATUS = Command(
    "r2 status",
    "show what the links and tunnels of the local node do",
    options=[
        Option(("-l", "--long"), "with more columns", kind="flag"),
        Option(("--json",), "as JSON, one object a line", kind="flag"),
    ],
    description=(
        "One table of links and one of tunnels: those that begin here, end here, or only cross this node.  Of local "
        "ones, whose bytes do not pass the daemon, it shows those that it still knows of.  A node answers only to "
        "the programs on its own control socket.\n\n"
        "RATE/s is what the path of a link was seen to deliver, not what it delivers now; LOSS, of links that go in "
        "packets, the share that had to be sent again; CUTS, how often a link went on over another transport; QUEUE, "
        "the bytes that wait in the daemon, without those of tunnels, which wait with their writers.  SENT is what "
        "went from FROM to TO, and BACK what came back."
    ),
    examples=[("r2 status --json | grep credit", "tunnels whose far end does not read")],
    statuses=[("0", "done"), ("1", "there is no daemon"), ("2", "wrong usage")],
    seealso=["r2(1)"],
    json=[*LINK_JSON, *TUNNEL_JSON],
)
SHORT = {
    "link": "address state rate received sent rtt loss resumes queue tunnels age transport".split(),
    "tunnel": "from to sent received idle age stalled".split(),
}
LONG = {
    "link": "address state rate received sent rtt loss packets resent resumes queue unacked tunnels age transport "
            "reason".split(),
    "tunnel": "from to way sent received idle age link label stalled".split(),
}  # fmt: skip
ORDER = {"link": ("address",), "tunnel": ("link", "label")}


def main(args: Args) -> int:
    path = join_targets(args.target)

    def steps(client: Client, done: Callable[[], None]) -> None:
        def show(_: str, rows: list[Row]) -> None:
            for line in _json(rows) if args.json else _tables(rows, LONG if args.long else SHORT):
                print(line)
            done()

        fetch(client, path, show)

    ask(args.socket, steps, args.wait)
    return OK


def _json(rows: list[Row]) -> list[str]:
    import json

    return [json.dumps(row) for row in rows]


def _tables(rows: list[Row], shown: dict[str, list[str]]) -> list[str]:
    lines: list[str] = []
    for kind, fields in shown.items():
        those = sorted((row for row in rows if row["kind"] == kind), key=lambda row: [row[key] for key in ORDER[kind]])
        for row in those:
            if kind == "link" and row["reason"] and "reason" not in fields:
                row["transport"] += f" ({row['reason']})"
        lines += [*([""] if lines else []), *table(kind, fields, those)]
    return lines

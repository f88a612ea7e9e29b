"""r2 status: the state of the links, tunnels and jobs of a node."""

from __future__ import annotations

from ...cli.command import JSON, WIDE, Command, Option
from ...cli.tables import display_width, table
from ...errors import OK
from ...net.client.client import Client, ask
from ...net.client.status_rows import JOB_JSON, LIMIT_JSON, LINK_JSON, TUNNEL_JSON, fetch
from ...proto.wire.address import join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...cli.command import Args
    from ...net.client.status_rows import Row

STATUS = Command(
    "r2 status",
    "show the links, tunnels and jobs of the local node",
    options=[
        Option(("-l", "--long"), "print a second table of each kind, with more columns", kind="flag"),
        Option(("--limits",), "print only the limits of this node and their use", kind="flag"),
        WIDE,
        JSON,
    ],
    description=(
        "Prints a table of links, one of tunnels that begin, end or are relayed here, and one of jobs: the "
        "links, services and forwards that r2 connect, r2 serve, r2 forward and r2dm maintain, in every state.  "
        "Local tunnels bypass the daemon; only those that it still knows of are shown.  Status is available "
        "on the local node only.\n\n"
        "The state of a job is connecting, listening, up, running (a command that makes links by itself), "
        "retrying (NEXT is the time until then) or stopped.  DETAIL is where it listens, or why it failed.\n\n"
        "PEER is the remote address of a link's socket, or else its TRANSPORT, or why the link is suspended.  "
        "CAPACITY is the measured delivery rate of its path, not the current throughput; LOSS, the fraction of "
        "packets that were retransmitted; CUTS, how often the link was resumed; QUEUE, the bytes queued in the "
        "daemon, without data of tunnels, which is not queued there.  SENT is what went from FROM to TO, and "
        "BACK the opposite direction.\n\n"
        "With --limits it prints only the limits of [limits] in r2.toml(5): USED is the current use, and PEAK "
        "the high-water mark since the node started.  For limits per link, service or neighbour, these are the "
        "highest values.  A rate may exceed its LIMIT briefly, because bursts are allowed.  With -l it "
        "describes each limit.\n\n"
        "Lines are truncated to the width of the terminal, which COLUMNS overrides, or to 80 characters."
    ),
    examples=[
        ("r2 status --json | grep credit", "find tunnels whose far end does not read"),
        ("r2 status -w | grep retrying", "find links and forwards that are down, and why"),
        ("r2 status --limits", "show limits and their use"),
    ],
    statuses=[("0", "done"), ("1", "there is no daemon"), ("2", "wrong usage")],
    seealso=["r2(1)", "r2.toml(5)"],
    json=[*LINK_JSON, *TUNNEL_JSON, *JOB_JSON, *LIMIT_JSON],
)
# kind: its tables, each a list of columns
SHORT = {
    "link": ["address state received sent rtt loss tunnels age endpoint".split()],
    "tunnel": ["from to sent received idle age stalled".split()],
    "job": ["job name state next transport detail".split()],
}
LONG = {
    "link": [
        "address state received sent rtt queue unacked tunnels age peer".split(),
        "address capacity loss packets resent resumes transport reason".split(),
    ],
    "tunnel": [*SHORT["tunnel"], "from to way link label".split()],
    "job": [*SHORT["job"], "job name tries age client pid transport".split()],
}
LIMITS = "name limit used peak unit".split()
ORDER = {"link": ("address",), "tunnel": ("link", "label"), "job": ("job", "name", "transport")}


def main(args: Args) -> int:
    path = join_targets(args.target)

    def steps(client: Client, done: Callable[[], None]) -> None:
        def show(_: str, rows: list[Row]) -> None:
            width = None if args.wide else display_width()
            if args.json:
                lines = _json(rows)
            elif args.limits:
                lines = [*table("limit", LIMITS, rows, width), *(_reasons(rows, width) if args.long else [])]
            else:
                lines = _tables(rows, LONG if args.long else SHORT, width)
            for line in lines:
                print(line)
            done()

        fetch(client, path, show, limits=args.limits)

    ask(args.socket, steps, args.wait)
    return OK


def _json(rows: list[Row]) -> list[str]:
    import json

    return [json.dumps(row) for row in rows]


def _reasons(rows: list[Row], width: int | None) -> list[str]:
    import textwrap

    found = []
    for row in rows:
        text = f"{row['name']}: {row['why']}"
        found += ["", *(textwrap.wrap(text, width, subsequent_indent="  ") if width is not None else [text])]
    return found


def _tables(rows: list[Row], shown: dict[str, list[list[str]]], width: int | None) -> list[str]:
    found: list[str] = []
    for kind, tables in shown.items():
        those = sorted((row for row in rows if row["kind"] == kind), key=lambda row: [row[key] for key in ORDER[kind]])
        for fields in tables:
            found += [*([""] if found else []), *table(kind, fields, those, width)]
    return found

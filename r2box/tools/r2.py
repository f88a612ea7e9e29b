"""r2, and r2 ls: the neighbours, services and known nodes of a node."""

from __future__ import annotations

from ..cli.command import JSON, WIDE, Argument, Command, Option
from ..cli.output import print_json
from ..errors import OK
from ..net.client.client import Client, ask
from ..net.client.query import AGE_FIELD, COST_FIELD, PATH_FIELD, ask_all, give_up, names_of, seconds_of
from ..proto.wire import messages
from ..proto.wire.address import SERVICE, format_path, join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..cli.command import Args

R2 = Command(
    "r2",
    "control the local node, and query others through it",
    arguments=[Argument("COMMAND", "one of the commands below, with its options and arguments", rest=True)],
    description=(
        "The options below precede the command.  -t gives the path to the target, a node or service: -t carl "
        "-t bob -t sshd is the same as -t carl/bob/sshd.  The default target is the local node.\n\n"
        "The control socket is that of -s, else of R2_SOCKET, else the default: /run/r2.sock for root, "
        "/run/user/UID/r2.sock for other users, or $XDG_STATE_HOME/r2/r2.sock if there is no /run/user/UID.  "
        "If no daemon listens at the default socket, these are tried: the other default sockets, and NAME.sock "
        "in /run/r2, /run/user/UID/r2 or $XDG_STATE_HOME/r2, where the units of r2-host(7) create them.  If "
        "exactly one daemon listens there, it is used; with several, the error lists them.\n\n"
        "A command waits up to 2 seconds (--wait TIME; 0 disables it) for a daemon that is starting, and for a "
        "name that is not known yet if the daemon started less than 10 seconds ago or is making a link.  To "
        "wait longer, use r2 wait; r2d --background returns when the node is ready."
    ),
    examples=[("r2 -t bob ls", "list the neighbours and services of bob")],
    statuses=[("0", "done"), ("1", "failed"), ("2", "wrong usage")],
    seealso=["r2box(1)", "r2d(8)", "r2dm(8)", "r2-connect(1)", "r2-serve(1)", "r2-tunnel(1)", "r2-ssh(1)",
             "r2-forward(1)", "r2.toml(5)", "r2-examples(7)", "r2-host(7)"],
    environment=[("NO_COLOR", "if set, r2 top does not use reverse video")],
)
LS = Command(
    "r2 ls",
    "list the neighbours and services of a node",
    options=[
        Option(("-l", "--long"), "with details of each entry", kind="flag"),
        Option(("-a", "--all"), "include clients of the control socket", kind="flag"),
        Option(("-R", "--recursive"), "all known nodes and services, with path, cost, age", kind="flag"),
        WIDE,
        JSON,
    ],
    description=(
        "With -l the listing of the local node includes the transport of each neighbour, and each configured "
        "link and forward with its state, the reason and the next attempt; with -la also the process and "
        "command of each client.  Other nodes do not disclose these.  Lines are truncated to the width of the "
        "terminal, which COLUMNS overrides, or to 80 characters.\n\n"
        "-R lists each node and service that is known to the target, nearest first: the path, its cost (the "
        "round trip plus 1 ms for each link), and the age of the route."
    ),
    examples=[("r2 ls -R", "list all known nodes and services, with their paths")],
    json=[
        ("kind", "text", "node, service or client; with -l also link or forward (jobs in r2 status)"),
        ("name", "text", "its address, service/NAME or child/ID; the transport of a link without a neighbour"),
        PATH_FIELD,
        ("detail", "text", "of a node: its transport, and why the link is suspended; of a service: its "
                           "command; of a client: its command or software; of a link or forward: its state, "
                           "and why it failed"),
        ("state", "text", "of nodes, links and forwards with -l: the state, as in r2 status; else empty"),
        ("pid", "number", "of clients with -l: the process ID; else 0"),
        COST_FIELD,
        AGE_FIELD,
        ("ways", "number", "number of neighbours with a route; cost, age and ways with -R only"),
    ],
    statuses=[("0", "done"), ("1", "the node is unreachable"), ("2", "wrong usage")],
    seealso=["r2(1)"],
)


LEAST_NAME = 24  # characters: names are not truncated further


def main_ls(args: Args) -> int:
    path = join_targets(args.target)

    def steps(client: Client, done: Callable[[], None]) -> None:
        def listed(_: str, found: list[dict[str, Any]]) -> None:
            entries = [{**entry, "state": "", "pid": 0} for entry in found]
            if args.long and not path:
                from ..net.client.status_rows import fetch  # not imported for a plain listing

                jobs = not args.recursive
                fetch(client, path, lambda _, rows: list_all([*_described(entries, rows, jobs)]), clients=args.all)
            else:
                list_all(entries)

        def list_all(entries: list[dict[str, Any]]) -> None:
            if args.recursive:
                ask_all(client, messages.NETWORK, path, lambda _, known: show(_everything(entries, known)), give_up)
            else:
                show([{**entry, "path": entry["name"]} for entry in entries])

        def show(rows: list[dict[str, Any]]) -> None:
            if args.json:
                for row in rows:
                    print_json(**row)
            else:
                print("".join(f"{line}\n" for line in _table(args, rows)), end="")
            done()

        ask_all(client, messages.LIST, path, listed, give_up, clients=int(args.all))

    ask(args.socket, steps, args.wait)
    return OK


def _described(
    entries: list[dict[str, Any]], rows: list[dict[str, Any]], jobs: bool
) -> Iterator[dict[str, Any]]:
    """`entries` with details of the status `rows` of the local node; with `jobs`, also those that have no entry."""
    from ..cli.tables import endpoint

    links = {row["address"]: row for row in rows if row["kind"] == "link" and row["state"] != "handshake"}
    clients = {row["client"]: row for row in rows if row["kind"] == "client"}
    for entry in entries:
        link, client = links.get(entry["name"]), clients.get(entry["name"])
        if entry["kind"] == "node" and link is not None:
            entry["state"] = link["state"]
            entry["detail"] = f"up, {endpoint(link)}" if link["state"] == "up" else entry["detail"]
        elif entry["kind"] == "client" and client is not None:
            entry["pid"] = client["pid"]
            entry["detail"] = f"pid {client['pid']}, {client['command'] or client['software']}"
        yield entry
    for row in rows if jobs else ():
        if row["kind"] == "job" and (row["job"] == "forward" or row["state"] != "up"):
            name = SERVICE + row["name"] if row["job"] == "service" else row["name"] or row["transport"]
            detail = _describe_job(row)
            yield {"kind": row["job"], "name": name, "detail": detail, "state": row["state"], "pid": 0}


def _describe_job(row: dict[str, Any]) -> str:
    """`retrying in 5 s, tcp://bob:4721: Connection refused`"""
    from ..cli.tables import next_attempt

    state = f"retrying in {next_attempt(row)}" if row["next"] is not None else row["state"]
    if row["where"]:
        return f"{state} at {row['where']}"
    if row["name"]:  # else the name column has the transport
        state += f", {row['transport']}"
    return f"{state}: {row['reason']}" if row["reason"] else state


def _everything(entries: list[dict[str, Any]], known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The direct `entries` and all `known` nodes with their services, nearest first."""
    listed = {entry["name"]: entry for entry in entries}
    routed = {entry["path"][-1] for entry in known}
    rows = [
        {**entry, "path": entry["name"], "cost": 0.0, "age": 0.0, "ways": 1}
        for entry in sorted(entries, key=lambda entry: str(entry["kind"] == "node"))
        if entry["name"] not in routed
    ]
    for entry in sorted(known, key=lambda entry: (entry["cost"], entry["path"])):
        cost, age = seconds_of(entry)
        rest = {"cost": cost, "age": age, "ways": entry["ways"]}
        for name in ("", *names_of(entry)):
            shown = SERVICE + name if name else entry["path"][-1]
            path = format_path((*entry["path"], shown) if name else entry["path"])
            more = {} if name else listed.get(shown, {})
            more = {"detail": more.get("detail", ""), "state": more.get("state", ""), "pid": 0}
            rows.append({"kind": "service" if name else "node", "name": shown, "path": path, **more, **rest})
    return rows


def _table(args: Args, rows: list[dict[str, Any]]) -> list[str]:
    if not (args.long or args.recursive):
        return [row["name"] for row in rows]
    from ..cli.tables import NAME, NUMBER, TEXT, display_width, lines

    columns: list[tuple[int, list[str]]] = [(NAME, [row["path"] for row in rows])]
    if args.recursive:
        columns.append((NUMBER, [f"{row['cost'] * 1000:.1f} ms" for row in rows]))
        columns.append((NUMBER, [f"{row['age']:.0f} s" for row in rows]))
    if args.long:
        columns = [(TEXT, [row["kind"] for row in rows]), *columns, (TEXT, [row["detail"] for row in rows])]
    styles, cells = zip(*columns)
    least = [LEAST_NAME if style == NAME else 0 for style in styles]
    return lines(cells, styles, None if args.wide else display_width(), least)

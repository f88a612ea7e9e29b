"""r2: ask a node what it is connected to, and what it has heard of (ls)."""

from __future__ import annotations

from ..cli.command import JSON, WIDE, Argument, Command, Option
from ..errors import OK
from ..net.client.client import Client, ask
from ..net.client.query import AGE_FIELD, COST_FIELD, PATH_FIELD, ask_all, give_up, names_of, seconds_of, show_json
from ..proto.wire import messages
from ..proto.wire.address import SERVICE, format_path, join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from ..cli.command import Args

R2 = Command(
    "r2",
    "talk to the local node, and through it to others",
    arguments=[Argument("COMMAND", "one of the commands, with its own options and arguments", rest=True)],
    description=(
        "The options below come before the command.  -t names the node or service that is meant, as the way to it: "
        "-t carl -t bob -t sshd is the same as -t carl/bob/sshd; without it the local node is meant.\n\n"
        "The control socket is the one of -s, else of R2_SOCKET, else the default one: /run/r2.sock for root, "
        "/run/user/UID/r2.sock for others, or $XDG_STATE_HOME/r2/r2.sock where there is no /run/user/UID.  Where no "
        "daemon listens at the default one, the only daemon that listens elsewhere is used: at the other one of these, "
        "or at NAME.sock in /run/r2, /run/user/UID/r2 or $XDG_STATE_HOME/r2, where the units of r2-host(7) put it.  If "
        "there are several, the error names them.\n\n"
        "A command waits up to 2 seconds (--wait TIME; 0: not at all) for a daemon that is just starting, and for a "
        "name that it does not know yet, if it has started less than 10 seconds ago or a link is just being made.  "
        "Where that is not enough, r2 wait waits longer, and r2d --background returns when the node is ready."
    ),
    examples=[("r2 -t bob ls", "what the neighbour bob is connected to")],
    statuses=[("0", "done"), ("1", "failed"), ("2", "wrong usage")],
    seealso=["r2box(1)", "r2d(8)", "r2dm(8)", "r2-connect(1)", "r2-serve(1)", "r2-tunnel(1)", "r2-ssh(1)",
             "r2-forward(1)", "r2.toml(5)", "r2-examples(7)", "r2-host(7)"],
    environment=[("NO_COLOR", "where it is set, r2 top shows nothing in reverse")],
)
LS = Command(
    "r2 ls",
    "list what a node is connected to",
    options=[
        Option(("-l", "--long"), "with what each one is", kind="flag"),
        Option(("-a", "--all"), "clients of the node's control socket too", kind="flag"),
        Option(("-R", "--recursive"), "all that it knows, with the way to each, cost, age", kind="flag"),
        WIDE,
        JSON,
    ],
    description=(
        "With -l the local node tells, besides, what its neighbours are linked by, which links and forwards are "
        "configured in what state, with the reason and the next attempt, and with -a the process and the command of "
        "each client.  Of other nodes nothing of that is shown.  Lines have at most the width of the terminal, which "
        "COLUMNS overrides, or 80 characters; longer texts are shortened.\n\n"
        "-R shows every node and service that the target has heard of, the nearest first: the way, what it costs (its "
        "round trip, and 1 ms for each link), and for how long it has been that."
    ),
    examples=[("r2 ls -R", "every node and service that is known, with the way to each")],
    json=[
        ("kind", "text", "node, service or client; with -l also link or forward, of those that r2 status calls jobs"),
        ("name", "text", "its address, service/NAME or child/ID; of a link that has no neighbour yet its transport"),
        PATH_FIELD,
        ("detail", "text", "of a node: how it is linked, and why it is suspended; of a service: its command; of a "
         "client: its command or its software; of a link or forward: its state, and why it failed"),
        ("state", "text", "of nodes, links and forwards with -l, as r2 status has it; else empty"),
        ("pid", "number", "of clients with -l: the process; else 0"),
        COST_FIELD,
        AGE_FIELD,
        ("ways", "number", "how many neighbours know a way; these last three with -R only"),
    ],
    statuses=[("0", "done"), ("1", "the node cannot be reached"), ("2", "wrong usage")],
    seealso=["r2(1)"],
)


LEAST_NAME = 24  # characters of a name that are shown however long the rest is


def main_ls(args: Args) -> int:
    path = join_targets(args.target)

    def steps(client: Client, done: Callable[[], None]) -> None:
        def listed(_: str, found: list[dict[str, Any]]) -> None:
            entries = [{**entry, "state": "", "pid": 0} for entry in found]
            if args.long and not path:
                from ..net.client.status_rows import fetch  # which a plain listing does not wait for

                jobs = not args.recursive
                fetch(client, path, lambda _, rows: go_on([*_described(entries, rows, jobs)]), clients=args.all)
            else:
                go_on(entries)

        def go_on(entries: list[dict[str, Any]]) -> None:
            if args.recursive:
                ask_all(client, messages.NETWORK, path, lambda _, known: show(_everything(entries, known)), give_up)
            else:
                show([{**entry, "path": entry["name"]} for entry in entries])

        def show(rows: list[dict[str, Any]]) -> None:
            if args.json:
                for row in rows:
                    show_json(**row)
            else:
                print("".join(f"{line}\n" for line in _table(args, rows)), end="")
            done()

        ask_all(client, messages.LIST, path, listed, give_up, clients=int(args.all))

    ask(args.socket, steps, args.wait)
    return OK


def _described(
    entries: list[dict[str, Any]], rows: list[dict[str, Any]], jobs: bool
) -> Iterator[dict[str, Any]]:
    """`entries` with what the local node tells of them besides (`rows`), and the `jobs` that are not among them."""
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

    said = f"retrying in {next_attempt(row)}" if row["next"] is not None else row["state"]
    if row["where"]:
        return f"{said} at {row['where']}"
    if row["name"]:  # else the transport stands in its place
        said += f", {row['transport']}"
    return f"{said}: {row['reason']}" if row["reason"] else said


def _everything(entries: list[dict[str, Any]], known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a node is connected to and what it has heard of, the nearest first."""
    listed = {entry["name"]: entry for entry in entries}
    heard = {entry["path"][-1] for entry in known}
    rows = [
        {**entry, "path": entry["name"], "cost": 0.0, "age": 0.0, "ways": 1}
        for entry in sorted(entries, key=lambda entry: str(entry["kind"] == "node"))
        if entry["name"] not in heard
    ]
    for entry in sorted(known, key=lambda entry: (entry["cost"], entry["path"])):
        cost, age = seconds_of(entry)
        rest = {"cost": cost, "age": age, "ways": entry["ways"]}
        for name in ("", *names_of(entry)):
            own = SERVICE + name if name else entry["path"][-1]
            path = format_path((*entry["path"], own) if name else entry["path"])
            more = {} if name else listed.get(own, {})
            more = {"detail": more.get("detail", ""), "state": more.get("state", ""), "pid": 0}
            rows.append({"kind": "service" if name else "node", "name": own, "path": path, **more, **rest})
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

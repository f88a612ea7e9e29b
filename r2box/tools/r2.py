"""r2: ask a node what it is connected to, and what it has heard of (ls)."""

from __future__ import annotations

from ..command import JSON, Argument, Command, Option
from ..errors import OK
from ..net.asking import AGE_FIELD, COST_FIELD, PATH_FIELD, ask_all, give_up, names_of, seconds_of, show_json
from ..net.client import Client, ask
from ..proto import body as say
from ..proto.address import SERVICE, format_path, join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..command import Args

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
        "A command waits up to 2 seconds (--wait TIME; 0: not at all) for a daemon that is just starting."
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
        JSON,
    ],
    description=(
        "-R shows every node and service that the target has heard of, the nearest first: the way, what it costs (its "
        "round trip, and 1 ms for each link), and for how long it has been that."
    ),
    examples=[("r2 ls -R", "every node and service that is known, with the way to each")],
    json=[
        ("kind", "text", "node, service or client"),
        ("name", "text", "its address, service/NAME or child/ID"),
        PATH_FIELD,
        ("detail", "text", "of a link: what it waits for; of a service: its command; of a client: its software"),
        COST_FIELD,
        AGE_FIELD,
        ("ways", "number", "how many neighbours know a way; these last three with -R only"),
    ],
    statuses=[("0", "done"), ("1", "the node cannot be reached"), ("2", "wrong usage")],
    seealso=["r2(1)"],
)


def main_ls(args: Args) -> int:
    path = join_targets(args.target)

    def steps(client: Client, done: Callable[[], None]) -> None:
        def show(_: str, entries: list[dict[str, Any]]) -> None:
            if args.recursive:
                ask_all(client, say.NETWORK, path, lambda _, known: show_all(entries, known), give_up)
                return
            for entry in entries:
                _show_entry(args, entry)
            done()

        def show_all(entries: list[dict[str, Any]], known: list[dict[str, Any]]) -> None:
            for row in _everything(entries, known):
                _show_known(args, row)
            done()

        ask_all(client, say.LIST, path, show, give_up, clients=int(args.all))

    ask(args.socket, steps, args.wait)
    return OK


def _show_entry(args: Args, entry: dict[str, Any]) -> None:
    if args.json:
        show_json(**entry, path=entry["name"])
    elif args.long:
        print(f"{entry['kind']:<8} {entry['name']:<24} {entry['detail']}".rstrip())
    else:
        print(entry["name"])


def _everything(entries: list[dict[str, Any]], known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a node is connected to and what it has heard of, the nearest first."""
    details = {entry["name"]: entry["detail"] for entry in entries}
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
            detail = "" if name else details.get(own, "")
            kind = "service" if name else "node"
            rows.append({"kind": kind, "name": own, "path": path, "detail": detail, **rest})
    return rows


def _show_known(args: Args, row: dict[str, Any]) -> None:
    if args.json:
        show_json(**row)
        return
    cost, age = f"{row['cost'] * 1000:.1f} ms", f"{row['age']:.0f} s"
    kind = f"{row['kind']:<8} " if args.long else ""
    print(f"{kind}{row['path']:<40} {cost:>10} {age:>9}  {row['detail'] if args.long else ''}".rstrip())

"""r2 watch and r2 wait: print changes of the network; wait until a node or service is available."""

from __future__ import annotations

import sys

from ..cli.command import JSON, Command, Option
from ..cli.output import print_json
from ..errors import FAILED, OK, RefusedError, UsageError
from ..net.client.client import Client, ask, checked
from ..net.client.query import COST_FIELD, PATH_FIELD, ask_all, give_up, names_of
from ..net.io.units import parse_duration
from ..proto.wire import messages
from ..proto.wire.address import ANY, SERVICE, format_path, join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..cli.command import Args
    from ..net.io.loop import Timer

    Path = tuple[str, ...]

WATCH = Command(
    "r2 watch",
    "print changes of the network",
    options=[
        Option(("-i", "--initial"), "begin with the current state", kind="flag"),
        JSON,
    ],
    description=(
        "Prints a line for each event that is known to the local node: the time, the event, the node or NODE/SERVICE, "
        f"the path to it, and its cost.  Events are {', '.join(messages.EVENTS)}.  It runs until it is terminated."
    ),
    examples=[("r2 watch --json", "events for a program to read")],
    statuses=[("1", "there is no daemon, or it ended"), ("2", "wrong usage"), ("128+N", "ended by signal N")],
    seealso=["r2(1)", "r2.toml(5)"],
    local=True,
    json=[
        ("time", "number", "seconds since 1970"),
        ("event", "text", "as above; or missed: COUNT events were lost because the reader was slow"),
        ("name", "text", "the node's address, or NODE/SERVICE"),
        PATH_FIELD,
        COST_FIELD,
        ("count", "number", "1, or the number of missed events"),
    ],
)
WAIT = Command(
    "r2 wait",
    "wait until a node or a service is available",
    options=[Option(("--timeout",), "wait at most TIME, such as 30s (default: for ever)", "TIME")],
    description=(
        "The target is a node, NODE/SERVICE, any/SERVICE, or a longer path.  r2 wait exits as soon as the node "
        "answers, for itself or for its service.  Private services can be waited for on the local node only."
    ),
    examples=[("r2 wait -t carl/sshd --timeout 30s && r2-ssh carl", "log in as soon as the service is available")],
    statuses=[
        ("0", "the target is available"), ("1", "timeout, or there is no daemon"), ("2", "wrong usage"),
        ("128+N", "ended by signal N"),
    ],
    seealso=["r2(1)"],
)

POLL_INTERVAL = 2.0  # seconds: some changes at other nodes make no event here


def main_watch(args: Args) -> int:
    if args.target:
        raise UsageError("-t is not supported: events are those of the local node")

    def steps(client: Client, done: Callable[[], None]) -> None:
        def received(body: messages.Body, _: tuple[int, ...]) -> None:
            if body.kind == messages.EVENT:
                if body["missed"]:
                    _show(args, "missed", "", (), 0, body["missed"])
                _show(args, body["what"], body["name"], body["path"], body["cost"])
                return
            checked(body)
            if args.initial:
                ask_all(client, messages.NETWORK, (), lambda _, known: show_all(known), give_up)

        def show_all(known: list[dict[str, Any]]) -> None:
            for entry in sorted(known, key=lambda entry: (entry["cost"], entry["path"])):
                name = entry["path"][-1]
                _show(args, "node-up", name, entry["path"], entry["cost"])
                for service in names_of(entry):
                    _show(args, "service-up", f"{name}/{service}", entry["path"], entry["cost"])

        client.request(messages.WATCH, received)

    ask(args.socket, steps, args.wait)
    return OK


def _show(args: Args, event: str, name: str, path: Path, cost: int, count: int = 1) -> None:
    import time

    now = time.time()
    if args.json:
        where = format_path(path)
        print_json(time=round(now, 3), event=event, name=name, path=where, cost=cost / 1e6, count=count)
        return
    shown = f"{count} events" if event == "missed" else f"{name:<24} {format_path(path)}"
    price = f"  {cost / 1000:.1f} ms" if cost else ""
    print(f"{time.strftime('%H:%M:%S', time.localtime(now))} {event:<12} {shown}{price}".rstrip(), flush=True)


# -- wait -------------------------------------------------------------------------------------------------------------


class _Waiter:
    """Queries `path` after each event, and at intervals, until it is available."""

    def __init__(self, client: Client, path: Path, done: Callable[[], None]) -> None:
        self._client = client
        self._path = path
        self.why = "no answer yet"
        self._done = done
        self._is_querying = False
        self._is_stale = False  # an event has arrived since the query was sent
        self._timer: Timer | None = None
        client.request(messages.WATCH, self._received)
        self._query()

    def _received(self, body: messages.Body, _: tuple[int, ...]) -> None:
        if body.kind == messages.EVENT and self._is_querying:
            self._is_stale = True
        elif body.kind == messages.EVENT:
            self._query()

    def _query(self) -> None:
        self._is_querying, self._is_stale = True, False
        path = self._path
        if path and path[-1].startswith(ANY):
            name = path[-1][len(ANY) :]
            node = path[:-1]
            ask_all(
                self._client,
                messages.NETWORK,
                node,
                lambda _, found: self._done() if found else self._query_service(node, SERVICE + name),
                self._missing,
                service=name,
            )
        else:
            ask_all(self._client, messages.LIST, path, lambda *_: self._done(), self._no_node)

    def _no_node(self, error: RefusedError) -> None:
        """There is no such node: query for a service of the previous node."""
        path = self._path
        name = path[-1] if path[-1].startswith(SERVICE) else SERVICE + path[-1]
        self._query_service(path[:-1], name, error)

    def _query_service(self, node: Path, service: str, error: RefusedError | None = None) -> None:
        def listed(_: str, entries: list[dict[str, Any]]) -> None:
            if any(entry["name"] == service for entry in entries):
                self._done()
            else:
                self._missing(error or RefusedError(f"no known node offers {service}"))

        ask_all(self._client, messages.LIST, node, listed, lambda other: self._missing(error or other))

    def _missing(self, error: RefusedError) -> None:
        self.why = str(error)
        self._is_querying = False
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._client.loop.later(0 if self._is_stale else POLL_INTERVAL, self._again)

    def _again(self) -> None:
        if not self._is_querying:
            self._query()


def main_wait(args: Args) -> int:
    if not args.target:
        raise UsageError("missing -t TARGET: what to wait for")
    path = join_targets(args.target)
    if any(step.startswith(ANY) for step in path[:-1]):
        raise UsageError(f"{format_path(path)}: any/NAME must be the last element of the path")
    try:
        limit = parse_duration(args.timeout) if args.timeout is not None else None
    except ValueError as error:
        raise UsageError(f"--timeout: {error}") from None
    state: dict[str, Any] = {"late": False}

    def steps(client: Client, done: Callable[[], None]) -> None:
        def over() -> None:
            state["late"] = True
            done()

        if limit is not None:
            client.loop.later(limit, over)
        state["waiter"] = _Waiter(client, path, done)

    ask(args.socket, steps, args.wait, for_names=False, limit=limit)  # _Waiter retries
    if state["late"]:
        what = f"{format_path(path)}: not available within {args.timeout}"
        print(f"r2-wait: {what}: {state['waiter'].why}", file=sys.stderr)
        return FAILED
    return OK

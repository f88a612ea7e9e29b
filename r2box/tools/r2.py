"""r2: ask nodes what they are connected to, and whether they are there (ls, ping, trace)."""

from __future__ import annotations

import os
import sys

from ..command import Argument, Command, Option
from ..errors import FAILED, OK, RefusedError, UsageError
from ..net import socketfile
from ..net.client import Client, ask
from ..proto import body as say
from ..proto.address import MAX_HOPS, check_address, format_path, join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..command import Args
    from ..net.loop import Timer

JSON = Option(("--json",), "as JSON, one object a line", kind="flag")

R2 = Command(
    "r2",
    "talk to the local node, and through it to others",
    arguments=[Argument("COMMAND", "one of the commands, with its own options and arguments", rest=True)],
    description=(
        "The options below come before the command.  -t names the node or service that is meant, as the way to it: "
        "-t carl -t bob -t sshd is the same as -t carl/bob/sshd; without it the local node is meant.\n\n"
        "The control socket is -s, else R2_SOCKET, else /run/r2.sock for root and /run/user/UID/r2.sock for others, "
        "else $XDG_STATE_HOME/r2/r2.sock."
    ),
    examples=[("r2 -t bob ls", "what the neighbour bob is connected to")],
    statuses=[("0", "done"), ("1", "failed"), ("2", "wrong usage")],
    seealso=["r2box(1)", "r2d(8)", "r2dm(8)", "r2-connect(1)", "r2-serve(1)", "r2-tunnel(1)", "r2-ssh(1)"],
)
LS = Command(
    "r2 ls",
    "list what a node is connected to",
    options=[
        Option(("-l", "--long"), "with what each one is", kind="flag"),
        Option(("-a", "--all"), "clients of the node's control socket too", kind="flag"),
        Option(("-R", "--recursive"), "the whole network, with the way to each", kind="flag"),
        JSON,
    ],
    examples=[("r2 ls -R", "every node that can be reached, with the way to each")],
    statuses=[("0", "done"), ("1", "the node cannot be reached"), ("2", "wrong usage")],
    seealso=["r2(1)"],
)
PING = Command(
    "r2 ping",
    "measure round trips to a node",
    options=[
        Option(("-c", "--count"), "stop after N round trips", "N", kind="int"),
        Option(("-i", "--interval"), "wait S seconds between them", "S", kind="float", default=1.0),
        Option(("-W", "--timeout"), "wait S seconds for an answer", "S", kind="float", default=5.0),
    ],
    examples=[("r2 -t bob ping -c 3", "three round trips to the neighbour bob")],
    statuses=[("0", "at least one answer"), ("1", "no answer"), ("2", "wrong usage")],
    seealso=["r2(1)"],
)
TRACE = Command(
    "r2 trace",
    "measure the round trip to every node on a way",
    options=[Option(("-W", "--timeout"), "wait S seconds for an answer", "S", kind="float", default=5.0)],
    examples=[("r2 -t carl/bob trace", "to carl, then to bob by way of carl")],
    statuses=[("0", "the whole way answered"), ("1", "it did not"), ("2", "wrong usage")],
    seealso=["r2(1)"],
)
COMMANDS = (LS, PING, TRACE)

MAX_NODES = 10_000  # that `ls -R` visits
MAX_ENTRIES = 100_000  # of one node that are listed
PATIENCE = 10.0  # seconds for an answer


def socket_of(args: Args) -> str:
    return str(args.socket or socketfile.default_path())


# -- ls ---------------------------------------------------------------------------------------------------------------


def list_node(
    client: Client,
    path: tuple[str, ...],
    clients: bool,
    done: Callable[[str, list[dict[str, Any]]], None],
    failed: Callable[[RefusedError], None],
) -> None:
    """All entries of the node at `path`, page by page: done(its address, entries), or failed(why)."""
    entries: list[dict[str, Any]] = []

    def ask_for(start: int) -> None:
        def page(body: say.Body, _: tuple[int, ...]) -> None:
            timer.cancel()
            client.forget(id_)
            if body.kind != say.LISTING:
                failed(RefusedError(body["text"] if body.kind == say.ERROR else "an answer that is no listing"))
                return
            entries.extend(say.ENTRY.decode(entry) for entry in body["entries"])
            if start < body["next"] <= MAX_ENTRIES:
                ask_for(body["next"])
            else:
                done(body["address"], entries)

        def missed() -> None:
            client.forget(id_)
            failed(RefusedError(f"{format_path(path) or 'the daemon'}: no answer within {PATIENCE:.0f} s"))

        id_ = client.request(say.LIST, page, path, clients=int(clients), start=start)
        timer = client.loop.later(PATIENCE, missed)

    ask_for(0)


def give_up(error: RefusedError) -> None:
    raise error


def main_ls(args: Args) -> int:
    path = join_targets(args.target)
    if args.recursive:
        return _list_all(args, path)

    def steps(client: Client, done: Callable[[], None]) -> None:
        def show(_: str, entries: list[dict[str, Any]]) -> None:
            for entry in entries:
                _show_entry(args, entry, entry["name"])
            done()

        list_node(client, path, args.all, show, give_up)

    ask(socket_of(args), steps)
    return OK


def _show_entry(args: Args, entry: dict[str, Any], shown: str) -> None:
    if args.json:
        import json

        print(json.dumps({**entry, "path": shown}))
    elif args.long:
        print(f"{entry['kind']:<8} {shown:<24} {entry['detail']}".rstrip())
    else:
        print(shown)


def _list_all(args: Args, start: tuple[str, ...]) -> int:
    """Ask node after node, nearest first; a node that several ways lead to is shown by the shortest."""
    seen: set[str] = set()
    queue: list[tuple[str, ...]] = [start]
    failures: list[str] = []

    def steps(client: Client, done: Callable[[], None]) -> None:
        def visit() -> None:
            if not queue or len(seen) > MAX_NODES:
                done()
                return
            path = queue.pop(0)

            def show(address: str, entries: list[dict[str, Any]]) -> None:
                seen.add(address)
                for entry in entries:
                    if entry["kind"] == "node":
                        if entry["name"] in seen or len(path) >= MAX_HOPS:
                            continue
                        check_address(entry["name"])  # a node that lies about that ends the listing
                        seen.add(entry["name"])
                        queue.append((*path, entry["name"]))
                    _show_entry(args, entry, format_path((*path, entry["name"])))
                visit()

            def failed(error: RefusedError) -> None:
                failures.append(str(error))
                visit()

            list_node(client, path, args.all, show, failed)

        visit()

    ask(socket_of(args), steps)
    for text in failures:
        print(f"r2-ls: {text}", file=sys.stderr)
    return FAILED if failures else OK


# -- ping and trace ---------------------------------------------------------------------------------------------------


class Pinger:
    """Round trips to one node, one after the other."""

    def __init__(self, client: Client, path: tuple[str, ...], timeout: float) -> None:
        self._client = client
        self._path = path
        self._timeout = timeout

    def once(self, answered: Callable[[float | None, str], None]) -> None:
        """One round trip: answered(seconds, "") or answered(None, why)."""
        loop = self._client.loop
        sent = loop.now()
        timer: list[Timer] = []

        def heard(body: say.Body, _: tuple[int, ...]) -> None:
            timer[0].cancel()
            self._client.forget(id_)
            if body.kind != say.PONG:
                answered(None, body["text"] if body.kind == say.ERROR else "an answer that is no echo")
            else:
                answered(loop.now() - sent, "")

        def missed() -> None:
            self._client.forget(id_)
            answered(None, f"no answer within {self._timeout:g} s")

        timer.append(loop.later(self._timeout, missed))
        id_ = self._client.request(say.PING, heard, self._path, data=os.urandom(16))


def main_ping(args: Args) -> int:
    if args.count is not None and args.count < 1:
        raise UsageError("-c: at least one")
    if args.interval < 0 or args.timeout <= 0:
        raise UsageError("-i and -W are times in seconds")
    path = join_targets(args.target)
    name = format_path(path) or "the local node"
    times: list[float] = []
    sent = [0]

    def steps(client: Client, done: Callable[[], None]) -> None:
        import signal

        pinger = Pinger(client, path, args.timeout)

        def answered(seconds: float | None, why: str) -> None:
            if seconds is None:
                print(f"r2-ping: {why}", file=sys.stderr)
            else:
                times.append(seconds * 1000)
                if not args.quiet:
                    print(f"answer from {name}: seq={sent[0]} time={times[-1]:.3f} ms", flush=True)
            if args.count and sent[0] >= args.count:
                done()
            else:
                client.loop.later(args.interval, once)

        def once() -> None:
            sent[0] += 1
            pinger.once(answered)

        for number in (signal.SIGINT, signal.SIGTERM):
            client.loop.on_signal(number, done)
        once()

    ask(socket_of(args), steps)
    _summary(name, sent[0], times)
    return OK if times else FAILED


def _summary(name: str, sent: int, times: list[float]) -> None:
    print(f"--- {name}: {sent} sent, {len(times)} answered, {100 * (sent - len(times)) // max(sent, 1)}% lost")
    if times:
        mean = sum(times) / len(times)
        deviation = (sum((time - mean) ** 2 for time in times) / len(times)) ** 0.5
        print(f"round trip min/avg/max/mdev = {min(times):.3f}/{mean:.3f}/{max(times):.3f}/{deviation:.3f} ms")


def main_trace(args: Args) -> int:
    path = join_targets(args.target)
    result = [OK]

    def steps(client: Client, done: Callable[[], None]) -> None:
        def hop(length: int) -> None:
            def answered(seconds: float | None, why: str) -> None:
                name = format_path(path[:length]) or "the local node"
                print(f"{length:>2}  {name:<32} " + (f"{seconds * 1000:.3f} ms" if seconds is not None else why))
                if seconds is None:
                    result[0] = FAILED
                if seconds is None or length == len(path):
                    done()
                else:
                    hop(length + 1)

            Pinger(client, path[:length], args.timeout).once(answered)

        hop(0)

    ask(socket_of(args), steps)
    return result[0]

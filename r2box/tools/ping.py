"""r2 ping and r2 trace: round trips to a node, and to each node on the path to it."""

from __future__ import annotations

import os
import sys

from ..cli.command import JSON, Command, Option
from ..cli.output import print_json
from ..errors import FAILED, OK, UsageError
from ..net.client.client import Client, ask
from ..net.client.query import PATH_FIELD, give_up, spell_out
from ..proto.wire import messages
from ..proto.wire.address import ANY, SERVICE, format_path, join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cli.command import Args
    from ..net.io.loop import Timer

PING = Command(
    "r2 ping",
    "measure round trips to a node",
    options=[
        Option(("-c", "--count"), "stop after N round trips", "N", kind="int"),
        Option(("-i", "--interval"), "wait S seconds between them", "S", kind="float", default=1.0),
        Option(("-W", "--timeout"), "wait S seconds for an answer", "S", kind="float", default=5.0),
        JSON,
    ],
    examples=[("r2 -t bob ping -c 3", "three round trips to the node bob")],
    json=[
        PATH_FIELD,
        ("seq", "number", "sequence number, from 1"),
        ("rtt", "number or null", "the round trip in seconds; null without an answer"),
        ("error", "text", "why there was no answer, or empty"),
    ],
    statuses=[("0", "at least one answer"), ("1", "no answer"), ("2", "wrong usage")],
    seealso=["r2(1)"],
)
TRACE = Command(
    "r2 trace",
    "measure the round trip to each node of a path",
    options=[
        Option(("-W", "--timeout"), "wait S seconds for an answer", "S", kind="float", default=5.0),
        JSON,
    ],
    description="The name of a node that is not a neighbour is first resolved to the route that a tunnel would "
                "take.",
    examples=[("r2 trace -t carl", "the round trip to each node on the route to carl")],
    json=[
        ("hop", "number", "0 for the local node"),
        PATH_FIELD,
        ("rtt", "number or null", "the round trip in seconds; null without an answer"),
        ("error", "text", "why there was no answer, or empty"),
    ],
    statuses=[("0", "every node answered"), ("1", "a node did not answer"), ("2", "wrong usage")],
    seealso=["r2(1)"],
)


class Pinger:
    """Measures round trips to one node, one at a time."""

    def __init__(self, client: Client, path: tuple[str, ...], timeout: float) -> None:
        self._client = client
        self._path = path
        self._timeout = timeout

    def once(self, answered: Callable[[float | None, str], None]) -> None:
        """Measure one round trip; call answered(seconds, "") or answered(None, why)."""
        loop = self._client.loop
        sent = loop.now()
        timer: list[Timer] = []

        def received(body: messages.Body, _: tuple[int, ...]) -> None:
            timer[0].cancel()
            self._client.forget(id_)
            if body.kind != messages.PONG:
                answered(None, body["text"] if body.kind == messages.ERROR else "unexpected response")
            else:
                answered(loop.now() - sent, "")

        def timed_out() -> None:
            self._client.forget(id_)
            answered(None, f"no answer within {self._timeout:g} s")

        timer.append(loop.later(self._timeout, timed_out))
        id_ = self._client.request(messages.PING, received, self._path, data=os.urandom(16))


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
            if seconds is not None:
                times.append(seconds * 1000)
            _show_answer(args, name, sent[0], seconds, why)
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

    ask(args.socket, steps, args.wait)
    if not args.json:
        _summary(name, sent[0], times)
    return OK if times else FAILED


def _show_answer(args: Args, name: str, seq: int, seconds: float | None, why: str) -> None:
    time = None if seconds is None else seconds * 1000
    if args.json:
        print_json(path=format_path(join_targets(args.target)), seq=seq, rtt=seconds, error=why)
    elif time is None:
        print(f"r2-ping: {why}", file=sys.stderr)
    elif not args.quiet:
        print(f"answer from {name}: seq={seq} time={time:.3f} ms", flush=True)


def _summary(name: str, sent: int, times: list[float]) -> None:
    print(f"--- {name}: {sent} sent, {len(times)} answered, {100 * (sent - len(times)) // max(sent, 1)}% lost")
    if times:
        mean = sum(times) / len(times)
        deviation = (sum((time - mean) ** 2 for time in times) / len(times)) ** 0.5
        print(f"round trip min/avg/max/mdev = {min(times):.3f}/{mean:.3f}/{max(times):.3f}/{deviation:.3f} ms")


def main_trace(args: Args) -> int:
    target = join_targets(args.target)
    result = [OK]

    def steps(client: Client, done: Callable[[], None]) -> None:
        def begin(path: tuple[str, ...]) -> None:
            if path and path[-1].startswith(SERVICE):
                path = path[:-1]  # nodes answer pings, services do not
            hop(path, 0)

        def hop(path: tuple[str, ...], length: int) -> None:
            def answered(seconds: float | None, why: str) -> None:
                if 0 < length == len(path) and "is a service;" in why:  # a service without the prefix service/
                    done()
                    return
                time = None if seconds is None else seconds * 1000
                name = format_path(path[:length])
                if args.json:
                    print_json(hop=length, path=name, rtt=seconds, error=why)
                else:
                    print(f"{length:>2}  {name or client.address:<32} {why if time is None else f'{time:.3f} ms'}")
                if time is None:
                    result[0] = FAILED
                if time is None or length == len(path):
                    done()
                else:
                    hop(path, length + 1)

            Pinger(client, path[:length], args.timeout).once(answered)

        spell_out(client, target, begin, give_up)

    if target and target[0].startswith(ANY) and len(target) > 1:
        raise UsageError(f"{target[0]}: is a service: it must be the last element of the path")
    ask(args.socket, steps, args.wait)
    return result[0]

"""r2-connect: make a link."""

from __future__ import annotations

import signal

from ..command import Argument, Command, Option
from ..errors import FAILED, OK, UsageError
from ..net import socketfile
from ..net.client import Client
from ..net.connector import Connector
from ..net.log import Log
from ..net.loop import Loop
from ..net.transport import STDIO, parse_transport
from ..proto.address import check_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..command import Args

COMMAND = Command(
    "r2-connect",
    "make a link between the local node and another",
    arguments=[Argument("TRANSPORT", "a command, - for stdin and stdout, tcp://HOST:PORT or tcp-listen://HOST:PORT")],
    options=[Option(("-n", "--node"), "refuse any neighbour but NODE", "NODE")],
    aliases=["r2 connect"],
    description=(
        "Runs TRANSPORT and gives its stdin and stdout to the daemon, which speaks to the daemon at the other end.  "
        "r2-connect stays until the link ends, to say how it went.  tcp-listen makes a link of every connection.\n\n"
        "In a command that starts other programs itself, a lone dash behind exec: or system:, or the word -%, is "
        "replaced by the command that makes a link to this daemon."
    ),
    examples=[
        ('r2 connect -n bob "ssh bob r2 connect -"', "link to the node of another host, over ssh"),
        ("socat tcp-l:47210,fork exec:\"r2 connect -\"", "take links from anybody"),
    ],
    statuses=[("0", "the link ended in good order"), ("1", "it could not be made, or broke"), ("2", "wrong usage")],
    seealso=["r2(1)", "r2d(8)", "r2-serve(1)", "r2-tunnel(1)"],
)


def main(args: Args) -> int:
    if args.target:
        raise UsageError("a link is made by the local node: -t has no meaning here (-n names the neighbour)")
    transport = parse_transport(args.transport)
    expect = check_address(args.node) if args.node else ""
    path = args.socket or socketfile.default_path()
    log = Log("r2-connect", args.verbose - 2 * args.quiet)
    loop = Loop()
    state = {"status": OK, "stopping": False}

    def linked(address: str) -> None:
        log.info(f"linked to {address}")

    def ended(why: str, _: bool) -> None:
        # A ^C reaches our command too, which may be heard of before our own signal is.  Two rounds on, it has been.
        if transport.kind == STDIO:
            over(why)
        else:
            loop.soon(lambda: loop.soon(lambda: over(why)))

    def over(why: str) -> None:
        # Whoever gave us our stdio may send us SIGTERM when the link ends; the reason is news all the same.
        if why and (transport.kind == STDIO or not state["stopping"]):
            log.error(f"{transport}: {why}" if transport.text != "-" else why)
            state["status"] = FAILED
        loop.stop()

    def gone(why: str) -> None:
        if not state["stopping"]:
            log.error(f"{path}: the daemon went away: {why}")
            state["status"] = FAILED
            stop()

    def ready() -> None:
        try:
            connector.start()
        except OSError as error:
            ended(error.strerror or str(error), False)

    def stop() -> None:
        if not state["stopping"]:
            state["stopping"] = True
            client.leave(connector.end)

    client = Client(loop, socketfile.connect(path).detach(), ready=ready, gone=gone)
    connector = Connector(loop, log, client, transport, path, expect, linked, ended)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.on_signal(number, stop)
    loop.run()
    return state["status"]

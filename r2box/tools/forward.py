"""r2-forward: bring a service of another node to a port of this host."""

from __future__ import annotations

from ..cli.command import Argument, Command, Option
from ..errors import FAILED, OK, UsageError
from ..net.client.job_run import forward
from ..net.io.log import INFO, Log
from ..net.transport.transport import explain, parse_transport, summary
from ..net.transport.urls import FORWARD, URL_HELP
from ..proto.wire.address import join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.command import Args

COMMAND = Command(
    "r2-forward",
    "forward a local port to a service of another node",
    arguments=[
        Argument("TRANSPORT", summary(FORWARD)),
        Argument("MORE", "more of them", required=False, rest=True, mixed=True),
    ],
    options=[Option(("--retry",), "if the daemon ends, wait for it to restart", kind="flag")],
    aliases=["r2 forward"],
    description=(
        "Listens at TRANSPORT and opens a tunnel to the service at TARGET for each connection, until it is "
        "terminated.  The default HOST is loopback; 0.0.0.0 is all addresses of this host.  With port 0 the "
        "system chooses a port; stderr shows it.\n\n"
        "Half-close is passed on: when one direction ends, the other stays open.  A connection whose tunnel is "
        "refused or fails is reset; on a UNIX socket this is an end of file.  A slow reader slows the sender "
        "down.  At most 4096 connections are served at a time; others wait.\n\n"
        "Without --retry, r2-forward and its connections end with the daemon.  With --retry, connections are "
        "reset while there is no daemon.\n\n" + URL_HELP
    ),
    examples=[
        ("r2 -t bob -t web forward tcp-listen://127.0.0.1:8080", "and then: curl http://127.0.0.1:8080/"),
        ("r2 -t any/db forward unix-listen://db.sock", "the nearest service db, at a UNIX socket"),
    ],
    lists=explain(FORWARD),
    statuses=[
        ("0", "ended by SIGTERM or SIGINT"),
        ("1", "it cannot listen, or the daemon ended"),
        ("2", "wrong usage"),
    ],
    seealso=["r2(1)", "r2-serve(1)", "r2-tunnel(1)", "r2.toml(5)"],
)


def main(args: Args) -> int:
    words = [args.transport, *(args.more or ())]
    transports = [parse_transport(word).check_use(FORWARD) for word in words]
    if not args.target:
        raise UsageError("which service? (-t NODE -t SERVICE)")
    log = Log("r2-forward", INFO + args.verbose - 2 * args.quiet)
    path = join_targets(args.target)
    return OK if forward(log, args.socket, transports, path, retry=args.retry, wait=args.wait) else FAILED

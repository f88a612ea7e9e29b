"""r2-forward: bring a service of another node to a port of this host."""

from __future__ import annotations

from ..cli.command import Argument, Command, Option
from ..errors import FAILED, OK, UsageError
from ..net.client.forward_job import Forwarding
from ..net.io.log import INFO, Log
from ..net.transport.transport import explain, parse_transport, summary
from ..net.transport.urls import FORWARD, URL_HELP
from ..proto.wire.address import join_targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.command import Args

COMMAND = Command(
    "r2-forward",
    "bring a service of another node to a port of this host",
    arguments=[
        Argument("TRANSPORT", summary(FORWARD)),
        Argument("MORE", "further ones", required=False, rest=True, mixed=True),
    ],
    options=[Option(("--retry",), "if the daemon goes away, wait for it to come back", kind="flag")],
    aliases=["r2 forward"],
    description=(
        "Makes a tunnel to the service at TARGET of every connection, until it is ended.  A HOST that is missing is "
        "the loopback, 0.0.0.0 every address of this host.  With port 0 the system chooses one; stderr says which.\n\n"
        "The end of either direction is passed on and leaves the other one open.  A connection that is refused at the "
        "other end, or whose tunnel fails, is reset; a UNIX socket shows that as an end.  Who is slow to read slows "
        "the other end down.  Beyond 4096 connections, more wait.\n\n"
        "Without --retry it ends when the daemon does, and so do its connections; with --retry connections are reset "
        "while there is none.\n\n" + URL_HELP
    ),
    examples=[
        ("r2 -t bob -t web forward tcp-listen://127.0.0.1:8080", "and then: curl http://127.0.0.1:8080/"),
        ("r2 -t any/db forward unix-listen://db.sock", "the nearest service db, at a UNIX socket"),
    ],
    lists=explain(FORWARD),
    statuses=[
        ("0", "ended by SIGTERM or SIGINT"),
        ("1", "it cannot listen, or the daemon went away"),
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
    return OK if Forwarding(log, args.socket, transports, path, args.retry, args.wait).run() else FAILED

"""r2-serve: offer a service."""

from __future__ import annotations

from ..cli.command import Argument, Command, Option
from ..errors import FAILED, OK, AddressError, R2Error, UsageError
from ..net.client.client import Client
from ..net.client.reach import reach
from ..net.client.service_job import Server
from ..net.io.log import INFO, Log
from ..net.io.loop import Loop
from ..net.io.process import raise_file_limit
from ..net.transport.transport import explain, parse_transport, service_name, summary
from ..net.transport.urls import DATAGRAMS_HELP, EXEC_HELP, SERVE, URL_HELP
from ..proto.wire.address import SERVICE, check_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.command import Args

COMMAND = Command(
    "r2-serve",
    "offer a program as a service of the local node",
    arguments=[Argument("TRANSPORT", summary(SERVE))],
    options=[
        Option(("-n", "--name"), "name of the service (default: base name of the command)", "NAME"),
        Option(("--allow",), "accept only tunnels whose origin matches PATTERN", "PATTERN", kind="list"),
        Option(("--private",), "do not advertise the service, or list it for other nodes", kind="flag"),
        Option(("--datagrams",), "each read and write of the command is one datagram", kind="flag"),
    ],
    aliases=["r2 serve"],
    description=(
        "Each tunnel to the service runs the command once, with the tunnel as its stdin and stdout; its stderr "
        "is that of r2-serve.  Its environment has R2_ORIGIN (the origin of the tunnel: the path back to the "
        "client, nearest node first), R2_SERVICE, R2_NODE and R2_SOCKET.\n\n"
        "When a tunnel fails, or r2-serve or the daemon ends or is killed, the process group of its command "
        "gets SIGHUP, SIGTERM after 5 seconds, and SIGKILL after 5 more.  A second SIGTERM to r2-serve sends "
        "SIGKILL at once.  A command that exits may leave processes behind; a process that must outlive its "
        "tunnel leaves the group (setsid(1)).\n\n"
        "A service runs at most 1,024 commands at a time, and at most 512 for one neighbour of the node.  "
        "Further tunnels are refused with 'retry later'.\n\n"
        "Stdin and stdout are two sockets.  A program written for inetd may write to its stdin and close its "
        "stdout.  A filter may close its stdout and continue to read; this ends the output of the tunnel, "
        "after 2 seconds if it has not written anything.\n\n"
        "A URL is opened once for each tunnel.  " + EXEC_HELP + URL_HELP + "\n\n" + DATAGRAMS_HELP + "\n\n"
                                                                                                     "The "
                                                                                                     "service "
                                                                                                     "is "
                                                                                                     "offered "
                                                                                                     "until "
                                                                                                     "r2-serve "
                                                                                                     "ends.  "
                                                                                                     "PATTERN "
                                                                                                     "is "
                                                                                                     "matched "
                                                                                                     "against "
                                                                                                     "R2_ORIGIN"
                                                                                                     " and may "
                                                                                                     "contain "
                                                                                                     "the "
                                                                                                     "shell's "
                                                                                                     "* and ?: "
                                                                                                     "bob "
                                                                                                     "matches "
                                                                                                     "the node "
                                                                                                     "bob and "
                                                                                                     "the "
                                                                                                     "programs "
                                                                                                     "on it; "
                                                                                                     "bob/* "
                                                                                                     "matches "
                                                                                                     "what "
                                                                                                     "comes "
                                                                                                     "through "
                                                                                                     "bob."
    ),
    examples=[
        ('r2 serve "sshd -i"', "let other nodes log in by r2-ssh NODE"),
        ('r2 serve "rsync --daemon"', "RSYNC_CONNECT_PROG='r2 -t NODE/rsync tunnel -' rsync rsync://NODE/MODULE/"),
        ("r2 serve -n web tcp://[::1]:80", "offer a port of this host as the service web"),
    ],
    statuses=[
        ("0", "ended by SIGTERM or SIGINT"), ("1", "the daemon refused the service, or ended"), ("2", "wrong usage"),
    ],
    seealso=["r2(1)", "r2d(8)", "r2-forward(1)", "r2-ssh(1)", "r2-tunnel(1)"],
    environment=[("R2_ORIGIN, R2_SERVICE, R2_NODE", "set for the command, as described above; and R2_SOCKET, "
                                                    "the control socket of this daemon")],
    lists=explain(SERVE),
    local=True,
)


CLIENTS_FIRST = 1.0  # seconds, which they may need on a busy host


def _default_name(text: str) -> str:
    try:
        return service_name(text)
    except AddressError as error:
        raise UsageError(f"{text}: give the service a name (-n NAME): {error}") from None


def main(args: Args) -> int:
    if args.target:
        raise UsageError("-t is not supported: the local node offers the service")
    transport = parse_transport(args.transport).check_use(SERVE)
    name = check_address(args.name if args.name is not None else _default_name(args.transport))
    sock, path = reach(args.socket, args.wait)
    log = Log("r2-serve", INFO + args.verbose - 2 * args.quiet)
    raise_file_limit()
    loop = Loop()
    result = {"status": OK, "ending": False}

    def ready() -> None:
        log.info(f"{client.address + ': ' if client.address else ''}offering {SERVICE}{name}")

    def failed(error: R2Error) -> None:
        log.error(str(error))
        result["status"] = FAILED
        stop()

    def gone(why: str) -> None:
        if result["ending"]:
            return
        log.error(f"{path}: {why}")
        result["status"] = FAILED
        # Local tunnels have lost the daemon too: their r2-tunnel is to hear of it from us last, as an end of file.
        loop.later(CLIENTS_FIRST, lambda: server.end(loop.stop))

    def abort() -> None:
        server.kill_all()
        loop.stop()

    def silent(why: str) -> None:
        log.error(f"{path}: {why}")
        result["status"] = FAILED

    def stop() -> None:
        if not result["ending"]:
            result["ending"] = True
            client.leave(lambda: server.end(loop.stop), silent)

    server = Server(loop, log, name, transport, path, ready, failed, tuple(args.allow), args.private, args.datagrams)
    client = Client(
        loop,
        sock.detach(),
        ready=lambda: server.offer(client),
        gone=gone,
        event=server.event,
    )
    loop.on_end(stop, abort)
    loop.run()
    return result["status"]

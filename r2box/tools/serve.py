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
        Option(("-n", "--name"), "the service's name; without it the base name of the command", "NAME"),
        Option(("--allow",), "only tunnels whose origin matches PATTERN", "PATTERN", kind="list"),
        Option(("--private",), "tell no other node of it: who knows the name can use it", kind="flag"),
        Option(("--datagrams",), "each read and write of the command is one packet", kind="flag"),
    ],
    aliases=["r2 serve"],
    description=(
        "Every tunnel to the service runs the command once, with the tunnel as its stdin and stdout; what it writes to "
        "stderr comes out here.  In its environment are R2_ORIGIN (the way back to who is at the other end, nearest "
        "node first), R2_SERVICE, R2_NODE and R2_SOCKET.\n\n"
        "When a tunnel fails, or r2-serve or the daemon ends, the process group of its command gets SIGHUP, after 5 "
        "seconds SIGTERM and after 5 more SIGKILL, also when r2-serve or the daemon was killed (a second SIGTERM to "
        "r2-serve sends SIGKILL at once).  A command that exits by itself may leave processes behind; one that shall "
        "outlive its tunnel in any case leaves the group (setsid(1)).\n\n"
        "A service runs 1,024 commands at once, and those for one neighbour of the node are 512 at most.  A tunnel "
        "beyond that is refused, and 'retry later' said.\n\n"
        "Stdin and stdout are two sockets.  A program made for inetd may write to its stdin too, and close its stdout; "
        "a filter may close its stdout and read on, which ends the output of the tunnel, after 2 seconds if nothing "
        "was written before.\n\n"
        "A URL is opened once for each tunnel.  " + EXEC_HELP + URL_HELP + "\n\n" + DATAGRAMS_HELP + "\n\n"
        "The service is offered until r2-serve ends.  PATTERN is a path as in R2_ORIGIN, with the shell's * and ?: bob "
        "is bob and the programs on bob's node; what comes through bob needs bob/*."
    ),
    examples=[
        ('r2 serve "sshd -i"', "let other nodes log in: r2-ssh NODE"),
        ('r2 serve "rsync --daemon"', "RSYNC_CONNECT_PROG='r2 -t NODE/rsync tunnel -' rsync rsync://NODE/MODULE/"),
        ("r2 serve -n web tcp://[::1]:80", "a port of this host, as the service web"),
    ],
    statuses=[("0", "ended by SIGTERM or SIGINT"), ("1", "the daemon refused or went away"), ("2", "wrong usage")],
    seealso=["r2(1)", "r2d(8)", "r2-forward(1)", "r2-ssh(1)", "r2-tunnel(1)"],
    environment=[("R2_ORIGIN, R2_SERVICE, R2_NODE", "set for the command, as said above; and R2_SOCKET, to reach the "
                  "same daemon")],
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
        raise UsageError("a service is offered by the local node: -t has no meaning here")
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

"""r2-serve: offer a service."""

from __future__ import annotations

from ..cli.command import Argument, Command, Option
from ..errors import AddressError, UsageError
from ..net.client.job_run import JobRun
from ..net.client.service_job import ServiceJob
from ..net.io.log import INFO, Log
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
        "The service is offered until r2-serve ends.  PATTERN is matched against R2_ORIGIN and may contain "
        "the shell's * and ?: bob matches the node bob and the programs on it; bob/* matches what comes "
        "through bob."
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
    log = Log("r2-serve", INFO + args.verbose - 2 * args.quiet)
    # The tools of local tunnels have lost the daemon too: they learn of it before we end their programs.
    run = JobRun(log, args.socket, args.wait, end_delay=CLIENTS_FIRST)
    raise_file_limit()

    def ready() -> None:
        address = run.client.address if run.client is not None else ""
        log.info(f"{address + ': ' if address else ''}offering {SERVICE}{name}")

    return run.run(ServiceJob(
        run.loop, log, name, transport, run.path, ready, lambda error: run.fail(str(error)), tuple(args.allow),
        args.private, args.datagrams,
    ))  # fmt: skip

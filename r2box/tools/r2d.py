"""r2d: the daemon, a node."""

from __future__ import annotations

import signal

from ..cli.background import Background
from ..cli.command import BACKGROUND, QUIET, SOCKET, USER, VERBOSE, Argument, Command
from ..cli.policy_options import OF_NODE, policy_of
from ..errors import OK
from ..net.daemon.daemon import Daemon
from ..net.daemon.systemd import ServiceManager
from ..net.io import copier  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..net.io.log import INFO, Log
from ..net.io.loop import Loop
from ..net.io.process import raise_file_limit
from ..net.io.signals import ignore_terminal
from ..net.link import endpoint  # noqa: F401  a daemon imports all it will need, before the file under it changes
from ..proto.limits import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.command import Args

COMMAND = Command(
    "r2d",
    "run a node",
    arguments=[Argument("ADDRESS", "the node's address: letters, digits and . _ : + -")],
    options=[VERBOSE, QUIET, SOCKET, USER, BACKGROUND, *OF_NODE],
    common=False,
    section=8,
    description=(
        "The daemon is the node: it maintains the links to its neighbours, the services of this host, and the "
        "tunnels that cross it.  Other tools connect to its control socket, which has mode 0600: only its "
        "owner can connect.\n\n"
        "Neighbours advertise to each other which nodes and services they reach, so a name is enough; "
        "--no-discover, --no-transit and --advertise restrict this on all links, and options of r2-connect(1) "
        "on one.\n\n"
        "A stale socket file is replaced; that of a running daemon is not.  On SIGTERM, SIGINT or SIGHUP the "
        "daemon delivers what it has accepted, closes its links and clients, removes the socket and exits.\n\n"
        "r2d runs in the foreground and logs to stderr.  With --background it returns 0 when the node is "
        "ready, or 1 when it cannot start; the node continues in a new session.  If stderr is a file, it still "
        "logs there; if it is a terminal or a pipe, it logs to syslog(3).\n\n"
        "At the limit of open files (ulimit -n; LimitNOFILE= of a unit) a new client, tunnel or link is "
        "refused with that reason; everything else continues.\n\n"
        "A supervisor such as systemd may pass the control socket (LISTEN_FDS) and is notified of the state of "
        "the node (NOTIFY_SOCKET, WATCHDOG_USEC); see r2-host(7).  With --user, only the control socket is "
        "created as root; links, services and devices are opened as USER."
    ),
    examples=[
        ("r2d alice", "run the node alice at the default socket"),
        ("r2d --background alice && r2 ls", "the same in a script"),
    ],
    statuses=[
        ("0", "ended by a signal; with --background, ready"),
        ("1", "the socket is in use or unsafe"),
        ("2", "wrong usage"),
    ],
    seealso=["r2(1)", "r2-connect(1)", "r2-serve(1)", "r2-tunnel(1)", "r2dm(8)", "r2-host(7)", "r2-protocol(7)"],
)


def main(args: Args) -> int:
    background = Background() if args.background else None
    raise_file_limit()
    ignore_terminal()
    loop = Loop()
    log = Log("r2d", INFO + args.verbose - 2 * args.quiet)
    loop.failed = log.bug
    supervisor = ServiceManager(loop)
    daemon = Daemon(loop, args.address, log, loop.stop, Limits())

    def end() -> None:
        supervisor.stopping()
        daemon.end()

    daemon.node.discovery.policy = policy_of(args)
    loop.on_kill((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), lambda number: end())
    supervisor.bind(log, args.socket, args.user)
    supervisor.listen(daemon)
    supervisor.ready(daemon.summary())
    if background is not None:
        background.ready(log)
    loop.run()
    loop.close()
    return OK


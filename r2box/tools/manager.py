"""r2dm: a node from a TOML file: the daemon and the jobs of the file, in one process."""

from __future__ import annotations

import signal

from ..cli.background import Background
from ..cli.command import BACKGROUND, QUIET, USER, VERBOSE, Command, Option
from ..config.parse import load
from ..errors import OK, UsageError
from ..net.daemon.systemd import ServiceManager
from ..net.io.log import INFO, Log
from ..net.io.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.command import Args

COMMAND = Command(
    "r2dm",
    "run a node from a configuration file",
    options=[
        Option(("-f", "--file"), "the configuration file", "CONFIG", needed=True),
        Option(("--check",), "check the configuration and exit", kind="flag"),
        VERBOSE,
        QUIET,
        USER,
        BACKGROUND,
    ],
    common=False,
    section=8,
    description=(
        "Runs the daemon, the links of [[conn]], the services of [[serve]], the listeners of [[forward]], and "
        "the commands of [[task]] on events, in one process.  A link that ends is reconnected, first after 100 "
        "ms, then with increasing delays of at most 30 s.\n\n"
        "SIGHUP reloads the file: links, services and forwards that were added or removed are started or "
        "ended; others are not affected, except that links that wait for a retry reconnect at once.  If the "
        "file has an error, the reload changes nothing.  SIGTERM and SIGINT shut the node down cleanly.\n\n"
        "r2dm runs in the foreground and logs to stderr.  With --background it returns when each service and "
        "forward is ready or has been refused; see r2d(8).\n\n"
        "A supervisor such as systemd may pass the control socket (LISTEN_FDS) and is notified of the state of "
        "the node (NOTIFY_SOCKET, WATCHDOG_USEC); see r2-host(7).  With --user, r2dm creates the control "
        "socket and first reads the file as root; it opens links, services, forwards, tasks and devices as "
        "USER, who must be able to read the file for a reload."
    ),
    examples=[("r2dm -f ~/.config/r2/alice.toml", "run the node that alice.toml describes")],
    statuses=[
        ("0", "ended by SIGTERM or SIGINT; with --background, ready; with --check, the file is valid"),
        ("1", "the file has an error, or the socket is in use"),
        ("2", "wrong usage"),
    ],
    seealso=["r2.toml(5)", "r2d(8)", "r2(1)", "r2-connect(1)", "r2-serve(1)", "r2-host(7)"],
    environment=[("R2_SOCKET", "the control socket, unless CONFIG names one")],
    files=[("/etc/r2/NAME.toml, ~/.config/r2/NAME.toml", "configuration files, by convention")],
)


def main(args: Args) -> int:
    if not args.file:
        raise UsageError("missing -f CONFIG")
    config = load(args.file)
    log = Log("r2dm", INFO + args.verbose - 2 * args.quiet)
    background = Background() if args.background and not args.check else None
    supervisor = ServiceManager(Loop())
    if not args.check:
        # Clients wait at the socket while the rest is loaded, which takes seconds on a busy host; so do signals.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        supervisor.bind(log, config.socket, args.user, makes=bool(config.socket))
    from ..config.node_manager import NodeManager

    manager = NodeManager(config, args.file, log, supervisor, background.ready if background is not None else None)
    if not args.check:
        return manager.run()
    manager.build()
    counts = (
        ("link", len(config.conns)), ("service", len(config.serves)), ("task", len(config.tasks)),
        ("forward", len(config.forwards)),
    )  # fmt: skip
    jobs = ", ".join(f"{count} {what}{'s' * (count != 1)}" for what, count in counts)
    print(f"{args.file}: valid: node {config.addr}, {jobs}")
    return OK

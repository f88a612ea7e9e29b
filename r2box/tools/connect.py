"""r2-connect: make a link."""

from __future__ import annotations

import os
import signal

from ..cli.command import Argument, Command, Option
from ..cli.policy_options import OF_LINK, policy_of
from ..errors import FAILED, UsageError
from ..net.client.connector import LinkOptions
from ..net.client.job_run import JobRun
from ..net.client.link_job import LinkJob
from ..net.io.log import INFO, WARNING, Log
from ..net.io.signals import is_ignored
from ..net.io.units import parse_resume_timeout
from ..net.transport.transport import STDIO, explain, parse_transport, summary
from ..net.transport.urls import CONNECT, EXEC_HELP, GATHER, LISTEN, URL_HELP
from ..proto.wire.address import check_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.command import Args

COMMAND = Command(
    "r2-connect",
    "make a link between the local node and another",
    arguments=[Argument("TRANSPORT", summary(CONNECT))],
    options=[
        Option(("-n", "--node"), "accept only the neighbour NODE", "NODE"),
        Option(("--lossy",), "the transport may lose or corrupt bytes: retransmit", kind="flag"),
        Option(("--resume",), "resume timeout: how long tunnels survive a cut", "TIME", default="10m"),
        Option(("--retry",), "reconnect when the link ends", kind="flag"),
        *OF_LINK,
    ],
    aliases=["r2 connect"],
    description=(
        "Opens TRANSPORT and passes it to the daemon, which makes a link to the daemon at the other end.  "
        "r2-connect runs until the link ends, and reports why.  tcp-listen makes a link for each connection; "
        "without a HOST it listens at all addresses of this host.  With port 0 the system chooses a port; "
        "stderr and r2 status show it.\n\n"
        "With -, stdin and stdout must be connected to another r2; a terminal is refused.\n\n"
        "When the transport ends without a close of the link, or times out, the link is suspended and its "
        "tunnels wait.  The next link between the same two daemons, over any transport, resumes them without "
        "loss.  With --retry, r2-connect reconnects after 100 ms, then with increasing delays of at most 30 s; "
        "SIGHUP reconnects at once.\n\n"
        "The two nodes exchange routes and relay for others; --no-discover, --no-transit, --advertise and "
        "--accept restrict this.  A PATTERN may contain the shell's * and ?.\n\n"
        "Output that a command writes before the link begins, such as a banner, is shown on stderr and "
        "skipped, up to 4 KiB and for 10 s.\n\n"
        "If either side has --lossy, or a transport that is known to lose bytes, both retransmit what is "
        "lost.\n\n"
        "In a command that starts other programs, a lone dash after exec: or system:, or the word -%, is "
        "replaced by the command that makes a link to this daemon.\n\n" + EXEC_HELP + URL_HELP
    ),
    lists=explain(CONNECT),
    examples=[
        ('r2 connect -n bob "ssh bob r2 connect -"', "make a link to bob over ssh"),
        ('socat tcp-l:47210,fork exec:"r2 connect -"', "accept links from any node"),
    ],
    statuses=[("0", "the link was closed"), ("1", "the link could not be made, or failed"), ("2", "wrong usage")],
    seealso=["r2(1)", "r2d(8)", "r2-serve(1)", "r2-tunnel(1)"],
    local=True,
)


def main(args: Args) -> int:
    if args.target:
        raise UsageError("-t is not supported: the local node makes the link (-n names the neighbour)")
    transport = parse_transport(args.transport).check_use(CONNECT)
    if args.retry and (transport.kind == STDIO or transport.descriptors):
        raise UsageError("--retry: a descriptor can be used once; start r2 connect again for each link")
    if transport.kind == STDIO:
        _check_stdio()
    try:
        resume_timeout = parse_resume_timeout(args.resume)
    except ValueError as error:
        raise UsageError(f"--resume: {error}") from None
    expect = check_address(args.node) if args.node else ""
    options = LinkOptions(transport, expect, resume_timeout, args.lossy, policy_of(args))
    level = INFO if transport.how in (LISTEN, GATHER) else WARNING
    log = Log("r2-connect", max(level, args.verbose) - 2 * args.quiet)
    run = JobRun(log, args.socket, args.wait)
    job = LinkJob(run.loop, log, run.path, options) if args.retry else _single(run, log, options)
    had_terminal = os.isatty(2)
    is_immune = is_ignored(signal.SIGHUP)  # as nohup has it

    def hang_up() -> None:
        """SIGHUP: try again now; but when it is because the terminal was closed, end."""
        if args.retry and not (had_terminal and not os.isatty(2)):
            job.hurry()
        elif not is_immune:
            run.end()

    run.loop.on_signal(signal.SIGHUP, hang_up)
    return run.run(job)


def _single(run: JobRun, log: Log, options: LinkOptions) -> LinkJob:
    """A link that is made once, and whose end is the end of the run."""
    transport = options.transport
    is_stdio = transport.kind == STDIO

    def over(why: str) -> None:
        # The program that gave us our stdio may send SIGTERM when the link ends; the reason is reported all the same.
        if why and (is_stdio or not run.is_stopped):
            log.error(f"{transport}: {why}" if transport.text != "-" else why)
            run.status = FAILED
        run.loop.stop()

    def ended(why: str) -> None:
        # A ^C reaches our command too, whose exit may be noticed before our own signal.  Two rounds later, it has been.
        if is_stdio:
            over(why)
        else:
            run.loop.soon(lambda: run.loop.soon(lambda: over(why)))

    return LinkJob(
        run.loop, log, run.path, options, linked=lambda address: log.info(f"linked to {address}"), ended=ended
    )


def _check_stdio() -> None:
    """UsageError if stdin or stdout is a terminal for people.  (One in raw mode is a serial line.)"""
    for fd, name in ((0, "stdin"), (1, "stdout")):
        if os.isatty(fd):
            import termios

            if termios.tcgetattr(fd)[3] & termios.ICANON:
                raise UsageError(
                    f"-: {name} is a terminal, and a link needs another r2 there: let what reaches it start this "
                    "(ssh HOST r2 connect -), or give a TRANSPORT, such as tcp-listen://47210"
                )

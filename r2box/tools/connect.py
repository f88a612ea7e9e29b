"""r2-connect: make a link."""

from __future__ import annotations

import os
import signal

from ..cli.command import Argument, Command, Option
from ..cli.policy_options import OF_LINK, policy_of
from ..errors import FAILED, OK, UsageError
from ..net.client.client import Client
from ..net.client.job import Job
from ..net.client.link_job import Connector
from ..net.client.reach import reach
from ..net.client.reconnect import Reconnect
from ..net.io.log import INFO, WARNING, Log
from ..net.io.loop import Loop
from ..net.io.signals import is_ignored
from ..net.io.units import parse_resume_timeout
from ..net.transport.transport import STDIO, explain, parse_transport, summary
from ..net.transport.urls import CONNECT, EXEC_HELP, GATHER, LISTEN, URL_HELP
from ..proto.wire.address import check_address
from ..proto.wire.job_states import JobKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cli.command import Args
    from ..net.transport.transport import Transport

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
        raise UsageError("--retry: a descriptor can be used once; whoever starts this can start it again")
    if transport.kind == STDIO:
        _check_stdio()
    try:
        resume_timeout = parse_resume_timeout(args.resume)
    except ValueError as error:
        raise UsageError(f"--resume: {error}") from None
    expect = check_address(args.node) if args.node else ""
    return _Connect(args, transport, expect, resume_timeout).run()


def _check_stdio() -> None:
    """UsageError if somebody types at stdin or reads at stdout.  (A terminal in raw mode is a line like any other.)"""
    for fd, name in ((0, "stdin"), (1, "stdout")):
        if os.isatty(fd):
            import termios

            if termios.tcgetattr(fd)[3] & termios.ICANON:
                raise UsageError(
                    f"-: {name} is a terminal, and a link needs another r2 there: let what reaches it start this "
                    "(ssh HOST r2 connect -), or give a TRANSPORT, such as tcp-listen://47210"
                )


class _Connect:
    """One run of r2-connect."""

    def __init__(self, args: Args, transport: Transport, expect: str, resume_timeout: int) -> None:
        self._transport = transport
        self._expect = expect
        self._resume_timeout = resume_timeout
        self._lossy = args.lossy
        self._policy = policy_of(args)
        level = INFO if transport.how in (LISTEN, GATHER) else WARNING
        self._log = Log("r2-connect", max(level, args.verbose) - 2 * args.quiet)
        sock, self._path = reach(args.socket, args.wait)
        self._loop = Loop()
        self._job = Job(self._loop, JobKind.LINK, transport.text, expect)
        self._status = OK
        self._is_stopping = False
        self._had_terminal = os.isatty(2)
        self._is_immune = is_ignored(signal.SIGHUP)  # as nohup has it
        self._client = Client(self._loop, sock.detach(), ready=self._ready, gone=self._gone)
        self._reconnect: Reconnect | None = None
        self._connector: Connector | None = None
        if args.retry:
            name = expect or transport.text
            self._reconnect = Reconnect(self._loop, self._log, name, transport, self._job, self._make)
        self._loop.on_end(self._stop, self._abort)
        self._loop.on_signal(signal.SIGHUP, self._hang_up)

    def run(self) -> int:
        self._loop.run()
        return self._status

    def _make(self, linked: Callable[[str], None], ended: Callable[[str, bool], None]) -> Connector:
        return Connector(
            self._loop,
            self._log,
            self._client,
            self._transport,
            self._path,
            self._expect,
            linked,
            ended,
            self._job,
            resume_timeout=self._resume_timeout,
            lossy=self._lossy,
            policy=self._policy,
        )

    def _ready(self) -> None:
        self._job.use(self._client)
        if self._reconnect is not None:
            self._reconnect.start()
            return
        self._connector = self._make(lambda address: self._log.info(f"linked to {address}"), self._ended)
        try:
            self._connector.start()
        except OSError as error:
            self._ended(error.strerror or str(error), False)

    def _ended(self, why: str, _: bool) -> None:
        # A ^C reaches our command too, which may be heard of before our own signal is.  Two rounds on, it has been.
        if self._transport.kind == STDIO:
            self._over(why)
        else:
            self._loop.soon(lambda: self._loop.soon(lambda: self._over(why)))

    def _over(self, why: str) -> None:
        # Whoever gave us our stdio may send us SIGTERM when the link ends; the reason is news all the same.
        if why and (self._transport.kind == STDIO or not self._is_stopping):
            self._log.error(f"{self._transport}: {why}" if self._transport.text != "-" else why)
            self._status = FAILED
        self._loop.stop()

    def _gone(self, why: str) -> None:
        if not self._is_stopping:
            self._log.error(f"{self._path}: {why}")
            self._status = FAILED
            self._stop()

    def _hang_up(self) -> None:
        """SIGHUP: try again now; but when it is because the terminal is gone, end."""
        if self._reconnect is not None and not (self._had_terminal and not os.isatty(2)):
            self._reconnect.hurry()
        elif not self._is_immune:
            self._stop()

    def _stop(self) -> None:
        if self._is_stopping:
            return
        self._is_stopping = True
        if self._reconnect is not None:
            self._reconnect.stop()
        self._client.leave(self._end, self._silent)

    def _silent(self, why: str) -> None:
        self._log.error(f"{self._path}: {why}")
        self._status = FAILED

    def _abort(self) -> None:
        """It is to end at once: kill the command, as nothing else is left that would end it."""
        if self._reconnect is not None:
            self._reconnect.kill()
        elif self._connector is not None:
            self._connector.kill()
        self._loop.stop()

    def _end(self) -> None:
        if self._reconnect is not None:
            self._reconnect.end(self._loop.stop)
        elif self._connector is not None:
            self._connector.end()
        else:
            self._loop.stop()

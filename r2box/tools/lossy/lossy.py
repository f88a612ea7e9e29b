"""r2-lossy: a bad network on purpose, between a command and its stdio, or between ports."""

from __future__ import annotations

import os
import signal
import socket
import stat

from ...cli.command import Argument, Command, Option
from ...errors import FAILED, OK, SIGNALLED, R2Error, UsageError
from ...net.io import process
from ...net.io.channel import close_all, socketpair
from ...net.io.log import Log
from ...net.io.loop import Loop
from ...net.io.stdio import take_stdio
from ...net.transport.sockets import Dial, Listener
from ...net.transport.transport import COMMAND as RUN
from ...net.transport.transport import LINK_COMMAND, Transport, parse_transport
from ...net.transport.urls import CONNECT, DIAL, GATHER, LISTEN
from .line import BACK, BROKEN, CUT, OUT, Pair, Plan
from .model import FOREVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...cli.command import Args

MAX_CONNECTIONS = 64  # at a time; further ones are closed
GRACE = 2.0  # seconds for a command to end after a cut, and again after its hangup

COMMAND = Command(
    "r2-lossy",
    "simulate a bad network: loss, delay, corruption and cuts",
    arguments=[
        Argument("WHAT", "a command, or {udp,tcp}-listen://HOST:PORT"),
        Argument("TO", "the target of a listener: {udp,tcp}://HOST:PORT", required=False),
    ],
    options=[
        Option(("--loss",), "lose packets: 10% or 0.1", "RATE"),
        Option(("--duplicate",), "duplicate packets", "RATE"),
        Option(("--reorder",), "deliver packets after 1 to 3 later ones", "RATE"),
        Option(("--corrupt",), "flip 1 to 3 bits of packets", "RATE"),
        Option(("--delay",), "delay everything: 100ms or 0.1", "TIME"),
        Option(("--jitter",), "add a random delay up to TIME, in order", "TIME"),
        Option(("--rate",), "limit to BYTES per second: 1M", "BYTES"),
        Option(("--queue",), "queue size for --rate", "BYTES", default="64k"),
        Option(("--slice",), "split a stream into N bytes", "N", kind="int"),
        Option(("--cut",), "cut the connection after about 1M, or 30s", "MEAN"),
        Option(("--rst",), "cut by reset instead of end of file", kind="flag"),
        Option(("--silence",), "cut by silence for TIME, or forever", "TIME"),
        Option(("--only",), "one direction only: out (to the command) or in", "WAY", choices=["out", "in"]),
        Option(("--seed",), "seed of the faults, to repeat a run", "N", kind="int"),
        Option(("--stats",), "print statistics at the end", kind="flag"),
        Option(("-v", "--verbose"), "be verbose: the seed, cuts, --stats", kind="count"),
        Option(("-q", "--quiet"), "report errors only", kind="flag"),
    ],
    description=(
        "Runs a command and relays between it and stdin and stdout, so it can be put in front of any command "
        "that carries a link.  If stdin is a packet socket (SOCK_SEQPACKET or SOCK_DGRAM), the command gets "
        "one too, and faults apply to packets.  With udp-listen://, each sender has a separate port towards "
        "the target and is dropped after two minutes of silence; at most 64 are served at a time.  With "
        "tcp-listen:// or unix-listen://, each connection is relayed over a new one, at most 64 at a time.\n\n"
        "Faults apply to both directions independently.  A RATE is a fraction of the packets, or of the "
        "segments of a stream: what one read returned, split at 1200 bytes.  Sizes may end in k, M or G "
        "(powers of 1024), times in ms, s, m, h or d; the default unit of time is the second.  Reordered "
        "packets are delayed until others have passed, or for 50 ms; without --reorder the order is kept.  "
        "Data that exceeds --rate is queued; when the queue is full, packets are dropped, and the writer of a "
        "stream blocks.  At most 8 MiB are queued in one direction, whatever the delay.\n\n"
        "A cut happens at a random moment, uniformly distributed between 0 and twice MEAN, which is a time or "
        "a number of bytes in both directions together.  On an end (FIN), data that was read before is still "
        "delivered; on a reset (RST) it is lost, and the command gets SIGHUP, as it does after 2 seconds in "
        "any case.  During a silence packets are lost; a stream stalls and continues afterwards, except that a "
        "silence that lasts forever discards everything.  A listener always accepts new connections.\n\n"
        "Faults are determined by the seed, the number of the connection, the direction, and the input: "
        "packets have the same faults in each run; a stream has, if it is read in the same segments.  On "
        "SIGUSR1, r2-lossy prints its statistics."
    ),
    examples=[
        ("r2 connect \"r2-lossy --loss 1% 'ssh bob r2 connect -'\"", "a bad link"),
        ("r2-lossy --seed 1 --cut 1M --rst tcp-listen://127.0.0.1:4000 tcp://bob:47211", "connections that break"),
        ("r2-lossy --loss 5% --delay 50ms udp-listen://[::1]:4000 udp://[::1]:4001", "a bad path for datagrams"),
        ("r2-lossy --slice 1 'cat' <file", "a file in single bytes"),
    ],
    statuses=[
        ("the command's", "with a command"),
        ("0", "a listener was ended by SIGTERM or SIGINT"),
        ("1", "the connection was cut, or could not be made"),
        ("2", "wrong usage"),
        ("128+N", "ended by a signal"),
    ],
    seealso=["r2-connect(1)", "socat(1)", "tc-netem(8)"],
    common=False,
)

_TIMES = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"k": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _number(flag: str, text: str, units: dict[str, Any], what: str) -> float:
    unit = next((unit for unit in units if text.endswith(unit)), "")
    digits = text[: len(text) - len(unit)]
    if not (digits.isascii() and digits.replace(".", "", 1).isdigit()):
        raise UsageError(f"option {flag}: {text!r} is not {what}")
    return float(digits) * (units[unit] if unit else 1)


def share(flag: str, text: str) -> float:
    """Parse a rate such as 10% or 0.1.  UsageError if it is invalid or more than 1."""
    value = _number(flag, text, {"%": 0.01}, "a rate such as 10% or 0.1")
    if value > 1:
        meant = "" if "%" in text else f" (write {text}% if that is meant)"
        raise UsageError(f"option {flag}: {text} is more than everything{meant}")
    return value


def seconds(flag: str, text: str) -> float:
    """Parse a time such as 100ms or 1.5.  UsageError if it is invalid."""
    return _number(flag, text, _TIMES, "a time such as 100ms, 1.5s, 2m")


def size(flag: str, text: str) -> int:
    """Parse a number of bytes such as 1000 or 64k.  UsageError if it is invalid."""
    return int(_number(flag, text, _SIZES, "a number of bytes such as 1000, 64k, 1M"))


def make_plan(args: Args) -> Plan:
    """The plan of the options.  UsageError if they do not fit together."""
    faults: dict[str, Any] = {}
    for name, read in (
        ("loss", share), ("duplicate", share), ("reorder", share), ("corrupt", share),
        ("delay", seconds), ("jitter", seconds), ("rate", size),
    ):  # fmt: skip
        if name in args:
            faults[name] = read(f"--{name}", getattr(args, name))
    faults["queue"] = size("--queue", args.queue)
    if args.slice is not None:
        if args.slice < 1:
            raise UsageError(f"option --slice: {args.slice} is not a number of bytes from 1")
        faults["slice"] = args.slice
    if (args.rst or args.silence is not None) and args.cut is None:
        raise UsageError("--rst and --silence say how to cut: give --cut too")
    if args.rst and args.silence is not None:
        raise UsageError("--rst or --silence, not both")
    silence = 0.0
    if args.silence is not None:
        silence = FOREVER if args.silence == "forever" else seconds("--silence", args.silence)
    cut = args.cut if args.cut is not None else ""
    by_time = cut.endswith(tuple(_TIMES))
    if args.cut is not None and not (seconds if by_time else size)("--cut", cut):
        raise UsageError(f"option --cut: {cut} would leave nothing")
    return Plan(
        args.seed if args.seed is not None else int.from_bytes(os.urandom(4), "big"),
        faults,
        only=None if args.only is None else OUT if args.only == "out" else BACK,
        cut_size=size("--cut", cut) if cut and not by_time else 0.0,
        cut_seconds=seconds("--cut", cut) if by_time else 0.0,
        reset=args.rst,
        silence=silence,
    )


def main(args: Args) -> int:
    plan = make_plan(args)
    log = Log("r2-lossy", args.verbose - args.quiet)
    what = parse_transport(args.what)
    if what.kind in (RUN, LINK_COMMAND):
        what.check_use(CONNECT)
        if args.to is not None:
            raise UsageError(f"unexpected argument {args.to!r}: a command is one word (put it into quotes)")
        run: LossyRun = Filter(plan, log, what.command)
    else:
        to = parse_transport(args.to) if args.to is not None else what
        if what.how not in (LISTEN, GATHER) or to.how != DIAL or what.is_datagrams != to.is_datagrams:
            pairs = " or ".join(f"{name}-listen://HOST:PORT {name}://HOST:PORT" for name in ("udp", "tcp"))
            raise UsageError(f"{' '.join(filter(None, (args.what, args.to)))}: give a command, or {pairs}")
        if what.is_datagrams and args.cut is not None and args.silence is None:
            raise UsageError("--cut: datagrams know no end: give --silence too")
        run = (Datagrams if what.is_datagrams else Ports)(plan, log, what, to)
    status = run.run()
    if args.stats or args.verbose:
        run.report_tally()
    return status


class LossyRun:
    """Common part of the forms of r2-lossy: the loop, signals, and the final report."""

    def __init__(self, plan: Plan, log: Log) -> None:
        self._plan, self._log = plan, log
        self._loop = Loop()
        self._exit = OK

    def run(self) -> int:
        self._loop.on_kill((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), self._killed)
        self._loop.on_signal(signal.SIGUSR1, self.report_tally)
        self._log.info(f"--seed {self._plan.seed}")  # after the handlers: its reader may send signals
        self._loop.run()
        return self._exit

    def report_tally(self) -> None:
        self._log.error(str(self._plan.tally))

    def _killed(self, number: int) -> None:
        self._loop.stop()

    def _fail(self, error: R2Error) -> None:
        self._log.error(str(error))
        self._exit = FAILED
        self._loop.stop()


class Filter(LossyRun):
    """Faults between stdin and stdout and those of a command."""

    def __init__(self, plan: Plan, log: Log, command: str) -> None:
        super().__init__(plan, log)
        self._status: int | None = None  # of the command
        self._ended: str | None = None  # why the line has ended
        packets = keeps_packets(0)
        ours, theirs = packet_pair() if packets else socketpair()
        near = take_stdio()
        try:
            pid = process.start(command, theirs, theirs)
        finally:
            os.close(theirs)
        self._child = process.Child(self._loop, pid, self._exited)
        self._pair = Pair(
            self._loop, plan, 0, near, (ours, os.dup(ours)), self._line_ended, self._maybe_over, packets=packets
        )

    def _exited(self, status: int) -> None:
        self._status = status if status >= 0 else SIGNALLED - status
        self._exit = FAILED if self._ended or self._pair.is_dead else self._status
        self._maybe_over()

    def _line_ended(self, why: str) -> None:
        self._ended = why
        if why == BROKEN:
            self._exit = SIGNALLED + signal.SIGPIPE
            self._loop.stop()
            return
        if why:
            self._exit = FAILED
            (self._log.info if why == CUT else self._log.error)(why)
            if why == CUT and not self._plan.reset and self._status is None:
                self._loop.later(GRACE, self._hang_up)  # it gets EOF, and may exit by itself
            else:
                self._hang_up()
        self._maybe_over()

    def _hang_up(self) -> None:
        """Hang up on the command, and end GRACE seconds later."""
        if self._status is None:
            self._child.hang_up()
            self._loop.later(GRACE, self._loop.stop)

    def _maybe_over(self) -> None:
        """End after the command has exited and its output is written; in an endless silence, end the command."""
        if self._status is not None and (self._ended is not None or self._pair.is_over[BACK] or self._pair.is_dead):
            self._loop.stop()
        elif self._pair.is_dead and self._pair.is_over[OUT]:
            self._exit = FAILED
            self._hang_up()

    def _killed(self, number: int) -> None:
        if self._status is None:
            self._child.signal(number)
        self._exit = SIGNALLED + number
        self._loop.stop()


def keeps_packets(fd: int) -> bool:
    """Whether `fd` is a socket with packet boundaries."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    with socket.socket(fileno=os.dup(fd)) as sock:
        return sock.type in (socket.SOCK_SEQPACKET, socket.SOCK_DGRAM)


def packet_pair() -> tuple[int, int]:
    """Two connected descriptors with packet boundaries and end of file."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return one.detach(), other.detach()


class Ports(LossyRun):
    """A line to the target for each connection to a port."""

    def __init__(self, plan: Plan, log: Log, listen: Transport, target: Transport) -> None:
        super().__init__(plan, log)
        self._target = target
        self._number = 0
        self._open: set[int] = set()
        failed = lambda error: self._fail(R2Error(f"{listen}: {error}"))  # noqa: E731
        self._listener = Listener(self._loop, listen, self._opened, failed)

    def run(self) -> int:
        status = super().run()
        self._listener.close()
        return status

    def _opened(self, fd: int) -> None:
        if len(self._open) == MAX_CONNECTIONS:
            self._log.warning(f"more than {MAX_CONNECTIONS} connections: one is closed at once")
            close_all((fd,))
            return
        number, self._number = self._number, self._number + 1
        self._open.add(number)
        Dial(self._loop, self._target, lambda got: self._dialled(number, fd, got))

    def _dialled(self, number: int, near: int, far: int | R2Error) -> None:
        if not isinstance(far, int):
            self._log.warning(f"{self._target}: {far}")
            close_all((near,))
            self._open.discard(number)
            return
        self._log.info(f"connection {number}: open")
        Pair(
            self._loop, self._plan, number, (near, os.dup(near)), (far, os.dup(far)),
            lambda why: self._line_ended(number, why),
        )  # fmt: skip

    def _line_ended(self, number: int, why: str) -> None:
        self._open.discard(number)
        self._log.info(f"connection {number}: {why or 'ended'}")


class Datagrams(LossyRun):
    """A line to the target for each sender to a port."""

    def __init__(self, plan: Plan, log: Log, listen: Transport, target: Transport) -> None:
        from .udp_relay import UdpRelay

        super().__init__(plan, log)

        def listening(where: str) -> None:
            log.info(f"{listen}: listening")

        def failed(error: R2Error) -> None:
            self._fail(R2Error(f"{listen}: {error}"))

        UdpRelay(self._loop, plan, listen, target, listening, failed)

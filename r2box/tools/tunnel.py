"""r2-tunnel and r2 open: connect a command, stdin and stdout, or a URL to a service."""

from __future__ import annotations

import os
import signal

from ..cli.command import Argument, Command, Option
from ..errors import BROKEN_PIPE, OK, SIGNALLED, TOOL_FAILED, R2Error, TransportError, UsageError
from ..net.client.client import Client
from ..net.client.reach import reach
from ..net.daemon.clients import HANGUP_TIME
from ..net.io import process
from ..net.io.channel import ChannelEnd, adopt, close_all
from ..net.io.copier import BROKEN, Pump
from ..net.io.log import INFO, Log
from ..net.io.loop import Loop
from ..net.io.program import ProgramChannel, open_channel, program_pairs
from ..net.io.stdio import give_descriptor, lend_stdio, take_stdio
from ..net.link.endpoint import EXIT_GRACE
from ..net.transport.sockets import Dial
from ..net.transport.transport import COMMAND as RUN
from ..net.transport.transport import STDIO, Transport, explain, parse_transport, summary
from ..net.transport.urls import DATAGRAMS_HELP, DEVICE, DIAL, EXEC_HELP, GATHER, INTERFACES, LISTEN, TUNNEL, URL_HELP
from ..proto.wire import messages
from ..proto.wire.address import format_path, join_targets
from ..proto.wire.outcome import UNREAD, Outcome, make_outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.command import Args
    from ..net.io.copier import Bridge, PumpSource, PumpTarget
    from ..net.io.process import Child
    from ..net.link.datagram_endpoint import DatagramCopier
    from ..net.transport.devices import Device

OPTIONS = [
    Option(
        ("--fdpass",), "with -, pass the tunnel as a descriptor over stdout to the parent (ProxyUseFdpass)", kind="flag"
    ),
    Option(("--datagrams",), "each read and write of the command or of stdio is one datagram", kind="flag"),
]
COMMAND = Command(
    "r2-tunnel",
    "connect a program to a service",
    arguments=[Argument("TRANSPORT", summary(TUNNEL))],
    options=OPTIONS,
    aliases=["r2 tunnel"],
    description=(
        "Opens a byte stream to the service at TARGET, through as many nodes as it takes, and connects it to "
        "TRANSPORT.  If TARGET is a node, it is connected to the command of the node itself.  TRANSPORT is not "
        "read, and its command not started, before the service has accepted the tunnel.\n\n"
        "Half-close is passed on: when one direction ends, the other stays open.\n\n"
        "A listening URL opens a tunnel for each connection, or for each sender of UDP, as r2-forward(1) does.  "
        + EXEC_HELP + URL_HELP + "\n\n" + DATAGRAMS_HELP
    ),
    lists=explain(TUNNEL),
    examples=[
        ("echo hello | r2 -t bob -t upper tunnel -", "use the service upper of the neighbour bob"),
        ('r2 -t bob/backup tunnel "tar c ."', "give a command's output to a service"),
    ],
    statuses=[
        ("the command's", "with a command"), ("the service's", "with -, if the service is a command"),
        ("255", "the tunnel could not be opened, or failed; see stderr"),
        ("126, 127, 128+N", "as a shell reports them"), ("2", "wrong usage"),
    ],
    seealso=["r2(1)", "r2-serve(1)", "r2-forward(1)", "r2-ssh(1)"],
)
OPEN = Command(
    "r2 open",
    "connect a program to the service at a path",
    arguments=[
        Argument("PATH", "the target node or service, as for -t"),
        Argument("TRANSPORT", "see r2-tunnel(1); default -, which is stdin and stdout", required=False),
    ],
    options=OPTIONS,
    description="r2 open PATH TRANSPORT is the same as r2 -t PATH tunnel TRANSPORT; see r2-tunnel(1).",
    examples=[("echo hello | r2 open bob/upper", "use the service upper of the neighbour bob")],
    statuses=COMMAND.statuses,
    seealso=["r2-tunnel(1)"],
)

DRAIN_TIME = 1.0  # seconds for data in transit on a forwarded control socket when a tunnel has failed


def main_open(args: Args) -> int:
    return main(args, [*args.target, args.path], "r2-open")


def main(args: Args, target: list[str] | None = None, name: str = "r2-tunnel") -> int:
    transport = parse_transport("-" if args.transport is None else args.transport).check_use(TUNNEL)
    if args.fdpass and transport.kind != STDIO:
        raise UsageError("--fdpass: only with -")
    path = join_targets(target or args.target)
    level = args.verbose - 2 * args.quiet
    try:
        if transport.how in (LISTEN, GATHER):
            from ..net.client.job_run import forward

            log = Log(name, INFO + level)
            return OK if forward(log, args.socket, [transport], path, wait=args.wait) else TOOL_FAILED
        return TunnelTool(args, transport, path, Log(name, level)).run()
    except R2Error as error:
        error.status = TOOL_FAILED
        raise


class TunnelTool:
    """One run of r2-tunnel.  It ends when the daemon has reported the outcome, and the local side is done."""

    def __init__(self, args: Args, transport: Transport, path: tuple[str, ...], log: Log) -> None:
        self._log = log
        self._path = path
        self._name = format_path(path) or "this node"
        self._transport = transport
        sock, self._socket = reach(args.socket, args.wait)
        self._loop = Loop()
        self._client = Client(self._loop, sock.detach(), ready=self._ready, lost=self._daemon_lost, wait=args.wait)
        self._outcome: Outcome | None = None  # of the tunnel
        self._status: int | None = None  # of the command
        self._id = 0
        self._child: Child | None = None  # the command
        self._output: Pump | None = None  # from the tunnel
        self._output_at_end = False  # EOF was read; the outcome may still be a failure
        self._output_done = True
        self._input: Pump | None = None
        self._input_done = True
        self._is_connection = False  # the tunnel is a connection that a local service has made
        self._stdio: tuple[int, int] | None = None  # a dialled connection, in place of stdin and stdout
        self._device: Device | None = None
        self._mode = transport.mode(args.datagrams)
        self._bridge: Bridge | DatagramCopier | None = None  # between the connection or device and the tunnel
        self._lent: dict[int, int] = {}  # for stdin (0) and stdout (1): this end of the pair whose other end was passed
        self._is_stdout_passed = False  # another process writes to stdout
        self._fdpass = bool(args.fdpass)
        self._is_over = False
        self._hung_up = False  # the command got SIGHUP, because the tunnel failed
        self._command_killed = False  # by a signal not sent by _hang_up: the cause of the failure of the tunnel
        self._exit = TOOL_FAILED

    def run(self) -> int:
        self._loop.on_kill((signal.SIGTERM, signal.SIGHUP), self._killed)
        try:
            self._loop.run()
        finally:
            if self._bridge is not None:
                self._bridge.close()
            if self._device is not None:
                self._device.release()
        return self._exit

    def _ready(self) -> None:
        _STARTS[self._transport.how](self)

    def _request(self, passed: tuple[int, ...] = (), **fields: int) -> None:
        """Request the tunnel; `passed` are an input and an output that the daemon may use directly."""
        self._id = self._client.request(
            messages.TUNNEL, self._received, (), passed, target=self._path, mode=self._mode, **fields
        )

    def _start_command(self) -> None:
        self._request(apart=1, runs=1)

    def _start_stdio(self) -> None:
        if self._fdpass:
            self._request(detached=1)
        elif self._mode:
            self._request()
        elif self._client.link.passes_descriptors:
            passed, self._lent = lend_stdio()
            self._request(passed, apart=1)
        else:
            self._request(apart=1)

    def _start_dialling(self) -> None:
        def opened(got: int | TransportError) -> None:
            if not isinstance(got, int):
                self._fail(f"{self._transport}: {got}")
                return
            self._stdio = got, os.dup(got)
            self._request((os.dup(got), os.dup(got)) if self._client.link.passes_descriptors else (), apart=1)

        Dial(self._loop, self._transport, opened)

    def _start_device(self) -> None:
        from ..net.io import copier  # noqa: F401  fail before the tunnel is opened if it cannot be imported
        from ..net.transport import devices

        if self._transport.kind in INTERFACES:
            try:
                fd = devices.open_device(self._transport).fds[0]
            except TransportError as error:
                self._fail(f"{self._transport}: {error}")
                return
            self._stdio = fd, os.dup(fd)
            self._request((os.dup(fd), os.dup(fd)))
            return
        self._request(apart=1, runs=int(bool(self._transport.command)))

    def _received(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == messages.ERROR:
            self._fail(body["text"])
        elif body.kind == messages.OPENED:
            self._log.info(f"{self._name}: open")
            self._is_connection = bool(body["connection"])
            self._opened(descriptors, bool(body["program"]))
        elif body.kind == messages.ENDED:
            self._ended(make_outcome(body))

    # -- joining -------------------------------------------------------------------------------------------------

    def _opened(self, descriptors: tuple[int, ...], is_program: bool) -> None:
        """The tunnel is open.  `descriptors` are its local end, unless the daemon uses what was passed; with
        `is_program`, they are connected to the program of a local service."""
        if self._transport.kind == RUN:
            self._join_command(descriptors, is_program)
            return
        if self._transport.how == DEVICE and self._stdio is None:
            self._join_device(descriptors, is_program)
            return
        if self._fdpass:
            self._pass_on(descriptors[0])
            return
        stdin, stdout = self._stdio or take_stdio()
        if self._mode:
            self._cross(stdin, stdout, descriptors)
            return
        lent = self._lent
        if descriptors:
            close_all(tuple(lent.values()))
            tunnel = open_channel(self._loop, descriptors, is_program)
            self._splice(tunnel, ChannelEnd(stdout), ChannelEnd(stdin), tunnel)
            return
        self._is_stdout_passed = 1 not in lent
        # Close what was passed: its end is up to the daemon or the service.
        if 1 in lent:
            self._splice_out(ChannelEnd(lent[1]), ChannelEnd(stdout))
        else:
            os.close(stdout)
        if 0 in lent:
            self._splice_in(ChannelEnd(stdin), ChannelEnd(lent[0]))
        else:
            os.close(stdin)

    def _cross(self, stdin: int, stdout: int, descriptors: tuple[int, ...]) -> None:
        """Copy datagrams, unless the daemon uses what was passed."""
        from ..net.io.channel import Channel
        from ..net.link.datagram_endpoint import DatagramCopier

        if not descriptors:
            close_all((stdin, stdout))
            return
        self._output_done = False
        if self._stdio is not None:  # a descriptor and its duplicate
            os.close(stdout)
            stdout = stdin
        self._bridge = DatagramCopier(self._loop, Channel(stdin, stdout), adopt(descriptors), self._bridge_ended)

    def _bridge_ended(self, why: str) -> None:
        if why:
            self._fail(f"{self._transport}: {why}")
        self._output_done = True
        self._maybe_over()

    def _splice(self, source: PumpSource, stdout: PumpTarget, stdin: PumpSource, target: PumpTarget) -> None:
        self._splice_out(source, stdout)
        self._splice_in(stdin, target)

    def _splice_out(self, source: PumpSource, stdout: PumpTarget) -> None:
        self._output_done = False
        self._output = Pump(self._loop, source, stdout, self._output_ended)
        if self._outcome is not None and not self._outcome.is_clean:
            self._output.finish()

    def _splice_in(self, stdin: PumpSource, target: PumpTarget) -> None:
        self._input_done = False
        self._input = Pump(self._loop, stdin, target, self._input_ended)

    def _pass_on(self, fd: int) -> None:
        """Pass the tunnel to the parent: one byte on stdout with the descriptor (ProxyUseFdpass of ssh)."""
        try:
            give_descriptor(1, fd)
        except OSError as error:
            self._fail(f"--fdpass: cannot pass a descriptor over stdout: {error.strerror}")
            return
        if self._client.link.passes_descriptors:
            self._exit = OK
            self._loop.stop()
            return
        # This process relays the bytes, but the parent waits for an exit.
        if os.fork():
            os._exit(OK)  # without flushing: queued messages must not be sent twice
        close_all(take_stdio())
        self._client.fd_relay.idle = self._loop.stop

    def _join_command(self, descriptors: tuple[int, ...], is_program: bool) -> None:
        """Start the command on the tunnel, or on socket pairs from which data is copied to the service's program."""
        self._output_done = True
        self._log.once(self._transport.note)
        ours: tuple[int, ...] = ()
        there = descriptors
        try:
            if is_program and not self._mode:
                ours, descriptors = program_pairs()
            environment = {"R2_SOCKET": os.path.abspath(self._socket)}
            pid = process.start(self._transport.command, descriptors[0], descriptors[-1], environment=environment)
        except OSError as error:
            self._fail(f"{self._transport}: {error.strerror}")
            return
        finally:
            close_all(descriptors)
        if ours:
            near, far = ProgramChannel(self._loop, ours), ProgramChannel(self._loop, there)
            self._splice(far, near, near, far)
        self._child = process.Child(self._loop, pid, self._command_exited)

    def _join_device(self, descriptors: tuple[int, ...], is_program: bool) -> None:
        from ..net.io.copier import Bridge
        from ..net.transport.devices import open_device

        try:
            environment = {"R2_SOCKET": os.path.abspath(self._socket)}
            devices = self._device = open_device(self._transport, environment, with_stderr=True)
        except TransportError as error:
            close_all(descriptors)
            self._fail(f"{self._transport}: {error}")
            return

        self._output_done = False
        stream = open_channel(self._loop, descriptors, is_program)
        self._bridge = Bridge(self._loop, adopt(devices.fds), stream, self._bridge_ended)
        if devices.pid:
            self._child = process.Child(self._loop, devices.pid, self._command_exited)

    # -- ending --------------------------------------------------------------------------------------------------

    def _output_ended(self, why: str) -> None:
        """The tunnel is at its end, or the output has no reader."""
        if why == BROKEN and self._transport.kind == RUN:
            why = ""  # the command has closed its stdin, and may still write
        elif why == BROKEN:
            self._exit = BROKEN_PIPE
            self._loop.stop()
            return
        if why:
            self._fail(why)
            return
        self._output_at_end = True
        if self._outcome is None:
            self._loop.later(EXIT_GRACE, self._pass_end)
        else:
            self._pass_end()

    def _pass_end(self) -> None:
        if self._output_done:
            return
        if self._output is not None:
            if self._outcome is None or self._outcome.is_clean:
                self._output.close_target()
            elif self._child is not None:  # a command that survives SIGHUP gets EOF later
                self._loop.later(HANGUP_TIME, self._output.close_target)
        self._output_done = True
        if self._input is not None and not self._input_done and self._input.is_target_closed():
            self._input_done = True
        self._maybe_over()

    def _input_ended(self, why: str) -> None:
        self._input_done = True
        if why not in ("", BROKEN):
            self._fail(why)
        elif self._input is not None:
            self._input.close_target()
            self._maybe_over()

    def _command_exited(self, status: int) -> None:
        self._child = None
        self._status = status if status >= 0 else SIGNALLED - status
        self._command_killed = status < 0 and not self._hung_up
        outcome = Outcome(signal=-status) if status < 0 else Outcome(status=status)
        self._client.send(messages.HALTED, self._id, **outcome.fields())
        self._maybe_over()

    def _ended(self, outcome: Outcome) -> None:
        """The tunnel has ended.  After a failure, the command gets SIGHUP before EOF."""
        self._outcome = outcome
        if outcome.code == UNREAD or (self._is_stdout_passed and outcome.exit_status == BROKEN_PIPE):
            # The output has no reader: exit as a program that gets SIGPIPE, without a message.
            self._exit = BROKEN_PIPE
            self._loop.stop()
            return
        if self._bridge is not None and not outcome.is_clean:
            self._bridge.close()
            self._output_done = True
        if not outcome.is_clean:
            self._hang_up()
            if self._output is not None:
                # Over the control socket, the outcome may have overtaken the last data.
                self._loop.later(0 if self._client.link.passes_descriptors else DRAIN_TIME, self._output.finish)
        if self._output_at_end:
            self._pass_end()
        self._maybe_over()

    def _maybe_over(self) -> None:
        if self._is_over or self._outcome is None or not self._output_done or self._child:
            return
        if self._is_connection and not self._input_done and self._outcome.is_clean:
            return  # the service has ended its output only
        self._is_over = True
        words = self._outcome.describe()
        if words and not self._command_killed:
            report = self._log.info if self._outcome.is_clean and self._status is not None else self._log.error
            report(words if self._outcome.text else f"{self._name}: {words}")
        if self._status is None:
            self._exit = self._outcome.exit_status
        else:
            self._exit = self._status if self._outcome.is_clean or self._command_killed else TOOL_FAILED
        self._loop.stop()

    def _hang_up(self) -> None:
        if self._child is not None:
            self._hung_up = True
            self._child.hang_up()

    def _fail(self, why: str) -> None:
        self._log.error(why)
        self._hang_up()
        for pump in (self._output, self._input):
            if pump is not None and self._is_connection:
                pump.reset()
        self._loop.stop()

    def _daemon_lost(self, why: str) -> None:
        if self._outcome is None:
            self._fail(f"{self._socket}: {why}")

    def _killed(self, number: int) -> None:
        if self._child is not None:
            self._child.signal(number)
        self._exit = SIGNALLED + number
        self._loop.stop()


_STARTS = {
    STDIO: TunnelTool._start_stdio, RUN: TunnelTool._start_command,
    DIAL: TunnelTool._start_dialling, DEVICE: TunnelTool._start_device,
}  # fmt: skip

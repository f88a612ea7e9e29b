"""r2-tunnel: join a command, or stdin and stdout, to a service."""

from __future__ import annotations

import os
import signal

from ..command import Argument, Command
from ..errors import OWN_FAILURE, SIGNALLED, R2Error, UsageError
from ..net import child, socketfile
from ..net.client import Client
from ..net.endpoint import GRACE
from ..net.log import Log
from ..net.loop import Loop
from ..net.splice import BROKEN, Pump, take_stdio
from ..net.transport import COMMAND as RUN
from ..net.transport import STDIO, TCP, Dial, Transport, parse_transport
from ..proto import body as say
from ..proto.address import format_path, join_targets
from ..proto.outcome import Outcome, make_outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..command import Args
    from ..errors import TransportError

COMMAND = Command(
    "r2-tunnel",
    "join a program to a service of another node",
    arguments=[Argument("TRANSPORT", "a command, - for stdin and stdout, or tcp://HOST:PORT")],
    aliases=["r2 tunnel"],
    description=(
        "Opens a byte stream to the service at TARGET, through as many nodes as it takes, and joins it to TRANSPORT.  "
        "A target that is a node and no service reaches the node's own command.  Nothing is read, and no command is "
        "started, before the service has taken the tunnel.\n\n"
        "The end of either direction is passed on and leaves the other one open."
    ),
    examples=[
        ("echo hello | r2 -t bob -t upper tunnel -", "use the service upper of the neighbour bob"),
        ('r2 -t bob/backup tunnel "tar c ."', "give a command's output to a service"),
    ],
    statuses=[
        ("the command's", "with a command"),
        ("the service's", "with -, as far as the service is a command"),
        ("255", "the tunnel could not be opened, or failed; stderr says why"),
        ("126, 127, 128+N", "as a shell has them"),
    ],
    seealso=["r2(1)", "r2-serve(1)", "r2-ssh(1)"],
)

BROKEN_PIPE = SIGNALLED + signal.SIGPIPE


def main(args: Args) -> int:
    transport = parse_transport(args.transport)
    if transport.kind not in (STDIO, RUN, TCP):
        raise UsageError(f"{transport}: cannot be the end of a tunnel")
    path = join_targets(args.target)
    try:
        return Tunnel(args, transport, path).run()
    except R2Error as error:
        error.status = OWN_FAILURE
        raise


class Tunnel:
    """One run of r2-tunnel.  It is over when the daemon has said so and our side is done too."""

    def __init__(self, args: Args, transport: Transport, path: tuple[str, ...]) -> None:
        self._log = Log("r2-tunnel", args.verbose - 2 * args.quiet)
        self._path = path
        self._name = format_path(path) or "this node"
        self._transport = transport
        self._loop = Loop()
        self._socket = args.socket or socketfile.default_path()
        self._client = Client(
            self._loop, socketfile.connect(self._socket).detach(), ready=self._ready, gone=self._gone
        )
        self._outcome: Outcome | None = None  # what became of the tunnel
        self._status: int | None = None  # of our command
        self._id = 0
        self._pid = 0
        self._output: Pump | None = None  # from the tunnel to us
        self._output_done = True
        self._pumps: list[Pump] = []
        self._is_over = False
        self._hung_up = False  # on our command, because the tunnel failed
        self._killed_itself = False  # our command, or somebody did, but not we: then the tunnel failed because of that
        self._exit = OWN_FAILURE

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._loop.on_signal(number, lambda number=number: self._killed(number))  # type: ignore[misc]
        self._loop.run()
        return self._exit

    def _ready(self) -> None:
        self._id = self._client.request(
            say.TUNNEL,
            self._heard,
            target=self._path,
            apart=int(self._transport.kind != TCP),
            runs=int(self._transport.kind == RUN),
        )

    def _heard(self, body: say.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == say.ERROR:
            self._fail(body["text"])
        elif body.kind == say.OPENED:
            self._log.info(f"{self._name}: open")
            _JOINS[self._transport.kind](self, descriptors)
        elif body.kind == say.ENDED:
            self._ended(make_outcome(body))

    # -- joining -------------------------------------------------------------------------------------------------

    def _join_stdio(self, descriptors: tuple[int, ...]) -> None:
        stdin, stdout = take_stdio()
        self._splice(descriptors, stdin, stdout)

    def _join_tcp(self, descriptors: tuple[int, ...]) -> None:
        self._output_done = False

        def opened(got: int | TransportError) -> None:
            if isinstance(got, int):
                self._splice(descriptors, got, os.dup(got))
            else:
                self._fail(f"{self._transport}: {got}")

        Dial(self._loop, self._transport, opened)

    def _splice(self, descriptors: tuple[int, ...], stdin: int, stdout: int) -> None:
        source, target = descriptors[0], descriptors[1] if len(descriptors) > 1 else os.dup(descriptors[0])
        self._output_done = False
        self._output = Pump(self._loop, source, stdout, self._output_ended)
        upward = Pump(self._loop, stdin, target, lambda why: self._input_ended(upward, why))
        self._pumps = [self._output, upward]
        if self._outcome is not None and not self._outcome.is_clean:
            self._output.finish()

    def _join_command(self, descriptors: tuple[int, ...]) -> None:
        self._output_done = True
        try:
            environment = {"R2_SOCKET": os.path.abspath(self._socket)}
            self._pid = child.start(self._transport.text, descriptors[0], descriptors[-1], environment=environment)
        except OSError as error:
            self._fail(f"{self._transport}: {error.strerror}")
            return
        finally:
            for fd in descriptors:
                os.close(fd)
        self._loop.on_exit(self._pid, self._command_exited)

    # -- the ends of things --------------------------------------------------------------------------------------

    def _output_ended(self, why: str) -> None:
        """The tunnel has nothing more for us, or nobody reads what we write."""
        if why == BROKEN:
            self._exit = BROKEN_PIPE
            self._loop.stop()
            return
        if why:
            self._fail(why)
            return
        if self._outcome is None:
            self._loop.later(GRACE, self._pass_end)
        else:
            self._pass_end()

    def _pass_end(self) -> None:
        if self._output is not None and (self._outcome is None or self._outcome.is_clean):
            self._output.close_target()
        self._output_done = True
        self._maybe_over()

    def _input_ended(self, pump: Pump, why: str) -> None:
        if why not in ("", BROKEN):
            self._fail(why)
        else:
            pump.close_target()

    def _command_exited(self, status: int) -> None:
        self._pid = 0
        self._status = status if status >= 0 else SIGNALLED - status
        self._killed_itself = status < 0 and not self._hung_up
        outcome = Outcome(signal=-status) if status < 0 else Outcome(status=status)
        self._client.send(say.HALTED, self._id, **outcome.fields())
        self._maybe_over()

    def _ended(self, outcome: Outcome) -> None:
        """The tunnel is over.  A command of ours learns of a failure before it sees the end of its input."""
        self._outcome = outcome
        if not outcome.is_clean:
            self._hang_up()
            if self._output is not None:
                self._output.finish()
        self._maybe_over()

    def _maybe_over(self) -> None:
        if self._is_over or self._outcome is None or not self._output_done or self._pid:
            return
        self._is_over = True
        words = self._outcome.describe()
        if words and not self._killed_itself:
            said = self._log.info if self._outcome.is_clean and self._status is not None else self._log.error
            said(words if self._outcome.text else f"{self._name}: {words}")
        if self._status is None:
            self._exit = self._outcome.exit_status
        else:
            self._exit = self._status if self._outcome.is_clean or self._killed_itself else OWN_FAILURE
        self._loop.stop()

    def _hang_up(self) -> None:
        if self._pid:
            self._hung_up = True
            child.send_signal(self._pid, signal.SIGHUP)

    def _fail(self, why: str) -> None:
        self._log.error(why)
        self._hang_up()
        self._loop.stop()

    def _gone(self, why: str) -> None:
        if self._outcome is None:
            self._fail(f"{self._socket}: the daemon went away: {why}")

    def _killed(self, number: int) -> None:
        if self._pid:
            child.send_signal(self._pid, number)
        self._exit = SIGNALLED + number
        self._loop.stop()


_JOINS = {STDIO: Tunnel._join_stdio, RUN: Tunnel._join_command, TCP: Tunnel._join_tcp}

"""Connector: one attempt at a link.  Opens the transport, attaches its descriptors to the daemon, reaps its command."""

from __future__ import annotations

import os
import socket

from ...errors import TransportError, UsageError
from ...proto.link.policy import EVERYTHING
from ...proto.wire import messages
from ...proto.wire.job_states import JobState
from ...proto.wire.outcome import ENDED
from ..io import process
from ..io.channel import Channel, adopt, close_all, is_terminal, same_socket, socketpair
from ..io.leash import Leash
from ..io.log import LineLimit
from ..io.process import Child
from ..io.reserve import is_short
from ..io.shell import missing_tool
from ..io.stdio import take_stdio
from ..io.words import this_command
from ..transport.peer import address_of
from ..transport.policy_fields import fields_of, words_of
from ..transport.socat import fill_places
from ..transport.sockets import Dial, Listener
from ..transport.transport import COMMAND, LINK_COMMAND, STDIO, Transport
from ..transport.urls import CONNECT, DEVICE, DIAL, GATHER, LISTEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...proto.link.policy import Policy
    from ..io.copier import Bridge
    from ..io.log import Log
    from ..io.loop import Loop
    from ..transport.devices import Device
    from ..transport.udp import UdpListener
    from .client import Client
    from .job import JobReport

EXIT_TIME = 1.0  # seconds for a command to pass on why its link ended or failed, and to exit
KILL_TIME = 1.5  # and after SIGTERM: a tool ends within 2 s
MAX_LINES = 20  # of a command's that are shown, before its link


class LinkOptions:
    """What a link is made over, and how.

    `expect` is the only address that the neighbour may have ("": any), `resume_timeout` for how many seconds tunnels
    wait for another transport after a cut, `lossy` whether bytes may be lost on a transport that is not so by its
    nature, `policy` what is advertised and carried there.
    """

    def __init__(
        self,
        transport: Transport,
        expect: str = "",
        resume_timeout: int = 0,
        lossy: bool = False,
        policy: Policy = EVERYTHING,
    ) -> None:
        self.transport = transport
        self.expect = expect
        self.resume_timeout = resume_timeout
        self.is_lossy = transport.is_lossy or lossy
        self.policy = policy


class Connector:
    """One attempt at a link: `ended(why)` is called once, when it is over and its command is reaped.

    `why` is empty for an orderly end.  A transport that listens makes any number of links, logs how each ends, and is
    over only when it cannot listen any more.  `linked(address)` is called for each link, `listening(where)` when a
    transport that listens does.  States go to `report`, but for the end: the caller knows whether another attempt
    follows.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        client: Client,
        socket_path: str,
        options: LinkOptions,
        report: JobReport,
        *,
        linked: Callable[[str], None],
        listening: Callable[[str], None],
        ended: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._log = log
        self._lines = LineLimit(log, loop.later)
        self._client = client
        self._socket_path = os.path.abspath(socket_path)
        self._options = options
        self._transport = options.transport
        self._report = report
        self._on_linked = linked
        self._on_listening = listening
        self._on_ended = ended
        self._child: Child | None = None  # the command, while it runs
        self._was_linked = False
        self.was_cut = False  # the link is suspended
        self._link_over: str | None = None  # why the link ended
        self._shown = 0  # lines of the command's that were logged
        self._printed = b""  # by the command, the beginning of a line; bounded by `proto.arq.preamble`
        self._exit = ""  # how the command ended, in words
        self._listener: Listener | UdpListener | None = None
        self._device: Device | None = None
        self._bridge: Bridge | None = None
        self._dial: Dial | None = None
        self._peers: dict[int, str] = {}  # by request: who has connected to where we listen
        self._left: dict[int, Callable[[], None]] = {}  # by request: what is to be called when its link has ended
        self._is_copying = False  # our stdio is copied, as it could not be handed over
        self._is_over = False

    def start(self) -> None:
        """Open the transport.  OSError if a command cannot be started."""
        self._report.enter(JobState.RUNNING if self._transport.how == LINK_COMMAND else JobState.CONNECTING)
        try:
            self._transport.check_use(CONNECT)
        except UsageError as error:
            self._fail(str(error))
            return
        self._log.once(self._transport.note)
        _STARTS[self._transport.how](self)

    def _fail(self, why: str) -> None:
        """End with a reason, after the constructor of the caller has returned."""
        self._loop.soon(lambda: self._over(why))

    def _start_stdio(self) -> None:
        taken = take_stdio()
        if not self._client.link.passes_descriptors or any(map(is_terminal, taken)):
            self._is_copying = True
            self._copy(Channel(*taken), self._copied)
            return
        if same_socket(*taken):
            os.close(taken[1])
            taken = taken[:1]  # type: ignore[assignment]
        self._attach(taken)

    def _copied(self, why: str) -> None:
        """The last output of the daemon has been written to our stdout."""
        self._is_copying = False
        if self._link_over is not None:
            self._over(self._link_over)

    def _start_command(self) -> None:
        has_packets = self._options.is_lossy and self._client.link.passes_descriptors
        ours, theirs = _packet_pair() if has_packets else socketpair()
        try:
            pid = process.start(
                self._transport.command,
                theirs,
                theirs,
                environment={"R2_SOCKET": self._socket_path},
                ignore_interrupt=True,
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._child = Child(self._loop, pid, self._exited)
        self._attach((ours,))

    def _start_link_command(self) -> None:
        words = [*this_command(), "r2-connect", "-s", self._socket_path]
        words += ["-n", self._options.expect] if self._options.expect else []
        words += ["--resume", str(self._options.resume_timeout), *(["--lossy"] if self._options.is_lossy else [])]
        words += words_of(self._options.policy)
        command = fill_places(self._transport.command, [*words, "-"])
        self._log.debug(f"starting: {command}")
        # If it listens, it would keep the port: only the leash ends it when we end.
        leash = self._loop.shared(Leash)
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            pid = process.start(command, null, 2, new_session=True, leash=leash.open())
        finally:
            os.close(null)
        self._child = Child(self._loop, pid, self._exited, group=True, leash=leash)
        self._link_over = ""

    def _start_dialling(self) -> None:
        def opened(got: int | TransportError) -> None:
            self._dial = None
            if isinstance(got, int):
                self._attach_packets((got,))
            else:
                self._over(str(got))

        self._dial = Dial(self._loop, self._transport, opened, for_link=True)

    def _start_listening(self) -> None:
        self._listener = Listener(
            self._loop,
            self._transport,
            lambda fd: self._attach((fd,)),
            lambda error: self._over(str(error)),
            self._listening,
        )

    def _start_gathering(self) -> None:
        from ..transport.udp import UdpListener

        gatherer = self._listener = UdpListener(
            self._loop,
            self._transport,
            lambda fd, sender: self._attach_packets((fd,), lambda: gatherer.forget(sender)),
            lambda error: self._over(str(error)),
            self._listening,
        )

    def _start_device(self) -> None:
        from ..transport.devices import open_device

        try:
            device = self._device = open_device(self._transport, {"R2_SOCKET": self._socket_path})
        except TransportError as error:
            self._fail(str(error))
            return
        if device.pid:
            self._child = Child(self._loop, device.pid, self._exited, group=True)
        is_safe = self._transport.kind == "serial" or not any(map(is_terminal, device.fds))
        if self._client.link.passes_descriptors and is_safe:
            self._attach(device.fds)
            return
        self._bridge = self._copy(adopt(device.fds), lambda why: None)

    def _copy(self, channel: Channel, ended: Callable[[str], None]) -> Bridge:
        """Hand over one end of a socketpair, and copy between the other and `channel`."""
        from ..io.copier import Bridge

        ours, theirs = socketpair()
        bridge = Bridge(self._loop, channel, Channel(ours), ended)
        self._attach((theirs,))
        return bridge

    def _listening(self, where: str) -> None:
        self._log.info(f"{self._transport}: listening at {where}")
        self._report.enter(JobState.LISTENING, where=where)
        self._on_listening(where)

    # -- messages of the daemon ----------------------------------------------------------------------------------------

    def _attach(self, descriptors: tuple[int, ...], left: Callable[[], None] | None = None) -> None:
        """Hand a transport over; left() is called when its link has ended."""
        peer = address_of(descriptors[0]) if self._listener is not None else ""
        id_ = self._client.request(
            messages.ATTACH,
            self._received,
            (),
            descriptors,
            self._transport.kind == "serial",
            address=self._options.expect,
            transport=self._transport.text[:200],
            resume_timeout=self._options.resume_timeout,
            lossy=int(self._options.is_lossy),
            mtu=self._transport.mtu,
            keepalive=self._transport.keepalive,
            lent=int(self._transport.kind == STDIO),
            incoming=int(self._listener is not None or self._transport.kind == STDIO),
            runs=int(self._child is not None),
            **fields_of(self._options.policy),
        )
        if peer:
            self._peers[id_] = peer
        if left is not None:
            self._left[id_] = left

    def _attach_packets(self, descriptors: tuple[int, ...], left: Callable[[], None] | None = None) -> None:
        """The same for what may be datagrams, whose boundaries a forwarded control socket does not keep."""
        if not self._transport.is_datagrams or self._client.link.passes_descriptors:
            self._attach(descriptors, left)
            return
        close_all(descriptors)
        self._over("datagrams do not pass a control socket that is forwarded: start this where the daemon runs")

    def _received(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == messages.OUTPUT:
            self._show(body["data"])
            return
        self._show(b"", is_end=True)
        if body.kind == messages.LINKED:
            self._was_linked = True
            if self._listener is None:
                self._report.enter(JobState.UP, name=body["address"])
            self._on_linked(body["address"])
            return
        self._client.forget(body.id)
        if body.id in self._left:
            self._left.pop(body.id)()
        peer = self._peers.pop(body.id, "")
        where = f"{self._transport}: {peer}" if peer else str(self._transport)
        why = body["text"] or "the link ended"
        self.was_cut = body.kind == messages.ENDED and bool(body["cut"])
        if body.kind == messages.ENDED and body["code"] == ENDED:
            self._log.info(f"{where}: {why}")
            why = ""
        if self._listener is not None:
            if why:
                self._lines.warning(peer.rpartition(":")[0] or str(self._transport), f"{where}: {why}")
            return
        self._link_over = why
        if self._is_copying:
            return  # until the last output has been written
        if self._child is None:
            self._over("; ".join(filter(None, (why, self._exit))))
        else:
            self._child.end(process.TERMINATE, EXIT_TIME)

    def _show(self, data: bytes, is_end: bool = False) -> None:
        """Log what the command has written before its link, line by line."""
        *lines, self._printed = (self._printed + data).split(b"\n")
        if is_end:
            lines.append(self._printed)
            self._printed = b""
        for line in filter(None, map(bytes.strip, lines)):
            self._shown += 1
            if self._shown <= MAX_LINES:
                self._log.warning(f"{self._transport}: output: {line.decode('utf-8', 'backslashreplace')}")
            elif self._shown == MAX_LINES + 1:
                self._log.warning(f"{self._transport}: output: (more lines are not shown)")

    def _exited(self, status: int) -> None:
        if self._child is not None and self._transport.how == LINK_COMMAND:
            self._child.end(process.TERMINATE)  # its process group
        self._child = None
        if status:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            self._exit = f"the command {how}{missing_tool(self._transport.command, status)}"
        if self._link_over is not None:
            self._over("; ".join(filter(None, (self._link_over, self._exit))))

    # -- the end -----------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End the command at once."""
        if self._child is not None:
            self._child.kill()

    def _over(self, why: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._release()
            self._on_ended(why)

    def _release(self) -> None:
        if self._bridge is not None:
            self._bridge.close()
        if self._device is not None:
            self._device.release()

    def abandon(self) -> None:
        """End, and call nothing more."""
        self._is_over = True
        self._release()
        self.end()

    def end(self) -> None:
        """End the attempt and its command.  (The link ends with the client's connection to the daemon.)"""
        if self._dial is not None:
            self._dial.cancel()
        if self._listener is not None:
            self._listener.close()
        if self._child is None:
            self._over("")
        else:  # after a link, it passes on the reason first
            self._child.end(process.TERMINATE, EXIT_TIME if self._was_linked else 0.0)
            self._loop.later(KILL_TIME, self.kill)
        self._link_over = self._link_over or ""


def _packet_pair() -> tuple[int, int]:
    """As `socketpair`, and each write is read as one, where the system has such sockets.

    A command that forwards packets (socat udp:...) sends one for each read.
    """
    try:
        return socketpair(socket.SOCK_SEQPACKET)
    except OSError as error:
        if is_short(error):
            raise
        return socketpair()


_STARTS: dict[str, Callable[[Connector], None]] = {
    STDIO: Connector._start_stdio,
    COMMAND: Connector._start_command,
    LINK_COMMAND: Connector._start_link_command,
    DIAL: Connector._start_dialling,
    LISTEN: Connector._start_listening,
    GATHER: Connector._start_gathering,
    DEVICE: Connector._start_device,
}

"""Making links: opens a transport, hands its descriptors to the daemon, and stays to report and to reap."""

from __future__ import annotations

import os
import signal
import sys

from ..proto import body as say
from ..proto.outcome import ENDED
from . import child
from .channel import same_socket, socketpair
from .splice import bridge, take_stdio
from .transport import COMMAND, STARTER, STDIO, TCP, TCP_LISTEN, Dial, Listener, Transport, fill_place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import TransportError
    from .client import Client
    from .log import Log
    from .loop import Loop, Timer

EXIT_TIME = 1.0  # seconds that a command has to end by itself after its link did
KILL_TIME = 3.0  # and when it was told to
FAILED_TIME = 0.2  # and when there never was a link


def own_command() -> list[str]:
    """The words that run this r2box, whatever is on PATH."""
    spec = sys.modules[__name__.split(".")[0]].__spec__
    archive = getattr(spec.loader, "archive", None) if spec else None
    if archive:
        return [sys.executable, os.path.realpath(archive)]
    return [sys.executable, "-m", __name__.split(".")[0]]


class Connector:
    """One attempt at a link: `ended(why, linked)` is called once, when it is over and its command is reaped.

    `why` is empty for an orderly end; `linked` says whether there has been a link at all.  A transport that listens
    makes any number of links, says on the log what becomes of each, and is over only when it cannot listen any more.
    `expect` is the only address that the neighbour may have ("": any).
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        client: Client,
        transport: Transport,
        socket_path: str,
        expect: str,
        linked: Callable[[str], None],
        ended: Callable[[str, bool], None],
    ) -> None:
        self._loop = loop
        self._log = log
        self._client = client
        self._transport = transport
        self._socket_path = os.path.abspath(socket_path)
        self._expect = expect
        self._on_linked = linked
        self._on_ended = ended
        self._pid = 0  # of the command, while it runs
        self._leash = -1  # of a command that starts links; closing it ends the command
        self._was_linked = False
        self._link_over: str | None = None  # why the link ended
        self._exit = ""  # how the command ended, in words
        self._listener: Listener | None = None
        self._dial: Dial | None = None
        self._timer: Timer | None = None
        self._is_copying = False  # our stdio is copied, as it could not be handed over
        self._is_over = False

    def start(self) -> None:
        """Open the transport.  OSError if a command cannot be started."""
        _STARTS[self._transport.kind](self)

    def _start_stdio(self) -> None:
        taken = take_stdio()
        if not self._client.link.passes:
            self._is_copying = True
            self._attach((bridge(self._loop, *taken, self._copied),))
            return
        if same_socket(*taken):
            os.close(taken[1])
            taken = taken[:1]  # type: ignore[assignment]
        self._attach(taken)

    def _copied(self) -> None:
        """All that the daemon had to say has gone out on our stdout."""
        self._is_copying = False
        if self._link_over is not None:
            self._over(self._link_over)

    def _start_command(self) -> None:
        ours, theirs = socketpair()
        try:
            self._pid = child.start(
                self._transport.text, theirs, theirs, environment={"R2_SOCKET": self._socket_path}
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._loop.on_exit(self._pid, self._exited)
        self._attach((ours,))

    def _start_starter(self) -> None:
        words = [*own_command(), "r2-connect", "-s", self._socket_path]
        words += ["-n", self._expect] if self._expect else []
        command = fill_place(self._transport.text, [*words, "-"])
        self._log.debug(f"starting: {command}")
        self._pid, self._leash = child.start_leashed(command)
        self._link_over = ""
        self._loop.on_exit(self._pid, self._exited)

    def _start_tcp(self) -> None:
        def opened(got: int | TransportError) -> None:
            self._dial = None
            if isinstance(got, int):
                self._attach((got,))
            else:
                self._over(str(got))

        self._dial = Dial(self._loop, self._transport, opened)

    def _start_listening(self) -> None:
        self._listener = Listener(
            self._loop,
            self._transport,
            lambda fd: self._attach((fd,)),
            lambda error: self._over(str(error)),
        )

    # -- what the daemon says ----------------------------------------------------------------------------------------

    def _attach(self, descriptors: tuple[int, ...]) -> None:
        self._client.request(
            say.ATTACH, self._heard, (), descriptors, address=self._expect, transport=self._transport.text[:200]
        )

    def _heard(self, body: say.Body, descriptors: tuple[int, ...]) -> None:
        if body.kind == say.LINKED:
            self._was_linked = True
            self._on_linked(body["address"])
            return
        self._client.forget(body.id)
        why = body["text"] or "the link ended"
        if body.kind == say.ENDED and body["code"] == ENDED:
            self._log.info(f"{self._transport}: {why}")
            why = ""
        if self._listener is not None:
            if why:
                self._log.warning(f"{self._transport}: {why}")
            return
        self._link_over = why
        if self._is_copying:
            return  # the farewell is on its way
        if not self._pid:
            self._over("; ".join(filter(None, (why, self._exit))))
        else:
            self._timer = self._loop.later(EXIT_TIME if self._was_linked else FAILED_TIME, self._terminate)

    def _exited(self, status: int) -> None:
        self._pid = 0
        self._let_go()
        if self._timer is not None:
            self._timer.cancel()
        if status:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            self._exit = f"the command {how}"
        if self._link_over is not None:
            self._over("; ".join(filter(None, (self._link_over, self._exit))))

    # -- the end -----------------------------------------------------------------------------------------------------

    def _let_go(self) -> None:
        if self._leash >= 0:
            os.close(self._leash)
            self._leash = -1

    def _terminate(self) -> None:
        if self._leash >= 0:
            self._let_go()
        elif self._pid:
            child.send_signal(self._pid, signal.SIGTERM)

    def _kill(self) -> None:
        if self._pid:
            child.send_signal(self._pid, signal.SIGKILL)

    def _over(self, why: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_ended(why, self._was_linked)

    def abandon(self) -> None:
        """Give up, and say nothing more."""
        self._is_over = True
        self.end()

    def end(self) -> None:
        """Give up: the command is ended too.  (The link ends with the client's connection to the daemon.)"""
        if self._dial is not None:
            self._dial.cancel()
        if self._listener is not None:
            self._listener.close()
        self._terminate()
        if self._pid:
            self._loop.later(KILL_TIME, self._kill)
        else:
            self._over("")
        self._link_over = self._link_over or ""


_STARTS: dict[str, Callable[[Connector], None]] = {
    STDIO: Connector._start_stdio,
    COMMAND: Connector._start_command,
    STARTER: Connector._start_starter,
    TCP: Connector._start_tcp,
    TCP_LISTEN: Connector._start_listening,
}

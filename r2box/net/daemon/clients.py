"""The programs on the control socket, and what hangs on each of them.

    Guest      one program, and all that goes when it goes
    Tunnel     a tunnel that it asked for

(The tunnels that a guest serves are in `starts`.)
"""

from __future__ import annotations

from ...proto.wire import messages as say
from ...proto.wire.outcome import Outcome
from ...proto.wire.route import Message
from ..link.fd_relay import DescriptorRelay
from .job_table import JobTable
from .starts import StartQueue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...proto.link.link import Link
    from ..io.channel import Channel
    from ..io.loop import Loop
    from .starts import Incoming


HANGUP_TIME = 5.0  # seconds that a program has to end after its tunnel failed, before it sees the end of its input


class LocalClient:
    """A program on the control socket."""

    def __init__(self, loop: Loop, link: Link) -> None:
        self.link = link
        self.fd_relay = DescriptorRelay(loop, link)
        self.is_gone = False
        self.attached: dict[int, Link] = {}
        self.tunnels: dict[int, ClientTunnel] = {}
        self.incoming: dict[int, Incoming] = {}
        self.starts = StartQueue()
        self.watching: dict[int, int] = {}  # by the id of WATCH: events that it was too slow for
        self.failed: set[Channel] = set()  # of tunnels that failed
        self.jobs = JobTable()
        self._last = 0

    def say(self, kind: int, id: int, descriptors: tuple[int, ...] = (), **fields: Any) -> bool:
        """Send a body; `descriptors` are given away.  False if the guest is not there, or should do more while it does
        not read.  What became of its own tunnels it is told in any case.
        """
        must = kind not in (say.INCOMING, say.EVENT)
        return self.fd_relay.send(Message((), (), say.encode_body(kind, id, **fields)), descriptors, must=must)

    def fail(self, id: int, text: str, again: int = 0, code: int = 0) -> None:
        self.say(say.ERROR, id, text=text, code=code, again=again)

    def tell(self, what: str, name: str, path: tuple[str, ...], cost: int) -> None:
        """Something has happened that it may be watching for."""
        for id_, missed in self.watching.items():
            said = self.say(say.EVENT, id_, what=what, name=name, path=path, cost=cost, missed=missed)
            self.watching[id_] = 0 if said else missed + 1

    def hold(self, channel: Channel, loop: Loop) -> None:
        """Keep the channel of a tunnel that failed open, so that the guest hears of the failure before it sees the end
        of the stream; until it has gone, or for `HANGUP_TIME`."""

        def let_go() -> None:
            self.failed.discard(channel)
            channel.close()

        self.failed.add(channel)
        loop.later(HANGUP_TIME, let_go)

    def next_id(self) -> int:
        self._last += 1
        return self._last


class ClientTunnel:
    """A tunnel that `client` asked for, under the id of its request.

    A detached one belongs to whoever holds its descriptor, and outlives the guest.
    """

    __slots__ = ("detached", "client", "id", "opened")

    def __init__(self, client: LocalClient, body: say.Body) -> None:
        self.client = client
        self.id = body.id
        self.detached = bool(body["detached"])
        self.opened = False
        client.tunnels[self.id] = self

    def open(self, descriptors: tuple[int, ...], program: bool = False) -> None:
        """It stands; the descriptors are for the guest, and with `program` lead to the service's program itself."""
        self.opened = True
        self.client.say(say.OPENED, self.id, descriptors, program=int(program))
        if self.detached:
            self.client.tunnels.pop(self.id, None)

    def end(self, outcome: Outcome) -> None:
        """It is over, or never was."""
        self.client.tunnels.pop(self.id, None)
        if not self.opened:
            self.client.say(say.ERROR, self.id, code=outcome.code, text=outcome.describe() or "it ended at once")
        elif not self.detached:
            self.client.say(say.ENDED, self.id, **outcome.fields())

    def cancel(self) -> None:
        """Its guest went away."""
        raise NotImplementedError

    def halted(self, outcome: Outcome) -> None:
        """The program of its guest has ended."""

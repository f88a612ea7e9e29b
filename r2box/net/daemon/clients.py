"""Local clients: the programs on the control socket, and the state that ends with them.

    LocalClient   one program on the control socket
    ClientTunnel  a tunnel that it opened

The tunnels that a client serves are in `starts`.
"""

from __future__ import annotations

from ...proto.wire import messages
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

HANGUP_TIME = 5.0  # seconds that a program has to end after its tunnel failed, before its input ends


class LocalClient:
    """A program on the control socket."""

    def __init__(self, loop: Loop, link: Link) -> None:
        self.link = link
        self.fd_relay = DescriptorRelay(loop, link)
        self.is_closed = False
        self.attached: dict[int, Link] = {}
        self.tunnels: dict[int, ClientTunnel] = {}
        self.incoming: dict[int, Incoming] = {}
        self.starts = StartQueue()
        self.watching: dict[int, int] = {}  # by the id of WATCH: events dropped because the client does not read
        self.failed: set[Channel] = set()  # of failed tunnels: still open
        self.jobs = JobTable()
        self._last = 0

    def send(self, kind: int, id: int, descriptors: tuple[int, ...] = (), **fields: Any) -> bool:
        """Send a body; `descriptors` are given away.

        False if the link is down, or if the client does not read and `kind` is INCOMING or EVENT.  Other kinds, which
        report on its own tunnels, are always queued.
        """
        must = kind not in (messages.INCOMING, messages.EVENT)
        return self.fd_relay.send(Message((), (), messages.encode_body(kind, id, **fields)), descriptors, must=must)

    def fail(self, id: int, text: str, again: int = 0, code: int = 0) -> None:
        self.send(messages.ERROR, id, text=text, code=code, again=again)

    def notify(self, what: str, name: str, path: tuple[str, ...], cost: int) -> None:
        """Send an event to each WATCH of the client."""
        for id_, missed in self.watching.items():
            is_sent = self.send(messages.EVENT, id_, what=what, name=name, path=path, cost=cost, missed=missed)
            self.watching[id_] = 0 if is_sent else missed + 1

    def close_later(self, channel: Channel, loop: Loop) -> None:
        """Close the channel of a failed tunnel after `HANGUP_TIME`, or when the client disconnects.

        So the client receives the error before it reads the end of the stream.
        """

        def close() -> None:
            self.failed.discard(channel)
            channel.close()

        self.failed.add(channel)
        loop.later(HANGUP_TIME, close)

    def next_id(self) -> int:
        self._last += 1
        return self._last


class ClientTunnel:
    """A tunnel that `client` opened, under the id of its request.

    A detached one belongs to the holder of its descriptor, and outlives the client.
    """

    __slots__ = ("client", "detached", "id", "opened")

    def __init__(self, client: LocalClient, body: messages.Body) -> None:
        self.client = client
        self.id = body.id
        self.detached = bool(body["detached"])
        self.opened = False
        client.tunnels[self.id] = self

    def open(self, descriptors: tuple[int, ...], program: bool = False, connection: bool = False) -> None:
        """Send OPENED with the client's descriptors.

        With `program` they lead to the service's program itself; with `connection` they are one that the service has
        made, and the tunnel lasts until both directions have ended.
        """
        self.opened = True
        fields = {"program": int(program), "connection": int(connection)}
        self.client.send(messages.OPENED, self.id, descriptors, **fields)
        if self.detached:
            self.client.tunnels.pop(self.id, None)

    def end(self, outcome: Outcome) -> None:
        """Send ENDED, or ERROR if the tunnel was never opened."""
        self.client.tunnels.pop(self.id, None)
        if not self.opened:
            text = outcome.describe() or "the tunnel ended before it was open"
            self.client.send(messages.ERROR, self.id, code=outcome.code, text=text)
        elif not self.detached:
            self.client.send(messages.ENDED, self.id, **outcome.fields())

    def cancel(self) -> None:
        """The client has disconnected."""
        raise NotImplementedError

    def halted(self, outcome: Outcome) -> None:
        """The client's own program has ended."""

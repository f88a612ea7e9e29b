"""The programs on the control socket, and what hangs on each of them.

    Guest      one program, and all that goes when it goes
    Tunnel     a tunnel that it asked for
    Incoming   a tunnel that it was told of as a server, and what to do when it answers
"""

from __future__ import annotations

import os

from ..proto import body as say
from ..proto.outcome import Outcome
from ..proto.route import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..proto.link import Link
    from .channel import Channel
    from .exchange import Exchange
    from .loop import Loop

HANGUP_TIME = 5.0  # seconds that a program has to end after its tunnel failed, before it sees the end of its input


class Guest:
    """A program on the control socket."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.is_gone = False
        self.attached: dict[int, Link] = {}
        self.tunnels: dict[int, Tunnel] = {}
        self.incoming: dict[int, Incoming] = {}
        self.failed: set[Channel] = set()  # of tunnels that failed
        self._last = 0

    def say(self, kind: int, id: int, descriptors: tuple[int, ...] = (), **fields: Any) -> bool:
        """Send a body; `descriptors` are given away.  False if the guest is not there, or should do more while it does
        not read.  What became of its own tunnels it is told in any case.
        """
        must = kind != say.INCOMING
        if self.link.message(Message((), (), say.encode_body(kind, id, **fields)), descriptors, must=must):
            return True
        close_all(descriptors)
        return False

    def fail(self, id: int, text: str) -> None:
        self.say(say.ERROR, id, text=text)

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


class Tunnel:
    """A tunnel that `guest` asked for, under the id of its request."""

    def __init__(self, guest: Guest, id: int) -> None:
        self.guest = guest
        self.id = id
        self.opened = False
        self.cancel: Callable[[], None] = lambda: None  # its guest went away
        self.halted: Callable[[Outcome], None] = lambda outcome: None  # the program of its guest has ended

    def open(self, descriptors: tuple[int, ...]) -> None:
        self.opened = True
        self.guest.say(say.OPENED, self.id, descriptors)

    def end(self, outcome: Outcome) -> None:
        self.guest.tunnels.pop(self.id, None)
        if self.opened:
            self.guest.say(say.ENDED, self.id, **outcome.fields())
        else:
            self.guest.say(say.ERROR, self.id, code=outcome.code, text=outcome.describe() or "it ended at once")


class Incoming:
    """A tunnel for a service of `server`, from its announcement to the exit of its program."""

    def __init__(
        self,
        exchange: Exchange,
        server: Guest,
        started: Callable[[tuple[int, ...]], None],
        exited: Callable[[Outcome], None],
    ) -> None:
        self.server = server
        self.id = server.next_id()
        self.started = started
        self._exited = exited
        self._exchange = exchange
        self._told = False  # to hang up
        server.incoming[self.id] = self
        exchange.incoming.add(self)

    @property
    def is_running(self) -> bool:
        """Whether the server has still to tell how it ended."""
        return self.id in self.server.incoming

    def hang_up(self, text: str) -> None:
        """Have the server end the program."""
        if self.is_running and not self._told:
            self._told = True
            self.server.say(say.HANGUP, self.id, text=text)

    def end(self, outcome: Outcome) -> None:
        """It has ended."""
        if self.is_running:
            self.drop()
            self._exited(outcome)

    def drop(self) -> None:
        """Nothing more is to be heard of it."""
        self.server.incoming.pop(self.id, None)
        self._exchange.dropped(self)


def close_all(descriptors: tuple[int, ...]) -> None:
    for fd in descriptors:
        os.close(fd)

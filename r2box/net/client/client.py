"""Client: a connection to the daemon over the control socket, for requests, answers and events."""

from __future__ import annotations

import os

from ...errors import DaemonError, RefusedError, TransportError, WireError
from ...proto.limits import Limits
from ...proto.link.attachments import LOST
from ...proto.link.handshake import LocalPeer
from ...proto.link.keepalive import BY_NEIGHBOUR, BY_TIMEOUT
from ...proto.link.link import UP, Link
from ...proto.wire import messages
from ...proto.wire.frames import CLIENT, DESCRIPTOR
from ...proto.wire.outcome import BUSY, Outcome
from ...proto.wire.route import Message
from ...version import __version__
from ..io.channel import Channel, close_all, is_terminal
from ..io.loop import Loop
from ..io.reserve import explain
from ..link.driver import LinkDriver
from ..link.fd_relay import DescriptorRelay
from ..link.turns import TurnGroup
from .reach import WAIT, reach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...proto.link.stream import Stream
    from ...proto.wire.fields import Buffer

    Answer = Callable[[messages.Body, tuple[int, ...]], None]


AGAIN = 0.05  # seconds before a request is repeated: no event reports that a name has become known
PARTING = 2.0  # seconds for the descriptor relay to empty when its client leaves
ANSWER_TIME = 0.8  # seconds for a daemon to show that it lives when its client leaves
SILENT = "the daemon does not answer"


class _Request:
    """A request as it was made, with copies of the descriptors that were given away."""

    __slots__ = ("descriptors", "fields", "kind", "path")

    def __init__(self, kind: int, path: tuple[str, ...], descriptors: tuple[int, ...], fields: dict[str, Any]) -> None:
        self.kind, self.path, self.descriptors, self.fields = kind, path, descriptors, fields


class Client:
    """A connection to the daemon over `fd`, a UNIX socket.

    `ready()` is called when the daemon has answered; `lost(why)` once, when the connection has failed: `why` begins
    with "the daemon".  Events that belong to no request of ours go to `event(body, descriptors)`, which owns the
    descriptors.

    A request for a name that the daemon does not know is repeated for up to `wait` seconds, as long as the daemon
    reports that its links are being made.
    """

    limits = Limits()  # the defaults, for all

    def __init__(
        self,
        loop: Loop,
        fd: int,
        *,
        ready: Callable[[], None],
        lost: Callable[[str], None],
        event: Answer | None = None,
        wait: float = 0.0,
    ) -> None:
        self.loop = loop
        self.address = ""  # the daemon's, once ready
        self._ready = ready
        self._lost = lost
        self._event = event
        self._answers: dict[int, tuple[Answer, tuple[str, ...]]] = {}
        self._wait = wait
        self._until = 0.0  # until when a request may be repeated
        self._unanswered: dict[int, _Request] = {}  # those that may be
        self._last = int.from_bytes(os.urandom(3), "big")  # so that answers cannot be guessed
        self._driver: LinkDriver | None = None
        me = LocalPeer("", b"", role=CLIENT, software=f"r2box {__version__}")
        self.link = Link(self, me, loop.now(), local=True)
        self.fd_relay = DescriptorRelay(loop, self.link)
        self._driver = LinkDriver(TurnGroup(loop), self.link, Channel(fd), loop, lambda: None)

    def request(
        self,
        kind: int,
        answer: Answer,
        path: tuple[str, ...] = (),
        descriptors: tuple[int, ...] = (),
        is_line: int = False,
        **fields: Any,
    ) -> int:
        """Ask the node at `path` for something.  `answer(body, descriptors)` is called with every body that comes back
        under this request's id (an answer, then perhaps events) until `forget(id)`.  Returns the id.

        `descriptors` are given away.  TransportError if one is a terminal, unless `is_line`: a daemon in the background
        that reads one is stopped by the kernel, and with it all its clients.
        """
        if not is_line and any(map(is_terminal, descriptors)):
            close_all(descriptors)
            raise TransportError("a terminal cannot be handed to a daemon")
        self._last += 1
        self._answers[self._last] = (answer, path)
        if self.loop.now() < self._until:
            self._unanswered[self._last] = _Request(kind, path, tuple(map(os.dup, descriptors)), fields)
        self.send(kind, self._last, path, descriptors, **fields)
        return self._last

    def send(
        self, kind: int, id: int, path: tuple[str, ...] = (), descriptors: tuple[int, ...] = (), **fields: Any
    ) -> None:
        """Say something that has no answer of its own."""
        message = Message(path, (), messages.encode_body(kind, id, **fields))
        if not self.fd_relay.send(message, descriptors, must=True):
            if self.link.state == UP:
                raise DaemonError("a request of more than 64 KiB")

    def forget(self, id: int) -> None:
        self._answers.pop(id, None)
        self._drop(id)

    def _drop(self, id: int) -> None:
        """This request is not repeated."""
        if id in self._unanswered:
            close_all(self._unanswered.pop(id).descriptors)

    def _is_repeated(self, body: messages.Body) -> bool:
        """Whether the answer `body` is none yet, as its request is made once more."""
        if body.id not in self._unanswered:
            return False
        if body.kind != messages.ERROR or not body["again"] or self.loop.now() >= self._until:
            self._drop(body.id)
            return False
        self.loop.later(AGAIN, lambda: self._repeat(body.id))
        return True

    def _repeat(self, id: int) -> None:
        request = self._unanswered.get(id)
        if request is not None and self.link.state == UP:
            self.send(request.kind, id, request.path, tuple(map(os.dup, request.descriptors)), **request.fields)

    def leave(self, done: Callable[[], None], silent: Callable[[str], None] = lambda why: None) -> None:
        """Part from the daemon; done() when all that hung on this client there has ended.

        A daemon that hangs is not waited for: after `ANSWER_TIME` silent(why) is called, and then done().
        """

        def finish() -> None:
            if self.link.state == UP:
                self.close()
                done()

        def look() -> None:
            if self.link.state == UP and self.link.received == received:
                silent(SILENT)
                self.link.eof(self.loop.now(), SILENT)

        def answered(body: messages.Body, descriptors: tuple[int, ...]) -> None:
            if self.fd_relay.active:  # the farewells of links are still on it
                self.fd_relay.idle = finish
                self.loop.later(PARTING, finish)
            else:
                finish()

        if self.link.state != UP:
            if not self.link.is_down and self.loop.now() - self.link.begun >= ANSWER_TIME:
                silent(SILENT)
            self.close()  # or it would still come up, and begin
            self.loop.soon(done)
            return
        self._lost = lambda why: done()
        received = self.link.received
        self.request(messages.LEAVE, answered)
        self.link.ping()
        self.loop.later(ANSWER_TIME, look)

    def close(self) -> None:
        """Part from the daemon at once: what hangs on this client there ends when it notices."""
        self._lost = lambda why: None
        self.link.close("", orderly=True)

    def abandon(self) -> None:
        """Close our descriptor and send nothing: the connection continues in the process that we were forked from."""
        if self._driver is not None:
            self._driver.channel.close()

    # -- events of the link (Owner) --------------------------------------------------------------------------------

    def link_hello(self, link: Link) -> None:
        self.address = link.address
        link.accept()

    def link_up(self, link: Link) -> None:
        self._until = self.loop.now() + self._wait
        self._ready()

    def link_down(self, link: Link, reason: str) -> None:
        if link.ended == BY_TIMEOUT:
            self._lost(f"{SILENT} ({reason.partition(':')[0]})")
        elif link.ended == BY_NEIGHBOUR and not link.was_up:
            self._lost(f"the daemon refused: {reason}")
        else:
            self._lost(f"the daemon closed the connection: {reason}")

    def link_suspended(self, link: Link, reason: str) -> None:
        return

    def link_resumed(self, link: Link, other: Link) -> None:
        return

    def link_message(self, link: Link, message: Message, descriptors: tuple[int, ...]) -> None:
        try:
            body = messages.decode_body(message.body)
        except WireError:  # it is of no use to us, and no reason to part from the daemon
            close_all(descriptors)
            return
        path: tuple[str, ...] = ()
        if body.kind in (messages.INCOMING, messages.HANGUP):
            answer = self._event
        else:
            answer, path = self._answers.get(body.id, (None, ()))
        if LOST in descriptors:
            close_all(descriptors)
            descriptors, why = (), explain()
            if body.kind == messages.INCOMING:
                self.send(messages.EXITED, body.id, **Outcome(BUSY, why).fields())
                return
            body = messages.decode_body(messages.encode_body(messages.ERROR, body.id, code=BUSY, text=why))
        if answer is not None and self._may_answer(message.origin, path, body.kind == messages.ERROR):
            if not self._is_repeated(body):
                answer(body, descriptors)
        else:
            close_all(descriptors)

    def _may_answer(self, origin: tuple[str, ...], path: tuple[str, ...], is_error: bool) -> bool:
        """Whether what has come by `origin` can be an answer of the node at `path`.

        It comes from that node, by way of all that were named; others may lie between them, which discovery knew.  An
        error may come from any node on the way, which was perhaps not named; on the way to our own daemon is none.
        """
        way = (self.address, *path)  # a node strips its own address, however often it stands there
        steps = [step for before, step in zip(way, way[1:]) if step != before]
        if origin == tuple(steps) or (is_error and steps):
            return True
        trail = iter(origin)
        return origin[-1:] == tuple(steps[-1:]) and all(step in trail for step in steps)

    def link_open(self, link: Link, stream: Stream, fields: dict[str, Any]) -> None:
        if link.passes_descriptors or fields["mode"] != DESCRIPTOR:
            raise WireError("an OPEN for a client")
        self.fd_relay.accept(stream)

    def link_alive(self, link: Link) -> None:
        return

    def link_measured(self, link: Link) -> None:
        return

    def link_reach(self, link: Link, payload: Buffer) -> None:
        return

    def link_wake(self, link: Link) -> None:
        if self._driver is not None:
            self._driver.wake()


def ask(
    given: str | None,
    steps: Callable[[Client, Callable[[], None]], None],
    wait: float = WAIT,
    *,
    for_names: bool = True,
    limit: float | None = None,
) -> None:
    """Run a loop for a tool that only asks questions: `steps(client, done)` starts when the daemon has answered.

    The daemon is found by `reach`, with the socket `given`, or None, within `wait` seconds; `for_names`, names are
    waited for as long too, as `Client` does.  It has `limit` seconds to answer (None: as long as any link).

    DaemonError if there is no daemon, or if it is lost before done() was called.
    """
    sock, path = reach(given, wait)
    loop = Loop()
    state = {"over": False, "why": SILENT}

    def lost(why: str) -> None:
        state["why"] = why
        loop.stop()

    def done() -> None:
        state["over"] = True
        loop.stop()

    def ready() -> None:
        if timer is not None:
            timer.cancel()
        steps(client, done)

    timer = loop.later(limit, lambda: lost(SILENT)) if limit is not None else None
    client = Client(loop, sock.detach(), ready=ready, lost=lost, wait=wait * for_names)
    try:
        loop.run()
    finally:
        loop.close()
    if not state["over"]:
        raise DaemonError(f"{path}: {state['why']}")


def checked(body: messages.Body) -> messages.Body:
    """`body`, or RefusedError with what it says if it is an error."""
    if body.kind == messages.ERROR:
        raise RefusedError(body["text"])
    return body

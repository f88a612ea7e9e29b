"""Link: the protocol with one neighbour, as a state machine over bytes that the caller carries.

    READY_WAIT  the handshake is in progress               UP, DOWN
    UP          streams and messages flow; or the link is  DOWN
                suspended: it has no transport, and keeps what is not acknowledged
    DOWN        closed or failed                           none

A link is established by `handshake`.  It ends with BYE and a reason.  When its transport ends without BYE, the link is
suspended if both sides have agreed to that; `handshake` resumes it over another transport, or the resume timeout ends
it.  Output is pulled: `produce()` returns the next bytes, in the order of `SendScheduler`.

`now` is in seconds on a monotonic clock.  An error of the neighbour closes the link; nothing is raised.
"""

from __future__ import annotations

from ...errors import WireError
from ..memory_limit import Account, MemoryLimit
from ..wire import frames
from ..wire.fields import shorten
from ..wire.outcome import BUSY, LOST, Outcome
from ..wire.route import decode_message, encode_message
from .attachments import Attached
from .handshake import Handshake
from .keepalive import BY_NEIGHBOUR, BY_US, KEEPALIVE, Keepalive
from .receive_limit import ReceiveLimit
from .sender import MAX_ROOM, Sender, check_mark
from .stream import Stream
from .stream_table import StreamTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..wire.fields import Buffer
    from ..wire.route import Message
    from .handshake import Me
    from .host import LinkHost
    from .policy import Policy
    from .resume import ResumeSession
    from .token_bucket import RequestLimit

LOSSY = "does the transport lose or change bytes? Then use --lossy"
READY_WAIT, UP, DOWN = range(3)


class Link:
    """The protocol with one neighbour, over bytes that somebody else carries.

    `expect` is the only address that the neighbour may have (None: any).  `local`: this is a control socket, where
    descriptors pass.  `random` and `resume_timeout` are for the `Handshake`; `keepalive` is in seconds; `memory` is
    shared with other links (None: its own).
    """

    def __init__(
        self,
        host: LinkHost,
        me: Me,
        now: float,
        *,
        expect: str | None = None,
        local: bool = False,
        random: bytes = b"",
        resume_timeout: int = 0,
        keepalive: float = KEEPALIVE,
        memory: MemoryLimit | None = None,
    ) -> None:
        self.host = host
        self.me = me
        self.now = self.begun = now  # `begun`: when it came up; before that, when it was made
        self.expect = expect
        self.is_local = local
        self.passes = False  # descriptors pass on it, as the transport has found
        self.state = READY_WAIT
        self.address = self.transport = ""  # the neighbour's, once it is known; what carries it, for people
        self.peer: dict[str, Any] = {}  # its hello
        self.reason = ""  # why the link is down
        self.was_up = False
        self.said_bye = False  # we, not the neighbour
        self.ended = BY_US  # or by what
        self.is_orderly = False  # it ended because one side wished so, and nothing was wrong
        self.account = Account(memory or MemoryLimit())
        self.streams = StreamTable(self)
        self.receive_limit = ReceiveLimit(self.account)
        self.received = 0  # bytes of the session
        self.sender = Sender(self.account)
        self.policy: Policy | None = None  # of the owner, for this link; None: as for all
        self.opens: RequestLimit | None = None  # set by the owner, as this is
        self.relays: RequestLimit | None = None
        self.requests: RequestLimit | None = None
        self.session: ResumeSession | None = None  # None: it cannot be suspended
        self.is_suspended = False
        self._decoder = frames.FrameDecoder()
        self._attached = Attached()
        self._fed: dict[Stream, None] = {}  # got data in this receive(); an ordered set
        self._keepalive = Keepalive(self, now, keepalive)
        self._successor: Link | None = None  # that has taken our transport
        self._handshake = Handshake(self, random, resume_timeout)
        self.sender.replay.is_on = self._handshake.resume_timeout > 0
        self._queue(frames.MAGIC + self._handshake.hello())

    # -- the beginning -------------------------------------------------------------------------------------------

    @property
    def is_first(self) -> bool:
        """Which of the two sides this is, where it matters."""
        return bool(self.me.instance < self.peer["instance"])

    def accept(self) -> None:
        """The owner takes the neighbour (its answer to `link_hello`)."""
        if self.state == READY_WAIT:
            self._handshake.accept()

    def up(self, session: ResumeSession | None) -> None:
        """The greeting is over."""
        self.state = UP
        self.was_up, self.begun = True, self.now
        self.session = session
        if session is None:
            self.sender.replay.stop()
        self._keepalive.relax()
        if self.joins_nodes:
            self.ask()
        self.host.link_up(self)

    def take_up(self, old: Link) -> bool:
        """Try to resume `old`, which is suspended or being probed; False if the neighbour is not the one of `old`."""
        if not self._handshake.may_resume(old):
            return False
        if old.is_suspended:
            self._handshake.begin()
        return True

    def give_to(self, old: Link) -> None:
        """`old` goes on over our transport."""
        self.state, self._successor = DOWN, old
        old.resume(self.sender.scheduler.drain(), self.now)
        old.host.link_resumed(old, self)

    # -- without a transport -------------------------------------------------------------------------------------

    def let_go(self, now: float) -> None:
        """The neighbour will go on over another transport."""
        if not self.is_suspended:
            self.suspend("it goes on over another transport", now)

    def suspend(self, reason: str, now: float) -> None:
        """The transport is gone.  Without a session, the link ends."""
        self.now = now
        if self.session is None or self.state != UP or not self.sender.replay.is_on:
            self.down(reason)
            return
        if not self.is_suspended:
            self.is_suspended, self.reason = True, reason
            self.receive_limit.park(sum(stream.allowance for stream in self.streams.values()))
            self._keepalive.wait(now + self.session.resume_timeout)
            self.host.link_suspended(self, reason)

    def resume(self, preface: bytes, now: float) -> None:
        """There is another transport.  `preface` goes before what the neighbour has not received."""
        self.now = now
        self.is_suspended, self.reason = False, ""
        self.receive_limit.unpark()
        self._keepalive.beat(now)
        self.sender.resume(preface)

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self, reason: str, *, orderly: bool = False) -> None:
        """End the link and tell the neighbour why.  What `produce` still gives should be sent."""
        if self.state != DOWN:
            self.is_orderly, self.said_bye = orderly, True
            if not (self._handshake.is_mute or self.sender.repeats):  # a BYE would come out of the middle of something
                fields = frames.BYE_FIELDS.encode(code=0 if orderly else frames.FAULT, text=shorten(reason))
                self.control(frames.BYE, 0, fields)
            self.down(reason)

    def eof(self, now: float, why: str = "") -> None:
        """The transport has ended."""
        closed = "closed without a farewell" if self.state == UP else "closed before its hello was complete"
        self.suspend(why or closed, now)

    def _on_bye(self, payload: Buffer) -> None:
        fields = frames.BYE_FIELDS.decode(payload)
        self.is_orderly, self.ended = not fields["code"], BY_NEIGHBOUR
        who = "" if self.is_local else f"{self.address or 'the neighbour'} ended it: "
        self.down(fields["text"] and who + fields["text"])

    def down(self, reason: str) -> None:
        if self.state == DOWN:
            return
        self.state, self.reason = DOWN, reason
        self.is_suspended = False
        self.sender.stop()
        streams = self.streams.release_all()
        self.receive_limit.clear()
        lost = Outcome(LOST, f"{self.me.address}: the link to {self.address} is gone ({reason or 'it was closed'})")
        try:
            for stream in streams:
                stream.on_lost(lost)
        finally:  # whatever one stream's end raises
            self.host.link_wake(self)
            self.host.link_down(self, reason)

    # -- bytes in ------------------------------------------------------------------------------------------------

    def receive(self, data: Buffer, now: float, descriptors: tuple[int, ...] = (), work: int = frames.MAX_WORK) -> int:
        """Take bytes from the neighbour, and the descriptors beside them as `Attached` has them.

        Returns how many bytes were taken: all, or fewer once `work` units (see `wire.WORK`) are spent.  The caller
        gives the rest again later, so that one neighbour's small frames do not make others wait.  `settle` must come
        before `data` changes.
        """
        self.now = now
        before = self.received
        self._attached.add(descriptors)
        if self._keepalive.beat(now):
            self.host.link_alive(self)
        taken = len(data)
        try:
            for kind, route, payload in self._decoder.feed(data):
                if self.state == DOWN:
                    return taken
                self._dispatch(kind, route, payload)
                work -= frames.WORK.get(kind, 1)
                if self._successor is not None or work <= 0:
                    taken = self._decoder.place - before
                    break
            self.received = before + taken
            if self._successor is not None:
                rest = memoryview(data)[taken:]
                return taken + (self._successor.receive(rest, now, (), work) if rest else 0)
            if self.streams.fresh:
                self.streams.begin()
            for stream in list(self._fed):
                stream.far.readable()
            self._attached.check()
        except WireError as error:
            may_be_lossy = self.was_up and not (self.is_local or self.sender.is_repaired)
            self.close(f"{error} ({LOSSY})" if may_be_lossy else str(error))
        return taken

    def _dispatch(self, kind: int, route: int, payload: memoryview) -> None:
        if self.state != UP and kind not in _EARLY:
            raise WireError(f"a {frames.FRAMES[kind][0]} frame before the link is up")
        if kind in _GREETING:
            _GREETING[kind](self._handshake, payload)
        elif not route:
            _LINK_FRAMES[kind](self, payload)
        elif kind == frames.OPEN:
            self._on_open(route, payload)
        else:
            stream = self.streams.get(route)
            if stream is None:
                raise WireError(f"a {frames.FRAMES[kind][0]} frame on a route that is not open")
            if self.streams.fresh and kind != frames.CLOSE:
                self.streams.begin()
            if kind == frames.DATA:
                if not stream.close_sent:
                    stream.on_data(payload)
                    self._fed[stream] = None
            elif kind == frames.CLOSE or not stream.close_sent:
                _STREAM_FRAMES[kind](stream, payload)

    def settle(self) -> None:
        """Make the streams keep copies of what they could not pass on yet."""
        for stream in self._fed:
            stream.inbox.settle()
        self._fed.clear()

    def _on_open(self, route: int, payload: Buffer) -> None:
        if route & 1:
            raise WireError("an OPEN with a label of the receiver's")
        if route in self.streams:
            raise WireError("an OPEN on a label that is in use")
        if self.streams.is_overrun:
            raise WireError(f"more than {len(self.streams)} routes")
        fields = frames.OPEN_FIELDS.decode(payload)
        why = self.streams.refusal
        stream = self.streams.take(route)
        stream.on_window(fields["window"])
        if why:
            stream.close(Outcome(BUSY, f"{self.me.address}: {why}; retry later"))
        elif self.is_local:  # a message behind it may be about it
            self.host.link_open(self, stream, fields)
        else:
            self.streams.fresh.append((stream, fields))

    def _on_message(self, payload: Buffer) -> None:
        message, count = decode_message(payload)
        self.host.link_message(self, message, self._attached.take(count))

    def _on_ping(self, payload: Buffer) -> None:
        check_mark(payload, self._decoder.place)
        self.control(frames.PONG, 0, bytes(payload))

    def _on_pong(self, payload: Buffer) -> None:
        self.sender.on_pong(payload, self.now)
        if self.has_output:
            self.host.link_wake(self)
        if self.joins_nodes:
            self.host.link_measured(self)

    @property
    def rtt(self) -> float:
        """Smoothed round trip to the neighbour, in seconds; 0 while unknown."""
        return self.sender.in_flight.rtt

    @property
    def trip(self) -> float:
        """Shortest recent round trip, in seconds; 0 while unknown."""
        return self.sender.in_flight.trip

    # -- bytes out -----------------------------------------------------------------------------------------------

    def control(self, kind: int, route: int = 0, payload: bytes = b"") -> None:
        """Queue a frame that goes before all data."""
        if self.state != DOWN:
            self._queue(frames.encode_frame(kind, route, payload))

    def message(
        self, message: Message, descriptors: tuple[int, ...] = (), *, must: bool = False, beside: int = 0
    ) -> bool:
        """Queue a message; the descriptors go along and are the link's from now on.  False: it cannot be sent.

        With `must` there is always room: for what belongs to something that is bounded by itself, as tunnels are.
        `beside` is how many descriptors the streams stand for that were opened just before.
        """
        if self.state != UP or (self.is_backlogged and not must):
            return False
        payload = encode_message(message, len(descriptors) or beside)
        if len(payload) > frames.MAX_CONTROL:
            return False
        frame = frames.encode_frame(frames.MESSAGE, 0, payload)
        if self.is_local:
            self._queue(frame, descriptors)
            return True
        self.host.link_wake(self)
        return self.sender.scheduler.put_message(frame)

    def _queue(self, frame: bytes, descriptors: tuple[int, ...] = ()) -> None:
        self.sender.scheduler.put(frame, descriptors)
        self.host.link_wake(self)

    @property
    def is_backlogged(self) -> bool:
        """Whether too much waits already for a neighbour that does not read."""
        return self.sender.scheduler.is_backlogged

    @property
    def has_output(self) -> bool:
        return self.sender.has_output

    def schedule(self, stream: Stream) -> None:
        """`stream` has something to send, and credit."""
        self.sender.scheduler.schedule(stream)
        self.host.link_wake(self)

    def produce(self, now: float, room: int = MAX_ROOM) -> tuple[list[Buffer], tuple[int, ...]]:
        """The next bytes to write, `room` of data at most, and the descriptors that go with their first byte."""
        self.now = now
        if self.is_backlogged:
            self._keepalive.beat(now)  # it is not listened to meanwhile, but it takes what we write
        return self.sender.produce(now, room)

    def abandon(self) -> tuple[int, ...]:
        """Descriptors that were to go out or came in and belong to nobody: the caller closes them."""
        return (*self.sender.scheduler.abandon(), *self._attached.clear())

    # -- streams -------------------------------------------------------------------------------------------------

    def open(self, fields: dict[str, Any]) -> Stream | None:
        """A new route to this neighbour, with the fields of its OPEN but the window; None if there are too many."""
        if self.state != UP or self.is_backlogged or not self.streams.may_open:
            return None
        stream = self.streams.open()
        self.control(frames.OPEN, stream.route, frames.OPEN_FIELDS.encode(**fields, window=stream.first_grant()))
        return stream

    def board(self, descriptor: int) -> None:
        """`descriptor` (or LOST) has come by a stream, for the next message that is said to have one beside it."""
        self._attached.add((descriptor,))

    def release(self, stream: Stream) -> None:
        """Free the label of `stream`: both sides have sent CLOSE."""
        self.receive_limit.forget(stream)
        self.sender.scheduler.forget(stream)
        self.streams.release(stream)

    # -- time ----------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self.state == UP

    @property
    def is_down(self) -> bool:
        return self.state == DOWN

    @property
    def joins_nodes(self) -> bool:
        return bool(self.peer["role"] == self.me.role == frames.NODE)

    def deadline(self) -> float:
        """When `tick` must be called next (seconds on the caller's clock); 0 if it need not be."""
        return self._keepalive.deadline()

    def tick(self, now: float) -> None:
        self.now = now
        self._keepalive.tick(now)

    def probe(self, now: float, resume_timeout: float) -> None:
        """Be sure within `resume_timeout` seconds that the neighbour is there, or take it for dead."""
        self.now = now
        self._keepalive.probe(now, resume_timeout)

    def ask(self) -> None:
        """Want an answer from the neighbour."""
        if self.state != DOWN:
            self.sender.wants_mark = True
            self.host.link_wake(self)

    def lose(self, reason: str, now: float) -> None:
        """The neighbour is taken for dead."""
        self.suspend(reason, now) if self.session is not None else self.close(reason)


_GREETING: dict[int, Callable[[Handshake, Buffer], None]] = {
    frames.HELLO: Handshake.on_hello,
    frames.READY: Handshake.on_ready,
    frames.RESUME: Handshake.on_resume,
}
_EARLY = (*_GREETING, frames.BYE)  # may come before the link is up
_LINK_FRAMES: dict[int, Callable[[Link, Buffer], None]] = {
    frames.BYE: Link._on_bye,
    frames.PING: Link._on_ping,
    frames.PONG: Link._on_pong,
    frames.MESSAGE: Link._on_message,
    frames.REACH: lambda link, payload: link.host.link_reach(link, payload),
}
_STREAM_FRAMES: dict[int, Callable[[Stream, Buffer], None]] = {
    frames.ACCEPT: Stream.on_accept,
    frames.CREDIT: Stream.on_credit,
    frames.FIN: Stream.on_fin,
    frames.STOP: Stream.on_stop,
    frames.CLOSE: Stream.on_close,
    frames.RECALL: Stream.on_recall,
    frames.RETURN: Stream.on_return,
}

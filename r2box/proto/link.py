"""One neighbour: hello, keepalive, frames in and out.

A link begins with HELLO from both sides at once.  Each checks the other's and answers READY; the link is up when READY
has gone both ways, so a refusal (a wrong address, no common version) is heard before anybody calls the link up.  It
ends with BYE and a reason, or when the transport does.

Sending is asked for, never pushed: `produce()` gives the next bytes when the transport can take them, in the order
that `Outbox` decides.

`now` is seconds on any clock that does not go backwards.  What the neighbour does wrong ends the link with an event;
nothing is raised.
"""

from __future__ import annotations

from collections import deque

from ..errors import WireError
from . import wire
from .address import check_address
from .budget import Budget
from .flight import Flight
from .outbox import Outbox
from .outcome import LOST, Outcome
from .route import decode_message, encode_message
from .stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from .route import Message
    from .wire import Buffer

    class Owner(Protocol):
        """Who a link reports to: a Node, or the client at the other end of a control socket."""

        def link_up(self, link: Link) -> None: ...
        def link_down(self, link: Link, reason: str) -> None: ...
        def link_hello(self, link: Link) -> None: ...
        def link_message(self, link: Link, message: Message, descriptors: tuple[int, ...]) -> None: ...
        def link_open(self, link: Link, stream: Stream, fields: dict[str, Any]) -> None: ...
        def link_alive(self, link: Link) -> None: ...
        def link_wake(self, link: Link) -> None: ...


HELLO_TIMEOUT = 10.0  # seconds for both hellos: a person waits for this
KEEPALIVE = 15.0  # seconds of silence after which the neighbour is asked
MISSES = 3  # unanswered questions that make it dead
MAX_STREAMS = 16384  # that we open on a link: 10,000 tunnels, and windows of the least size still fit in memory
MAX_ROOM = 1 << 30  # for a link that is to be done with soon
MAX_PASSENGERS = 64  # descriptors that came and wait for their message

HELLO_WAIT, READY_WAIT, UP, DOWN = range(4)


class Me:
    """What this side says of itself in its hello."""

    __slots__ = ("address", "instance", "role", "software")

    def __init__(self, address: str, instance: bytes, role: int = wire.NODE, software: str = "") -> None:
        self.address = address
        self.instance = instance
        self.role = role
        self.software = software


class Link:
    """The protocol with one neighbour, over bytes that somebody else carries.

    `expect` is the only address that the neighbour may have (None: any).  `local` says that this is a
    control socket, between a daemon and a client of it; descriptors pass there.
    """

    def __init__(
        self, owner: Owner, me: Me, now: float, *, expect: str | None = None, local: bool = False
    ) -> None:
        self.owner = owner
        self.me = me
        self.now = now
        self.expect = expect
        self.is_local = local
        self.passes = False  # descriptors pass on it, as the transport has found
        self.state = HELLO_WAIT
        self.address = ""  # the neighbour's, once it is known
        self.peer: dict[str, Any] = {}  # its hello
        self.reason = ""  # why the link is down
        self.was_up = False
        self.said_bye = False  # we, not the neighbour
        self.is_hurried = False  # send all there is: the neighbour is not listened to any more
        self.is_orderly = False  # it ended because one side wished so, and nothing was wrong
        self.streams: dict[int, Stream] = {}  # by the route number of frames that come in
        self.budget = Budget()
        self.received = 0  # bytes, for the statistics
        self.flight = Flight()
        self._decoder = wire.Decoder()
        self._outbox = Outbox()
        self._passengers: deque[int] = deque()  # descriptors that came in and whose message has not
        self._free_labels: list[int] = []
        self._next_label = 1
        self._fed: dict[Stream, None] = {}  # got data in this receive(); an ordered set
        self._heard_at = now
        self._misses = 0
        self._wait_until = now + HELLO_TIMEOUT  # for the hello, or for the answer to a probe
        self._ready_sent = self._ready_received = False
        self.start()

    # -- the beginning -------------------------------------------------------------------------------------------

    def start(self) -> None:
        payload = wire.HELLO_FIELDS.encode(
            oldest=wire.OLDEST, newest=wire.VERSION, address=self.me.address, instance=self.me.instance,
            role=self.me.role, descriptors=int(self.is_local), software=self.me.software,
        )  # fmt: skip
        self._queue(wire.MAGIC + wire.encode_frame(wire.HELLO, 0, payload))

    def _on_hello(self, payload: Buffer) -> None:
        if self.state != HELLO_WAIT:
            raise WireError("a second hello")
        hello = self.peer = wire.HELLO_FIELDS.decode(payload)
        wire.agree_version(hello["oldest"], hello["newest"])
        if hello["role"] == wire.NODE:
            try:
                self.address = check_address(hello["address"])
            except ValueError as error:
                raise WireError(f"the neighbour's hello: {error}") from None
            if len(hello["instance"]) != 16:
                raise WireError("the neighbour's hello: an instance that has not 16 bytes")
            if hello["instance"] == self.me.instance:
                raise WireError(f"a link from {self.address} to itself")
            if self.expect and self.address != self.expect:
                raise WireError(f"expected {self.expect}, but the neighbour is {self.address}")
            if self.address == self.me.address:
                raise WireError(f"the neighbour has the same address as this node: {self.address}")
        elif hello["role"] != wire.CLIENT:
            raise WireError(f"the neighbour is of an unknown kind: {hello['role']}")
        self.state = READY_WAIT
        self.owner.link_hello(self)

    def accept(self) -> None:
        """The owner takes the neighbour (its answer to `link_hello`)."""
        if self.state == READY_WAIT and not self._ready_sent:
            self._ready_sent = True
            self.control(wire.READY)
            self._maybe_up()

    def _on_ready(self, payload: Buffer) -> None:
        if self.state != READY_WAIT or self._ready_received:
            raise WireError("a READY that nobody waits for")
        self._ready_received = True
        self._maybe_up()

    def _maybe_up(self) -> None:
        if self._ready_sent and self._ready_received:
            self.state = UP
            self.was_up = True
            self._wait_until = 0.0
            if self.peer["role"] == wire.NODE and self.me.role == wire.NODE:
                self._ask()
            self.owner.link_up(self)

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self, reason: str, *, orderly: bool = False) -> None:
        """End the link and tell the neighbour why, and whether all is well.  What `produce` still gives should be
        sent."""
        if self.state != DOWN:
            self.is_orderly = orderly
            self.said_bye = True
            code = 0 if orderly else wire.FAULT
            self.control(wire.BYE, 0, wire.BYE_FIELDS.encode(code=code, text=wire.shorten(reason)))
            self._down(reason)

    def eof(self, why: str = "") -> None:
        """The transport has ended."""
        self._down(why or ("closed without a farewell" if self.state == UP else "closed before its hello was complete"))

    def _on_bye(self, payload: Buffer) -> None:
        fields = wire.BYE_FIELDS.decode(payload)
        text = fields["text"]
        self.is_orderly = not fields["code"]
        self._down(f"{self.address or 'the neighbour'} ended it: {text}" if text else "")

    def _down(self, reason: str) -> None:
        if self.state == DOWN:
            return
        self.state = DOWN
        self.reason = reason
        self._outbox.drop_streams()
        streams, self.streams = list(self.streams.values()), {}
        self.budget.clear()
        lost = Outcome(LOST, f"{self.me.address}: the link to {self.address} is gone ({reason or 'it was closed'})")
        for stream in streams:
            stream.on_lost(lost)
        self.owner.link_wake(self)
        self.owner.link_down(self, reason)

    # -- bytes in ------------------------------------------------------------------------------------------------

    def receive(self, data: Buffer, now: float, descriptors: tuple[int, ...] = ()) -> None:
        """Bytes from the neighbour, and the descriptors beside them.  `settle` must come before `data` changes."""
        self.now = self._heard_at = now
        self._misses = 0
        self.received += len(data)
        self._passengers.extend(descriptors)
        if self.state == UP and self._wait_until:
            self._wait_until = 0.0
            self.owner.link_alive(self)
        try:
            for kind, route, payload in self._decoder.feed(data):
                if self.state == DOWN:
                    return
                self._dispatch(kind, route, payload)
            for stream in list(self._fed):
                stream.far.readable()
            if len(self._passengers) > MAX_PASSENGERS:
                raise WireError(f"{len(self._passengers)} descriptors that no message asked for")
        except WireError as error:
            self.close(str(error))

    def _dispatch(self, kind: int, route: int, payload: memoryview) -> None:
        if self.state != UP and kind not in (wire.HELLO, wire.READY, wire.BYE):
            raise WireError(f"a {wire.FRAMES[kind][0]} frame before the link is up")
        if not route:
            _LINK_FRAMES[kind](self, payload)
        elif kind == wire.OPEN:
            self._on_open(route, payload)
        else:
            stream = self.streams.get(route)
            if stream is None:
                raise WireError(f"a {wire.FRAMES[kind][0]} frame on a route that is not open")
            if kind == wire.DATA:
                if not stream.close_sent:
                    stream.on_data(payload)
                    self._fed[stream] = None
            elif kind == wire.CLOSE or not stream.close_sent:
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
        if len(self.streams) >= 2 * MAX_STREAMS:  # twice: both sides may open their last ones at the same time
            raise WireError(f"more than {2 * MAX_STREAMS} routes")
        fields = wire.OPEN_FIELDS.decode(payload)
        stream = self.streams[route] = Stream(self, route, route | 1, opened_here=False)
        stream.on_window(fields["window"])
        self.owner.link_open(self, stream, fields)

    def _on_message(self, payload: Buffer) -> None:
        message, count = decode_message(payload)
        if count > len(self._passengers):
            raise WireError(f"a message with {count} descriptors, of which {len(self._passengers)} came")
        self.owner.link_message(self, message, tuple(self._passengers.popleft() for _ in range(count)))

    def _on_ping(self, payload: Buffer) -> None:
        self.control(wire.PONG, 0, bytes(payload))

    def _on_pong(self, payload: Buffer) -> None:
        self.flight.on_mark(int.from_bytes(payload, "big"), self.now)
        if self._outbox.has_output:
            self.owner.link_wake(self)  # there may be room again

    @property
    def rtt(self) -> float:
        """The round trip to the neighbour, smoothed, in seconds; 0 while unknown."""
        return self.flight.rtt

    # -- bytes out -----------------------------------------------------------------------------------------------

    def control(self, kind: int, route: int = 0, payload: bytes = b"") -> None:
        """Queue a frame that goes before all data."""
        if self.state != DOWN:
            self._queue(wire.encode_frame(kind, route, payload))

    def message(
        self, message: Message, descriptors: tuple[int, ...] = (), *, must: bool = False, beside: int = 0
    ) -> bool:
        """Queue a message; the descriptors go along and are the link's from now on.  False: it cannot be sent.

        With `must` there is always room: for what belongs to something that is bounded by itself, as tunnels are.
        `beside` is how many descriptors the streams stand for that were opened just before (`open_descriptor`).
        """
        if self.state != UP or (self.is_backlogged and not must):
            return False
        payload = encode_message(message, len(descriptors) or beside)
        if len(payload) > wire.MAX_CONTROL:
            return False
        self._queue(wire.encode_frame(wire.MESSAGE, 0, payload), descriptors)
        return True

    def _queue(self, frame: bytes, descriptors: tuple[int, ...] = ()) -> None:
        self._outbox.put(frame, descriptors)
        self.owner.link_wake(self)

    @property
    def is_backlogged(self) -> bool:
        """Whether the neighbour does not read what we have to say to it."""
        return self._outbox.is_backlogged

    @property
    def backlog(self) -> int:
        """What waits to be sent beside data, in bytes."""
        return self._outbox.backlog

    @property
    def has_output(self) -> bool:
        return self._outbox.has_output

    def schedule(self, stream: Stream) -> None:
        """`stream` has something to send, and credit."""
        self._outbox.schedule(stream)
        self.owner.link_wake(self)

    def produce(self, now: float) -> tuple[list[Buffer], tuple[int, ...]]:
        """The next bytes to write, as far as the flight has room, and the descriptors that go with their first byte."""
        self.now = now
        if self.is_backlogged:
            self._heard_at, self._misses = now, 0  # it is not listened to meanwhile, but it takes what we write
        outbox, flight = self._outbox, self.flight
        flight.is_shared = outbox.is_shared(now)
        out, descriptors = outbox.produce(MAX_ROOM if self.is_hurried else flight.room, now, flight.rate)
        if out:
            flight.on_sent(sum(map(len, out)), now, not outbox.has_output)
        if flight.wants_mark:
            out.append(self._mark())
        return out, descriptors

    def _mark(self) -> bytes:
        """A PING, for now."""
        return wire.encode_frame(wire.PING, 0, self.flight.mark(self.now).to_bytes(8, "big"))

    def abandon(self) -> tuple[int, ...]:
        """Descriptors that were to go out or came in and belong to nobody: the caller closes them."""
        left = (*self._outbox.abandon(), *self._passengers)
        self._passengers.clear()
        return left

    # -- streams -------------------------------------------------------------------------------------------------

    def open(self, payload_fields: dict[str, Any]) -> Stream | None:
        """A new route to this neighbour, with the fields of its OPEN but the window; None if there are too many."""
        if self.state != UP or len(self.streams) >= MAX_STREAMS or self.is_backlogged:
            return None
        if self._free_labels:
            label = self._free_labels.pop()
        else:
            label, self._next_label = self._next_label, self._next_label + 1
        stream = Stream(self, label << 1 | 1, label << 1, opened_here=True)
        self.streams[stream.key] = stream
        self.control(wire.OPEN, stream.route, wire.OPEN_FIELDS.encode(**payload_fields, window=stream.first_grant()))
        return stream

    def open_descriptor(self) -> Stream | None:
        """A stream to stand for a descriptor that cannot pass; None if there are too many."""
        return self.open({"mode": wire.DESCRIPTOR})

    def board(self, descriptor: int) -> None:
        """`descriptor` has come by a stream, for the next message that is said to have one beside it."""
        self._passengers.append(descriptor)

    def release(self, stream: Stream) -> None:
        """Both sides have said CLOSE: the label may be used again."""
        self.budget.forget(stream)
        self._outbox.forget(stream)
        if self.streams.pop(stream.key, None) is not None and stream.opened_here:
            self._free_labels.append(stream.key >> 1)
        if not self.streams:  # give back what many of them have left
            self.streams, self._free_labels, self._next_label = {}, [], 1

    # -- time ----------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When `tick` must be called next (seconds on the caller's clock); 0 if it need not be."""
        if self.state == DOWN:
            return 0.0
        if self._wait_until:
            return self._wait_until
        if self.state != UP or self.peer["role"] != wire.NODE or self.me.role != wire.NODE:
            return 0.0
        return self._heard_at + KEEPALIVE * (self._misses + 1)

    def tick(self, now: float) -> None:
        """Time has passed."""
        self.now = now
        due = self.deadline()
        if not due or now < due:
            return
        if self.state != UP:
            what = "hello" if self.state == HELLO_WAIT else "answer to our hello"
            self.close(f"no {what} within {HELLO_TIMEOUT:.0f} s: is there an r2 at the other end?")
        elif self._wait_until:
            self.close("no answer to a probe, and the neighbour has connected again")
        elif self._misses >= MISSES:
            self.close(f"no sign of life for {now - self._heard_at:.0f} s")
        else:
            self._misses += 1
            self._ask()

    def _ask(self) -> None:
        if self.state != DOWN:
            self._queue(self._mark())

    def probe(self, now: float, patience: float) -> None:
        """Be sure within `patience` seconds that the neighbour is there, or end the link."""
        self.now = now
        if not self._wait_until:
            self._wait_until = now + patience
            self._ask()


_LINK_FRAMES: dict[int, Callable[[Link, Buffer], None]] = {
    wire.HELLO: Link._on_hello,
    wire.READY: Link._on_ready,
    wire.BYE: Link._on_bye,
    wire.PING: Link._on_ping,
    wire.PONG: Link._on_pong,
    wire.MESSAGE: Link._on_message,
}
_STREAM_FRAMES: dict[int, Callable[[Stream, Buffer], None]] = {
    wire.ACCEPT: Stream.on_accept,
    wire.CREDIT: Stream.on_credit,
    wire.FIN: Stream.on_fin,
    wire.STOP: Stream.on_stop,
    wire.CLOSE: Stream.on_close,
    wire.RECALL: Stream.on_recall,
    wire.RETURN: Stream.on_return,
}

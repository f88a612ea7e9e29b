"""Link: the protocol with one neighbour, as a state machine over bytes that the caller carries.

    READY_WAIT  the handshake is in progress                                                      -> UP, DOWN
    UP          streams and messages flow; or the link is suspended: it has no transport          -> DOWN
    DOWN        closed or failed

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
from .attachments import AttachedDescriptors
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
    from .handshake import LocalPeer
    from .host import LinkHost
    from .policy import Policy
    from .resume import ResumeSession
    from .token_bucket import RequestLimit

LOSSY = "does the transport lose or change bytes? Then use --lossy"
READY_WAIT, UP, DOWN = range(3)


class Link:
    """The protocol with one neighbour.

    `expect` is the only address that the neighbour may have (None: any).  `local`: a control socket, on which
    descriptors pass.  `random` and `resume_timeout` are for the `Handshake`; `keepalive` is in seconds; `memory` is
    shared with other links (None: not shared).
    """

    def __init__(
        self,
        host: LinkHost,
        local_peer: LocalPeer,
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
        self.local_peer = local_peer
        self.now = self.begun = now  # `begun`: when it came up; before that, when it was created
        self.expect = expect
        self.is_local = local
        self.passes_descriptors = False  # the transport passes descriptors
        self.state = READY_WAIT
        self.address = self.transport = ""  # the neighbour's, once known; a description of the transport
        self.peer: dict[str, Any] = {}  # the neighbour's HELLO
        self.reason = ""  # why the link is down
        self.was_up = False
        self.sent_bye = False  # by this side
        self.ended = BY_US  # which side, or the timeout
        self.is_orderly = False  # one side closed it without an error
        self.account = Account(memory or MemoryLimit())
        self.streams = StreamTable(self)
        self.receive_limit = ReceiveLimit(self.account)
        self.received = 0  # bytes of the session
        self.sender = Sender(self.account)
        self.policy: Policy | None = None  # for this link; None: that of the node
        self.opens: RequestLimit | None = None  # set by the host, as are the next two
        self.relays: RequestLimit | None = None
        self.requests: RequestLimit | None = None
        self.session: ResumeSession | None = None  # None: it cannot be suspended
        self.is_suspended = False
        self._decoder = frames.FrameDecoder()
        self._attached = AttachedDescriptors()
        self._fed: dict[Stream, None] = {}  # streams that received data in this receive(); an ordered set
        self._keepalive = Keepalive(self, now, keepalive)
        self._successor: Link | None = None  # the link that has resumed over this one's transport
        self._handshake = Handshake(self, random, resume_timeout)
        self.sender.replay.is_enabled = self._handshake.resume_timeout > 0
        self._queue(frames.MAGIC + self._handshake.hello())

    # -- handshake ---------------------------------------------------------------------------------------------------

    @property
    def is_first(self) -> bool:
        """Whether this side has the lesser instance: breaks the symmetry of the two sides."""
        return bool(self.local_peer.instance < self.peer["instance"])

    def accept(self) -> None:
        """Accept the neighbour: the answer of the host to `link_hello`."""
        if self.state == READY_WAIT:
            self._handshake.accept()

    def up(self, session: ResumeSession | None) -> None:
        """The handshake is complete."""
        self.state, self.session = UP, session
        self.was_up, self.begun = True, self.now
        if session is None:
            self.sender.replay.stop()
        self._keepalive.clear_timeout()
        if self.joins_nodes:
            self.ping()
        self.host.link_up(self)

    def try_resume(self, old: Link) -> bool:
        """Try to resume `old`, which is suspended or being probed; False if the neighbour does not match."""
        if not self._handshake.may_resume(old):
            return False
        if old.is_suspended:
            self._handshake.begin()
        return True

    def hand_over(self, old: Link) -> None:
        """Resume `old` over the transport of this link."""
        self.state, self._successor = DOWN, old
        old.resume(self.sender.scheduler.drain(), self.now)
        old.host.link_resumed(old, self)

    # -- suspended ---------------------------------------------------------------------------------------------------

    def detach(self, now: float) -> None:
        """Leave the transport: the session resumes over another one."""
        if not self.is_suspended:
            self.suspend("it resumes over another transport", now)

    def suspend(self, reason: str, now: float) -> None:
        """The transport has ended: suspend the link, or end it if it has no session."""
        self.now = now
        if self.session is None or self.state != UP or not self.sender.replay.is_enabled:
            self.down(reason)
            return
        if not self.is_suspended:
            self.is_suspended, self.reason = True, reason
            self.receive_limit.park(sum(stream.receive_credit for stream in self.streams.values()))
            self._keepalive.set_timeout(now + self.session.resume_timeout)
            self.host.link_suspended(self, reason)

    def resume(self, preface: bytes, now: float) -> None:
        """Resume over a new transport.  `preface` is sent before the replay."""
        self.now = now
        self.is_suspended, self.reason = False, ""
        self.receive_limit.unpark()
        self._keepalive.on_received(now)
        self.sender.resume(preface)

    # -- closing -----------------------------------------------------------------------------------------------------

    def close(self, reason: str, *, orderly: bool = False) -> None:
        """Close the link with BYE.  The caller should still send what `produce` returns."""
        if self.state != DOWN:
            self.is_orderly, self.sent_bye = orderly, True
            # Not inside a replay, nor where the neighbour may take what follows for bytes of the session.
            if not (self._handshake.may_be_resumed or self.sender.is_replaying):
                fields = frames.BYE_FIELDS.encode(code=0 if orderly else frames.FAULT, text=shorten(reason))
                self.control(frames.BYE, 0, fields)
            self.down(reason)

    def eof(self, now: float, why: str = "") -> None:
        """The transport has ended."""
        closed = "closed without BYE" if self.state == UP else "closed before its hello was complete"
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
        what = f"the link to {self.address} is down ({reason or 'closed'})"
        lost = Outcome(LOST, f"{self.local_peer.address}: {what}")
        try:
            for stream in streams:
                stream.on_lost(lost)
        finally:
            self.host.link_wake(self)
            self.host.link_down(self, reason)

    # -- bytes in ------------------------------------------------------------------------------------------------

    def receive(self, data: Buffer, now: float, descriptors: tuple[int, ...] = (), work: int = frames.MAX_WORK) -> int:
        """Process received bytes, and the descriptors that accompany them (see `attachments`).

        Returns the number of bytes that were processed: all, or fewer once `work` units (see `frames.WORK`) are spent,
        so that a flood of small frames does not delay other links.  The caller passes the rest again later.  `settle`
        must be called before `data` changes.
        """
        self.now = now
        before = self.received
        self._attached.add(descriptors)
        if self._keepalive.on_received(now):
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
            if self.streams.pending_opens:
                self.streams.dispatch_opens()
            for stream in list(self._fed):
                stream.far.readable()
            self._attached.check()
        except WireError as error:
            may_be_lossy = self.was_up and not (self.is_local or self.sender.has_arq)
            self.close(f"{error} ({LOSSY})" if may_be_lossy else str(error))
        return taken

    def _dispatch(self, kind: int, route: int, payload: memoryview) -> None:
        if self.state != UP and kind not in _EARLY_FRAMES:
            raise WireError(f"a {frames.FRAMES[kind][0]} frame before the link is up")
        if kind in _HANDSHAKE_FRAMES:
            _HANDSHAKE_FRAMES[kind](self._handshake, payload)
        elif not route:
            _LINK_FRAMES[kind](self, payload)
        elif kind == frames.OPEN:
            self._on_open(route, payload)
        else:
            stream = self.streams.get(route)
            if stream is None:
                raise WireError(f"a {frames.FRAMES[kind][0]} frame on a route that is not open")
            if self.streams.pending_opens and kind != frames.CLOSE:
                self.streams.dispatch_opens()
            if kind == frames.DATA:
                if not stream.close_sent:
                    stream.on_data(payload)
                    self._fed[stream] = None
            elif kind == frames.CLOSE or not stream.close_sent:
                _STREAM_FRAMES[kind](stream, payload)

    def settle(self) -> None:
        """Copy the received data that the streams have not passed on."""
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
            stream.close(Outcome(BUSY, f"{self.local_peer.address}: {why}; retry later"))
        elif self.is_local:  # at once: the next message may refer to it
            self.host.link_open(self, stream, fields)
        else:
            self.streams.pending_opens.append((stream, fields))

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
        """Smoothed round trip in seconds; 0 while unknown."""
        return self.sender.in_flight.rtt

    @property
    def min_rtt(self) -> float:
        """Shortest recent round trip in seconds; 0 while unknown."""
        return self.sender.in_flight.min_rtt

    # -- bytes out -----------------------------------------------------------------------------------------------

    def control(self, kind: int, route: int = 0, payload: bytes = b"") -> None:
        """Queue a control frame."""
        if self.state != DOWN:
            self._queue(frames.encode_frame(kind, route, payload))

    def message(
        self, message: Message, descriptors: tuple[int, ...] = (), *, must: bool = False, beside: int = 0
    ) -> bool:
        """Queue a message; `descriptors` accompany it and belong to the link from now on.  False: it cannot be sent.

        `must` ignores the backlog, for messages whose number is limited otherwise, as by the tunnels.  `beside` is the
        number of descriptors that the streams opened just before it represent.
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
        """Whether the control queue is full: the neighbour does not read."""
        return self.sender.scheduler.is_backlogged

    @property
    def has_output(self) -> bool:
        return self.sender.has_output

    def schedule(self, stream: Stream) -> None:
        """Queue `stream`, which has data and credit."""
        self.sender.scheduler.schedule(stream)
        self.host.link_wake(self)

    def produce(self, now: float, room: int = MAX_ROOM) -> tuple[list[Buffer], tuple[int, ...]]:
        """Return the next bytes to write, with `room` bytes of data at most, and the descriptors for the first byte."""
        self.now = now
        if self.is_backlogged:
            self._keepalive.on_received(now)  # nothing is read meanwhile, but it accepts data
        return self.sender.produce(now, room)

    def abandon(self) -> tuple[int, ...]:
        """Remove and return descriptors that were not sent or not claimed, for the caller to close."""
        return (*self.sender.scheduler.abandon(), *self._attached.clear())

    # -- streams -------------------------------------------------------------------------------------------------

    def open(self, fields: dict[str, Any]) -> Stream | None:
        """Open a stream with the `fields` of its OPEN but the window; None if no more are possible."""
        if self.state != UP or self.is_backlogged or not self.streams.may_open:
            return None
        stream = self.streams.open()
        self.control(frames.OPEN, stream.route, frames.OPEN_FIELDS.encode(**fields, window=stream.first_grant()))
        return stream

    def attach(self, descriptor: int) -> None:
        """Add a `descriptor` (or LOST) that a stream delivered, for the next message with descriptors."""
        self._attached.add((descriptor,))

    def release(self, stream: Stream) -> None:
        """Free the label of `stream`: both sides have sent CLOSE."""
        self.receive_limit.forget(stream)
        self.sender.scheduler.forget(stream)
        self.streams.release(stream)

    # -- timers ------------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        return self.state == UP

    @property
    def is_down(self) -> bool:
        return self.state == DOWN

    @property
    def joins_nodes(self) -> bool:
        return bool(self.peer["role"] == self.local_peer.role == frames.NODE)

    def deadline(self) -> float:
        """When `tick` must be called next, on the clock of the caller; 0: never."""
        return self._keepalive.deadline()

    def tick(self, now: float) -> None:
        self.now = now
        self._keepalive.tick(now)

    def probe(self, now: float, timeout: float) -> None:
        """Require an answer within `timeout` seconds; otherwise the link has failed."""
        self.now = now
        self._keepalive.probe(now, timeout)

    def ping(self) -> None:
        """Send a PING."""
        if self.state != DOWN:
            self.sender.wants_mark = True
            self.host.link_wake(self)

    def fail(self, reason: str, now: float) -> None:
        """The neighbour does not answer: suspend or close the link."""
        self.suspend(reason, now) if self.session is not None else self.close(reason)


_HANDSHAKE_FRAMES: dict[int, Callable[[Handshake, Buffer], None]] = {
    frames.HELLO: Handshake.on_hello,
    frames.READY: Handshake.on_ready,
    frames.RESUME: Handshake.on_resume,
}
_EARLY_FRAMES = (*_HANDSHAKE_FRAMES, frames.BYE)  # may come before the link is up
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

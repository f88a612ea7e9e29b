"""One end of a tunnel on one link: credit, half-close, stop, close.

A tunnel crosses a node as two *ends* that know each other as `far`: two Streams in a node on the way, a Stream and
an endpoint (a descriptor, or memory in the tests) where the tunnel starts or stops.  All bytes are pulled: an end says
`readable()` when it has something, and the other calls `pull()` when it can use it.  The only queue is the `inbox` of
the receiving Stream, and credit keeps it within one window.

What an end offers to its far end (`StreamEnd`):

    readable()      a hint: pull() would give something
    pull(limit)     up to `limit` bytes; b"" once, for the end of the stream; None for nothing now
    more()          whether pull() would give something more right now
    stop()          the far end will not pull any more
    accept()        the far end of the tunnel took it
    close(outcome)  the far end is done: no call follows

How it ends.  FIN ends one direction and STOP asks for its end; CLOSE ends the route.  Coming from the side that was
opened *to* (the service), CLOSE keeps its place behind the bytes before it: what a service wrote before it died is
delivered first.  Coming from the side that opened, it is an abort and overtakes everything.  Each side sends exactly
one CLOSE and nothing after it; once both have been seen, the label is free, and no frame of its former life can
arrive any more.
"""

from __future__ import annotations

from collections import deque

from ...errors import WireError
from ..wire import frames
from ..wire.address import format_path
from ..wire.fields import decode_varint, encode_varint
from ..wire.outcome import Outcome, decode_outcome, encode_outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ..wire.fields import Buffer
    from .link import Link

    class StreamEnd(Protocol):
        def readable(self) -> None: ...
        def pull(self, limit: int) -> Buffer | None: ...
        def more(self) -> bool: ...
        def stop(self) -> None: ...
        def accept(self) -> None: ...
        def close(self, outcome: Outcome) -> None: ...


FIRST_WINDOW = 1 << 18  # 256 KiB: covers 20 Mbit/s at 100 ms before anything is measured
MOST_WINDOW = 1 << 24  # 16 MiB: covers 1 Gbit/s at 130 ms
LEAST_WINDOW = 1 << 10  # what a stream gets when the link's share of memory is used up
GROW_ROUNDS = 2  # a window that was used up within this many round trips is too small for the path
SHRINK_AFTER = 10.0  # seconds a window may take to be used once before it goes back to the first size
ABORTED = 9  # further tunnels that one counts for which is closed before it stands: all work for it was for nothing
MAX_PIECES = 512  # taken at once: IOV_MAX is 1024
MAX_NAME = 256  # characters kept of a path for people: 32 steps of 64 would cost more than all the rest of a stream
COALESCE = 1 << 14  # small pieces in a queue are joined up to this size, so that 1-byte frames do not cost 50 each


class ByteQueue:
    """A first-in first-out queue of bytes, in the pieces they came in."""

    __slots__ = ("_fresh", "_pieces", "size")

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray | memoryview] | None = None  # none is held for an empty one: 1.2 KiB
        self._fresh = 0  # pieces appended since `settle`; they may have been taken meanwhile
        self.size = 0

    def append(self, data: Buffer) -> None:
        """Add `data` without a copy; it must not change until `settle` was called."""
        if self._pieces is None:
            self._pieces = deque()
        self._pieces.append(data)
        self._fresh += 1
        self.size += len(data)

    def settle(self) -> None:
        """Copy what is still here of each `append` since the last call, so that its buffer is free."""
        pieces = self._pieces
        if not pieces:
            self._fresh = 0
            return
        fresh = [pieces.pop() for _ in range(min(self._fresh, len(pieces)))]
        self._fresh = 0
        for data in reversed(fresh):
            last = pieces[-1] if pieces else None
            if isinstance(last, bytearray) and len(last) + len(data) <= COALESCE:
                last += data
            else:
                pieces.append(bytearray(data) if len(data) < COALESCE else bytes(data))

    def take(self, limit: int) -> Buffer:
        """Remove and return 1 to `limit` bytes.  IndexError if there are none."""
        if self._pieces is None:
            raise IndexError("an empty queue")
        piece = self._pieces.popleft()
        if len(piece) > limit:
            whole = bytes(piece) if isinstance(piece, bytearray) else piece
            view = memoryview(whole)
            self._pieces.appendleft(view[limit:])
            piece = view[:limit]
        self.size -= len(piece)
        if not self._pieces:
            self._pieces = None
        return piece

    def take_all(self, limit: int) -> list[Buffer]:
        """Remove and return the pieces of up to `limit` bytes."""
        pieces: list[Buffer] = []
        while self.size and limit > 0 and len(pieces) < MAX_PIECES:
            piece = self.take(limit)
            limit -= len(piece)
            pieces.append(piece)
        return pieces

    def clear(self) -> None:
        self._pieces = None
        self.size = 0


class NullEnd:
    """Stands where somebody is gone, as the far end of a stream or its owner: swallows everything."""

    def readable(self) -> None:
        return

    def pull(self, limit: int) -> None:
        return

    def more(self) -> bool:
        return False

    def stop(self) -> None:
        return

    def accept(self) -> None:
        return

    def close(self, outcome: Outcome) -> None:
        return

    def accepted(self) -> None:
        return

    def closed(self, outcome: Outcome) -> None:
        return


NOBODY = NullEnd()


class Stream:
    """The state of one route on one link.  Made by `Link` only."""

    __slots__ = (
        "_ending", "_round", "_round_at", "accepted", "allowance", "begun", "close_received", "close_sent", "credit",
        "eof_passed", "far", "far_ready", "fin_received", "fin_sent", "inbox", "is_relayed", "key", "link",
        "opened_here", "origin", "queued", "recalled", "received", "route", "sent", "stopped", "used", "where", "who",
        "window",
    )  # fmt: skip

    def __init__(self, link: Link, key: int, route: int, opened_here: bool) -> None:
        self.link = link
        self.key = key  # the route number in frames that come in
        self.route = route  # the route number in frames that go out
        self.opened_here = opened_here  # the far side of the link leads to the service
        self.far: StreamEnd = NOBODY
        self.is_relayed = False  # the neighbour has opened it through this node
        self.origin: tuple[str, ...] = ()  # by whom, until it stands
        self.accepted = False  # the tunnel stands
        # for people
        self.who = self.where = ""  # where the tunnel comes from and leads to, seen from here; see `name`
        self.begun = self.used = link.now  # when it was opened, and when bytes last passed
        self.sent = self.received = 0  # bytes
        # out
        self.credit = 0
        self.far_ready = False
        self.queued = False  # in the link's ring
        self.fin_sent = False
        self.recalled = False  # the neighbour wants its credit back
        # in
        self.inbox = ByteQueue()
        self.window = FIRST_WINDOW
        self.allowance = 0  # what the neighbour may still send
        self.fin_received = False
        self.eof_passed = False
        self.stopped = False
        self._round = 0  # bytes pulled since `_round_at`
        self._round_at = link.now
        # the end
        self.close_sent = False
        self.close_received = False
        self._ending: Outcome | None = None  # a CLOSE that waits for the bytes in front of it

    def name(self, who: tuple[str, ...], where: tuple[str, ...]) -> None:
        """Keep where the tunnel comes from and leads to, as far as that is worth its memory."""
        self.who, self.where = format_path(who)[:MAX_NAME], format_path(where)[:MAX_NAME]

    # -- what the neighbour says (called by Link) -----------------------------------------------------------------

    def on_accept(self, payload: Buffer) -> None:
        if self.accepted or not self.opened_here:
            raise WireError("an ACCEPT that nobody waits for")
        self.accepted = True
        self.on_window(frames.ACCEPT_FIELDS.decode(payload)["window"])
        self.far.accept()
        self._schedule()

    def on_data(self, data: Buffer) -> None:
        size = len(data)
        if size > self.allowance:
            raise WireError(f"credit overrun: {size} bytes on a route with a credit of {self.allowance}")
        if self.fin_received:
            raise WireError("data after the end of a stream")
        self.allowance -= size
        self.received += size
        self.used = self.link.now
        if self.stopped or not size:
            self.link.receive_limit.give_back(size)
            return
        self.inbox.append(data)  # the link tells `far` when it has read everything

    def on_credit(self, payload: Buffer) -> None:
        self.on_window(_decode_size(payload))
        self._schedule()

    def on_recall(self, payload: Buffer) -> None:
        """Give credit back as soon as there is nothing to send with it."""
        self.recalled = True
        if not self.far_ready:
            self.return_credit()

    def return_credit(self) -> None:
        self.recalled = False
        spare = self.credit - LEAST_WINDOW
        if spare > 0 and not self.fin_sent and not self.close_sent:  # FIN has given all back
            self.credit -= spare
            self.link.control(frames.RETURN, self.route, encode_varint(spare))

    def on_return(self, payload: Buffer) -> None:
        size = _decode_size(payload)
        if not 0 < size <= self.allowance:
            raise WireError(f"{size} bytes of credit given back, of {self.allowance}")
        self.allowance -= size
        self.link.receive_limit.give_back(size)

    def on_window(self, more: int) -> None:
        """`more` bytes of credit, by OPEN, ACCEPT or CREDIT."""
        if not 0 < more <= frames.MAX_CREDIT - self.credit:
            raise WireError(f"a credit of {more} bytes on top of {self.credit}")
        self.credit += more
        self.recalled = False

    def on_fin(self, payload: Buffer) -> None:
        if self.fin_received:
            raise WireError("a second end of one stream")
        self.fin_received = True
        self._forget_allowance()
        self.far.readable()

    def on_stop(self, payload: Buffer) -> None:
        if not self.fin_sent:
            self.fin_sent = True
            self.link.control(frames.FIN, self.route)
        self.far.stop()

    def catch_up(self) -> None:
        """Tell the far end, which is new, of the ends of both directions that came before it."""
        if self.fin_received:
            self.far.readable()
        if self.fin_sent:
            self.far.stop()

    def on_close(self, payload: Buffer) -> None:
        outcome = decode_outcome(payload)
        self.close_received = True
        if self.origin and self.link.relays is not None and not self.close_sent:
            self.link.relays.spend(self.origin, ABORTED)
        self._forget_allowance()
        if not self.close_sent:
            self.close_sent = True
            self.link.control(frames.CLOSE, self.route)
        self.link.release(self)
        self._end(outcome)

    def on_lost(self, outcome: Outcome) -> None:
        """The link is gone."""
        self.close_sent = self.close_received = True
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        if self.far is NOBODY:
            return
        if self.opened_here and (self.inbox.size or (self.fin_received and not self.eof_passed)):
            self._ending = outcome
            self.far.readable()
        else:
            self._drop_inbox()
            self._pass_on(outcome)

    def _pass_on(self, outcome: Outcome) -> None:
        far, self.far, self._ending = self.far, NOBODY, None
        far.close(outcome)

    def _forget_allowance(self) -> None:
        self.link.receive_limit.take_back(self.allowance)
        self.allowance = 0

    def _drop_inbox(self) -> None:
        self._forget_allowance()
        self.link.receive_limit.give_back(self.inbox.size)
        self.inbox.clear()

    # -- what the far end wants (the End interface) ----------------------------------------------------------------

    def readable(self) -> None:
        self.far_ready = True
        self._schedule()

    def _schedule(self) -> None:
        if self.far_ready and not self.queued and self.credit and not self.fin_sent and not self.close_sent:
            self.link.schedule(self)

    def more(self) -> bool:
        return bool(self.inbox.size) or (self.fin_received and not self.eof_passed) or self._ending is not None

    def pull(self, limit: int) -> Buffer | None:
        if self.inbox.size:
            piece = self.inbox.take(limit)
            self._replenish(len(piece))
            return piece
        if self.fin_received and not self.eof_passed:
            self.eof_passed = True
            return b""
        if self._ending is not None:
            self._pass_on(self._ending)
        return None

    def take(self, limit: int) -> list[Buffer]:
        """What `pull` would give in up to `limit` bytes, all pieces at once; its end is for `pull` to tell."""
        pieces = self.inbox.take_all(limit)
        if pieces:
            self._replenish(sum(map(len, pieces)))
        return pieces

    def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        self.link.receive_limit.give_back(self.inbox.size)
        self.inbox.clear()
        if not self.fin_received and not self.close_sent:
            self.link.control(frames.STOP, self.route)
        self.eof_passed = True
        if self._ending is not None:
            self._pass_on(self._ending)

    def accept(self) -> None:
        """The tunnel stands: tell the neighbour, with the first window for what it sends."""
        self.accepted, self.origin = True, ()
        if not self.close_sent:
            self.link.control(frames.ACCEPT, self.route, frames.ACCEPT_FIELDS.encode(window=self.first_grant()))
            self._schedule()

    def close(self, outcome: Outcome) -> None:
        self.far = NOBODY
        self._drop_inbox()
        if not self.close_sent:
            self.close_sent = True
            self.link.control(frames.CLOSE, self.route, encode_outcome(outcome))

    # -- credit for the neighbour -----------------------------------------------------------------------------------

    def first_grant(self) -> int:
        """The first credit for the neighbour, in bytes."""
        self.allowance = self.link.receive_limit.grant(self, self.window, LEAST_WINDOW)
        return self.allowance

    def recall(self) -> int:
        """Ask for the credit back that is not used: others need it.  Returns how much that may be."""
        spare = self.allowance - LEAST_WINDOW
        if spare <= 0 or self.close_sent:
            return 0
        self.link.control(frames.RECALL, self.route)
        return spare

    def _replenish(self, taken: int) -> None:
        """`taken` bytes have left the inbox: size the window to the path, and give credit when it is worth a frame."""
        self.link.receive_limit.give_back(taken)
        if self.close_sent or self.fin_received or self.stopped:
            return
        self._round += taken
        if self._round >= self.window:
            took = self.link.now - self._round_at
            if took < GROW_ROUNDS * self.link.rtt:
                self.window = min(2 * self.window, MOST_WINDOW)
            elif took > SHRINK_AFTER:
                self.window = FIRST_WINDOW
            self._round, self._round_at = 0, self.link.now
        held = self.allowance + self.inbox.size
        if self.window - held >= self.window // 4:
            least = LEAST_WINDOW - held if held <= LEAST_WINDOW // 2 else 0
            more = self.link.receive_limit.grant(self, self.window - held, least)
            if more > 0:
                self.allowance += more
                self.link.control(frames.CREDIT, self.route, encode_varint(more))


def _decode_size(payload: Buffer) -> int:
    size, after = decode_varint(payload, 0, len(payload))
    if after != len(payload):
        raise WireError("a credit that is no number")
    return size

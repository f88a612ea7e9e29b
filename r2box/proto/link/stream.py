"""Stream: one end of a tunnel on one link, with credit, half-close, stop and close.

A tunnel crosses a node as two *ends* that refer to each other as `far`: two Streams in a relay; a Stream and an
endpoint (a descriptor, or memory in the tests) where the tunnel begins or ends.  Data is pulled: an end calls
`readable()` on the other when it has data, and the other calls `pull()` when it has room.  The only queue is the
`inbox` of the receiving Stream, which credit limits to one window.

The interface of an end (`StreamEnd`):

    readable()      a hint: pull() has a result
    pull(limit)     up to `limit` bytes; b"" once, at the end of the stream; None for nothing now
    more()          whether pull() has a further result now
    stop()          the far end will not pull any more
    accept()        the far end of the tunnel has accepted it
    close(outcome)  the far end has finished: no call follows

FIN ends one direction, STOP requests its end, CLOSE ends the route.  From the side that was opened *to* (the service),
CLOSE is ordered behind the data before it, so that all that a service wrote is delivered.  From the opener, it is an
abort and takes effect at once.  Each side sends exactly one CLOSE, and nothing after it.  When both have been received,
the label is free, and no frame of the old stream can arrive any more.

The credit is hop by hop: a receiver grants a window of bytes, of 256 KiB at first.  The window doubles while it is used
up within two round trips (a path larger than it), and falls back when it lasts for 10 s.
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


INITIAL_WINDOW = 1 << 18  # 256 KiB: 20 Mbit/s at 100 ms
MAX_WINDOW = 1 << 24  # 16 MiB: 1 Gbit/s at 130 ms
MIN_WINDOW = 1 << 10  # when the link's share of memory is used up
GROW_ROUNDS = 2  # round trips; a window that is used up within them is too small for the path
SHRINK_AFTER = 10.0  # seconds; a window that lasts longer is reset to the initial one
ABORT_COST = 9  # further OPENs that a tunnel is charged which is closed before it is accepted
MAX_PIECES = 512  # taken at once; IOV_MAX is 1024
MAX_NAME = 256  # characters of a path that are kept for display: 2,048 would exceed all else in a stream
COALESCE = 1 << 14  # bytes up to which small pieces are joined, so that a 1-byte frame does not cost 50


class ByteQueue:
    """A FIFO of bytes, in the pieces that were appended."""

    __slots__ = ("_fresh", "_pieces", "size")

    def __init__(self) -> None:
        self._pieces: deque[bytes | bytearray | memoryview] | None = None  # None while empty: a deque takes 1.2 KiB
        self._fresh = 0  # pieces appended since `settle`, taken or not
        self.size = 0

    def append(self, data: Buffer) -> None:
        """Append `data` without a copy; it must not change before `settle`."""
        if self._pieces is None:
            self._pieces = deque()
        self._pieces.append(data)
        self._fresh += 1
        self.size += len(data)

    def settle(self) -> None:
        """Copy the pieces appended since the last call, so that their buffers can be reused."""
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
        """Remove and return 1 to `limit` bytes.  IndexError if it is empty."""
        if self._pieces is None:
            raise IndexError("an empty queue")
        piece = self._pieces.popleft()
        if len(piece) > limit:
            view = memoryview(bytes(piece) if isinstance(piece, bytearray) else piece)
            self._pieces.appendleft(view[limit:])
            piece = view[:limit]
        self.size -= len(piece)
        if not self._pieces:
            self._pieces = None
        return piece

    def take_all(self, limit: int) -> list[Buffer]:
        """Remove and return pieces of up to `limit` bytes together."""
        pieces: list[Buffer] = []
        while self.size and limit > 0 and len(pieces) < MAX_PIECES:
            piece = self.take(limit)
            limit -= len(piece)
            pieces.append(piece)
        return pieces

    def clear(self) -> None:
        self._pieces = None
        self.size = 0


class NullStreamEnd:
    """Null object: the far end of a stream that is closed or not joined.  Ignores all calls."""

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


NULL_END = NullStreamEnd()


class Stream:
    """The state of one route on one link.  Created by `StreamTable`."""

    __slots__ = (
        "_ending", "_round", "_round_at", "accepted", "begun", "close_received", "close_sent", "credit", "eof_passed",
        "far", "far_ready", "fin_received", "fin_sent", "inbox", "is_relayed", "key", "link", "opened_here", "origin",
        "queued", "recalled", "receive_credit", "received", "route", "sent", "stopped", "used", "where", "who",
        "window",
    )  # fmt: skip

    def __init__(self, link: Link, key: int, route: int, opened_here: bool) -> None:
        self.link = link
        self.key = key  # the route in received frames
        self.route = route  # the route in sent frames
        self.opened_here = opened_here  # by this side: the neighbour leads to the service
        self.far: StreamEnd = NULL_END
        self.is_relayed = False  # the neighbour has opened it to another node
        self.origin: tuple[str, ...] = ()  # of a relayed tunnel, until it is accepted
        self.accepted = False
        # for display
        self.who = self.where = ""  # the ends of the tunnel, seen from here; see `name`
        self.begun = self.used = link.now  # when it was opened, and when data last passed
        self.sent = self.received = 0  # bytes
        # out
        self.credit = 0
        self.far_ready = False
        self.queued = False  # in the link's ring
        self.fin_sent = False
        self.recalled = False  # the neighbour has asked for unused credit
        # in
        self.inbox = ByteQueue()
        self.window = INITIAL_WINDOW
        self.receive_credit = 0  # bytes that the neighbour may send
        self.fin_received = False
        self.eof_passed = False
        self.stopped = False
        self._round = 0  # bytes that left the inbox since `_round_at`
        self._round_at = link.now
        # the end
        self.close_sent = False
        self.close_received = False
        self._ending: Outcome | None = None  # of a CLOSE behind undelivered data

    def name(self, who: tuple[str, ...], where: tuple[str, ...]) -> None:
        """Set the ends of the tunnel for display, truncated to `MAX_NAME`."""
        self.who, self.where = format_path(who)[:MAX_NAME], format_path(where)[:MAX_NAME]

    # -- received frames (called by Link) --------------------------------------------------------------------------

    def on_accept(self, payload: Buffer) -> None:
        if self.accepted or not self.opened_here:
            raise WireError("an unexpected ACCEPT")
        self.accepted = True
        self.on_window(frames.ACCEPT_FIELDS.decode(payload)["window"])
        self.far.accept()
        self._schedule()

    def on_data(self, data: Buffer) -> None:
        size = len(data)
        if size > self.receive_credit:
            raise WireError(f"credit overrun: {size} bytes on a route with a credit of {self.receive_credit}")
        if self.fin_received:
            raise WireError("data after the end of a stream")
        self.receive_credit -= size
        self.received += size
        self.used = self.link.now
        if self.stopped or not size:
            self.link.receive_limit.release_credit(size)
            return
        self.inbox.append(data)  # Link calls far.readable() at the end of receive()

    def on_credit(self, payload: Buffer) -> None:
        self.on_window(_decode_size(payload))
        self._schedule()

    def on_recall(self, payload: Buffer) -> None:
        """Return unused credit as soon as there is nothing to send."""
        self.recalled = True
        if not self.far_ready:
            self.return_credit()

    def return_credit(self) -> None:
        self.recalled = False
        spare = self.credit - MIN_WINDOW
        if spare > 0 and not self.fin_sent and not self.close_sent:  # FIN has returned all
            self.credit -= spare
            self.link.control(frames.RETURN, self.route, encode_varint(spare))

    def on_return(self, payload: Buffer) -> None:
        size = _decode_size(payload)
        if not 0 < size <= self.receive_credit:
            raise WireError(f"{size} bytes of credit returned, of {self.receive_credit}")
        self.receive_credit -= size
        self.link.receive_limit.release_credit(size)

    def on_window(self, more: int) -> None:
        """Add `more` bytes of credit, from OPEN, ACCEPT or CREDIT."""
        if not 0 < more <= frames.MAX_CREDIT - self.credit:
            raise WireError(f"a credit of {more} bytes on top of {self.credit}")
        self.credit += more
        self.recalled = False

    def on_fin(self, payload: Buffer) -> None:
        if self.fin_received:
            raise WireError("a second end of one stream")
        self.fin_received = True
        self._revoke_receive_credit()
        self.far.readable()

    def on_stop(self, payload: Buffer) -> None:
        if not self.fin_sent:
            self.fin_sent = True
            self.link.control(frames.FIN, self.route)
        self.far.stop()

    def repeat_ends(self) -> None:
        """Report a FIN and a STOP that were received before `far` was joined."""
        if self.fin_received:
            self.far.readable()
        if self.fin_sent:
            self.far.stop()

    def on_close(self, payload: Buffer) -> None:
        outcome = decode_outcome(payload)
        self.close_received = True
        if self.origin and self.link.relays is not None and not self.close_sent:
            self.link.relays.spend(self.origin, ABORT_COST)
        self._revoke_receive_credit()
        if not self.close_sent:
            self.close_sent = True
            self.link.control(frames.CLOSE, self.route)
        self.link.release(self)
        self._end(outcome)

    def on_lost(self, outcome: Outcome) -> None:
        """The link is down."""
        self.close_sent = self.close_received = True
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        if self.far is NULL_END:
            return
        if self.opened_here and (self.inbox.size or (self.fin_received and not self.eof_passed)):
            self._ending = outcome
            self.far.readable()
        else:
            self._drop_inbox()
            self._pass_on(outcome)

    def _pass_on(self, outcome: Outcome) -> None:
        far, self.far, self._ending = self.far, NULL_END, None
        far.close(outcome)

    def _revoke_receive_credit(self) -> None:
        self.link.receive_limit.revoke_credit(self.receive_credit)
        self.receive_credit = 0

    def _drop_inbox(self) -> None:
        self._revoke_receive_credit()
        self.link.receive_limit.release_credit(self.inbox.size)
        self.inbox.clear()

    # -- the StreamEnd interface, called by `far` ------------------------------------------------------------------

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
        """Remove and return up to `limit` bytes in pieces.  Only `pull` reports the end of the stream."""
        pieces = self.inbox.take_all(limit)
        if pieces:
            self._replenish(sum(map(len, pieces)))
        return pieces

    def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        self.link.receive_limit.release_credit(self.inbox.size)
        self.inbox.clear()
        if not self.fin_received and not self.close_sent:
            self.link.control(frames.STOP, self.route)
        self.eof_passed = True
        if self._ending is not None:
            self._pass_on(self._ending)

    def accept(self) -> None:
        """The tunnel is accepted: send ACCEPT with the first window."""
        self.accepted, self.origin = True, ()
        if not self.close_sent:
            self.link.control(frames.ACCEPT, self.route, frames.ACCEPT_FIELDS.encode(window=self.first_grant()))
            self._schedule()

    def close(self, outcome: Outcome) -> None:
        self.far = NULL_END
        self._drop_inbox()
        if not self.close_sent:
            self.close_sent = True
            self.link.control(frames.CLOSE, self.route, encode_outcome(outcome))

    # -- flow control ----------------------------------------------------------------------------------------------

    def first_grant(self) -> int:
        """Grant the first credit; return it in bytes."""
        self.receive_credit = self.link.receive_limit.grant(self, self.window, MIN_WINDOW)
        return self.receive_credit

    def recall(self) -> int:
        """Ask the neighbour for unused credit; return its upper bound in bytes."""
        spare = self.receive_credit - MIN_WINDOW
        if spare <= 0 or self.close_sent:
            return 0
        self.link.control(frames.RECALL, self.route)
        return spare

    def _replenish(self, taken: int) -> None:
        """`taken` bytes have left the inbox: adapt the window, and grant credit once that is worth a frame."""
        self.link.receive_limit.release_credit(taken)
        if self.close_sent or self.fin_received or self.stopped:
            return
        self._round += taken
        if self._round >= self.window:
            took = self.link.now - self._round_at
            if took < GROW_ROUNDS * self.link.rtt:
                self.window = min(2 * self.window, MAX_WINDOW)
            elif took > SHRINK_AFTER:
                self.window = INITIAL_WINDOW
            self._round, self._round_at = 0, self.link.now
        held = self.receive_credit + self.inbox.size
        if self.window - held >= self.window // 4:
            least = MIN_WINDOW - held if held <= MIN_WINDOW // 2 else 0
            more = self.link.receive_limit.grant(self, self.window - held, least)
            if more > 0:
                self.receive_credit += more
                self.link.control(frames.CREDIT, self.route, encode_varint(more))


def _decode_size(payload: Buffer) -> int:
    size, after = decode_varint(payload, 0, len(payload))
    if after != len(payload):
        raise WireError("an invalid credit")
    return size

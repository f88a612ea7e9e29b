"""The receiving half of a carrier: puts the stream together and says what it has.

Only what has been accepted into the stream is ever acknowledged: a packet that is beyond the window is dropped before
it is noted, so the sender will send it again.

An acknowledgement says up to where the stream is whole and, as a map of bits, which transmissions beyond that were
accepted of late.  These are numbers of transmissions and not places in the stream (as in QUIC, RFC 9002, and unlike RFC
2018), so the sender knows which copy has come and needs no guess for round trips and losses.  A map takes a fixed time
whatever is missing, where ranges would take longer with each hole.  Each bit is said in `REPEATS` acknowledgements,
since these get lost too; what gets lost all the same comes in the end with the stream being whole.

An acknowledgement is due at once when something is out of order (RFC 5681, 4.2: the sender must learn of it), for every
second packet, and after `MAX_DELAY` or a quarter of a round trip.
"""

from __future__ import annotations

from collections import deque

from .packet import ACK_OVERHEAD, unwrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.fields import Buffer
    from .packet import PacketEncoder

WINDOW = 1 << 22  # bytes that may wait for a hole to be filled: 80 ms of a loss-ridden path with 50 MB/s
MAX_PIECES = 1 << 14  # the same in packets: small ones take more memory than they hold
MAP_BITS = 1 << 12  # transmissions that a map may reach back: 512 bytes
HISTORY = 1 << 20  # transmissions after which one is too old to be believed: long before 32 bits come round
MAX_DELAY = 0.025  # seconds (RFC 9000, 13.2.1)
EVERY = 2  # packets
REPEATS = 8

_ALL = (1 << MAP_BITS) - 1


class ArqReceiver:
    """What has come."""

    def __init__(self) -> None:
        self.next = 0  # the stream is whole before this offset
        self.due_at = 0.0  # when an acknowledgement has to go out; 0: none is owed
        self.rtt = 0.0  # as the other half knows it, seconds
        self.window = WINDOW  # bytes that may wait now
        self._pieces: dict[int, bytes] = {}  # beyond a hole, by offset
        self._held = 0  # bytes in them
        self._top = -1  # the largest transmission that was accepted,
        self._top_at = 0.0  # and when
        self._map = 0  # bit i: transmission top - i was accepted
        self._low = -1  # the lowest transmission accepted since the last acknowledgement that a map must say; -1: none
        self._lows: deque[int] = deque(maxlen=REPEATS)  # and those of the last ones
        self._count = 0  # packets since then

    def on_data(self, low_tx: int, low_offset: int, payload: memoryview, now: float, out: list[Buffer]) -> None:
        """A DATA packet; what is in order now goes to `out`, as views of `payload` where it can be."""
        tx = unwrap(low_tx, self._top)
        offset = unwrap(low_offset, self.next)
        end = offset + len(payload)
        if tx < 0 or offset < 0 or tx < self._top - HISTORY or end > self.next + self.window:
            return
        if offset == self.next:
            if end > offset:
                out.append(payload)
                self.next = end
                if self._pieces:
                    self._join(out)
            is_plain = not self._pieces
        elif offset > self.next:
            if offset not in self._pieces:
                if len(self._pieces) >= MAX_PIECES:
                    return
                self._pieces[offset] = bytes(payload)
                self._held += len(payload)
            is_plain = False
        else:
            is_plain = False  # it has come before; the sender does not know that
            if end > self.next:  # not from a sender that keeps to its own pieces
                out.append(payload[self.next - offset :])
                self.next = end
                self._join(out)
        self._note(tx, is_plain, now)

    def _join(self, out: list[Buffer]) -> None:
        """What the hole has kept back that was filled."""
        pieces = self._pieces
        piece = pieces.pop(self.next, None)
        while piece is not None:
            out.append(piece)
            self.next += len(piece)
            self._held -= len(piece)
            piece = pieces.pop(self.next, None)
        self._count = EVERY  # the sender should know soon

    def _note(self, tx: int, is_plain: bool, now: float) -> None:
        ahead = tx - self._top
        is_new = True
        if ahead > 0:
            self._map = (self._map << ahead | 1) & _ALL if ahead < MAP_BITS else 1
            self._top, self._top_at = tx, now
        else:
            is_new = -ahead < MAP_BITS and not self._map >> -ahead & 1
            if is_new:
                self._map |= 1 << -ahead
        if ahead != 1 or not is_plain:
            if is_new and (self._low < 0 or tx < self._low):
                self._low = tx
            if ahead != 1:
                self._count = EVERY
        self._count += 1
        if self._count >= EVERY:
            self.due_at = now
        elif not self.due_at:
            self.due_at = now + min(MAX_DELAY, self.rtt / 4 or MAX_DELAY)

    @property
    def held(self) -> int:
        """Bytes that wait for a hole to be filled."""
        return self._held

    def acknowledge(self, encoder: PacketEncoder, mtu: int, now: float) -> bytes:
        """The acknowledgement that is owed, as a packet."""
        self._lows.append(self._low)
        low = min((low for low in self._lows if low >= 0), default=self._top)
        size = min((self._top - low + 7) // 8, MAP_BITS // 8 - 1, mtu - ACK_OVERHEAD)
        bits = self._map >> 1 & (1 << 8 * size) - 1
        self._low, self._count, self.due_at = -1, 0, 0.0
        map = bits.to_bytes(size, "little")
        return encoder.ack(self._top, self._top_at, now - self._top_at, self.window, self.next, map)

"""ARQ receiver: reassembly of the stream, and selective acknowledgement.

Only what was accepted into the stream is acknowledged: a packet beyond the window is dropped unacknowledged, so the
sender sends it again.

An ACK states the offset up to which the stream is complete and, in a bitmap, the recent transmissions that were
accepted.  It numbers transmissions, not bytes (as QUIC, RFC 9002, unlike SACK, RFC 2018), so the sender knows which
copy arrived, and round trips and losses are unambiguous.  A bitmap is processed in constant time, whereas ranges
take longer with each hole.  Each bit is repeated in `REPEATS` ACKs, since these are lost, too; if all are lost, the
offset covers it in the end.

An ACK is due at once for a packet out of order (RFC 5681, 4.2), for every second packet, and after `MAX_DELAY` or a
quarter of a round trip.
"""

from __future__ import annotations

from collections import deque

from .packet import ACK_OVERHEAD, unwrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.fields import Buffer
    from .packet import PacketEncoder

WINDOW = 1 << 22  # bytes received out of order: 80 ms at 50 MB/s
MAX_PIECES = 1 << 14  # the same in packets: small ones take more memory than they hold
MAP_BITS = 1 << 12  # transmissions in a bitmap: 512 bytes
HISTORY = 1 << 20  # transmissions; older ones are rejected, long before 32 bits wrap around
MAX_DELAY = 0.025  # seconds (RFC 9000, 13.2.1)
EVERY = 2  # packets
REPEATS = 8

_ALL = (1 << MAP_BITS) - 1


class ArqReceiver:
    """The receiving side of a connection."""

    def __init__(self) -> None:
        self.next = 0  # the stream is complete before this offset
        self.due_at = 0.0  # when an ACK is due; 0: none
        self.rtt = 0.0  # seconds, from the sender
        self.window = WINDOW  # bytes
        self._pieces: dict[int, bytes] = {}  # received out of order, by offset
        self._held = 0  # bytes in them
        self._top = -1  # the largest accepted transmission,
        self._top_at = 0.0  # and when it arrived
        self._map = 0  # bit i: transmission top - i was accepted
        self._low = -1  # the lowest transmission since the last ACK that the bitmap must hold; -1: none
        self._lows: deque[int] = deque(maxlen=REPEATS)  # those of the last ACKs
        self._count = 0  # packets since the last ACK

    def on_data(self, low_tx: int, low_offset: int, payload: memoryview, now: float, out: list[Buffer]) -> None:
        """Process DATA; append what is in order now to `out`, as views of `payload` where possible."""
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
            is_plain = False  # a duplicate: the ACK was lost
            if end > self.next:  # never from this implementation, which does not resegment
                out.append(payload[self.next - offset :])
                self.next = end
                self._join(out)
        self._note(tx, is_plain, now)

    def _join(self, out: list[Buffer]) -> None:
        """Append the pieces that the filled hole held back."""
        pieces = self._pieces
        piece = pieces.pop(self.next, None)
        while piece is not None:
            out.append(piece)
            self.next += len(piece)
            self._held -= len(piece)
            piece = pieces.pop(self.next, None)
        self._count = EVERY  # acknowledge at once

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
        """Bytes received out of order."""
        return self._held

    def acknowledge(self, encoder: PacketEncoder, mtu: int, now: float) -> bytes:
        """Return the ACK that is due."""
        self._lows.append(self._low)
        low = min((low for low in self._lows if low >= 0), default=self._top)
        size = min((self._top - low + 7) // 8, MAP_BITS // 8 - 1, mtu - ACK_OVERHEAD)
        bits = self._map >> 1 & (1 << 8 * size) - 1
        self._low, self._count, self.due_at = -1, 0, 0.0
        map = bits.to_bytes(size, "little")
        return encoder.ack(self._top, self._top_at, now - self._top_at, self.window, self.next, map)

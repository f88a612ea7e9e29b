"""ARQ connection: a reliable, ordered byte stream over a transport that loses, reorders, duplicates or corrupts data.

    stream  <->  ArqConnection  <->  packets  <->  UDP, a serial line, a raw interface

Both sides send at once, without an exchange before.  Each has an identity for this connection, 32 random bits.  A
packet holds the identity of its sender and, once known, that of its receiver.  The first valid packet defines the
neighbour.  A packet for another identity belongs to an earlier connection and is ignored.  An opening packet (without a
receiver) of another sender is ignored while the neighbour is alive; after `ALONE` seconds of silence it means that the
neighbour has restarted.  What was not acknowledged is then unknown, so the connection fails.

Invalid packets are noise and are skipped.  A violation of the protocol in a valid packet sets `fault`; nothing is
raised.

Pure: `now` is seconds on a monotonic clock; randomness enters as the identity.
"""

from __future__ import annotations

from ...errors import WireError
from .packet import (  # fmt: skip
    ACK,
    COOKIE,
    COOKIE_SIZE,
    DATA,
    GONE,
    MAX_MTU,
    MIN_MTU,
    MTU,
    PacketEncoder,
    PacketScanner,
    decode_ack,
    decode_data,
)
from .receiver import WINDOW, ArqReceiver
from .sender import ArqSender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.fields import Buffer

ALONE = 2.0  # seconds of silence after which an opening packet means that the neighbour has restarted


class ArqConnection:
    """One side of the connection.

    `identity` is 32 random bits, not 0; `mtu` is the maximum size of a packet in bytes, from MIN_MTU to MAX_MTU.
    """

    def __init__(self, identity: int, now: float, mtu: int = MTU) -> None:
        if not (0 < identity < 1 << 32 and MIN_MTU <= mtu <= MAX_MTU):
            raise ValueError(f"identity must have 32 bits and not be 0, mtu must be from {MIN_MTU} to {MAX_MTU}")
        self.identity = identity
        self.mtu = mtu
        self.peer = 0  # the neighbour's identity; 0 while unknown
        self.fault = ""  # why the connection has failed
        self.stale = 0  # packets for other connections
        self._now = now
        self._received_at = now
        self._scanner = PacketScanner()
        self._encoder = PacketEncoder(identity)
        self._cookie = b""  # the COOKIE packet that a listener has requested
        self._in = ArqReceiver()
        self._out = ArqSender(identity, mtu)

    # -- bytes in --------------------------------------------------------------------------------------------------

    def receive(self, data: Buffer, now: float) -> list[Buffer]:
        """Process a datagram or a piece of a stream; return the bytes that are in order now, maybe views of `data`."""
        self._now = now
        out: list[Buffer] = []
        if self.fault:
            return out
        for kind, sender, receiver, body in self._scanner.feed(data):
            if kind == COOKIE:
                self._take_cookie(sender, receiver, body, now)
                continue
            if (sender != self.peer or receiver != self.identity) and not self._admit(sender, receiver, now):
                continue
            self._received_at = now
            try:
                if kind == DATA:
                    self._in.on_data(*decode_data(body), now, out)
                elif kind == GONE and receiver:
                    self.fault = "the neighbour no longer knows the connection"
                elif kind == ACK and receiver:
                    self._out.on_ack(*decode_ack(body), now)
                    self._in.rtt = self._out.rtt
            except WireError as error:
                self.fault = str(error)
            if self.fault:
                break
        return out

    def _take_cookie(self, sender: int, receiver: int, body: memoryview, now: float) -> None:
        """A listener requests a cookie: repeat the opening packet with it at once."""
        if sender or receiver != self.identity or self.peer or len(body) > COOKIE_SIZE:
            return
        packet = self._encoder.cookie(bytes(body))
        if packet != self._cookie:
            self._cookie = packet
            self._out.retransmit_now(now)

    def _admit(self, sender: int, receiver: int, now: float) -> bool:
        """Whether a packet is from the neighbour and for this connection."""
        if sender and sender != self.identity and receiver in (0, self.identity):  # not an echo of this side
            if not self.peer:
                self.peer = self._encoder.receiver = sender
                self._out.peer_known = True
            if sender == self.peer:
                return True
            if not receiver and now - self._received_at > ALONE:
                self.fault = "the neighbour restarted"
        self.stale += 1
        return False

    # -- bytes out -------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Bytes that `send` should be given now; 0: none."""
        return 0 if self.fault else self._out.room

    def send(self, buffers: list[Buffer], now: float) -> None:
        """Queue bytes of the stream; more than `room` is allowed."""
        self._now = now
        if not self.fault:
            self._out.send(buffers)

    def produce(self, now: float) -> list[bytes]:
        """Return the packets to write now, one for each datagram; if there are any, there may be more at once."""
        self._now = now
        out: list[bytes] = []
        if self.fault:
            return out
        is_due = bool(self._in.due_at) and now >= self._in.due_at
        if is_due:
            out.append(self._in.acknowledge(self._encoder, self.mtu, now))
        self._out.produce(self._encoder, now, out)
        if self._cookie and out:
            if self.peer:
                self._cookie = b""
            else:
                fits = len(self._cookie) + len(out[0]) <= self.mtu
                out[0:1] = [self._cookie + out[0]] if fits else [self._cookie, out[0]]
        if is_due and len(out) > 1 and len(out[0]) + len(out[1]) <= self.mtu:
            out[:2] = [out[0] + out[1]]
        return out

    def deadline(self) -> float:
        """When `produce` must be called next if nothing is received before; 0: never."""
        if self.fault:
            return 0.0
        return min(filter(None, (self._in.due_at, self._out.deadline(self._now))), default=0.0)

    def close(self) -> None:
        """Close the connection and release its memory."""
        self.fault = self.fault or "it is closed"
        self._scanner, self._in, self._out = PacketScanner(), ArqReceiver(), ArqSender(self.identity, self.mtu)

    @property
    def held(self) -> int:
        """Bytes received out of order."""
        return self._in.held

    def limit(self, window: int) -> None:
        """Set the receive window in bytes, WINDOW at most."""
        self._in.window = min(max(window, MAX_MTU), WINDOW)

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def unacked(self) -> int:
        """Bytes of the stream that are queued or not acknowledged."""
        return self._out.end - self._out.acked

    @property
    def rtt(self) -> float:
        """The smoothed round trip in seconds; 0 while unknown."""
        return self._out.rtt

    @property
    def rate(self) -> float:
        """The measured delivery rate in bytes a second; 0 while unknown."""
        return self._out.congestion.rate

    @property
    def statistics(self) -> dict[str, float]:
        """Counters and estimates, for display and tests."""
        return {
            "sent": self._out.sent,
            "resent": self._out.resent,
            "noise": self._scanner.noise,
            "bad": self._scanner.bad,
            "stale": self.stale,
            "held": self._in.held,
            "queue": self._out.queue,
            "window": self._out.congestion.window,
            "in_flight": self._out.congestion.in_flight,
            "loss": self._out.congestion.loss,
            "segment": self._out.congestion.segment,
        }

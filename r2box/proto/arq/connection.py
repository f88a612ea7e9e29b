"""A reliable, ordered stream of bytes over a transport that loses, swaps, repeats and changes what it carries.

    stream  <->  Carrier  <->  packets  <->  UDP, a serial line, a raw interface

Both sides begin at once and without asking.  Each has an identity, 32 random bits, for this life of the stream; every
packet carries that of its sender and, as soon as it is known, that of its receiver.  The first valid packet says who
the neighbour is.  A packet for another identity belongs to an earlier life and is ignored; one that opens (it has no
receiver yet) and comes from another than the neighbour is ignored too as long as the neighbour is heard, and after
`ALONE` seconds means that it has restarted: what it had not acknowledged cannot be told, so the stream ends.

Packets that are not valid are noise, whatever they are; a neighbour that breaks the rules in valid ones is a fault, and
nothing is raised for either.

Pure: `now` is seconds on a clock that does not go backwards, randomness comes in as the identity.
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

ALONE = 2.0  # seconds without the neighbour after which another may take its place


class ArqConnection:
    """One side of the stream.

    `identity` is 32 random bits, not 0; `mtu` is the most bytes in a packet, from MIN_MTU to MAX_MTU.
    """

    def __init__(self, identity: int, now: float, mtu: int = MTU) -> None:
        if not (0 < identity < 1 << 32 and MIN_MTU <= mtu <= MAX_MTU):
            raise ValueError("an identity of 32 bits that is not 0, and an MTU within its limits")
        self.identity = identity
        self.mtu = mtu
        self.peer = 0  # the neighbour's identity; 0 while unknown
        self.fault = ""  # why the stream cannot go on
        self.stale = 0  # packets that were for somebody else
        self._now = now
        self._received_at = now
        self._scanner = PacketScanner()
        self._encoder = PacketEncoder(identity)
        self._cookie = b""  # the packet that shows what a listener wants to see again
        self._in = ArqReceiver()
        self._out = ArqSender(identity, mtu)

    # -- bytes in --------------------------------------------------------------------------------------------------

    def receive(self, data: Buffer, now: float) -> list[Buffer]:
        """What the transport delivered: a datagram or a piece of a stream.  The bytes of the stream that are in order
        now are returned; they may be views of `data`."""
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
        """A listener wants to see these bytes with what opens: send it again at once."""
        if sender or receiver != self.identity or self.peer or len(body) > COOKIE_SIZE:
            return
        packet = self._encoder.cookie(bytes(body))
        if packet != self._cookie:
            self._cookie = packet
            self._out.retransmit_now(now)

    def _admit(self, sender: int, receiver: int, now: float) -> bool:
        """Whether a packet is the neighbour's and for this life of the stream."""
        if sender and sender != self.identity and receiver in (0, self.identity):  # our own: an echo
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
        """How many bytes of the stream `send` would take well now; 0: none."""
        return 0 if self.fault else self._out.room

    def send(self, buffers: list[Buffer], now: float) -> None:
        """Take bytes of the stream.  More than `room` is allowed, and waits here."""
        self._now = now
        if not self.fault:
            self._out.send(buffers)

    def produce(self, now: float) -> list[bytes]:
        """The packets to write now, each for one datagram; when there are any, there may be more right afterwards."""
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
        """When `produce` must be called if nothing comes before; 0: not until then."""
        if self.fault:
            return 0.0
        return min(filter(None, (self._in.due_at, self._out.deadline(self._now))), default=0.0)

    def close(self) -> None:
        """The stream is over: give back what is held."""
        self.fault = self.fault or "it is closed"
        self._scanner, self._in, self._out = PacketScanner(), ArqReceiver(), ArqSender(self.identity, self.mtu)

    @property
    def held(self) -> int:
        """Bytes that came and wait for others before them."""
        return self._in.held

    def limit(self, window: int) -> None:
        """Let so many bytes wait for a hole to be filled, WINDOW at most."""
        self._in.window = min(max(window, MAX_MTU), WINDOW)

    # -- what is known ---------------------------------------------------------------------------------------------

    @property
    def unacked(self) -> int:
        """Bytes of the stream that were taken and of which it is not known that the neighbour has them in order."""
        return self._out.end - self._out.acked

    @property
    def rtt(self) -> float:
        """The round trip, smoothed, in seconds; 0 while unknown."""
        return self._out.rtt

    @property
    def rate(self) -> float:
        """Bytes a second that the path delivers, as far as has been seen; 0 while unknown."""
        return self._out.congestion.rate

    @property
    def statistics(self) -> dict[str, float]:
        """Counters, and what is known of the path: for people, and for tests."""
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

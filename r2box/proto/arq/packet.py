"""Packets: self-delimiting units for transports that lose, corrupt, reorder or duplicate data.

The same packets travel in datagrams and in a byte stream (a serial line), with noise before, between and inside them.
All numbers are big-endian, except the CRC-32::

    0   sync      2   `SYNC`
    2   kind      2   kind (4 bits) and the size of the body (12 bits)
    4   sender    4   identity of the sender: random, another for each connection; 0 in the COOKIE of a listener
    8   receiver  4   identity of the receiver; 0: not known yet: an *opening* packet
    12  check     2   CRC-16/CCITT-FALSE (initially 0xffff) of bytes 2 to 11
    14  body      …
        crc       4   CRC-32 (zlib's) of all before it, little-endian as in Ethernet and gzip: the CRC-32 of a valid
                      packet with its crc is `RESIDUE`

    DATA    tx (4)  offset (4)  payload
    ACK     tx (4)  clock (4)  delay (2)  window (2)  offset (4)  map
    GONE    empty: the receiver of the packets has no such connection
    COOKIE  bytes to return with opening packets, as a proof of the source address

A public listener answers an opening packet without a valid cookie with a COOKIE and keeps no state (as DTLS, RFC 9147,
5.1), so forged addresses cost it no memory and receive no more than 3 times the bytes that arrived (RFC 9000, 8).

The header has its own checksum, so that noise cannot announce a packet that never comes and stall a stream: random
bytes form a valid header once in 2**32 positions.  When a packet with a valid header is invalid, the search resumes one
byte behind the start of that header: the missing bytes may have been its own, and the next packet inside.

CRC-32 detects any change of up to 3 bits in packets of this size and any burst of up to 32; of other changes it misses
one in 2**32, and only packets with a valid header get that far.

`tx` and `offset` are the low 32 bits of counters that begin at 0; `unwrap` restores the rest.
"""

from __future__ import annotations

from binascii import crc_hqx
from struct import Struct
from zlib import crc32

from ...errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.fields import Buffer

    Packet = tuple[int, int, int, memoryview]  # kind, sender, receiver, body

# 0xc1 occurs in neither ASCII nor UTF-8, and is neither the first byte of `frames.MAGIC` nor what an idle or mistimed
# line reads as (00 ff aa 55); 0x9e is not a control character that a line acts on (XON, XOFF).
SYNC = b"\xc1\x9e"

MTU = 1200  # bytes: as QUIC (RFC 9000, 14), the 1280 of IPv6 less headers
MAX_MTU = 1200  # limits how long a receiver waits behind a valid header
MIN_MTU = 64  # an ACK, and DATA with half payload

DATA = 1
ACK = 2
GONE = 3
COOKIE = 4

COOKIE_SIZE = 16  # bytes: a COOKIE has at most twice the size of the packet that it answers
HEADER = 14
TRAILER = 4
DATA_OVERHEAD = HEADER + 8 + TRAILER  # 26
ACK_OVERHEAD = HEADER + 16 + TRAILER  # 34
MAX_BODY = MAX_MTU - HEADER - TRAILER
RESIDUE = 0x2144DF1C

TICK = 8e-6  # seconds: the unit of `clock`, and of `delay`, whose 16 bits reach half a second
WINDOW_UNIT = 1 << 10  # bytes

_HEADER = Struct(">2sHIIH")
_CHECKED = Struct(">HII")
_DATA = Struct(">II")
_ACK = Struct(">IIHHI")
_CRC = Struct("<I")


def unwrap(low: int, near: int) -> int:
    """Return the number with the low 32 bits `low` that is nearest to `near`; it may be negative."""
    return near + ((low - near + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def is_header(data: Buffer) -> bool:
    """Whether `data` (HEADER bytes) is a valid header."""
    sync, kind, _, _, check = _HEADER.unpack(data)
    return bool(sync == SYNC and crc_hqx(data[2:12], 0xFFFF) == check and kind & 0xFFF <= MAX_BODY)


class PacketEncoder:
    """Encodes the packets of one sender.  `receiver` is set when it becomes known."""

    def __init__(self, sender: int, receiver: int = 0) -> None:
        self.sender = sender
        self._receiver = receiver
        self._headers: dict[int, bytes] = {}  # cache, by kind and size

    @property
    def receiver(self) -> int:
        return self._receiver

    @receiver.setter
    def receiver(self, identity: int) -> None:
        self._receiver = identity
        self._headers.clear()

    def _header(self, kind: int) -> bytes:
        checked = _CHECKED.pack(kind, self.sender, self._receiver)
        header = self._headers[kind] = SYNC + checked + crc_hqx(checked, 0xFFFF).to_bytes(2, "big")
        return header

    def data(self, tx: int, offset: int, payload: Buffer) -> bytes:
        """Encode DATA: `payload`, at most MAX_MTU - DATA_OVERHEAD bytes, at `offset` in the stream."""
        kind = DATA << 12 | len(payload) + 8
        head = (self._headers.get(kind) or self._header(kind)) + _DATA.pack(tx & 0xFFFFFFFF, offset & 0xFFFFFFFF)
        return b"".join((head, payload, _CRC.pack(crc32(payload, crc32(head)))))

    def ack(self, tx: int, at: float, delay: float, window: int, offset: int, map: bytes) -> bytes:
        """Encode an ACK; `decode_ack` explains its values.  `at` is in seconds."""
        kind = ACK << 12 | len(map) + 16
        clock, ticks, blocks = int(at / TICK) & 0xFFFFFFFF, min(int(delay / TICK), 0xFFFF), window // WINDOW_UNIT
        body = _ACK.pack(tx & 0xFFFFFFFF, clock, ticks, min(blocks, 0xFFFF), offset & 0xFFFFFFFF)
        packet = (self._headers.get(kind) or self._header(kind)) + body + map
        return packet + _CRC.pack(crc32(packet))

    def reset(self) -> bytes:
        """Encode GONE."""
        packet = self._header(GONE << 12)
        return packet + _CRC.pack(crc32(packet))

    def cookie(self, body: bytes) -> bytes:
        """Encode COOKIE: from a listener, whose identity is 0, a request; from the opener the answer."""
        packet = self._header(COOKIE << 12 | len(body)) + body
        return packet + _CRC.pack(crc32(packet))


def decode_data(body: memoryview) -> tuple[int, int, memoryview]:
    """Decode DATA to (low bits of tx, low bits of offset, payload).  WireError if it is too short."""
    if len(body) < 8:
        raise WireError("a DATA packet that is too short")
    tx, offset = _DATA.unpack_from(body)
    return tx, offset, body[8:]


def decode_ack(body: memoryview) -> tuple[int, int, float, int, int, int]:
    """Decode an ACK.  WireError if it is too short.

    tx      low bits of the largest accepted transmission
    clock   the receiver's clock when that arrived: low bits of a number of `TICK`s, from any origin
    delay   seconds from then until this was sent
    window  bytes that the receiver accepts beyond `offset`
    offset  low bits of the offset before which the stream is complete
    map     bit i: tx - 1 - i was accepted; little-endian on the wire, and of any length: a missing or 0 bit states
            nothing
    """
    if len(body) < 16:
        raise WireError("an ACK packet that is too short")
    tx, clock, ticks, window, offset = _ACK.unpack_from(body)
    return tx, clock, ticks * TICK, window * WINDOW_UNIT, offset, int.from_bytes(body[16:], "little")


class PacketScanner:
    """Streaming decoder: finds packets in datagrams, each with any number of them, or in a byte stream.

    Holds less than MAX_MTU bytes: an incomplete packet.
    """

    def __init__(self) -> None:
        self.noise = 0  # bytes outside of packets
        self.bad = 0  # packets with a valid header and an invalid CRC-32
        self._held = bytearray()
        self._need = 0  # bytes in `_held` that complete the header or packet

    def feed(self, data: Buffer) -> list[Packet]:
        """Return the packets that `data` completes.  Their bodies may be views of `data`."""
        if self._held:
            self._held += data
            if len(self._held) < self._need:
                return []
            data, self._held = bytes(self._held), bytearray()
        view = memoryview(data)
        text = b""  # a copy for `find`, made at most once
        found: list[Packet] = []
        at, end = 0, len(view)
        while at < end:
            size = 0
            if end - at >= HEADER:
                sync, kind, sender, receiver, check = _HEADER.unpack_from(view, at)
                if sync == SYNC and crc_hqx(view[at + 2 : at + 12], 0xFFFF) == check and kind & 0xFFF <= MAX_BODY:
                    size = HEADER + (kind & 0xFFF) + TRAILER
                    if size <= end - at:
                        if crc32(view[at : at + size]) == RESIDUE:
                            found.append((kind >> 12, sender, receiver, view[at + HEADER : at + size - TRAILER]))
                            at += size
                            continue
                        self.bad += 1
                        size = 0
            elif SYNC.startswith(bytes(view[at : at + 2])):
                size = HEADER
            if size:  # incomplete
                self._held += view[at:]
                self._need = size
                break
            text = text or bytes(view)
            place = text.find(SYNC, at + 1)
            if place < 0:
                place = end - (at + 1 < end and text.endswith(SYNC[:1]))
            self.noise += place - at
            at = place
        return found


def decode_opening(datagram: Buffer) -> tuple[int, bytes] | None:
    """Return the sender of the opening packet in `datagram` and its cookie (or b""); None if there is none."""
    opener, cookie = 0, b""
    for kind, sender, receiver, body in PacketScanner().feed(datagram):
        if sender and not receiver:
            opener = sender
            if kind == COOKIE:
                cookie = bytes(body)
    return (opener, cookie) if opener else None


def refusal(datagram: Buffer) -> bytes:
    """Return the GONE that answers a packet to an unknown connection; empty if `datagram` requires none.

    It holds both identities, so only an observer of the packets can forge one.  It is smaller than what it answers, and
    is never answered.
    """
    for kind, sender, receiver, _ in PacketScanner().feed(datagram):
        if receiver and kind not in (GONE, COOKIE):
            return PacketEncoder(receiver, sender).reset()
    return b""

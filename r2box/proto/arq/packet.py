"""Packets that find their own boundaries, for transports that lose, change, swap and repeat what they carry.

The same packets travel in datagrams and in a stream of bytes (a serial line), with noise before, between and inside
them.  All numbers are big-endian, but for the CRC-32::

    0   sync      2   `SYNC`
    2   kind      2   kind (4 bits) and the size of the body (12 bits)
    4   sender    4   identity of who sent it: random, another for each life of a stream; 0 in a COOKIE that answers
    8   receiver  4   identity of who it is for; 0: not known yet, such a packet *opens*
    12  check     2   CRC-16/CCITT-FALSE (initially 0xffff) of bytes 2 to 11
    14  body      …
        crc       4   CRC-32 (zlib's) of all before it, little-endian, as in Ethernet and gzip: the CRC-32 of the
                      whole packet is then `RESIDUE`, whatever it holds

    DATA    tx (4)  offset (4)  payload
    ACK     tx (4)  clock (4)  delay (2)  window (2)  offset (4)  map
    GONE    nothing: whom you send to is not here any more
    COOKIE  bytes: send them with what opens, to show that you receive at your address

A listener that anyone can reach answers an opening packet without a right cookie with a COOKIE and remembers nothing
(as DTLS does, RFC 9147, 5.1), so that forged addresses cost it no state and get no more than 3 times the bytes that
came (RFC 9000, 8).

The header has a check of its own so that noise cannot announce a packet that never comes and make a stream wait for
it: random bytes pass for a header once in 2**32 places.  A header that is right, of a packet that is not, gives only
its first byte up; the search goes on right behind it, since the bytes that are missing may have been the packet's own,
and the next packet be inside.

CRC-32 finds any change of up to 3 bits in packets of this size and any burst of up to 32; of anything else it misses
one in 2**32, and only packets with a right header come so far.

`tx` and `offset` are the low 32 bits of counters that begin at 0; `unwrap` finds the rest.
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

# 0xc1 stands in no text of ASCII or UTF-8, is neither the first byte of `wire.MAGIC` nor what an idle or badly timed
# line reads as (00 ff aa 55); 0x9e is no control character that a line would act on (XON, XOFF).
SYNC = b"\xc1\x9e"

MTU = 1200  # bytes: passes everywhere, as QUIC found (RFC 9000, 14): IPv6's least is 1280, less the headers of UDP
MAX_MTU = 1200  # what a receiver waits for after a header that is right
MIN_MTU = 64  # an ACK, and DATA that is still half payload

DATA = 1
ACK = 2
GONE = 3
COOKIE = 4

COOKIE_SIZE = 16  # bytes; with its header no more than twice the smallest packet, which it may answer
HEADER = 14
TRAILER = 4
DATA_OVERHEAD = HEADER + 8 + TRAILER  # 26
ACK_OVERHEAD = HEADER + 16 + TRAILER  # 34
MAX_BODY = MAX_MTU - HEADER - TRAILER
RESIDUE = 0x2144DF1C

TICK = 8e-6  # seconds: the unit of `delay`, of which 16 bits are half a second, and of `clock`
WINDOW_UNIT = 1 << 10  # bytes

_HEADER = Struct(">2sHIIH")
_CHECKED = Struct(">HII")
_DATA = Struct(">II")
_ACK = Struct(">IIHHI")
_CRC = Struct("<I")


def unwrap(low: int, near: int) -> int:
    """The number with the low 32 bits `low` that is nearest to `near`; less than 0 if there is none from 0 up."""
    return near + ((low - near + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def is_header(data: Buffer) -> bool:
    """Whether `data`, HEADER bytes, is the header of a packet."""
    sync, kind, _, _, check = _HEADER.unpack(data)
    return bool(sync == SYNC and crc_hqx(data[2:12], 0xFFFF) == check and kind & 0xFFF <= MAX_BODY)


class PacketEncoder:
    """The packets of one sender.  `receiver` may be set when it becomes known."""

    def __init__(self, sender: int, receiver: int = 0) -> None:
        self.sender = sender
        self._receiver = receiver
        self._headers: dict[int, bytes] = {}  # by kind and size: most packets are of the same few

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
        """`payload`, at most MAX_MTU - DATA_OVERHEAD bytes, which stands at `offset` in the stream."""
        kind = DATA << 12 | len(payload) + 8
        head = (self._headers.get(kind) or self._header(kind)) + _DATA.pack(tx & 0xFFFFFFFF, offset & 0xFFFFFFFF)
        return b"".join((head, payload, _CRC.pack(crc32(payload, crc32(head)))))

    def ack(self, tx: int, at: float, delay: float, window: int, offset: int, map: bytes) -> bytes:
        """An acknowledgement; see `decode_ack` for what its values are.  `at` is in seconds."""
        kind = ACK << 12 | len(map) + 16
        clock, ticks, blocks = int(at / TICK) & 0xFFFFFFFF, min(int(delay / TICK), 0xFFFF), window // WINDOW_UNIT
        body = _ACK.pack(tx & 0xFFFFFFFF, clock, ticks, min(blocks, 0xFFFF), offset & 0xFFFFFFFF)
        packet = (self._headers.get(kind) or self._header(kind)) + body + map
        return packet + _CRC.pack(crc32(packet))

    def gone(self) -> bytes:
        """There is nobody of this identity any more."""
        packet = self._header(GONE << 12)
        return packet + _CRC.pack(crc32(packet))

    def cookie(self, body: bytes) -> bytes:
        """From a listener, which has no identity: show this.  From the side that opens: here it is."""
        packet = self._header(COOKIE << 12 | len(body)) + body
        return packet + _CRC.pack(crc32(packet))


def decode_data(body: memoryview) -> tuple[int, int, memoryview]:
    """(low bits of tx, low bits of offset, payload).  WireError if it is too short."""
    if len(body) < 8:
        raise WireError("a DATA packet that is too short")
    tx, offset = _DATA.unpack_from(body)
    return tx, offset, body[8:]


def decode_ack(body: memoryview) -> tuple[int, int, float, int, int, int]:
    """What an ACK says.  WireError if it is too short.

    tx      low bits of the largest that was accepted
    clock   of the receiver when that came: low bits of a number of `TICK`s, from any beginning
    delay   seconds from then until this was sent
    window  bytes that the receiver takes beyond `offset`
    offset  low bits of the place in the stream before which it has everything
    map     bit i says whether tx - 1 - i was accepted; on the wire its bytes stand lowest first, and how many there
            are is the receiver's choice: a bit that is not there, or is 0, says nothing
    """
    if len(body) < 16:
        raise WireError("an ACK packet that is too short")
    tx, clock, ticks, window, offset = _ACK.unpack_from(body)
    return tx, clock, ticks * TICK, window * WINDOW_UNIT, offset, int.from_bytes(body[16:], "little")


class PacketScanner:
    """Finds packets in what a transport delivers: datagrams, each with any number of packets, or a stream in slices.

    Holds less than MAX_MTU bytes: the beginning of a packet that is not all there yet.
    """

    def __init__(self) -> None:
        self.noise = 0  # bytes that belonged to no packet
        self.bad = 0  # packets with a right header and a wrong CRC-32
        self._held = bytearray()
        self._need = 0  # bytes in `_held` before it is worth another look

    def feed(self, data: Buffer) -> list[Packet]:
        """The packets that are complete now.  Their bodies may be views of `data`."""
        if self._held:
            self._held += data
            if len(self._held) < self._need:
                return []
            data, self._held = bytes(self._held), bytearray()
        view = memoryview(data)
        text = b""  # the same, when it has to be searched: once, however much noise there is
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
            if size:  # it begins here, and the rest of it is to come
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
    """The identity of the side that opens by `datagram`, and the cookie that it shows (or b""); None if none opens."""
    opener, cookie = 0, b""
    for kind, sender, receiver, body in PacketScanner().feed(datagram):
        if sender and not receiver:
            opener = sender
            if kind == COOKIE:
                cookie = bytes(body)
    return (opener, cookie) if opener else None


def refusal(datagram: Buffer) -> bytes:
    """The GONE that answers a packet for somebody who is not here any more; empty if `datagram` holds none.

    It names both identities, so nobody can send one who has not seen the packets; and it is smaller than what it
    answers, and is never answered itself.
    """
    for kind, sender, receiver, _ in PacketScanner().feed(datagram):
        if receiver and kind not in (GONE, COOKIE):
            return PacketEncoder(receiver, sender).gone()
    return b""

"""Frames: the unit of transmission on a link, their types and limits, and a streaming decoder.

A link carries, in each direction, `MAGIC` and then frames::

    type (1 byte)   route (varint)   length (varint)   payload (length bytes)

Types below 0x80 are required: an unknown one ends the link.  Types from 0x80 up are optional: an unknown one is
skipped.  Route 0 is the link itself; any other route is a stream label.  The lowest bit of a label is 0 if the
sender of the frame assigned it, 1 if its receiver did; so the two sides need not divide the number space.

Structured payloads are fields (see `fields`).  The decoder passes the payload of DATA on in the pieces in which it
arrives, so that a large frame costs neither memory nor latency; every other payload is small and is assembled first.

Decoding raises `WireError` and nothing else.
"""

from __future__ import annotations

from ...errors import WireError
from .fields import MAX_TEXT, Fields, decode_varint, encode_varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .fields import Buffer

    Frame = tuple[int, int, memoryview]

VERSION = 1  # the newest protocol version that is supported
OLDEST = 1  # and the oldest

# As PNG's signature: the first byte is neither ASCII nor the first byte of UTF-8, so no text protocol starts with it;
# CR LF, SUB and NUL do not survive a terminal or a transfer that converts text.
MAGIC = b"\xb2r2\r\n\x1a\n\x00"

HELLO = 0x01  # the sender's address and versions: `HELLO_FIELDS`; the first frame on a link
READY = 0x02  # the sender accepts the neighbour: `READY_FIELDS`
BYE = 0x03  # the link ends, and why: `BYE_FIELDS`; the last frame on a link
PING = 0x04  # the number of bytes before it, and a number; the answer is PONG with the same payload
PONG = 0x05
MESSAGE = 0x06  # `MESSAGE_FIELDS`
OPEN = 0x07  # bind this label to a path: `OPEN_FIELDS`
ACCEPT = 0x08  # the far end of the tunnel has accepted it: `ACCEPT_FIELDS`
DATA = 0x09  # bytes of the stream
CREDIT = 0x0A  # a varint: the number of further bytes of DATA that the receiver of this frame may send on the route
FIN = 0x0B  # half-close: the sender's direction has ended cleanly
STOP = 0x0C  # the sender reads no more: the receiver must send FIN and no further DATA
CLOSE = 0x0D  # the last frame of its sender on a route: `CLOSE_FIELDS`
RECALL = 0x0E  # the receiver of DATA asks for unused credit back
RETURN = 0x0F  # a varint: the credit that the sender of DATA gives back
RESUME = 0x10  # resume the session of a suspended link: `RESUME_FIELDS`

OPTIONAL = 0x80
REACH = 0x80  # the nodes that the sender reaches: see `advertisement`

# Limits, in bytes of a payload where nothing else is stated.
MAX_DATA = 1 << 20  # of DATA, which is passed on in pieces: the limit only keeps the length to 3 bytes
MAX_CONTROL = 1 << 16  # of a message, and of any frame that a later version adds: assembled in memory
MAX_REACH = 1 << 13  # of an advertisement: a few milliseconds of work
MAX_OPEN = 1 << 12  # of OPEN: 32 addresses of 64 characters, twice
MAX_ROUTE = (1 << 21) - 1  # a label of 3 bytes
MAX_HEADER = 1 + 3 + 3
MAX_CREDIT = (1 << 28) - 1  # a varint of 4 bytes; windows end at 16 MiB

# type: (name, whether it belongs to a route, maximum payload in bytes)
FRAMES = {
    HELLO: ("HELLO", False, MAX_TEXT),
    READY: ("READY", False, 128),
    BYE: ("BYE", False, MAX_TEXT),
    PING: ("PING", False, 64),
    PONG: ("PONG", False, 64),
    MESSAGE: ("MESSAGE", False, MAX_CONTROL),
    OPEN: ("OPEN", True, MAX_OPEN),
    ACCEPT: ("ACCEPT", True, 64),
    DATA: ("DATA", True, MAX_DATA),
    CREDIT: ("CREDIT", True, 4),
    FIN: ("FIN", True, 0),
    STOP: ("STOP", True, 0),
    CLOSE: ("CLOSE", True, MAX_TEXT),
    RECALL: ("RECALL", True, 0),
    RETURN: ("RETURN", True, 4),
    RESUME: ("RESUME", False, 128),
    REACH: ("REACH", False, MAX_REACH),
}
# The work of receiving a frame, in units of about 4 us; types that are not listed cost 1.
WORK = {OPEN: 16, CLOSE: 4, MESSAGE: 16, REACH: 32, HELLO: 32, READY: 32, RESUME: 32}
MAX_WORK = 1 << 30  # unlimited


HELLO_FIELDS = Fields(
    "HELLO",
    oldest=(1, "uint"),  # the oldest supported version
    newest=(2, "uint"),  # and the newest
    address=(3, "text"),  # empty for a client: the node assigns one
    instance=(4, "bytes"),  # 16 random bytes for the lifetime of a daemon
    role=(5, "uint"),  # NODE or CLIENT
    descriptors=(6, "uint"),  # 1: a descriptor accompanies this frame; if it arrives, the transport passes descriptors
    software=(7, "text"),  # for people: "r2box 0.1.0"
    nonce=(8, "bytes"),  # 32 random bytes, for the proofs of `resume`
)
NODE, CLIENT = 0, 1

READY_FIELDS = Fields("READY", resume_timeout=(1, "uint"), secret=(2, "bytes"))
RESUME_FIELDS = Fields("RESUME", proof=(1, "bytes"), received=(2, "uint"))
FAULT = 1  # code of a BYE after a protocol error; 0: an orderly close
BYE_FIELDS = Fields("BYE", code=(1, "uint"), text=(2, "text"))
MESSAGE_FIELDS = Fields("MESSAGE", path=(1, "path"), origin=(2, "path"), body=(3, "bytes"), descriptors=(4, "uint"))
# Mode of an OPEN: a byte stream; a relayed descriptor (control links only); datagrams.
STREAM, DESCRIPTOR, DATAGRAMS = range(3)
OPEN_FIELDS = Fields("OPEN", path=(1, "path"), origin=(2, "path"), window=(3, "uint"), mode=(4, "uint"))
ACCEPT_FIELDS = Fields("ACCEPT", window=(1, "uint"))
CLOSE_FIELDS = Fields("CLOSE", code=(1, "uint"), status=(2, "uint"), signal=(3, "uint"), text=(4, "text"))


# -- frames ----------------------------------------------------------------------------------------------------------


def encode_header(kind: int, route: int, length: int) -> bytes:
    """Encode the header of a frame with a payload of `length` bytes."""
    if route < 0x80 and length < 0x80:
        return bytes((kind, route, length))
    return bytes((kind,)) + encode_varint(route) + encode_varint(length)


def encode_frame(kind: int, route: int = 0, payload: Buffer = b"") -> bytes:
    """Encode a frame."""
    return encode_header(kind, route, len(payload)) + bytes(payload)


class FrameDecoder:
    """Streaming frame decoder.

    Holds at most one header and one payload (`MAX_CONTROL`) between calls.  Unusable after a WireError.
    """

    __slots__ = ("_body", "_expect", "_held", "_kind", "_left", "_route", "place")

    def __init__(self) -> None:
        self.place = 0  # offset in the link of the end of what was yielded last; after `feed`, of all that was received
        self._expect = len(MAGIC)  # bytes of MAGIC that are missing
        self._held = b""  # an incomplete header
        self._kind = 0
        self._route = 0
        self._left = 0  # bytes of the current payload that are missing
        self._body: bytearray | None = None  # that payload so far, unless it is DATA

    def feed(self, data: Buffer) -> Iterator[Frame]:
        """Yield (type, route, payload) of each frame that `data` completes, and of each piece of DATA.

        Payloads may be views of `data`, valid until it changes.  A caller that stops early must feed the bytes from
        `place` on again.
        """
        view = memoryview(data)
        at, end = 0, len(view)
        before = self.place
        if self._expect:
            at = self._magic(view)
        while at < end:
            if not self._left:
                at = self._header(view, at, end)
                if at < 0:
                    break
                if not self._left and self._kind in FRAMES:
                    self.place = before + at
                    yield self._kind, self._route, view[at:at]
                continue
            size = min(self._left, end - at)
            piece = view[at : at + size]
            at += size
            self._left -= size
            self.place = before + at
            if self._kind == DATA:
                yield DATA, self._route, piece
            elif self._kind in FRAMES:
                yield from self._assemble(piece)
        self.place = before + end

    def _magic(self, view: memoryview) -> int:
        start = len(MAGIC) - self._expect
        size = min(self._expect, len(view))
        if view[:size] != MAGIC[start : start + size]:
            line = (MAGIC[:start] + bytes(view[:40])).split(b"\n", 1)[0].rstrip(b"\r")[:40]
            raise WireError(f"not an r2 neighbour: it began with {line.decode('latin-1')!a}")
        self._expect -= size
        return size

    def _header(self, view: memoryview, at: int, end: int) -> int:
        """Decode the header at `view[at:]`; return the position behind it, or -1 if it is incomplete and was stored."""
        held = len(self._held)
        if not held and end - at > 2 and view[at] in FRAMES and view[at + 1] < 0x80 and view[at + 2] < 0x80:
            # Fast path: both varints have one byte.
            self._kind, self._route, self._left, self._body = view[at], view[at + 1], view[at + 2], None
            return self._check_header(at + 3)
        head = memoryview(self._held + bytes(view[at : at + MAX_HEADER])) if held else view
        start, stop = (0, len(head)) if held else (at, end)
        kind = head[start]
        if kind not in FRAMES and kind < OPTIONAL:
            raise WireError(f"a frame of the unknown type 0x{kind:02x}")
        route, place = decode_varint(head, start + 1, stop, 3)
        length, place = decode_varint(head, place, stop, 3) if place > 0 else (0, -1)
        if place < 0:
            self._held = bytes(head[start:stop])
            return -1
        self._kind, self._route, self._left, self._held, self._body = kind, route, length, b"", None
        return self._check_header(at + place - held if held else place)

    def _check_header(self, place: int) -> int:
        """Return `place` if the decoded header is valid; raise WireError if not."""
        kind, route, length = self._kind, self._route, self._left
        name, routed, most = FRAMES.get(kind) or (f"0x{kind:02x}", bool(route), MAX_CONTROL)
        if length > most:
            raise WireError(f"a {name} frame of {length} bytes; at most {most} are allowed")
        if routed != bool(route):
            raise WireError(f"a {name} frame {'without a' if routed else 'on a'} route")
        return place

    def _assemble(self, piece: memoryview) -> Iterator[Frame]:
        if self._body is None and not self._left:
            yield self._kind, self._route, piece
            return
        if self._body is None:
            self._body = bytearray()
        self._body += piece
        if not self._left:
            body, self._body = self._body, None
            yield self._kind, self._route, memoryview(body)


def agree_version(oldest: int, newest: int) -> int:
    """Choose the version for a link to a neighbour that supports `oldest` to `newest`; WireError if there is none."""
    version = min(newest, VERSION)
    if version < max(oldest, OLDEST):
        raise WireError(
            f"no common protocol version: the neighbour speaks {oldest} to {newest}, this r2box {OLDEST} to {VERSION}"
        )
    return version

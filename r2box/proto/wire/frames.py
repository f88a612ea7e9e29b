"""The one codec: frames to bytes and back, and every limit with its reason.

A link carries, in each direction, `MAGIC` and then frames::

    type (1 byte)   route (varint)   length (varint)   payload (length bytes)

A varint is an unsigned LEB128 number in its shortest form.  Types below 0x80 are required: a receiver that does not
know one ends the link.  Types from 0x80 up are optional and are skipped when unknown.  Route 0 is the link itself;
any other route is a label, and its lowest bit says who numbered it: 0 the sender of this frame, 1 its receiver.
So the two sides never have to agree on who may use which number.

Structured payloads are *fields*: ``tag (varint) length (varint) value`` one after the other; unknown tags are
skipped and missing ones have an empty default, so a later version may add fields without asking.

`DATA` is special: its payload is handed on in whatever pieces arrive, never gathered, so that a large frame costs no
memory and no waiting.  Every other payload is gathered whole and is small.

Decoding raises `WireError` and nothing else.
"""

from __future__ import annotations

from ...errors import AddressError, WireError
from .address import format_path, parse_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Union

    Buffer = Union[bytes, bytearray, memoryview]
    Frame = tuple[int, int, memoryview]

VERSION = 1  # the newest protocol version spoken here
OLDEST = 1  # and the oldest

# The first byte is not ASCII and not UTF-8's lead, so no text protocol starts with it; CR LF, SUB and NUL come out
# changed from a terminal or a transfer that "corrects" text (the idea of PNG's signature).
MAGIC = b"\xb2r2\r\n\x1a\n\x00"

HELLO = 0x01  # who I am: fields `HELLO_FIELDS`; the first frame on a link
READY = 0x02  # I take you as my neighbour
BYE = 0x03  # the link ends, and why: `BYE_FIELDS`; the last frame on a link
PING = 0x04  # how many bytes its sender sent before it; answer with PONG and the same payload
PONG = 0x05
MESSAGE = 0x06  # `MESSAGE_FIELDS`
OPEN = 0x07  # bind this label to a path: `OPEN_FIELDS`
ACCEPT = 0x08  # the other end of the route took it: `ACCEPT_FIELDS`
DATA = 0x09  # bytes of the stream
CREDIT = 0x0A  # a varint: how many more bytes of DATA the receiver of this frame may send on the route
FIN = 0x0B  # the sender's stream has ended, cleanly
STOP = 0x0C  # the sender will not read any more: send no more DATA, and FIN
CLOSE = 0x0D  # the last frame of its sender on a route: `CLOSE_FIELDS`
RECALL = 0x0E  # the receiver of DATA asks for credit back that is not being used
RETURN = 0x0F  # a varint: the credit that the sender of DATA gives back
RESUME = 0x10  # I take up the session of a link that was cut: fields of `session`

OPTIONAL = 0x80
REACH = 0x80  # what is reached by way of the sender: `advert`

MAX_DATA = 1 << 20  # a DATA frame; it is passed on in pieces, so the limit only keeps a varint to 3 bytes
MAX_CONTROL = 1 << 16  # any other frame that a later version may add, and a message: gathered in memory
MAX_TEXT = 1 << 10  # a text for people: an error message
MAX_FIELD = 1100  # a text in a field of a message, which has several
MAX_REACH = 1 << 13  # what a daemon looks at in one go takes it a few milliseconds
MAX_OPEN = 1 << 12  # 32 addresses of 64 characters, twice
MAX_ROUTE = (1 << 21) - 1  # a label of 3 bytes
MAX_HEADER = 1 + 3 + 3
MAX_CREDIT = (1 << 28) - 1  # a varint of 4 bytes; windows end at 16 MiB

# type: (name, belongs to a route?, most bytes of payload)
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
# What frames cost to take, in units of about 4 us; those that are not here cost 1.
WORK = {OPEN: 16, CLOSE: 4, MESSAGE: 16, REACH: 32, HELLO: 32, READY: 32, RESUME: 32}
MAX_WORK = 1 << 30  # without a bound


# -- numbers ---------------------------------------------------------------------------------------------------------


def encode_varint(number: int) -> bytes:
    """`number` (0 or more) as unsigned LEB128 in its shortest form."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode_varint(data: Buffer, at: int, end: int, most: int = 4) -> tuple[int, int]:
    """The number at `data[at:end]` and the place behind it; the place is -1 if it is not all there yet.

    Raise WireError for one of more than `most` bytes, or not in its shortest form.
    """
    number = shift = 0
    for place in range(at, min(end, at + most)):
        byte = data[place]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and place > at:
                raise WireError("a number that is not in its shortest form")
            return number, place + 1
        shift += 7
    if end - at >= most:
        raise WireError(f"a number of more than {most} bytes")
    return 0, -1


# -- fields ----------------------------------------------------------------------------------------------------------


def _whole_varint(value: bytes) -> int:
    number, after = decode_varint(value, 0, len(value), most=9)
    if after != len(value):
        raise WireError("a number that does not fill its field")
    return number


def _decode_text(value: bytes) -> str:
    """UTF-8 of at most MAX_FIELD bytes, without what could steer a terminal: a peer's words are shown to people."""
    text = value[:MAX_FIELD].decode("utf-8", "replace")
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _decode_path(value: bytes) -> tuple[str, ...]:
    try:
        return parse_path(value.decode("ascii"))
    except (UnicodeDecodeError, AddressError) as error:
        raise WireError(f"a path that is none: {error}") from None


# kind: (default, encode, decode, repeated?)
_KINDS: dict[str, tuple[Any, Any, Any, bool]] = {
    "uint": (0, encode_varint, _whole_varint, False),
    "bytes": (b"", bytes, bytes, False),
    "text": ("", lambda text: shorten(text, MAX_FIELD + 64).encode("utf-8", "replace"), _decode_text, False),
    "path": ((), lambda path: format_path(path).encode("ascii"), _decode_path, False),
    "each": ((), bytes, bytes, True),  # any number of byte strings under one tag
}


class Fields:
    """The layout of one structured payload: which tag holds what.

    `Fields("hello", address=(1, "text"), …)`: kinds are `uint`, `bytes`, `text`, `path` and `each`.
    """

    def __init__(self, name: str, /, **layout: tuple[int, str]) -> None:
        self.name = name
        self.layout = layout
        self._by_tag = {tag: (field, *_KINDS[kind]) for field, (tag, kind) in layout.items()}
        self._defaults = {field: _KINDS[kind][0] for field, (_, kind) in layout.items()}

    def encode(self, **values: Any) -> bytes:
        """The payload; a field with its default value takes no bytes.  KeyError for one that is not in the layout."""
        out = bytearray()
        for field, value in values.items():
            tag, kind = self.layout[field]
            default, encode, _, repeated = _KINDS[kind]
            if value == default:
                continue
            for item in value if repeated else (value,):
                data = encode(item)
                out += encode_varint(tag) + encode_varint(len(data)) + data
        return bytes(out)

    def decode(self, payload: Buffer) -> dict[str, Any]:
        """Every field of the layout with its value or default.  WireError if `payload` is not fields."""
        values = dict(self._defaults)
        lists: dict[str, list[bytes]] = {}  # of the repeated fields: joining tuples one by one would be quadratic
        data = bytes(payload)
        at, end = 0, len(data)
        while at < end:
            tag, at = decode_varint(data, at, end)
            size, at = decode_varint(data, at, end) if at > 0 else (0, -1)
            if at < 0 or at + size > end:
                raise WireError(f"{self.name}: a field that is cut off")
            if tag in self._by_tag:
                field, _, _, decode, repeated = self._by_tag[tag]
                value = decode(data[at : at + size])
                if repeated:
                    lists.setdefault(field, []).append(value)
                else:
                    values[field] = value
            at += size
        for field, items in lists.items():
            values[field] = tuple(items)
        return values


HELLO_FIELDS = Fields(
    "HELLO",
    oldest=(1, "uint"),  # the versions spoken, from
    newest=(2, "uint"),  # to
    address=(3, "text"),  # empty for a client: it is given one
    instance=(4, "bytes"),  # 16 random bytes, made when the daemon started: the same daemon has the same
    role=(5, "uint"),  # NODE or CLIENT
    descriptors=(6, "uint"),  # 1: a descriptor goes along with this; if it arrives, others will (a UNIX socket)
    software=(7, "text"),  # for people: "r2box 0.1.0"
    nonce=(8, "bytes"),  # 32 random bytes, for the proofs of `session`
)
NODE, CLIENT = 0, 1

FAULT = 1  # code of a BYE: something was wrong; 0 is a farewell in good order
BYE_FIELDS = Fields("BYE", code=(1, "uint"), text=(2, "text"))
MESSAGE_FIELDS = Fields("MESSAGE", path=(1, "path"), origin=(2, "path"), body=(3, "bytes"), descriptors=(4, "uint"))
# The mode of an OPEN: a tunnel of bytes; what stands for a descriptor on a control link; a tunnel of datagrams.
STREAM, DESCRIPTOR, DATAGRAMS = range(3)
OPEN_FIELDS = Fields("OPEN", path=(1, "path"), origin=(2, "path"), window=(3, "uint"), mode=(4, "uint"))
ACCEPT_FIELDS = Fields("ACCEPT", window=(1, "uint"))
CLOSE_FIELDS = Fields("CLOSE", code=(1, "uint"), status=(2, "uint"), signal=(3, "uint"), text=(4, "text"))


# -- frames ----------------------------------------------------------------------------------------------------------


def encode_header(kind: int, route: int, length: int) -> bytes:
    """The bytes in front of a payload of `length` bytes."""
    if route < 0x80 and length < 0x80:
        return bytes((kind, route, length))
    return bytes((kind,)) + encode_varint(route) + encode_varint(length)


def encode_frame(kind: int, route: int = 0, payload: Buffer = b"") -> bytes:
    """One whole frame."""
    return encode_header(kind, route, len(payload)) + bytes(payload)


def shorten(text: str, most: int = MAX_TEXT) -> str:
    """`text` cut so that it fits `most` bytes, with room for the fields beside it."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= most - 64 else data[: most - 68].decode("utf-8", "ignore") + "…"


class FrameDecoder:
    """Bytes in, frames out.

    Holds at most one header and one gathered payload (`MAX_CONTROL`) between calls.  After a WireError it must not be
    used again.
    """

    __slots__ = ("_body", "_expect", "_held", "_kind", "_left", "_route", "place")

    def __init__(self) -> None:
        self.place = 0  # bytes of the link up to the end of what was yielded last; of all that came, after `feed`
        self._expect = len(MAGIC)  # bytes of MAGIC still to come
        self._held = b""  # the beginning of a header
        self._kind = 0
        self._route = 0
        self._left = 0  # payload bytes of the current frame still to come
        self._body: bytearray | None = None  # its payload so far, where it is gathered

    def feed(self, data: Buffer) -> Iterator[Frame]:
        """Yield (type, route, payload) for what `data` completes; DATA comes in pieces.

        The payloads are views into `data`, good until `data` is changed.  A caller that stops early gives the bytes
        from `place` on again later.
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
                yield from self._gather(piece)
        self.place = before + end

    def _magic(self, view: memoryview) -> int:
        start = len(MAGIC) - self._expect
        size = min(self._expect, len(view))
        if view[:size] != MAGIC[start : start + size]:
            said = (MAGIC[:start] + bytes(view[:40])).split(b"\n", 1)[0].rstrip(b"\r")[:40]
            raise WireError(f"not an r2 neighbour: it began with {said.decode('latin-1')!a}")
        self._expect -= size
        return size

    def _header(self, view: memoryview, at: int, end: int) -> int:
        """Read a header at `view[at:]` and return the place behind it, or -1 after keeping what there is of it."""
        held = len(self._held)
        if not held and end - at > 2 and view[at] in FRAMES and view[at + 1] < 0x80 and view[at + 2] < 0x80:
            # The usual small frame, which varints of one byte each make quick to read.
            self._kind, self._route, self._left, self._body = view[at], view[at + 1], view[at + 2], None
            return self._checked(at + 3)
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
        return self._checked(at + place - held if held else place)

    def _checked(self, place: int) -> int:
        """`place`, if the header that was read may be; WireError if not."""
        kind, route, length = self._kind, self._route, self._left
        name, routed, most = FRAMES.get(kind) or (f"0x{kind:02x}", bool(route), MAX_CONTROL)
        if length > most:
            raise WireError(f"a {name} frame of {length} bytes; at most {most} are allowed")
        if routed != bool(route):
            raise WireError(f"a {name} frame {'without a' if routed else 'on a'} route")
        return place

    def _gather(self, piece: memoryview) -> Iterator[Frame]:
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
    """The version to speak with a neighbour that speaks `oldest` to `newest`; WireError if there is none."""
    version = min(newest, VERSION)
    if version < max(oldest, OLDEST):
        raise WireError(
            f"no common protocol version: the neighbour speaks {oldest} to {newest}, this r2box {OLDEST} to {VERSION}"
        )
    return version

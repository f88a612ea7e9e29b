"""Fields: the codec of structured payloads, and the varints that it is made of.

A *varint* is an unsigned LEB128 number in its shortest form.  A payload of *fields* is a sequence of ``tag (varint)
length (varint) value``.  Unknown tags are skipped and missing ones have an empty default, so that a later version can
add fields without negotiation.

Decoding raises `WireError` and nothing else.
"""

from __future__ import annotations

from ...errors import AddressError, WireError
from .address import format_path, parse_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Union

    Buffer = Union[bytes, bytearray, memoryview]

MAX_TEXT = 1 << 10  # bytes of an error message
MAX_FIELD = 1100  # bytes of a text field in a message, which has several


def encode_varint(number: int) -> bytes:
    """Encode `number` (0 or more) in its shortest form."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def decode_varint(data: Buffer, at: int, end: int, most: int = 4) -> tuple[int, int]:
    """Decode the number at `data[at:end]`; return it and the position behind it, which is -1 if it is incomplete.

    WireError if it has more than `most` bytes or is not in its shortest form.
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


def shorten(text: str, most: int = MAX_TEXT) -> str:
    """Truncate `text` so that it fits in `most` bytes together with the fields beside it."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= most - 64 else data[: most - 68].decode("utf-8", "ignore") + "…"


def _decode_uint(value: bytes) -> int:
    number, after = decode_varint(value, 0, len(value), most=9)
    if after != len(value):
        raise WireError("a number that does not fill its field")
    return number


def _decode_text(value: bytes) -> str:
    """At most MAX_FIELD bytes of UTF-8.  Unprintable characters become "?": a peer must not control a terminal."""
    text = value[:MAX_FIELD].decode("utf-8", "replace")
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _decode_path(value: bytes) -> tuple[str, ...]:
    try:
        return parse_path(value.decode("ascii"))
    except (UnicodeDecodeError, AddressError) as error:
        raise WireError(f"an invalid path: {error}") from None


# kind: (default, encode, decode, whether it repeats)
_KINDS: dict[str, tuple[Any, Any, Any, bool]] = {
    "uint": (0, encode_varint, _decode_uint, False),
    "bytes": (b"", bytes, bytes, False),
    "text": ("", lambda text: shorten(text, MAX_FIELD + 64).encode("utf-8", "replace"), _decode_text, False),
    "path": ((), lambda path: format_path(path).encode("ascii"), _decode_path, False),
    "each": ((), bytes, bytes, True),  # any number of byte strings under one tag
}


class Fields:
    """The layout of one structured payload: the tag and the kind of each field.

    `Fields("HELLO", address=(1, "text"), …)`; the kinds are `uint`, `bytes`, `text`, `path` and `each`.
    """

    def __init__(self, name: str, /, **layout: tuple[int, str]) -> None:
        self.name = name
        self.layout = layout
        self._by_tag = {tag: (field, *_KINDS[kind]) for field, (tag, kind) in layout.items()}
        self._defaults = {field: _KINDS[kind][0] for field, (_, kind) in layout.items()}

    def encode(self, **values: Any) -> bytes:
        """Encode a payload.  Default values take no bytes.  KeyError for a field that is not in the layout."""
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
        """Decode every field of the layout, with defaults for missing ones.  WireError if `payload` is malformed."""
        values = dict(self._defaults)
        lists: dict[str, list[bytes]] = {}  # of repeated fields: appending to tuples would be quadratic
        data = bytes(payload)
        at, end = 0, len(data)
        while at < end:
            tag, at = decode_varint(data, at, end)
            size, at = decode_varint(data, at, end) if at > 0 else (0, -1)
            if at < 0 or at + size > end:
                raise WireError(f"{self.name}: a truncated field")
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

"""Protocol of iosh and ioshd: a terminal, or three streams, as frames over a byte stream.

Each direction is a sequence of frames ``type (1 byte) length (2) payload``, with big-endian numbers.  Both begin with
HELLO: a magic word, the version, and a set of features.  The features of both apply; unknown bits are ignored, and so
is a frame of an unknown type below REQUIRED, so that later versions interoperate.  An unknown type from REQUIRED on is
a fault.

iosh sends HELLO and START together, then INPUT, EOF and SIZE.  ioshd answers HELLO with HELLO, so that it can send
plain text to a peer that is not iosh; then it sends STARTED or REFUSED, OUTPUT and ERRORS, and last EXIT.  Each stream
has a flow control window of WINDOW bytes; the receiver returns CREDIT as it writes bytes out.  The window of the tunnel
is far larger: with it alone, megabytes of `yes` would follow a ^C, and a SIZE would wait behind a paste.  Neither side
buffers more than one window per stream.

A suspended link looks like a silent program, so iosh may send PING, if ioshd has the feature ANSWERS, and gets PONG.
ioshd omits PONG while other frames wait to be written, as they show the same.

Pure: no descriptor and no clock.  Any violation raises WireError in `ShellDecoder.feed`.
"""

from __future__ import annotations

import struct

from ...errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAGIC = b"iosh"
VERSION = 1
MAX_FRAME = 16384  # bytes of payload; a keystroke waits for one frame at most
WINDOW = 65536  # bytes in flight for each stream: the most that follows a ^C
MAX_WORDS = 256  # of the command line
MAX_ENV = 32  # variables; TERM and those of the locale are a dozen
MAX_SIDE = 4096  # rows or columns: no screen has more, and programs allocate rows x columns

HELLO, START, INPUT, EOF, SIZE, STARTED, REFUSED, OUTPUT, ERRORS, EXIT, CREDIT, PING, PONG = range(1, 14)
KNOWN = frozenset(range(HELLO, PONG + 1))
REQUIRED = 0x80  # types from here on may not be skipped
PTY = 1  # flag of START: on a terminal
ANSWERS = 1  # feature in ioshd's HELLO: it answers PING with PONG

_HEAD = struct.Struct(">BH")
_HELLO = struct.Struct(">4sBI")
_START = struct.Struct(">BHHHH")  # flags, rows, columns, words, variables
_SIZE = struct.Struct(">HH")
_EXIT = struct.Struct(">BB")
_CREDIT = struct.Struct(">BI")


def encode_frame(kind: int, payload: bytes = b"") -> bytes:
    """One frame.  ValueError: more than MAX_FRAME bytes."""
    if len(payload) > MAX_FRAME:
        raise ValueError(f"a frame of {len(payload)} bytes is longer than {MAX_FRAME}")
    return _HEAD.pack(kind, len(payload)) + payload


def encode_hello(features: int = 0, version: int = VERSION) -> bytes:
    return encode_frame(HELLO, _HELLO.pack(MAGIC, version, features))


def decode_hello(payload: bytes) -> tuple[int, int]:
    """The common version, the lower of both, and the features of the peer.  Further bytes belong to later versions."""
    if len(payload) < _HELLO.size:
        raise WireError("truncated HELLO")
    magic, version, features = _HELLO.unpack_from(payload)
    if magic != MAGIC or not version:
        raise WireError("the other side does not speak iosh")
    return min(version, VERSION), features


def encode_start(words: Sequence[bytes], env: Mapping[bytes, bytes], size: tuple[int, int] | None) -> bytes:
    """Run `words` (none: the login shell) with `env` added; `size` is (rows, columns) of a terminal, None for pipes.

    ValueError: too many or too long, a zero byte, or "=" in a name.
    """
    parts = [*words, *(name + b"=" + value for name, value in env.items())]
    if len(words) > MAX_WORDS or len(env) > MAX_ENV:
        raise ValueError(f"more than {MAX_WORDS} words or {MAX_ENV} variables")
    if any(b"\0" in part for part in parts):
        raise ValueError("a zero byte in a word or variable")
    if any(not name or b"=" in name for name in env):
        raise ValueError("a variable's name is empty or has a = in it")
    rows, columns = clamp(*size) if size else (0, 0)
    payload = _START.pack(PTY if size else 0, rows, columns, len(words), len(env))
    payload += b"".join(part + b"\0" for part in parts)
    if len(payload) > MAX_FRAME:
        raise ValueError(f"more than {MAX_FRAME >> 10} KiB of words and variables")
    return encode_frame(START, payload)


def fit_env(words: Sequence[bytes], env: Mapping[bytes, bytes]) -> tuple[dict[bytes, bytes], list[bytes]]:
    """The first variables of `env` that fit into a START beside `words`, and the names of those left out."""
    room = MAX_FRAME - _START.size - sum(len(word) + 1 for word in words)
    kept: dict[bytes, bytes] = {}
    for name, value in env.items():
        size = len(name) + len(value) + 2
        if size <= room and len(kept) < MAX_ENV:
            kept[name] = value
            room -= size
    return kept, [name for name in env if name not in kept]


def decode_start(payload: bytes) -> tuple[list[bytes], dict[bytes, bytes], tuple[int, int] | None]:
    """The arguments of `encode_start`."""
    if len(payload) < _START.size:
        raise WireError("truncated START")
    flags, rows, columns, words, variables = _START.unpack_from(payload)
    parts = payload[_START.size :].split(b"\0")
    if words > MAX_WORDS or variables > MAX_ENV or len(parts) != words + variables + 1 or parts.pop():
        raise WireError("START with a wrong number of words")
    env: dict[bytes, bytes] = {}
    for part in parts[words:]:
        name, equals, value = part.partition(b"=")
        if not name or not equals:
            raise WireError("START with a variable that has no name or no value")
        env[name] = value
    return parts[:words], env, clamp(rows, columns) if flags & PTY else None


def clamp(rows: int, columns: int) -> tuple[int, int]:
    """A size within bounds; 0 means unknown and stays."""
    return max(0, min(rows, MAX_SIDE)), max(0, min(columns, MAX_SIDE))


def encode_size(rows: int, columns: int) -> bytes:
    return encode_frame(SIZE, _SIZE.pack(*clamp(rows, columns)))


def decode_size(payload: bytes) -> tuple[int, int]:
    return clamp(*_exact(_SIZE, payload, "SIZE"))


def encode_refused(status: int, text: str) -> bytes:
    """Nothing was started: the exit status of a shell in that case, and the reason."""
    return encode_frame(REFUSED, bytes((status,)) + text.encode("utf-8", "replace")[: MAX_FRAME - 1])


def decode_refused(payload: bytes) -> tuple[int, str]:
    """The status and the reason, with control characters replaced."""
    if not payload:
        raise WireError("REFUSED without a status")
    text = payload[1:].decode("utf-8", "replace")
    return payload[0], "".join(c if c.isprintable() else "?" for c in text)


def encode_exit(status: int, signal: int = 0) -> bytes:
    """How the program ended: by `signal`, or with `status` if that is 0."""
    return encode_frame(EXIT, _EXIT.pack(status, signal))


def decode_exit(payload: bytes) -> tuple[int, int]:
    status, signal = _exact(_EXIT, payload, "EXIT")
    return status, signal


def encode_credit(stream: int, count: int) -> bytes:
    """`count` bytes of `stream` (INPUT, OUTPUT or ERRORS) have been written out."""
    return encode_frame(CREDIT, _CREDIT.pack(stream, count))


def decode_credit(payload: bytes) -> tuple[int, int]:
    stream, count = _exact(_CREDIT, payload, "CREDIT")
    if stream not in (INPUT, OUTPUT, ERRORS) or count > WINDOW:
        raise WireError("CREDIT for an unknown stream, or for more than a window")
    return stream, count


def _exact(layout: struct.Struct, payload: bytes, what: str) -> tuple[int, ...]:
    if len(payload) != layout.size:
        raise WireError(f"{what} of {len(payload)} bytes instead of {layout.size}")
    return layout.unpack(payload)


class ShellDecoder:
    """Decoder of frames from bytes in pieces of any size.  Buffers less than one frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._has_hello = False

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(type, payload) of each frame that is complete now, of known types only; the first is HELLO.

        WireError: not this protocol.  The first bytes are checked before a length is complete.
        """
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _HEAD.size:
                kind, length = _HEAD.unpack_from(self._buffer, at)
                self._check(kind, length)
                end = at + _HEAD.size + length
                if len(self._buffer) < end:
                    return
                payload = bytes(memoryview(self._buffer)[at + _HEAD.size : end])
                at = end
                if kind in KNOWN:
                    yield kind, payload
        finally:
            del self._buffer[:at]

    def _check(self, kind: int, length: int) -> None:
        if not self._has_hello and kind != HELLO:
            raise WireError("the other side does not speak iosh")
        if length > MAX_FRAME:
            raise WireError(f"a frame of {length} bytes; {MAX_FRAME} are allowed")
        if kind not in KNOWN and kind >= REQUIRED:
            raise WireError(f"a frame of type {kind:#04x}, which this version does not know")
        self._has_hello = True

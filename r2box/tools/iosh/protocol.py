"""What iosh and ioshd say to each other through a tunnel: a program's terminal, or its three streams, as frames.

A terminal is more than two streams of bytes: its size changes, its program ends with a status, and standard error is a
stream of its own where there is no terminal.  So each way is a row of frames ``type (1 byte) length (2) payload``, all
numbers big-endian.  Both begin with HELLO: a magic word that no other protocol begins with, the version, and a set of
features; what both have counts, bits that are not known are ignored, and so a later version talks to this one.  A frame
of an unknown type below REQUIRED is skipped for the same reason, one from there on is a fault.

iosh sends START at once behind it, and INPUT, EOF, SIZE as they come.  ioshd greets when it has been greeted, so that
what is no iosh can be told so in plain words; it sends STARTED or REFUSED, OUTPUT and ERRORS, and EXIT as its last.
Each stream has a credit of WINDOW bytes, given back by CREDIT as its bytes are written out at the other end.  The
tunnel below has a window of its own, but a far larger one: with it alone, megabytes of `yes` would still come after ^C,
and a new size would wait behind a paste.  Nobody ever holds more than one window.

A cut link cannot be told from a program that says nothing, so iosh may send PING, if ioshd's HELLO has the feature
ANSWERS, and gets PONG.  ioshd leaves that out while other frames wait to be written, which show the same.

Pure: no descriptor and no clock.  Whatever the other side does wrong is a WireError of `ShellDecoder.feed`.
"""

from __future__ import annotations

import struct

from ...errors import WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAGIC = b"iosh"
VERSION = 1
MAX_FRAME = 16384  # bytes of payload: what is buffered of one frame; a keystroke waits for no more than this
WINDOW = 65536  # bytes under way for each stream: what still comes after ^C
MAX_WORDS = 256  # of the program's command line
MAX_ENV = 32  # variables: TERM and those of the language are a dozen
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
    """The version to speak, which is the lower one of both, and the other side's features.  What follows is later's."""
    if len(payload) < _HELLO.size:
        raise WireError("a greeting that is cut off")
    magic, version, features = _HELLO.unpack_from(payload)
    if magic != MAGIC or not version:
        raise WireError("the other side does not speak iosh")
    return min(version, VERSION), features


def encode_start(words: Sequence[bytes], env: Mapping[bytes, bytes], size: tuple[int, int] | None) -> bytes:
    """Run `words` (none: the login shell) with `env` besides; `size` is (rows, columns) of a terminal, None for pipes.

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
    """What of `env`, in its order, a START has room for beside `words`; and the names of the variables left out."""
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
        raise WireError("a start that is cut off")
    flags, rows, columns, words, variables = _START.unpack_from(payload)
    parts = payload[_START.size :].split(b"\0")
    if words > MAX_WORDS or variables > MAX_ENV or len(parts) != words + variables + 1 or parts.pop():
        raise WireError("a start whose words are not those that it announces")
    env: dict[bytes, bytes] = {}
    for part in parts[words:]:
        name, equals, value = part.partition(b"=")
        if not name or not equals:
            raise WireError("a start with a variable that has no name or no value")
        env[name] = value
    return parts[:words], env, clamp(rows, columns) if flags & PTY else None


def clamp(rows: int, columns: int) -> tuple[int, int]:
    """A size within bounds; 0 says that it is not known, and stays."""
    return max(0, min(rows, MAX_SIDE)), max(0, min(columns, MAX_SIDE))


def encode_size(rows: int, columns: int) -> bytes:
    return encode_frame(SIZE, _SIZE.pack(*clamp(rows, columns)))


def decode_size(payload: bytes) -> tuple[int, int]:
    return clamp(*_exact(_SIZE, payload, "size"))


def encode_refused(status: int, text: str) -> bytes:
    """Nothing was started: the exit status that a shell would have for it, and why."""
    return encode_frame(REFUSED, bytes((status,)) + text.encode("utf-8", "replace")[: MAX_FRAME - 1])


def decode_refused(payload: bytes) -> tuple[int, str]:
    """The text may hold anything that a peer likes, but no control characters."""
    if not payload:
        raise WireError("a refusal without a status")
    text = payload[1:].decode("utf-8", "replace")
    return payload[0], "".join(c if c.isprintable() else "?" for c in text)


def encode_exit(status: int, signal: int = 0) -> bytes:
    """How the program ended: by `signal`, or with `status` if that is 0."""
    return encode_frame(EXIT, _EXIT.pack(status, signal))


def decode_exit(payload: bytes) -> tuple[int, int]:
    status, signal = _exact(_EXIT, payload, "exit")
    return status, signal


def encode_credit(stream: int, count: int) -> bytes:
    """`count` bytes of `stream` (INPUT, OUTPUT or ERRORS) have been written out."""
    return encode_frame(CREDIT, _CREDIT.pack(stream, count))


def decode_credit(payload: bytes) -> tuple[int, int]:
    stream, count = _exact(_CREDIT, payload, "credit")
    if stream not in (INPUT, OUTPUT, ERRORS) or count > WINDOW:
        raise WireError("a credit for no stream, or for more than a window")
    return stream, count


def _exact(layout: struct.Struct, payload: bytes, what: str) -> tuple[int, ...]:
    if len(payload) != layout.size:
        raise WireError(f"a frame of {len(payload)} bytes that is to be of {layout.size}: {what}")
    return layout.unpack(payload)


class ShellDecoder:
    """Bytes as they come, in any pieces, to frames.  Holds less than one frame."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._greeted = False

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(type, payload) of each frame that is complete now, of known types only; the first is HELLO.

        WireError: not this protocol.  What is no iosh is found out from its first bytes, not when a length is through.
        """
        self._kept += data
        at = 0
        try:
            while len(self._kept) - at >= _HEAD.size:
                kind, length = _HEAD.unpack_from(self._kept, at)
                self._check(kind, length)
                end = at + _HEAD.size + length
                if len(self._kept) < end:
                    return
                payload = bytes(memoryview(self._kept)[at + _HEAD.size : end])
                at = end
                if kind in KNOWN:
                    yield kind, payload
        finally:
            del self._kept[:at]

    def _check(self, kind: int, length: int) -> None:
        if not self._greeted and kind != HELLO:
            raise WireError("the other side does not speak iosh")
        if length > MAX_FRAME:
            raise WireError(f"a frame of {length} bytes, where {MAX_FRAME} are allowed")
        if kind not in KNOWN and kind >= REQUIRED:
            raise WireError(f"a frame of type {kind:#04x}, which this version does not know")
        self._greeted = True

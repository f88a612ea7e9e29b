"""Preamble: finds the start of a link in the output of a command, behind text such as "Connected /dev/rfcomm0 to ...".

A link begins with `frames.MAGIC`, or with a valid packet header if the neighbour uses ARQ.
"""

from __future__ import annotations

from ..wire.frames import MAGIC
from .packet import HEADER, SYNC, is_header

MAX_CHATTER = 1 << 12  # bytes of text before a link
_HEAD = 64  # bytes of output that are kept, for an error


class Preamble:
    """To be fed until `rest` is not None, or `is_refused`: no link within MAX_CHATTER bytes.

    `rest` holds the bytes from the start of the link on; `is_packets`: they are packets.  `head` holds the first bytes
    of the output.
    """

    __slots__ = ("_held", "head", "is_packets", "is_refused", "rest", "skipped")

    def __init__(self) -> None:
        self.head = b""
        self.skipped = 0
        self.rest: bytes | None = None
        self.is_packets = self.is_refused = False
        self._held = b""  # the last bytes, if a link may begin there

    def feed(self, data: bytes) -> bytes:
        """Process the next bytes; return the text among them, at most MAX_CHATTER + 1 bytes over all calls."""
        self.head += data[: _HEAD - len(self.head)]
        data = self._held + data
        at = self._find(data)
        text, self._held = data[:at], data[at:]
        text = text[: MAX_CHATTER - self.skipped + 1]
        self.skipped += len(text)
        if self.skipped > MAX_CHATTER:
            self.rest, self.is_refused = None, True
        return text

    def _find(self, data: bytes) -> int:
        """Return the position where a link begins, or may begin; len(data) if there is none."""
        at = 0
        while at < len(data):
            if data.startswith(MAGIC, at):
                self.rest = data[at:]
                return at
            left = data[at : at + HEADER]
            if MAGIC.startswith(left) or (SYNC.startswith(left[: len(SYNC)]) and len(left) < HEADER):
                return at
            if len(left) == HEADER and left.startswith(SYNC) and is_header(left):
                self.rest, self.is_packets = data[at:], True
                return at
            at = min((place for place in (data.find(MAGIC[:1], at + 1), data.find(SYNC[:1], at + 1)) if place >= 0),
                     default=len(data))  # fmt: skip
        return at

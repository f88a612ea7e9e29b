"""Where a link begins in what a command writes: behind messages of its own, such as "Connected /dev/rfcomm0 to ...".

A link begins with `wire.MAGIC`, or with a valid header of a packet where the neighbour repairs losses.
"""

from __future__ import annotations

from ..wire.frames import MAGIC
from .packet import HEADER, SYNC, is_header

MAX_CHATTER = 1 << 12  # bytes of messages: what writes more is not on its way to a link
_HEAD = 64  # bytes of them that are kept, for an error


class Preamble:
    """Feed it until `rest` is there, or `is_refused`: more than MAX_CHATTER bytes and no link among them.

    `rest` are the bytes from the beginning of the link on, of which `is_packets` says whether they are packets; `head`
    are the first bytes of all.
    """

    __slots__ = ("_held", "head", "is_packets", "is_refused", "rest", "skipped")

    def __init__(self) -> None:
        self.head = b""
        self.skipped = 0
        self.rest: bytes | None = None
        self.is_packets = self.is_refused = False
        self._held = b""  # the last bytes, if they may belong to the beginning of a link

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return what is a message and can be shown, at most MAX_CHATTER bytes and one in all."""
        self.head += data[: _HEAD - len(self.head)]
        data = self._held + data
        at = self._find(data)
        said, self._held = data[:at], data[at:]
        said = said[: MAX_CHATTER - self.skipped + 1]
        self.skipped += len(said)
        if self.skipped > MAX_CHATTER:
            self.rest, self.is_refused = None, True
        return said

    def _find(self, data: bytes) -> int:
        """Where in `data` a link begins, or may begin when more has come; len(data): nowhere."""
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

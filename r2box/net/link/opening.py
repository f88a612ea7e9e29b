"""The first bytes of a transport: whether the neighbour sends packets, and what a command writes before its link."""

from __future__ import annotations

from ...proto.arq.packet import SYNC
from ...proto.arq.preamble import Preamble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Opening:
    """Looks at what is read from a transport until the link has begun: then `is_over`.

    in_packets(bytes) is called if the neighbour repairs losses; these bytes, and all that follows, are packets.
    shown(bytes) is called with messages of a command, and must be given for a command only.
    """

    def __init__(self, in_packets: Callable[[bytes], None], shown: Callable[[bytes], None] | None) -> None:
        self.is_over = False
        self._in_packets = in_packets
        self._shown = shown
        self._preamble = Preamble()

    def take(self, data: bytes) -> bytes:
        """What of `data` and of what came before is for the link."""
        if self._shown is None:
            self.is_over = True
            if not SYNC.startswith(data[: len(SYNC)]):
                return data
            self._in_packets(data)
            return b""
        preamble = self._preamble
        message = preamble.feed(data)
        if message:
            self._shown(message)
        if preamble.is_refused:
            return self.end()
        if preamble.rest is None:
            return b""
        self.is_over = True
        if not preamble.is_packets:
            return preamble.rest
        self._in_packets(preamble.rest)
        return b""

    def end(self) -> bytes:
        """There was no beginning: the first bytes, by which the link is refused."""
        self.is_over = True
        return self._preamble.head

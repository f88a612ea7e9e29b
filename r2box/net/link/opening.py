"""The first bytes of a transport: detects ARQ packets, and separates messages of a command from the link."""

from __future__ import annotations

from ...proto.arq.packet import SYNC
from ...proto.arq.preamble import Preamble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Opening:
    """Examines what is read from a transport until the link has begun: then `is_over`.

    in_packets(bytes) is called if the neighbour uses ARQ; these bytes, and all that follow, are packets.
    output(bytes) is called with messages of a command; None if the transport is no command.
    """

    def __init__(self, in_packets: Callable[[bytes], None], output: Callable[[bytes], None] | None) -> None:
        self.is_over = False
        self._in_packets = in_packets
        self._output = output
        self._preamble = Preamble()

    def take(self, data: bytes) -> bytes:
        """Return the bytes for the link, of `data` and of earlier data."""
        if self._output is None:
            self.is_over = True
            if not SYNC.startswith(data[: len(SYNC)]):
                return data
            self._in_packets(data)
            return b""
        preamble = self._preamble
        message = preamble.feed(data)
        if message:
            self._output(message)
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
        """Return the first bytes, for the link to refuse: no link has begun."""
        self.is_over = True
        return self._preamble.head

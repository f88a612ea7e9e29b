"""What every node answers measurements with: the built-in service `r2.bench`.

The first byte that the opener of the tunnel writes chooses what is done with the others:

    ECHO   they are given back
    TAKE   they are taken, and when there are no more, answered with their number (8 bytes, the highest first)
    GIVE   there are none: zeros are given, until the opener ends its direction or reads no more

Anything else ends the tunnel with an Outcome that says so.  A Meter is an end of its tunnel like any other.  It holds
no bytes: what it echoes stays in the stream's inbox until there is credit for it, what it gives is one block for all.
"""

from __future__ import annotations

from ..link.stream import MOST_WINDOW, NOBODY
from ..wire.address import BENCH
from ..wire.outcome import BUSY, FAILED, LOST, REFUSED, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link.stream import Stream
    from ..wire.fields import Buffer

ECHO, TAKE, GIVE = 1, 2, 3
COUNT = 8  # bytes of the answer to TAKE
MAX_METERS = 8  # at once in a node: four measurements, each with a bulk and what is beside it; more would measure
# each other, and nobody's own tunnels should have to share the node with them
_CHOOSING, _ENDING, _OVER = 0, -1, -2  # instead of a choice; our end is passed on, and then the tunnel is over
_ZEROS = memoryview(bytes(1 << 19))  # as much as a stream may send in one turn; never written to, so it takes no memory


class Meters:
    """The measurements of which the node `address` is the far end."""

    __slots__ = ("_address", "_running", "refusal")

    def __init__(self, address: str) -> None:
        self._address = address
        self.refusal = ""  # why there are to be none
        self._running: set[Meter] = set()

    def open(self, stream: Stream) -> None:
        """A neighbour has opened `stream` to r2.bench."""
        if self.refusal:
            stream.close(Outcome(REFUSED, f"{self._address}: {self.refusal}"))
        elif len(self._running) >= MAX_METERS:
            why = f"{MAX_METERS} tunnels to {BENCH} are open already, which is all there may be"
            stream.close(Outcome(BUSY, f"{self._address}: {why}"))
        else:
            self._running.add(Meter(stream, self._address, self._running.discard))

    def end(self, refusal: str) -> None:
        """End them all; there will be no others."""
        self.refusal = refusal
        for meter in list(self._running):
            meter.finish(Outcome(LOST, f"{self._address}: {refusal}"))


class Meter:
    """The far end of one measurement.  `over(self)` is called once."""

    __slots__ = ("_address", "_at_end", "_choice", "_count", "_left", "_over", "_stream")

    def __init__(self, stream: Stream, address: str, over: Callable[[Meter], None]) -> None:
        self._address = address
        self._over = over
        self._stream = stream
        self._choice = _CHOOSING
        self._count = 0  # bytes taken
        self._left = b""  # of the answer to TAKE
        self._at_end = False  # what the opener writes has ended
        stream.far = self
        stream.accept()

    def finish(self, outcome: Outcome) -> None:
        """End the tunnel, if it has not ended."""
        if self._choice != _OVER:
            stream = self._stream
            self.close(outcome)
            stream.close(outcome)

    def _refuse(self, what: str) -> None:
        self.finish(Outcome(FAILED, f"{self._address}: {BENCH}: {what}"))

    # -- what the opener writes ------------------------------------------------------------------------------------

    def readable(self) -> None:
        if self._choice == _CHOOSING:
            first = self._stream.pull(1)
            if first is None:
                return
            if not first or first[0] not in _CHOICES:
                what = f"0x{first[0]:02x}" if first else "an end"
                self._refuse(f"the first byte chooses what is done, and {what} is no choice")
                return
            self._choice = first[0]
        if self._choice in _CHOICES:
            _CHOICES[self._choice](self)

    def _echo(self) -> None:
        self._stream.readable()

    def _take(self) -> None:
        stream = self._stream
        while stream.more():
            pieces = stream.take(MOST_WINDOW)
            self._count += sum(map(len, pieces))
            if not pieces and stream.pull(1) is not None:
                self._left = self._count.to_bytes(COUNT, "big")
                self._at_end = True
                stream.readable()

    def _give(self) -> None:
        said = self._stream.pull(1)
        if said:
            self._refuse("there is nothing to be said while it gives")
            return
        self._at_end = self._at_end or said is not None
        self._stream.readable()

    # -- what the opener reads -------------------------------------------------------------------------------------

    def pull(self, limit: int) -> Buffer | None:
        data: Buffer | None = None
        if self._choice == ECHO:
            data = self._stream.pull(limit)
        elif self._choice == GIVE:
            data = b"" if self._at_end else _ZEROS[:limit]
        elif self._choice == TAKE and self._at_end:
            data, self._left = self._left[:limit], self._left[limit:]
        elif self._choice == _ENDING:
            self.finish(Outcome())
        if data is not None and not len(data):
            self._choice = _ENDING
        return data

    def more(self) -> bool:
        if self._choice == ECHO:
            return self._stream.more()
        return self._choice in (GIVE, _ENDING) or (self._choice == TAKE and self._at_end)

    def stop(self) -> None:
        """The opener reads no more, so there is nothing left to measure."""
        self.finish(Outcome())

    # -- the end ---------------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """We accept; nobody tells us so."""

    def close(self, outcome: Outcome) -> None:
        self._choice = _OVER
        self._stream = NOBODY  # type: ignore[assignment]
        self._over(self)


_CHOICES: dict[int, Callable[[Meter], None]] = {ECHO: Meter._echo, TAKE: Meter._take, GIVE: Meter._give}

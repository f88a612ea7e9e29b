"""The built-in service `r2.bench`, the far end of measurements.

The first byte that the opener writes selects the operation:

    ECHO   send back all further bytes
    TAKE   discard all further bytes; at their end, send their number (8 bytes, network byte order)
    GIVE   send zeros until the opener ends its direction or stops reading

Any other byte fails the tunnel.  A Meter is a `StreamEnd`.  It holds no bytes: those to be echoed stay in the inbox of
the stream until there is credit for them, and the zeros are one block for all.
"""

from __future__ import annotations

from ..link.stream import MAX_WINDOW, NULL_END
from ..wire.address import BENCH
from ..wire.outcome import BUSY, FAILED, LOST, REFUSED, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link.stream import Stream
    from ..wire.fields import Buffer

ECHO, TAKE, GIVE = 1, 2, 3
COUNT = 8  # bytes of the answer to TAKE
MAX_METERS = 8  # at once in a node: four measurements of two tunnels each; more would disturb each other and all else
_CHOOSING, _ENDING, _OVER = 0, -1, -2  # other states: before the first byte; the end was sent; closed
_ZEROS = memoryview(bytes(1 << 19))  # as many as a stream sends in one turn; never written, so they take no memory


class Meters:
    """The meters of the node `address`."""

    __slots__ = ("_address", "_running", "refusal")

    def __init__(self, address: str) -> None:
        self._address = address
        self.refusal = ""  # why new ones are refused
        self._running: set[Meter] = set()

    def open(self, stream: Stream) -> None:
        """A neighbour has opened `stream` to r2.bench."""
        if self.refusal:
            stream.close(Outcome(REFUSED, f"{self._address}: {self.refusal}"))
        elif len(self._running) >= MAX_METERS:
            why = f"{MAX_METERS} tunnels to {BENCH} are open, the maximum"
            stream.close(Outcome(BUSY, f"{self._address}: {why}"))
        else:
            self._running.add(Meter(stream, self._address, self._running.discard))

    def end(self, refusal: str) -> None:
        """End all meters and refuse further ones."""
        self.refusal = refusal
        for meter in list(self._running):
            meter.finish(Outcome(LOST, f"{self._address}: {refusal}"))


class Meter:
    """The far end of one measurement.  `over(self)` is called once, at its end."""

    __slots__ = ("_address", "_at_end", "_choice", "_count", "_left", "_over", "_stream")

    def __init__(self, stream: Stream, address: str, over: Callable[[Meter], None]) -> None:
        self._address = address
        self._over = over
        self._stream = stream
        self._choice = _CHOOSING
        self._count = 0  # bytes discarded by TAKE
        self._left = b""  # the rest of the answer to TAKE
        self._at_end = False  # the opener has ended its direction
        stream.far = self
        stream.accept()

    def finish(self, outcome: Outcome) -> None:
        """Close the tunnel, unless it is closed."""
        if self._choice != _OVER:
            stream = self._stream
            self.close(outcome)
            stream.close(outcome)

    def _refuse(self, what: str) -> None:
        self.finish(Outcome(FAILED, f"{self._address}: {BENCH}: {what}"))

    # -- from the opener -------------------------------------------------------------------------------------------

    def readable(self) -> None:
        if self._choice == _CHOOSING:
            first = self._stream.pull(1)
            if first is None:
                return
            if not first or first[0] not in _CHOICES:
                what = f"0x{first[0]:02x}" if first else "an end"
                self._refuse(f"the first byte selects the operation, and {what} is none")
                return
            self._choice = first[0]
        if self._choice in _CHOICES:
            _CHOICES[self._choice](self)

    def _echo(self) -> None:
        self._stream.readable()

    def _take(self) -> None:
        stream = self._stream
        while stream.more():
            pieces = stream.take(MAX_WINDOW)
            self._count += sum(map(len, pieces))
            if not pieces and stream.pull(1) is not None:
                self._left = self._count.to_bytes(COUNT, "big")
                self._at_end = True
                stream.readable()

    def _give(self) -> None:
        data = self._stream.pull(1)
        if data:
            self._refuse("no data is accepted after GIVE")
            return
        self._at_end = self._at_end or data is not None
        self._stream.readable()

    # -- to the opener ---------------------------------------------------------------------------------------------

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
        """The opener has stopped reading."""
        self.finish(Outcome())

    # -- the end ---------------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Not called: the meter itself accepts."""

    def close(self, outcome: Outcome) -> None:
        self._choice = _OVER
        self._stream = NULL_END  # type: ignore[assignment]
        self._over(self)


_CHOICES: dict[int, Callable[[Meter], None]] = {ECHO: Meter._echo, TAKE: Meter._take, GIVE: Meter._give}

"""A tunnel that is being opened where several ways lead to its target: the next is tried when one fails.

Until the tunnel stands, an Attempt is at the end of the stream in place of its real far end.  Nothing flows before
that, so nothing is lost or comes twice.  What the target itself refuses is refused; only a way that broke, a node on it
that did not know the next, or one that was busy, is a reason to try another.
"""

from __future__ import annotations

from ..errors import RefusedError
from .outcome import BUSY, LOST, UNKNOWN
from .stream import Nobody

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .outcome import Outcome
    from .stream import End, Stream

    Way = Callable[[End], Stream]

AGAIN = (UNKNOWN, LOST, BUSY)  # codes


class Attempt(Nobody):
    """To open a stream by one of `ways`, which raise RefusedError, for `far`.

    `joined(stream)` is called with each stream after the first, which `start` returns.
    """

    def __init__(self, ways: list[Way], far: End, joined: Callable[[Stream], None]) -> None:
        self._ways = ways
        self._far = far
        self._joined = joined
        self._stream: Stream | None = None

    def start(self) -> Stream:
        """Try the ways that are left.  RefusedError, the first there was, if there is none."""
        failure: RefusedError | None = None
        while self._ways:
            try:
                self._stream = self._ways.pop(0)(self)
                return self._stream
            except RefusedError as error:
                failure = failure or error
        raise failure or RefusedError("no way is left")

    @property
    def has_more(self) -> bool:
        return bool(self._ways)

    def accept(self) -> None:
        """It stands; nobody is in between from now on."""
        assert self._stream is not None
        self._stream.far = self._far
        self._far.accept()

    def close(self, outcome: Outcome) -> None:
        if outcome.code in AGAIN and self._ways:
            try:
                self._joined(self.start())
                return
            except RefusedError:
                outcome.text = outcome.text or "no way is left"
        self._far.close(outcome)

"""A tunnel that is being opened where several ways lead to its target: the next is tried when one fails.

Until the tunnel stands, an Attempt is at the end of the stream in place of its real far end.  Nothing flows before
that, so nothing is lost or comes twice.  Another way is tried when one broke, when a node on it did not know the next,
was busy or refused (who it was that refused cannot be told from here, and a program that was refused never ran), and
when whoever has a clock finds that nobody is there (`give_up`).  What the target refuses it refuses on every way.
"""

from __future__ import annotations

from ...errors import RefusedError
from ..link.stream import NullEnd
from ..wire.outcome import BUSY, LOST, REFUSED, UNKNOWN, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link.stream import Stream, StreamEnd
    from .route_table import Route

AGAIN = (UNKNOWN, REFUSED, LOST, BUSY)  # codes
MAX_WAYS = 8  # that are tried: a service may be offered by thousands


class Candidate:
    """`begin(far)` opens a stream for `far`, or raises RefusedError.  `route`: what discovery had put in front."""

    __slots__ = ("begin", "route")

    def __init__(self, begin: Callable[[StreamEnd], Stream], route: Route | None) -> None:
        self.begin = begin
        self.route = route


class Failover(NullEnd):
    """To open a stream by one of `ways`, the best first, for `far`.

    `joined(stream)` is called with each stream after the first, which `start` returns, and `doubt(route)` with what has
    led to a node that does not know the next, or to nobody, where another way led farther: if none does, it is the
    target that does not know what is asked for.
    """

    def __init__(
        self, ways: list[Candidate], far: StreamEnd, joined: Callable[[Stream], None], suspect: Callable[[Route], None]
    ) -> None:
        self._ways = ways[:MAX_WAYS]
        self._far = far
        self._joined = joined
        self._suspect = suspect
        self._stream: Stream | None = None
        self._refusal: Outcome | None = None  # the first there was
        self._lost: list[Route] = []  # that have led to nobody, or to a node that does not know the next
        self.route: Route | None = None  # by which it is tried now

    def start(self) -> Stream:
        """Try the ways that are left.  RefusedError, the first there was, if there is none."""
        failure: RefusedError | None = None
        while self._ways:
            try:
                way = self._ways.pop(0)
                self.route = way.route
                self._stream = way.begin(self)
                return self._stream
            except RefusedError as error:
                failure = failure or error
        raise failure or RefusedError("no way is left")

    @property
    def has_more(self) -> bool:
        """Whether it waits for an answer, and there is another way if none comes."""
        stream = self._stream
        return bool(self._ways) and stream is not None and not (stream.accepted or stream.close_sent)

    def give_up(self) -> None:
        """Nobody answers by the present way: end that, and try the next."""
        if self.has_more and self._stream is not None:
            outcome = Outcome(UNKNOWN, "nobody answers")
            self._stream.close(outcome)
            self.close(outcome)

    def accept(self) -> None:
        """It stands; nobody is in between from now on."""
        assert self._stream is not None
        self._stream.far = self._far
        self._blame()
        self._far.accept()

    def _blame(self) -> None:
        for route in self._lost:
            self._suspect(route)

    def close(self, outcome: Outcome) -> None:
        if outcome.code == UNKNOWN and self.route is not None:
            self._lost.append(self.route)
        if outcome.code == REFUSED:
            self._refusal = self._refusal or outcome
        if outcome.code in AGAIN and self._ways:
            try:
                self._joined(self.start())
                return
            except RefusedError:
                outcome.text = outcome.text or "no way is left"
        if self._refusal is not None:
            self._blame()
        self._far.close(self._refusal or outcome)

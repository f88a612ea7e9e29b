"""Failover: opens a tunnel by the next route when one fails.

Until the tunnel is accepted, a Failover is the far end of its stream.  No data flows before that, so none is lost or
duplicated.  The next route is tried when a link on the route fails, when a node on it does not know the next one, is
busy or refuses (the opener cannot distinguish which node refused; a refused program has not run), and when the caller's
timer expires (`time_out`).  A refusal by the target repeats on every route.
"""

from __future__ import annotations

from ...errors import RefusedError
from ..link.stream import NullStreamEnd
from ..wire.outcome import BUSY, LOST, REFUSED, UNKNOWN, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link.stream import Stream, StreamEnd
    from .route_table import Route

RETRYABLE = (UNKNOWN, REFUSED, LOST, BUSY)  # outcome codes
MAX_ROUTES_TRIED = 8  # thousands of nodes may offer a service


class Candidate:
    """One way to open a tunnel: `begin(far)` opens a stream for `far` or raises RefusedError; `route` is its route."""

    __slots__ = ("begin", "route")

    def __init__(self, begin: Callable[[StreamEnd], Stream], route: Route | None) -> None:
        self.begin = begin
        self.route = route


class Failover(NullStreamEnd):
    """Opens a stream for `far` by one of `candidates`, best first.

    `start` returns the first stream; `joined(stream)` is called with each further one.  `suspect(route)` is called with
    each route that led to a node without the next one, or to no answer, once another route has led farther.  If none
    does, the target does not know the name.
    """

    def __init__(
        self,
        candidates: list[Candidate],
        far: StreamEnd,
        joined: Callable[[Stream], None],
        suspect: Callable[[Route], None],
    ) -> None:
        self._candidates = candidates[:MAX_ROUTES_TRIED]
        self._far = far
        self._joined = joined
        self._suspect = suspect
        self._stream: Stream | None = None
        self._refusal: Outcome | None = None  # the first one
        self._lost: list[Route] = []  # routes that failed with UNKNOWN
        self.route: Route | None = None  # the one that is being tried

    def start(self) -> Stream:
        """Try the remaining routes.  Raise the first RefusedError if all fail."""
        failure: RefusedError | None = None
        while self._candidates:
            try:
                candidate = self._candidates.pop(0)
                self.route = candidate.route
                self._stream = candidate.begin(self)
                return self._stream
            except RefusedError as error:
                failure = failure or error
        raise failure or RefusedError("no route is left")

    @property
    def has_alternative(self) -> bool:
        """Whether it waits for an answer and has another route to try."""
        stream = self._stream
        return bool(self._candidates) and stream is not None and not (stream.accepted or stream.close_sent)

    def time_out(self) -> None:
        """There is no answer by the current route: try the next."""
        if self.has_alternative and self._stream is not None:
            outcome = Outcome(UNKNOWN, "no answer")
            self._stream.close(outcome)
            self.close(outcome)

    def accept(self) -> None:
        """The tunnel is accepted: connect the stream to its real far end."""
        assert self._stream is not None
        self._stream.far = self._far
        self._suspect_failed()
        self._far.accept()

    def _suspect_failed(self) -> None:
        for route in self._lost:
            self._suspect(route)

    def close(self, outcome: Outcome) -> None:
        if outcome.code == UNKNOWN and self.route is not None:
            self._lost.append(self.route)
        if outcome.code == REFUSED:
            self._refusal = self._refusal or outcome
        if outcome.code in RETRYABLE and self._candidates:
            try:
                self._joined(self.start())
                return
            except RefusedError:
                outcome.text = outcome.text or "no route is left"
        if self._refusal is not None:
            self._suspect_failed()
        self._far.close(self._refusal or outcome)

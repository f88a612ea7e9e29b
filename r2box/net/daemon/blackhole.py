"""Black-hole detection: finds routes that are advertised but do not reach their node.

When a tunnel that has alternative routes is not open after `PROBE_TIME`, a probe is sent along its present route to the
node at the end.  If the node answers, the service is slow, and the tunnel waits: a slow service is never started twice.
If an error or no answer comes within `PROBE_TIME`, the next route is tried.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...proto.routing.failover import Failover
    from ...proto.routing.route_table import Route
    from ...proto.routing.router import Router
    from ..io.loop import Loop

PROBE_TIME = 3.0  # seconds until a probe is sent, and until its answer is due


class BlackholeCheck:
    """Checks the routes of `attempt`, a tunnel of `node`, until it is open, or `end` is called."""

    __slots__ = ("_attempt", "_loop", "_node", "_number", "_probed", "_timer")

    def __init__(self, loop: Loop, node: Router, attempt: Failover) -> None:
        self._loop = loop
        self._node = node
        self._attempt = attempt
        self._probed: Route | None = None
        self._number = 0
        self._timer = loop.later(PROBE_TIME, self._probe)

    def end(self) -> None:
        self._timer.cancel()
        self._node.probes.forget(self._number)

    def _probe(self) -> None:
        self._probed = self._attempt.route
        if not self._attempt.has_alternative or self._probed is None:
            return
        self._number = self._node.probes.probe(self._probed.path, self._answered)
        self._timer = self._loop.later(PROBE_TIME, self._expired if self._number else self._probe)

    def _expired(self) -> None:
        self._node.probes.forget(self._number)
        self._answered(False)

    def _answered(self, is_reachable: bool) -> None:
        self._timer.cancel()
        is_present = self._attempt.route is self._probed  # else the tunnel uses another route by now
        if is_present and is_reachable:
            return
        if is_present:
            self._attempt.time_out()
        if self._attempt.has_alternative:
            self._timer = self._loop.later(PROBE_TIME, self._probe)

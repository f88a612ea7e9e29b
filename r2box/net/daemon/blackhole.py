"""A way that leads to nobody: whoever says that it reaches a node may lie, or have lost it and not know yet.

When a tunnel that has other ways does not stand within `DOUBT` seconds, the node at the end of its present way is asked
for a sign of life along that way.  If it answers, the service is only slow, and is waited for: it is never started
twice for being slow.  If nothing comes in as many seconds again, or an error, the next way is tried.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...proto.routing.failover import Failover
    from ...proto.routing.route_table import Route
    from ...proto.routing.router import Router
    from ..io.loop import Loop

DOUBT = 3.0  # seconds


class BlackholeCheck:
    """About `attempt`, a tunnel of `node`, until it stands, or `end` is called."""

    __slots__ = ("_asked", "_attempt", "_loop", "_node", "_number", "_timer")

    def __init__(self, loop: Loop, node: Router, attempt: Failover) -> None:
        self._loop = loop
        self._node = node
        self._attempt = attempt
        self._asked: Route | None = None
        self._number = 0
        self._timer = loop.later(DOUBT, self._ask)

    def end(self) -> None:
        self._timer.cancel()
        self._node.probes.forget(self._number)

    def _ask(self) -> None:
        self._asked = self._attempt.route
        if not self._attempt.has_more or self._asked is None:
            return
        self._number = self._node.probes.ask(self._asked.path, self._answered)
        self._timer = self._loop.later(DOUBT, self._missed if self._number else self._ask)

    def _missed(self) -> None:
        self._node.probes.forget(self._number)
        self._answered(False)

    def _answered(self, is_there: bool) -> None:
        self._timer.cancel()
        is_present = self._attempt.route is self._asked  # else it goes another way by now
        if is_present and is_there:
            return
        if is_present:
            self._attempt.give_up()
        if self._attempt.has_more:
            self._timer = self._loop.later(DOUBT, self._ask)

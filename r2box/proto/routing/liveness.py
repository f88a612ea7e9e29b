"""Liveness probes: PINGs from this node that test whether a node answers at the end of a path."""

from __future__ import annotations

from ..wire import messages
from ..wire.route import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link.link import Link

MAX_PROBES = 256  # outstanding


class LivenessProbes:
    """The outstanding probes of a node with these `links`."""

    def __init__(self, links: dict[str, Link]) -> None:
        self._links = links
        self._open: dict[int, tuple[tuple[str, ...], Callable[[bool], None]]] = {}
        self._last = 0

    def probe(self, path: tuple[str, ...], answered: Callable[[bool], None]) -> int:
        """Probe the node at the explicit `path`.  Return the number of the probe, or 0 if too many are outstanding.

        `answered(whether it answered)` is called once, if an answer or error arrives before `forget`.
        """
        if len(self._open) >= MAX_PROBES:
            return 0
        self._last += 1
        self._open[self._last] = path, answered
        link = self._links.get(path[0])
        if link is not None:
            link.message(Message(path[1:], (), messages.encode_body(messages.PING, self._last)))
        return self._last

    def forget(self, number: int) -> None:
        self._open.pop(number, None)

    def on_answer(self, body: messages.Body, origin: tuple[str, ...]) -> None:
        """Process a PONG of the probed node, or an ERROR of a node on the path, by its `origin`."""
        path, answered = self._open.get(body.id, ((), None))
        if answered is not None and origin == (path if body.kind == messages.PONG else path[: len(origin)]):
            self.forget(body.id)
            answered(body.kind == messages.PONG)

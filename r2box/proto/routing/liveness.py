"""Signs of life that a node itself asks others for: is there anybody at the end of this path?"""

from __future__ import annotations

from ..wire import messages
from ..wire.route import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..link.link import Link

MAX_PROBES = 256  # that are open at once


class LivenessProbes:
    """The open questions of a node with these `links`."""

    def __init__(self, links: dict[str, Link]) -> None:
        self._links = links
        self._open: dict[int, tuple[tuple[str, ...], Callable[[bool], None]]] = {}
        self._last = 0

    def ask(self, path: tuple[str, ...], answered: Callable[[bool], None]) -> int:
        """Ask the node at `path`, of which every step is spelled.  The number of the question; 0: too many are open.

        answered(whether it is there) is called once, if something comes back before `forget`.
        """
        if len(self._open) >= MAX_PROBES:
            return 0
        self._last += 1
        self._open[self._last] = path, answered
        link = self._links.get(path[0])
        if link is not None:  # what cannot be sent is not answered
            link.message(Message(path[1:], (), messages.encode_body(messages.PING, self._last)))
        return self._last

    def forget(self, number: int) -> None:
        self._open.pop(number, None)

    def heard(self, body: messages.Body, origin: tuple[str, ...]) -> None:
        """PONG or ERROR has come by `origin`: from who was asked, or from one on the way that could not ask it."""
        path, answered = self._open.get(body.id, ((), None))
        if answered is not None and origin == (path if body.kind == messages.PONG else path[: len(origin)]):
            self.forget(body.id)
            answered(body.kind == messages.PONG)

"""One service of a node: what runs it, who may use it, and which tunnels it accepts."""

from __future__ import annotations

from ..wire.frames import STREAM
from ..wire.messages import SINGLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_SERVICES = 4096  # offered at once by one node


class ServiceEntry:
    """A service of this node.  `owner` identifies it to the host."""

    __slots__ = ("allow", "begun", "detail", "mode", "name", "owner", "private", "runs")

    def __init__(
        self, name: str, owner: Any, *, runs: int = SINGLE, allow: tuple[str, ...] = (), detail: str = "",
        private: bool = False, mode: int = STREAM, begun: float = 0.0,
    ) -> None:  # fmt: skip
        self.name = name  # "" for the node's own command
        self.owner = owner
        self.runs = runs  # how a tunnel is given to the server: PROVIDES, SINGLE or APART of `messages`
        self.allow = allow
        self.detail = detail
        self.private = private  # not advertised
        self.mode = mode  # of its tunnels: STREAM or DATAGRAMS
        self.begun = begun  # when it was offered

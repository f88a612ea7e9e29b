"""Policy: what a node advertises to which neighbour, what it accepts and carries, and who may use a service.

Patterns are those of the shell, with `*` and `?`.
"""

from __future__ import annotations

from ..wire.address import CHILD, format_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Policy:
    """The policy of a node, or of one of its links.

    `discover`: take part in discovery.  `advertise`: patterns of the local services to advertise; None: all.
    `transit`: relay tunnels, and so advertise other nodes.  `accept`: patterns of the nodes that a neighbour may
    advertise besides itself; None: all.
    """

    __slots__ = ("accept", "advertise", "discover", "transit")

    def __init__(
        self,
        discover: bool = True,
        advertise: tuple[str, ...] | None = None,
        transit: bool = True,
        accept: tuple[str, ...] | None = None,
    ) -> None:
        self.discover = discover
        self.advertise = advertise
        self.transit = transit
        self.accept = accept

    def within(self, node: Policy) -> Policy:
        """Combine the policy of a link (self) with that of its node."""
        advertise = node.advertise if self.advertise is None else self.advertise
        accept = node.accept if self.accept is None else self.accept
        return Policy(self.discover and node.discover, advertise, self.transit and node.transit, accept)

    @property
    def advertises_network(self) -> bool:
        """Whether other nodes may be advertised."""
        return self.discover and self.transit

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Policy) and all(getattr(self, it) == getattr(other, it) for it in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.discover, self.advertise, self.transit, self.accept))

    def __repr__(self) -> str:
        return f"Policy({self.discover}, {self.advertise}, {self.transit}, {self.accept})"


EVERYTHING = Policy()


def fits(name: str, patterns: Iterable[str] | None) -> bool:
    """Whether `name` matches one of `patterns`, or there are None."""
    if patterns is None:
        return True
    from fnmatch import fnmatchcase  # here: loading it takes as long as most tools

    return any(fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in patterns)


def is_allowed(allow: tuple[str, ...], origin: tuple[str, ...]) -> bool:
    """Whether a tunnel from `origin` (nearest first) may use a service with the patterns `allow`; none: any may.

    Each pattern is a path from this node.  `bob` matches bob and the programs on bob's node; tunnels through bob need
    `bob/*`, or the full path.
    """
    if not allow:
        return True
    nodes = origin[:-1] if origin[-1:] and origin[-1].startswith(CHILD) and len(origin) > 1 else origin
    return fits(format_path(origin), allow) or fits(format_path(nodes), allow)

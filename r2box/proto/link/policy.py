"""What is told to whom, and who may: the rules that an owner of a node sets.

Patterns are the shell's, with `*` and `?`.
"""

from __future__ import annotations

from ..wire.address import CHILD, format_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class Policy:
    """Of a node, or of one link of it.

    `discover`: tell and listen at all.  `advertise`: patterns of the node's own services that are told of; None: all.
    `transit`: carry for others, and so tell of what lies behind.  `accept`: patterns of the nodes that may be heard of
    over a link, beside the neighbour itself; None: all.
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
        """What holds on a link with this policy, of a node with that one."""
        advertise = node.advertise if self.advertise is None else self.advertise
        accept = node.accept if self.accept is None else self.accept
        return Policy(self.discover and node.discover, advertise, self.transit and node.transit, accept)

    @property
    def tells(self) -> bool:
        """Whether there may be told of other nodes."""
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
    from fnmatch import fnmatchcase  # which takes as long to load as most tools altogether

    return any(fnmatchcase(name, pattern.replace("[", "[[]")) for pattern in patterns)


def is_allowed(allow: tuple[str, ...], origin: tuple[str, ...]) -> bool:
    """Whether a tunnel from `origin` (nearest first) may use a service for `allow`.

    Each pattern is a path from here.  `bob` is bob and the programs on bob's node; what comes through bob needs
    `bob/*`, or the whole path.  No pattern: everyone may.
    """
    if not allow:
        return True
    nodes = origin[:-1] if origin[-1:] and origin[-1].startswith(CHILD) and len(origin) > 1 else origin
    return fits(format_path(origin), allow) or fits(format_path(nodes), allow)

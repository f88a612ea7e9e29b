"""Options of r2d and r2-connect that set the policy of a node or of a link."""

from __future__ import annotations

from ..proto.link.policy import Policy
from .command import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .command import Args

DISCOVER = Option(("--no-discover",), "disable discovery", kind="flag")
TRANSIT = Option(("--no-transit",), "do not relay for others or advertise them", kind="flag")
ADVERTISE = Option(("--advertise",), "advertise only services that match PATTERN", "PATTERN", kind="list")
ACCEPT = Option(("--accept",), "accept only routes to nodes that match PATTERN", "PATTERN", kind="list")
OF_NODE = (DISCOVER, TRANSIT, ADVERTISE)
OF_LINK = (*OF_NODE, ACCEPT)


def policy_of(args: Args) -> Policy:
    """The policy that the options in `args` set."""
    accept = args.accept if "accept" in args else ()
    return Policy(not args.no_discover, tuple(args.advertise) or None, not args.no_transit, tuple(accept) or None)

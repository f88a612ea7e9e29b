"""Options of r2d and r2-connect that set the policy of a node or of a link."""

from __future__ import annotations

from ..proto.link.policy import Policy
from .command import Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .command import Args

DISCOVER = Option(("--no-discover",), "tell and hear nothing of the network", kind="flag")
TRANSIT = Option(("--no-transit",), "carry nothing for others, tell of none", kind="flag")
ADVERTISE = Option(("--advertise",), "tell of our services that match PATTERN only", "PATTERN", kind="list")
ACCEPT = Option(("--accept",), "hear of nodes that match PATTERN only", "PATTERN", kind="list")
OF_NODE = (DISCOVER, TRANSIT, ADVERTISE)
OF_LINK = (*OF_NODE, ACCEPT)


def policy_of(args: Args) -> Policy:
    """What the options in `args` say."""
    accept = args.accept if "accept" in args else ()
    return Policy(not args.no_discover, tuple(args.advertise) or None, not args.no_transit, tuple(accept) or None)

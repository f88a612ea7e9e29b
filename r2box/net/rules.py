"""The rules of a link as they are written: in options, in a request to the daemon, and as words of a command line."""

from __future__ import annotations

from ..command import Option
from ..proto.policy import EVERYTHING, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..command import Args
    from ..proto.body import Body

NOTHING = ("",)  # the pattern of no name: an empty list of patterns, where a list of none stands for all

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


def words_of(policy: Policy) -> list[str]:
    """The options that say the same."""
    words = ["--no-discover"] * (not policy.discover) + ["--no-transit"] * (not policy.transit)
    for option, patterns in ((ADVERTISE, policy.advertise), (ACCEPT, policy.accept)):
        if patterns is not None:
            words += [f"{option.flags[0]}={pattern}" for pattern in patterns or NOTHING]
    return words


def fields_of(policy: Policy) -> dict[str, Any]:
    """The same in ATTACH."""

    def patterns(those: tuple[str, ...] | None) -> tuple[bytes, ...]:
        return () if those is None else tuple(pattern.encode() for pattern in those or NOTHING)

    return {
        "silent": int(not policy.discover),
        "still": int(not policy.transit),
        "advertise": patterns(policy.advertise),
        "accept": patterns(policy.accept),
    }


def policy_in(body: Body) -> Policy | None:
    """The inverse; None where nothing is said."""

    def patterns(field: str) -> tuple[str, ...] | None:
        return tuple(pattern.decode("utf-8", "replace") for pattern in body[field]) or None

    policy = Policy(not body["silent"], patterns("advertise"), not body["still"], patterns("accept"))
    return None if policy == EVERYTHING else policy

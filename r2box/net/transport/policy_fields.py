"""Policy of a link as options of a command line and as fields of an ATTACH request."""

from __future__ import annotations

from ...proto.link.policy import EVERYTHING, Policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...proto.wire.messages import Body

NOTHING = ("",)  # a pattern that matches no name: an empty list would mean all names


def words_of(policy: Policy) -> list[str]:
    """The command-line options of `policy`."""
    words = ["--no-discover"] * (not policy.discover) + ["--no-transit"] * (not policy.transit)
    for option, patterns in (("--advertise", policy.advertise), ("--accept", policy.accept)):
        if patterns is not None:
            words += [f"{option}={pattern}" for pattern in patterns or NOTHING]
    return words


def fields_of(policy: Policy) -> dict[str, Any]:
    """The fields of `policy` in ATTACH."""

    def patterns(those: tuple[str, ...] | None) -> tuple[bytes, ...]:
        return () if those is None else tuple(pattern.encode() for pattern in those or NOTHING)

    return {
        "silent": int(not policy.discover),
        "still": int(not policy.transit),
        "advertise": patterns(policy.advertise),
        "accept": patterns(policy.accept),
    }


def policy_in(body: Body) -> Policy | None:
    """The inverse of `fields_of`; None for the default policy."""

    def patterns(field: str) -> tuple[str, ...] | None:
        return tuple(pattern.decode("utf-8", "replace") for pattern in body[field]) or None

    policy = Policy(not body["silent"], patterns("advertise"), not body["still"], patterns("accept"))
    return None if policy == EVERYTHING else policy

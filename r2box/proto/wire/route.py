"""The one rule, and messages that obey it.

    r2 f n0 (RouteTo n1 msg) = f n1 (RoutedFrom n0 msg)

A node that receives `RouteTo n1 msg` from n0 hands n1 `RoutedFrom n0 msg`.  A sender never states n0: the node that
receives supplies it from the link that the bytes came in on, so each step of the trail is vouched for by the node
after it.  `f` is whatever delivers: a link, a program, or a list in a test.

`msg` may itself be a RouteTo, which makes a path, and a RoutedFrom, which makes a trail.  On the wire such a nest is
kept flat, as `Message(path, origin, body)`; `hop` is one application of the rule to the flat form, and
`test_route.py` shows that flattening and routing commute.

The trail is the way back: reversed by nesting, nearest first, `origin` of a received message is the `path` of its
answer.  A path that leads back to the sender (n0 = n1) is a ping that needs no code at the far end.
"""

from __future__ import annotations

from ...errors import RefusedError
from .address import MAX_HOPS, check_address, format_path, parse_path
from .frames import MESSAGE_FIELDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from .fields import Buffer

    T = TypeVar("T")

__all__ = ["MAX_HOPS", "Message", "RouteTo", "RoutedFrom", "check_address", "check_circle", "format_path", "hop",
           "parse_path", "r2"]  # fmt: skip


class RouteTo:
    """A wish: take `msg` on to the neighbour `to`."""

    __slots__ = ("msg", "to")

    def __init__(self, to: str, msg: Any) -> None:
        self.to = to
        self.msg = msg

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RouteTo) and (self.to, self.msg) == (other.to, other.msg)

    def __hash__(self) -> int:
        return hash((self.to, self.msg))

    def __repr__(self) -> str:
        return f"RouteTo({self.to!r}, {self.msg!r})"


class RoutedFrom:
    """A fact: `msg` came in from `origin`."""

    __slots__ = ("msg", "origin")

    def __init__(self, origin: str, msg: Any) -> None:
        self.origin = origin
        self.msg = msg

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RoutedFrom) and (self.origin, self.msg) == (other.origin, other.msg)

    def __hash__(self) -> int:
        return hash((self.origin, self.msg))

    def __repr__(self) -> str:
        return f"RoutedFrom({self.origin!r}, {self.msg!r})"


def r2(f: Callable[[str, RoutedFrom], T], n0: str, routed: RouteTo) -> T:
    """Route one step: what n0 wants taken to n1 is delivered by `f` to n1, as coming from n0."""
    return f(routed.to, RoutedFrom(n0, routed.msg))


class Message:
    """A nest of RouteTo around a nest of RoutedFrom around `body`, kept flat.

    `path` holds the steps still to go, next first; `origin` the steps it came by, nearest first.
    """

    __slots__ = ("body", "origin", "path")

    def __init__(self, path: tuple[str, ...], origin: tuple[str, ...], body: bytes) -> None:
        self.path = path
        self.origin = origin
        self.body = body

    def nested(self) -> Any:
        """The same as the rule writes it: RouteTo p0 (RouteTo p1 … (RoutedFrom o0 (RoutedFrom o1 … body)))."""
        nest: RouteTo | RoutedFrom | bytes = self.body
        for address in reversed(self.origin):
            nest = RoutedFrom(address, nest)
        for address in reversed(self.path):
            nest = RouteTo(address, nest)
        return nest

    def came_from(self, n0: str) -> Message:
        """The message as its receiver sees it: n0 put in front of the trail."""
        return Message(self.path, (n0, *self.origin), self.body)

    def __repr__(self) -> str:
        return f"Message({format_path(self.path)!r}, {format_path(self.origin)!r}, {self.body!r})"


def hop(n0: str, message: Message) -> tuple[str, Message]:
    """One step for a flat message that came from n0: who gets it (the head of its path), and as what."""

    def deliver(n1: str, routed: RoutedFrom) -> tuple[str, Message]:
        rest: Message = routed.msg
        return n1, rest.came_from(routed.origin)

    return r2(deliver, n0, RouteTo(message.path[0], Message(message.path[1:], message.origin, message.body)))


def check_circle(me: str, path: tuple[str, ...], origin: tuple[str, ...], spare: int = 0) -> None:
    """RefusedError if `path` leads to nodes that it has been to, more than `spare` times.

    Each turn of a circle would be work that nothing pays for.  A message may turn back once, as its answer does: a ping
    of oneself.
    """
    seen: set[str] = set()
    for step in (*origin, me, *path[path[:1] == (me,) :]):
        if "/" not in step and step in seen:
            spare -= 1
            if spare < 0:
                raise RefusedError(f"{me}: the path leads in a circle: {step} is on it already")
        seen.add(step)


def encode_message(message: Message, descriptors: int = 0) -> bytes:
    """The payload of a MESSAGE frame; `descriptors` travel beside it (UNIX sockets only)."""
    return MESSAGE_FIELDS.encode(
        path=message.path, origin=message.origin, body=message.body, descriptors=descriptors
    )


def decode_message(payload: Buffer) -> tuple[Message, int]:
    """The message in a MESSAGE frame and the number of descriptors that belong to it; WireError if it is none."""
    fields = MESSAGE_FIELDS.decode(payload)
    return Message(fields["path"], fields["origin"], fields["body"]), fields["descriptors"]

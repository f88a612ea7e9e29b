"""The routing rule of the protocol, and messages, which it routes.

    r2 f n0 (RouteTo n1 msg) = f n1 (RoutedFrom n0 msg)

A node that receives `RouteTo n1 msg` from n0 delivers `RoutedFrom n0 msg` to n1.  The sender does not state n0: the
receiver takes it from the link that delivered the bytes, so each step of an origin is vouched for by the node after it.
`f` is the delivery function: a link, a program, or a list in a test.

`msg` may be another RouteTo, which makes a path, or a RoutedFrom, which makes an origin.  The wire form of such a nest
is flat: `Message(path, origin, body)`.  `hop` applies the rule once to the flat form; a test proves that
flattening and routing commute.

The origin is the return path: it lists the steps nearest first, so the `origin` of a request is the `path` of its
answer.  A path back to the sender (n0 = n1) is a ping that needs no code at the far end.
"""

from __future__ import annotations

from ...errors import RefusedError
from .address import format_path
from .frames import MESSAGE_FIELDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from .fields import Buffer

    T = TypeVar("T")



class RouteTo:
    """A request to route `msg` to the neighbour `to`."""

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
    """The fact that `msg` was received from `origin`."""

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
    """Route one step: `f` delivers what n0 sent to n1, as received from n0."""
    return f(routed.to, RoutedFrom(n0, routed.msg))


class Message:
    """The flat form of a nest of RouteTo around a nest of RoutedFrom around `body`.

    `path` holds the remaining steps, next first; `origin` the steps behind it, nearest first.
    """

    __slots__ = ("body", "origin", "path")

    def __init__(self, path: tuple[str, ...], origin: tuple[str, ...], body: bytes) -> None:
        self.path = path
        self.origin = origin
        self.body = body

    def nested(self) -> Any:
        """Return the nested form: RouteTo p0 (RouteTo p1 … (RoutedFrom o0 (RoutedFrom o1 … body)))."""
        nest: RouteTo | RoutedFrom | bytes = self.body
        for address in reversed(self.origin):
            nest = RoutedFrom(address, nest)
        for address in reversed(self.path):
            nest = RouteTo(address, nest)
        return nest

    def received_from(self, n0: str) -> Message:
        """Return the message as its receiver sees it: with n0 in front of the origin."""
        return Message(self.path, (n0, *self.origin), self.body)

    def __repr__(self) -> str:
        return f"Message({format_path(self.path)!r}, {format_path(self.origin)!r}, {self.body!r})"


def hop(n0: str, message: Message) -> tuple[str, Message]:
    """Apply the rule to a flat message from n0; return the recipient (the head of its path) and what it receives."""

    def deliver(n1: str, routed: RoutedFrom) -> tuple[str, Message]:
        rest: Message = routed.msg
        return n1, rest.received_from(routed.origin)

    return r2(deliver, n0, RouteTo(message.path[0], Message(message.path[1:], message.origin, message.body)))


def check_loop(me: str, path: tuple[str, ...], origin: tuple[str, ...], spare: int = 0) -> None:
    """Refuse a path that visits nodes again, more than `spare` times: it would multiply work.  RefusedError.

    A message may return once, as its answer does: a node can ping itself.
    """
    seen: set[str] = set()
    for step in (*origin, me, *path[path[:1] == (me,) :]):
        if "/" not in step and step in seen:
            spare -= 1
            if spare < 0:
                raise RefusedError(f"{me}: the path leads in a circle: {step} is on it already")
        seen.add(step)


def encode_message(message: Message, descriptors: int = 0) -> bytes:
    """Encode the payload of a MESSAGE frame; `descriptors` is the number that accompany it (UNIX sockets only)."""
    return MESSAGE_FIELDS.encode(
        path=message.path, origin=message.origin, body=message.body, descriptors=descriptors
    )


def decode_message(payload: Buffer) -> tuple[Message, int]:
    """Decode a MESSAGE frame: the message, and the number of its descriptors.  WireError if it is malformed."""
    fields = MESSAGE_FIELDS.decode(payload)
    return Message(fields["path"], fields["origin"], fields["body"]), fields["descriptors"]

"""The one rule, its nesting, and the names that it is applied to."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from r2box.errors import AddressError, WireError
from r2box.proto.wire.address import MAX_ADDRESS, MAX_HOPS, check_address, format_path, join_targets, parse_path
from r2box.proto.wire.fields import encode_varint
from r2box.proto.wire.route import Message, RoutedFrom, RouteTo, decode_message, encode_message, hop, r2

LETTERS = "abcXYZ019._:+-"
names = st.text(LETTERS, min_size=1, max_size=MAX_ADDRESS).filter(
    lambda name: name[0] != "-" and name not in (".", "..")
)
steps = st.one_of(names, names.map("service/{}".format), names.map("child/{}".format))
paths = st.lists(steps, max_size=MAX_HOPS).map(tuple)
short_paths = st.lists(steps, max_size=6).map(tuple)
messages = st.builds(Message, short_paths, short_paths, st.binary(max_size=50))


def deliver(n1: str, msg: Any) -> tuple[str, Any]:
    """The plainest `f`: who got what."""
    return n1, msg


def same(a: Message, b: Message) -> bool:
    return (a.path, a.origin, a.body) == (b.path, b.origin, b.body)


# -- the equation ------------------------------------------------------------------------------------------------------


@given(names, names, st.binary())
def test_the_equation(n0: str, n1: str, msg: bytes) -> None:
    assert r2(deliver, n0, RouteTo(n1, msg)) == deliver(n1, RoutedFrom(n0, msg))


@given(names, names, st.binary())
def test_the_equation_for_any_f(n0: str, n1: str, msg: bytes) -> None:
    """`f` is called once, with exactly these, and what it returns comes back."""
    calls: list[tuple[str, RoutedFrom]] = []

    def f(to: str, what: RoutedFrom) -> object:
        calls.append((to, what))
        return calls

    assert r2(f, n0, RouteTo(n1, msg)) is calls
    assert calls == [(n1, RoutedFrom(n0, msg))]


@given(names, st.binary())
def test_ping_is_the_rule_with_n0_equal_to_n1(n0: str, msg: bytes) -> None:
    assert r2(deliver, n0, RouteTo(n0, msg)) == (n0, RoutedFrom(n0, msg))


# -- nesting -----------------------------------------------------------------------------------------------------------


def route_nested(n0: str, nest: RouteTo) -> tuple[str, Any]:
    """One step for a nest.

    What is routed on is a wish that comes from somebody: RoutedFrom n0 (RouteTo n2 m).  To apply the rule again, the
    wish has to come out: RouteTo n2 (RoutedFrom n0 m).  Both say the same, as neither asks what the other one holds.
    """

    def f(n1: str, routed: RoutedFrom) -> tuple[str, Any]:
        return n1, pull_out(routed)

    return r2(f, n0, nest)


def pull_out(routed: RoutedFrom) -> Any:
    wishes: list[str] = []
    inner = routed.msg
    while isinstance(inner, RouteTo):
        wishes.append(inner.to)
        inner = inner.msg
    nest: Any = RoutedFrom(routed.origin, inner)
    for to in reversed(wishes):
        nest = RouteTo(to, nest)
    return nest


@given(names, messages.filter(lambda message: message.path))
def test_flattening_commutes_with_routing(n0: str, message: Message) -> None:
    to, flat = hop(n0, message)
    assert route_nested(n0, message.nested()) == (to, flat.nested())


@given(names, st.lists(names, min_size=1, max_size=8), st.binary(max_size=20))
def test_a_whole_path(start: str, path: list[str], body: bytes) -> None:
    """Composed along a path, both forms arrive at its end, with the trail that leads back."""
    at, flat = start, Message(tuple(path), (), body)
    nested: Any = flat.nested()
    for _ in path:
        came_from = at
        at, flat = hop(came_from, flat)
        assert (at, flat.nested()) == route_nested(came_from, nested)
        nested = flat.nested()
    assert at == path[-1]
    assert flat.path == ()
    assert flat.origin == tuple(reversed([start, *path[:-1]]))


@given(names, st.lists(names, min_size=1, max_size=8), st.binary(max_size=20))
def test_the_origin_is_the_path_of_the_answer(start: str, path: list[str], body: bytes) -> None:
    at, message = start, Message(tuple(path), (), body)
    for _ in path:
        at, message = hop(at, message)
    answer = Message(message.origin, (), b"answer")
    for _ in path:
        at, answer = hop(at, answer)
    assert at == start
    assert answer.path == ()
    assert answer.origin == tuple(path)  # and the trail of the answer is the path of the question


@given(names, messages.filter(lambda message: message.path))
def test_a_sender_cannot_state_who_it_is(n0: str, message: Message) -> None:
    """Whatever origin a message claims, the one who sent it stands in front of that."""
    _, onward = hop(n0, message)
    assert onward.origin == (n0, *message.origin)
    assert onward.received_from("next").origin == ("next", n0, *message.origin)


def test_nests_compare_by_value() -> None:
    assert RouteTo("a", RoutedFrom("b", b"c")) == RouteTo("a", RoutedFrom("b", b"c"))
    assert RouteTo("a", b"c") != RoutedFrom("a", b"c")
    assert len({RouteTo("a", b"c"), RouteTo("a", b"c"), RoutedFrom("a", b"c")}) == 2
    assert repr(RouteTo("a", RoutedFrom("b", b"c"))) == "RouteTo('a', RoutedFrom('b', b'c'))"


@given(messages, st.integers(0, 16))
def test_messages_as_bytes(message: Message, descriptors: int) -> None:
    decoded, count = decode_message(encode_message(message, descriptors))
    assert same(decoded, message)
    assert count == descriptors


# -- names -------------------------------------------------------------------------------------------------------------


@given(paths)
def test_paths_round_trip(path: tuple[str, ...]) -> None:
    assert parse_path(format_path(path)) == path


@given(short_paths, short_paths)
def test_a_service_has_two_spellings(one: tuple[str, ...], two: tuple[str, ...]) -> None:
    text = "/".join((*one, "service:x", *two))
    assert parse_path(text) == (*one, "service/x", *two)
    with pytest.raises(AddressError, match="reserved"):
        check_address("service:x")


@given(short_paths, short_paths)
def test_targets_are_joined_steps(one: tuple[str, ...], two: tuple[str, ...]) -> None:
    targets = [format_path(part) for part in (one, two) if part]
    assert join_targets(targets) == (*one, *two)


@given(st.text(max_size=30))
@example("a/service:b")
def test_any_text_is_a_path_or_is_refused(text: str) -> None:
    reason = ""
    try:
        assert format_path(parse_path(text)) == re.sub("(^|/)service:", r"\1service/", text)
    except AddressError as error:
        reason = str(error)
    assert "\n" not in reason
    assert "\x1b" not in reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/", "cannot be empty"),
        ("a//b", "cannot be empty"),
        ("a/", "cannot be empty"),
        ("/a", "cannot be empty"),
        ("a b", "' ' is not a letter"),
        ("a\n", "is not a letter"),
        ("\x1b[2J", "is not a letter"),
        ("ä", "'ä' is not a letter"),
        ("a" * 65, "has 65 characters; at most 64"),
        ("service", "must follow"),
        ("a/child", "must follow"),
        ("service/service", "reserved"),
        ("service/", "cannot be empty"),
        ("service:", "cannot be empty"),
        ("service:service:x", "reserved"),
        ("a/service/service:x", "reserved"),
        ("/".join("a" * 33), "more than 32 steps"),
        ("a" * 1_000_000, "at most 64"),
    ],
)
def test_what_is_no_path(text: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason) as caught:
        parse_path(text)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("name", [
    "service", "child", "any", "a/b", "", " ", "-", "-oProxyCommand=id", "a" * 65, ".", "..", "PATH=x", "root@host",
])
def test_what_is_no_address(name: str) -> None:
    with pytest.raises(AddressError):
        check_address(name)


@pytest.mark.parametrize("name", ["a", "A.b_c:d+f-h", "::1", "a" * 64, "services", "a-", "0"])
def test_what_is_an_address(name: str) -> None:
    assert check_address(name) == name


def test_at_the_limits() -> None:
    longest = "/".join(["a" * 64] * 32)
    assert len(parse_path(longest)) == 32
    assert parse_path("a/service/b/child/1") == ("a", "service/b", "child/1")
    assert parse_path("") == ()


@pytest.mark.parametrize("text", [b"a//b", b"a b", b"\xff", b"service", b"/".join([b"a"] * 33)])
def test_a_path_from_the_wire_that_is_none(text: bytes) -> None:
    field = partial(b"".join, [b"\x01", encode_varint(len(text)), text])
    with pytest.raises(WireError, match="an invalid path"):
        decode_message(field())

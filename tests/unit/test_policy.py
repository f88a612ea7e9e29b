"""Patterns: which origins a service lets in."""

from __future__ import annotations

import pytest

from r2box.proto.link.policy import is_allowed
from r2box.proto.wire.address import parse_path

# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "may", "may_not"),
    [
        ("bob", ["bob", "bob/child/7"], ["bobby", "bob/carl", "bob/carl/child/1", "carl/bob"]),
        ("bob/*", ["bob/carl", "bob/carl/child/1", "bob/child/7"], ["bob", "carl/bob"]),
        ("bob/carl", ["bob/carl", "bob/carl/child/1"], ["bob/carl/dora", "carl"]),
        ("b?b", ["bob", "bib/child/2"], ["bob/carl"]),
        ("*", ["bob", "bob/carl/child/1"], []),
        ("child/*", ["child/1"], ["bob/child/1"]),
    ],
)
def test_whom_a_pattern_lets_in(pattern: str, may: list[str], may_not: list[str]) -> None:
    for origin in (*may, *may_not):
        assert is_allowed((pattern,), parse_path(origin)) == (origin in may), origin

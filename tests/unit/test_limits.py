"""The limits of a node: how much of each is used, and how they are changed."""

from __future__ import annotations

import pytest

from r2box import Node
from r2box.net.io.units import parse_size
from r2box.proto.limits import TABLE, Limits


def test_changes_hold_at_once_and_the_defaults_come_back() -> None:
    limits = Limits({"links": 5})
    assert limits["links"] == 5
    limits.change({"memory": 64 << 20})
    assert limits == {**{name: row.default for name, row in TABLE.items()}, "memory": 64 << 20}
    for name, value in (("lnks", 1), ("links", 0), ("links", 1 << 21), ("memory", 1 << 19)):
        with pytest.raises(ValueError, match=f"^{name}: "):
            limits.change({"opens": 1, name: value})
    assert limits["opens"] == TABLE["opens"].default


def test_what_is_measured_counts_for_the_high_water_mark() -> None:
    limits = Limits()
    limits.note("links", 7)
    limits.note("links", 3)
    assert (limits.used("links"), limits.peak["links"]) == (3, 7)
    limits.measures["links"] = lambda: 9
    assert (limits.used("links"), limits.peak["links"]) == (9, 9)


@pytest.mark.parametrize(("text", "size"), [("4096", 4096), ("1KiB", 1024), ("256 MiB", 256 << 20), ("2GiB", 2 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "1MB", "1.5GiB", "-1", "1TiB", "1 2KiB", "\u0661KiB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_the_limits_of_a_node_in_a_program() -> None:
    with pytest.raises(ValueError, match=r"^lnks: unknown limit \(there are pending, "):
        Node("alice", limits={"lnks": 1})
    with pytest.raises(ValueError, match=r"^links: must be from 1 to "):
        Node("alice", limits={"links": 0})

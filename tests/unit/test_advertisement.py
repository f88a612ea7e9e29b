"""Advertisements as bytes: what comes back, what is refused, and noise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2box.errors import WireError
from r2box.proto.wire.address import MAX_ADDRESS
from r2box.proto.wire.advertisement import (
    AGAIN,
    END,
    MAX_ADVERTISED_SERVICES,
    MAX_COST,
    MAX_PATH,
    AdvertisedNode,
    NodeRecord,
    decode_reach,
    pack_reach,
)
from r2box.proto.wire.frames import MAX_REACH

# -- bytes -------------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from([f"n{number}" for number in range(40)]) | st.just("x" * MAX_ADDRESS)
RECORDS = st.builds(
    NodeRecord,
    st.binary(min_size=8, max_size=8),
    st.lists(NAMES, max_size=MAX_ADVERTISED_SERVICES, unique=True).map(lambda names: tuple(sorted(names))),
)
PATHS = st.lists(NAMES, max_size=MAX_PATH).map(tuple)
ENTRIES = st.builds(AdvertisedNode, PATHS, st.integers(0, MAX_COST), st.none() | RECORDS) | st.builds(
    AdvertisedNode, PATHS, st.none(), st.none()
)


@given(st.lists(ENTRIES, max_size=60), st.integers(0, 2**32), st.integers(0, 7))
@settings(max_examples=60)
def test_entries_come_back_as_they_were(entries: list[AdvertisedNode], number: int, flags: int) -> None:
    rest = entries
    while True:
        payload, count = pack_reach(number, flags, rest)
        assert len(payload) <= MAX_REACH
        assert count or not rest, "one always fits"
        reach = decode_reach(payload)
        assert (reach.number, reach.flags, reach.entries) == (number, flags, rest[:count])
        rest = rest[count:]
        if not rest:
            break


@pytest.mark.parametrize(
    "entry",
    [
        AdvertisedNode(("a",) * (MAX_PATH + 1), 0),
        AdvertisedNode(("a",), MAX_COST + 1),
        AdvertisedNode(("a",), 0, NodeRecord(bytes(8), tuple(f"s{at}" for at in range(MAX_ADVERTISED_SERVICES + 1)))),
        AdvertisedNode(("a",), 0, NodeRecord(bytes(7), ())),
        AdvertisedNode(("a",), 0, NodeRecord(bytes(8), ("service/x",))),
        AdvertisedNode(("service/x",), 0),
        AdvertisedNode(("a b",), 0),
    ],
)
def test_what_is_too_much_is_refused(entry: AdvertisedNode) -> None:
    with pytest.raises(WireError):
        decode_reach(pack_reach(0, 0, [entry])[0])


@given(st.binary(max_size=200))
@settings(max_examples=150)
def test_any_bytes_are_refused_or_understood(data: bytes) -> None:
    try:
        reach = decode_reach(data)
    except WireError:
        return
    assert all(len(entry.path) <= MAX_PATH for entry in reach.entries)


@given(st.lists(ENTRIES, min_size=1, max_size=8), st.data())
@settings(max_examples=100)
def test_spoilt_frames_are_refused_or_understood(entries: list[AdvertisedNode], data: st.DataObject) -> None:
    payload, _ = pack_reach(1, AGAIN | END, entries)
    at = data.draw(st.integers(0, len(payload) - 1))
    spoilt = payload[:at] + bytes((data.draw(st.integers(0, 255)),)) + payload[at + data.draw(st.integers(1, 4)) :]
    try:
        reach = decode_reach(spoilt)
    except WireError:
        return
    assert all(len(entry.path) <= MAX_PATH for entry in reach.entries)

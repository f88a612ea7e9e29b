"""Datagrams in a stream of bytes: what goes in comes out whole, or not at all."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from r2box.errors import WireError
from r2box.net.transport.transport import parse_transport
from r2box.proto.wire.datagrams import MAX_DATAGRAM, DatagramSplitter, frame

PAGE = Path(__file__).resolve().parents[2] / "man" / "r2-protocol.7"


def some(random: Random, number: int) -> list[bytes]:
    sizes = [random.choice((0, 1, random.randrange(100), random.randrange(2000), MAX_DATAGRAM)) for _ in range(number)]
    return [random.randbytes(size) for size in sizes]


def cut(datagrams: list[bytes]) -> bytes:
    return b"".join(map(frame, datagrams))


# -- the arithmetic -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(50))
def test_any_datagrams_in_any_pieces(seed: int) -> None:
    random = Random(seed)
    datagrams = some(random, 20)
    data, cutter, found = cut(datagrams), DatagramSplitter(), []
    while data:
        pieces = []
        for _ in range(random.randint(1, 3)):
            size = random.choice((1, 2, 3, random.randint(1, 70000)))
            pieces.append(bytearray(data[:size]))
            data = data[size:]
        found += cutter.feed([piece for piece in pieces if piece])
        for piece in pieces:
            piece[:] = bytes(len(piece))  # the buffer is used for something else
    cutter.end()
    assert [bytes(it) for it in found] == datagrams


def test_an_end_inside_a_datagram_is_an_error() -> None:
    for size in (1, 2, 5):
        cutter = DatagramSplitter()
        assert cutter.feed([frame(b"hello")[:size]]) == []
        with pytest.raises(WireError, match="inside a datagram"):
            cutter.end()


def test_what_is_too_long_is_the_callers_fault() -> None:
    assert len(frame(bytes(MAX_DATAGRAM))) == MAX_DATAGRAM + 2
    with pytest.raises(ValueError, match="at most 65535"):
        frame(bytes(MAX_DATAGRAM + 1))


def test_the_vectors_of_the_page() -> None:
    part = PAGE.read_text().partition(".Ss Datagrams in a stream")[2].partition(".Ss")[0]
    rows = re.findall(r"^DATAGRAMS (.*)\n((?:    [0-9a-f ]+\n)+)", part, re.MULTILINE)
    assert len(rows) >= 2
    for said, data in rows:
        datagrams = [bytes.fromhex(word) for word in said.split(",")]
        assert cut(datagrams) == bytes.fromhex(data)


@pytest.mark.parametrize(
    ("text", "implies_datagrams"),
    [
        ("tun://r20", True), ("tap://", True), ("udp://[::1]:53", True), ("udp-listen://:53", True),
        ("socat tun,iff-up,device-name=r20 -", True), ("socat - TUN:10.0.0.1/24,up", True),
        ("sudo socat tun,iff-up -", True), ("ssh host 'socat tun -'", True),
        ("socat - udp:h:1", False), ("echo tun", False), ("socat - exec:tun", False), ("tcp://h:1", False),
    ],
)  # fmt: skip
def test_what_is_of_datagrams_without_a_word(text: str, implies_datagrams: bool) -> None:
    assert parse_transport(text).implies_datagrams is implies_datagrams

"""Packets: exact bytes, the way there and back, in slices, in noise, cut off and changed."""

from __future__ import annotations

from pathlib import Path
from random import Random
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2box.errors import WireError
from r2box.proto.arq import packet as p
from r2box.proto.wire import frames
from support.frames import slices

ME, YOU = 0x01020304, 0xA0B0C0D0
DATA_VECTOR = "c19e 100d 01020304 a0b0c0d0 82ea 00000007 00000100 68656c6c6f f5e69ea5"
ACK_VECTOR = "c19e 2012 01020304 a0b0c0d0 e4db 00000009 0001e848 007d 1000 00000105 0305 ddf75b64"

Found = list[tuple[int, int, int, bytes]]


def encoder(receiver: int = YOU) -> p.PacketEncoder:
    encoder = p.PacketEncoder(ME)
    encoder.receiver = receiver
    return encoder


def scan(*pieces: bytes) -> tuple[Found, p.PacketScanner]:
    scanner = p.PacketScanner()
    found = [(kind, a, b, bytes(body)) for piece in pieces for kind, a, b, body in scanner.feed(piece)]
    return found, scanner


def some_packets(random: Random, count: int = 8) -> list[bytes]:
    packets = []
    for number in range(count):
        if random.random() < 0.3:
            packets.append(encoder().ack(number, 1.0, 0.001, 1 << 22, 77, random.randbytes(random.randint(0, 40))))
        else:
            size = random.choice([1, 5, 100, p.MAX_MTU - p.DATA_OVERHEAD])
            packets.append(encoder().data(number, 1000 * number, random.randbytes(size)))
    return packets


def test_the_marker() -> None:
    assert len(p.SYNC) == 2
    assert p.SYNC[0] >= 0x80
    assert p.SYNC[0] not in (*frames.MAGIC, 0x00, 0xFF, 0xAA, 0x55)
    with pytest.raises(UnicodeDecodeError):
        p.SYNC.decode()


def test_data_vector() -> None:
    assert encoder().data(7, 256, b"hello") == bytes.fromhex(DATA_VECTOR)


def test_ack_vector() -> None:
    packet = encoder().ack(9, 1.0, 0.001, 1 << 22, 261, b"\x03\x05")
    assert packet == bytes.fromhex(ACK_VECTOR)
    [(kind, _, _, body)] = scan(packet)[0]
    tx, clock, delay, window, offset, bits = p.decode_ack(memoryview(body))
    assert (kind, tx, clock, window, offset, bits) == (p.ACK, 9, 125_000, 1 << 22, 261, 0x0503)
    assert delay == pytest.approx(0.001)


def test_sizes() -> None:
    assert len(encoder().data(0, 0, b"")) == p.DATA_OVERHEAD == 26
    assert len(encoder().ack(0, 0.0, 0.0, 0, 0, b"")) == p.ACK_OVERHEAD
    assert p.MIN_MTU > 2 * p.DATA_OVERHEAD
    assert p.ACK_OVERHEAD < p.MIN_MTU


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.binary(max_size=p.MAX_MTU - p.DATA_OVERHEAD))
def test_data_there_and_back(tx: int, offset: int, payload: bytes) -> None:
    packet = encoder().data(tx, offset, payload)
    assert crc32(packet) == p.RESIDUE
    found, scanner = scan(packet)
    [(kind, sender, receiver, body)] = found
    low_tx, low_offset, got = p.decode_data(memoryview(body))
    assert (kind, sender, receiver, bytes(got)) == (p.DATA, ME, YOU, payload)
    assert p.unwrap(low_tx, max(tx - 1000, 0)) == tx
    assert p.unwrap(low_offset, offset + 4096) == offset
    assert (scanner.noise, scanner.bad) == (0, 0)


@given(st.integers(0, 1 << 48), st.integers(-(1 << 31) + 1, (1 << 31) - 1))
def test_unwrap(near: int, away: int) -> None:
    assert p.unwrap((near + away) & 0xFFFFFFFF, near) == near + away


def test_the_receiver_may_change() -> None:
    one = p.PacketEncoder(ME)
    assert scan(one.data(0, 0, b"x"))[0][0][2] == 0
    one.receiver = YOU
    assert scan(one.data(0, 0, b"x"))[0][0][2] == YOU


def test_an_ack_says_no_more_than_it_can() -> None:
    body = scan(encoder().ack(1 << 33, 1e9, 99.0, 1 << 40, 1 << 35, b""))[0][0][3]
    tx, _, delay, window, offset, bits = p.decode_ack(memoryview(body))
    assert (tx, window, offset, bits) == (0, 0xFFFF * p.WINDOW_UNIT, 0, 0)
    assert delay == pytest.approx(0.524, abs=0.001)


@pytest.mark.parametrize("decode", [p.decode_data, p.decode_ack])
def test_a_body_that_is_too_short(decode: object) -> None:
    with pytest.raises(WireError):
        decode(memoryview(b"1234567"))  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(20))
def test_slices_of_any_size_give_the_same(seed: int) -> None:
    random = Random(seed)
    parts = []
    for packet in some_packets(random):
        noise = bytearray(random.randbytes(random.randint(0, 60)))
        if random.random() < 0.5:
            noise += p.SYNC * random.randint(1, 3) + packet[: random.randint(0, len(packet) - 1)]
        parts += [bytes(noise), packet]
    whole = b"".join(parts) + bytes(p.MAX_MTU)
    found, scanner = scan(whole)
    for most in (1, 3, 20, 500, 3000):
        again, other = scan(*slices(random, whole, most))
        assert again == found
        assert (other.noise, other.bad) == (scanner.noise, scanner.bad)
    assert scanner.noise == len(whole) - sum(len(body) + p.HEADER + p.TRAILER for *_, body in found)


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(1, 60))
def test_noise_around_is_skipped(before: bytes, after: bytes, size: int) -> None:
    packet = encoder().data(1, 2, b"payload")
    stream = before + packet + after + packet + bytes(p.MAX_MTU)
    found, _ = scan(*[stream[at : at + size] for at in range(0, len(stream), size)])
    assert [body[8:] for *_, body in found] == [b"payload"] * 2


@given(st.integers(0, 40), st.integers(1, 25))
def test_what_is_missing_costs_only_its_own_packet(at: int, count: int) -> None:
    one, two = encoder().data(1, 2, bytes(30)), encoder().data(2, 32, b"the next")
    found, scanner = scan(one[:at] + one[at + count :] + two)
    assert [body[8:] for *_, body in found] == [b"the next"]
    assert scanner.noise == len(one) - min(count, len(one) - at)


@given(st.sets(st.integers(0, 8 * 126 - 1), min_size=1, max_size=3))
def test_a_change_of_up_to_three_bits_is_found(bits: set[int]) -> None:
    packet = bytearray(encoder().data(1, 2, b"x" * 100))
    for bit in bits:
        packet[bit // 8] ^= 1 << bit % 8
    assert not scan(bytes(packet) + bytes(p.MAX_MTU))[0]


@given(st.integers(0, 8 * 126 - 33), st.integers(1, (1 << 32) - 1))
def test_a_burst_of_up_to_32_bits_is_found(at: int, pattern: int) -> None:
    packet = encoder().data(1, 2, b"x" * 100)
    changed = int.from_bytes(packet, "big") ^ pattern << at
    assert not scan(changed.to_bytes(len(packet), "big") + bytes(p.MAX_MTU))[0]


def test_random_bytes_are_no_packets() -> None:
    found, scanner = scan(Random(1).randbytes(1 << 18))
    assert not found
    assert scanner.bad == 0
    assert scanner.noise >= (1 << 18) - 1


def test_noise_cannot_make_it_wait() -> None:
    """A marker and a length alone hold nothing back, nor does a length that no packet has."""
    packet = encoder().data(1, 2, b"payload")
    assert len(scan(p.SYNC + b"\x14\xff" + packet)[0]) == 1
    head = bytearray(encoder().data(1, 2, bytes(100))[: p.HEADER])
    head[2:4] = b"\x1f\xff"
    assert len(scan(bytes(head) + packet)[0]) == 1


def test_many_markers_take_no_longer() -> None:
    """Searching is linear: this would take minutes otherwise."""
    found, scanner = scan(p.SYNC * (1 << 18))
    assert not found
    assert scanner.noise > (1 << 18)


def test_memory_is_bounded() -> None:
    scanner = p.PacketScanner()
    head = encoder().data(1, 2, bytes(p.MAX_MTU - p.DATA_OVERHEAD))[: p.HEADER]
    for _ in range(100):
        scanner.feed(head + bytes(100) + p.SYNC)
        assert len(scanner._held) < p.MAX_MTU + 200


def test_several_in_a_datagram() -> None:
    packets = some_packets(Random(5), 4)
    assert len(scan(b"".join(packets))[0]) == 4


def test_what_opens() -> None:
    opening, other = encoder(0).data(0, 0, b"hello"), encoder().data(0, 0, b"hello")
    assert p.decode_opening(opening) == (0x01020304, b"")
    assert p.decode_opening(b"noise" + other + opening) == (0x01020304, b"")
    assert p.decode_opening(memoryview(bytearray(opening))) == (0x01020304, b"")
    assert p.decode_opening(encoder(0).cookie(b"cake") + opening) == (0x01020304, b"cake")
    for datagram in (b"", other, opening[:-1], frames.MAGIC, bytes(40), p.PacketEncoder(0, 1).cookie(b"cake")):
        assert p.decode_opening(datagram) is None


def test_a_cookie_is_small() -> None:
    """Its header and itself together are at most 3 times the smallest packet that it may answer."""
    assert len(p.PacketEncoder(0, 1).cookie(bytes(p.COOKIE_SIZE))) <= 3 * (p.HEADER + p.TRAILER)


def test_the_page_has_these_vectors() -> None:
    page = (Path(__file__).resolve().parents[2] / "man" / "r2-protocol.7").read_text(encoding="ascii")
    block = page.split(".Ss Vectors of packets", 1)[1].split(".Bd -literal -offset indent\n", 1)[1].split(".Ed", 1)[0]
    encoder = p.PacketEncoder(0x01020304, 0xA0B0C0D0)
    ours = encoder.data(7, 256, b"hello") + encoder.ack(9, 1.0, 0.001, 4 << 20, 261, b"\x03\x05")
    assert bytes.fromhex(block) == ours


def test_who_is_gone_is_told_of_once() -> None:
    theirs, ours = p.PacketEncoder(1, 2), p.PacketEncoder(2, 1)
    assert p.refusal(theirs.data(0, 0, b"x")) == ours.reset()
    assert p.refusal(ours.reset()) == b""
    assert p.refusal(p.PacketEncoder(1).data(0, 0, b"x")) == b""
    assert p.refusal(b"noise") == b""

"""What a command writes before its link: skipped and shown, in whatever pieces it comes, or refused."""

from __future__ import annotations

from hypothesis import assume, example, given
from hypothesis import strategies as st

from r2box.net.io.log import printable
from r2box.proto.arq.packet import HEADER, SYNC, PacketEncoder
from r2box.proto.arq.preamble import MAX_CHATTER, Preamble
from r2box.proto.wire.frames import MAGIC

PACKET = PacketEncoder(7).data(0, 0, b"hello")
LINKS = {False: MAGIC + b"\x01\x00\x05hello", True: PACKET}
# Whatever a command may write, with what links begin with among it, but no whole beginning.
CHATTER = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.integers(1, len(MAGIC) - 1).map(lambda size: MAGIC[:size]),
        st.integers(1, HEADER - 1).map(lambda size: PACKET[:size] + b"."),
        st.just(SYNC + bytes(HEADER)),
    )
).map(b"".join)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in zip(places, places[1:])]


@given(CHATTER, st.booleans(), st.lists(st.integers(0, 1000), max_size=8))
@example(b"", False, [3])
@example(b"\xb2r2\r\n\x1a\n" * 3 + b"\xb2", False, [1, 2, 8, 9, 22])
@example(b"Connected\n", True, [10, 11, 12, 20])
def test_a_link_is_found_behind_chatter(chatter: bytes, is_packets: bool, cuts: list[int]) -> None:
    assume(MAGIC not in chatter)
    link = LINKS[is_packets]
    preamble, said, rest = Preamble(), b"", b""
    for piece in pieces_of(chatter + link, cuts):
        if preamble.rest is None:
            said += preamble.feed(piece)
            rest = preamble.rest or b""
        else:
            rest += piece
    assert (said, rest, preamble.is_packets, preamble.is_refused) == (chatter, link, is_packets, False)
    assert preamble.head == (chatter + link)[: len(preamble.head)]
    assert len(preamble.head) >= min(40, len(chatter))


@given(st.integers(1, 700), st.sampled_from([b"x", b"\xb2", SYNC, b"line\n"]))
def test_garbage_is_refused(size: int, what: bytes) -> None:
    preamble, fed = Preamble(), 0
    while not preamble.is_refused:
        assert fed <= MAX_CHATTER + HEADER
        assert preamble.rest is None
        preamble.feed((what * size)[:size])
        fed += size
    assert preamble.skipped > MAX_CHATTER


def test_no_more_is_skipped_than_that() -> None:
    for size, is_refused in ((MAX_CHATTER, False), (MAX_CHATTER + 1, True)):
        preamble = Preamble()
        preamble.feed(b"x" * size + MAGIC)
        assert (preamble.is_refused, preamble.rest) == (is_refused, None if is_refused else MAGIC)


def test_what_is_shown_steers_no_terminal() -> None:
    text = b"a\x1b[2J\x07\tb\xff \xc3\xa9 \xe2\x80\xae".decode("utf-8", "backslashreplace")
    assert printable(text) == "a\\x1b[2J\\x07\\tb\\xff é \\u202e"

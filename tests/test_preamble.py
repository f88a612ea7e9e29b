"""What a command writes before its link: skipped and shown, in whatever pieces it comes, or refused."""

from __future__ import annotations

import signal
import socket

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from processes import Place, await_port, free_port, need

from r2box.net.connector import MAX_LINES
from r2box.net.log import printable
from r2box.proto.packet import HEADER, SYNC, Encoder
from r2box.proto.preamble import MAX_CHATTER, Preamble
from r2box.proto.wire import MAGIC

PACKET = Encoder(7).data(0, 0, b"hello")
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
# Of a fake rfcomm(1), before it carries bytes.
CONNECTED = 'printf "Connected /dev/rfcomm0 to 00:B0:D0:63:C2:26 on channel 3\\nPress CTRL-C for hangup\\n"\n'
SHOWN = "output: Connected /dev/rfcomm0 to 00:B0:D0:63:C2:26 on channel 3\n"


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


@pytest.mark.parametrize("options", ["", "--lossy"])
def test_a_command_that_talks_first(place: Place, options: str) -> None:
    """As `rfcomm connect` does; and the link is resumed over another run of it."""
    need("socat")
    place.node("alice")
    place.node("bob")
    path = place.executable("rfcomm", f"{CONNECTED}exec socat tcp:127.0.0.1:$3 -\n")
    port = free_port()
    listener = place.start(f"r2 -v -s bob.sock connect tcp-listen://127.0.0.1:{port}")
    await_port(port)
    line = f"r2 -v -s alice.sock connect {options} 'rfcomm connect /dev/rfcomm0 {port}'"
    for times in (1, 2):
        link = place.start(line, PATH=path).says("linked to bob")
        if not options:  # packets are found in any noise, and that is not shown
            assert SHOWN in link.err
            assert "output: Press CTRL-C for hangup\n" in link.err
        assert place.run("r2 -s alice.sock ls").out == "bob\n"
        link.kill()
        place.programs[0].says("was cut", times)
    assert "the link to bob goes on" in place.programs[0].err or "resumed" in place.programs[0].err
    assert listener.runs


def test_chatter_in_pieces_and_packets(place: Place) -> None:
    """The beginning of a preamble in it, pauses, and a neighbour that sends packets without being expected to."""
    place.node("alice")
    place.node("bob")
    pieces = 'printf "one\\033[2J\\n\\262r2\\r\\n"; sleep 0.1; printf "two \\262r"; sleep 0.1\n'
    (place.path / "start").write_text(f'{pieces}exec "$@"\n')
    for options in ("", "--lossy"):
        line = f"r2 -v -s alice.sock connect 'sh start r2 -s bob.sock connect {options} -'"
        link = place.start(line).says("linked to bob")
        assert "output: one\\x1b[2J\n" in link.err
        assert "output: \\xb2r2\n" in link.err
        assert "output: two \\xb2r\n" in link.err
        link.send(signal.SIGTERM)
        link.ends(None)


def test_what_is_no_link(place: Place) -> None:
    place.node("alice")
    flood = place.start("r2 -s alice.sock connect 'yes \"no r2 here\"'").ends(1)
    assert "not an r2 neighbour: it began with 'no r2 here'" in flood.err
    assert flood.err.count("output: no r2 here\n") == MAX_LINES
    assert flood.err.count("output:") == MAX_LINES + 1
    short = place.start("r2 -s alice.sock connect 'echo HTTP/1.1 400 Bad Request'").ends(1)
    assert "output: HTTP/1.1 400 Bad Request\n" in short.err
    assert "not an r2 neighbour: it began with 'HTTP/1.1 400 Bad Request'" in short.err
    silent = place.start("r2 -s alice.sock connect 'echo hello; exec cat >/dev/null'").ends(1)
    assert "output: hello\n" in silent.err
    assert "no hello within 10 s" in silent.err


def test_only_commands_may_talk_first(place: Place) -> None:
    place.node("alice")
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = place.start(f"r2 -s alice.sock connect tcp://127.0.0.1:{server.getsockname()[1]}")
        with server.accept()[0] as connection:
            connection.sendall(b"Connected\n")
            link.ends(1)
    assert "not an r2 neighbour: it began with 'Connected'" in link.err
    assert "output:" not in link.err

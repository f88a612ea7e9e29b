"""iosh: its codec, and what it knows of a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2box.errors import WireError
from r2box.tools.iosh import protocol as t
from r2box.tools.iosh.screen import draw_line, erase_line, find_unfinished

WORD = st.binary(max_size=20).filter(lambda word: b"\0" not in word)
NAME = WORD.filter(lambda word: word and b"=" not in word)
SIDE = st.integers(0, t.MAX_SIDE)


def one(data: bytes) -> bytes:
    """The payload of the only frame, behind a greeting."""
    frames = list(t.ShellDecoder().feed(t.encode_hello() + data))
    assert len(frames) == 2
    return frames[1][1]


@given(st.lists(WORD, max_size=9), st.dictionaries(NAME, WORD, max_size=9), st.none() | st.tuples(SIDE, SIDE))
def test_a_start_arrives_as_it_was_meant(
    words: list[bytes], env: dict[bytes, bytes], size: tuple[int, int] | None
) -> None:
    assert t.decode_start(one(t.encode_start(words, env, size))) == (words, env, size)


@given(st.lists(st.binary(max_size=50), max_size=9), st.integers(1, 20))
def test_slices_make_no_difference(chunks: list[bytes], step: int) -> None:
    data = t.encode_hello() + b"".join(t.encode_frame(t.OUTPUT, chunk) for chunk in chunks)
    decoder = t.ShellDecoder()
    found = [frame for at in range(0, len(data), step) for frame in decoder.feed(data[at : at + step])]
    assert found[1:] == [(t.OUTPUT, chunk) for chunk in chunks]


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_goes_wrong(noise: bytes) -> None:
    decoders = {
        t.HELLO: t.decode_hello, t.START: t.decode_start, t.SIZE: t.decode_size, t.EXIT: t.decode_exit,
        t.CREDIT: t.decode_credit,
    }  # fmt: skip
    for decode in decoders.values():
        try:
            decode(noise)
        except WireError:
            pass
    try:
        list(t.ShellDecoder().feed(noise))
    except WireError:
        pass


def test_what_is_no_iosh_is_found_out_at_once() -> None:
    with pytest.raises(WireError, match="does not speak iosh"):
        list(t.ShellDecoder().feed(b"GET / HTTP/1.1\r\n"))
    with pytest.raises(WireError, match="does not speak iosh"):
        t.decode_hello(b"SSH-2.0-x")


def test_a_later_version_is_understood() -> None:
    later = t.encode_hello(features=0xFFFF, version=9)
    frames = list(t.ShellDecoder().feed(later + t.encode_frame(0x7F, b"new") + t.encode_exit(3)))
    assert t.decode_hello(frames[0][1]) == (t.VERSION, 0xFFFF)
    assert [kind for kind, _ in frames] == [t.HELLO, t.EXIT]
    assert t.decode_exit(frames[1][1]) == (3, 0)
    with pytest.raises(WireError, match="does not know"):
        list(t.ShellDecoder().feed(later + t.encode_frame(0x81)))


def test_limits() -> None:
    assert t.decode_size(one(t.encode_size(10**6, 80))) == (t.MAX_SIDE, 80)
    with pytest.raises(WireError, match="allowed"):
        list(t.ShellDecoder().feed(t.encode_hello() + b"\x03\xff\xff"))
    with pytest.raises(WireError, match="window"):
        t.decode_credit(one(t.encode_frame(t.CREDIT, b"\x09\x00\x01\x00\x01")))
    for words, env in (([b"x"] * (t.MAX_WORDS + 1), {}), ([b"a\0b"], {}), ([], {b"a=b": b""})):
        with pytest.raises(ValueError):
            t.encode_start(words, env, None)


def test_a_refusal_cannot_play_with_the_terminal() -> None:
    assert t.decode_refused(one(t.encode_refused(127, "zsh\x1b[2J: no"))) == (127, "zsh?[2J: no")
    with pytest.raises(WireError):
        t.decode_refused(b"")


@given(st.lists(WORD, max_size=9), st.dictionaries(NAME, st.binary(max_size=9000).map(lambda v: v.replace(b"\0", b"")),
       max_size=40))
def test_what_of_the_environment_does_not_fit_is_left_out(words: list[bytes], env: dict[bytes, bytes]) -> None:
    kept, left_out = t.fit_env(words, env)
    t.encode_start(words, kept, None)
    assert {**kept, **{name: env[name] for name in left_out}} == env
    assert [name for name in env if name in kept] == list(kept)
    for name in left_out:
        with pytest.raises(ValueError):
            t.encode_start(words, {**kept, name: env[name]}, None)


UNFINISHED = [
    (b"hello", b""), (b"", b""), (b"\x1b", b"\x1b"), (b"a\x1b[", b"\x1b["), (b"\x1b[0;1", b"\x1b[0;1"),
    (b"\x1b[0;1mx", b""), (b"\x1b(", b"\x1b("), (b"\x1b(B", b""), (b"\x1b7", b""), (b"\x1b]0;title", b"\x1b]0;title"),
    (b"\x1b]0;t\x07", b""), (b"\x1b]0;t\x1b\\", b""), (b"\x1b[1m\xe2\x82", b"\xe2\x82"), (b"\xe2\x82\xac", b""),
    (b"\xc3", b"\xc3"), (b"\xf0\x9f\x98", b"\xf0\x9f\x98"), (b"\x80\x80\x80\x80", b""),
]  # fmt: skip


@pytest.mark.parametrize(("output", "rest"), UNFINISHED)
def test_where_output_breaks_off_is_known(output: bytes, rest: bytes) -> None:
    assert find_unfinished(output) == rest


@given(st.binary(max_size=60))
def test_a_status_line_leaves_the_output_where_it_was(output: bytes) -> None:
    rest = find_unfinished(output)
    assert output.endswith(rest)
    drawn = draw_line("a long text", 6, rest)
    assert b"a long\x1b[K" in drawn
    for data in (drawn, erase_line(rest)):
        assert data.endswith(b"\x1b8" + rest)
        assert data.startswith(b"\x18\x1b7" if rest else b"\x1b7")

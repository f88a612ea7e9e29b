"""The codec: whole, byte by byte, in slices, at its limits, with its test vectors, and fed with rubbish."""

from __future__ import annotations

import hmac
import re
import shlex
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r2box.errors import WireError
from r2box.proto.link.resume import MAX_CANDIDATES, MAX_RESUME_TIMEOUT, ResumeAttempt
from r2box.proto.link.sender import MAX_OVER
from r2box.proto.wire import frames as wire
from r2box.proto.wire import messages
from r2box.proto.wire.address import parse_path
from r2box.proto.wire.advertisement import REACH_FIELDS, decode_reach
from r2box.proto.wire.fields import MAX_TEXT, Fields, decode_varint, encode_varint, shorten
from r2box.proto.wire.messages import encode_body
from r2box.proto.wire.outcome import Outcome, decode_outcome, encode_outcome
from r2box.proto.wire.route import Message, decode_message, encode_message
from support.frames import decode_all, encode_all, mutate, slices

PAGE = Path(__file__).resolve().parents[2] / "man" / "r2-protocol.7"
LAYOUTS = {
    "HELLO": wire.HELLO_FIELDS,
    "READY": wire.READY_FIELDS,
    "RESUME": wire.RESUME_FIELDS,
    "BYE": wire.BYE_FIELDS,
    "MESSAGE": wire.MESSAGE_FIELDS,
    "OPEN": wire.OPEN_FIELDS,
    "ACCEPT": wire.ACCEPT_FIELDS,
    "CLOSE": wire.CLOSE_FIELDS,
    "REACH": REACH_FIELDS,
}
TYPES = {name: kind for kind, (name, _, _) in wire.FRAMES.items()}

# One frame of every type, and the same with the most payload.
SMALL = [(kind, 5 if routed else 0, b"\x01" * min(most, 3)) for kind, (_, routed, most) in wire.FRAMES.items()]
LARGE = [(kind, wire.MAX_ROUTE if routed else 0, b"\x01" * most) for kind, (_, routed, most) in wire.FRAMES.items()]


def refused(data: bytes) -> str:
    """The reason why a decoder refuses these bytes, the same whether they come at once or one by one."""
    with pytest.raises(WireError) as whole:
        decode_all([data])
    with pytest.raises(WireError) as slow:
        decode_all([data[i : i + 1] for i in range(len(data))])
    if data.startswith(wire.MAGIC):
        assert str(whole.value) == str(slow.value)
    return str(whole.value)


# -- frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", SMALL, ids=lambda frame: wire.FRAMES[frame[0]][0])
def test_each_frame_whole_and_byte_by_byte(frame: tuple[int, int, bytes]) -> None:
    data = encode_all([frame])
    assert decode_all([data]) == [frame]
    assert decode_all([data[i : i + 1] for i in range(len(data))]) == [frame]
    for cut in range(len(data) + 1):
        assert decode_all([data[:cut], data[cut:]]) == [frame]


@pytest.mark.parametrize("frame", SMALL, ids=lambda frame: wire.FRAMES[frame[0]][0])
def test_each_frame_with_a_part_of_the_next(frame: tuple[int, int, bytes]) -> None:
    data, following = encode_all([frame]), wire.encode_frame(wire.CLOSE, 7, b"\x04\x02no")
    for size in range(len(following)):
        assert decode_all([data + following[:size]]) == [frame]
        assert decode_all([data + following[:size], following[size:]]) == [frame, (wire.CLOSE, 7, b"\x04\x02no")]


@pytest.mark.parametrize("seed", range(20))
def test_all_frames_in_random_slices(seed: int) -> None:
    random = Random(seed)
    frames = [random.choice(SMALL + LARGE[:8]) for _ in range(60)]
    frames = [f for i, f in enumerate(frames) if not i or f[:2] != frames[i - 1][:2] or f[0] != wire.DATA]
    data = encode_all(frames)
    assert decode_all([data]) == frames
    assert decode_all(slices(random, data, random.choice((3, 50, 5000)))) == frames


def test_data_is_handed_on_as_it_comes() -> None:
    """A large frame costs no memory and no waiting, and its pieces are views, not copies."""
    decoder = wire.FrameDecoder()
    assert list(decoder.feed(wire.MAGIC + wire.encode_header(wire.DATA, 2, 1000))) == []
    buffer = b"abc"
    ((kind, route, payload),) = decoder.feed(buffer)
    assert (kind, route, bytes(payload)) == (wire.DATA, 2, b"abc")
    assert payload.obj is buffer


def test_empty_feeds_change_nothing() -> None:
    data = encode_all(SMALL)
    pieces = [piece for i in range(len(data)) for piece in (b"", data[i : i + 1])]
    assert decode_all(pieces) == SMALL


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", LARGE, ids=lambda frame: wire.FRAMES[frame[0]][0])
def test_the_largest_is_taken_and_one_more_is_refused(frame: tuple[int, int, bytes]) -> None:
    kind, route, _ = frame
    name, _, most = wire.FRAMES[kind]
    assert decode_all([encode_all([frame])]) == [frame]
    header = wire.MAGIC + wire.encode_header(kind, route, most + 1)
    assert refused(header) == f"a {name} frame of {most + 1} bytes; at most {most} are allowed"


@pytest.mark.parametrize("frame", SMALL, ids=lambda frame: wire.FRAMES[frame[0]][0])
def test_routes_where_they_belong(frame: tuple[int, int, bytes]) -> None:
    kind, route, payload = frame
    assert "route" in refused(wire.MAGIC + wire.encode_header(kind, 0 if route else 2, len(payload)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x09\x80\x00\x01", "shortest form"),
        (b"\x09\x02\x81\x00", "shortest form"),
        (b"\x09\x82\x80\x00\x01", "shortest form"),
        (b"\x09\x80\x80\x80\x01", "more than 3 bytes"),
        (b"\x09\x02\xff\xff\xff\x01", "more than 3 bytes"),
        (b"\x00", "unknown type 0x00"),
        (b"\x11\x00\x00", "unknown type 0x11"),
        (b"\x7f", "unknown type 0x7f"),
        (b"\x90\x00\x81\x80\x04", "a 0x90 frame of 65537 bytes"),
    ],
)
def test_headers_that_are_none(data: bytes, reason: str) -> None:
    assert reason in refused(wire.MAGIC + data)


@pytest.mark.parametrize("route", [0, 1, 2, wire.MAX_ROUTE])
@pytest.mark.parametrize("size", [0, 1, 200, wire.MAX_CONTROL])
@pytest.mark.parametrize("kind", [0x90, 0xC3, 0xFF])
def test_unknown_optional_frames_are_skipped(kind: int, size: int, route: int) -> None:
    around = [(wire.PING, 0, b"a"), (wire.PONG, 0, b"b")]
    first, last = (wire.encode_frame(*frame) for frame in around)
    data = wire.MAGIC + first + wire.encode_frame(kind, route, b"\x07" * size) + last
    assert decode_all([data]) == around
    assert decode_all(slices(Random(size), data, 7)) == around


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", "SSH-2.0-OpenSSH_9.2p1 Debian-2"),
        (b"\x16\x03\x01\x02\x00\x01", "\\x16\\x03\\x01\\x02"),
        (b"\x00" * 4096, "\\x00"),
        (wire.MAGIC.replace(b"\x1a", b""), "r2"),
        (wire.MAGIC.replace(b"\r\n", b"\n"), "r2"),
        (Random(3).randbytes(4096), "\\x"),
    ],
)
def test_a_neighbour_that_is_not_r2(said: bytes, shown: str) -> None:
    with pytest.raises(WireError, match="not an r2 neighbour: it began with") as caught:
        decode_all([said])
    assert shown in str(caught.value)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250
    assert "not an r2 neighbour" in refused(said)


# -- numbers and fields ------------------------------------------------------------------------------------------------


@given(st.integers(0, (1 << 63) - 1))
def test_varints_round_trip(number: int) -> None:
    data = encode_varint(number)
    assert decode_varint(data, 0, len(data), most=9) == (number, len(data))
    assert decode_varint(b"\xff" + data + b"\xff", 1, len(data) + 2, most=9) == (number, len(data) + 1)
    for cut in range(len(data)):
        assert decode_varint(data, 0, cut, most=9) == (0, -1)


@given(st.binary(max_size=12), st.integers(1, 9))
def test_any_bytes_are_a_varint_or_are_refused(data: bytes, most: int) -> None:
    try:
        number, after = decode_varint(data, 0, len(data), most)
    except WireError:
        return
    assert after == -1 or encode_varint(number) == data[:after]


values = {
    "uint": st.integers(0, (1 << 63) - 1),
    "bytes": st.binary(max_size=40),
    "text": st.text(max_size=20).filter(str.isprintable),
    "path": st.lists(st.sampled_from(["a", "b.c", "service/x", "child/7"]), max_size=6).map(tuple),
    "each": st.lists(st.binary(max_size=5), max_size=5).map(tuple),
}
EVERYTHING = Fields("all", u=(1, "uint"), b=(2, "bytes"), t=(3, "text"), p=(200, "path"), e=(5, "each"))


def fields_of(layout: Fields) -> Any:
    return st.fixed_dictionaries({name: values[kind] for name, (_, kind) in layout.layout.items()})


@given(fields_of(EVERYTHING))
def test_fields_round_trip(fields: dict[str, Any]) -> None:
    assert EVERYTHING.decode(EVERYTHING.encode(**fields)) == fields


@given(fields_of(EVERYTHING), st.randoms(use_true_random=False))
def test_unknown_fields_are_skipped_and_order_is_free(fields: dict[str, Any], random: Random) -> None:
    names = list(fields)
    random.shuffle(names)
    unknown = Fields("later", x=(9, "bytes"))
    data = b"".join(EVERYTHING.encode(**{name: fields[name]}) + unknown.encode(x=b"later") for name in names)
    assert EVERYTHING.decode(data) == fields


def test_missing_fields_have_an_empty_default() -> None:
    assert EVERYTHING.decode(b"") == {"u": 0, "b": b"", "t": "", "p": (), "e": ()}
    assert EVERYTHING.encode(u=0, b=b"", t="", p=(), e=()) == b""


def test_of_a_field_that_comes_twice_the_last_counts() -> None:
    assert EVERYTHING.decode(EVERYTHING.encode(u=1) + EVERYTHING.encode(u=2))["u"] == 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x01", "truncated"),
        (b"\x01\x02\x05", "truncated"),
        (b"\x01\x00", "does not fill"),
        (b"\x01\x02\x05\x05", "does not fill"),
        (b"\x01\x02\x85\x00", "shortest form"),
        (b"\x01\x0a" + b"\xff" * 10, "more than 9 bytes"),
        (b"\xff\xff\xff\xff\x01\x00", "more than 4 bytes"),
        (b"\xc8\x01\x02a b"[:6], "an invalid path"),
    ],
)
def test_fields_that_are_none(data: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        EVERYTHING.decode(data)


def test_texts_cannot_steer_a_terminal() -> None:
    text = EVERYTHING.decode(EVERYTHING.encode(t="a\x1b[2J\r\n\x07b\u202ec é"))["t"]
    assert text == "a?[2J???b?c é"
    assert EVERYTHING.decode(b"\x03\x02\xff\xfe")["t"] == "\ufffd\ufffd"


@given(st.text())
def test_any_text_fits_where_texts_go(text: str) -> None:
    outcome = Outcome(255, text * 50, 255, 255)
    assert len(encode_outcome(outcome)) <= MAX_TEXT
    assert decode_outcome(encode_outcome(outcome)).status == 255
    assert len(wire.BYE_FIELDS.encode(text=shorten(text * 50))) <= MAX_TEXT


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_are_refused(data: bytes) -> None:
    for decode in (EVERYTHING.decode, messages.decode_body, decode_message, decode_outcome):
        try:
            decode(data)
        except WireError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("kind", sorted(messages.BODIES), ids=lambda kind: messages.BODIES[kind].name)
def test_every_body_round_trips(kind: int) -> None:
    @given(st.integers(0, (1 << 28) - 1), fields_of(messages.BODIES[kind]))
    @settings(max_examples=20)
    def check(number: int, fields: dict[str, Any]) -> None:
        decoded = messages.decode_body(messages.encode_body(kind, number, **fields))
        assert (decoded.kind, decoded.id, decoded.values) == (kind, number, fields)
        assert decoded.is_request == (kind < 0x40)

    check()


def test_many_small_fields_take_no_long_time() -> None:
    """32,768 entries in one message: quadratic work would take seconds, and a neighbour could ask for it at will."""
    data = b"\x41\x00" + b"\x01\x00" * (wire.MAX_CONTROL // 2 - 1)
    started = process_time()
    assert len(messages.decode_body(data)["entries"]) == 32767
    assert process_time() - started < 0.7


@pytest.mark.parametrize(
    ("oldest", "newest", "agreed"),
    [(1, 1, 1), (1, 2, 1), (1, 900, 1), (0, 1, 1), (0, 7, 1), (0, 0, 0), (2, 3, 0), (2, 2, 0), (5, 1, 0)],
)
def test_versions(oldest: int, newest: int, agreed: int) -> None:
    if agreed:
        assert wire.agree_version(oldest, newest) == agreed
        return
    with pytest.raises(WireError, match=f"the neighbour speaks {oldest} to {newest}, this r2box 1 to 1"):
        wire.agree_version(oldest, newest)


# -- rubbish -----------------------------------------------------------------------------------------------------------


def conversation() -> bytes:
    """Valid bytes with all that there is in them."""
    frames = [
        (wire.HELLO, 0, wire.HELLO_FIELDS.encode(oldest=1, newest=1, address="bob", instance=b"x" * 16)),
        (wire.READY, 0, wire.READY_FIELDS.encode(resume_timeout=600, secret=b"s" * 16)),
        (wire.RESUME, 0, wire.RESUME_FIELDS.encode(proof=b"p" * 32, received=70000)),
        (wire.PING, 0, b"1234567812345678"),
        (wire.OPEN, 2, wire.OPEN_FIELDS.encode(path=("carl", "echo"), origin=("child/1",), window=1 << 18)),
        (wire.ACCEPT, 5, wire.ACCEPT_FIELDS.encode(window=1 << 18)),
        (wire.DATA, 2, b"hello" * 40),
        (wire.CREDIT, 5, encode_varint(70000)),
        (wire.MESSAGE, 0, encode_message(Message(("carl",), ("child/1",), encode_body(messages.LIST, 9, start=3)))),
        (0x90, 6, b"later"),
        (wire.FIN, 2, b""),
        (wire.CLOSE, 2, encode_outcome(Outcome(1, "bob: no"))),
        (wire.BYE, 0, wire.BYE_FIELDS.encode(text="done")),
    ]
    return encode_all(frames)


DECODERS: dict[int, Callable[[memoryview], object]] = {
    wire.HELLO: wire.HELLO_FIELDS.decode,
    wire.READY: wire.READY_FIELDS.decode,
    wire.RESUME: wire.RESUME_FIELDS.decode,
    wire.BYE: wire.BYE_FIELDS.decode,
    wire.OPEN: wire.OPEN_FIELDS.decode,
    wire.ACCEPT: wire.ACCEPT_FIELDS.decode,
    wire.CLOSE: decode_outcome,
    wire.MESSAGE: lambda payload: messages.decode_body(decode_message(payload)[0].body),
}


def held(decoder: wire.FrameDecoder) -> int:
    return len(decoder._held) + len(decoder._body or b"")


def test_mutations() -> None:
    """Nothing but WireError comes out, and no more than a header and a payload is ever kept."""
    random = Random(20240229)
    valid = conversation()
    ended = 0
    for _ in range(4000):
        data = mutate(random, valid)
        decoder = wire.FrameDecoder()
        try:
            for piece in slices(random, data, random.choice((4, 60, 1000))):
                for kind, route, payload in decoder.feed(piece):
                    assert len(payload) <= wire.FRAMES[kind][2]
                    assert wire.FRAMES[kind][1] == bool(route)
                    DECODERS.get(kind, bytes)(payload)
                assert held(decoder) <= wire.MAX_HEADER + wire.MAX_CONTROL
        except WireError as error:
            ended += 1
            assert str(error)  # noqa: PT017
    assert 1000 < ended < 4000


def test_rubbish() -> None:
    random = Random(7)
    for _ in range(1000):
        decoder = wire.FrameDecoder()
        list(decoder.feed(wire.MAGIC))
        try:
            for _ in range(20):
                list(decoder.feed(random.randbytes(50)))
                assert held(decoder) <= wire.MAX_HEADER + wire.MAX_CONTROL
        except WireError:
            pass


def test_a_decoder_holds_no_more_than_one_payload() -> None:
    decoder = wire.FrameDecoder()
    list(decoder.feed(wire.MAGIC))
    frame = wire.encode_frame(wire.MESSAGE, 0, bytes(wire.MAX_CONTROL))
    tracemalloc.start()
    try:
        for piece in slices(Random(1), frame * 10, 9000):
            list(decoder.feed(piece))
        del piece
        assert tracemalloc.get_traced_memory()[0] < 2 * len(frame) + 50_000
    finally:
        tracemalloc.stop()


# -- the page ----------------------------------------------------------------------------------------------------------


def read_vectors(section: str) -> list[tuple[str, bytes]]:
    """The (words, bytes) of the literal display in a section of r2-protocol(7)."""
    text = PAGE.read_text().split(".Sh TEST VECTORS", 1)[1].split(f".Ss {section}", 1)[1]
    lines = text.split(".Bd -literal\n", 1)[1].split("\n.Ed", 1)[0].splitlines()
    vectors: list[tuple[str, bytes]] = []
    for line in lines:
        if line.startswith(" "):
            words, data = vectors.pop()
            vectors.append((words, data + bytes.fromhex(line)))
        else:
            vectors.append((line, b""))
    return vectors


def parse_words(words: str, layout: dict[str, tuple[int, str]]) -> tuple[str, dict[str, Any]]:
    """`NAME field=value …` as Python values."""
    convert: dict[str, Callable[[str], object]] = {
        "uint": int,
        "bytes": bytes.fromhex,
        "text": str,
        "path": parse_path,
        "each": lambda text: tuple(map(bytes.fromhex, text.split(","))),
    }
    name, *rest = shlex.split(words)
    pairs = [word.split("=", 1) for word in rest]
    return name, {field: convert[layout[field][1] if field in layout else "uint"](value) for field, value in pairs}


FRAME_VECTORS = read_vectors("Frames")
BODY_VECTORS = read_vectors("Bodies")
WORDS = re.compile("[A-Z_]+")


def first_word(words: str) -> str:
    found = WORDS.match(words)
    assert found, words
    return found[0]


def test_the_page_has_a_vector_for_each_frame() -> None:
    assert {first_word(words) for words, _ in FRAME_VECTORS} == {"MAGIC", *TYPES}
    public = ("PING", "PONG", "LIST", "LISTING", "ERROR", "NETWORK", "NETWORK_IS")
    assert sorted({first_word(words) for words, _ in BODY_VECTORS}) == sorted(public)


@pytest.mark.parametrize(("words", "data"), FRAME_VECTORS, ids=[words for words, _ in FRAME_VECTORS])
def test_frame_vectors(words: str, data: bytes) -> None:
    name = first_word(words)
    if name == "MAGIC":
        assert data == wire.MAGIC
        return
    layout = LAYOUTS[name].layout if name in LAYOUTS else {"payload": (0, "bytes")}
    _, said = parse_words(words, layout)
    route = said.pop("route", 0)
    if name in LAYOUTS:
        payload = LAYOUTS[name].encode(**said)
    elif name in ("CREDIT", "RETURN"):
        payload = encode_varint(said.get("more") or said["less"])
    else:
        payload = said.get("payload", b"")
    assert wire.encode_frame(TYPES[name], route, payload).hex(" ") == data.hex(" ")
    ((kind, at, got),) = decode_all([wire.MAGIC + data])
    assert (kind, at) == (TYPES[name], route)
    if name in LAYOUTS:
        defaults = LAYOUTS[name].decode(b"")
        assert LAYOUTS[name].decode(got) == {**defaults, **said}
        if name == "REACH":
            assert decode_reach(got).entries
    else:
        assert got == payload


@pytest.mark.parametrize(("words", "data"), BODY_VECTORS, ids=[words for words, _ in BODY_VECTORS])
def test_body_vectors(words: str, data: bytes) -> None:
    kinds = {layout.name: kind for kind, layout in messages.BODIES.items()}
    kind = kinds[first_word(words)]
    _, said = parse_words(words, messages.BODIES[kind].layout)
    number = said.pop("id")
    assert messages.encode_body(kind, number, **said).hex(" ") == data.hex(" ")
    decoded = messages.decode_body(data)
    assert (decoded.kind, decoded.id) == (kind, number)
    assert decoded.values == {**messages.BODIES[kind].decode(b""), **said}
    for entry in decoded.values.get("entries", ()):
        if kind == messages.LISTING:
            assert messages.ENTRY.decode(entry)["kind"] in ("node", "service", "client")
        else:
            assert messages.NETWORK_ENTRY.decode(entry)["path"]


def test_the_vectors_of_an_attempt() -> None:
    """Against the code, from either side, and against the bytes that the page tells."""
    vectors = dict(read_vectors("HMAC"))
    nonces = vectors["NONCE side=first"], vectors["NONCE side=second"]
    instances = vectors["INSTANCE side=first"], vectors["INSTANCE side=second"]
    first, second = ResumeAttempt(True, nonces, instances), ResumeAttempt(False, nonces[::-1], instances[::-1])
    stages = []
    for words, proof in vectors.items():
        if first_word(words) != "PROOF":
            continue
        _, said = parse_words(words, {})
        stages.append(said["stage"])
        text = b"".join(
            (b"r2 resume", bytes((said["stage"],)), *nonces, *instances, said["received"].to_bytes(8, "big"))
        )
        assert hmac.new(vectors["SECRET"], text, "sha256").digest() == proof
        for attempt in (first, second):
            assert attempt.mac(vectors["SECRET"], said["stage"], said["received"]) == proof
            assert attempt.proves(vectors["SECRET"], proof, said["stage"], said["received"])
        shown = [f"RESUME proof={proof.hex()}{more}" for more in ("", f" received={said['received']}")]
        assert said["stage"] in (0, 3) or any(frame in dict(FRAME_VECTORS) for frame in shown)
    assert stages == [1, 2, 3, 0]


def test_the_page_states_the_numbers_of_the_code() -> None:
    text = PAGE.read_text()
    for kind, (name, routed, most) in wire.FRAMES.items():
        assert f".It {name} Ta 0x{kind:02x} Ta {'yes' if routed else '0'} Ta {most} Ta" in text
    for limit in (wire.MAX_DATA, wire.MAX_CONTROL, wire.MAX_OPEN, MAX_TEXT, wire.MAX_ROUTE, wire.MAX_CREDIT):
        assert f".It {limit} Ta" in text
    assert f".It {MAX_RESUME_TIMEOUT} s Ta" in text
    assert f".It {MAX_CANDIDATES} Ta secrets" in text
    assert f".It {MAX_OVER} Ta" in text
    for name, layout in LAYOUTS.items():
        section = text.split(f".Ss {name}\n", 1)[1].split("\n.Ss", 1)[0]
        for field, (tag, kind_of_value) in layout.layout.items():
            assert f".It {tag} Ta {field} Ta {kind_of_value} Ta" in section, f"{name} {field}"

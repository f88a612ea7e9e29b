"""A name is enough: discovery between real daemons, and the tools that show what it knows."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest

from r2box.cli import registry
from r2box.proto.wire.messages import ENTRY, LIST, LISTING, NETWORK, NETWORK_ENTRY, NETWORK_IS, encode_body
from support.fake_neighbour import Mouth
from support.processes import PATIENCE, Place, Program, await_port, eventually, free_port, need

TYPES = {"text": str, "number": (int, float), "number or null": (int, float, type(None)), "list": list}


def square(place: Place) -> dict[str, Program]:
    """alice - bob - dora - carl - alice, with a service at dora; the programs that hold the links, by their ends.

    alice knows both ways to dora, and the service by each.
    """
    for address in ("alice", "bob", "carl", "dora"):
        place.node(address)
    place.start("r2 -s dora.sock serve -n upper 'tr a-z A-Z'").says("offering")
    pairs = (("alice", "bob"), ("bob", "dora"), ("alice", "carl"), ("carl", "dora"))
    links = {f"{one}-{other}": place.link(one, other) for one, other in pairs}

    def ways() -> list[object]:
        return [row["ways"] for row in rows(place, "r2 -s alice.sock ls -R --json", "ls") if row["name"] == "dora"]

    eventually(lambda: ways() == [2], "both ways to dora")
    return links


def upper(place: Place, target: str) -> str:
    return place.run(f"r2 -s alice.sock -t {target} tunnel -", b"hello", status=None).out


def rows(place: Place, line: str, tool: str) -> list[dict[str, object]]:
    """What a tool prints as JSON, each object with exactly the fields that its page tells."""
    found = [json.loads(text) for text in place.run(line).out.splitlines()]
    declared = {field: kind for field, kind, _ in registry.load(registry.WORDS[tool])[0].json}
    for row in found:
        assert set(row) <= set(declared), line
        for field, value in row.items():
            assert isinstance(value, TYPES[declared[field]]), (field, value)  # type: ignore[arg-type]
    return found


@pytest.mark.every_python
def test_names_and_the_nearest(place: Place) -> None:
    links = square(place)
    for target in ("dora/upper", "dora/service/upper", "any/upper", "bob/dora/upper", "carl/dora/upper"):
        assert upper(place, target) == "HELLO", target
    # Whichever way is taken: with either link cut for good, the other is found.
    links["alice-bob"].send(signal.SIGTERM)
    links["alice-bob"].ends(0)
    for target in ("dora/upper", "any/upper"):
        assert upper(place, target) == "HELLO"
    path = eventually(
        lambda: [r for r in rows(place, "r2 -s alice.sock ls -R --json", "ls") if r["name"] == "dora"], "a way to dora"
    )[0]["path"]
    assert path == "carl/dora"
    place.start("r2 -s bob.sock serve -n lower 'tr A-Z a-z'").says("offering")
    assert eventually(lambda: upper(place, "any/lower") == "hello", "any/lower by way of carl and dora")


def test_an_unknown_name_is_answered_with_what_is_near(place: Place) -> None:
    square(place)
    said = place.run("r2 -s alice.sock -t dorra/upper tunnel -", b"", status=255).err
    assert said == "r2-tunnel: alice: does not know dorra (it knows bob, carl; did you mean dora?)\n"
    said = place.run("r2 -s alice.sock -t any/uper tunnel -", b"", status=255).err
    assert "does not know any/uper" in said
    assert "any/upper/x" in place.run("r2 -s alice.sock -t any/upper -t x tunnel -", b"", status=255).err


def test_what_is_shown(place: Place) -> None:
    square(place)
    shown = place.run("r2 -s alice.sock ls -R").out.splitlines()
    assert len(shown) == 4
    assert all(re.fullmatch(r"\S+ +\d+\.\d ms +\d+ s", line) for line in shown), shown
    found = {row["name"]: row for row in rows(place, "r2 -s alice.sock ls -R --json", "ls")}
    assert set(found) == {"bob", "carl", "dora", "service/upper"}
    assert found["dora"]["path"] in ("bob/dora", "carl/dora")
    assert found["dora"]["ways"] == 2
    assert rows(place, "r2 -s alice.sock -t dora ls -R --json", "ls"), "of another node, by name"

    def best() -> object:
        return next(row["path"] for row in rows(place, "r2 -s alice.sock ls -R --json", "ls") if row["name"] == "dora")

    def is_traced() -> bool:
        """Of the way that is shown: both are as near, and which is the best may change with each round trip."""
        before = best()
        way = rows(place, "r2 -s alice.sock trace -t dora --json", "trace")
        assert [row["hop"] for row in way] == [0, 1, 2]
        return bool(way[-1]["path"] == before == best())

    eventually(is_traced, "a trace of the best way")
    trace = place.run("r2 -s alice.sock trace -t any/upper").out.splitlines()
    assert len(trace) == 3
    assert "dora" in trace[-1]
    (answer,) = rows(place, "r2 -s alice.sock -t dora ping -c 1 --json", "ping")
    assert (answer["path"], answer["seq"], answer["error"]) == ("dora", 1, "")
    assert rows(place, "r2 -s alice.sock ls -l --json", "ls")


def test_the_map(place: Place) -> None:
    square(place)
    tree = place.run("r2 -s alice.sock map").out
    first, *rest = tree.splitlines()
    assert first == "alice"
    assert len(rest) == 3
    assert len([line for line in rest if re.match("[├└]─ (bob|carl)  ", line)]) == 2
    assert re.search(r"^[│ ]  └─ dora  \d+\.\d ms  upper$", tree, re.MULTILINE)
    dot = place.run("r2 -s alice.sock map --dot").out
    assert '"alice" -- "bob";' in dot
    assert dot.count(" -- ") == 3
    assert place.run("r2 -s alice.sock map -a --dot").out.count(" -- ") == 4, "the link that no best way uses"
    nodes = {row["name"]: row for row in rows(place, "r2 -s alice.sock map -a --json", "map")}
    assert nodes["dora"]["links"] == ["bob", "carl"]
    assert nodes["dora"]["services"] == ["upper"]
    place.run("r2 -s alice.sock map --dot --svg", status=2)
    if not shutil.which("dot"):
        assert "install graphviz" in place.run("r2 -s alice.sock map --svg", status=1).err


def test_a_map_of_nodes_behind_one_that_is_not_heard_of(place: Place) -> None:
    """As behind `accept`: dora's way leads over carl, of whom nothing is known but that."""
    for name in ("alice", "bob", "carl", "dora"):
        place.node(name)
    place.start("r2 -v -s bob.sock connect unix-listen://bob")
    place.start("r2 -v -s alice.sock connect --accept dora --retry unix://bob").says("linked to bob")
    place.link("bob", "carl")
    place.link("carl", "dora")
    place.run("r2 -s alice.sock -t dora wait --timeout 20s")
    tree = place.run("r2 -s alice.sock map").out
    assert re.sub(r"  \d+\.\d ms", "", tree) == "alice\n└─ bob\n   └─ carl\n      └─ dora\n"
    assert [row["name"] for row in rows(place, "r2 -s alice.sock map --json", "map")] == [
        "alice", "bob", "dora", "carl",
    ]  # fmt: skip


def linked_mouth(place: Place) -> Mouth:
    """A neighbour of alice that answers what the test wants."""
    place.node("alice")
    port = free_port()
    link = place.start(f"r2 -v -s alice.sock connect tcp-listen://127.0.0.1:{port}")
    await_port(port)
    mallory = Mouth("mallory", port)
    assert mallory.liar.is_up.wait(PATIENCE)
    link.says("linked to mallory")
    return mallory


def test_answers_that_are_none(place: Place) -> None:
    """What a node answers that says what it likes is shown as far as it is names."""
    service, bad = (ENTRY.encode(kind="service", name=f"service/{name}") for name in ("web", 'x"]; y [image="z'))
    names = (b"web", b"\x1b]0;title\x07", b'x"]; y [image="z', b"a\nb")
    answers = {
        LIST: lambda id_: encode_body(LISTING, id_, entries=(service, bad), address="mallory"),
        NETWORK: lambda id_: encode_body(
            NETWORK_IS,
            id_,
            entries=(NETWORK_ENTRY.encode(path=("bob",), services=names), NETWORK_ENTRY.encode()),
            address="mallory",
        ),
    }
    mallory = linked_mouth(place)
    mallory.liar.answers = answers
    assert place.run("r2 -s alice.sock -t mallory map").out == "mallory  web\n└─ bob  web\n"
    listed = place.run("r2 -s alice.sock -t mallory ls -R").out
    assert [line.split()[0] for line in listed.splitlines()] == ["service/web", "bob", "bob/service/web"]
    answers[LIST] = lambda id_: encode_body(LISTING, id_, address='m" [image="z"]; "y')
    assert "an answer to something else" in place.run("r2 -s alice.sock -t mallory map --dot", status=1).err
    mallory.close()


ODD_ENTRIES = [
    (kind, name, "detail\x1b[31m\udcff")
    for kind in ("node", "service", "client", "", "\x1b]0;x\x07", "thing")
    for name in (
        "",
        "mallory",
        "bob",
        "service/web",
        "service/",
        "service",
        "child/5",
        "any/x",
        "a/b",
        "-x",
        "\x1b[1m",
        "\udcff",
    )
]
ODD_PATHS = [
    ("mallory",), ("bob", "bob"), ("bob", "mallory"), ("mallory", "bob"), ("service/web",), ("child/5", "bob"),
    ("any/x",), ("x", "y"), ("y", "x"), ("u", "v", "w", "u2"), ("bob",) * 32,
]  # fmt: skip


def test_odd_answers_are_shown_by_all_tools(place: Place) -> None:
    """Names of the wrong kind, repeated ones, paths in circles, and bytes that are nothing: no tool fails of it, what
    is printed is UTF-8 without control characters, and JSON is JSON."""
    entries = [ENTRY.encode(kind=kind, name=name, detail=detail) for kind, name, detail in ODD_ENTRIES]
    entries += [b"", b"\xff", b"\1\4node\2\3\xff\xfe\x1b", b"\2\x7f"]
    known = [
        NETWORK_ENTRY.encode(
            path=path, cost=2**62 - number, age=2**62, ways=2**62, services=(b"web", b"\xff", b"\x1b[1m", b"")
        )
        for number, path in enumerate(ODD_PATHS)
    ]
    known += [b"", b"\xff", b"\1\3a//", b"\1\2\xff\xfe", b"\1\3bob\5\1\x80"]
    mallory = linked_mouth(place)
    mallory.liar.answers = {
        LIST: lambda id_: encode_body(LISTING, id_, entries=tuple(entries), address="mallory"),
        NETWORK: lambda id_: encode_body(NETWORK_IS, id_, entries=tuple(known), address="mallory"),
    }
    mallory.liar.echoes = True
    for line in ("ls", "ls -l", "ls -a", "ls -R", "ls -lR", "map", "map --dot", "ping -c 1", "trace", "wait"):
        shown = place.run(f"r2 -s alice.sock -t mallory {line}", status=None)
        assert "\x1b" not in shown.out + shown.err
        assert all(text.isprintable() for text in shown.out.splitlines()), line
        if line in ("ls", "ls -l", "ls -a", "ls -R", "ls -lR", "map"):
            assert "bob" in shown.out
    for line in ("ls", "ls -l", "ls -a", "ls -R", "map", "trace", "ping -c 1"):
        assert rows(place, f"r2 -s alice.sock -t mallory {line} --json", line.split()[0])
    names = [row["name"] for row in rows(place, "r2 -s alice.sock -t mallory map --json", "map")]
    assert sorted(map(str, names)) == ["bob", "mallory", "u", "u2", "v", "w", "x", "y"]
    tree = place.run("r2 -s alice.sock -t mallory map").out
    assert len(tree.splitlines()) == len(names), "nodes whose ways lead in a circle are shown too"
    place.run("r2 -s alice.sock map -a --json", status=None)
    mallory.close()


def test_odd_names_of_our_own(place: Place) -> None:
    """What one has typed oneself is shown as little as it is."""
    place.node("alice")
    place.start(b"r2 -s alice.sock serve -n odd 'cat \x1b[31m\xff'".decode("utf-8", "surrogateescape")).says("offering")
    for line in ("ls -la", "ls -la --json", "status", "status --json"):
        shown = place.run(f"r2 -s alice.sock {line}")
        assert all(text.isprintable() for text in shown.out.splitlines()), line
    failed = place.run(b"r2 -s alice.sock connect 'tpc://\x1b[31m\xff\nx'".decode("utf-8", "surrogateescape"), status=2)
    assert "\\x1b[31m" in failed.err
    assert all(text.isprintable() for text in failed.err.splitlines())


def test_the_picture_of_the_map(place: Place) -> None:
    need("dot")
    square(place)
    picture = place.run("r2 -s alice.sock map -a --svg").out
    assert picture.startswith("<?xml")
    assert "dora" in picture


def test_wait(place: Place) -> None:
    place.pair()
    late = place.run("r2 -s alice.sock -t bob/web wait --timeout 200ms", status=1)
    assert "r2-wait: bob/web: not available within 200ms: " in late.err
    assert "did you mean" in place.run("r2 -s alice.sock -t bobb wait --timeout 1s", status=1).err
    waiting = [place.start(f"r2 -s alice.sock -t {target} wait") for target in ("bob/web", "any/web", "carl")]
    place.start("r2 -s bob.sock serve -n web cat").says("offering")
    for program in waiting[:2]:
        program.ends(0)
    assert waiting[2].runs
    place.node("carl")
    place.link("carl", "bob")
    waiting[2].ends(0)
    place.run("r2 -s alice.sock wait", status=2)
    place.run("r2 -s alice.sock -t bob wait --timeout soon", status=2)
    assert "must be the last element of the path" in place.run("r2 -s alice.sock -t any/web/x wait", status=2).err


def has_advertised(place: Place, events: Program) -> bool:
    """Whether it hears of what happens at alice: nothing else tells that it has begun to."""
    server = place.start("r2 -s alice.sock serve -n noise cat").says("offering")
    server.send(signal.SIGTERM)
    server.ends(0)
    place.run("r2 -s alice.sock ping -c 1")  # by now it would have been told
    return "alice/noise" in events.out


def test_watch(place: Place) -> None:
    place.pair()
    place.run("r2 -s alice.sock -t bob wait --timeout 20s")
    lines = place.start("r2 -s alice.sock watch -i").prints("node-up")
    events = place.start("r2 -s alice.sock watch --json")
    eventually(lambda: has_advertised(place, events), "that it watches")
    place.node("carl")
    link = place.link("carl", "bob")
    server = place.start("r2 -s carl.sock serve -n web cat").says("offering")
    for program in (lines, events):
        program.prints("carl/web")
    server.send(signal.SIGTERM)
    events.prints('"event": "service-down", "name": "carl/web"')
    link.send(signal.SIGTERM)
    for program in (lines, events):
        program.prints("node-down")
    found = [json.loads(line) for line in events.out.splitlines()]
    of_carl = [row["event"] for row in found if row["name"].startswith("carl")]
    assert of_carl == ["node-up", "service-up", "service-down", "node-down"]
    assert all(row["path"] == "bob/carl" for row in found if row["name"].startswith("carl"))
    assert re.search(r"^\d\d:\d\d:\d\d node-up      carl +bob/carl  \d+\.\d ms$", lines.out, re.MULTILINE)
    declared = {field for field, _, _ in registry.load(registry.WORDS["watch"])[0].json}
    assert all(set(row) == declared for row in found)
    lines.send(signal.SIGINT)
    lines.ends(-signal.SIGINT)
    place.run("r2 -s alice.sock -t bob watch", status=2)


ALICE = """\
[self]
addr = "alice"
socket = "alice.sock"
[[conn]]
cmd = "unix-listen://link"
[[task]]
cmd = "echo $R2_EVENT %addr $R2_PATH >>seen; r2 -s $R2_SOCKET -t $R2_NAME ls >>seen"
[[task]]
event = "service-up"
name = "bob/web-*"
cmd = "echo service %addr >>seen"
"""


def test_tasks(place: Place) -> None:
    (place.path / "alice.toml").write_text(ALICE)
    alice = place.start("r2dm -f alice.toml").says("listening at")
    seen = place.path / "seen"
    place.node("bob")
    place.start("r2 -s bob.sock serve -n web-1 cat").says("offering")
    place.start("r2 -s bob.sock serve -n other cat").says("offering")
    place.start("r2 -s bob.sock connect --retry unix://link")
    eventually(lambda: has(seen, "service bob/web-1") and has(seen, "node-up bob bob"), seen.read_text)
    eventually(lambda: has(seen, "alice"), "what the command said of bob")
    assert not has(seen, "service bob/other")
    # A task that is new in the file runs for what is there already, and the others not again.
    more = '[[task]]\nevent = "node-down"\ncmd = "echo gone %addr >>seen"\n[[task]]\ncmd = "echo late %addr >>seen"\n'
    (place.path / "alice.toml").write_text(ALICE + more)
    alice.send(signal.SIGHUP)
    eventually(lambda: has(seen, "late bob"), seen.read_text)
    assert seen.read_text().count("node-up bob") == 1
    wrong = ALICE.replace("service-up", "service-upp")
    (place.path / "alice.toml").write_text(wrong)
    assert "event: no such event (did you mean service-up?)" in place.run("r2dm --check -f alice.toml", status=1).err


def has(file: Path, text: str) -> bool:
    return file.exists() and text in file.read_text()


def test_rules(place: Place) -> None:
    """What bob tells, and what he carries: from a file, and over a link that has other rules."""
    text = (
        '[self]\naddr = "bob"\nsocket = "bob.sock"\nadvertise = ["web-*"]\n'
        '[[conn]]\ncmd = "unix-listen://open"\n'
        '[[conn]]\ncmd = "unix-listen://still"\ntransit = false\nadvertise = ["mail"]\n'
        '[[serve]]\nname = "web-1"\ncmd = "cat"\n[[serve]]\nname = "mail"\ncmd = "cat"\n'
        '[[serve]]\nname = "web-2"\ncmd = "cat"\nprivate = true\n'
    )
    (place.path / "bob.toml").write_text(text)
    place.start("r2dm -f bob.toml").says("offers service/web-2")
    place.await_socket("open")
    place.await_socket("still")
    for address, line in (("alice", "open"), ("carl", "still"), ("dora", "open")):
        place.node(address)
        options = "--accept 'c*'" if address == "dora" else ""
        place.start(f"r2 -v -s {address}.sock connect {options} unix://{line}").says("linked to bob")
    place.run("r2 -s alice.sock wait -t dora --timeout 20s")

    def known(address: str) -> list[str]:
        return sorted(str(row["path"]) for row in rows(place, f"r2 -s {address}.sock ls -R --json", "ls"))

    eventually(lambda: known("alice") == ["bob", "bob/dora", "bob/service/web-1"], lambda: str(known("alice")))
    eventually(lambda: known("carl") == ["bob", "bob/service/mail"], lambda: str(known("carl")))
    eventually(lambda: known("dora") == ["bob", "bob/service/web-1"], lambda: str(known("dora")))
    listed = place.run("r2 -s alice.sock -t bob ls").out.split()
    assert listed == ["alice", "carl", "dora", "service/mail", "service/web-1"]
    assert place.run("r2 -s alice.sock -t bob/web-2 tunnel -", b"abc").out == "abc", "private is not secret"
    refused = place.run("r2 -s alice.sock -t bob/carl ping -c 1", status=1).err
    assert "bob: carries nothing from alice to carl" in refused
    assert "carries nothing" in place.run("r2 -s carl.sock -t bob/alice tunnel -", b"", status=255).err


def test_silence(place: Place) -> None:
    """A node that takes no part is a neighbour all the same."""
    place.node("alice")
    place.node("bob", options="--no-discover")
    place.node("carl")
    place.start("r2 -v -s bob.sock serve -n echo cat").says("offering")
    place.link("alice", "bob")
    place.link("alice", "carl")
    place.run("r2 -s carl.sock -t alice wait --timeout 20s")
    assert place.run("r2 -s bob.sock ls -R").out.split()[0] == "service/echo"
    assert "bob" not in place.run("r2 -s carl.sock ls -R").out
    assert place.run("r2 -s alice.sock -t bob/echo tunnel -", b"abc").out == "abc"
    assert place.run("r2 -s carl.sock -t alice/bob/echo tunnel -", b"abc").out == "abc"

"""The manual: the pages that are checked in are those that the declarations give, and mandoc finds no fault in any."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pages
from r2box.cli import manual, registry
from r2box.config import parse
from r2box.tools.iosh import protocol

MAN = Path(__file__).resolve().parents[2] / "man"
GENERATED = pages.render_all()
CHECKED_IN = sorted(path.name for path in MAN.iterdir())


@pytest.mark.parametrize("name", GENERATED)
def test_the_checked_in_page_is_the_generated_one(name: str) -> None:
    assert (MAN / name).is_file(), "run `make pages`"
    assert (MAN / name).read_text(encoding="utf-8") == GENERATED[name], "run `make pages`"


def test_the_page_of_the_protocol_has_every_frame_of_a_shell() -> None:
    text = (MAN / "r2-protocol.7").read_text(encoding="utf-8").partition(".Ss The service ioshd\n")[2]
    names = "HELLO START INPUT EOF SIZE STARTED REFUSED OUTPUT ERRORS EXIT CREDIT PING PONG".split()
    assert len(names) == len(protocol.KNOWN)
    for name in names:
        assert f"\n.It {name} Ta 0x{getattr(protocol, name):02x} Ta " in text


def test_every_tool_has_a_page_and_no_page_is_left_over() -> None:
    assert {name.rpartition(".")[0] for name in GENERATED} == {*registry.TOOLS, "r2box", "r2.toml"}
    assert set(CHECKED_IN) - set(GENERATED) <= {"r2-examples.7", "r2-host.7", "r2-protocol.7"}


@pytest.mark.parametrize("name", CHECKED_IN)
def test_the_pages_that_a_page_names_are_there_and_are_listed(name: str) -> None:
    text = (MAN / name).read_text(encoding="utf-8").replace("\\-", "-")
    named = re.findall(r"\b((?:r2[a-z.-]*|ioshd?))(?: |\()([1-8])\b", text)
    for page, section in named:
        assert f"{page}.{section}" in CHECKED_IN
    listed = text.partition("\n.Sh SEE ALSO\n")[2]
    for page, section in named:
        assert f"{page}.{section}" == name or f".Xr {page} {section}" in listed


@pytest.mark.parametrize("name", GENERATED)
def test_no_sentence_is_torn_off(name: str) -> None:
    """A blank at the beginning of a line is a break and an indent to roff."""
    text = re.sub(r"\n\.Bd -literal.*?\n\.Ed", "", GENERATED[name], flags=re.DOTALL)
    assert "\n " not in text


def test_the_page_of_the_configuration_has_every_key() -> None:
    text = GENERATED["r2.toml.5"]
    for table in parse.TABLES.values():
        below = text.partition(f"\n.Ss {table.header}\n")[2].partition("\n.S")[0]
        for name in table.keys:
            assert f"\n.It Cm {manual.words(name)}\n" in below


@pytest.mark.parametrize("example", pages.CONFIG_EXAMPLES, ids=lambda example: example[1].split(",")[0])
def test_the_examples_of_the_page_are_right(example: tuple[str, str]) -> None:
    assert parse.parse_config(example[0], "example.toml").addr in ("alice", "bob")


def test_the_recipe_writes_all_pages(tmp_path: Path) -> None:
    assert pages.main(["pages.py", str(tmp_path)]) == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == GENERATED

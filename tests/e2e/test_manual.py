"""The manual under mandoc, and beside what the tools themselves say."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import pages
from r2box.cli import manual, registry
from r2box.cli.command import Command
from r2box.cli.manual import render_man
from support.declarations import ALL, LS

MAN = Path(__file__).resolve().parents[2] / "man"
GENERATED = pages.render_all()
CHECKED_IN = sorted(path.name for path in MAN.iterdir())


def peer(name: str, optional: bool = False) -> str:
    """The path of another program; the test is skipped without it, or fails where peers are required."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("R2BOX_REQUIRE_PEERS") == "1" and not optional:
            pytest.fail(f"{name} is required and not installed")
        pytest.skip(f"{name} is not installed")
    return path


# ---- man pages
@pytest.mark.parametrize("command", ALL, ids=lambda command: command.name)
def test_man_page_is_clean_mdoc(command: Command) -> None:
    page = render_man(command, "0.1", "2025-02-03", ALL)
    lint = subprocess.run(
        [peer("mandoc"), "-T", "lint", "-W", "warning"], input=page, capture_output=True, text=True, encoding="utf-8"
    )
    assert (lint.stdout + lint.stderr, lint.returncode) == ("", 0)


def test_man_page_says_what_was_declared() -> None:
    page = render_man(LS, "0.1", "2025-02-03", ALL)
    shown = subprocess.run(
        [peer("mandoc"), "-T", "utf8", "-O", "width=78"], input=page, capture_output=True, text=True, encoding="utf-8"
    ).stdout
    while "\b" in shown:  # bold and underlined letters are overstruck
        at = shown.index("\b")
        shown = shown[: at - 1] + shown[at + 1 :]
    assert "           .x '-a' \\\n             | No\n" in shown  # examples keep their lines and blanks
    shown = " ".join(shown.split())
    for text in (
        "R2-LS(1)",
        "February 3, 2025",
        "r2 ls \u2013 list what the target node is connected to",
        "r2 ls [-laRq] [--json] [-c N] [-i S] [-o COLUMN] [-v]... [-s SOCKET] [--wait TIME] [-t TARGET]...",
        'Don\'t expect "quotes" or \\e or ~/x; -t may be repeated.',
        ".Dd is not a date here.",
        "'Tis café.",
        "-i, --interval S",
        "128+N",
        "No such signal",
        "what bob is connected to: r2 -s ~/.local/alice.sock -t bob ls Two lines: .x",
        "r2(1), r2-protocol(7), r2d(8)",
    ):
        assert text in shown
    assert "secret" not in shown


@pytest.mark.parametrize("name", CHECKED_IN)
def test_mandoc_finds_no_fault(name: str) -> None:
    if shutil.which("mandoc") is None:
        if os.environ.get("R2BOX_REQUIRE_PEERS") == "1":
            pytest.fail("mandoc is required and not installed")
        pytest.skip("mandoc is not installed")
    lint = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(MAN / name)], capture_output=True, text=True, timeout=60
    )
    assert (lint.stdout + lint.stderr, lint.returncode) == ("", 0)


def test_the_page_of_r2_describes_what_has_no_page_of_its_own() -> None:
    text = GENERATED["r2.1"]
    for word, place in registry.WORDS.items():
        command = registry.load(place)[0]
        if command.name == f"r2 {word}":
            below = text.partition(f"\n.Ss {manual.words(command.name)}\n")[2].partition("\n.S")[0]
            assert below
            short = [option.flags[0] for option in command.specific if option.flags[0][1] != "-"]
            assert all(f".It Fl {flag[1:]} " in below for flag in short)
        else:
            assert f".Pq see Xr {command.name} {command.section}\n".replace("-", "\\-") in text

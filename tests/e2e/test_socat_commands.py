"""Command lines that start links: what is put into their places comes out of sh and of the real socat as it went in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from r2box.net.transport.socat import fill_places
from r2box.net.transport.transport import LINK_COMMAND, parse_transport
from support.processes import need

SHOW = "import os, sys\nos.write(1, ascii(sys.argv[1:]).encode())"
ODD = "a(1) b&c;$x$(id)`id`!'\"\\,:[{~#*%|<>"  # signs of the shell, and of socat's addresses

# Each is run by the shell, and runs what stands in its place.
LINES = [
    "socat -u exec:- -",
    "socat -u system:- -",
    "socat -u SYSTEM:'-' -",
    'socat -u Exec:"-" -',
    "socat -u exec:\\- -",
    "socat -u exec:-,stderr -",
    "socat -u 'system:-,stderr' -",
    "socat - system:-!!- </dev/null",
    "sh -c 'socat -u exec:- -'",
    'sh -c "socat -u system:- -"',
    "sh -c 'sh -c \"socat -u system:- -\"'",
    "sh -c 'sh -c \"socat -u exec:- -\"'",
    "sh -c socat\\ -u\\ exec:-\\ -",
    "-%",
    "  exec -%",
    "A=1; if true; then -%; fi",
    "sh -c '-%'",
    'sh -c "-%"',
    "sh -c 'exec -%'",
    "sh -c \"sh -c '-%'\"",
    "sh -c \"sh -c 'exec -%'\"",
    "socat -u system:-% -",
    'socat -u system:"-%" -',
    "socat -u system:'cd /; -%' -",
    "socat -u system:'cd /; exec -%,stderr' -",
    "socat -u exec:-% -",
    "socat -u exec:'env A=1 -%' -",
    "socat -u system:'sh -c \\\"-%\\\"' -",
    'socat -u \'system:"sh -c \\"-%\\""\' -',
    "sh -c 'socat -u system:\"exec -%\" -'",
]


def shown(line: str) -> str:
    done = subprocess.run(["/bin/sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    return done.stdout.decode() or done.stderr.decode()


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of a program that prints its arguments."""
    need("socat")
    script: Path = tmp_path_factory.mktemp("show") / "show.py"
    script.write_text(SHOW)
    return [sys.executable, str(script)]


@pytest.mark.parametrize("line", LINES)
def test_words_arrive_as_they_are(show: list[str], line: str) -> None:
    words = [ODD, "-", "plain", *[""] * ("exec:" not in line.lower())]  # for which socat's exec: has no spelling
    assert parse_transport(line).how == LINK_COMMAND
    assert shown(fill_places(line, [*show, *words])) == ascii(words)


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12), max_size=3),
    st.sampled_from(LINES),
)
@example(["\n\t\r", "\x01\x7f", "é€"], LINES[0])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_words_arrive_as_they_are(show: list[str], words: list[str], line: str) -> None:
    assert shown(fill_places(line, [*show, *words])) == ascii(words)


def test_socat_has_the_options_that_are_used() -> None:
    need("socat")
    options = os.popen("socat -hhh").read().split()
    assert "tun-name" in options
    assert "device-name" not in options

"""Command lines that start links: what is put into their places comes out of sh and of the real socat as it went in.

And socat's options for network interfaces.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from processes import need

from r2box.net.starter import fill_places, find_places, has_tun, with_tun_name
from r2box.net.transport import TUN_NOTE, parse_transport

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
    assert parse_transport(line).how == "starter"
    assert shown(fill_places(line, [*show, *words])) == ascii(words)


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12), max_size=3),
    st.sampled_from(LINES),
)
@example(["\n\t\r", "\x01\x7f", "é€"], LINES[0])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_words_arrive_as_they_are(show: list[str], words: list[str], line: str) -> None:
    assert shown(fill_places(line, [*show, *words])) == ascii(words)


def test_there_may_be_several_places() -> None:
    assert find_places("socat system:\\'-%\\' -") == []  # nothing can be escaped there
    assert fill_places("x -% & y -%", ["a b", "c"]) == "x 'a b' c & y 'a b' c"
    assert fill_places("x", ["a"]) == "x"


@given(
    st.text(alphabet="ab -%'\"\\$(`,:!\n", max_size=40), st.sampled_from(["", "exec:", "system:", "sh -c '", "socat "])
)
def test_every_line_has_places_or_none(text: str, start: str) -> None:
    line = start + text
    for from_, to, _ in find_places(line):
        assert line[from_:to].lstrip("\\") in ("-", "-%")
    fill_places(line, [ODD])
    with_tun_name(line)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("socat tun,iff-up,device-name=r20 -", "socat tun,iff-up,tun-name=r20 -"),
        ("socat - TUN:10.0.0.1/24,Device-Name=r20,up", "socat - TUN:10.0.0.1/24,tun-name=r20,up"),
        ("socat 'tun,device-name=r20'!!- x", "socat 'tun,tun-name=r20'!!- x"),
        ("socat -!!interface:eth0,device-name=x -", "socat -!!interface:eth0,tun-name=x -"),
        ("ssh h \"sudo socat tun,'device-name=a b' -\"", "ssh h \"sudo socat tun,'tun-name=a b' -\""),
        ("socat - exec:'socat tun\\,device-name=x -'", "socat - exec:'socat tun\\,tun-name=x -'"),
        ("A=1; /usr/bin/socat tun,device-name=x - 2>y", "A=1; /usr/bin/socat tun,tun-name=x - 2>y"),
        ("socat tun,tun-name=x -", None),
        ("socat tcp:h:1,device-name=x -", None),
        ("echo tun,device-name=x", None),
        ("socat - tcp:h:1; echo tun,device-name=x", None),
        ("socat tun,xdevice-name=x -", None),
    ],
)
def test_the_name_of_an_interface(line: str, wanted: str | None) -> None:
    transport = parse_transport(line)
    assert transport.command == (line if wanted is None else wanted)
    assert transport.note == ("" if wanted is None else TUN_NOTE)
    assert transport.text == line
    assert has_tun(line) == has_tun(transport.command)


def test_socat_has_the_options_that_are_used() -> None:
    need("socat")
    options = os.popen("socat -hhh").read().split()
    assert "tun-name" in options
    assert "device-name" not in options

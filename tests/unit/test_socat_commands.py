"""Command lines that start links: what is put into their places, and socat's options for network interfaces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2box.net.transport.socat import fill_places, find_places, has_tun, with_tun_name
from r2box.net.transport.transport import TUN_NOTE, parse_transport

ODD = "a(1) b&c;$x$(id)`id`!'\"\\,:[{~#*%|<>"  # signs of the shell, and of socat's addresses


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

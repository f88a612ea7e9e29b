"""Commands that write something before their link, with real programs."""

from __future__ import annotations

import signal
import socket

import pytest

from r2box.net.client.connector import MAX_LINES
from support.processes import Place, await_port, free_port, need

# Of a fake rfcomm(1), before it carries bytes.
CONNECTED = 'printf "Connected /dev/rfcomm0 to 00:B0:D0:63:C2:26 on channel 3\\nPress CTRL-C for hangup\\n"\n'
SHOWN = "output: Connected /dev/rfcomm0 to 00:B0:D0:63:C2:26 on channel 3\n"


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
        place.programs[0].says("suspended: ", times)
    assert "link to bob resumed" in place.programs[0].err
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

"""Connections as `net.dial` makes them, in this process: one loop, real sockets of the loopback."""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest

from r2box.errors import TransportError
from r2box.net.io.loop import Loop
from r2box.net.transport.sockets import Dial
from r2box.net.transport.transport import parse_transport
from support.processes import PATIENCE, free_port


def dial(text: str) -> int | TransportError:
    """What an attempt to connect to `text` comes to: a descriptor, or the error."""
    loop = Loop()
    got: list[int | TransportError] = []

    def opened(result: int | TransportError) -> None:
        got.append(result)
        loop.stop()

    Dial(loop, parse_transport(text), opened)
    loop.later(PATIENCE, loop.stop)
    loop.run()
    loop.close()
    assert got, f"no result for {text}"
    return got[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_connection_to_itself_is_refused(host: str) -> None:
    """The local port is the target's, as the kernel may choose it: TCP connects such a socket to itself."""
    port = free_port()
    if host == "[::1]" and not has_ipv6():
        pytest.skip("no IPv6 loopback")
    result = dial(f"tcp://{host}:{port}?bind={host}:{port}")
    assert isinstance(result, TransportError), "connected to itself"
    assert str(result) == os.strerror(errno.ECONNREFUSED)
    # Reset, not closed: nothing of it keeps the listener out (which does not ask for SO_REUSEADDR).
    family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host.strip("[]"), port))
        listener.listen()


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


def test_without_a_thread_a_look_up_fails_at_once_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    no_threads(monkeypatch)
    result = dial("tcp://name.invalid:1")
    assert isinstance(result, TransportError)
    assert "limit of processes" in str(result)


def test_what_needs_no_thread_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    no_threads(monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = dial(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        assert isinstance(result, int)
        os.close(result)

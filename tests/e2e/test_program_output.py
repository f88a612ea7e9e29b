"""When a program's output has ended: the table of `net.program`, on sockets of this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from r2box.net.io.loop import Loop
from r2box.net.io.program import UNDECIDED_TIME, ProgramChannel, program_pairs

GOES_ON, ENDED = "goes on", "has ended"


class Program:
    """A program's own descriptors, and what its output has been so far."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.clock = 0.0
        self.loop.now = lambda: self.clock  # type: ignore[method-assign]
        ours, (zero, one) = program_pairs()
        self.fds = {0: socket.socket(fileno=zero), 1: socket.socket(fileno=one)}
        self.channel = ProgramChannel(self.loop, ours)
        self.got = b""
        self.has_ended = False
        self.channel.watch(self.loop, self.readable, None)

    def readable(self) -> None:
        room = memoryview(bytearray(1 << 16))
        while (size := self.channel.read_into(room)) > 0:
            self.got += room[:size]
        if not size:
            self.has_ended = True
            self.channel.watch(self.loop, None, None)

    def does(self, action: str) -> None:
        """`0 closes`, `1 shuts`, `0 says x`."""
        number, verb, *words = action.split()
        sock = self.fds[int(number)]
        if verb == "closes":
            sock.close()
        elif verb == "shuts":
            sock.shutdown(socket.SHUT_WR)
        else:
            sock.sendall(words[0].encode())
        self.turn()

    def turn(self) -> None:
        """All that has happened so far is seen."""
        for _ in range(3):
            self.loop.soon(lambda: None)
            self.loop.run_once()

    def wait_for_doubt(self) -> None:
        self.clock += UNDECIDED_TIME
        self.turn()

    def close(self) -> None:
        self.channel.close()
        for sock in self.fds.values():
            with suppress(OSError):
                sock.close()
        self.loop.close()


@pytest.fixture
def it() -> Iterator[Program]:
    made = Program()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("actions", "at_once", "later"),
    [
        ("", GOES_ON, GOES_ON),
        ("1 says a", GOES_ON, GOES_ON),
        ("0 says a, 1 says b", GOES_ON, GOES_ON),
        ("1 closes", GOES_ON, ENDED),
        ("1 shuts", GOES_ON, ENDED),
        ("1 says a, 1 closes", ENDED, ENDED),
        ("1 says a, 1 shuts", ENDED, ENDED),
        ("0 says a, 1 closes", GOES_ON, GOES_ON),
        ("1 closes, 0 says a", GOES_ON, GOES_ON),
        ("1 says a, 0 says b, 1 closes", GOES_ON, GOES_ON),
        ("1 closes, 0 says a, 0 closes", ENDED, ENDED),
        ("1 closes, 0 says a, 0 shuts", ENDED, ENDED),
        ("1 closes, 0 closes", ENDED, ENDED),
        ("0 closes, 1 closes", ENDED, ENDED),
        ("0 says a, 0 shuts", ENDED, ENDED),
        ("0 says a, 0 closes", ENDED, ENDED),
        ("0 closes", GOES_ON, GOES_ON),
        ("0 shuts", GOES_ON, ENDED),
        ("0 shuts, 0 closes", GOES_ON, GOES_ON),
        ("0 shuts, 1 says a", GOES_ON, GOES_ON),
        ("1 says a, 0 shuts", GOES_ON, GOES_ON),
        ("0 closes, 1 says a", GOES_ON, GOES_ON),
    ],
)
def test_the_end_of_the_output(it: Program, actions: str, at_once: str, later: str) -> None:
    steps = [action.strip() for action in actions.split(",") if action]
    for action in steps:
        it.does(action)
    assert it.got == "".join(action.split()[2] for action in steps if "says" in action).encode()
    assert it.has_ended == (at_once == ENDED)
    it.wait_for_doubt()
    assert it.has_ended == (later == ENDED)


def test_after_the_end_of_its_output_a_program_reads_on(it: Program) -> None:
    it.does("1 says a")
    it.does("1 closes")
    assert it.has_ended
    assert it.channel.write([b"more"]) == 4
    assert it.fds[0].recv(10) == b"more"
    with pytest.raises(BrokenPipeError):
        it.fds[0].send(b"late")
    it.channel.close_write()
    assert it.fds[0].recv(10) == b""


def test_after_the_end_of_its_input_a_program_answers_on_0(it: Program) -> None:
    it.channel.close_write()
    assert it.channel.write_fd == -1
    assert it.fds[0].recv(10) == b""
    it.does("0 says a")
    assert it.got == b"a"
    it.does("0 closes")
    assert it.has_ended


def test_what_it_wrote_is_read_where_it_left_input_unread(it: Program) -> None:
    it.channel.write([b"unread"])
    it.does("0 says a")
    it.does("1 closes")
    it.does("0 closes")
    assert it.got == b"a"
    assert it.has_ended


def test_an_end_that_comes_while_nothing_is_read_is_told_later(it: Program) -> None:
    it.does("1 closes")
    it.channel.watch(it.loop, None, None)
    it.wait_for_doubt()
    assert not it.has_ended
    it.channel.watch(it.loop, it.readable, None)
    it.turn()
    assert it.has_ended


def test_no_reader_is_left(it: Program) -> None:
    it.channel.close_read()
    for sock in it.fds.values():
        with pytest.raises(BrokenPipeError):
            sock.send(b"a")
    before = len(os.listdir("/proc/self/fd"))
    it.channel.close_write()
    assert len(os.listdir("/proc/self/fd")) == before - 1

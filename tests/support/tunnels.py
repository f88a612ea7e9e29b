"""Two nodes, tunnels between them with the test's descriptors at one end, and what passes through them."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.processes import PATIENCE, Place, Program, eventually, open_files

MIB = 1 << 20
WAYS = ("alice.sock", "bob.sock", "alice.fwd", "bob.fwd")


# -- helpers -----------------------------------------------------------------------------------------------------------


def build(place: Place, *ways: str, options: str = "") -> tuple[Program, Program]:
    """alice and bob, linked, and what of `ways` is forwarded."""
    alice, bob = place.pair(options)
    for node in sorted({way.partition(".")[0] for way in ways if way.endswith(".fwd")}):
        place.forward_socket(node)
    return alice, bob


def tunnel(place: Place, from_: str, service: str, transport: str = "-", **options: int) -> Program:
    return place.start(f"r2 -s {from_} -t bob/{service} tunnel {transport}", **options)  # type: ignore[arg-type]


@contextmanager
def nothing_left(*daemons: Program) -> Iterator[None]:
    """At the end the daemons have as many descriptors as at the beginning."""
    before = [open_files(daemon.pid) for daemon in daemons]
    yield
    eventually(
        lambda: all(open_files(daemon.pid) <= number for daemon, number in zip(daemons, before)),
        lambda: f"descriptors as before: {before}, not {[open_files(daemon.pid) for daemon in daemons]}",
    )


def send(fd: int, data: bytes) -> threading.Thread:
    """Write `data` to `fd` in a thread, and close it."""

    def work() -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except BrokenPipeError:
            pass  # who waits for it tells
        os.close(fd)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def read_all(fd: int, patience: float = PATIENCE) -> bytes:
    """All up to the end, which must come in time."""
    got: list[bytes] = []
    is_over = threading.Event()

    def work() -> None:
        while True:
            piece = os.read(fd, MIB)
            if not piece:
                break
            got.append(piece)
        is_over.set()

    threading.Thread(target=work, daemon=True).start()
    assert is_over.wait(patience), f"no end of the stream after {patience:g} s; got {sum(map(len, got))} bytes"
    return b"".join(got)


def read_size(fd: int, size: int) -> bytes:
    """So many bytes; fewer only at the end of the stream, or where they do not come in time."""
    got = b""
    deadline = time.monotonic() + PATIENCE
    while len(got) < size and select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(fd, size - len(got))
        if not piece:
            break
        got += piece
    return got


def make_ends(kind: str) -> tuple[int, int, int, int]:
    """Ours for its stdin, its stdin, ours for its stdout, its stdout."""
    if kind == "socket":
        ours, theirs = (end.detach() for end in socket.socketpair())
        return ours, theirs, ours, theirs
    in_, ours_in = os.pipe()
    ours_out, out = os.pipe()
    return ours_in, in_, ours_out, out

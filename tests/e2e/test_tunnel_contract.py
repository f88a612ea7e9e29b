"""The contract of tunnels: what holds at both ends, whatever they are and whatever is between them.

Each kind of end and each kind of way is put through the same checks: bytes both ways in their order, either direction
ended by itself, a writer that blocks, a failure that is no clean end, and a peer that is gone.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Callable

import pytest

from support.processes import Place
from support.rehearsal.transfers import bad_way
from support.tunnel_ends import End, Tunnels

SIZE = 1_500_000  # bytes each way: more than all windows and buffers at the start

# The way between alice and bob -> the control socket of the near end, and what is before the service's name.
WAYS = {
    "link": ("alice.sock", "bob/"),
    "local": ("bob.sock", ""),
    "two-links": ("carl.sock", "alice/bob/"),
    "lossy": ("alice.sock", "bob/"),
    "relayed": ("alice.fwd", "bob/"),
    "relayed-local": ("bob.fwd", ""),
}
CASES = [
    ("stdio", "link", "command"), ("pipes", "link", "command"), ("command", "link", "command"),
    ("tcp", "link", "command"), ("unix", "link", "command"), ("forward", "link", "tcp"), ("library", "link", "command"),
    ("stdio", "link", "inetd"), ("stdio", "link", "tcp"), ("stdio", "link", "unix"), ("stdio", "link", "library"),
    ("stdio", "local", "command"), ("pipes", "local", "inetd"), ("tcp", "local", "tcp"), ("unix", "local", "command"),
    ("pipes", "local", "unix"),
    ("library", "local", "unix"), ("forward", "local", "tcp"), ("command", "two-links", "tcp"),
    ("pipes", "lossy", "command"), ("pipes", "relayed", "command"), ("pipes", "relayed-local", "inetd"),
    ("library", "relayed", "tcp"),
]  # fmt: skip


def connect(place: Place, way: str) -> None:
    """Bring up the nodes of a way, whose links do not wait for another transport."""
    if way in ("local", "relayed-local"):
        place.node("bob")
    elif way == "lossy":
        place.node("alice")
        place.node("bob")
        port = bad_way(place, "--loss 5% --reorder 10% --seed 1", options="--resume 0")
        place.start(f"r2 -v -s alice.sock connect --resume 0 -n bob udp://127.0.0.1:{port}").says("linked to")
    else:
        place.pair("--resume 0")
    if way == "two-links":
        place.node("carl")
        place.link("carl", "alice", options="--resume 0")
    if way.startswith("relayed"):
        place.forward_socket(WAYS[way][0].partition(".")[0])


def numbered() -> Iterator[bytes]:
    """Bytes no two stretches of which are the same."""
    return (b"%015d\n" % number * 256 for number in itertools.count())


# -- the checks --------------------------------------------------------------------------------------------------------


def check_bytes(near: End, far: End) -> None:
    """Both directions at once, each in its own order, and each to its end."""
    dice = random.Random(1)
    there, back = dice.randbytes(SIZE), dice.randbytes(SIZE)
    writers = near.writing(there), far.writing(back)
    assert near.read(SIZE) == back
    assert far.read(SIZE) == there
    for writer in writers:
        writer.join()
    near.half_close()
    assert far.read_all() == b""
    far.half_close()
    assert near.read_all() == b""
    far.close()
    near.close()
    near.ends_well()


def half_close(first: End, second: End) -> None:
    first.write(b"question")
    first.half_close()
    assert second.read_all() == b"question"
    answer = random.Random(2).randbytes(SIZE)
    writer = second.writing(answer)
    assert first.read(SIZE) == answer, "after the end of the other direction"
    writer.join()
    second.half_close()
    assert first.read_all() == b""


def check_half_close_of_the_near_end(near: End, far: End) -> None:
    half_close(near, far)
    far.close()
    near.close()
    near.ends_well()


def check_half_close_of_the_far_end(near: End, far: End) -> None:
    half_close(far, near)
    far.close()
    near.close()
    near.ends_well()


def end_while_blocked(writer: End, reader: End) -> None:
    """All that a blocked writer got rid of arrives, and then its end."""
    taken = writer.fill(numbered())
    writer.half_close()
    assert reader.read_all() == taken
    reader.half_close()
    assert writer.read_all() == b""


def check_near_end_ends_while_it_blocks(near: End, far: End) -> None:
    end_while_blocked(near, far)
    far.close()
    near.close()
    near.ends_well()


def check_far_end_ends_while_it_blocks(near: End, far: End) -> None:
    end_while_blocked(far, near)
    far.close()
    near.close()
    near.ends_well()


def check_near_reader_closes_while_writing_blocks(near: End, far: End) -> None:
    far.fill(numbered())
    near.close()
    far.write_error()


def check_far_reader_closes_while_writing_blocks(near: End, far: End) -> None:
    near.fill(numbered())
    far.close()
    near.write_error()


def failure(failing: End, other: End) -> None:
    """What was written before it arrives; it is no clean end."""
    failing.write(b"partial")
    assert other.read(7) == b"partial"
    failing.abort()
    other.fails()


def check_failure_of_the_far_end(near: End, far: End) -> None:
    failure(far, near)


def check_reset_of_the_near_end(near: End, far: End) -> None:
    failure(near, far)


def check_peer_that_is_gone(near: End, far: End) -> None:
    far.write(b"partial")
    assert near.read(7) == b"partial"
    far.kill_node()
    near.fails()


def checks(near: str, way: str, far: str) -> Iterator[Callable[[End, End], None]]:
    yield from (
        check_bytes, check_half_close_of_the_near_end, check_half_close_of_the_far_end,
        check_near_end_ends_while_it_blocks, check_far_end_ends_while_it_blocks,
        check_near_reader_closes_while_writing_blocks, check_far_reader_closes_while_writing_blocks,
    )  # fmt: skip
    if near == "library":  # a UNIX socket, which shows each end as a plain one
        return
    if far in ("command", "inetd", "tcp"):  # who closes a UNIX socket cannot say that he has failed
        yield check_failure_of_the_far_end
    if far == "tcp" and near in ("tcp", "forward"):
        yield check_reset_of_the_near_end
    if way != "local" or (near != "forward" and far not in ("tcp", "unix")):  # which outlive the node
        yield check_peer_that_is_gone


def run(place: Place, case: tuple[str, str, str], chosen: Iterable[Callable[[End, End], None]]) -> None:
    near, way, far = case
    connect(place, way)
    with ExitStack() as stack:
        tunnels = Tunnels(stack, place, near, far, *WAYS[way])
        for check in chosen:
            print(check.__name__)  # for who looks at a failure
            with tunnels.open() as ends:
                check(*ends)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_every_end_keeps_the_contract(place: Place, case: tuple[str, str, str]) -> None:
    run(place, case, checks(*case))

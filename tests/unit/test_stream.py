"""Parts of a stream: its queue of bytes and its labels."""

from __future__ import annotations

from random import Random

import pytest

from r2box.proto.link.stream import ByteQueue
from r2box.proto.link.stream_table import IdPool

# -- what a neighbour can cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_byte_queue(seed: int) -> None:
    """Against a plain bytearray, with each buffer overwritten as soon as it may be."""
    random = Random(seed)
    queue, plain = ByteQueue(), bytearray()
    for _ in range(300):
        buffers = []
        for _ in range(random.randint(0, 4)):
            data = random.randbytes(random.choice((1, 5, 100, 20_000)))
            buffers.append(bytearray(data))
            queue.append(memoryview(buffers[-1]))
            plain += data
        for _ in range(random.randint(0, 3)):
            if queue.size:
                piece = bytes(queue.take(random.choice((1, 7, 500, 30_000))))
                assert piece
                assert plain.startswith(piece)
                del plain[: len(piece)]
        queue.settle()
        for buffer in buffers:
            buffer[:] = b"\xee" * len(buffer)
        assert queue.size == len(plain)
    queue.clear()
    assert queue.size == 0


# -- rubbish -----------------------------------------------------------------------------------------------------------


def test_numbers_of_routes_stay_short() -> None:
    """After many tunnels at once, those that come later have the smallest again."""
    labels = IdPool()
    for label in [labels.take() for _ in range(1000)]:
        labels.give(label)
    assert [labels.take() for _ in range(3)] == [1, 2, 3]

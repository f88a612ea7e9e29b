"""Read buffers that are reused.

The kernel clears each page of fresh memory, which costs more than copying the bytes.  A replay buffer keeps views of
what was read, not copies (`proto.link.replay_buffer`), so a block is reused only when no view of it is left.
"""

from __future__ import annotations

from collections import deque

from ...proto.link.replay_buffer import Block

SIZE = 1 << 19  # bytes of a block: read from descriptors and written together
MOST = 8  # blocks kept for reuse; more are in use only while a path is congested


class Pool:
    """Blocks of SIZE bytes."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque()  # the least recently used first

    def take(self, last: Block | None = None) -> Block:
        """A block that is not in use: `last` if it is free, because it may still be in the processor's cache."""
        if last is not None and is_unused(last):
            return last
        if self._blocks and is_unused(self._blocks[0]):
            self._blocks.rotate(-1)
            return self._blocks[-1]
        block = Block(SIZE)
        if len(self._blocks) < MOST:
            self._blocks.append(block)
        return block


def is_unused(block: Block) -> bool:
    """Whether no view of `block` is left: only then can its size change."""
    try:
        block.append(block.pop())
    except BufferError:
        return False
    return True


class Arena:
    """Buffer for several reads that are written together, until `clear`."""

    __slots__ = ("_at", "_block", "_pool", "_view")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._block: Block | None = None  # allocated by the first read
        self._view: memoryview | None = None
        self._at = 0

    def take(self, limit: int) -> memoryview:
        """Memory for `limit` bytes; `keep` reserves the first of them."""
        if self._view is None and limit <= SIZE:
            self._block = self._pool.take(self._block)
            self._view = memoryview(self._block)
        end = self._at + limit
        if self._view is not None and end <= SIZE:
            return self._view[self._at : end]
        return memoryview(Block(limit))

    def keep(self, size: int) -> None:
        """Keep `size` bytes of what `take` returned."""
        self._at = min(self._at + size, SIZE)

    def clear(self) -> None:
        """Reuse the memory: what was read is written, copied, or kept by views."""
        if self._at:
            self._view = None
            self._at = 0

"""Memory for what is read, used again and again.

Fresh memory costs more than the copying: the kernel has to clear each page of it.  But what was read may have to be
sent once more after a cut, and is not copied for that either (`proto.link.resume`); so a block is used again only when
nobody has a view of it any more.
"""

from __future__ import annotations

from collections import deque

from ...proto.link.replay_buffer import Block

SIZE = 1 << 19  # bytes of a block: what is read from descriptors to be written in one go
MOST = 8  # blocks that are remembered: more are only in use when a path holds much


class Pool:
    """Blocks of SIZE bytes."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque()  # given out last comes last

    def take(self, last: Block | None = None) -> Block:
        """A block that nobody uses: `last` if it is free again, as that is still in the processor's cache."""
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
    """Whether there is no view of `block`: Python lets its size be changed only then."""
    try:
        block.append(block.pop())
    except BufferError:
        return False
    return True


class Arena:
    """Room for several reads that are written in one go, up to the next `clear`."""

    __slots__ = ("_at", "_block", "_pool", "_view")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._block: Block | None = None  # until something is read: an idle program does without
        self._view: memoryview | None = None
        self._at = 0

    def take(self, limit: int) -> memoryview:
        """Room for `limit` bytes.  The first of them are used when `keep` says so."""
        if self._view is None and limit <= SIZE:
            self._block = self._pool.take(self._block)
            self._view = memoryview(self._block)
        end = self._at + limit
        if self._view is not None and end <= SIZE:
            return self._view[self._at : end]
        return memoryview(Block(limit))

    def keep(self, size: int) -> None:
        self._at = min(self._at + size, SIZE)

    def clear(self) -> None:
        """What was read is written, copied, or kept by views."""
        if self._at:
            self._view = None
            self._at = 0

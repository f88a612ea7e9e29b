"""Replay buffer: the bytes of one direction of a link that are sent and not acknowledged.

All bytes that a side of a link sends are numbered, each way from 0.  A PING carries the number of bytes before it, and
its PONG acknowledges them.  What no PONG covers is kept, so that a resumed link can send it again (see `resume`).
"""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..memory_limit import Account
    from ..wire.fields import Buffer

MIN_VIEW = 1 << 14  # bytes; a shorter buffer is copied instead of holding a whole block
CHUNK_COST = 100  # bytes of overhead for each chunk


class Block(bytearray):
    """Memory that is not reused while a view of it exists, so that a view can be kept instead of a copy."""

    __slots__ = ()


class ReplayBuffer:
    """The bytes from number `acked` up to `sent`.

    `held` is their memory, which `account` is charged with; a view counts its whole block.
    """

    __slots__ = ("_account", "_replay", "_chunks", "_last", "acked", "held", "is_enabled", "sent")

    def __init__(self, account: Account) -> None:
        self.acked = 0
        self.sent = 0
        self.held = 0
        self.is_enabled = True  # False: only counts
        self._account = account
        self._chunks: deque[tuple[Buffer, int]] = deque()  # (bytes, memory)
        self._last: object = None  # the block of the last chunk
        self._replay: deque[Buffer] = deque()  # what is left to send again

    def append(self, buffers: list[Buffer]) -> list[Buffer]:
        """Store `buffers`, which are sent now; return the same bytes to write."""
        self.sent += sum(map(len, buffers))
        if not self.is_enabled:
            return buffers
        if len(buffers) == 1 and type(buffers[0]) is bytes:  # fast path: one small frame
            self._store(buffers[0], len(buffers[0]) + CHUNK_COST)
            return buffers
        out: list[Buffer] = []
        small: list[Buffer] = []
        for buffer in buffers:
            if len(buffer) < MIN_VIEW or type(buffer) is not memoryview or type(buffer.obj) is not Block:
                small.append(buffer)
                continue
            if small:
                out.append(b"".join(small))
                small.clear()
            out.append(buffer)
        if small:
            out.append(b"".join(small))  # a copy: their memory is reused
        for buffer in out:
            block = buffer.obj if type(buffer) is memoryview else None
            if block is None:
                self._store(buffer, len(buffer) + CHUNK_COST)
            else:  # consecutive views may share a block
                self._store(buffer, CHUNK_COST if block is self._last else len(block) + CHUNK_COST)  # type: ignore[arg-type]
                self._last = block
        return out

    def _store(self, buffer: Buffer, takes: int) -> None:
        self._chunks.append((buffer, takes))
        self.held += takes
        self._account.charge(takes)

    def ack(self, number: int) -> bool:
        """The neighbour has received the bytes before `number`; False if they were not sent."""
        if number <= self.acked or number > self.sent:
            return number <= self.sent
        chunks = self._chunks
        freed = 0
        while chunks and self.acked + len(chunks[0][0]) <= number:
            buffer, takes = chunks.popleft()
            self.acked += len(buffer)
            freed += takes
        if chunks and number > self.acked:
            buffer, takes = chunks[0]
            chunks[0] = memoryview(buffer)[number - self.acked :], takes
        if not chunks:
            self._last = None
        self._free(freed)
        self.acked = number
        return True

    def _free(self, size: int) -> None:
        self.held -= size
        self._account.charge(-size)

    def rewind(self) -> None:
        """Start to send again what is not acknowledged."""
        self._replay = deque(buffer for buffer, _ in self._chunks)

    @property
    def has_replay(self) -> bool:
        """Whether there are bytes to send again."""
        return bool(self._replay)

    def replay(self, room: int) -> list[Buffer]:
        """Remove and return the next bytes to send again, `room` at most."""
        out: list[Buffer] = []
        while self._replay and room > 0:
            chunk = memoryview(self._replay.popleft())
            if len(chunk) > room:
                self._replay.appendleft(chunk[room:])
                chunk = chunk[:room]
            room -= len(chunk)
            out.append(chunk)
        return out

    def stop(self) -> None:
        """Release all memory; nothing can be sent again."""
        self.is_enabled = False
        self._free(self.held)
        self._last = None
        self._chunks.clear()
        self._replay.clear()

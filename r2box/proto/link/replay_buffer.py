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
    """Memory whose bytes stay as they are while there is a view of them, so that a view is as good as a copy."""

    __slots__ = ()


class ReplayBuffer:
    """The bytes of one direction that may have to be sent again: those from number `acked` up to `sent`.

    `held` is the memory that they take, which `account` is charged with: of a block that a view is kept of, all of it.
    """

    __slots__ = ("_account", "_again", "_chunks", "_last", "acked", "held", "is_on", "sent")

    def __init__(self, account: Account) -> None:
        self.acked = 0
        self.sent = 0
        self.held = 0
        self.is_on = True  # False: only count
        self._account = account
        self._chunks: deque[tuple[Buffer, int]] = deque()  # with what each takes
        self._last: object = None  # the block of the last chunk
        self._again: deque[Buffer] = deque()  # those to be sent again

    def keep(self, buffers: list[Buffer]) -> list[Buffer]:
        """These are sent now; the same bytes as they are to be written."""
        self.sent += sum(map(len, buffers))
        if not self.is_on:
            return buffers
        if len(buffers) == 1 and type(buffers[0]) is bytes:  # one small frame, as most are
            self._append(buffers[0], len(buffers[0]) + CHUNK_COST)
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
            out.append(b"".join(small))  # a copy: what they are views of is used again
        for buffer in out:
            block = buffer.obj if type(buffer) is memoryview else None
            if block is None:
                self._append(buffer, len(buffer) + CHUNK_COST)
            else:  # one block may have been read into several times
                self._append(buffer, CHUNK_COST if block is self._last else len(block) + CHUNK_COST)  # type: ignore[arg-type]
                self._last = block
        return out

    def _append(self, buffer: Buffer, takes: int) -> None:
        self._chunks.append((buffer, takes))
        self.held += takes
        self._account.charge(takes)

    def ack(self, number: int) -> bool:
        """The neighbour has the bytes before `number`; False if it cannot have."""
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
        """Send again what is not acknowledged."""
        self._again = deque(buffer for buffer, _ in self._chunks)

    @property
    def is_behind(self) -> bool:
        """Whether there is something to send again."""
        return bool(self._again)

    def again(self, room: int) -> list[Buffer]:
        """The next bytes to send again, `room` at most."""
        out: list[Buffer] = []
        while self._again and room > 0:
            chunk = memoryview(self._again.popleft())
            if len(chunk) > room:
                self._again.appendleft(chunk[room:])
                chunk = chunk[:room]
            room -= len(chunk)
            out.append(chunk)
        return out

    def stop(self) -> None:
        """Nothing will be sent again."""
        self.is_on = False
        self._free(self.held)
        self._last = None
        self._chunks.clear()
        self._again.clear()

"""Lines with faults: the model between descriptors.

    Plan    the faults and cuts of all lines, and the seed
    Lane    one direction: from `offer` through its faults to a writer
    Line    both directions, and their cuts
    Pair    a line between descriptors: streams, or sockets with packet boundaries

The near side is our stdio or a client; the far side is the command or the target.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import deque

from ...net.io.channel import ChannelEnd, drop_written
from .model import FOREVER, Cuts, Dice, Faults, Tally

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ...net.io.channel import Buffer
    from ...net.io.loop import Loop, Timer

    Write = Callable[[Sequence[Buffer]], int]
    Ended = Callable[[str], None]

OUT, BACK = 0, 1  # directions: from the near side to the far side, and back
CUT, BROKEN = "cut", "broken pipe"
READ_SIZE = 1 << 16  # bytes; more than any packet has
BATCH = 64  # buffers in one write; parts of a sliced stream, or packets, in one turn
DRAIN = 5.0  # seconds for the output of what was in flight before a cut


class Plan:
    """Faults and cuts of all lines.  `only` is a direction, or None for both; `faults` are arguments of Faults."""

    def __init__(
        self, seed: int, faults: dict[str, Any], *, only: int | None = None, cut_size: float = 0.0,
        cut_seconds: float = 0.0, reset: bool = False, silence: float = 0.0,
    ) -> None:  # fmt: skip
        """A line is cut about every `cut_size` bytes or `cut_seconds`: by RST if `reset`, else by FIN; with `silence`,
        it passes nothing for that many seconds."""
        self.tally = Tally()
        self.reset, self.silence = reset, silence
        self._cut = cut_size, cut_seconds
        self.seed = seed
        self._dice = Dice(seed)
        self._faults, self._only = faults, only

    def faults(self, number: int, direction: int, stream: bool) -> Faults:
        """The faults of line `number`, which depend on the seed."""
        faults = self._faults if self._only in (None, direction) else {}
        return Faults(self._dice.fork(number).fork(direction), self.tally, stream=stream, **faults)

    def cuts(self, number: int) -> Cuts:
        return Cuts(self._dice.fork(number).fork(2), *self._cut)

    @property
    def slices(self) -> bool:
        return bool(self._faults.get("slice"))


class Lane:
    """One direction.

    `write(buffers)` returns the number of bytes written, 0 to wait for `fd`.  `moved()` is called when there may be
    room again, `failed(OSError)` when writing has failed.
    """

    def __init__(
        self, loop: Loop, faults: Faults, write: Write, moved: Callable[[], None] = lambda: None,
        failed: Callable[[OSError], None] = lambda error: None, fd: int = -1, joins: bool = False,
    ) -> None:  # fmt: skip
        """With `joins`, several buffers may be written at once."""
        self._loop, self._faults, self._write = loop, faults, write
        self._moved, self._failed, self._fd = moved, failed, fd
        self._batch = BATCH if joins else 1
        self._left: deque[Buffer] = deque()  # due, but not written yet
        self._timer: Timer | None = None
        self._finished: Callable[[], None] | None = None
        self._closed = False
        self.is_silent = False  # no output now

    @property
    def is_full(self) -> bool:
        """Whether the source has to wait."""
        return self._faults.is_full

    def offer(self, data: bytes) -> None:
        self._faults.offer(data, self._loop.now())
        self.turn()

    def turn(self) -> None:
        """Write what is due, as much as the target takes, and schedule the rest."""
        if self._closed:
            return
        more = False
        if not self.is_silent:
            try:
                more = self._write_some()
            except OSError as error:
                self.close()
                self._failed(error)
                return
        self._loop.watch(self._fd, None, self.turn if more else None)
        self._sleep()
        if self._finished is not None and not (self._left or self.is_silent) and self._faults.is_empty:
            self.close()
            self._finished()
            return
        self._moved()

    def _write_some(self) -> bool:
        """Write some; return whether more is due."""
        left = self._left
        turns = BATCH
        while turns or self._fd < 0:
            turns -= 1
            if not left:
                left.extend(self._faults.due(self._loop.now()))
            if not left:
                return False
            chunk = [left.popleft() for _ in range(min(self._batch, len(left)))]
            written = self._write(chunk)
            if not written or self._batch > 1 or len(chunk[0]) > written:
                left.extendleft(reversed(drop_written(chunk, written)))
            if not written:
                break
        return bool(left)

    def _sleep(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        when = self._faults.deadline()
        if when < FOREVER and not self._left and not self.is_silent:
            self._timer = self._loop.later(max(0.0, when - self._loop.now()), self.turn)

    def finish(self, finished: Callable[[], None]) -> None:
        """End the input: call `finished()` when all output is written."""
        self._finished = finished
        self.turn()

    def close(self) -> None:
        """Stop; drop what is not written."""
        if self._closed:
            return
        self._closed = True
        self._loop.watch(self._fd)
        if self._timer is not None:
            self._timer.cancel()


class Line:
    """Both directions, and the cuts.  With `packets`, a cut does not split what is offered."""

    def __init__(self, loop: Loop, plan: Plan, number: int, packets: bool) -> None:
        self._loop, self._plan, self._packets = loop, plan, packets
        self._cuts = plan.cuts(number)
        self._silence = 0.0  # seconds of the present one
        self._cut_timer: Timer | None = None
        self.lanes: tuple[Lane, ...] = ()
        self._await_cut()

    def offer(self, direction: int, data: bytes) -> None:
        lane = self.lanes[direction]
        if self.is_dead or (self._silence and self._packets):
            self._plan.tally.silenced += 1
            return
        passed = len(data)
        if not self._silence:
            passed = self._cuts.passes(len(data), self._packets)
        if passed or not data:
            lane.offer(data[:passed])
        if self._cuts.is_cut and not self._silence:
            self._cut()
            if self._silence and passed < len(data):
                self.offer(direction, data[passed:])

    @property
    def is_dead(self) -> bool:
        """Whether an endless silence has begun: nothing passes, and no end is passed on."""
        return self._silence == FOREVER

    def _await_cut(self) -> None:
        if self._cuts.seconds:
            self._cut_timer = self._loop.later(self._cuts.seconds, self._cut)

    def _cut(self) -> None:
        self._plan.tally.cuts += 1
        silence = self._plan.silence
        if not silence:
            self.cut()
            return
        self._silence = silence
        if silence < FOREVER:
            self._cut_timer = self._loop.later(silence, self._resume)
        for lane in self.lanes:
            lane.is_silent = True
            lane.turn()

    def _resume(self) -> None:
        self._silence = 0.0
        self._cuts.next()
        self._await_cut()
        for lane in self.lanes:
            lane.is_silent = False
            lane.turn()

    def cut(self) -> None:
        """End the line."""

    def close(self) -> None:
        if self._cut_timer is not None:
            self._cut_timer.cancel()
        for lane in self.lanes:
            lane.close()


class Pair(Line):
    """A line between two sides, each a descriptor to read and a different one to write.  Owns them.

    The end of one direction is passed on and leaves the other open.  `ended(why)` is called once, when all are closed:
    "" after both directions have ended, CUT, BROKEN if the near side has closed its end, else the error.
    `half_ended()` is called when the first direction has ended.
    """

    def __init__(
        self, loop: Loop, plan: Plan, number: int, near: tuple[int, int], far: tuple[int, int], ended: Ended,
        half_ended: Callable[[], None] = lambda: None, packets: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(loop, plan, number, packets)
        self._ended: Ended | None = ended
        self._half_ended = half_ended
        self._sources = ChannelEnd(near[0]), ChannelEnd(far[0])
        self._targets = ChannelEnd(far[1]), ChannelEnd(near[1])
        self._open = [*self._sources, *self._targets]
        self._reads = [True, True]
        self._is_cut = False
        self.is_over = [False, False]
        self._room = memoryview(bytearray(READ_SIZE))
        self._readers = [lambda: self._read(OUT), lambda: self._read(BACK)]
        self.lanes = tuple(
            Lane(
                loop,
                plan.faults(number, way, stream=not packets),
                self._targets[way].write,
                self._watch,
                lambda error, way=way: self._write_failed(way, error),  # type: ignore[misc]
                self._targets[way].fd,
                joins=not packets and not plan.slices,
            )
            for way in (OUT, BACK)
        )
        self._watch()

    def _watch(self) -> None:
        if self._ended is None:
            return
        for way, lane in enumerate(self.lanes):
            wanted = self._reads[way] and not self._is_cut and (self.is_dead or not lane.is_full)
            self._loop.watch(self._sources[way].fd, self._readers[way] if wanted else None)

    def _read(self, way: int) -> None:
        try:
            size = self._sources[way].read_into(self._room)
        except OSError as error:
            sock = self._sources[way].sock
            if error.errno != errno.ECONNRESET or sock is None or sock.family != socket.AF_UNIX:
                self._end(f"reading failed: {error.strerror}", reset=True)
                return
            size = 0  # a UNIX socket that was closed with bytes unread
        if size > 0:
            self.offer(way, bytes(self._room[:size]))
        elif not size:
            self._reads[way] = False
            if self.is_dead:
                self._way_ended(way)  # the end is not passed on
            else:
                self.lanes[way].finish(lambda: self._all_out(way))
        self._watch()

    def _all_out(self, way: int) -> None:
        sock = self._targets[way].sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_WR)  # even if another process holds it
            except OSError:
                pass  # no longer connected
        else:
            self._targets[way].close()
            self._open.remove(self._targets[way])
        self._way_ended(way)

    def _write_failed(self, way: int, error: OSError) -> None:
        if way == BACK:
            known = error.errno in (errno.EPIPE, errno.ECONNRESET)
            self._end(BROKEN if known else f"writing failed: {error.strerror}", reset=True)
            return
        self._reads[way] = False  # the far side reads no more, but may still send
        self._watch()
        self._way_ended(way)

    def _way_ended(self, way: int) -> None:
        self.is_over[way] = True
        if all(self.is_over):
            self._end(CUT if self._is_cut or self.is_dead else "")
        else:
            self._half_ended()

    def cut(self) -> None:
        if self._plan.reset:
            self._end(CUT, reset=True)
            return
        self._is_cut = True
        self._watch()
        self._cut_timer = self._loop.later(DRAIN, lambda: self._end(CUT))
        for way in (OUT, BACK):
            if not self.is_over[way] and self._ended is not None:
                self.lanes[way].finish(lambda way=way: self._all_out(way))  # type: ignore[misc]

    def _end(self, why: str, reset: bool = False) -> None:
        ended = self._ended
        self.close(reset)
        if ended is not None:
            ended(why)

    def close(self, reset: bool = False) -> None:
        """Close everything; with `reset`, TCP connections are reset."""
        if self._ended is None:
            return
        self._ended = None
        super().close()
        for end in self._open:
            self._loop.watch(end.fd)
            if reset and end.sock is not None and end.sock.family != socket.AF_UNIX:
                end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()

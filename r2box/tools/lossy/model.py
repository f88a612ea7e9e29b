"""Model of a bad network: the faults of datagrams, or of the pieces of a byte stream.

`Faults` is one direction.  What is offered passes these steps, in this order:

    loss         it is dropped
    rate         it waits in a queue; a full queue drops datagrams, and makes the source of a stream wait
    corruption   1 to 3 of its bits are flipped
    duplication  it is sent twice
    delay        it is delayed by DELAY and up to JITTER more
    reordering   it is held back until 1 to 3 later ones have passed, or for HOLD

Only reordering changes the order.  Faults of a stream apply to its pieces: the bytes of one read, cut at PIECE.  With
`slice`, the output of a stream is cut into parts of that size.

Each kind of fault has its own random sequence, derived from the seed: the same seed and the same input give the same
faults under every version of Python, and the rate of one fault does not change what the others affect.
"""

from __future__ import annotations

from collections import deque

PIECE = 1200  # bytes: the size of a cautious sender's datagrams
HOLD = 0.05  # seconds that a piece is held back if nothing passes it
MAX_HELD = 8  # pieces held back at a time; a further one releases the first
TICK = 0.02  # seconds: the output of a stream with a rate comes in parts of this duration
QUEUE = 1 << 16  # bytes that may wait for the rate, as in a small router
DIRECT = 1 << 18  # bytes queued in one direction without delay
DELAYED = 1 << 23  # with delay: 80 MB/s over 100 ms
OVERHEAD = 100  # bytes charged for a queued datagram beside its size
FOREVER = float("inf")
_MASK = (1 << 64) - 1


class Dice:
    """Random numbers from a seed: SplitMix64.

    Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
    """

    __slots__ = ("_seed", "_state")

    def __init__(self, seed: int) -> None:
        self._seed = self._state = seed & _MASK

    def number(self) -> int:
        """A number of 64 bits."""
        self._state = z = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        return z ^ z >> 31

    def fraction(self) -> float:
        """A number from 0 to less than 1."""
        return (self.number() >> 11) / (1 << 53)

    def below(self, limit: int) -> int:
        """A number from 0 to less than `limit`, which is small compared with 2**64."""
        return self.number() % limit

    def fork(self, number: int) -> Dice:
        """Another sequence, which depends on the seed and `number` only."""
        return Dice(Dice(self._seed ^ Dice(number + 1).number()).number())


class Tally:
    """Counters of pieces or datagrams by fault, and of cuts.  `str()` is one line."""

    __slots__ = ("passed", "lost", "dropped", "corrupted", "duplicated", "reordered", "silenced", "cuts")

    def __init__(self) -> None:
        self.passed = self.lost = self.dropped = self.corrupted = self.duplicated = self.reordered = 0
        self.silenced = self.cuts = 0

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, name)} {name}" for name in self.__slots__)


class Faults:
    """One direction.  Times are seconds of a monotonic clock, given by the caller."""

    def __init__(
        self, dice: Dice, tally: Tally | None = None, *, stream: bool = False, loss: float = 0.0,
        duplicate: float = 0.0, reorder: float = 0.0, corrupt: float = 0.0, delay: float = 0.0, jitter: float = 0.0,
        rate: float = 0.0, queue: int = QUEUE, slice: int = 0,
    ) -> None:  # fmt: skip
        """`loss` to `corrupt` are probabilities, `rate` is bytes per second (0: unlimited)."""
        self.tally = tally or Tally()
        self._stream = stream
        self._rates = (loss, duplicate, reorder, corrupt)
        self._dice = [dice.fork(kind) for kind in range(5)]
        self._delay, self._jitter = delay, jitter
        self._rate, self._queue, self._slice = rate, queue, slice
        self._limit = DELAYED if delay or jitter or rate else DIRECT
        self._waiting: deque[tuple[float, bytes]] = deque()  # in the order of their times
        self._held: list[tuple[int, float, bytes]] = []  # how many must pass it, its latest time, its bytes
        self._size = 0  # bytes of both, OVERHEAD included
        self._free = 0.0  # when the rate has passed everything
        self._last = 0.0  # time of the last output: nothing may overtake it
        self._now = 0.0

    def offer(self, data: bytes, now: float) -> None:
        """Put in a datagram, or with `stream` some bytes of the stream."""
        self._now = now
        for at in range(0, len(data), PIECE) if self._stream else (0,):
            self._apply(data[at : at + PIECE] if self._stream else data, now)

    def due(self, now: float) -> list[bytes]:
        """Remove and return the output due by `now`."""
        self._now = now
        waiting = self._waiting
        out = []
        while waiting and waiting[0][0] <= now:
            out.append(waiting.popleft()[1])
        if self._held:
            out += [data for _, until, data in self._held if until <= now]
            self._held = [held for held in self._held if held[1] > now]
        self._size -= sum(map(len, out)) + OVERHEAD * len(out)
        size = self._slice
        if not size or not self._stream:
            return out
        return [data[at : at + size] for data in out for at in range(0, len(data), size)]

    def deadline(self) -> float:
        """When to call `due` or check `is_full` again; FOREVER: after the next `offer`."""
        when = self._waiting[0][0] if self._waiting else FOREVER
        when = min([when, *(until for _, until, _ in self._held)])
        if self.is_full and self._rate:
            when = min(when, max(self._free - self._queue / self._rate, self._now + 0.001))
        return when

    @property
    def is_full(self) -> bool:
        """Whether the source of a stream has to wait, at the time of the last call."""
        if not self._stream:
            return False
        return self._size >= self._limit or (self._free - self._now) * self._rate > self._queue

    @property
    def is_empty(self) -> bool:
        return not self._size

    # -- faults --------------------------------------------------------------------------------------------------

    def _occurs(self, kind: int) -> bool:
        rate = self._rates[kind]
        return rate > 0 and self._dice[kind].fraction() < rate

    def _apply(self, data: bytes, now: float) -> None:
        lost, doubled, held, corrupt = map(self._occurs, range(4))
        if lost:
            self.tally.lost += 1
            return
        if not self._stream and self._is_queue_full(len(data), now):
            self.tally.dropped += 1
            return
        self.tally.passed += 1
        if corrupt and data:
            self.tally.corrupted += 1
            data = self._corrupt(data)
        self._send(data, now, held)
        if doubled:
            self.tally.duplicated += 1
            self._send(data, now, False)

    def _is_queue_full(self, size: int, now: float) -> bool:
        if self._size + size + OVERHEAD > self._limit:
            return True
        waits = self._free - now
        return waits > 0 and waits * self._rate + size > self._queue

    def _corrupt(self, data: bytes) -> bytes:
        dice = self._dice[3]
        result = bytearray(data)
        for bit in {dice.below(8 * len(data)) for _ in range(1 + dice.below(3))}:
            result[bit // 8] ^= 1 << bit % 8
        return bytes(result)

    def _send(self, data: bytes, now: float, held: bool) -> None:
        size = len(data) or 1
        if self._stream and self._rate and not held:
            size = min(size, max(1, int(self._rate * TICK)))
        for at in range(0, len(data) or 1, size):
            part = data[at : at + size]
            if self._rate:
                self._free = max(now, self._free) + len(part) / self._rate
            when = max(now, self._free) + self._delay
            if self._jitter:
                when += self._jitter * self._dice[4].fraction()
            self._size += len(part) + OVERHEAD
            if held:
                self._hold(part, when)
            else:
                self._last = when = max(when, self._last)
                self._waiting.append((when, part))
        if not held and self._held:
            self._pass_held()

    def _hold(self, data: bytes, when: float) -> None:
        self.tally.reordered += 1
        if len(self._held) == MAX_HELD:
            self._release(*self._held.pop(0)[1:])
        self._held.append((1 + self._dice[2].below(3), when + HOLD, data))

    def _pass_held(self) -> None:
        """Count one more that has passed those held back."""
        held, self._held = self._held, []
        for left, until, data in held:
            if left > 1:
                self._held.append((left - 1, until, data))
            else:
                self._release(until, data)

    def _release(self, until: float, data: bytes) -> None:
        self._last = max(self._last, until - HOLD)
        self._waiting.append((self._last, data))


class Cuts:
    """Schedule of the cuts of a line: by bytes of both directions, by time, or none (0).

    The distance to the next cut is uniform between 0 and twice the mean.
    """

    def __init__(self, dice: Dice, size: float = 0.0, seconds: float = 0.0) -> None:
        self._dice = dice
        self._mean = size, seconds
        self.next()

    def next(self) -> None:
        """Schedule the next cut."""
        size, seconds = self._mean
        self.left = max(1, int(2 * size * self._dice.fraction())) if size else 0  # bytes, 0: no cut by bytes
        self.seconds = 2 * seconds * self._dice.fraction() if seconds else 0.0  # from now on, 0: no cut by time

    def passes(self, size: int, is_packet: bool = False) -> int:
        """How many of `size` bytes pass before the cut; with `is_packet`, all.  `is_cut`: it is reached."""
        if not self.left or self.is_cut:
            return size
        passed = size if is_packet else min(size, self.left)
        self.left = self.left - passed if passed < self.left else -1
        return passed

    @property
    def is_cut(self) -> bool:
        return self.left < 0

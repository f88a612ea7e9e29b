"""A bad network, as arithmetic: what becomes of datagrams, or of the pieces of a byte stream, on their way.

`Faults` is one direction.  What is offered goes past these, in this order:

    loss         it never comes
    the rate     it waits behind what is before it; where too much waits, it is dropped (a stream's source must wait)
    corruption   1 to 3 of its bits are flipped
    duplication  it comes twice
    delay        it comes later, by DELAY and up to JITTER more
    reordering   it is held back until 1 to 3 later ones have passed, or for HOLD

Only reordering changes the order.  A stream is struck in pieces: what was read at once, cut at PIECE.  `slice` is for
streams too: what comes out is cut into parts of so many bytes.

Every kind of fault has its own sequence of numbers, made from the seed: the same seed and the same offers have the same
fate under every version of Python, and a rate that is changed does not change what the other faults strike.
"""

from __future__ import annotations

from collections import deque

PIECE = 1200  # bytes: what a careful sender puts into a datagram
HOLD = 0.05  # seconds that one is held back if nothing passes it
MAX_HELD = 8  # held back at a time; the next one lets the first go
TICK = 0.02  # seconds: a stream with a rate comes out in parts of so much time
QUEUE = 1 << 16  # bytes that may wait for the rate, as in a small router
DIRECT = 1 << 18  # bytes that may wait in one direction where nothing delays them
DELAYED = 1 << 23  # and where something does: 80 MB/s over 100 ms
OVERHEAD = 100  # bytes that a waiting datagram costs beside its own, so that small ones are bounded too
FOREVER = float("inf")
_MASK = (1 << 64) - 1


class Dice:
    """Numbers from a seed: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)."""

    __slots__ = ("_seed", "_state")

    def __init__(self, seed: int) -> None:
        self._seed = self._state = seed & _MASK

    def number(self) -> int:
        """64 bits."""
        self._state = z = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
        return z ^ z >> 31

    def fraction(self) -> float:
        """0 <= it < 1."""
        return (self.number() >> 11) / (1 << 53)

    def below(self, limit: int) -> int:
        """0 <= it < limit, for limits that are small beside 2**64."""
        return self.number() % limit

    def fork(self, number: int) -> Dice:
        """Another sequence, made from the seed and `number` alone."""
        return Dice(Dice(self._seed ^ Dice(number + 1).number()).number())


class Tally:
    """What has happened: pieces or datagrams by their fate, and cuts.  `str()` of it is one line."""

    __slots__ = ("passed", "lost", "dropped", "corrupted", "duplicated", "reordered", "silenced", "cuts")

    def __init__(self) -> None:
        self.passed = self.lost = self.dropped = self.corrupted = self.duplicated = self.reordered = 0
        self.silenced = self.cuts = 0

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, name)} {name}" for name in self.__slots__)


class Faults:
    """One direction.  Times are in seconds of any clock that does not go backwards; the caller brings them along."""

    def __init__(
        self, dice: Dice, tally: Tally | None = None, *, stream: bool = False, loss: float = 0.0,
        duplicate: float = 0.0, reorder: float = 0.0, corrupt: float = 0.0, delay: float = 0.0, jitter: float = 0.0,
        rate: float = 0.0, queue: int = QUEUE, slice: int = 0,
    ) -> None:  # fmt: skip
        """`loss` to `corrupt` are probabilities, `rate` is bytes per second (0: as many as come)."""
        self.tally = tally or Tally()
        self._stream = stream
        self._rates = (loss, duplicate, reorder, corrupt)
        self._dice = [dice.fork(kind) for kind in range(5)]
        self._delay, self._jitter = delay, jitter
        self._rate, self._queue, self._slice = rate, queue, slice
        self._limit = DELAYED if delay or jitter or rate else DIRECT
        self._waiting: deque[tuple[float, bytes]] = deque()  # in the order of their times
        self._held: list[tuple[int, float, bytes]] = []  # how many must pass it, the latest time, what is held back
        self._size = 0  # bytes of both, OVERHEAD included
        self._free = 0.0  # when the bottleneck has let everything through
        self._last = 0.0  # nothing may come before
        self._now = 0.0

    def offer(self, data: bytes, now: float) -> None:
        """A datagram, or with `stream` some bytes of the stream, has come."""
        self._now = now
        for at in range(0, len(data), PIECE) if self._stream else (0,):
            self._meet(data[at : at + PIECE] if self._stream else data, now)

    def due(self, now: float) -> list[bytes]:
        """What comes out by now.  It waits here no longer."""
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
        """When to ask `due` again, or whether it `is_full`; FOREVER: not before something is offered."""
        when = self._waiting[0][0] if self._waiting else FOREVER
        when = min([when, *(until for _, until, _ in self._held)])
        if self.is_full and self._rate:
            when = min(when, max(self._free - self._queue / self._rate, self._now + 0.001))
        return when

    @property
    def is_full(self) -> bool:
        """Whether the source of a stream has to wait, as of the latest time that was told."""
        if not self._stream:
            return False
        return self._size >= self._limit or (self._free - self._now) * self._rate > self._queue

    @property
    def is_empty(self) -> bool:
        return not self._size

    # -- what strikes --------------------------------------------------------------------------------------------

    def _strikes(self, kind: int) -> bool:
        rate = self._rates[kind]
        return rate > 0 and self._dice[kind].fraction() < rate

    def _meet(self, data: bytes, now: float) -> None:
        lost, doubled, held, spoiled = map(self._strikes, range(4))
        if lost:
            self.tally.lost += 1
            return
        if not self._stream and self._is_crowded(len(data), now):
            self.tally.dropped += 1
            return
        self.tally.passed += 1
        if spoiled and data:
            self.tally.corrupted += 1
            data = self._spoil(data)
        self._send(data, now, held)
        if doubled:
            self.tally.duplicated += 1
            self._send(data, now, False)

    def _is_crowded(self, size: int, now: float) -> bool:
        if self._size + size + OVERHEAD > self._limit:
            return True
        waits = self._free - now
        return waits > 0 and waits * self._rate + size > self._queue

    def _spoil(self, data: bytes) -> bytes:
        dice = self._dice[3]
        spoiled = bytearray(data)
        for bit in {dice.below(8 * len(data)) for _ in range(1 + dice.below(3))}:
            spoiled[bit // 8] ^= 1 << bit % 8
        return bytes(spoiled)

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
            self._let_go(*self._held.pop(0)[1:])
        self._held.append((1 + self._dice[2].below(3), when + HOLD, data))

    def _pass_held(self) -> None:
        """One more has passed those that are held back."""
        held, self._held = self._held, []
        for left, until, data in held:
            if left > 1:
                self._held.append((left - 1, until, data))
            else:
                self._let_go(until, data)

    def _let_go(self, until: float, data: bytes) -> None:
        self._last = max(self._last, until - HOLD)
        self._waiting.append((self._last, data))


class Cuts:
    """When a line is cut: after so many bytes of both directions, or so much time, or neither (0).

    Each next cut comes at a random place, evenly between nothing and twice the mean.
    """

    def __init__(self, dice: Dice, size: float = 0.0, seconds: float = 0.0) -> None:
        self._dice = dice
        self._mean = size, seconds
        self.next()

    def next(self) -> None:
        """The line is whole again."""
        size, seconds = self._mean
        self.left = max(1, int(2 * size * self._dice.fraction())) if size else 0  # bytes, 0: no cut by bytes
        self.seconds = 2 * seconds * self._dice.fraction() if seconds else 0.0  # from now on, 0: no cut by time

    def passes(self, size: int, whole: bool = False) -> int:
        """How many of `size` bytes still pass, with `whole` all of them; `is_cut` then says whether the cut is here."""
        if not self.left or self.is_cut:
            return size
        passed = size if whole else min(size, self.left)
        self.left = self.left - passed if passed < self.left else -1
        return passed

    @property
    def is_cut(self) -> bool:
        return self.left < 0

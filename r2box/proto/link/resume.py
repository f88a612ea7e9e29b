"""What a link is besides its transport: the bytes that are not acknowledged yet, and the proof of who may go on.

All bytes that a side of a link sends, from its preamble on, are numbered, each way from 0.  A PING tells the number of
bytes before it and its PONG acknowledges them; so the sender keeps what no PONG has covered, and the receiver notices
when bytes were lost on the way.  When a transport is cut, the link is *suspended*: its streams wait.  The next
transport between the same two daemons takes the session up: each side tells how much it has received, and the other
sends again from there.  Nothing is lost, and nothing comes twice.

Who takes a session up proves that it was there when it began.  Both sides have put 16 random bytes into a secret, in
READY.  Each HELLO brings a nonce, and the proofs are HMAC-SHA256 (RFC 2104) under the secret of all that the attempt is
about, so that none is of use in another attempt.  The secret is not sent again, and serves once: it is replaced by one
that is derived from it and from the nonces.

The two sides cannot replace it at the same moment, as the transport may be cut again in between.  The side with the
lesser instance, the *first*, proves itself first and replaces the secret when it has the other's proof; the *second*
goes on accepting the old one until it sees the first use the new.

    second -> first    RESUME {}                    if the second was the one to notice the cut: please begin
    first  -> second   RESUME {proof 1}             the second lets go of the old transport
    second -> first    RESUME {proof 2, received}   so does the first, and replaces the secret
    first  -> second   RESUME {proof 3, received}   and right behind it, what the second has not received
"""

from __future__ import annotations

from collections import deque

from ..wire import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.frames import Buffer
    from .memory_limit import Account

WORTH = 1 << 14  # bytes that are rather copied than have a whole block kept for them
CHUNK_COST = 100  # bytes that each piece takes beside its own
HALF = 16  # bytes of a secret that each side gives
NONCE = 32  # bytes
MAX_PATIENCE = 7 * 86400  # seconds: a neighbour must not make us keep a session for ever
MAX_CANDIDATES = 16  # secrets that the first may have gone over to; only its own cut attempts add one
BEGIN, ANSWER, FINISH = 1, 2, 3  # the proofs
_NEXT = 0  # and what the next secret is made by


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
            if len(buffer) < WORTH or type(buffer) is not memoryview or type(buffer.obj) is not Block:
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


class ResumeAttempt:
    """One transport on which a session may be taken up: both nonces, and both daemons' instances, the first's first."""

    __slots__ = ("nonces", "instances", "is_first", "secret")

    def __init__(self, is_first: bool, nonces: tuple[bytes, bytes], instances: tuple[bytes, bytes]) -> None:
        """The pairs are (ours, the neighbour's)."""
        self.is_first = is_first
        self.nonces = b"".join(nonces if is_first else nonces[::-1])
        self.instances = b"".join(instances if is_first else instances[::-1])
        self.secret = b""  # that it goes by

    def mac(self, secret: bytes, what: int, received: int = 0) -> bytes:
        import hmac  # here: OpenSSL behind it costs 4 MiB, and most daemons never need it

        text = b"r2 resume" + bytes((what,)) + self.nonces + self.instances + received.to_bytes(8, "big")
        return hmac.digest(secret, text, "sha256")

    def proves(self, secret: bytes, proof: bytes, what: int, received: int = 0) -> bool:
        import hmac

        return hmac.compare_digest(self.mac(secret, what, received), proof)


class ResumeSession:
    """The secret of a link, and how long it waits for a transport: `resume_timeout` seconds."""

    __slots__ = ("_candidates", "resume_timeout", "secret")

    def __init__(self, secret: bytes, resume_timeout: int) -> None:
        self.secret = secret
        self.resume_timeout = resume_timeout
        self._candidates: deque[bytes] = deque(maxlen=MAX_CANDIDATES)

    def is_begun(self, attempt: ResumeAttempt, proof: bytes) -> bool:
        """For the second: whether the first has proven itself."""
        for secret in (self.secret, *self._candidates):
            if attempt.proves(secret, proof, BEGIN):
                if secret != self.secret:  # the first has gone over to it
                    self.secret = secret
                    self._candidates.clear()
                attempt.secret = secret
                self._candidates.append(attempt.mac(secret, _NEXT))
                return True
        return False

    def finish(self, attempt: ResumeAttempt) -> None:
        """The neighbour has proven itself in full: the next secret."""
        self.secret = attempt.mac(attempt.secret, _NEXT)
        self._candidates.clear()


def check_resume_timeout(ours: int, theirs: int) -> int:
    """What both sides bear, in seconds; 0: a cut ends the link."""
    return min(ours, theirs, MAX_PATIENCE)


READY_FIELDS = frames.Fields("READY", resume_timeout=(1, "uint"), secret=(2, "bytes"))
RESUME_FIELDS = frames.Fields("RESUME", proof=(1, "bytes"), received=(2, "uint"))

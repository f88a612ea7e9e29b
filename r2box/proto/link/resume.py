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

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

HALF = 16  # bytes of a secret that each side gives
NONCE = 32  # bytes
MAX_PATIENCE = 7 * 86400  # seconds: a neighbour must not make us keep a session for ever
MAX_CANDIDATES = 16  # secrets that the first may have gone over to; only its own cut attempts add one
BEGIN, ANSWER, FINISH = 1, 2, 3  # the proofs
_NEXT = 0  # and what the next secret is made by


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

"""Resume: the secret of a session, and the proofs by which both sides resume it over another transport.

When a transport ends without BYE, the link is *suspended*: its streams wait.  Over the next transport between the same
two daemons, each side sends the number of bytes that it has received, and the other replays the rest from its
`ReplayBuffer`.  Nothing is lost or duplicated.

A side that resumes a session proves that it took part in it.  Each side contributes 16 random bytes to a secret, in
READY.  Each HELLO holds a nonce, and the proofs are HMAC-SHA256 (RFC 2104) under the secret of all parameters of the
attempt, so that a proof is valid in one attempt only.  The secret is not sent again and is used once: the next one is
derived from it and the nonces.

The two sides cannot replace it at the same moment, since the transport may fail in between.  The side with the lesser
instance, the *first*, proves itself first, and replaces the secret when it has the other's proof.  The *second* accepts
the old one until the first uses the new one.

    second -> first    RESUME {}                    if the second has noticed the failure: please begin
    first  -> second   RESUME {proof 1}             the second leaves the old transport
    second -> first    RESUME {proof 2, received}   so does the first, and replaces the secret
    first  -> second   RESUME {proof 3, received}   followed by the replay
"""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass

HALF = 16  # bytes of a secret that each side contributes
NONCE = 32  # bytes
MAX_RESUME_TIMEOUT = 7 * 86400  # seconds, whatever the neighbour requests
MAX_CANDIDATES = 16  # secrets that the first may have switched to; each interrupted attempt adds one
BEGIN, ANSWER, FINISH = 1, 2, 3  # the proofs
_NEXT = 0  # the derivation of the next secret


class ResumeAttempt:
    """One attempt to resume: both nonces and both instances, those of the first side first."""

    __slots__ = ("nonces", "instances", "is_first", "secret")

    def __init__(self, is_first: bool, nonces: tuple[bytes, bytes], instances: tuple[bytes, bytes]) -> None:
        """The pairs are (ours, the neighbour's)."""
        self.is_first = is_first
        self.nonces = b"".join(nonces if is_first else nonces[::-1])
        self.instances = b"".join(instances if is_first else instances[::-1])
        self.secret = b""  # that it uses

    def mac(self, secret: bytes, what: int, received: int = 0) -> bytes:
        import hmac  # here: it loads OpenSSL, 4 MiB, which most daemons never need

        text = b"r2 resume" + bytes((what,)) + self.nonces + self.instances + received.to_bytes(8, "big")
        return hmac.digest(secret, text, "sha256")

    def proves(self, secret: bytes, proof: bytes, what: int, received: int = 0) -> bool:
        import hmac

        return hmac.compare_digest(self.mac(secret, what, received), proof)


class ResumeSession:
    """The secret of a link, and its `resume_timeout` in seconds."""

    __slots__ = ("_candidates", "resume_timeout", "secret")

    def __init__(self, secret: bytes, resume_timeout: int) -> None:
        self.secret = secret
        self.resume_timeout = resume_timeout
        self._candidates: deque[bytes] = deque(maxlen=MAX_CANDIDATES)

    def accepts_proof(self, attempt: ResumeAttempt, proof: bytes) -> bool:
        """On the second side: whether `proof` is that of the first."""
        for secret in (self.secret, *self._candidates):
            if attempt.proves(secret, proof, BEGIN):
                if secret != self.secret:  # the first has switched to it
                    self.secret = secret
                    self._candidates.clear()
                attempt.secret = secret
                self._candidates.append(attempt.mac(secret, _NEXT))
                return True
        return False

    def finish(self, attempt: ResumeAttempt) -> None:
        """The attempt has succeeded: derive the next secret."""
        self.secret = attempt.mac(attempt.secret, _NEXT)
        self._candidates.clear()


def check_resume_timeout(ours: int, theirs: int) -> int:
    """Choose the resume timeout from those of both sides, in seconds; 0: the link cannot be suspended."""
    return min(ours, theirs, MAX_RESUME_TIMEOUT)

"""Handshake: establishes a link by HELLO and READY, or resumes a suspended one by HELLO and RESUME.

Both sides send HELLO at once.  Each validates the other's HELLO and answers READY.  The link is up when READY was sent
and received, so a refusal (wrong address, no common version) arrives before either side reports the link as up.

If the same two daemons have a suspended link, RESUME replaces READY (see `resume`): no link comes up, and the old one
resumes over the new transport.  A side that has no such session sends READY; then the other side gives up its own.
"""

from __future__ import annotations

from ...errors import WireError
from ..wire import frames
from ..wire.address import check_address
from .resume import (
    ANSWER,
    BEGIN,
    FINISH,
    HALF,
    NONCE,
    ResumeAttempt,
    ResumeSession,
    check_resume_timeout,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..wire.fields import Buffer
    from .link import Link


class LocalPeer:
    """The parameters that this side sends in HELLO."""

    __slots__ = ("address", "instance", "role", "software")

    def __init__(self, address: str, instance: bytes, role: int = frames.NODE, software: str = "") -> None:
        self.address = address
        self.instance = instance
        self.role = role
        self.software = software


class Handshake:
    """The handshake of `link`.

    `random` is NONCE + HALF random bytes, or empty on a control socket; `resume_timeout` is what this side offers, in
    seconds.
    """

    __slots__ = (
        "_attempt", "_half", "_nonce", "_stage", "link", "old", "ready_received", "ready_sent", "resume_timeout",
    )  # fmt: skip

    def __init__(self, link: Link, random: bytes, resume_timeout: int) -> None:
        self.link = link
        self.resume_timeout = resume_timeout if len(random) == NONCE + HALF else 0
        self.old: Link | None = None  # an earlier link to the same daemon, which may be resumed
        self.ready_sent = False
        self.ready_received: dict[str, object] | None = None
        self._nonce = random[:NONCE]
        self._half = random[NONCE:]
        self._attempt: ResumeAttempt | None = None
        self._stage = 0  # the last proof that was sent

    def hello(self) -> bytes:
        """Encode HELLO."""
        us = self.link.local_peer
        return frames.encode_frame(
            frames.HELLO,
            0,
            frames.HELLO_FIELDS.encode(
                oldest=frames.OLDEST, newest=frames.VERSION, address=us.address, instance=us.instance, role=us.role,
                descriptors=int(self.link.is_local), software=us.software, nonce=self._nonce,
            ),
        )  # fmt: skip

    def on_hello(self, payload: Buffer) -> None:
        link = self.link
        if link.peer:
            raise WireError("a second hello")
        hello = link.peer = frames.HELLO_FIELDS.decode(payload)
        frames.agree_version(hello["oldest"], hello["newest"])
        if hello["role"] == frames.NODE:
            try:
                link.address = check_address(hello["address"])
            except ValueError as error:
                raise WireError(f"the neighbour's hello: {error}") from None
            if len(hello["instance"]) != 16:
                raise WireError("the neighbour's hello: the instance does not have 16 bytes")
            if hello["instance"] == link.local_peer.instance:
                raise WireError(f"a link from {link.address} to itself")
            if link.expect and link.address != link.expect:
                raise WireError(f"expected {link.expect}, but the neighbour is {link.address}")
            if link.address == link.local_peer.address:
                raise WireError(f"the neighbour has the same address as this node: {link.address}")
        elif hello["role"] != frames.CLIENT:
            raise WireError(f"the neighbour has an unknown role: {hello['role']}")
        link.host.link_hello(link)

    # -- a new link ----------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Send READY."""
        if not self.ready_sent:
            self.ready_sent = True
            wait = self.resume_timeout
            fields = frames.READY_FIELDS.encode(resume_timeout=wait, secret=self._half) if wait else b""
            self.link.control(frames.READY, 0, fields)
            self._maybe_up()

    def on_ready(self, payload: Buffer) -> None:
        if not self.link.peer or self.ready_received is not None:
            raise WireError("an unexpected READY")
        self.ready_received = frames.READY_FIELDS.decode(payload)
        if self.old is not None and self.old.is_suspended and not self.ready_sent:
            self.begin()
        else:
            self._maybe_up()

    def _maybe_up(self) -> None:
        ready = self.ready_received
        if not self.ready_sent or ready is None:
            return
        resume_timeout, secret = ready["resume_timeout"], ready["secret"]
        assert isinstance(resume_timeout, int)
        assert isinstance(secret, bytes)
        link = self.link
        resume_timeout = check_resume_timeout(self.resume_timeout, resume_timeout)
        if resume_timeout and len(secret) == HALF:
            halves = (self._half, secret) if link.is_first else (secret, self._half)
            link.up(ResumeSession(b"".join(halves), resume_timeout))
        else:
            link.up(None)

    # -- resume ------------------------------------------------------------------------------------------------------

    def may_resume(self, old: Link) -> bool:
        """Whether the neighbour is the daemon that `old` is linked to, and `old` has a session."""
        peer = self.link.peer
        if not old.sender.replay.is_enabled or old.peer["instance"] != peer["instance"] or len(peer["nonce"]) != NONCE:
            return False
        self.old = old
        return True

    def begin(self) -> None:
        """Resume the suspended `old` here."""
        old = self.old
        assert old is not None
        if self.ready_received is not None:
            self.old = None
            old.close(f"{old.address} no longer knows the session")
            self.accept()
        elif self._attempt is not None:
            return
        elif not self.link.is_first:
            self._send_resume()
        elif not self._stage:
            self._send_proof(BEGIN)

    @property
    def may_be_resumed(self) -> bool:
        """Whether the neighbour may take further bytes for those of the session, so that BYE must not be sent."""
        return self._stage == ANSWER and self.ready_received is None

    def _send_resume(self, **fields: object) -> None:
        self.link.control(frames.RESUME, 0, frames.RESUME_FIELDS.encode(**fields))

    def _send_proof(self, stage: int) -> None:
        """Send the proof `stage`.  From ANSWER on, the old link is suspended, and the bytes received are stated."""
        old = self.old
        assert old is not None
        assert old.session is not None
        attempt = self._attempt = self._attempt or self._new_attempt()
        attempt.secret = attempt.secret or old.session.secret
        received = old.received if stage != BEGIN else 0
        self._stage = stage
        self._send_resume(proof=attempt.mac(attempt.secret, stage, received), received=received)

    def _new_attempt(self) -> ResumeAttempt:
        link, peer = self.link, self.link.peer
        return ResumeAttempt(link.is_first, (self._nonce, peer["nonce"]), (link.local_peer.instance, peer["instance"]))

    def on_resume(self, payload: Buffer) -> None:
        old = self.old
        if not self.link.peer or self.link.is_up:
            raise WireError("an unexpected RESUME")
        if self.ready_sent:
            return  # READY shows that there is no session
        if old is None:
            return  # the host decides about a new link
        if not old.sender.replay.is_enabled:
            if self.may_be_resumed:
                raise WireError(f"the link to {old.address} has closed meanwhile")
            self.accept()
            return
        fields = frames.RESUME_FIELDS.decode(payload)
        if not self.link.is_first and not self._stage:
            self._on_begin(old, fields["proof"])
        elif not fields["proof"]:
            if not self._stage:
                self._send_proof(BEGIN)
        else:
            self._on_proof(old, fields["proof"], fields["received"])

    def _on_begin(self, old: Link, proof: bytes) -> None:
        assert old.session is not None
        self._attempt = self._new_attempt()
        if not old.session.accepts_proof(self._attempt, proof):
            raise WireError(f"the neighbour cannot prove that it is {old.address}, whose link is suspended")
        old.detach(self.link.now)
        self._send_proof(ANSWER)

    def _on_proof(self, old: Link, proof: bytes, received: int) -> None:
        """Process the last proof of the other side: leave the old transport and resume."""
        attempt, session, is_first = self._attempt, old.session, self.link.is_first
        stage = ANSWER if is_first else FINISH
        if attempt is None or session is None or not attempt.proves(attempt.secret, proof, stage, received):
            raise WireError(f"the neighbour cannot prove that it is {old.address}, whose link is suspended")
        if session.secret != attempt.secret:
            raise WireError(f"{old.address} has resumed over another transport")
        old.detach(self.link.now)
        if received < old.sender.replay.acked or not old.sender.replay.ack(received):
            raise WireError(f"{old.address} acknowledges bytes that were not sent")
        if is_first:
            self._send_proof(FINISH)
        session.finish(attempt)
        self.link.hand_over(old)

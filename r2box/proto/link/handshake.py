"""How a link begins: HELLO from both sides at once, then READY, or RESUME where an earlier link was cut.

Each side checks the other's HELLO and answers READY; the link is up when READY has gone both ways, so a refusal (a
wrong address, no common version) is heard before anybody calls the link up.

Where the same two daemons have a link that was cut, its session is taken up instead, as `session` tells: nothing comes
up then, but the old link goes on over the newcomer's transport.  A side that says READY has no such session (any more);
then the other gives up its own.
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


class Me:
    """What this side says of itself in its hello."""

    __slots__ = ("address", "instance", "role", "software")

    def __init__(self, address: str, instance: bytes, role: int = frames.NODE, software: str = "") -> None:
        self.address = address
        self.instance = instance
        self.role = role
        self.software = software


class Handshake:
    """The beginning of `link`.

    `random` is NONCE + HALF random bytes, or none on a control socket; `resume_timeout`: how long this side would wait
    for another transport after a cut, in seconds.
    """

    __slots__ = (
        "_attempt", "_half", "_nonce", "_stage", "link", "old", "ready_received", "ready_sent", "resume_timeout",
    )  # fmt: skip

    def __init__(self, link: Link, random: bytes, resume_timeout: int) -> None:
        self.link = link
        self.resume_timeout = resume_timeout if len(random) == NONCE + HALF else 0
        self.old: Link | None = None  # an earlier link to the same daemon, whose session may be taken up here
        self.ready_sent = False
        self.ready_received: dict[str, object] | None = None
        self._nonce = random[:NONCE]
        self._half = random[NONCE:]
        self._attempt: ResumeAttempt | None = None
        self._stage = 0  # the last proof that was sent

    def hello(self) -> bytes:
        """The first frame."""
        me = self.link.me
        return frames.encode_frame(
            frames.HELLO,
            0,
            frames.HELLO_FIELDS.encode(
                oldest=frames.OLDEST, newest=frames.VERSION, address=me.address, instance=me.instance, role=me.role,
                descriptors=int(self.link.is_local), software=me.software, nonce=self._nonce,
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
                raise WireError("the neighbour's hello: an instance that has not 16 bytes")
            if hello["instance"] == link.me.instance:
                raise WireError(f"a link from {link.address} to itself")
            if link.expect and link.address != link.expect:
                raise WireError(f"expected {link.expect}, but the neighbour is {link.address}")
            if link.address == link.me.address:
                raise WireError(f"the neighbour has the same address as this node: {link.address}")
        elif hello["role"] != frames.CLIENT:
            raise WireError(f"the neighbour is of an unknown kind: {hello['role']}")
        link.host.link_hello(link)

    # -- a new link ----------------------------------------------------------------------------------------------

    def accept(self) -> None:
        """Take the neighbour."""
        if not self.ready_sent:
            self.ready_sent = True
            wait = self.resume_timeout
            fields = frames.READY_FIELDS.encode(resume_timeout=wait, secret=self._half) if wait else b""
            self.link.control(frames.READY, 0, fields)
            self._maybe_up()

    def on_ready(self, payload: Buffer) -> None:
        if not self.link.peer or self.ready_received is not None:
            raise WireError("a READY that nobody waits for")
        self.ready_received = frames.READY_FIELDS.decode(payload)
        if self.old is not None and self.old.is_suspended and not self.ready_sent:
            self.begin()
        else:
            self._maybe_up()

    def _maybe_up(self) -> None:
        theirs = self.ready_received
        if not self.ready_sent or theirs is None:
            return
        resume_timeout, secret = theirs["resume_timeout"], theirs["secret"]
        assert isinstance(resume_timeout, int)
        assert isinstance(secret, bytes)
        link = self.link
        resume_timeout = check_resume_timeout(self.resume_timeout, resume_timeout)
        if resume_timeout and len(secret) == HALF:
            halves = (self._half, secret) if link.is_first else (secret, self._half)
            link.up(ResumeSession(b"".join(halves), resume_timeout))
        else:
            link.up(None)

    # -- an old one ----------------------------------------------------------------------------------------------

    def may_resume(self, old: Link) -> bool:
        """Whether the neighbour is the daemon that `old` was linked to, and there is a session."""
        peer = self.link.peer
        if not old.sender.replay.is_on or old.peer["instance"] != peer["instance"] or len(peer["nonce"]) != NONCE:
            return False
        self.old = old
        return True

    def begin(self) -> None:
        """The old link is suspended, so the other side may take its session up here."""
        old = self.old
        assert old is not None
        if self.ready_received is not None:
            self.old = None
            old.close(f"{old.address} does not know the session any more")
            self.accept()
        elif self._attempt is not None:
            return
        elif not self.link.is_first:
            self._say()
        elif not self._stage:
            self._prove(BEGIN)

    @property
    def is_mute(self) -> bool:
        """Whether the other side may take all that comes for the session's bytes: then no BYE must be among them."""
        return self._stage == ANSWER and self.ready_received is None

    def _say(self, **fields: object) -> None:
        self.link.control(frames.RESUME, 0, frames.RESUME_FIELDS.encode(**fields))

    def _prove(self, stage: int) -> None:
        """Send a proof; from the second one on the old link has no transport any more, and what it has is told."""
        old = self.old
        assert old is not None
        assert old.session is not None
        attempt = self._attempt = self._attempt or self._new_attempt()
        attempt.secret = attempt.secret or old.session.secret
        received = old.received if stage != BEGIN else 0
        self._stage = stage
        self._say(proof=attempt.mac(attempt.secret, stage, received), received=received)

    def _new_attempt(self) -> ResumeAttempt:
        link, peer = self.link, self.link.peer
        return ResumeAttempt(link.is_first, (self._nonce, peer["nonce"]), (link.me.instance, peer["instance"]))

    def on_resume(self, payload: Buffer) -> None:
        old = self.old
        if not self.link.peer or self.link.is_up:
            raise WireError("a RESUME that nobody waits for")
        if self.ready_sent:
            return  # it will see that there is no session here
        if old is None:
            return  # the owner decides whether there is a new link
        if not old.sender.replay.is_on:
            if self.is_mute:
                raise WireError(f"the link to {old.address} has ended meanwhile")
            self.accept()
            return
        fields = frames.RESUME_FIELDS.decode(payload)
        if not self.link.is_first and not self._stage:
            self._on_begin(old, fields["proof"])
        elif not fields["proof"]:
            if not self._stage:
                self._prove(BEGIN)
        else:
            self._on_proof(old, fields["proof"], fields["received"])

    def _on_begin(self, old: Link, proof: bytes) -> None:
        assert old.session is not None
        self._attempt = self._new_attempt()
        if not old.session.is_begun(self._attempt, proof):
            raise WireError(f"the neighbour cannot prove that it is {old.address}, whose link was cut")
        old.let_go(self.link.now)
        self._prove(ANSWER)

    def _on_proof(self, old: Link, proof: bytes, received: int) -> None:
        """The other side's last proof: let go of the old transport, and take the session up."""
        attempt, session, is_first = self._attempt, old.session, self.link.is_first
        stage = ANSWER if is_first else FINISH
        if attempt is None or session is None or not attempt.proves(attempt.secret, proof, stage, received):
            raise WireError(f"the neighbour cannot prove that it is {old.address}, whose link was cut")
        if session.secret != attempt.secret:
            raise WireError(f"{old.address} has gone on over another transport")
        old.let_go(self.link.now)
        if received < old.sender.replay.acked or not old.sender.replay.ack(received):
            raise WireError(f"{old.address} says that it has bytes which were not sent")
        if is_first:
            self._prove(FINISH)
        session.finish(attempt)
        self.link.give_to(old)

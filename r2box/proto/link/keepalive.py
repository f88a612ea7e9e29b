"""Keepalive: probes a silent neighbour and decides when the link has failed.

Any received data counts.  After `keepalive` seconds without any, a PING is sent, and another after each further such
time; after `MISSES` unanswered ones the link has failed.  Two other timeouts take precedence: that of the handshake,
and that of a probe (see `link_collision`).  A suspended link has only the resume timeout.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .link import Link

HELLO_TIMEOUT = 10.0  # seconds for the handshake: a person waits for it
KEEPALIVE = 15.0  # seconds without received data before a PING, by default
BY_US, BY_NEIGHBOUR, BY_TIMEOUT = range(3)  # what ended a link
MISSES = 3  # unanswered PINGs before the link has failed


class Keepalive:
    """The timers of `link`."""

    __slots__ = ("_received_at", "_keepalive", "_misses", "_until", "link")

    def __init__(self, link: Link, now: float, keepalive: float) -> None:
        self.link = link
        self._keepalive = keepalive
        self._received_at = now
        self._misses = 0
        self._until = now + HELLO_TIMEOUT  # another timeout; 0: none

    def on_received(self, now: float) -> bool:
        """Data was received; return whether that answers a probe."""
        self._received_at = now
        self._misses = 0
        if not (self._until and self.link.is_up):
            return False
        self._until = 0.0
        return True

    def clear_timeout(self) -> None:
        """Cancel the other timeout."""
        self._until = 0.0

    def set_timeout(self, until: float) -> None:
        """Set the other timeout, to the time `until`."""
        self._until = until

    def deadline(self) -> float:
        """See `Link.deadline`."""
        if self.link.is_down:
            return 0.0
        if self._until:
            return self._until
        if not (self.link.is_up and self.link.joins_nodes):
            return 0.0
        return self._received_at + self._keepalive * (self._misses + 1)

    def tick(self, now: float) -> None:
        due = self.deadline()
        if not due or now < due:
            return
        link = self.link
        if link.is_suspended:
            assert link.session is not None
            link.down(f"{link.reason}, and there was no other transport within {link.session.resume_timeout} s")
        elif not link.is_up:
            link.ended = BY_TIMEOUT
            what = "answer to our hello" if link.peer else "hello"
            link.close(f"no {what} within {HELLO_TIMEOUT:.0f} s: is there an r2 at the other end?")
        elif self._until:
            link.fail("no answer to a probe, and the neighbour has connected again", now)
        elif self._misses >= MISSES:
            link.fail(f"nothing received for {now - self._received_at:.0f} s", now)
        else:
            self._misses += 1
            link.ping()

    def probe(self, now: float, timeout: float) -> None:
        """See `Link.probe`."""
        if not self._until:
            self._until = now + timeout
            self.link.ping()

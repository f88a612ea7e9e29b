"""Whether the neighbour is still there: how long it may be silent, when it is asked, and when it is taken for dead.

Whatever comes from it is a sign of life.  After `keepalive` seconds without one it is asked (PING), again after each
such time, and after `MISSES` questions it is dead.  There are two other times to wait for, which go before that one:
for the hello, and for the answer to a probe.  A link without a transport waits for another one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .link import Link

HELLO_TIMEOUT = 10.0  # seconds for both hellos: a person waits for this
KEEPALIVE = 15.0  # seconds of silence after which the neighbour is asked
BY_US, BY_NEIGHBOUR, BY_TIMEOUT = range(3)  # what ends a link
MISSES = 3  # unanswered questions that make it dead


class Keepalive:
    """Of `link`."""

    __slots__ = ("_heard_at", "_keepalive", "_misses", "_until", "link")

    def __init__(self, link: Link, now: float, keepalive: float) -> None:
        self.link = link
        self._keepalive = keepalive
        self._heard_at = now
        self._misses = 0
        self._until = now + HELLO_TIMEOUT  # 0: only the silence counts

    def beat(self, now: float) -> bool:
        """A sign of life; whether a probe was waiting for it."""
        self._heard_at = now
        self._misses = 0
        if not (self._until and self.link.is_up):
            return False
        self._until = 0.0
        return True

    def relax(self) -> None:
        """Nothing particular is waited for any more."""
        self._until = 0.0

    def wait(self, until: float) -> None:
        """For a neighbour without a transport."""
        self._until = until

    def deadline(self) -> float:
        """See `Link.deadline`."""
        if self.link.is_down:
            return 0.0
        if self._until:
            return self._until
        if not (self.link.is_up and self.link.joins_nodes):
            return 0.0
        return self._heard_at + self._keepalive * (self._misses + 1)

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
            link.lose("no answer to a probe, and the neighbour has connected again", now)
        elif self._misses >= MISSES:
            link.lose(f"no sign of life for {now - self._heard_at:.0f} s", now)
        else:
            self._misses += 1
            link.ask()

    def probe(self, now: float, patience: float) -> None:
        """See `Link.probe`."""
        if not self._until:
            self._until = now + patience
            self.link.ask()

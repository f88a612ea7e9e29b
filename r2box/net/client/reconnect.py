"""Keeping a link: one Connector after another, with a pause in between that grows while it does not help."""

from __future__ import annotations

import os

from ...proto.wire.job_states import JobState
from ..io.units import format_span
from ..transport.transport import STARTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..io.log import Log
    from ..io.loop import Loop, Timer
    from ..transport.transport import Transport
    from .job import Job
    from .link_job import Connector

FIRST_DELAY = 0.1  # seconds before a link is made again
LAST_DELAY = 30.0  # and at most, after many failures
STEADY = 10.0  # seconds that a link must last for its failures to be forgotten
MAX_SAID = 16  # different failures in a row that are worth a line


class Reconnect:
    """Keeps a link over `transport`, called `name` in the log, whose state is that of `job`.

    `make(linked, ended)` gives a new Connector with these callbacks.  Failures are logged with the transport, each once
    until a link has lasted for a while.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        name: str,
        transport: Transport,
        job: Job,
        make: Callable[[Callable[[str], None], Callable[[str, bool], None]], Connector],
    ) -> None:
        self._loop = loop
        self._log = log
        self._name = name
        self._where = name if str(transport) in name else f"{name}: {transport}"  # said with each failure
        self._job = job
        self._make = make
        self._starts = transport.kind == STARTER  # it makes links by itself: that it runs is all that is seen of them
        self._delay = FIRST_DELAY
        self._said: set[str] = set()
        self._since = 0.0  # when there was a link
        self._timer: Timer | None = None
        self._connector: Connector | None = None
        self._done: Callable[[], None] | None = None
        self._ended = False

    def start(self) -> None:
        """Make the link."""
        self._timer = None
        self._since = self._loop.now() if self._starts else 0.0
        self._connector = self._make(self._linked, self._over)
        try:
            self._connector.start()
        except OSError as error:
            self._over(error.strerror or str(error), False)

    def restart(self) -> None:
        """Forget what there is, and begin again."""
        connector, self._connector = self._connector, None
        if self._timer is not None:
            self._timer.cancel()
        if connector is not None:
            connector.abandon()
        self.start()

    def hurry(self) -> None:
        """If it waits for the next attempt, make it at once."""
        self._delay = FIRST_DELAY
        if self._timer is not None and not self._ended:
            self._timer.cancel()
            self.start()

    def _linked(self, address: str) -> None:
        self._since = self._since or self._loop.now()
        self._log.info(f"{self._name}: linked to {address}")

    def _over(self, why: str, linked: bool) -> None:
        connector, self._connector = self._connector, None
        if self._ended:
            self._say_done()
            return
        was_steady = self._since and self._loop.now() - self._since >= STEADY
        if was_steady:
            self._said.clear()
        if was_steady or (connector is not None and connector.was_cut):
            self._delay = FIRST_DELAY
        jitter = 0.75 + os.urandom(1)[0] / 512  # so that many that failed together do not come back together
        delay = self._delay * jitter
        if why and why not in self._said and len(self._said) < MAX_SAID:
            self._log.warning(f"{self._where}: {why}; trying again in {format_span(round(delay, 1))}")
            self._said.add(why)
        self._job.enter(JobState.RETRYING, reason=why or "the link ended", delay=delay)
        self._timer = self._loop.later(delay, self.start)
        self._delay = min(2 * self._delay, LAST_DELAY)

    def stop(self) -> None:
        """Make no more attempts."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()

    def end(self, done: Callable[[], None]) -> None:
        """Give up; done() when what ran for it has ended."""
        self.stop()
        self._done = done
        if self._connector is not None:
            self._connector.end()
        else:
            self._say_done()

    def kill(self) -> None:
        """Kill what runs for it."""
        if self._connector is not None:
            self._connector.kill()

    def _say_done(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done()

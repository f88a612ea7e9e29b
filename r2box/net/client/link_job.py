"""Link job: one Connector, or one after another with a pause that grows while links fail."""

from __future__ import annotations

import os

from ...proto.wire.job_states import JobKind, JobState
from ..io.units import format_span
from ..transport.transport import LINK_COMMAND
from .connector import Connector
from .job import Job, JobReport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..io.log import Log
    from ..io.loop import Loop, Timer
    from .client import Client
    from .connector import LinkOptions

FIRST_DELAY = 0.1  # seconds before a link is made again
LAST_DELAY = 30.0  # and at most, after many failures
STEADY = 10.0  # seconds that a link must last for its failures to be forgotten
MAX_LOGGED = 16  # different failures in a row that are logged


class LinkJob(Job):
    """A link as `options` describe it, called `name` in the log.

    It is made again whenever it ends; each failure is logged once until a link has lasted for `STEADY` seconds.  With
    `ended` there is one attempt only: ended(why) is called when it is over, and nothing is logged.  linked(address) is
    called for each link, listening(where) when a transport that listens does.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        socket_path: str,
        options: LinkOptions,
        name: str = "",
        *,
        linked: Callable[[str], None] = lambda address: None,
        listening: Callable[[str], None] = lambda where: None,
        ended: Callable[[str], None] | None = None,
    ) -> None:
        transport = options.transport
        self._loop = loop
        self._log = log
        self._socket_path = socket_path
        self._options = options
        self._name = name or options.expect or transport.text
        self._on_linked = linked
        self._on_listening = listening
        self._on_ended = ended
        self._report = JobReport(loop, JobKind.LINK, transport.text, options.expect)
        self._client: Client
        self._delay = FIRST_DELAY
        self._logged: set[str] = set()
        self._since = 0.0  # when the link came up
        self._timer: Timer | None = None
        self._connector: Connector | None = None
        self._done: Callable[[], None] | None = None
        self._is_stopped = False

    def begin(self, client: Client) -> None:
        """Make the link; what there was before is abandoned."""
        self._client = client
        self._report.use(client)
        connector, self._connector = self._connector, None
        if self._timer is not None:
            self._timer.cancel()
        if connector is not None:
            connector.abandon()
        self._start()

    def hurry(self) -> None:
        self._delay = FIRST_DELAY
        if self._timer is not None and not self._is_stopped:
            self._timer.cancel()
            self._start()

    def stop(self) -> None:
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def end(self, done: Callable[[], None]) -> None:
        self._done = done
        if self._connector is not None:
            self._connector.end()
        else:
            self._finished()

    def kill(self) -> None:
        if self._connector is not None:
            self._connector.kill()

    def _start(self) -> None:
        self._timer = None
        # A command that makes links by itself counts as up while it runs.
        self._since = self._loop.now() if self._options.transport.kind == LINK_COMMAND else 0.0
        self._connector = Connector(
            self._loop, self._log, self._client, self._socket_path, self._options, self._report,
            linked=self._linked, listening=self._on_listening, ended=self._over,
        )  # fmt: skip
        try:
            self._connector.start()
        except OSError as error:
            self._over(error.strerror or str(error))

    def _linked(self, address: str) -> None:
        self._since = self._since or self._loop.now()
        if self._on_ended is None:
            self._log.info(f"{self._name}: linked to {address}")
        self._on_linked(address)

    def _over(self, why: str) -> None:
        connector, self._connector = self._connector, None
        if self._on_ended is not None:
            self._on_ended(why)
        if self._is_stopped or self._on_ended is not None:
            self._finished()
            return
        was_steady = self._since and self._loop.now() - self._since >= STEADY
        if was_steady:
            self._logged.clear()
        if was_steady or (connector is not None and connector.was_cut):
            self._delay = FIRST_DELAY
        jitter = 0.75 + os.urandom(1)[0] / 512  # so that many that failed together do not retry together
        delay = self._delay * jitter
        if why and why not in self._logged and len(self._logged) < MAX_LOGGED:
            transport = str(self._options.transport)
            where = self._name if transport in self._name else f"{self._name}: {transport}"
            self._log.warning(f"{where}: {why}; trying again in {format_span(round(delay, 1))}")
            self._logged.add(why)
        self._report.enter(JobState.RETRYING, reason=why or "the link ended", delay=delay)
        self._timer = self._loop.later(delay, self._start)
        self._delay = min(2 * self._delay, LAST_DELAY)

    def _finished(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done()

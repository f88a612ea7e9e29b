"""Jobs: what a program keeps up while it has a daemon, the state of each, and their connection to the daemon.

    Job        a link, a service, a forward or tasks: how it is begun, hurried and ended
    JobReport  the state of one, reported to the daemon in JOB messages
    JobClient  the connection to the daemon that jobs share
"""

from __future__ import annotations

from ...proto.wire import messages
from ...proto.wire.job_states import MAX_TEXT, JobKind, JobState
from ..io.channel import close_all, socketpair
from .client import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..io.loop import Loop


class Job:
    """One job.  Making it checks its arguments and touches nothing."""

    def begin(self, client: Client) -> None:
        """Start, or start again: the daemon behind `client` has answered."""
        raise NotImplementedError

    def event(self, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        """An event of the daemon that answers no request; only a service has any."""
        close_all(descriptors)

    def lose(self) -> None:
        """The connection to the daemon has failed; `begin` may follow."""

    def hurry(self) -> None:
        """Make a pending attempt now."""

    def stop(self) -> None:
        """Make no further attempts."""

    def withdraw(self) -> None:
        """End what must end before the program leaves the daemon."""

    def end(self, done: Callable[[], None]) -> None:
        """End what still runs, then done()."""
        done()

    def kill(self) -> None:
        """Kill what runs."""


class JobReport:
    """State of one job.  `name` is the neighbour ("" while any will do), the service or the forward's target.

    Reports are sent while there is a client to send them (`use`), and the last one again to each new client.
    """

    def __init__(self, loop: Loop, kind: JobKind, transport: str, name: str = "", number: int = 0) -> None:
        self._loop = loop
        self._number = number
        self._client: Client | None = None
        self._due = 0.0  # when the next attempt will be made
        self._fields: dict[str, Any] = {
            "job": kind, "state": JobState.CONNECTING, "name": name[:MAX_TEXT], "transport": transport[:MAX_TEXT],
        }  # fmt: skip

    def use(self, client: Client) -> None:
        """Report to the daemon behind `client`, which is up."""
        self._client = client
        self._send()

    def enter(self, state: JobState, *, reason: str = "", where: str = "", delay: float = 0.0, name: str = "") -> None:
        """Change the state.  `delay` is in seconds; the reason of a failure is kept while the next attempt is made."""
        fields = self._fields
        tries = fields.get("tries", 0)
        if state == JobState.CONNECTING:
            reason = fields.get("reason", "")
        elif state != JobState.RETRYING:
            tries = 0
        self._due = self._loop.now() + delay
        fields.update(
            state=state,
            reason=reason[:MAX_TEXT],
            where=where[:MAX_TEXT],
            tries=tries + (state == JobState.RETRYING),
        )
        if name:
            fields["name"] = name[:MAX_TEXT]
        self._send()

    def _send(self) -> None:
        if self._client is not None:
            waits = self._fields["state"] == JobState.RETRYING
            left = max(1, int((self._due - self._loop.now()) * 1000)) if waits else 0
            self._client.send(messages.JOB, 0, number=self._number, next=left, **self._fields)


class JobClient:
    """Connection to the daemon for `jobs`: begins them whenever the daemon has answered, and ends them in order.

    At most one of them is a service.
    """

    def __init__(self, loop: Loop, *jobs: Job) -> None:
        self.loop = loop
        self.jobs: Sequence[Job] = jobs
        self.is_stopped = False
        self.client: Client | None = None

    def attach(self, fd: int) -> None:
        """Connect over `fd`, a UNIX socket that leads to the daemon."""
        self.client = Client(self.loop, fd, ready=self._ready, lost=self._closed, event=self.jobs[0].event)

    def embed(self, adopt: Callable[[int], object]) -> None:
        """Connect to a daemon in this process: adopt(fd) gives it the other end of a socketpair.  OSError."""
        ours, theirs = socketpair()
        adopt(theirs)
        self.attach(ours)

    def _ready(self) -> None:
        if not self.is_stopped:
            assert self.client is not None
            for job in self.jobs:
                job.begin(self.client)

    def _closed(self, why: str) -> None:
        if not self.is_stopped:
            for job in self.jobs:
                job.lose()
        self.lost(why)

    def lost(self, why: str) -> None:
        """The connection has failed, also after `stop`."""
        raise NotImplementedError

    def hurry(self) -> None:
        """Make pending attempts now."""
        for job in self.jobs:
            job.hurry()

    def stop(self) -> None:
        """Begin nothing any more."""
        self.is_stopped = True
        for job in self.jobs:
            job.stop()

    def leave(
        self,
        done: Callable[[], None],
        left: Callable[[], None] = lambda: None,
        silent: Callable[[str], None] = lambda why: None,
    ) -> None:
        """Stop, leave the daemon, left(), end what runs, done().  silent(why) first if the daemon does not answer."""
        self.stop()
        for job in self.jobs:
            job.withdraw()

        def has_left() -> None:
            left()
            ended = countdown(len(self.jobs), done)
            for job in self.jobs:
                job.end(ended)

        if self.client is not None:
            self.client.leave(has_left, silent)
        else:
            has_left()


def countdown(count: int, done: Callable[[], None]) -> Callable[[], None]:
    """A function whose call number `count` calls done(); with 0, done() is called at once."""

    def one_less() -> None:
        nonlocal count
        count -= 1
        if count == 0:
            done()

    if not count:
        done()
    return one_less

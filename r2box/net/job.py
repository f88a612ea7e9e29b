"""Jobs: the links, services and forwards that a program keeps, and their states.

    Job        the side of the program: reports each change to the daemon, in a JOB message
    JobRecord  one job as the daemon knows it
    JobTable   all jobs of one client of the daemon; they are removed when the client ends

    state       meaning                                                        next states
    CONNECTING  an attempt is being made                                       all others
    LISTENING   connections are accepted, each makes a link or a tunnel        RETRYING, STOPPED
    UP          the link is up, or the service is offered                      RETRYING, STOPPED
    RUNNING     a command runs that makes links itself                         RETRYING, STOPPED
    RETRYING    the last attempt failed; `reason` says why, `next` when        CONNECTING, LISTENING, STOPPED
    STOPPED     it failed, and is not tried again                              CONNECTING
"""

from __future__ import annotations

from enum import IntEnum

from ..errors import RefusedError
from ..proto import body as say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .client import Client
    from .loop import Loop

MAX_JOBS = 256  # of one client: a forward has one for each TRANSPORT of its command line
MAX_TEXT = 512  # characters of each text of a job


class JobKind(IntEnum):
    LINK, SERVICE, FORWARD = range(3)


class JobState(IntEnum):
    CONNECTING, LISTENING, UP, RUNNING, RETRYING, STOPPED = range(6)


TRYING = (JobState.CONNECTING, JobState.RETRYING)


class Job:
    """One job of this program.  `name` is the neighbour ("" while any will do), the service or the forward's target.

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

    def use(self, client: Client | None) -> None:
        """Report to the daemon behind `client`, which is up; None: there is no daemon now."""
        self._client = client
        self._report()

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
        self._report()

    def _report(self) -> None:
        if self._client is not None:
            waits = self._fields["state"] == JobState.RETRYING
            left = max(1, int((self._due - self._loop.now()) * 1000)) if waits else 0
            self._client.send(say.JOB, 0, number=self._number, next=left, **self._fields)


class JobRecord:
    """A job as the client `client` has reported it; `begun` is when it came into its present state."""

    __slots__ = ("begun", "client", "due", "fields")

    def __init__(self, client: str, fields: dict[str, Any], now: float, before: JobRecord | None = None) -> None:
        self.client = client
        self.fields = fields
        self.due = now + fields.pop("next") / 1000
        self.begun = now
        if before is not None:
            old, new = before.fields["state"], fields["state"]
            if old == new or (old in TRYING and new in TRYING):
                self.begun = before.begun

    def line(self, now: float, pid: int) -> bytes:
        """As STATUS_IS has it."""
        waits = self.fields["state"] == JobState.RETRYING
        left = max(1, int((self.due - now) * 1000)) if waits else 0
        age = max(0, int((now - self.begun) * 1000))
        return say.JOB_LINE.encode(**self.fields, next=left, age=age, client=self.client, pid=pid)


class JobTable:
    """The jobs of one client, by number."""

    __slots__ = ("records",)

    def __init__(self) -> None:
        self.records: dict[int, JobRecord] = {}

    def take(self, client: str, body: say.Body, now: float) -> None:
        """Keep what a JOB message says.  RefusedError if the client has `MAX_JOBS` already."""
        number = body["number"]
        if number not in self.records and len(self.records) >= MAX_JOBS:
            raise RefusedError(f"{client}: reports more than {MAX_JOBS} jobs")
        fields = {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in body.values.items()}
        del fields["number"]
        self.records[number] = JobRecord(client, fields, now, self.records.get(number))

    def clear(self) -> None:
        """The client has ended, or is about to."""
        self.records.clear()

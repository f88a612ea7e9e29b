"""Job table: the jobs of one client, as it has reported them.  They are removed when the client disconnects."""

from __future__ import annotations

from ...errors import RefusedError
from ...proto.wire import messages
from ...proto.wire.job_states import MAX_TEXT, TRYING, JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_JOBS = 256  # of one client: a forward has one for each TRANSPORT of its command line


class JobRecord:
    """A job as `client` has reported it; `begun` is the time of its last change of state."""

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
        """Encode it for STATUS_IS."""
        waits = self.fields["state"] == JobState.RETRYING
        left = max(1, int((self.due - now) * 1000)) if waits else 0
        age = max(0, int((now - self.begun) * 1000))
        return messages.JOB_LINE.encode(**self.fields, next=left, age=age, client=self.client, pid=pid)


class JobTable:
    """The jobs of one client, by number."""

    __slots__ = ("records",)

    def __init__(self) -> None:
        self.records: dict[int, JobRecord] = {}

    def take(self, client: str, body: messages.Body, now: float) -> None:
        """Store a JOB message.  RefusedError if the client has `MAX_JOBS` already."""
        number = body["number"]
        if number not in self.records and len(self.records) >= MAX_JOBS:
            raise RefusedError(f"{client}: more than {MAX_JOBS} jobs")
        fields = {name: value[:MAX_TEXT] if isinstance(value, str) else value for name, value in body.values.items()}
        del fields["number"]
        self.records[number] = JobRecord(client, fields, now, self.records.get(number))

    def clear(self) -> None:
        """Remove all: the client has disconnected, or is about to."""
        self.records.clear()

"""Job: reports the state of one link, service or forward of this program to the daemon, in JOB messages."""

from __future__ import annotations

from ...proto.wire import messages
from ...proto.wire.job_states import MAX_TEXT, JobKind, JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..io.loop import Loop
    from .client import Client


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
            self._client.send(messages.JOB, 0, number=self._number, next=left, **self._fields)

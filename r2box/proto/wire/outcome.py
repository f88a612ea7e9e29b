"""Outcome of a tunnel: a clean end with the exit status of a process, or a failure with its reason."""

from __future__ import annotations

from ...errors import SIGNALLED, TOOL_FAILED
from .fields import shorten
from .frames import CLOSE_FIELDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .fields import Buffer

ENDED = 0  # the far end has finished; `status` or `signal` is that of its program
UNKNOWN = 1  # a name on the path was not resolved
REFUSED = 2  # the node or the service refused the tunnel
LOST = 3  # a link or a daemon on the path failed
GONE = 4  # the program at the far end disconnected
BUSY = 5  # a limit was reached
FAILED = 6  # any other failure
UNREAD = 7  # the output of the opener has no reader


class Outcome:
    """`code` is one of the constants above; `status` (0 to 255) and `signal` are those of the program, or 0."""

    __slots__ = ("code", "signal", "status", "text")

    def __init__(self, code: int = ENDED, text: str = "", status: int = 0, signal: int = 0) -> None:
        self.code = code
        self.text = text
        self.status = status
        self.signal = signal

    @property
    def is_clean(self) -> bool:
        """Whether nothing failed and no program was killed."""
        return self.code == ENDED and not self.signal

    @property
    def exit_status(self) -> int:
        """Exit status for a tool: the program's, 128 + its signal, or 255 for a failure of r2."""
        if self.code != ENDED:
            return TOOL_FAILED
        return SIGNALLED + self.signal if self.signal else self.status & 0xFF

    def describe(self) -> str:
        """Return a description; empty after a success."""
        if self.text or self.code != ENDED:
            return self.text or "the tunnel failed"
        if self.signal:
            return f"killed by signal {self.signal}"
        if self.status:
            note = {126: " (cannot be executed)", 127: " (command not found)"}.get(self.status, "")
            return f"exited with status {self.status}{note}"
        return ""

    def fields(self) -> dict[str, Any]:
        """Return the fields that CLOSE, ENDED and EXITED share."""
        return {"code": self.code, "status": self.status, "signal": self.signal, "text": shorten(self.text)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and self.fields() == other.fields()

    def __hash__(self) -> int:
        return hash((self.code, self.status, self.signal, self.text))

    def __repr__(self) -> str:
        return f"Outcome({self.code}, {self.text!r}, {self.status}, {self.signal})"


def make_outcome(fields: Any) -> Outcome:
    """The inverse of `Outcome.fields`."""
    return Outcome(fields["code"], fields["text"], fields["status"], fields["signal"])


def encode_outcome(outcome: Outcome) -> bytes:
    """Encode the payload of a CLOSE frame."""
    return CLOSE_FIELDS.encode(**outcome.fields())


def decode_outcome(payload: Buffer) -> Outcome:
    """Decode the payload of a CLOSE frame.  WireError if it is malformed."""
    return make_outcome(CLOSE_FIELDS.decode(payload))

"""How a tunnel ended: by itself, with a status as a process has it, or by a failure that somebody names."""

from __future__ import annotations

from ...errors import SIGNALLED, TOOL_FAILED
from .fields import shorten
from .frames import CLOSE_FIELDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .fields import Buffer

ENDED = 0  # the far end is done; `status` or `signal` say how its program ended
UNKNOWN = 1  # a name on the path could not be resolved
REFUSED = 2  # the node or the service does not want this tunnel
LOST = 3  # a link or a daemon on the way went away
GONE = 4  # the program at the other end went away
BUSY = 5  # a limit was reached
FAILED = 6  # anything else
UNREAD = 7  # nobody reads the output of the side that opened


class Outcome:
    """`code` is one of the constants above; `status` 0 to 255 and `signal` are of the program, 0 if there is none."""

    __slots__ = ("code", "signal", "status", "text")

    def __init__(self, code: int = ENDED, text: str = "", status: int = 0, signal: int = 0) -> None:
        self.code = code
        self.text = text
        self.status = status
        self.signal = signal

    @property
    def is_clean(self) -> bool:
        """Whether the stream came to its own end: nothing failed and no program was killed."""
        return self.code == ENDED and not self.signal

    @property
    def exit_status(self) -> int:
        """The status for a tool that passes it on: the program's, 128 + its signal, or 255 for a failure of r2's."""
        if self.code != ENDED:
            return TOOL_FAILED
        return SIGNALLED + self.signal if self.signal else self.status & 0xFF

    def describe(self) -> str:
        """In words; empty if all went well."""
        if self.text or self.code != ENDED:
            return self.text or "the tunnel failed"
        if self.signal:
            return f"killed by signal {self.signal}"
        if self.status:
            note = {126: " (cannot be executed)", 127: " (command not found)"}.get(self.status, "")
            return f"exited with status {self.status}{note}"
        return ""

    def fields(self) -> dict[str, Any]:
        """As the fields that CLOSE, ENDED and EXITED share."""
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
    """The payload of a CLOSE frame."""
    return CLOSE_FIELDS.encode(**outcome.fields())


def decode_outcome(payload: Buffer) -> Outcome:
    """The inverse; WireError if it is none."""
    return make_outcome(CLOSE_FIELDS.decode(payload))

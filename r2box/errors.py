"""Exception tree and exit statuses.

An error of the *peer* (bytes that violate the protocol, a refused link, an unknown service) never leaves `proto` as an
exception: its state machines turn it into an event or an outcome.  An error of the *caller* (an invalid address, option
or file) is one of these exceptions.  Any other exception that reaches a user is a bug.

The exit statuses follow the shell (126, 127, 128 + signal) and ssh (255: the tool itself failed,
where it otherwise passes on the status of a command).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

OK = 0
FAILED = 1
USAGE = 2
NOT_EXECUTABLE = 126
NOT_FOUND = 127
SIGNALLED = 128  # plus the number of the signal
BROKEN_PIPE = SIGNALLED + 13  # SIGPIPE
TOOL_FAILED = 255


class R2Error(Exception):
    """Root of the tree.  `str(error)` is `what: why`: one line, without the tool's name and without a full stop."""

    status = FAILED


class UsageError(R2Error):
    """The command line is wrong."""

    status = USAGE


class AddressError(R2Error, ValueError):
    """Text that is not an address or a path."""

    status = USAGE


class ConfigError(R2Error):
    """A configuration file that cannot be read, or has an error."""


class TransportError(R2Error):
    """A transport that is invalid or cannot be opened."""


class DaemonError(R2Error):
    """There is no daemon at the socket, or it refused a request, or it ended."""


class RefusedError(DaemonError):
    """A node on the path refused, such as a tunnel or a request.  The text names that node."""


class UnknownError(RefusedError):
    """A name on the path is not known."""


class BusyError(RefusedError):
    """A limit of a node on the path was reached; a later attempt may succeed."""


class WireError(R2Error):
    """Bytes that violate the protocol.

    Raised by `proto.wire` only; `proto.link` closes the link on it.  The codec raises nothing else.
    """


def suggestion(word: str, choices: Iterable[str]) -> str:
    """` (did you mean X?)` with the choice most similar to `word`; empty if none is similar."""
    from difflib import get_close_matches

    names = {choice.lstrip("-"): choice for choice in choices}  # dashes do not make options similar
    return "".join(f" (did you mean {names[match]}?)" for match in get_close_matches(word.lstrip("-"), names, 1))

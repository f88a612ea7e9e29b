"""What can go wrong, as one tree, and the exit status that each kind gets.

Two sorts are kept apart.  A *peer's* fault (bytes that are not the protocol, a refused link, an unknown
service) never escapes from `proto` as an exception: the machines there turn it into an event or an outcome.
A *caller's* fault (a bad address, a bad option, a bad file) is one of these exceptions.  Anything else that
reaches a user is a bug.

Every tool ends with one of the statuses below.  They follow the shell (126, 127, 128 + signal) and ssh (255:
the tool itself failed, where otherwise a command's own status is passed on).
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
BROKEN_PIPE = SIGNALLED + 13  # SIGPIPE: what was written is not read
OWN_FAILURE = 255


class R2Error(Exception):
    """The root.  `str(error)` is `what: why`, one line, without the tool's name and without a full stop."""

    status = FAILED


class UsageError(R2Error):
    """The command line is wrong."""

    status = USAGE


class AddressError(R2Error, ValueError):
    """A text that is not an address or a path of addresses."""

    status = USAGE


class ConfigError(R2Error):
    """A configuration file that cannot be read or must not be used."""


class TransportError(R2Error):
    """A transport that is spelled wrong, or that could not be opened."""


class DaemonError(R2Error):
    """No daemon at the socket, or the daemon refused a request, or it went away."""


class RefusedError(DaemonError):
    """A node on the way said no: an unknown name, a refused tunnel.  The text names the node that said it."""


class UnknownError(RefusedError):
    """A node knows no node and no service of that name."""


class BusyError(RefusedError):
    """A node on the way could not: a limit is reached.  Later it may."""


class WireError(R2Error):
    """Bytes that are not the protocol.

    Raised in `proto.wire` only, and turned into the end of the link by `proto.link`; a program that uses the
    codec alone catches this and nothing else.
    """


def suggestion(word: str, choices: Iterable[str]) -> str:
    """` (did you mean X?)` for the choice most like `word`, or an empty text when none is."""
    from difflib import get_close_matches

    names = {choice.lstrip("-"): choice for choice in choices}  # dashes, which all options have, make none alike
    return "".join(f" (did you mean {names[match]}?)" for match in get_close_matches(word.lstrip("-"), names, 1))

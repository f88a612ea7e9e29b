"""Where a daemon's clients come in: the control socket."""

from __future__ import annotations

from ..io.reserve import explain, is_last, is_short
from ..transport.socket_file import identity, listen, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ..io.log import Log
    from ..io.loop import Loop


class ControlListener:
    """Listens at `path` and calls taken(descriptor, "") for each client, or at the limit of open files
    taken(descriptor, why it is to be refused).  DaemonError if it cannot listen.

    `listener` is a socket that listens there already; is its file not ours, somebody else removes it.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        taken: Callable[[int, str], None],
        path: str,
        listener: socket.socket | None = None,
        is_ours: bool = True,
    ) -> None:
        self._loop = loop
        self._log = log
        self._taken = taken
        self.path = path
        self._is_short = False  # of descriptors, when the last client came
        self._listener: socket.socket | None = listener or listen(path)
        self._identity = identity(path) if is_ours else (0, 0)
        self.open()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if is_short(error):  # and the reserve is used up too
                self._log.error(f"{self.path}: {explain()}: new clients wait")
                self.hold()
                self._loop.when_free(self.open)
            else:
                self._log.error(f"{self.path}: accept: {error.strerror}")
            return
        refuses = is_last(sock.fileno())
        if refuses and not self._is_short:
            self._log.error(f"{self.path}: {explain()}: new clients are refused")
        self._is_short = refuses
        self._taken(sock.detach(), explain() if refuses else "")

    def hold(self) -> None:
        """Let who comes wait until `open`: what is about to be offered shall be there for the first of them."""
        if self._listener is not None:
            self._loop.watch(self._listener.fileno())

    def open(self) -> None:
        """Take who comes."""
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Take nobody any more, and remove the socket's file if it is ours.  Safe to call again."""
        self.hold()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            remove(self.path, self._identity)

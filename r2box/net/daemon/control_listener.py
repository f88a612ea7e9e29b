"""Control listener: accepts clients on the control socket."""

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
    """Listens at `path` and calls accepted(descriptor, refusal) for each client.  DaemonError if it cannot listen.

    `refusal` is "", or at the limit of open files the reason to refuse the client.  `listener` is a socket that listens
    there already.  Its file is removed by `close` only if it `is_ours`.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        accepted: Callable[[int, str], None],
        path: str,
        listener: socket.socket | None = None,
        is_ours: bool = True,
    ) -> None:
        self._loop = loop
        self._log = log
        self._accepted = accepted
        self.path = path
        self._refuses = False  # the last client, for want of descriptors
        self._listener: socket.socket | None = listener or listen(path)
        self._identity = identity(path) if is_ours else (0, 0)
        self.resume()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if is_short(error):  # the reserve is used up too
                self._log.error(f"{self.path}: {explain()}: new clients wait")
                self.pause()
                self._loop.when_free(self.resume)
            else:
                self._log.error(f"{self.path}: accept: {error.strerror}")
            return
        refuses = is_last(sock.fileno())
        if refuses and not self._refuses:
            self._log.error(f"{self.path}: {explain()}: new clients are refused")
        self._refuses = refuses
        self._accepted(sock.detach(), explain() if refuses else "")

    def pause(self) -> None:
        """Accept no client until `resume`.  Connections wait in the kernel's queue."""
        if self._listener is not None:
            self._loop.watch(self._listener.fileno())

    def resume(self) -> None:
        """Accept clients."""
        if self._listener is not None:
            self._loop.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening, and remove the socket's file if it is ours.  May be called again."""
        self.pause()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            remove(self.path, self._identity)

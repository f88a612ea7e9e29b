"""Where a daemon's clients come in: the control socket."""

from __future__ import annotations

import errno
import os

from .channel import close_all
from .socketfile import identity, listen, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .log import Log
    from .loop import Loop

PAUSE = 1.0  # seconds without new clients when there are no descriptors left


class Entrance:
    """Listens at `path` and gives each client's connection to `taken`, as a descriptor.  DaemonError if that cannot be.

    `listener` is a socket that listens there already; is its file not ours, somebody else removes it.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        taken: Callable[[int], None],
        path: str,
        listener: socket.socket | None = None,
        is_ours: bool = True,
    ) -> None:
        self._loop = loop
        self._log = log
        self._taken = taken
        self.path = path
        self._spare = os.open(os.devnull, os.O_RDONLY)  # given up for a moment to answer when none are left
        try:
            self._listener: socket.socket | None = listener or listen(path)
        except BaseException:
            self._give_spare_up()
            raise
        self._identity = identity(path) if is_ours else (0, 0)
        self.open()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            else:
                self._log.error(f"{self.path}: accept: {error.strerror}")
            return
        self._taken(sock.detach())

    def _turn_away(self) -> None:
        """No descriptor is left: close the caller's connection, so that it does not wait, and pause."""
        assert self._listener is not None
        self._log.error("no descriptors left: new clients are turned away (see ulimit -n)")
        self.hold()
        self._loop.later(PAUSE, self.open)
        self._give_spare_up()
        try:
            self._listener.accept()[0].close()
            self._spare = os.open(os.devnull, os.O_RDONLY)
        except OSError as error:
            self._log.debug(f"accept: {error.strerror}")

    def _give_spare_up(self) -> None:
        close_all((self._spare,) if self._spare >= 0 else ())
        self._spare = -1

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
        self._give_spare_up()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            remove(self.path, self._identity)

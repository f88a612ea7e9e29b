"""Service of the library: an iterator of its tunnels, which any thread can close."""

from __future__ import annotations

import os
import socket as sockets
import threading

from ..errors import DaemonError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    C = TypeVar("C", bound="Closing")


class Closing:
    """Context manager that calls `close`."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Service(Closing):
    """A service that a program offers: an iterator of its tunnels, as `Session.serve` has them, and a context manager.

    It is offered until `close`, or until the iterator is garbage-collected.

    >>> with r2box.serve("echo") as service:  # doctest: +SKIP
    ...     signal.signal(signal.SIGTERM, lambda *_: service.close())
    ...     for sock, origin in service:
    ...         threading.Thread(target=handle, args=(sock,)).start()
    """

    def __init__(
        self,
        tunnels: Iterator[tuple[sockets.socket, str]],
        bell: sockets.socket,
        end: Callable[[], None],
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Made by `serve` only.  Closing `bell` makes `tunnels` raise DaemonError; end() closes the session; is_over()
        returns whether the end of the daemon is expected."""
        self._tunnels = tunnels
        self._bell = bell
        self._end = end
        self._is_over = is_over
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._is_waiting = self._is_closed = False

    def __iter__(self) -> Service:
        return self

    def __next__(self) -> tuple[sockets.socket, str]:
        with self._lock:
            try:
                if not self._is_closed:
                    self._is_waiting = True
                    return next(self._tunnels)
            except BaseException as error:
                was_expected = self._is_closed or self._is_over()
                self._is_closed = True
                if not (isinstance(error, DaemonError) and was_expected):
                    raise
            finally:
                self._is_waiting = False
                if self._is_closed:
                    self._release()
        raise StopIteration

    def close(self) -> None:
        """Withdraw the service.  The iteration ends, tunnels do not.  Safe to call again.

        May be called from any thread and from a signal handler, also while another thread waits for a tunnel.  In a
        child made by fork this only closes the copies of the descriptors; the service continues.
        """
        self._is_closed = True
        if os.getpid() != self._process:  # no thread of this process waits, and the lock may be held for ever
            self._release()
            return
        try:
            self._bell.shutdown(sockets.SHUT_RDWR)  # a child made by fork may hold it too
        except OSError:
            pass  # closed already
        with self._lock:
            if not self._is_waiting:  # else this is a signal handler on top of `__next__`, which releases
                self._release()

    def _release(self) -> None:
        self._bell.close()
        self._end()

    def __del__(self) -> None:
        self.close()

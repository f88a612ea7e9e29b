"""Service manager protocol of systemd: readiness, watchdog and socket activation.

The node reports when it is ready, reloads and stops (sd_notify(3)), takes the control socket (sd_listen_fds(3)), and
sends watchdog keepalives (sd_watchdog_enabled(3)).  The environment variables for this are meant for this process only:
they are removed before any program is started.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque

from ...errors import DaemonError
from ..io.socket_path import default_path, is_default
from ..transport.socket_file import listen, make_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..io.log import Log
    from ..io.loop import Loop
    from .daemon import Daemon
    from .privileges import User

FIRST_FD = 3  # SD_LISTEN_FDS_START
CONTROL = "control"  # the name of the control socket, if several sockets are passed
MAX_FDS = 64  # passed descriptors: one is needed
MAX_QUEUED = 16  # messages for a manager that does not read; the oldest are dropped
RETRY = 0.1  # seconds until a message that could not be sent is sent again
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID")


class ServiceManager:
    """The service manager, if there is one; otherwise all methods but `bind` and `listen` do nothing.

    Sending never blocks and never fails: the node runs on if the manager is absent or does not read.
    DaemonError if descriptors were passed and none of them is a control socket.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        variables = {name: os.environ.pop(name, "") for name in _VARIABLES}
        self._address = variables["NOTIFY_SOCKET"]
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._socket: socket.socket | None = None
        if self._address.startswith(("/", "\0")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        self._queue: deque[bytes] = deque(maxlen=MAX_QUEUED)
        self._has_timer = False
        self._passed = _passed_socket(variables)
        self._bound: socket.socket | None = None
        self._user: User | None = None
        self.path = ""  # of the control socket, once bound
        period = variables["WATCHDOG_USEC"]
        if period.isdecimal() and int(period) and variables["WATCHDOG_PID"] in ("", str(os.getpid())):
            self._period = int(period) / 1e6 / 2  # half the watchdog timeout
            self._keepalive()

    def bind(self, log: Log, path: str | None, user: str | None, makes: bool = False) -> None:
        """Listen at the passed socket, else at `path` (None: the default), which `user`, if any, will own.

        Clients wait until `listen`.  DaemonError, UsageError.  Missing directories are made for the default socket;
        with `makes`, for any socket that was not passed.
        """
        if user is not None:
            from .privileges import find_user, listen_for

            self._user = find_user(user)
        if self._passed is not None:
            self.path = path_of(self._passed)
            if path and os.path.realpath(path) != os.path.realpath(self.path):
                log.warning(f"using the control socket {self.path} that was passed (LISTEN_FDS), not {path}")
            return
        makes = makes or is_default(path)
        self.path = default_path(path)
        if self._user is not None:
            self._bound = listen_for(self.path, self._user, makes)
            return
        if makes:
            make_folder(self.path)
        self._bound = listen(self.path)

    def listen(self, daemon: Daemon) -> None:
        """Make `daemon` take the clients of the bound socket; then change to the user of `bind`, if any."""
        daemon.listen(self.path, self._passed or self._bound, is_ours=self._passed is None)
        if self._user is not None:
            from .privileges import become

            become(self._user)
        if self._socket is not None:
            daemon.changed = lambda: self.status(daemon.summary())

    def ready(self, status: str) -> None:
        """Report that the node listens, and that its configuration is in effect."""
        self._notify(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """Report one line of status text."""
        self._notify(f"STATUS={text}")

    def reloading(self) -> None:
        """Report a reload; `ready` must follow."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Report that the node shuts down."""
        self._notify("STOPPING=1\nSTATUS=shutting down")

    def _keepalive(self) -> None:
        self._send(b"WATCHDOG=1")
        self.loop.later(self._period, self._keepalive)

    def _notify(self, text: str) -> None:
        if self._socket is not None:
            self._queue.append(text.encode("utf-8", "replace"))
            self._flush()

    def _flush(self) -> None:
        while self._queue and self._send(self._queue[0]):
            self._queue.popleft()
        if self._queue and not self._has_timer:
            self._has_timer = True
            self.loop.later(RETRY, self._retry)

    def _retry(self) -> None:
        self._has_timer = False
        self._flush()

    def _send(self, message: bytes) -> bool:
        """False if it must be sent again later."""
        if self._socket is None:
            return True
        try:
            self._socket.sendto(message, self._address)
        except BlockingIOError:
            return False
        except OSError:
            return True  # the manager has closed its socket
        return True


def _passed_socket(variables: dict[str, str]) -> socket.socket | None:
    """The control socket among the descriptors that were passed to this process; None if none were."""
    count = variables["LISTEN_FDS"]
    if variables["LISTEN_PID"] != str(os.getpid()) or not count.isdecimal() or not int(count):
        return None
    if int(count) > MAX_FDS:
        raise DaemonError(f"LISTEN_FDS: {count} descriptors; at most {MAX_FDS} are taken")
    names = variables["LISTEN_FDNAMES"].split(":")
    fds = range(FIRST_FD, FIRST_FD + int(count))
    for fd in fds:
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            raise DaemonError(f"LISTEN_FDS: descriptor {fd}: {error.strerror}") from None
    chosen = [fd for fd, name in zip(fds, names) if name == CONTROL] or (list(fds) if len(fds) == 1 else [])
    if len(chosen) != 1:
        raise DaemonError(f"LISTEN_FDNAMES: of {count} sockets exactly one must be named {CONTROL}")
    for fd in fds:
        if fd not in chosen:
            os.close(fd)
    try:
        sock = socket.socket(fileno=chosen[0])
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise DaemonError(f"LISTEN_FDS: descriptor {chosen[0]}: {error.strerror}") from None
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not listens or not path_of(sock):
        raise DaemonError("LISTEN_FDS: the control socket must be a UNIX stream socket with a path, and listen")
    sock.setblocking(False)
    return sock


def path_of(sock: socket.socket) -> str:
    """Where a UNIX socket is, or "" if it is not in the file system."""
    name = sock.getsockname()
    return name if isinstance(name, str) else ""

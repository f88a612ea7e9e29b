"""Whoever has started the daemon and watches over it, such as systemd.

It is told when the node is ready, reloads and ends (sd_notify(3)), may hand over the control socket (sd_listen_fds(3)),
and may want signs of life (sd_watchdog_enabled(3)).  What it says of that in the environment is for this process alone,
so it is taken out before anything is started.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque

from ...errors import DaemonError
from ..io.socket_path import default_path, is_default
from ..transport.socket_file import make_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..io.loop import Loop
    from .daemon import Daemon

FIRST_FD = 3  # SD_LISTEN_FDS_START
CONTROL = "control"  # the name of the control socket, where there are others
MAX_FDS = 64  # that we take: we need one
MAX_WAITING = 16  # messages for a supervisor that does not read; the oldest are of no use then
AGAIN = 0.1  # seconds after which it is told again
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID")


class ServiceManager:
    """Without a supervisor nothing of this does anything.

    Telling never waits and never fails: a supervisor that is away, or does not read, is no reason for a node to stop.
    DaemonError if descriptors were handed over and none of them is a control socket.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        told = {name: os.environ.pop(name, "") for name in _OURS}
        self._address = told["NOTIFY_SOCKET"]
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._socket: socket.socket | None = None
        if self._address.startswith(("/", "\0")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._has_alarm = False
        self.control = _take(told)
        period = told["WATCHDOG_USEC"]
        if period.isdecimal() and int(period) and told["WATCHDOG_PID"] in ("", str(os.getpid())):
            self._period = int(period) / 1e6 / 2  # twice as often as it must be
            self._alive()

    def listen(self, daemon: Daemon, path: str | None, user: str | None, makes: bool = False) -> str:
        """Let `daemon` take clients, at the socket that was handed over or else at `path` (None: the default one), and
        then be `user` (None: stay who we are).  The path comes back.  DaemonError, UsageError.

        Missing directories are made for the default socket, and for any that is not handed over if this `makes` them.
        """
        listener = self.control
        if user is not None:
            from .privileges import become, find_user, listen_for

            whom = find_user(user)
        if listener is not None:
            given = path_of(listener)
            if path and os.path.realpath(path) != os.path.realpath(given):
                daemon.log.warning(f"the control socket is {given}, which was handed over, and not {path}")
            path = given
        else:
            makes = makes or is_default(path)
            path = default_path(path)
            if user is not None:
                listener = listen_for(path, whom, makes)
            elif makes:
                make_folder(path)
        daemon.listen(path, listener, is_ours=self.control is None)
        if user is not None:
            become(whom)
        if self._socket is not None:
            daemon.changed = lambda: self.status(daemon.summary())
        return path

    def ready(self, status: str) -> None:
        """The node listens, and what it is to have stands."""
        self._tell(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """One line for people."""
        self._tell(f"STATUS={text}")

    def reloading(self) -> None:
        """`ready` must follow."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The node begins to end."""
        self._tell("STOPPING=1\nSTATUS=ending")

    def _alive(self) -> None:
        self._send(b"WATCHDOG=1")
        self._loop.later(self._period, self._alive)

    def _tell(self, text: str) -> None:
        if self._socket is not None:
            self._waiting.append(text.encode("utf-8", "replace"))
            self._flush()

    def _flush(self) -> None:
        while self._waiting and self._send(self._waiting[0]):
            self._waiting.popleft()
        if self._waiting and not self._has_alarm:
            self._has_alarm = True
            self._loop.later(AGAIN, self._again)

    def _again(self) -> None:
        self._has_alarm = False
        self._flush()

    def _send(self, message: bytes) -> bool:
        """False if it cannot be taken just now."""
        if self._socket is None:
            return True
        try:
            self._socket.sendto(message, self._address)
        except BlockingIOError:
            return False
        except OSError:
            return True  # nobody is there any more
        return True


def _take(told: dict[str, str]) -> socket.socket | None:
    """The control socket among what was handed over, if anything was: to us, and not to whoever started us."""
    count = told["LISTEN_FDS"]
    if told["LISTEN_PID"] != str(os.getpid()) or not count.isdecimal() or not int(count):
        return None
    if int(count) > MAX_FDS:
        raise DaemonError(f"LISTEN_FDS: {count} descriptors; at most {MAX_FDS} are taken")
    names = told["LISTEN_FDNAMES"].split(":")
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

"""Daemonization: --background of r2d and r2dm.

The parent forks, waits until the node is ready, and exits with 0, or with 1 if the node cannot start; stderr has the
reason.  The node runs in a new session, without a terminal, in the same directory.  When it is ready, stdin and stdout
are /dev/null.  A stderr that is a file is kept; one that is a terminal, a pipe or a socket, whose reader would wait for
its end, becomes /dev/null, and messages go to syslog(3).
"""

from __future__ import annotations

import os
import stat

from ..errors import FAILED, OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..net.io.log import Log


class Background:
    """The background process: only it returns from the constructor.  It calls `ready` when the node is ready."""

    def __init__(self) -> None:
        reader, writer = os.pipe()
        if os.fork():
            os.close(writer)
            os._exit(OK if os.read(reader, 1) else FAILED)  # EOF: the node has failed and reported why
        os.close(reader)
        os.setsid()
        if os.fork():  # a session leader could acquire a controlling terminal
            os._exit(OK)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        _close_inherited()
        self._writer = writer

    def ready(self, log: Log) -> None:
        """Let the parent exit, and release its stdout and stderr.  Idempotent."""
        if self._writer < 0:
            return
        writer, self._writer = self._writer, -1
        log.info(f"running in the background as process {os.getpid()}")
        os.dup2(0, 1)
        mode = os.fstat(2).st_mode
        if os.isatty(2) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            os.dup2(0, 2)
            log.use_syslog()
        try:
            os.write(writer, b"+")
        except BrokenPipeError:
            os._exit(FAILED)  # the parent was interrupted while it waited
        os.close(writer)


def _close_inherited() -> None:
    """Close inherited descriptors other than stdin, stdout and stderr.  Those that Python opens are not inheritable."""
    for name in os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"):
        fd = int(name)
        try:
            if fd > 2 and os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            continue  # the descriptor of the listing itself

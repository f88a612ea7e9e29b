"""Going to the background: --background of r2d and r2dm.

The process that was started forks, waits until the node is ready, and returns 0; if the node cannot start, the reason
is on stderr and it returns 1.  The node runs in a session of its own, without a terminal, in the same directory.
When it is ready, stdin and stdout are /dev/null.  So is stderr, and messages go to syslog(3), where stderr
is a terminal, a pipe or a socket, whose reader would wait for its end; a file is kept, and messages go there.
"""

from __future__ import annotations

import os
import stat

from ..errors import FAILED, OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..net.io.log import Log


class Background:
    """Where this is made, only the background process returns.  It must call `ready` once the node is ready."""

    def __init__(self) -> None:
        reader, writer = os.pipe()
        if os.fork():
            os.close(writer)
            os._exit(OK if os.read(reader, 1) else FAILED)  # an end of file: it has ended, and has said why
        os.close(reader)
        os.setsid()
        if os.fork():  # who leads a session could get a terminal that it opens as its controlling one
            os._exit(OK)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.close(null)
        _close_inherited()
        self._writer = writer

    def ready(self, log: Log) -> None:
        """Let the process that was started return, and let go of its stdout and stderr.  Safe to call again."""
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
            os._exit(FAILED)  # it was interrupted while it waited: this node is not wanted
        os.close(writer)


def _close_inherited() -> None:
    """Close what the caller had open beside stdin, stdout and stderr; what Python opens itself is not inheritable."""
    for name in os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"):
        fd = int(name)
        try:
            if fd > 2 and os.get_inheritable(fd):
                os.close(fd)
        except OSError:
            continue  # the descriptor of the listing itself

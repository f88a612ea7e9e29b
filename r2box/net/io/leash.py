"""Leash: a watcher process that ends the child processes of this process when this process has ended.

SIGKILL gives a process no time to end its children.  So the watcher, a small shell, reads a pipe whose write end only
this process holds, close-on-exec.  The shell of a child registers itself with a line `+PID` before the child's program
starts (`process.start`), so no program runs unregistered.  This process writes `=PID` with the first signal to a child,
and `-PID` when the child has ended.  At the end of the pipe the watcher ends the remaining process groups with the
signals of `process.HANG_UP`: SIGHUP, unless it was sent already, and SIGCONT; then SIGTERM and SIGKILL, each after
`process.GRACE`.

Each loop has one watcher, started with its first child.  The watcher is not our child, has its own session, ignores the
signals that end a session, and keeps no file, directory or terminal in use.  If it is killed, the next child starts
another one.  Process 1 of a container has none: the kernel ends all processes with it.

A fork without exec also holds the write end of the pipe: the children then end with the last such process.
"""

from __future__ import annotations

import fcntl
import os

from .shell import LEASH_FD, SHELL
from .signals import GRACE, RESET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .loop import Loop

# Variables: p_PID for a process that runs, h_PID for one that was hung up on.  A shell finds a variable faster than a
# word in a string.
_WATCHER = """
trap '' HUP INT QUIT TERM PIPE
cd /
{
    while read -r line; do
        pid=${line#?}
        case $pid in "" | *[!0-9]*) continue ;; esac
        case $line in
        +*) eval "p_$pid=1" ;;
        =*) unset "p_$pid"; eval "h_$pid=1" ;;
        -*) unset "p_$pid" "h_$pid" ;;
        esac
    done
    list() {
        set | while IFS="=" read -r name _; do
            case $name in
            "$1"*[!0-9]*) ;;
            "$1"[0-9]*) echo "${name#"$1"}" ;;
            esac
        done
    }
    all() {
        for group in $groups; do kill -s "$1" -- "-$group"; done
    }
    pause() {
        for _ in SECONDS; do
            left=
            for group in $groups; do kill -s 0 -- "-$group" && left="$left $group"; done
            groups=$left
            [ "$groups" ] || exit 0
            sleep 1
        done
    }
    groups=$(list p_)
    all HUP
    groups="$groups $(list h_)"
    all CONT
    pause
    all TERM
    pause
    all KILL
} <&3 3<&- &
""".replace("SECONDS", " ".join(map(str, range(round(GRACE)))))


class Leash:
    """The leash of the children of one loop: `loop.shared(Leash)`."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._fd = -1
        self._parent = 0  # of the watcher, until it is reaped
        self._running: set[int] = set()
        self._ended: set[int] = set()  # not reported to the watcher yet, as the pipe was full

    def open(self) -> int:
        """The descriptor for `process.start`; -1 for process 1, which needs no leash.

        Starts the watcher if there is none.  OSError if that fails.
        """
        if self._fd < 0 and os.getpid() != 1:
            self._start()
        return self._fd

    def add(self, pid: int) -> None:
        """Record `pid`, which was started with the descriptor of `open`."""
        self._running.add(pid)

    def ending(self, pid: int) -> None:
        """Record that `pid` was sent its first signal."""
        if self._fd >= 0:
            self._write(b"=%d\n" % pid)  # if the pipe is full, `pid` gets that signal twice

    def remove(self, pid: int) -> None:
        """Record that `pid` has ended."""
        self._running.discard(pid)
        if self._fd >= 0:
            self._ended.add(pid)
            self._report()

    def close(self) -> None:
        """Close the pipe: the watcher ends the remaining children."""
        if self._fd >= 0:
            self._loop.watch(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._parent:
            try:
                os.waitid(os.P_PID, self._parent, os.WEXITED | os.WNOWAIT)  # so that the loop can reap it
            except ChildProcessError:
                pass  # already reaped

    def _start(self) -> None:
        end, low = os.pipe()
        try:
            self._fd = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, LEASH_FD + 1)
            actions = [
                (os.POSIX_SPAWN_DUP2, end, 3),
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ]
            environment = {"PATH": os.environ.get("PATH", os.defpath)}
            pid = os.posix_spawn(
                SHELL,
                [SHELL, "-c", _WATCHER],
                environment,
                file_actions=actions,
                setsigmask=[],
                setsigdef=RESET,
                setsid=True,
            )
        except OSError:
            self.close()
            raise
        finally:
            os.close(end)
            os.close(low)
        self._parent = pid
        self._loop.on_exit(pid, self._reaped)  # at once: this shell leaves the watcher in the background
        self._ended.clear()
        os.write(self._fd, b"".join(b"+%d\n" % pid for pid in self._running))
        os.set_blocking(self._fd, False)

    def _reaped(self, status: int) -> None:
        self._parent = 0

    def _report(self) -> None:
        """Write the ended children to the pipe, as many as fit."""
        while self._ended:
            pid = self._ended.pop()
            if not self._write(b"-%d\n" % pid):
                self._ended.add(pid)
                break
        if self._fd >= 0:
            self._loop.watch(self._fd, None, self._report if self._ended else None)

    def _write(self, line: bytes) -> bool:
        """Write `line`, which is atomic; False if the pipe is full."""
        try:
            os.write(self._fd, line)
        except BlockingIOError:
            return False
        except BrokenPipeError:  # the watcher was killed
            self.close()
            self._ended.clear()
        return True

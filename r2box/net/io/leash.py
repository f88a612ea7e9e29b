"""The leash: ends the programs of this process when this process is gone, whatever ended it.

After kill -9 nothing of ours runs that could end what we have started.  So a watcher, a small shell, reads from a pipe
whose other end only we hold, close-on-exec.  A program's shell enters itself, by a line `+PID`, before the program
begins (`process.start`), so there is no moment at which it runs and is not known; we write `=PID` when we have begun to
end it, and `-PID` when it has ended.  At the end of the pipe the watcher ends the process groups that are left as
`process.HANG_UP` does: SIGHUP, unless they had it, and SIGCONT, and after `process.GRACE` each SIGTERM and SIGKILL.

There is one watcher for a process (for a loop, exactly), from its first program on.  It has no parent of ours, a
session of its own, ignores the signals that end a session, and keeps no file, directory or terminal of ours in use.  If
it is killed, the next start of a program makes another.  Process 1 of a container has none: the system ends all with
it.

A child by fork without exec keeps our end of the pipe too: then the programs end with the last of us.
"""

from __future__ import annotations

import fcntl
import os

from .shell import LEASH_FD, SHELL
from .signals import GRACE, RESET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .loop import Loop

# What runs is kept in variables p_PID, and h_PID once it was hung up on: a shell finds them faster than a word in a
# string.
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
    """The leash of the programs of one process: `loop.shared(Leash)`."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._fd = -1
        self._parent = 0  # of the watcher, while it starts that
        self._running: set[int] = set()
        self._ended: set[int] = set()  # what the watcher does not know yet, if it is slower than we are

    def open(self) -> int:
        """The descriptor for `process.start`; starts the watcher if there is none.  OSError if that cannot be.

        -1 for process 1, which needs no leash.
        """
        if self._fd < 0 and os.getpid() != 1:
            self._start()
        return self._fd

    def add(self, pid: int) -> None:
        """`pid` was started with the descriptor of `open`."""
        self._running.add(pid)

    def ending(self, pid: int) -> None:
        """`pid` was sent the first signal."""
        if self._fd >= 0:
            self._write(b"=%d\n" % pid)  # if that cannot be, it gets the first one twice

    def remove(self, pid: int) -> None:
        """`pid` has ended."""
        self._running.discard(pid)
        if self._fd >= 0:
            self._ended.add(pid)
            self._tell()

    def close(self) -> None:
        """Let go: what runs is ended by the watcher."""
        if self._fd >= 0:
            self._loop.watch(self._fd)
            os.close(self._fd)
            self._fd = -1
        if self._parent:
            try:
                os.waitid(os.P_PID, self._parent, os.WEXITED | os.WNOWAIT)  # so that the loop can reap it
            except ChildProcessError:
                pass  # reaped by somebody else

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
        self._loop.on_exit(pid, self._reaped)  # at once: the watcher is a child of its own
        self._ended.clear()
        os.write(self._fd, b"".join(b"+%d\n" % pid for pid in self._running))
        os.set_blocking(self._fd, False)

    def _reaped(self, status: int) -> None:
        self._parent = 0

    def _tell(self) -> None:
        """Write what has ended, as far as it goes."""
        while self._ended:
            pid = self._ended.pop()
            if not self._write(b"-%d\n" % pid):
                self._ended.add(pid)
                break
        if self._fd >= 0:
            self._loop.watch(self._fd, None, self._tell if self._ended else None)

    def _write(self, line: bytes) -> bool:
        """False if it cannot be written now; a line is written whole or not at all."""
        try:
            os.write(self._fd, line)
        except BlockingIOError:
            return False
        except BrokenPipeError:  # the watcher was killed
            self.close()
            self._ended.clear()
        return True

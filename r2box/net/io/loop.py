"""The one event loop: descriptors, timers, signals and children, in one thread, under every tool.

`run()` sleeps until something happens and calls what was registered for it.  Nothing in a callback may block.

    when_free(fn)            call fn() once, when there are free descriptors again
    watch(fd, read, write)   call read() when fd can be read, write() when it can be written; None: do not
    soon(fn)                 call fn() once, after what is happening now
    later(seconds, fn)       call fn() once; the Timer that comes back can be cancelled
    on_signal(number, fn)    call fn() in the loop, not in the signal handler
    on_kill(numbers, fn)     the same for several, but for those that the parent has ignored: call fn(number)
    on_end(end, at_once)     SIGTERM or SIGINT: call end(), and at_once() when it comes again or that takes too long
    on_exit(pid, fn)         call fn(status) when the child has ended; status as `os.waitstatus_to_exitcode` has it
    thread(work, done)       for what cannot but block (a name look-up): done(result or exception) comes back here

Descriptors that epoll refuses (regular files, /dev/null) are always ready, as POSIX has it for select.
"""

from __future__ import annotations

import errno
import heapq
import os
import selectors
import signal
import time
from collections import deque

from . import reserve, signals
from .buffers import Arena, Pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Any, TypeVar

    Callback = Callable[[], object]
    T = TypeVar("T")

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


_NOTHING = (None, None)
END_TIME = 1.8  # seconds that a tool has to end in good order after the first signal


class Timer:
    """A call that will be made.  `cancel()` may be called at any time, more than once."""

    __slots__ = ("_fn", "_when")

    def __init__(self, when: float, fn: Callback) -> None:
        self._when = when
        self._fn: Callback | None = fn

    def cancel(self) -> None:
        self._fn = None

    def __lt__(self, other: Timer) -> bool:
        return self._when < other._when


class Loop:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, tuple[Callback | None, Callback | None]] = {}
        self._fresh: set[int] = set()  # registered in this round of `run`: its events are of an earlier bearer
        self._always: dict[int, tuple[Callback | None, Callback | None]] = {}
        self._waiting: list[Callback] = []  # for free descriptors
        self._will_look = False  # whether there are any
        self._timers: list[Timer] = []
        self._soon: deque[Callback] = deque()
        self._signals: dict[int, Callback] = {}
        self._wakeup: tuple[int, int] | None = None  # signals and threads write to [1]
        self._door: tuple[int, int] | None = None  # other threads write to [1]
        self._old_handlers: dict[int, Any] = {}
        self._awaited: dict[int, int] = {}  # children, and their pidfds
        self._exits: dict[int, Callable[[int], None]] = {}  # and those without
        self.is_running = False
        self.takes_signals = True  # False: the process is somebody else's, and so are its signals
        self.pool = Pool()
        self.arena = Arena(self.pool)
        self.failed: Callable[[BaseException], None] | None = None  # for what a callback raises; None: let it out
        self._shared: dict[Any, Any] = {}

    @staticmethod
    def now() -> float:
        """Seconds; never goes backwards."""
        return time.monotonic()

    # -- descriptors ---------------------------------------------------------------------------------------------

    def watch(self, fd: int, read: Callback | None = None, write: Callback | None = None) -> None:
        """Register, change, or (with neither callback) forget `fd`.  Forget it before it is closed.  -1 is ignored."""
        events = (READ if read else 0) | (WRITE if write else 0)
        known = self._watched.get(fd)
        if known == (read, write):
            return
        if not events:
            if self._watched.pop(fd, None):
                if not self._always.pop(fd, None):
                    self._selector.unregister(fd)
                self.freed()
            return
        if fd in self._always:
            self._always[fd] = (read, write)
        elif known is not None:
            self._selector.modify(fd, events)
        else:
            try:
                self._selector.register(fd, events)
                self._fresh.add(fd)
            except PermissionError:
                self._always[fd] = (read, write)
        self._watched[fd] = (read, write)

    def watch_read(self, fd: int, read: Callback | None) -> None:
        """`watch`, for reading only: what was registered for writing stays."""
        self.watch(fd, read, self._watched.get(fd, _NOTHING)[1])

    def watch_write(self, fd: int, write: Callback | None) -> None:
        """`watch`, for writing only: what was registered for reading stays."""
        self.watch(fd, self._watched.get(fd, _NOTHING)[0], write)

    def when_free(self, fn: Callback) -> None:
        """Call fn() once, when there are more free descriptors than the reserve: for who must stop taking connections.

        That is looked at whenever a descriptor was forgotten here, and when `freed` tells of others that were closed.
        """
        if fn not in self._waiting:
            self._waiting.append(fn)

    def freed(self) -> None:
        """A descriptor is about to be closed."""
        if self._waiting and not self._will_look:
            self._will_look = True
            self.soon(lambda: self.soon(self._look))  # when it has been

    def _look(self) -> None:
        self._will_look = False
        try:
            probe = os.dup(self._selector.fileno())
        except OSError:
            return
        is_last = reserve.is_last(probe)
        os.close(probe)
        if not is_last:
            waiting, self._waiting = self._waiting, []
            for fn in waiting:
                self.call(fn)

    # -- time ----------------------------------------------------------------------------------------------------

    def soon(self, fn: Callback) -> None:
        self._soon.append(fn)

    def later(self, seconds: float, fn: Callback) -> Timer:
        timer = Timer(self.now() + seconds, fn)
        heapq.heappush(self._timers, timer)
        return timer

    def _timeout(self) -> float | None:
        while self._timers and self._timers[0]._fn is None:
            heapq.heappop(self._timers)
        if self._soon or self._always:
            return 0
        return max(0.0, self._timers[0]._when - self.now()) if self._timers else None

    def _run_timers(self) -> None:
        now = self.now()
        while self._timers and self._timers[0]._when <= now:
            fn = heapq.heappop(self._timers)._fn
            if fn is not None:
                self.call(fn)

    # -- signals and threads -------------------------------------------------------------------------------------

    def on_signal(self, number: int, fn: Callback) -> None:
        self._wakeup_pipe()
        self._signals[number] = fn
        self._old_handlers.setdefault(number, signal.signal(number, self._handler))
        signal.siginterrupt(number, False)

    def on_kill(self, numbers: Iterable[int], fn: Callable[[int], object]) -> None:
        """Call fn(number) for each of `numbers` that the parent does not have ignored, as nohup has SIGHUP."""
        for number in numbers:
            if not signals.is_ignored(number):
                self.on_signal(number, lambda number=number: fn(number))  # type: ignore[misc]

    def on_end(self, end: Callback, at_once: Callback) -> None:
        """Have SIGTERM and SIGINT end a tool: the first one calls end(), and `at_once` is called when another one comes
        or the loop still runs `END_TIME` later."""
        is_ending = False

        def ended() -> None:
            nonlocal is_ending
            if is_ending:
                at_once()
                return
            is_ending = True
            self.later(END_TIME, at_once)
            end()

        for number in (signal.SIGTERM, signal.SIGINT):
            self.on_signal(number, ended)

    @staticmethod
    def _handler(number: int, frame: FrameType | None) -> None:
        """Python writes the number to the wakeup descriptor; the rest happens in the loop."""

    def _wakeup_pipe(self) -> int:
        if self._wakeup is None:
            self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
            self.watch(self._wakeup[0], self._woken)
        return self._wakeup[1]

    def _woken(self) -> None:
        assert self._wakeup is not None
        for number in set(os.read(self._wakeup[0], 4096)):
            if number in self._signals:
                self._signals[number]()

    def post(self, fn: Callback) -> None:
        """`soon` for other threads than the loop's.  `open_to_threads` must have been called in the loop's."""
        self._soon.append(fn)
        assert self._door is not None
        try:
            os.write(self._door[1], b"\0")
        except BlockingIOError:
            return  # so many others have knocked already

    def open_to_threads(self) -> None:
        """Let `post` be used."""
        if self._door is None:
            self._door = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self.watch(self._door[0], self._knocked)

    def _knocked(self) -> None:
        assert self._door is not None
        os.read(self._door[0], 4096)

    def thread(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run `work` in a thread, and `done` in the loop with what it returned or raised.

        OSError comes to `done` if no thread can be started.
        """
        import threading

        self.open_to_threads()

        def run() -> None:
            try:
                result: Any = work()
            except Exception as error:
                result = error
            self.post(lambda: done(result))

        try:
            threading.Thread(target=run, daemon=True).start()
        except RuntimeError:  # RLIMIT_NPROC, or the pids of a container
            error = OSError(errno.EAGAIN, "cannot start a thread: the limit of processes is reached (ulimit -u)")
            self.soon(lambda: done(error))

    # -- children ------------------------------------------------------------------------------------------------

    def on_exit(self, pid: int, fn: Callable[[int], None]) -> None:
        """Call `fn` when the child `pid` has ended, with its exit status, or minus the signal that killed it."""
        try:
            pidfd = os.pidfd_open(pid)
        except (AttributeError, OSError):  # no such call, or no descriptor left
            if not (self.takes_signals and signals.is_tool):
                self.thread(lambda: reap(pid), fn)
                return
            self._exits[pid] = fn
            self._reap_all()
            return

        def ended() -> None:
            self.watch(pidfd)
            os.close(pidfd)
            del self._awaited[pid]
            if signals.is_tool:
                self.soon(self._reap)  # one that this one stood before
            fn(reap(pid))

        self._awaited[pid] = pidfd
        self.watch(pidfd, ended)

    def _reap_all(self) -> None:
        """Reap children whose end nothing else tells: those without a pidfd, those that a shell had before it became
        this program, and orphans, which come to process 1 and to a subreaper."""
        self.on_signal(signal.SIGCHLD, self._reap)
        self.soon(self._reap)  # some may have ended before the handler was there

    def _reap(self) -> None:
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in self._awaited:
                return  # none, or one whose own event comes, and then this again
            status = reap(found.si_pid)
            if found.si_pid in self._exits:
                self.call(lambda: self._exits.pop(found.si_pid)(status))  # noqa: B023

    # -- running -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop()`."""
        self.is_running = True
        if self.takes_signals and signals.is_tool:
            self._reap_all()
        while self.is_running:
            self.run_once()

    def run_once(self) -> None:
        """Sleep until something happens, and see to all that has."""
        ready = self._selector.select(self._timeout())
        self._fresh.clear()
        for key, events in ready:
            if key.fd not in self._fresh:
                self._notify(key.fd, events)
        for fd in list(self._always) if self._always else ():
            self._notify(fd, READ | WRITE)
        if self._timers:
            self._run_timers()
        for _ in range(len(self._soon)):
            self.call(self._soon.popleft())

    def _notify(self, fd: int, events: int) -> None:
        """Call what is wanted for `fd` now; an earlier callback of this round may have changed that."""
        read, write = self._watched.get(fd, _NOTHING)
        if read is not None and events & READ:
            self.call(read)
            write = self._watched.get(fd, _NOTHING)[1]
        if write is not None and events & WRITE:
            self.call(write)

    def call(self, fn: Callback) -> None:
        """fn(), and what it raises to `failed`."""
        try:
            fn()
        except Exception as error:
            if self.failed is None:
                raise
            self.failed(error)

    def stop(self) -> None:
        """Return from `run` when the present round is done."""
        self.is_running = False

    def shared(self, make: Callable[[Loop], T]) -> T:
        """What all that runs on this loop shares: `make(loop)`, made once.  Its `close` is called by the loop's."""
        if make not in self._shared:
            self._shared[make] = make(self)
        found: T = self._shared[make]
        return found

    def close(self) -> None:
        """Give everything back: descriptors, and signals to their former handlers."""
        for one in self._shared.values():
            one.close()
        for pid, pidfd in self._awaited.items():
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass  # reaped by somebody else
            os.close(pidfd)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
        for fd in (*(self._wakeup or ()), *(self._door or ())):
            os.close(fd)
        self._selector.close()


def reap(pid: int) -> int:
    """The status of a child that has ended, as `os.waitstatus_to_exitcode` has it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

"""Event loop of every tool: descriptors, timers, signals and child processes, in one thread.

`run()` sleeps until an event and calls the callbacks registered for it.  A callback must not block.

    watch(fd, read, write)   call read() when fd is readable, write() when it is writable
    when_free(fn)            call fn() once, when descriptors are free again
    soon(fn)                 call fn() once, after the present callback
    later(seconds, fn)       call fn() once; returns a Timer, which can be cancelled
    on_signal(number, fn)    call fn() in the loop, not in the signal handler
    on_kill(numbers, fn)     call fn(number) for each of these signals that the parent does not ignore
    on_end(end, at_once)     call end() at the first SIGTERM or SIGINT; at_once() at the second, or if end() takes long
    on_exit(pid, fn)         call fn(status) when the child has ended; status as of `os.waitstatus_to_exitcode`
    thread(work, done)       run a blocking call, such as a name look-up, in a thread; call done(result or exception)

Descriptors that epoll refuses (regular files, /dev/null) are always ready, as POSIX specifies for select.
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
END_TIME = 1.8  # seconds that a tool has to end cleanly after the first signal


class Timer:
    """A scheduled call.  `cancel()` may be called at any time, and again."""

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
        self._fresh: set[int] = set()  # registered in this round: events are of an earlier file with that number
        self._always: dict[int, tuple[Callback | None, Callback | None]] = {}
        self._waiting: list[Callback] = []  # for free descriptors
        self._will_probe = False  # for free descriptors
        self._timers: list[Timer] = []
        self._soon: deque[Callback] = deque()
        self._signals: dict[int, Callback] = {}
        self._wakeup: tuple[int, int] | None = None  # signals and threads write to [1]
        self._post_pipe: tuple[int, int] | None = None  # other threads write to [1]
        self._old_handlers: dict[int, Any] = {}
        self._awaited: dict[int, int] = {}  # children, and their pidfds
        self._exits: dict[int, Callable[[int], None]] = {}  # children without a pidfd
        self.is_running = False
        self.takes_signals = True  # False in a library: signals are the caller's
        self.pool = Pool()
        self.arena = Arena(self.pool)
        self.failed: Callable[[BaseException], None] | None = None  # takes exceptions of callbacks, else raised
        self._shared: dict[Any, Any] = {}

    @staticmethod
    def now() -> float:
        """Monotonic time in seconds."""
        return time.monotonic()

    # -- descriptors ---------------------------------------------------------------------------------------------

    def watch(self, fd: int, read: Callback | None = None, write: Callback | None = None) -> None:
        """Register or change `fd`; without callbacks, unregister it, before its close.  -1 is ignored."""
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
        """Call fn() once, when more descriptors are free than the reserve; for listeners that had to stop accepting.

        Checked when a descriptor is unregistered, and after each `freed`.
        """
        if fn not in self._waiting:
            self._waiting.append(fn)

    def freed(self) -> None:
        """Report that a descriptor is about to be closed."""
        if self._waiting and not self._will_probe:
            self._will_probe = True
            self.soon(lambda: self.soon(self._probe_free))  # once it is closed

    def _probe_free(self) -> None:
        self._will_probe = False
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
        """Call fn(number) for each of `numbers`, except those that the parent ignores, as nohup does SIGHUP."""
        for number in numbers:
            if not signals.is_ignored(number):
                self.on_signal(number, lambda number=number: fn(number))  # type: ignore[misc]

    def on_end(self, end: Callback, at_once: Callback) -> None:
        """Have SIGTERM and SIGINT end a tool: the first calls end(); the second, or `END_TIME` after the first, calls
        at_once()."""
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
        """Nothing: Python writes the number to the wakeup pipe, which the loop reads."""

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
        """`soon` for other threads, after `enable_post` in the thread of the loop."""
        self._soon.append(fn)
        assert self._post_pipe is not None
        try:
            os.write(self._post_pipe[1], b"\0")
        except BlockingIOError:
            return  # it is full, so the loop will wake up

    def enable_post(self) -> None:
        """Allow `post`."""
        if self._post_pipe is None:
            self._post_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self.watch(self._post_pipe[0], self._posted)

    def _posted(self) -> None:
        assert self._post_pipe is not None
        os.read(self._post_pipe[0], 4096)

    def thread(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run `work` in a thread, then `done` in the loop with its result or exception; OSError: no thread."""
        import threading

        self.enable_post()

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
        """Call `fn` when the child `pid` has ended, with its exit status, or minus the number of the signal."""
        try:
            pidfd = os.pidfd_open(pid)
        except (AttributeError, OSError):  # no pidfd_open(2), or no descriptor left
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
                self.soon(self._reap)  # another child, whose status was behind this one
            fn(reap(pid))

        self._awaited[pid] = pidfd
        self.watch(pidfd, ended)

    def _reap_all(self) -> None:
        """Reap children without a pidfd: also those that a shell had before exec, and orphans, which process 1 and a
        subreaper inherit."""
        self.on_signal(signal.SIGCHLD, self._reap)
        self.soon(self._reap)  # some may have ended before the handler was set

    def _reap(self) -> None:
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in self._awaited:
                return  # none, or one whose pidfd reports it, after which this is called again
            status = reap(found.si_pid)
            if found.si_pid in self._exits:
                self.call(lambda: self._exits.pop(found.si_pid)(status))  # noqa: B023

    # -- running -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until `stop()`."""
        self.is_running = True
        if self.takes_signals and signals.is_tool:
            self._reap_all()
        while self.is_running:
            self.run_once()

    def run_once(self) -> None:
        """Sleep until an event, then call the callbacks of all events."""
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
        """Call the present callbacks of `fd`: an earlier callback of this round may have changed them."""
        read, write = self._watched.get(fd, _NOTHING)
        if read is not None and events & READ:
            self.call(read)
            write = self._watched.get(fd, _NOTHING)[1]
        if write is not None and events & WRITE:
            self.call(write)

    def call(self, fn: Callback) -> None:
        """Call fn(); pass an exception to `failed`."""
        try:
            fn()
        except Exception as error:
            if self.failed is None:
                raise
            self.failed(error)

    def stop(self) -> None:
        """Return from `run` after the present round."""
        self.is_running = False

    def shared(self, make: Callable[[Loop], T]) -> T:
        """The object `make(loop)`, made once per loop.  `close` closes it."""
        if make not in self._shared:
            self._shared[make] = make(self)
        found: T = self._shared[make]
        return found

    def close(self) -> None:
        """Close all descriptors and shared objects; restore the signal handlers."""
        for one in self._shared.values():
            one.close()
        for pid, pidfd in self._awaited.items():
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass  # already reaped
            os.close(pidfd)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        if self._wakeup is not None:
            signal.set_wakeup_fd(-1)
        for fd in (*(self._wakeup or ()), *(self._post_pipe or ())):
            os.close(fd)
        self._selector.close()


def reap(pid: int) -> int:
    """Reap an ended child; its status as of `os.waitstatus_to_exitcode`."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

"""iosh: a shell far away, at the terminal one sits at."""

from __future__ import annotations

import errno
import os
import select
import signal

from ..command import QUIET, VERBOSE, Argument, Command, Option
from ..errors import OWN_FAILURE, SIGNALLED, UsageError, WireError
from ..net import child
from ..net.channel import Channel, socketpair
from ..net.frames import LAST_WORDS, Frames, Sink, Source
from ..net.log import Log
from ..net.loop import Loop
from ..proto import terminal as say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..command import Args

COMMAND = Command(
    "iosh",
    "a shell far away, through anything that leads to an ioshd",
    arguments=[
        Argument("COMMAND", "a command line whose stdin and stdout lead to an ioshd"),
        Argument("PROGRAM", "what to run there, and its words; one word is a line for the shell there", rest=True,
                 required=False),
    ],
    options=[
        Option(("-t", "--tty"), "on a terminal there, even if there is none here", kind="flag"),
        Option(("-T", "--no-tty"), "on no terminal there: with stdin, stdout and stderr apart", kind="flag"),
        VERBOSE,
        QUIET,
    ],
    description=(
        "Runs PROGRAM at the other end of COMMAND, as the user who serves ioshd there; without PROGRAM, that user's "
        "login shell.  If stdin and stdout are a terminal, PROGRAM gets one too, of the same size and kind: TERM, "
        "COLORTERM, LANG, LANGUAGE and LC_* are passed on.  If they are not, it gets three pipes, and the end of stdin "
        "is passed on.  PROGRAM may have 256 words, and 16 KiB; what is longer can be sent as stdin, to sh -s.\n\n"
        "The terminal here is raw meanwhile, so that every key goes there, and is restored however iosh ends.  Behind "
        "a new line, these keys are for iosh itself: ~. leaves at once, ~^Z suspends iosh, ~~ sends one ~, ~? lists "
        "them.\n\n"
        "A tunnel that survives the cut of a link carries the shell over it; what is typed meanwhile arrives later.  "
        "At most 64 KiB of output are on their way, so that ^C stops what has too much to say."
    ),
    examples=[
        ('iosh "r2 -t bob -t ioshd tunnel -"', "a login shell on the node bob, which runs: r2 serve ioshd"),
        ('iosh "r2 -t bob -t ioshd tunnel -" zsh -l', "another shell"),
        ('iosh "r2 -t bob/ioshd tunnel -" tar c . | tar x', "a program without a terminal"),
        ('iosh "ssh bob ioshd" vi notes', "through something else"),
    ],
    statuses=[
        ("PROGRAM's", "when it has ended by itself; 128+N by a signal; 126, 127: it could not be started"),
        ("255", "iosh or its tunnel failed, or was left by ~."),
        ("128+N", "iosh was ended by a signal"),
        ("2", "wrong usage"),
    ],
    seealso=["ioshd(8)", "r2-tunnel(1)", "r2-ssh(1)"],
    common=False,
)

EXIT_TIME = 1.0  # seconds for COMMAND to end when the shell has, or when it was hung up
SUSPEND = 0x1A  # ^Z
HELP = b"""
~.   leave at once
~^Z  suspend iosh
~~   send one ~
~?   this help
(each behind a new line)
"""


def main(args: Args) -> int:
    if args.tty and args.no_tty:
        raise UsageError("-t and -T: only one of them")
    if not args.command.strip():
        raise UsageError("an empty COMMAND: what leads to an ioshd?")
    if args.program[:1] == ["--"]:  # as with ssh and mosh
        del args.program[0]
    is_terminal = os.isatty(0) and os.isatty(1)
    return Session(args, args.tty or (is_terminal and not args.no_tty)).run()


class Terminal:
    """The terminal one sits at, on stdin.  Without one, nothing is done."""

    def __init__(self) -> None:
        self._modes: list[Any] | None = None  # as they were found, while it is raw

    def make_raw(self) -> None:
        if not os.isatty(0):
            return
        import termios
        import tty

        self._modes = self._modes or termios.tcgetattr(0)
        tty.setraw(0, termios.TCSANOW)  # and what was typed already is not lost

    def restore(self) -> None:
        """As it was.  Safe to call again, and from the background, where we would be stopped for it."""
        modes, self._modes = self._modes, None
        if modes is None:
            return
        import termios

        handler = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            termios.tcsetattr(0, termios.TCSANOW, modes)
        except termios.error:
            pass  # it is gone
        signal.signal(signal.SIGTTOU, handler)

    @property
    def is_raw(self) -> bool:
        return self._modes is not None

    @staticmethod
    def size() -> tuple[int, int]:
        """(rows, columns); zeros where there is no terminal."""
        for fd in range(3):
            try:
                columns, rows = os.get_terminal_size(fd)
                return rows, columns
            except OSError:
                continue
        return 0, 0


class Escapes:
    """Finds in what is typed the keys that are for iosh; `keys` says what each does."""

    def __init__(self, keys: dict[int, Callable[[], None]]) -> None:
        self._keys = keys
        self._at_start = True  # of a line
        self._is_held = False  # a ~ there

    def take(self, data: bytes) -> bytes:
        """What of `data`, and of what was held back, goes to the other side."""
        passed = bytearray()
        for key in data:
            if self._is_held:
                self._is_held = False
                if key in self._keys:
                    self._keys[key]()
                    continue
                passed += b"" if key == ord("~") else b"~"
            elif self._at_start and key == ord("~"):
                self._is_held = True
                continue
            passed.append(key)
            self._at_start = key in b"\r\n"
        return bytes(passed)


class Session:
    """One run of iosh."""

    def __init__(self, args: Args, on_terminal: bool) -> None:
        self._log = Log("iosh", args.verbose - 2 * args.quiet)
        self._command: str = args.command
        self._on_terminal = on_terminal
        self._loop = Loop()
        self._terminal = Terminal()
        self._size = self._terminal.size()
        self._start = self._encode_start([os.fsencode(word) for word in args.program or ()])
        ours, theirs = socketpair()
        try:
            self._pid = child.start(self._command, theirs, theirs)
        finally:
            os.close(theirs)
        self._frames = Frames(self._loop, Channel(ours), self._heard, self._lost)
        self._source: Source | None = None  # our stdin, once it has been started there
        self._sinks = {
            say.OUTPUT: Sink(self._loop, self._frames, os.dup(1), say.OUTPUT, self._unwritable),
            say.ERRORS: Sink(self._loop, self._frames, os.dup(2), say.ERRORS),
        }
        self._is_greeted = False
        self._has_exited = False  # the program; what it has said may not be written out yet
        self._is_over = False
        self._exit = OWN_FAILURE
        self._why = ""  # there is no tunnel any more

    def _encode_start(self, words: list[bytes]) -> bytes:
        names = {b"LANG", b"LANGUAGE", *((b"TERM", b"COLORTERM") if self._on_terminal else ())}
        env = {key: value for key, value in os.environb.items() if key in names or key.startswith(b"LC_")}
        try:
            return say.encode_start(words, env, self._size if self._on_terminal else None)
        except ValueError as error:
            raise UsageError(f"PROGRAM: {error}") from None

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            self._loop.on_signal(number, lambda number=number: self._leave(SIGNALLED + number))  # type: ignore[misc]
        if self._on_terminal:
            self._loop.on_signal(signal.SIGWINCH, self._resized)
            self._loop.on_signal(signal.SIGCONT, self._continued)
        self._loop.on_exit(self._pid, self._command_exited)
        self._frames.send(say.encode_hello() + self._start)
        try:
            self._loop.run()
        finally:
            self._terminal.restore()
        return self._exit

    # -- what ioshd says -------------------------------------------------------------------------------------------

    def _heard(self, kind: int, payload: bytes) -> None:
        if kind not in _HEARD or (kind == say.HELLO) == self._is_greeted:
            raise WireError("the other side is no ioshd")
        _HEARD[kind](self, payload)

    def _hello(self, payload: bytes) -> None:
        say.decode_hello(payload)
        self._is_greeted = True

    def _started(self, payload: bytes) -> None:
        if self._source is not None:
            raise WireError("a second start")
        take: Callable[[bytes], bytes] | None = None
        if self._on_terminal and os.isatty(0):
            keys = {ord("."): self._leave, ord("?"): self._help, SUSPEND: self._suspend}
            escapes = Escapes(keys)

            def take(data: bytes) -> bytes:
                self._resized()  # what is typed into a new size finds it there, though the signal be heard of later
                return escapes.take(data)

            self._terminal.make_raw()
        ahead = say.WINDOW if take else 0
        self._source = Source(self._loop, self._frames, os.dup(0), say.INPUT, self._input_ended, take, ahead)
        self._resized()

    def _refused(self, payload: bytes) -> None:
        status, why = say.decode_refused(payload)
        self._leave(status, why)

    def _output(self, payload: bytes) -> None:
        self._sinks[say.OUTPUT].put(payload)

    def _errors(self, payload: bytes) -> None:
        self._sinks[say.ERRORS].put(payload)

    def _exited(self, payload: bytes) -> None:
        status, number = say.decode_exit(payload)
        self._has_exited = True
        left = list(self._sinks)

        def written() -> None:
            left.pop()
            if not left:
                self._close(SIGNALLED + number if number else status)

        for sink in self._sinks.values():
            sink.finish(written)

    def _credit(self, payload: bytes) -> None:
        stream, count = say.decode_credit(payload)
        if stream != say.INPUT or self._source is None:
            raise WireError("credit for what is not sent")
        self._source.give(count)

    # -- what happens here -----------------------------------------------------------------------------------------

    def _input_ended(self) -> None:
        self._frames.send(say.encode_frame(say.EOF))

    def _resized(self) -> None:
        """The size that counts is the last one: no more than one waits."""
        if self._source is None or not self._on_terminal:
            return
        if not self._frames.is_clear:
            self._frames.cleared = self._resized
            return
        self._frames.cleared = None
        size = self._terminal.size()
        if size != self._size:
            self._size = size
            self._frames.send(say.encode_size(*size))

    def _continued(self) -> None:
        """We were stopped, and the shell here has made the terminal its own meanwhile."""
        if self._terminal.is_raw:
            self._terminal.make_raw()
            self._resized()

    def _suspend(self) -> None:
        self._terminal.restore()
        os.kill(os.getpid(), signal.SIGTSTP)
        self._terminal.make_raw()
        self._resized()

    def _help(self) -> None:
        self._show(HELP)

    @staticmethod
    def _show(text: bytes) -> None:
        """On the raw terminal, if it takes it at once."""
        poll = select.poll()
        poll.register(1, select.POLLOUT)
        if poll.poll(0):
            os.write(1, text.replace(b"\n", b"\r\n"))

    def _unwritable(self, error: OSError) -> None:
        if error.errno == errno.EPIPE:
            self._leave(SIGNALLED + signal.SIGPIPE)
        else:
            self._leave(OWN_FAILURE, f"writing failed: {error.strerror}")

    # -- the end ---------------------------------------------------------------------------------------------------

    def _lost(self, why: str) -> None:
        """The tunnel has ended.  If it did before the program, COMMAND has some time to say why."""
        if self._has_exited:
            return
        self._why = why or ("it broke off" if self._source else "no ioshd has answered")
        self._give_terminal_back()
        if self._pid:
            self._loop.later(LAST_WORDS, self._give_up)
        else:
            self._give_up_soon()

    def _give_up_soon(self) -> None:
        """A ^C reaches COMMAND too, whose end may be heard of before our own signal is.  Two rounds on, it has been."""
        self._loop.soon(lambda: self._loop.soon(self._give_up))

    def _give_up(self) -> None:
        if not self._is_over:
            self._leave(OWN_FAILURE, f"{self._command}: {self._why}")

    def _leave(self, status: int = OWN_FAILURE, why: str = "") -> None:
        """End at once, and hang COMMAND up."""
        if self._is_over:
            self._loop.stop()
            return
        self._give_terminal_back()
        self._close(status)
        if why:
            self._log.error(why)
        if self._pid:
            child.send_signal(self._pid, signal.SIGHUP)

    def _give_terminal_back(self) -> None:
        if self._terminal.is_raw:
            self._show(b"\n")  # so that what is said next stands on a line of its own
        self._terminal.restore()

    def _close(self, status: int) -> None:
        """All is done but that COMMAND has to end."""
        if self._is_over:
            return
        self._is_over = True
        self._exit = status
        self._frames.close()
        if self._source is not None:
            self._source.close()
        for sink in self._sinks.values():
            sink.close()
        self._terminal.restore()
        if self._pid:
            self._loop.later(EXIT_TIME, self._kill)
        else:
            self._loop.stop()

    def _kill(self) -> None:
        if self._pid:
            child.send_signal(self._pid, signal.SIGTERM)
        self._loop.stop()

    def _command_exited(self, status: int) -> None:
        self._pid = 0
        if status and not self._is_over:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            self._log.info(f"{self._command}: {how}")
        if self._is_over:
            self._loop.stop()
        elif self._why:
            self._give_up_soon()


_HEARD = {
    say.HELLO: Session._hello,
    say.STARTED: Session._started,
    say.REFUSED: Session._refused,
    say.OUTPUT: Session._output,
    say.ERRORS: Session._errors,
    say.EXIT: Session._exited,
    say.CREDIT: Session._credit,
}

"""iosh: a remote shell on the user's terminal."""

from __future__ import annotations

import errno
import os
import select
import signal

from ...cli.command import QUIET, SOCKET, VERBOSE, Argument, Command, Option
from ...errors import SIGNALLED, TOOL_FAILED, AddressError, UsageError, WireError
from ...net.client.reach import tunnel_words
from ...net.io import process
from ...net.io.channel import Channel, socketpair
from ...net.io.log import Log
from ...net.io.loop import Loop
from ...net.io.shell import find_program
from ...net.io.signals import FATAL
from ...net.io.words import TOOLS, quote
from ...proto.wire.address import ANY, SERVICE, parse_path
from . import protocol
from .connection import REASON_TIME, ShellConnection, StreamSink, StreamSource
from .heartbeat import Heartbeat
from .statusline import StatusLine
from .usertty import Escapes, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ...cli.command import Args

COMMAND = Command(
    "iosh",
    "a remote shell, over any connection to an ioshd",
    arguments=[
        Argument("DESTINATION", "a node, or a command line that connects to an ioshd"),
        Argument("PROGRAM", "the program and its arguments; one word is a line for the remote shell", rest=True,
                 required=False),
    ],
    options=[
        Option(("-t", "--tty"), "allocate a remote terminal, even without a local one", kind="flag"),
        Option(("-T", "--no-tty"), "do not allocate a terminal: separate stdin, stdout and stderr", kind="flag"),
        SOCKET,
        VERBOSE,
        QUIET,
    ],
    description=(
        "Runs PROGRAM at DESTINATION as the user who serves ioshd there, or without PROGRAM, that user's login "
        "shell.  DESTINATION is a node if it is one word that is a path, such as bob or carl/bob, and not a "
        "program on PATH; its service ioshd is used, unless the path names another, as in bob/service/root-shell.  "
        "Anything else is a command line.  r2://NODE is always a node, exec:COMMAND always a command.\n\n"
        "If stdin and stdout are a terminal, PROGRAM runs on a terminal of the same size and type: TERM, "
        "COLORTERM, LANG, LANGUAGE and LC_* are passed on.  Otherwise it has three pipes, and the end of stdin "
        "is passed on.  PROGRAM and these variables may have 16 KiB, 256 words and 32 variables in total; "
        "variables that do not fit are left out with a warning.  To run a longer script, send it as stdin to "
        "sh -s.\n\n"
        "The local terminal is in raw mode while iosh runs, and is restored when it ends.  After a newline, "
        "iosh recognises these escapes: ~. disconnects, ~^Z suspends iosh, ~~ sends one ~, ~? lists them.\n\n"
        "The shell survives a cut link if its tunnel does; input is delivered when the link resumes.  If "
        "nothing has arrived for 3 seconds, not even the answer to a keepalive, the top row of the terminal "
        "shows since when.  When the other end answers again, the row reports it and disappears, and the "
        "program is made to redraw its screen (SIGWINCH).  ~. works meanwhile.\n\n"
        "At most 64 KiB of output are in flight, so ^C stops a flood of output quickly."
    ),
    examples=[
        ("iosh bob", "a login shell on the node bob, which serves ioshd"),
        ("iosh bob zsh -l", "another shell"),
        ("iosh bob tar c . | tar x", "a program without a terminal"),
        ('iosh "r2 -t bob -t ioshd tunnel -" zsh -l', "the same with an explicit tunnel"),
        ('iosh "ssh bob ioshd" vi notes', "over ssh, without r2"),
    ],
    statuses=[
        ("PROGRAM's", "if it exited; 128+N: it was killed by signal N; 126, 127: it could not be started"),
        ("255", "iosh or its tunnel failed, or was ended by ~."),
        ("128+N", "iosh was ended by a signal"),
        ("2", "wrong usage"),
    ],
    seealso=["ioshd(8)", "r2(1)", "r2-tunnel(1)", "r2-ssh(1)"],
    common=False,
)

_LOCALE = (b"LC_ALL", b"LC_CTYPE", b"LC_MESSAGES", b"LC_COLLATE", b"LC_TIME", b"LC_NUMERIC", b"LC_MONETARY")
EXIT_TIME = 1.0  # seconds for COMMAND to end after the shell, or after its hangup
SUSPEND = 0x1A  # ^Z
HELP = b"""
~.   leave at once
~^Z  suspend iosh
~~   send one ~
~?   this help
(each behind a new line)
"""


NODE, RUN = "r2://", "exec:"  # prefixes of a DESTINATION that state its kind
REDRAW = 0.1  # seconds between the two changes of size that make a program redraw its screen


def main(args: Args) -> int:
    if args.tty and args.no_tty:
        raise UsageError("-t and -T: only one of them")
    if args.program[:1] == ["--"]:  # as with ssh and mosh
        del args.program[0]
    is_terminal = os.isatty(0) and os.isatty(1)
    return ShellSession(args, args.tty or (is_terminal and not args.no_tty)).run()


def find_command(destination: str, socket: str | None) -> tuple[str, str]:
    """The command line that leads to `destination`, and its name in messages.

    `socket` is -s, for a node only.  UsageError or AddressError if there is no such destination.
    """
    is_node = destination.startswith(NODE)
    name = destination[len(NODE) :] if is_node else destination
    command = destination[len(RUN) :] if destination.startswith(RUN) else destination
    if not command.strip() or not name:
        raise UsageError("an empty DESTINATION: name a node, or a command that leads to an ioshd")
    is_program = destination in TOOLS or find_program(destination)
    if not is_node and (is_program or not is_path(destination)):
        if socket is not None:
            raise UsageError(f"-s {socket}: for a node only; the command {command!r} names its own daemon")
        return command, command
    path = parse_path(name)
    service = path[-1].startswith((SERVICE, ANY))
    words = tunnel_words(path if service else (*path, f"{SERVICE}ioshd"), socket)
    return " ".join(map(quote, words)), name


def is_path(text: str) -> bool:
    """Whether `text` is one word that names a node or a service."""
    try:
        return bool(parse_path(text))
    except AddressError:
        return False


def _shorten(name: bytes) -> str:
    text = "".join(c if c.isprintable() else "?" for c in os.fsdecode(name))
    return text if len(text) <= 40 else f"{text[:40]}..."


class ShellSession:
    """One run of iosh."""

    def __init__(self, args: Args, on_terminal: bool) -> None:
        self._log = Log("iosh", args.verbose - 2 * args.quiet)
        self._command, self._name = find_command(args.destination, args.socket)
        self._on_terminal = on_terminal
        self._loop = Loop()
        self._terminal = Terminal()
        self._size = self._terminal.size()
        self._start = self._encode_start([os.fsencode(word) for word in args.program or ()])
        ours, theirs = socketpair()
        try:
            pid = process.start(self._command, theirs, theirs)
        finally:
            os.close(theirs)
        self._child = process.Child(self._loop, pid, self._command_exited)
        self._connection = ShellConnection(self._loop, Channel(ours), self._received, self._lost)
        self._source: StreamSource | None = None  # our stdin, once the program has started
        self._sinks = {
            protocol.OUTPUT: StreamSink(self._loop, self._connection, os.dup(1), protocol.OUTPUT, self._unwritable),
            protocol.ERRORS: StreamSink(self._loop, self._connection, os.dup(2), protocol.ERRORS),
        }
        self._heartbeat: Heartbeat | None = None  # if ioshd answers PING and there is a terminal
        self._line = StatusLine(
            self._loop, self._name, self._show_status, lambda: self._terminal.size()[1], self._redraw
        )
        self._has_hello = False
        self._answers = False  # ioshd answers PING
        self._has_exited = False  # the program; its output may not be written out yet
        self._is_over = False
        self._exit = TOOL_FAILED
        self._why = ""  # the tunnel has ended

    def _encode_start(self, words: list[bytes]) -> bytes:
        first = [*((b"TERM", b"COLORTERM") if self._on_terminal else ()), b"LANG", b"LANGUAGE", *_LOCALE]
        names = [*first, *sorted(name for name in os.environb if name.startswith(b"LC_") and name not in first)]
        env = {name: os.environb[name] for name in names if name in os.environb}
        try:
            protocol.encode_start(words, {}, None)
        except ValueError as error:
            raise UsageError(f"PROGRAM: {error}") from None
        env, left_out = protocol.fit_env(words, env)
        if left_out:
            more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
            self._log.warning(
                f"{', '.join(map(_shorten, left_out[:5]))}{more}: not passed on: PROGRAM and the environment may have "
                f"{protocol.MAX_FRAME >> 10} KiB, the latter {protocol.MAX_ENV} variables"
            )
        return protocol.encode_start(words, env, self._size if self._on_terminal else None)

    def run(self) -> int:
        self._loop.on_kill(FATAL, lambda number: self._leave(SIGNALLED + number))
        if self._on_terminal:
            self._loop.on_signal(signal.SIGWINCH, self._resized)
            self._loop.on_signal(signal.SIGCONT, self._continued)
        self._connection.send(protocol.encode_hello() + self._start)
        try:
            self._loop.run()
        finally:
            self._terminal.restore()
        return self._exit

    # -- frames of ioshd -------------------------------------------------------------------------------------------

    def _received(self, kind: int, payload: bytes) -> None:
        if kind not in _HANDLERS or (kind == protocol.HELLO) == self._has_hello:
            raise WireError("the other side is not an ioshd")
        _HANDLERS[kind](self, payload)

    def _hello(self, payload: bytes) -> None:
        self._answers = bool(protocol.decode_hello(payload)[1] & protocol.ANSWERS)
        self._has_hello = True

    def _started(self, payload: bytes) -> None:
        if self._source is not None:
            raise WireError("a second STARTED")
        take: Callable[[bytes], bytes] | None = None
        if self._on_terminal and os.isatty(0):
            keys = {ord("."): self._leave, ord("?"): self._help, SUSPEND: self._suspend}
            escapes = Escapes(keys)

            def take(data: bytes) -> bytes:
                self._resized()  # a new size goes before the keys, even if SIGWINCH is late
                return escapes.take(data)

            self._terminal.make_raw()
            if self._answers and os.isatty(1):
                self._heartbeat = Heartbeat(self._loop, self._connection, self._line.silent, self._line.back)
        ahead = protocol.WINDOW if take else 0
        self._source = StreamSource(
            self._loop, self._connection, os.dup(0), protocol.INPUT, self._input_ended, take, ahead
        )
        self._resized()

    def _refused(self, payload: bytes) -> None:
        status, why = protocol.decode_refused(payload)
        self._leave(status, why)

    def _output(self, payload: bytes) -> None:
        self._line.output(payload)
        self._sinks[protocol.OUTPUT].put(payload)

    def _errors(self, payload: bytes) -> None:
        self._sinks[protocol.ERRORS].put(payload)

    def _exited(self, payload: bytes) -> None:
        status, number = protocol.decode_exit(payload)
        self._has_exited = True
        left = list(self._sinks)

        def written() -> None:
            left.pop()
            if not left:
                self._close(SIGNALLED + number if number else status)

        for sink in self._sinks.values():
            sink.finish(written)

    def _pong(self, payload: bytes) -> None:
        """Nothing: the heartbeat has noted its bytes."""

    def _credit(self, payload: bytes) -> None:
        stream, count = protocol.decode_credit(payload)
        if stream != protocol.INPUT or self._source is None:
            raise WireError("credit for an unknown stream")
        self._source.give(count)

    # -- local events ----------------------------------------------------------------------------------------------

    def _input_ended(self) -> None:
        self._connection.send(protocol.encode_frame(protocol.EOF))

    def _resized(self) -> None:
        """Send the size, if it has changed, once the write buffer is empty: only the last size matters."""
        if self._source is None or not self._on_terminal:
            return
        if not self._connection.is_clear:
            self._connection.cleared = self._resized
            return
        self._connection.cleared = None
        size = self._terminal.size()
        if size != self._size:
            self._size = size
            self._connection.send(protocol.encode_size(*size))

    def _continued(self) -> None:
        """Make the terminal raw again: while this process was stopped, the local shell has reset it."""
        if self._terminal.is_raw:
            self._terminal.make_raw()
            self._resized()
            if self._heartbeat is not None:
                self._heartbeat.restart()

    def _suspend(self) -> None:
        self._line.hide(redraw=False)
        self._terminal.restore()
        os.kill(os.getpid(), signal.SIGTSTP)
        self._terminal.make_raw()
        self._resized()

    def _help(self) -> None:
        self._show(HELP)

    @staticmethod
    def _show(text: bytes) -> bool:
        """Write `text` to the raw terminal if it does not block; return whether it was written."""
        poll = select.poll()
        poll.register(1, select.POLLOUT)
        if not poll.poll(0):
            return False
        os.write(1, text.replace(b"\n", b"\r\n"))
        return True

    def _show_status(self, data: bytes) -> bool:
        return self._terminal.is_raw and self._sinks[protocol.OUTPUT].is_clear and self._show(data)

    def _redraw(self) -> None:
        """Make the program redraw its screen: one row less for REDRAW seconds, as an equal size has no effect."""
        rows, columns = self._size
        if rows > 1 and not self._has_exited and self._connection.is_clear:
            self._size = rows - 1, columns
            self._connection.send(protocol.encode_size(*self._size))
            self._loop.later(REDRAW, self._resized)

    def _unwritable(self, error: OSError) -> None:
        if error.errno == errno.EPIPE:
            self._leave(SIGNALLED + signal.SIGPIPE)
        else:
            self._leave(TOOL_FAILED, f"writing failed: {error.strerror}")

    # -- the end ---------------------------------------------------------------------------------------------------

    def _lost(self, why: str) -> None:
        """The tunnel has ended.  If the program has not, COMMAND gets REASON_TIME to report why."""
        if self._has_exited:
            return
        self._why = why or ("the tunnel failed" if self._source else "no ioshd has answered")
        self._restore_terminal()
        if self._child.is_running:
            self._loop.later(REASON_TIME, self._give_up)
        else:
            self._give_up_soon()

    def _give_up_soon(self) -> None:
        """Give up two rounds later: a ^C reaches COMMAND too, whose exit may be reported before our own signal."""
        self._loop.soon(lambda: self._loop.soon(self._give_up))

    def _give_up(self) -> None:
        if not self._is_over:
            is_both = is_path(self._command) and self._source is None  # the name of a program may be meant as a node
            hint = f" (if a node is meant: iosh {NODE}{self._command})" if is_both else ""
            self._leave(TOOL_FAILED, f"{self._name}: {self._why}{hint}")

    def _leave(self, status: int = TOOL_FAILED, why: str = "") -> None:
        """End now, and hang up on COMMAND."""
        if self._is_over:
            self._loop.stop()
            return
        self._restore_terminal()
        self._close(status)
        if why:
            self._log.error(why)
        self._child.hang_up()

    def _restore_terminal(self) -> None:
        if self._terminal.is_raw:
            self._line.hide(redraw=False)
            self._show(b"\n")  # so that the next message begins a line
        self._terminal.restore()

    def _close(self, status: int) -> None:
        """Close everything; wait for COMMAND to end."""
        if self._is_over:
            return
        self._is_over = True
        self._exit = status
        self._line.hide(redraw=False)
        if self._heartbeat is not None:
            self._heartbeat.close()
        self._connection.close()
        if self._source is not None:
            self._source.close()
        for sink in self._sinks.values():
            sink.close()
        self._terminal.restore()
        if self._child.is_running:
            self._child.end(process.TERMINATE, EXIT_TIME)
            self._loop.later(EXIT_TIME, self._loop.stop)
        else:
            self._loop.stop()

    def _command_exited(self, status: int) -> None:
        if status and not self._is_over:
            how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
            self._log.info(f"{self._name}: {how}")
        if self._is_over:
            self._loop.stop()
        elif self._why:
            self._give_up_soon()


_HANDLERS = {
    protocol.HELLO: ShellSession._hello,
    protocol.STARTED: ShellSession._started,
    protocol.REFUSED: ShellSession._refused,
    protocol.OUTPUT: ShellSession._output,
    protocol.ERRORS: ShellSession._errors,
    protocol.EXIT: ShellSession._exited,
    protocol.CREDIT: ShellSession._credit,
    protocol.PONG: ShellSession._pong,
}

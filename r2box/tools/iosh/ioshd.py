"""ioshd: the far end of iosh, a shell on its stdin and stdout."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import signal
import struct
import termios

from ...cli.command import Command
from ...errors import FAILED, NOT_EXECUTABLE, NOT_FOUND, OK, UsageError, WireError
from ...net.io import process
from ...net.io.channel import Channel, close_all
from ...net.io.log import Log
from ...net.io.loop import Loop
from ...net.io.shell import SHELL
from ...net.io.stdio import take_stdio
from . import protocol
from .connection import ShellConnection, StreamSink, StreamSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...cli.command import Args

COMMAND = Command(
    "ioshd",
    "the shell server for iosh",
    description=(
        "Communicates with iosh(1) over its stdin and stdout, and runs one program for it, on a new terminal "
        "or with three pipes; by default the login shell of the user.  It is meant to be a service: each "
        "tunnel starts one ioshd.\n\n"
        "The program runs as the user who runs ioshd, in that user's home directory.  There is no password: "
        "any client that may open a tunnel to the service has the rights of that user, so restrict it (r2 "
        "serve --allow).\n\n"
        "When the tunnel fails or ends, the program gets SIGHUP, as when a terminal is closed."
    ),
    examples=[
        ("r2 serve ioshd", "offer a shell as yourself to other nodes"),
        ("r2 serve --allow alice ioshd", "only to the node alice"),
        ("r2 serve -n visitor 'sudo -u visitor ioshd'", "a shell as another user"),
    ],
    statuses=[
        ("0", "the program has ended, whatever its status"), ("1", "the tunnel ended first, or the peer is not iosh"),
        ("2", "wrong usage, or stdin is a terminal"),
    ],
    seealso=["iosh(1)", "r2-serve(1)"],
    common=False,
    section=8,
)

HELLO_TIME = 60.0  # seconds for HELLO; a user who connects by hand then gets NO_IOSH
NO_IOSH = b'ioshd: this is a shell for iosh; run: iosh NODE\n'
ACCEPTED = (b"TERM", b"COLORTERM", b"LANG", b"LANGUAGE")  # of iosh's environment; and LC_*
_IUTF8 = 0x4000  # linux/termbits.h; missing in termios before Python 3.13


def main(args: Args) -> int:
    if os.isatty(0):
        raise UsageError("stdin is a terminal: this is for iosh at the other end of a tunnel (r2 serve ioshd)")
    return Shell().run()


class Shell:
    """One program for one iosh.  Ends when the program has exited and all its output is sent."""

    def __init__(self) -> None:
        self._log = Log("ioshd")
        self._loop = Loop()
        self._connection = ShellConnection(self._loop, Channel(*take_stdio()), self._received, self._lost)
        self._connection.last_bytes = NO_IOSH
        self._has_hello = False
        self._shell = SHELL
        self._child: process.Child | None = None
        self._has_started = False
        self._status: int | None = None  # of the program, as of `on_exit`
        self._input: StreamSink | None = None
        self._outputs: dict[int, StreamSource] = {}  # by stream; those that have not ended
        self._master = -1  # master of the terminal
        self._last = b"\n"  # byte of input
        self._exit = FAILED

    def run(self) -> int:
        self._loop.on_kill((signal.SIGHUP, signal.SIGTERM, signal.SIGINT), lambda number: self._lost(""))
        self._loop.later(HELLO_TIME, self._hello_timeout)
        self._loop.run()
        return self._exit

    # -- frames of iosh --------------------------------------------------------------------------------------------

    def _received(self, kind: int, payload: bytes) -> None:
        due = protocol.HELLO if not self._has_hello else protocol.START if not self._has_started else 0
        if kind not in _HANDLERS or (kind != due if due else kind in (protocol.HELLO, protocol.START)):
            raise WireError(f"unexpected frame of type {kind}")
        _HANDLERS[kind](self, payload)

    def _hello(self, payload: bytes) -> None:
        protocol.decode_hello(payload)
        self._has_hello = True
        self._connection.last_bytes = b""
        self._connection.send(protocol.encode_hello(protocol.ANSWERS))

    def _start(self, payload: bytes) -> None:
        words, env, size = protocol.decode_start(payload)
        self._has_started = True
        try:
            self._run(words, env, size)
        except OSError as error:
            what = os.fsdecode(words[0]) if len(words) > 1 else self._shell
            status = NOT_FOUND if error.errno == errno.ENOENT else NOT_EXECUTABLE
            self._connection.send(protocol.encode_refused(status, f"{what}: {error.strerror}"))
            self._exit = OK  # iosh has its reply
            self._leave()

    def _run(self, words: list[bytes], env: dict[bytes, bytes], size: tuple[int, int] | None) -> None:
        environment = self._prepare(env)
        base = os.path.basename(self._shell)
        line: list[str | bytes] = [*words] if len(words) > 1 else [base, "-c", *words] if words else ["-" + base]
        path = "" if len(words) > 1 else self._shell
        if size is not None:
            pid = self._run_on_terminal(line, path, environment, size)
        else:
            pid = self._run_on_pipes(line, path, environment)
        self._child = process.Child(self._loop, pid, self._exited, group=True)
        self._connection.send(protocol.encode_frame(protocol.STARTED))

    def _prepare(self, env: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Change to the home directory; return the environment of the program."""
        try:
            user = pwd.getpwuid(os.getuid())
            name, home, self._shell = user.pw_name, user.pw_dir, user.pw_shell or SHELL
        except KeyError:  # a user id without a name, as in containers
            name, home, self._shell = str(os.getuid()), "/", SHELL
        known = {"HOME": home, "SHELL": self._shell, "USER": name, "LOGNAME": name, "PATH": os.defpath}
        wanted = {key: value for key, value in env.items() if key in ACCEPTED or key.startswith(b"LC_")}
        environment = {**{os.fsencode(k): os.fsencode(v) for k, v in known.items()}, **os.environb, **wanted}
        try:
            os.chdir(environment[b"HOME"])
        except OSError as error:
            self._log.warning(f"{os.fsdecode(environment[b'HOME'])}: {error.strerror}")
        return environment

    def _run_on_terminal(
        self, line: list[str | bytes], path: str, environment: dict[bytes, bytes], size: tuple[int, int]
    ) -> int:
        self._master, slave = os.openpty()
        try:
            os.set_blocking(self._master, False)
            modes = termios.tcgetattr(slave)
            modes[0] |= _IUTF8
            termios.tcsetattr(slave, termios.TCSANOW, modes)
            self._set_size(*size)
            pid = process.start_program(line, environment, path=path, terminal=os.ttyname(slave))
        finally:
            os.close(slave)
        self._input = StreamSink(self._loop, self._connection, os.dup(self._master), protocol.INPUT)
        self._send_from(self._master, protocol.OUTPUT)
        return pid

    def _run_on_pipes(self, line: list[str | bytes], path: str, environment: dict[bytes, bytes]) -> int:
        pipes = [os.pipe() for _ in range(3)]
        theirs = pipes[0][0], pipes[1][1], pipes[2][1]
        ours = pipes[0][1], pipes[1][0], pipes[2][0]
        try:
            pid = process.start_program(line, environment, path=path, streams=theirs)
        except OSError:
            close_all(ours)
            raise
        finally:
            close_all(theirs)
        for fd in ours:
            os.set_blocking(fd, False)
        self._input = StreamSink(self._loop, self._connection, ours[0], protocol.INPUT)
        self._send_from(ours[1], protocol.OUTPUT)
        self._send_from(ours[2], protocol.ERRORS)
        return pid

    def _send_from(self, fd: int, stream: int) -> None:
        self._outputs[stream] = StreamSource(self._loop, self._connection, fd, stream, lambda: self._silent(stream))

    def _type(self, payload: bytes) -> None:
        if self._input is None:
            raise WireError("INPUT before STARTED")
        self._last = payload[-1:] or self._last
        self._input.put(payload)

    def _end_input(self, payload: bytes) -> None:
        """End the input of the program.  A terminal cannot close one direction: type its EOF character."""
        sink = self._input
        if sink is None:
            raise WireError("EOF before STARTED")
        if self._master < 0:
            sink.finish(sink.close)
            return
        eof = termios.tcgetattr(self._master)[6][termios.VEOF]
        tail = eof if self._last == b"\n" else eof * 2  # within a line the first one only ends the line
        sink.finish(lambda: None, tail)

    def _resize(self, payload: bytes) -> None:
        size = protocol.decode_size(payload)
        if protocol.OUTPUT in self._outputs and self._master >= 0:
            self._set_size(*size)

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _credit(self, payload: bytes) -> None:
        stream, count = protocol.decode_credit(payload)
        if stream in self._outputs:
            self._outputs[stream].give(count)

    def _ping(self, payload: bytes) -> None:
        """Answer, unless other frames wait to be written: they show the same, and PINGs cannot fill the buffer."""
        if self._connection.is_clear:
            self._connection.send(protocol.encode_frame(protocol.PONG))

    # -- the end ---------------------------------------------------------------------------------------------------

    def _exited(self, status: int) -> None:
        self._status = status
        if self._master >= 0 and protocol.OUTPUT in self._outputs:
            self._outputs[protocol.OUTPUT].finish()
        self._maybe_over()

    def _silent(self, stream: int) -> None:
        del self._outputs[stream]
        self._maybe_over()

    def _maybe_over(self) -> None:
        """End after the program and its outputs.  As in sshd, background processes may still write to pipes."""
        if self._status is not None and not self._outputs:
            self._connection.send(protocol.encode_exit(max(self._status, 0), max(-self._status, 0)))
            self._exit = OK
            self._leave()

    def _leave(self) -> None:
        """Stop when the write buffer is empty."""
        self._connection.cleared = self._loop.stop
        if self._connection.is_clear:
            self._loop.stop()

    def _hello_timeout(self) -> None:
        if not self._has_hello:
            self._connection.fail("no HELLO from iosh")

    def _lost(self, why: str) -> None:
        """The tunnel has ended, or the peer is not iosh."""
        if why:
            self._log.warning(why)
        if self._child is not None:
            self._child.end()
        self._loop.stop()


_HANDLERS = {
    protocol.HELLO: Shell._hello,
    protocol.START: Shell._start,
    protocol.INPUT: Shell._type,
    protocol.EOF: Shell._end_input,
    protocol.SIZE: Shell._resize,
    protocol.CREDIT: Shell._credit,
    protocol.PING: Shell._ping,
}

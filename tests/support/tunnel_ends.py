"""Both ends of a tunnel in the hands of a test, which reads and writes their descriptors itself.

    Tunnels   tunnels of one kind: what opens them, over which nodes, and what the service is
    End       one of the two ends of one

A command of a tunnel or a service is `LENDER`, which passes its own descriptors to the test and waits for it.
"""

from __future__ import annotations

import array
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Callable

import r2box

from .processes import PATIENCE, Place, Program
from .tunnels import make_ends

PIECE = 1 << 16
STALL = 0.3  # seconds in which a writer gets rid of nothing: it is blocked
KILLED = -9  # status of a command that is to kill itself
LENDER = """
import os, socket, sys
fds = [int(fd) for fd in sys.argv[2]]
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
socket.send_fds(sock, [b"x"], fds)
for fd in (0, 1):
    os.close(fd)
status = int(sock.recv(8) or 0)
if status < 0:
    os.kill(os.getpid(), -status)
os._exit(status)
"""


class End:
    """One end.  `reader` and `writer` are one descriptor where it is a socket, and two where it is a pair of pipes."""

    def __init__(self, reader: int, writer: int, kind: str) -> None:
        self.reader, self.writer, self.kind = reader, writer, kind
        self.program: Program | None = None  # the tool, where its exit status tells how the tunnel ended
        self.lender: socket.socket | None = None
        self.node: Program | None = None
        self.is_silent = False  # the end of the node, to its neighbours

    def write(self, data: bytes) -> None:
        """Write all of it, in pieces."""
        os.set_blocking(self.writer, True)
        view = memoryview(data)
        while view:
            view = view[os.write(self.writer, view[:PIECE]) :]

    def writing(self, data: bytes) -> threading.Thread:
        """Write all of it in a thread."""

        def work() -> None:
            with suppress(OSError):  # who reads at the other end tells
                self.write(data)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def fill(self, chunks: Iterator[bytes]) -> bytes:
        """Write until the writer blocks; what has been taken."""
        os.set_blocking(self.writer, False)
        taken: list[bytes] = []
        for chunk in chunks:
            while chunk:
                if not select.select([], [self.writer], [], STALL)[1]:
                    return b"".join(taken)
                try:
                    count = os.write(self.writer, chunk)
                except BlockingIOError:
                    time.sleep(STALL / 10)  # room for less than what a pipe takes at once
                    if not select.select([], [self.writer], [], STALL)[1]:
                        return b"".join(taken)
                    count = 0
                taken.append(chunk[:count])
                chunk = chunk[count:]
        raise AssertionError(f"{self.kind} never blocks")

    def write_error(self) -> OSError:
        """The error that a write meets once the other end has been closed."""
        os.set_blocking(self.writer, False)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                os.write(self.writer, bytes(PIECE))
            except BlockingIOError:
                select.select([], [self.writer], [], 0.1)
            except OSError as error:
                return error
        raise AssertionError(f"{self.kind} writes on after the other end was closed")

    def read(self, size: int) -> bytes:
        """So many bytes, or fewer where the stream ends; OSError where it fails."""
        got = bytearray()
        deadline = time.monotonic() + PATIENCE
        while len(got) < size:
            if not select.select([self.reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"{self.kind}: nothing more within {PATIENCE:g} s after {len(got)} bytes")
            piece = os.read(self.reader, min(PIECE, size - len(got)))
            if not piece:
                break
            got += piece
        return bytes(got)

    def read_all(self) -> bytes:
        return self.read(1 << 40)

    def half_close(self) -> None:
        """End what this end writes."""
        if self.reader == self.writer:
            with socket.socket(fileno=os.dup(self.writer)) as sock:
                sock.shutdown(socket.SHUT_WR)
        else:
            os.close(self.writer)
        self.writer = -1 if self.reader != self.writer else self.writer

    def close(self, status: int = 0) -> None:
        """Close it; a command exits with `status`."""
        for fd in {self.reader, self.writer} - {-1}:
            os.close(fd)
        self.reader = self.writer = -1
        if self.lender is not None:
            with suppress(BrokenPipeError):  # it was hung up on
                self.lender.sendall(b"%d" % status)
            self.lender.close()
            self.lender = None

    def abort(self) -> None:
        """Fail: a command is killed, a TCP connection is reset."""
        if self.lender is None:
            with socket.socket(fileno=os.dup(self.writer)) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close(KILLED)

    def kill_node(self) -> None:
        """Kill the daemon at this end, or where only time would tell the other (over UDP), end it."""
        assert self.node is not None
        self.node.send(signal.SIGTERM if self.is_silent else signal.SIGKILL)

    def ends_well(self) -> None:
        """The tunnel has ended in good order, as far as this end can tell."""
        if self.program is not None:
            self.program.ends(0)

    def fails(self) -> None:
        """This end is told of a failure: by what it reads, or by the exit status of its tool."""
        told = ""
        try:
            self.read_all()
        except OSError as error:
            told = str(error)
        self.close()
        if self.program is not None:
            self.program.ends(None)
            told += f"status {self.program.popen.returncode}" if self.program.popen.returncode else ""
        assert told, f"{self.kind} sees a clean end"


class _Listener:
    """A socket at which ends arrive, of a lender or of a connection itself."""

    def __init__(self, stack: ExitStack, kind: str, place: Place, name: str) -> None:
        self.kind = kind
        if kind == "tcp":
            self.sock = socket.create_server(("127.0.0.1", 0))
            self.url = f"tcp://127.0.0.1:{self.sock.getsockname()[1]}"
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(str(place.path / name))
            self.sock.listen()
            fds = {"command": "01", "inetd": "0"}.get(kind, "")
            (place.path / "lender.py").write_text(LENDER)
            self.url = f"unix://{name}" if kind == "unix" else f"'python3 lender.py {name} {fds}'"
        self.sock.settimeout(PATIENCE)
        stack.callback(self.sock.close)

    def accept(self) -> End:
        sock, _ = self.sock.accept()
        if self.kind in ("tcp", "unix"):
            fd = sock.detach()
            return End(fd, fd, self.kind)
        fds = array.array("i")
        data, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(2 * fds.itemsize))
        assert data, f"the {self.kind} is gone"
        fds.frombytes(ancillary[0][2])
        end = End(fds[0], fds[-1], self.kind)
        end.lender = sock
        return end


class _Library:
    """A service of the library."""

    def __init__(self, stack: ExitStack, place: Place, name: str) -> None:
        self.tunnels = r2box.serve(name, socket=str(place.path / "bob.sock"))
        stack.callback(self.tunnels.close)

    def accept(self) -> End:
        sock, _ = next(iter(self.tunnels))
        fd = sock.detach()
        return End(fd, fd, "library")


def _near(stack: ExitStack, place: Place, kind: str, from_: str, target: str) -> Callable[[], End]:
    """Begin to open a tunnel; the result gives its near end."""
    command = f"r2 -s {from_} -t {target}"
    if kind in ("stdio", "pipes"):
        ours_in, in_, ours_out, out = make_ends("socket" if kind == "stdio" else "pipe")
        program = place.start(f"{command} tunnel -", stdin=in_, stdout=out)
        for fd in {in_, out}:
            os.close(fd)
        end = End(ours_out, ours_in, kind)
        end.program = program
        return lambda: end
    if kind == "library":
        fd = r2box.dial(target, socket=str(place.path / from_), timeout=PATIENCE).detach()
        return lambda: End(fd, fd, kind)
    if kind == "forward":
        forward = place.start(f"{command} forward tcp-listen://127.0.0.1:0").says("listening at")
        port = int(forward.err.partition("listening at ")[2].split()[0].rpartition(":")[2])
        fd = socket.create_connection(("127.0.0.1", port)).detach()
        return lambda: End(fd, fd, kind)
    listener = _Listener(stack, kind, place, f"near{len(place.programs)}")
    program = place.start(f"{command} tunnel {listener.url}")

    def accept() -> End:
        end = listener.accept()
        end.program = program
        return end

    return accept


class Tunnels:
    """Tunnels of one kind: `near` at the node with the socket `from_`, `far` at bob, whose service is `name`."""

    def __init__(self, stack: ExitStack, place: Place, near: str, far: str, from_: str, to: str) -> None:
        self.place, self.near, self.from_, self.target = place, near, from_, f"{to}far"
        self._stack = stack
        if far == "library":
            self._far: _Library | _Listener = _Library(stack, place, "far")
        else:
            self._far = _Listener(stack, far, place, "far.sock")
            place.start(f"r2 -v -s bob.sock serve -n far {self._far.url}").says("offering service/")

    @contextmanager
    def open(self) -> Iterator[tuple[End, End]]:
        """A tunnel: its near end and its far one."""
        with ExitStack() as stack:
            near = _near(stack, self.place, self.near, self.from_, self.target)
            far = self._far.accept()
            far.node = next(program for program in self.place.programs if program.line.endswith("-s bob.sock bob"))
            far.is_silent = any(program.line.startswith("r2-lossy") for program in self.place.programs)
            stack.callback(far.close)
            end = near()
            stack.callback(end.close)
            yield end, far

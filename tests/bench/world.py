"""One directory in /tmp, and every process that is started there.

Nothing may be left behind, whatever happens: each program leads a process group of its own, which is ended by the
program's id.  The id of a program that has ended by itself stays its own until it is reaped, so it is looked at without
reaping, its group is killed, and only then it is reaped.  What has left its group is found by a mark in its
environment.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from .runs import RunError

T = TypeVar("T")

HERE = Path(__file__).resolve().parent
MARK = "R2BOX_BENCH"
PATIENCE = 30.0  # seconds for what takes a fraction of one
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 3.0  # seconds for a program to end when it has been asked to


class Program:
    """A started program.  Its stderr, and its stdout unless it was to be elsewhere, are in a file."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self.pid = popen.pid
        self._log = log

    @property
    def has_ended(self) -> bool:
        """Whether it has ended; it is not reaped by asking."""
        if self.popen.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @property
    def last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").split("\n") if line]
        if any(line.startswith("Traceback") for line in lines):
            return lines[-1]
        return " / ".join(lines[-6:]) or "(no output)"

    def ask(self, question: object) -> Any:
        """For a program that answers each line of JSON on its stdin by one on its stdout."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.write(json.dumps(question).encode() + b"\n")
        self.popen.stdin.flush()
        answer = self.popen.stdout.readline()
        if not answer:
            raise RunError(f"{question}: no answer: {self.last_words}")
        return json.loads(answer)


class World:
    """The built r2box in `dist` is in the PATH of what is started here."""

    def __init__(self, dist: Path) -> None:
        # in /tmp, whatever TMPDIR says: paths of sockets have to be short
        self.path = Path(tempfile.mkdtemp(prefix="r2bench-", dir="/tmp"))
        self.dist = dist
        # Not whatever `python3` is on PATH: that may be a script which takes longer than what is measured.
        self.python = self.path / "bin" / "python3"
        self.python.parent.mkdir()
        self.python.symlink_to(Path(sys.executable).resolve())
        self.env = {name: os.environ[name] for name in ("LANG", "USER", "LOGNAME", "TERM") if name in os.environ}
        system = os.environ.get("PATH", os.defpath)
        self.env["PATH"] = os.pathsep.join([str(dist), str(self.python.parent), system, "/usr/sbin", "/sbin"])
        self.env["HOME"] = str(self.path)
        self.env[MARK] = self.path.name
        self._programs: list[Program] = []
        self._count = 0

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- programs ------------------------------------------------------------------------------------------------

    def unique(self, name: str) -> Path:
        """A path that nothing has used yet."""
        self._count += 1
        return self.path / f"{name}{self._count}"

    def start(
        self, argv: Sequence[object], stdin: int | IO[Any] = subprocess.DEVNULL, stdout: int | IO[Any] | None = None
    ) -> Program:
        """Start a program and leave it running."""
        log = self.unique("log")
        with open(log, "wb") as file:
            popen = subprocess.Popen(
                [str(word) for word in argv],
                cwd=self.path,
                env=self.env,
                stdin=stdin,
                stdout=file if stdout is None else stdout,
                stderr=file,
                start_new_session=True,
            )
        program = Program(popen, log)
        self._programs.append(program)
        return program

    def converse(self, argv: Sequence[object]) -> Program:
        """Start a program that is to be asked."""
        return self.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, argv: Sequence[object], patience: float = PATIENCE) -> tuple[int, str]:
        """Run a program to its end; its exit status and what it wrote on stdout."""
        out = self.unique("out")
        with open(out, "wb") as file:
            program = self.start(argv, stdout=file)
        self.until(lambda: program.has_ended, f"the end of {argv[0]}", patience)
        self.end(program)
        return program.popen.returncode, out.read_text(errors="replace")

    def end(self, program: Program, grace: float = 0.0) -> None:
        """End it and its group: by itself within `grace` seconds, or asked to, or killed."""
        if program not in self._programs:
            return
        self._wait(program, grace)
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(program.pid, number)
            except (ProcessLookupError, PermissionError):
                pass
            self._wait(program, GRACE)
        program.popen.wait()
        for pipe in (program.popen.stdin, program.popen.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass
        self._programs.remove(program)

    @staticmethod
    def _wait(program: Program, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not program.has_ended and time.monotonic() < deadline:
            time.sleep(0.002)

    # -- waiting -------------------------------------------------------------------------------------------------

    @staticmethod
    def until(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
        """The first true value of `condition()`."""
        deadline = time.monotonic() + patience
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise RunError(f"waited {patience:g} s in vain for {what}")
            time.sleep(0.005)

    def listens(self, port: int, who: str) -> None:
        """Wait until somebody listens at that port."""
        self.until(lambda: is_listening(port), f"{who} to listen")

    def result(self, path: Path, programs: Sequence[Program], patience: float) -> Any:
        """What a load has reported at `path`.  The file goes, so that it can be written again."""
        dead_since = 0.0
        deadline = time.monotonic() + patience
        while not path.exists():
            dead = [program for program in programs if program.has_ended]
            dead_since = (dead_since or time.monotonic()) if dead else 0.0
            if dead and time.monotonic() > dead_since + GRACE:
                raise RunError(f"ended before it was done: {dead[0].last_words}")
            if time.monotonic() > deadline:
                raise RunError(f"not done after {patience:g} s: {programs[0].last_words}")
            time.sleep(0.005)
        found = json.loads(path.read_text())
        path.unlink()
        return found

    # -- things to run -------------------------------------------------------------------------------------------

    def helper(self, name: str, *words: object) -> list[object]:
        """The command that runs one of the programs beside this module, with the standard library only."""
        return [self.python, "-I", "-S", HERE / f"{name}.py", *words]

    def peer(self, name: str, *words: object) -> list[object]:
        """The same for one that needs what pip has installed: under the Python that runs the bench."""
        return [sys.executable, "-I", HERE / f"{name}.py", *words]

    def script(self, argv: Sequence[object]) -> str:
        """The path of a file that runs `argv`: one word, whatever it is to be an argument of."""
        path = self.unique("run")
        path.write_text("#!/bin/sh\nexec " + shlex.join(str(word) for word in argv) + "\n")
        path.chmod(0o755)
        return str(path)

    def load(self, *words: object) -> str:
        return self.script(self.helper("loads", *words))

    # -- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything; an impatient second ^C does not stop that."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
        try:
            for program in reversed(self._programs):
                try:
                    os.killpg(program.pid, signal.SIGTERM)
                except (ProcessLookupError, PermissionError):
                    pass
            for program in list(reversed(self._programs)):
                self.end(program)
            self._end_strays()
        finally:
            shutil.rmtree(self.path, ignore_errors=True)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end_strays(self) -> None:
        """Services, and what they started, end by themselves when their daemon has; those that do not are killed."""
        deadline = time.monotonic() + GRACE
        while strays(self.path.name):
            if time.monotonic() > deadline:
                for pid in strays(self.path.name):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                return
            time.sleep(0.02)


def strays(mark: str) -> list[int]:
    """Processes that have the mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended, or is another user's
    return found


def which(program: str) -> str:
    """Its path, also where only root's PATH has it; "" if there is none."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return shutil.which(program, path=path) or ""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    """Whether somebody listens there, without connecting, which would start something."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def is_bound(port: int) -> bool:
    """Whether somebody takes datagrams there, without taking the port oneself."""
    return f":{port:04X} " in Path("/proc/net/udp").read_text()


def resident(pid: int) -> int:
    """Bytes of memory that the process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def status(pid: int, field: str) -> int:
    """A number of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise RunError(f"/proc/{pid}/status has no {field}")

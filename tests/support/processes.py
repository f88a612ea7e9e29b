"""What the tests with real processes share: they run the built r2box through its symlinks, as a user does.

    Box         the built program under one Python, with the environment in which the tools' names are commands
    Place       one test's directory and everything that runs in it
    Program     one started program
    eventually  waits for a condition; nothing else here sleeps

Command lines are given as one types them, to `/bin/sh`, in the directory of the place: `-s alice.sock` is a file there,
which also keeps the paths of sockets below the 107 bytes that the system allows.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import pytest

T = TypeVar("T")

PATIENCE = 30.0  # seconds for what normally takes a fraction of one, on a machine that does much else
PROGRAMS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])  # where those of others are
BUG = re.compile(r"internal error|Traceback \(most recent call last\)|ResourceWarning|Exception ignored")


def eventually(condition: Callable[[], T], what: str | Callable[[], str], patience: float = PATIENCE) -> T:
    """The first true value of `condition()`; fails with `what` if there is none in time."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:g} s in vain: {what if isinstance(what, str) else what()}")
        time.sleep(0.01)


def found_pythons() -> dict[tuple[int, int], str]:
    """One interpreter for each version of Python from 3.9 up that this machine has, oldest first."""
    folders = [*map(Path, os.get_exec_path()), *sorted(Path.home().glob(".pyenv/versions/*/bin"))]
    found = {sys.version_info[:2]: sys.executable}
    for folder in folders:
        for path in sorted(folder.glob("python3*")) if folder.name != "shims" else ():
            if not re.fullmatch(r"python3(\.\d+)?", path.name):
                continue
            script = "import sys; print('%d %d' % sys.version_info[:2])"
            answer = subprocess.run([path, "-c", script], capture_output=True, text=True)
            if answer.returncode == 0:
                major, minor = map(int, answer.stdout.split())
                found.setdefault((major, minor), str(path))
    return {version: path for version, path in sorted(found.items()) if version >= (3, 9)}


PYTHONS = found_pythons()
RUNNING = sys.version_info[:2]


def need(*programs: str) -> None:
    """Skip the test where one of `programs` is missing; fail if they are required (R2BOX_REQUIRE_PEERS=1)."""
    missing = [program for program in programs if not shutil.which(program, path=PROGRAMS)]
    if missing and os.environ.get("R2BOX_REQUIRE_PEERS") == "1":
        pytest.fail(f"not installed: {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def own_ports() -> Iterator[int]:
    """Ports, again and again, that the system gives to nobody and the tests of other workers do not take."""
    file = Path("/proc/sys/net/ipv4/ip_local_port_range")
    end = int(file.read_text().split()[0]) if file.exists() else 32768
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 16
    ports = [port for port in range(end - 1024 * (worker + 1), end - 1024 * worker) if port > 1024]
    first = random.SystemRandom().randrange(len(ports) or 1)  # there may be other runs of the tests
    return itertools.cycle(ports[first:] + ports[:first])


_ports = own_ports()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nobody uses, and that nobody is given for a connection before it is listened at."""
    for wanted in itertools.chain(itertools.islice(_ports, 1024), [0]):
        with socket.socket(socket.AF_INET, kind) as sock, contextlib.suppress(OSError):
            sock.bind(("", wanted))
            port: int = sock.getsockname()[1]
            return port
    raise AssertionError("no port is free")


def await_port(port: int, patience: float = PATIENCE) -> None:
    """Until somebody listens there."""

    def listens() -> bool:
        tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
        rows = [row.split() for table in tables if table.exists() for row in table.read_text().splitlines()[1:]]
        return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)

    eventually(listens, f"a listener at port {port}", patience)


def memory(pid: int, field: str) -> int:
    """Bytes of memory as /proc/PID/status has them: VmRSS is now, VmHWM the most there ever was."""
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> list[bytes]:
    """The words of its command line; none if it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


def running(pid: int, word: bytes) -> list[int]:
    """The children of `pid` that have `word` in their command lines; not a shell that is about to be one."""
    return [child for child in children(pid) if any(word in it for it in command_line(child))]


def cpu_time(pid: int) -> float:
    """Seconds that it has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wakeups(pid: int, seconds: float) -> int:
    """How often the process wakes up by itself in some time in which nothing is asked of it."""

    def switches() -> int:
        text = Path(f"/proc/{pid}/status").read_text()
        return int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    before = switches()
    time.sleep(seconds)
    return switches() - before


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


class Box:
    """The tools in the folder `dist`, run by the Python at `python`."""

    def __init__(self, dist: Path, python: str, version: tuple[int, int], folder: Path) -> None:
        self.dist = dist
        self.version = version
        folder.mkdir()
        (folder / "python3").symlink_to(python)
        self.path = os.pathsep.join([str(dist), str(folder), PROGRAMS])


class Result:
    """What a command line did: its exit status and what it wrote."""

    def __init__(self, line: str, status: int, raw: bytes, err: str) -> None:
        self.line, self.status, self.raw, self.err = line, status, raw, err

    @property
    def out(self) -> str:
        return self.raw.decode()

    def __repr__(self) -> str:
        return f"$ {self.line}\n{self.raw[:2000]!r}\n{self.err}exit status {self.status}"


class Program:
    """A started program.  Its stderr, and its stdout unless it was to be a pipe, are kept in files."""

    def __init__(self, line: str, popen: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.line = line
        self.popen = popen
        self.pid = popen.pid
        self._out = out
        self.err_file = err
        self.is_daemon = bool(re.match(r"(nsenter .*? -- )?r2dm?\s", line))
        self.was_killed = False

    def __repr__(self) -> str:
        status = self.popen.poll()
        state = "running" if status is None else f"ended with {status}"
        return f"$ {self.line}    [{state}]\n{self.err}"

    @property
    def err(self) -> str:
        return self.err_file.read_text(errors="replace")

    @property
    def raw(self) -> bytes:
        return self._out.read_bytes()

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def stdin(self) -> IO[bytes]:
        assert self.popen.stdin is not None
        return self.popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self.popen.stdout is not None
        return self.popen.stdout

    @property
    def runs(self) -> bool:
        return self.popen.poll() is None

    def says(self, text: str, times: int = 1, patience: float = PATIENCE) -> Program:
        """Wait until its stderr has `text`, so many times."""
        self._await(lambda: self.err.count(text) >= times, f"{text!r} on stderr", patience)
        return self

    def prints(self, text: str, patience: float = PATIENCE) -> Program:
        """Wait until its stdout has `text`."""
        self._await(lambda: text.encode() in self.raw, f"{text!r} on stdout", patience)
        return self

    def _await(self, condition: Callable[[], bool], what: str, patience: float) -> None:
        """Not in vain where it has ended: then it will not say any more."""
        eventually(lambda: condition() or not self.runs, lambda: f"{what} of {self}", patience)
        assert condition(), f"no {what} of {self}"

    def ends(self, status: int | None = 0, patience: float = PATIENCE) -> Program:
        """Wait until it has ended, with this status (minus a signal's number; None: whatever)."""
        eventually(lambda: not self.runs, lambda: f"the end of {self}", patience)
        assert status is None or self.popen.returncode == status, self
        return self

    def send(self, number: int) -> None:
        self.was_killed = self.was_killed or number == signal.SIGKILL
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and see it gone."""
        self.send(signal.SIGKILL)
        self.ends(-signal.SIGKILL)

    def interrupt(self) -> None:
        """What Ctrl-C in a terminal does: SIGINT for it and all that it started there."""
        os.killpg(self.pid, signal.SIGINT)


class Place:
    """The directory `path`, with HOME in it, and all that a test starts there."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.path = Path(tempfile.mkdtemp(prefix="r2-", dir="/tmp"))
        self.home = self.path / "home"
        self.home.mkdir()
        self.programs: list[Program] = []
        self._mark = f"R2BOX_TEST={self.path.name}"
        self.tolerate_orphans = False  # for tests that kill what would have ended them
        self.tolerate_bugs = False  # for those that look at what was reported themselves

    def env(self, box: Box | None = None, **more: str) -> dict[str, str]:
        name, _, value = self._mark.partition("=")
        path = (box or self.box).path
        return {"PATH": path, "HOME": str(self.home), "LC_ALL": "C.UTF-8", name: value, **more}

    # -- running -------------------------------------------------------------------------------------------------

    def run(
        self,
        line: str,
        input: bytes | None = None,
        *,
        status: int | None = 0,
        patience: float = 60.0,
        box: Box | None = None,
        **env: str,
    ) -> Result:
        """Run a command line to its end and check its exit status (None: any)."""
        popen = subprocess.Popen(
            ["/bin/sh", "-c", line],
            cwd=self.path,
            env=self.env(box, **env),
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = popen.communicate(input, patience)
        except subprocess.TimeoutExpired:
            os.killpg(popen.pid, signal.SIGKILL)
            out, err = popen.communicate()
            raise AssertionError(f"not done after {patience:g} s: {Result(line, -9, out, err.decode())}") from None
        result = Result(line, popen.returncode, out, err.decode(errors="replace"))
        assert not BUG.search(result.err), result
        assert status is None or result.status == status, result
        return result

    def start(
        self,
        line: str,
        *,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        box: Box | None = None,
        shell: bool = False,
        **env: str,
    ) -> Program:
        """Start a command line (one program, unless `shell`) and leave it running."""
        number = len(self.programs)
        out, err = self.path / f"out{number}", self.path / f"err{number}"
        with open(out, "wb") as out_file, open(err, "wb") as err_file:
            popen = subprocess.Popen(
                ["/bin/sh", "-c", line if shell else "exec " + line],
                cwd=self.path,
                env=self.env(box, **env),
                stdin=stdin,
                stdout=out_file if stdout is None else stdout,
                stderr=err_file,
                start_new_session=True,
                bufsize=0,
            )
        program = Program(line, popen, out, err)
        self.programs.append(program)
        return program

    def executable(self, name: str, text: str) -> str:
        """A shell script in bin/; the PATH on which it is found first."""
        path = self.path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return f"{path.parent}:{self.box.path}"

    # -- nodes ---------------------------------------------------------------------------------------------------

    def node(self, address: str, *, box: Box | None = None, options: str = "") -> Program:
        """A daemon at ADDRESS.sock."""
        return self.start(f"r2d {options} -s {address}.sock {address}", box=box).says("listening at")

    def link(
        self, one: str, other: str, *, options: str = "", theirs: str | None = None, box: Box | None = None
    ) -> Program:
        """Link two daemons of this place over the stdio of one command; return the one that holds the link.

        `options` are for the r2-connect of both, unless `theirs` are the other's.
        """
        back = f"r2 -s {other}.sock connect {options if theirs is None else theirs} -n {one} -"
        line = f'r2 -v -s {one}.sock connect {options} -n {other} "{back}"'
        program = self.start(line, box=box).says("linked to")
        self.answers(one, other)
        return program

    def await_socket(self, name: str) -> None:
        """Until somebody listens at the UNIX socket `name` here; it is there a little earlier."""

        def listens() -> bool:
            rows = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()]
            names = (name, str(self.path / name))
            return (self.path / name).exists() and any(row[-1] in names and row[3] == "00010000" for row in rows)

        eventually(listens, f"a listener at {name}")

    def forward_socket(self, node: str) -> Program:
        """NODE.fwd leads to NODE.sock, over something that carries bytes and no descriptors."""
        need("socat")
        program = self.start(f"socat unix-l:{node}.fwd,fork unix:{node}.sock")
        self.await_socket(f"{node}.fwd")
        return program

    def pair(self, options: str = "") -> tuple[Program, Program]:
        """Two linked daemons, alice and bob."""
        alice, bob = self.node("alice"), self.node("bob")
        self.link("alice", "bob", options=options)
        return alice, bob

    def answers(self, from_: str, path: str, patience: float = PATIENCE) -> None:
        """Wait until the node at `path` answers a ping from the node `from_`."""
        line = f"r2 -s {from_}.sock -t {path} ping -c 1 -W 5"
        eventually(lambda: self.run(line, status=None).status == 0, f"an answer to {line}", patience)

    def serve(self, node: str, command: str, name: str = "", options: str = "") -> Program:
        """Offer a service at a daemon of this place."""
        option = f"-n {name} " if name else ""
        quoted = command.replace("'", "'\\''")
        return self.start(f"r2 -v -s {node}.sock serve {option}{options} '{quoted}'").says("offering service/")

    # -- the end -------------------------------------------------------------------------------------------------

    def left_over(self) -> list[int]:
        """Processes that still run and have been started, at whatever remove, by this test."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue  # it has ended, or is another user's
        return found

    def close(self) -> None:
        """End everything, by its id; fail if something did not end well."""
        try:
            problems = [*self._end_programs(), *self._end_orphans(), *self._bugs()]
            for program in self.programs:
                print(program)  # shown by pytest if the test has failed
        finally:
            shutil.rmtree(self.path, ignore_errors=True)
        if problems:
            pytest.fail("\n".join(problems), pytrace=False)

    def _end_programs(self) -> Iterator[str]:
        alive = [program for program in reversed(self.programs) if program.runs]
        for program in alive:
            program.send(signal.SIGCONT)
            program.send(signal.SIGTERM)
        for program in self.programs:
            for pipe in (program.popen.stdin, program.popen.stdout):
                if pipe is not None:
                    pipe.close()
        for program in alive:
            try:
                program.popen.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                yield f"SIGTERM did not end {program}"
                program.kill()
            if program.is_daemon and program.popen.returncode not in (0, -signal.SIGKILL):
                yield f"a daemon did not end in good order: {program}"

    def _end_orphans(self) -> Iterator[str]:
        try:
            eventually(lambda: not self.left_over(), "", patience=0 if self.tolerate_orphans else 20)
        except AssertionError:
            for pid in self.left_over():
                line = b" ".join(command_line(pid)).decode(errors="replace")
                if not self.tolerate_orphans:
                    yield f"still running after the end of what had started it: {line}"
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _bugs(self) -> Iterator[str]:
        for program in self.programs:
            if BUG.search(program.err) and not self.tolerate_bugs:
                yield f"a bug was reported: {program}"

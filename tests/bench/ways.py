"""How a near program and a far program are joined: by r2box, by each of its peers, or by nothing but the kernel.

A way is started once in a world.  `offer(name, far)` makes the program `far` reachable; `join(name, near)` runs `near`
joined to a fresh run of it.  Both programs are given as a path, and are the same for every way.
"""

from __future__ import annotations

import getpass
import importlib.util
import os
from pathlib import Path

from .nodes import Nodes
from .runs import RunError
from .world import Program, World, free_port, is_listening, which

LARGE = "-b 262144"  # the block with which socat is no slower than r2box for its block alone


def socat_missing() -> str:
    return "" if which("socat") else "socat is not installed"


def ssh_missing() -> str:
    for program in ("ssh", "sshd", "ssh-keygen"):
        if not which(program):
            return f"{program} is not installed"
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        return "sshd wants the directory /run/sshd"
    return ""


class Way:
    """One way to join two programs.  `share`: which part of the data it is given, where it is very much slower."""

    name = ""
    is_floor = False
    share = 1.0

    def __init__(self, world: World) -> None:
        self.world = world

    def missing(self) -> str:
        """Why it cannot be had here, or ""."""
        return ""

    def start(self) -> None:
        """Set up what all its tunnels share."""

    def offer(self, name: str, far: str) -> None:
        raise NotImplementedError

    def join(self, name: str, near: str) -> list[Program]:
        """The programs that now run for it; the first is there as long as `near`."""
        raise NotImplementedError


class R2(Way):
    """Nodes in a chain of `hops` links over TCP, or one node where there are none.

    `dash`: `r2 tunnel -` with `near` behind two pipes, as in `r2 tunnel - | near`, instead of `r2 tunnel near`.
    `base`: use the nodes of another of these.
    """

    def __init__(self, world: World, hops: int = 1, dash: bool = False, base: R2 | None = None) -> None:
        super().__init__(world)
        self.hops = hops
        self.dash = dash
        self.nodes: Nodes = base.nodes if base else Nodes(world)
        self._base = base
        self._path: list[str] = []
        self.name = "r2 tunnel -" if dash else "r2 tunnel"

    def start(self) -> None:
        if self._base is None:
            self._path = self.nodes.chain(self.hops)
        else:
            self._path = self._base._path

    def offer(self, name: str, far: str) -> None:
        self.nodes.serve(self._path[-1], name, far)

    def join(self, name: str, near: str) -> list[Program]:
        return run_tunnel(self.nodes, [*self._path, name], near, self.dash)


def run_tunnel(nodes: Nodes, path: list[str], near: str, dash: bool = False) -> list[Program]:
    if dash:
        return run_piped(nodes.world, near, nodes.tunnel(path, "-"))
    return [nodes.world.start(nodes.tunnel(path, near))]


def run_piped(world: World, near: str, command: list[str]) -> list[Program]:
    """`near` and `command`, with a pipe from each one's output to the other's input."""
    there_out, there_in = os.pipe()
    back_out, back_in = os.pipe()
    try:
        with open(there_out, "rb") as near_in, open(back_in, "wb") as near_out:
            program = world.start([near], stdin=near_in, stdout=near_out)
        with open(back_out, "rb") as far_in, open(there_in, "wb") as far_out:
            return [program, world.start(command, stdin=far_in, stdout=far_out)]
    except OSError as error:
        raise RunError(str(error)) from None


class Socat(Way):
    """Socats in a chain over TCP: a pair for one hop, one more for each further hop.

    `dash`: the near program is behind two pipes, as with `R2`.
    """

    def __init__(self, world: World, hops: int = 1, options: str = "", dash: bool = False) -> None:
        super().__init__(world)
        self.hops = hops
        self.dash = dash
        self._options = options.split()
        self._ports: dict[str, int] = {}
        kind = "socat" if hops == 1 else f"{hops + 1} socats"
        self.name = " ".join(filter(None, (kind, options, "-" if dash else "")))

    def missing(self) -> str:
        return socat_missing()

    def offer(self, name: str, far: str) -> None:
        target = f"exec:{far}"
        for _ in range(self.hops):
            port = free_port()
            self.world.start(["socat", *self._options, f"tcp-l:{port},fork,reuseaddr,bind=127.0.0.1", target])
            self.world.listens(port, "socat")
            target = f"tcp:127.0.0.1:{port}"
            self._ports[name] = port

    def join(self, name: str, near: str) -> list[Program]:
        target = f"tcp:127.0.0.1:{self._ports[name]}"
        if self.dash:
            return run_piped(self.world, near, ["socat", *self._options, target, "-"])
        return [self.world.start(["socat", *self._options, target, f"exec:{near}"])]


class Tcp(Way):
    """Nothing in between: both programs have a TCP socket as their stdin and stdout."""

    name = "bare TCP"
    is_floor = True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._ports: dict[str, int] = {}

    def offer(self, name: str, far: str) -> None:
        port = free_port()
        self.world.start(self.world.helper("loads", "listen", port, far))
        self.world.listens(port, "a load")
        self._ports[name] = self.forward(port)

    def forward(self, port: int) -> int:
        """The port at which that port is reached this way."""
        return port

    def join(self, name: str, near: str) -> list[Program]:
        return [self.world.start(self.world.helper("loads", "dial", self._ports[name], near))]


class Pair(Way):
    """A bare UNIX socketpair between the two programs."""

    name = "socketpair"
    is_floor = True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._far: dict[str, str] = {}

    def offer(self, name: str, far: str) -> None:
        self._far[name] = far

    def join(self, name: str, near: str) -> list[Program]:
        return [self.world.start(self.world.helper("loads", "pair", near, self._far[name]))]


class Pipes(Pair):
    """Bare pipes between the two programs."""

    name = "pipes"

    def join(self, name: str, near: str) -> list[Program]:
        return run_piped(self.world, near, [self._far[name]])


SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {path}/host_key
AuthorizedKeysFile {path}/user_key.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
LogLevel ERROR
"""
SSH_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "IdentitiesOnly": "yes",
    "IdentityAgent": "none",
    "LogLevel": "ERROR",
}


class Ssh(Tcp):
    """`ssh -L` to an sshd of our own; all forwarded ports share one connection, which is kept by a ControlMaster."""

    name = "ssh -L"
    is_floor = False

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.port = free_port()  # of sshd

    def missing(self) -> str:
        return ssh_missing()

    def start(self) -> None:
        path = self.world.path
        for key in ("host_key", "user_key"):
            self.world.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path / key])
        (path / "sshd_config").write_text(SSHD_CONFIG.format(port=self.port, path=path))
        self.sshd = self.world.start([which("sshd"), "-D", "-e", "-f", path / "sshd_config"])
        self.world.until(lambda: is_listening(self.port) or self.sshd.has_ended, "sshd to listen")
        self.master = self.world.start(self.ssh("-M", "-N", port=self.reach()))
        self.world.until(lambda: self.control("check") or self.master.has_ended, "ssh to connect")
        if self.master.has_ended:
            raise RunError(f"ssh: {self.master.last_words} (sshd: {self.sshd.last_words})")

    def reach(self) -> int:
        """The port at which the sshd is reached: its own, or that of something before it."""
        return self.port

    def ssh(self, *words: str, by_master: bool = True, port: int = 0) -> list[object]:
        """An ssh command with `words` before the host, through the master's connection or one of its own."""
        options = [f"-o{name}={value}" for name, value in SSH_OPTIONS.items()]
        control = ["-S", str(self.world.path / "ctl") if by_master else "none"]
        user = ["-i", str(self.world.path / "user_key"), "-l", getpass.getuser(), "-p", str(port or self.port)]
        return ["ssh", "-F", "none", *options, *control, *user, *words, "127.0.0.1"]

    def control(self, command: str, *words: str) -> bool:
        status, _ = self.world.run(self.ssh("-O", command, *words))
        return status == 0

    def forward(self, port: int) -> int:
        near = free_port()
        if not self.control("forward", "-L", f"127.0.0.1:{near}:127.0.0.1:{port}"):
            raise RunError("ssh -O forward failed")
        return near


class Asyncssh(Tcp):
    """The same with asyncssh at both ends, on one connection of two processes."""

    name = "asyncssh"
    is_floor = False
    share = 0.25

    def missing(self) -> str:
        return "" if importlib.util.find_spec("asyncssh") else "asyncssh is not installed"

    def start(self) -> None:
        port = free_port()
        self.world.start(self.world.peer("by_asyncssh", "server", port))
        self.world.listens(port, "asyncssh")
        self._client = self.world.converse(self.world.peer("by_asyncssh", "client", port))

    def forward(self, port: int) -> int:
        near: int = self._client.ask(port)
        return near


class Reticulum(Way):
    """A link of Reticulum over its TCP interface, and a buffered stream in it."""

    name = "Reticulum"
    share = 1 / 256

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._offers: dict[str, tuple[int, Path]] = {}

    def missing(self) -> str:
        return "" if importlib.util.find_spec("RNS") else "Reticulum (rns) is not installed"

    def offer(self, name: str, far: str) -> None:
        port, identity = free_port(), self.world.unique("identity")
        server = self.world.start(self.world.peer("by_reticulum", "server", self._home(), port, identity, far))
        self.world.until(lambda: identity.exists() or server.has_ended, "Reticulum to start")
        if server.has_ended:
            raise RunError(f"Reticulum: {server.last_words}")
        self._offers[name] = port, identity

    def join(self, name: str, near: str) -> list[Program]:
        port, identity = self._offers[name]
        return [self.world.start(self.world.peer("by_reticulum", "client", self._home(), port, identity, near))]

    def _home(self) -> Path:
        home = self.world.unique("reticulum")
        home.mkdir()
        return home

"""Daemons, links and services of the built r2box, started as a user starts them and awaited by what `r2 ls` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .runs import RunError
from .world import Program, World, free_port, is_bound, is_listening


class Nodes:
    """The nodes of one world.  `NAME.sock` in its directory is the socket of the node NAME."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.daemons: dict[str, Program] = {}

    def socket(self, name: str) -> str:
        return str(self.world.path / f"{name}.sock")

    def node(self, name: str) -> Program:
        daemon = self.world.start(["r2d", "-s", self.socket(name), name])
        self.daemons[name] = daemon
        self._await(lambda: self._ls(name) is not None, f"the node {name}", daemon)
        return daemon

    def link(self, one: str, other: str, listen: int = 0, dial: int = 0, over_socat: bool = False) -> None:
        """Link two nodes over TCP.  A relay between them is at the port `dial` and connects to the port `listen`."""
        listen = listen or free_port()
        at, to = f"tcp-listen://127.0.0.1:{listen}", f"tcp://127.0.0.1:{dial or listen}"
        if over_socat:
            at, to = f"socat tcp-l:{listen},reuseaddr -", f"socat tcp:127.0.0.1:{dial or listen} -"
        far = self.connect(other, at)
        self.world.until(lambda: is_listening(listen) or far.has_ended, f"{at} to listen")
        self.linked(one, other, self.connect(one, to), far)

    def connect(self, node: str, transport: str) -> Program:
        """Start what links a node by that transport."""
        return self.world.start(["r2-connect", "-v", "-s", self.socket(node), transport])

    def listen_udp(self, node: str) -> int:
        """Let a node take links over UDP; return its port."""
        port = free_port()
        program = self.connect(node, f"udp-listen://127.0.0.1:{port}")
        self.world.until(lambda: is_bound(port) or program.has_ended, "r2 connect udp-listen:// to listen")
        return port

    def linked(self, one: str, other: str, *programs: Program) -> None:
        """Wait until two nodes are linked, as those programs are to do it."""
        self._await(lambda: other in (self._ls(one) or ()), f"the link of {one} and {other}", *programs)

    def chain(self, hops: int) -> list[str]:
        """`hops` links one behind the other; return the names of the nodes along them."""
        names = [f"n{number}" for number in range(hops + 1)]
        for name in names:
            self.node(name)
        for one, other in zip(names, names[1:]):
            self.link(one, other)
        return names

    def serve(self, node: str, name: str, command: str) -> Program:
        server = self.world.start(["r2-serve", "-s", self.socket(node), "-n", name, command])
        self.offered(node, name, server)
        return server

    def offered(self, node: str, name: str, server: Program) -> None:
        """Wait until the node has the service that `server` is to offer."""
        self._await(lambda: f"service/{name}" in (self._ls(node) or ()), f"the service {name}", server)

    def tunnel(self, path: Sequence[str], transport: str) -> list[str]:
        """The command that joins `transport` to what is at `path`, which begins with the node that is asked."""
        return ["r2-tunnel", "-s", self.socket(path[0]), "-t", "/".join(path[1:]), transport]

    def _ls(self, name: str) -> list[str] | None:
        status, out = self.world.run(["r2", "-s", self.socket(name), "ls"])
        return out.split() if status == 0 else None

    def _await(self, condition: Callable[[], object], what: str, *programs: Program) -> None:
        def is_done() -> bool:
            if condition():
                return True
            for program in programs:
                if program.has_ended:
                    raise RunError(f"{what}: {program.last_words}")
            return False

        self.world.until(is_done, what)

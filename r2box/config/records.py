"""Records of a configuration file, which a reload compares."""

from __future__ import annotations

from ..net.io.units import RESUME_TIMEOUT
from ..proto.link.policy import EVERYTHING, Policy


class ConfigRecord:
    """Named fields, compared by value.

    The last field is the place in the file and is not compared: a reload must not restart a link whose line has
    changed.
    """

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, slot) == getattr(other, slot) for slot in self.__slots__[:-1])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{slot}={getattr(self, slot)!r}' for slot in self.__slots__)})"


class Conn(ConfigRecord):
    """A link: the only neighbour to accept (None: any), its transport `cmd`, its resume timeout in seconds, whether the
    transport may lose bytes, its policy, the line of its header (None: unknown)."""

    __slots__ = ("addr", "cmd", "resume", "lossy", "policy", "line")

    def __init__(
        self,
        addr: str | None,
        cmd: str,
        resume: int = RESUME_TIMEOUT,
        lossy: bool = False,
        line: int | None = None,
        policy: Policy = EVERYTHING,
    ) -> None:
        self.addr, self.cmd, self.resume, self.lossy = addr, cmd, resume, lossy
        self.policy, self.line = policy, line


class Serve(ConfigRecord):
    """A service: its `name`, its transport `cmd`, the patterns of origins to `allow` (empty: all), whether it is
    `private` (not advertised), whether its tunnels carry `datagrams`."""

    __slots__ = ("name", "cmd", "allow", "private", "datagrams", "line")

    def __init__(
        self,
        name: str,
        cmd: str,
        allow: list[str],
        line: int | None = None,
        private: bool = False,
        datagrams: bool = False,
    ) -> None:
        self.name, self.cmd, self.allow, self.private, self.line = name, cmd, allow, private, line
        self.datagrams = datagrams


class Forward(ConfigRecord):
    """A forward: the transport to `listen` at, the path of the service that is its `target`, and its line."""

    __slots__ = ("listen", "target", "line")

    def __init__(self, listen: str, target: str, line: int | None = None) -> None:
        self.listen, self.target, self.line = listen, target, line


class Task(ConfigRecord):
    """A command `cmd` to run on `event` of a name that matches the pattern `name`, and its line."""

    __slots__ = ("event", "name", "cmd", "line")

    def __init__(self, event: str, name: str, cmd: str, line: int | None = None) -> None:
        self.event, self.name, self.cmd, self.line = event, name, cmd, line


class Config(ConfigRecord):
    """A file: `addr`, `socket` and `cmd` of the node (None if unset), its links, services, tasks and forwards, its
    policy, whether it answers `bench`, the `limits` that are set, and the path of the file.

    A reload adds and removes the Conn, Serve, Task and Forward records that only one of two Configs has.
    """

    __slots__ = ("addr", "socket", "cmd", "conns", "serves", "tasks", "policy", "bench", "forwards", "limits", "path")

    def __init__(
        self,
        addr: str,
        socket: str | None,
        cmd: str | None,
        conns: list[Conn],
        serves: list[Serve],
        path: str,
        tasks: list[Task] | None = None,
        policy: Policy = EVERYTHING,
        bench: bool = True,
        forwards: list[Forward] | None = None,
        limits: dict[str, int] | None = None,
    ) -> None:
        self.addr, self.socket, self.cmd = addr, socket, cmd
        self.conns, self.serves, self.tasks = conns, serves, tasks or []
        self.forwards, self.limits = forwards or [], limits or {}
        self.policy, self.bench, self.path = policy, bench, path

    @property
    def jobs(self) -> list[ConfigRecord]:
        """A record for each service, forward and link, in the order in which they start; `cmd` is the service "" ."""
        node = [Serve("", self.cmd, [])] if self.cmd else []
        return [*node, *self.serves, *self.forwards, *self.conns]

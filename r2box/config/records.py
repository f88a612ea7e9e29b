"""What a configuration file says, as records that a reload can compare."""

from __future__ import annotations

from ..net.io.units import RESUME_TIMEOUT
from ..proto.link.policy import EVERYTHING, Policy


class ConfigRecord:
    """Named fields, equal to another record that says the same.

    The last field tells where the record was written and is not compared: a link that has only moved down the file
    must not be restarted by a reload.
    """

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, slot) == getattr(other, slot) for slot in self.__slots__[:-1])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{slot}={getattr(self, slot)!r}' for slot in self.__slots__)})"


class Conn(ConfigRecord):
    """A link: its transport `cmd`, the only neighbour to accept (None: any), how long its tunnels wait after a cut (in
    seconds), whether it may lose bytes, what is told and carried there, the line of its header (None: unknown)."""

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
    """A service: its `name`, its transport `cmd`, the patterns of origins to `allow` (empty: everyone), whether it is
    `private`: no other node is told of it, whether its tunnels are of `datagrams`."""

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
    """A transport to `listen` at, the path of the service that is the `target` of its connections, and its line."""

    __slots__ = ("listen", "target", "line")

    def __init__(self, listen: str, target: str, line: int | None = None) -> None:
        self.listen, self.target, self.line = listen, target, line


class Task(ConfigRecord):
    """A command `cmd` to run when `event` happens to a name that matches `name`, and its line."""

    __slots__ = ("event", "name", "cmd", "line")

    def __init__(self, event: str, name: str, cmd: str, line: int | None = None) -> None:
        self.event, self.name, self.cmd, self.line = event, name, cmd, line


class Config(ConfigRecord):
    """A whole file: the node's own `addr`, `socket` and `cmd` (None if unset), its links, services, tasks and forwards,
    what it tells and carries, whether it lets others measure the way to it (`bench`), its `limits` (those that are
    set), its path.

    What a reload adds or removes is every Conn, Serve, Task and Forward of one that is not in the list of the other.
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

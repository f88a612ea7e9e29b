"""Starts of service programs: queue, limits, and the state of each from its tunnel's arrival to the program's exit.

A tunnel costs its opener one frame, and this host a process.  Three rules bound that cost:

- At most `STARTING` requests to start a program (INCOMING) to one server are unanswered (no STARTED yet).  Further
  tunnels wait in the `StartQueue`; one that is closed meanwhile leaves the queue and costs nothing.  So at most
  `STARTING` programs are started in vain.  For a server that connects to a socket instead, the bound is `CONNECTING`: a
  remote host answers late.
- The programs of a service, and those for one neighbour, have limits ("programs", "programs-per-neighbour" of
  `proto.limits`).  Tunnels in the queue count, which bounds the queue, and so do programs that were hung up on and have
  not exited.  Past a limit the tunnel is refused (BUSY).  A neighbour may have no more programs of a service than are
  free (as in `proto.memory_limit`), and beyond `FEW` none of the last quarter.  So a neighbour with links under many
  names leaves places for others.
- An `Incoming` for a program lives until the server reports its exit, whatever the stream does.  A program whose tunnel
  has ended is hung up on, and the server makes it end (`process.HANG_UP`).

    state      meaning                              next states
    QUEUED     not sent to the server yet           STARTING, ENDED
    STARTING   INCOMING sent, no answer yet         RUNNING, ENDING, ENDED
    RUNNING    STARTED received                     ENDING, ENDED
    ENDING     HANGUP sent                          ENDED
    ENDED      the program has exited, or none was started
"""

from __future__ import annotations

import enum
from collections import Counter

from ...proto.wire import messages
from ...proto.wire.address import SERVICE
from ...proto.wire.outcome import BUSY, LOST, Outcome
from ..io.channel import close_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, TypeVar

    from ...proto.limits import Limits
    from ...proto.link.link import Link
    from ...proto.routing.service_entry import ServiceEntry

    K = TypeVar("K")

    class ServiceOwner(Protocol):
        """The client that offers a service."""

        link: Link
        incoming: dict[int, Incoming]
        starts: StartQueue

        def next_id(self) -> int: ...
        def send(self, kind: int, id: int, descriptors: tuple[int, ...] = (), **fields: Any) -> bool: ...

    class StartOwner(Protocol):
        """Receives the events of an Incoming."""

        def started(self, descriptors: tuple[int, ...]) -> None: ...
        def exited(self, outcome: Outcome) -> None: ...


STARTING = 32  # programs that one server is starting: some 30 ms of its time
CONNECTING = 256  # connections that one server is making
RESERVED = 1 / 4  # of the programs of a service: for neighbours that have fewer than
FEW = 4


class StartState(enum.Enum):
    QUEUED, STARTING, RUNNING, ENDING, ENDED = range(5)


class Starts:
    """All tunnels to the services of the node `address`, and the limits on their programs."""

    def __init__(self, address: str, limits: Limits) -> None:
        self.address = address
        self.limits = limits
        self.incoming: set[Incoming] = set()
        self._of_service: Counter[ServiceEntry] = Counter()  # programs
        self._of_neighbour: Counter[str] = Counter()
        self._of_both: Counter[tuple[ServiceEntry, str]] = Counter()
        limits.measures["programs"] = lambda: max(self._of_service.values(), default=0)
        limits.measures["programs-per-neighbour"] = lambda: max(self._of_neighbour.values(), default=0)
        self._emptied: Callable[[], None] | None = None

    def refusal(self, service: ServiceEntry, neighbour: str = "") -> str:
        """Why no program may be started for a tunnel from `neighbour` ("": from this host); "" if one may."""
        if service.runs != messages.APART:
            return ""
        what = f"{self.address}: {name_of(service)}"
        most, running = self.limits["programs"], self._of_service[service]
        if running >= most:
            return f"{what}: {running} programs run already; retry later"
        if not neighbour:
            return ""
        in_all, here = self._of_neighbour[neighbour], self._of_both[service, neighbour]
        if in_all >= self.limits["programs-per-neighbour"]:
            return f"{what}: {in_all} programs run for {neighbour} already; retry later"
        if here >= FEW and most - running <= max(here, int(most * RESERVED)):
            return f"{what}: {here} programs run for {neighbour} already, and few more can; retry later"
        return ""

    def enter(self, incoming: Incoming) -> None:
        self.incoming.add(incoming)
        self._count(incoming, 1)

    def leave(self, incoming: Incoming) -> None:
        self.incoming.discard(incoming)
        self._count(incoming, -1)
        if not self.incoming:
            self.wait_no_longer()

    def _count(self, incoming: Incoming, more: int) -> None:
        if incoming.service.runs != messages.APART:
            return
        self.limits.note("programs", _add(self._of_service, incoming.service, more))
        if incoming.neighbour:
            self.limits.note("programs-per-neighbour", _add(self._of_neighbour, incoming.neighbour, more))
            _add(self._of_both, (incoming.service, incoming.neighbour), more)

    def hang_up_all(self, why: str, emptied: Callable[[], None]) -> None:
        """Hang up on all programs; emptied() is called when all have ended, or by `wait_no_longer`."""
        self._emptied = emptied
        for incoming in list(self.incoming):
            incoming.hang_up(why)
        if not self.incoming:
            self.wait_no_longer()

    def wait_no_longer(self) -> None:
        emptied, self._emptied = self._emptied, None
        if emptied is not None:
            emptied()


class StartQueue:
    """Requests to one server: unanswered, and not sent yet.  Neighbours take turns."""

    __slots__ = ("_is_announcing", "_starting", "_waiting")

    def __init__(self) -> None:
        self._starting: set[int] = set()
        self._waiting: dict[str, dict[int, Incoming]] = {}  # by neighbour; the next turn first
        self._is_announcing = False

    def add(self, incoming: Incoming) -> None:
        self._waiting.setdefault(incoming.neighbour, {})[incoming.id] = incoming
        self._announce()

    def remove(self, incoming: Incoming) -> None:
        """Remove one that was answered or cancelled."""
        queue = self._waiting.get(incoming.neighbour, {})
        if queue.pop(incoming.id, None) is not None and not queue:
            del self._waiting[incoming.neighbour]
        if incoming.id in self._starting:
            self._starting.remove(incoming.id)
            self._announce()

    def close(self) -> None:
        """The server disconnects: drop what was not sent."""
        self._waiting.clear()

    def _announce(self) -> None:
        while self._waiting and not self._is_announcing:
            neighbour, queue = next(iter(self._waiting.items()))
            id_, incoming = next(iter(queue.items()))
            if len(self._starting) >= (STARTING if incoming.service.runs == messages.APART else CONNECTING):
                return
            del queue[id_], self._waiting[neighbour]
            if queue:
                self._waiting[neighbour] = queue  # behind the others
            self._starting.add(id_)
            self._is_announcing = True  # no recursion: one that cannot be sent calls `remove`
            incoming.announce()
            self._is_announcing = False


class Incoming:
    """A tunnel to `service` from `origin`, by way of `neighbour`, or from this host ("").

    `descriptors` are for the server, and owned by this.  Nothing is sent before `begin`.
    """

    __slots__ = ("_descriptors", "_origin", "_owner", "_starts", "id", "neighbour", "server", "service", "state")

    def __init__(
        self, starts: Starts, service: ServiceEntry, owner: StartOwner, origin: tuple[str, ...],
        descriptors: tuple[int, ...], neighbour: str = "",
    ) -> None:  # fmt: skip
        self.service = service
        self.server: ServiceOwner = service.owner
        self.neighbour = neighbour
        self.id = self.server.next_id()
        self.state = StartState.QUEUED
        self._owner = owner
        self._starts = starts
        self._origin = origin
        self._descriptors = descriptors
        self.server.incoming[self.id] = self
        starts.enter(self)

    def begin(self) -> None:
        """Queue it for the server."""
        self.server.starts.add(self)

    def announce(self) -> None:
        """Send INCOMING."""
        self.state = StartState.STARTING
        descriptors, self._descriptors = self._descriptors, ()
        name, node = self.service.name, self._starts.address
        if not self.server.send(messages.INCOMING, self.id, descriptors, service=name, origin=self._origin, node=node):
            self.end(Outcome(BUSY, f"{node}: the server of {name_of(self.service)} does not answer"))

    def started(self, descriptors: tuple[int, ...]) -> None:
        """STARTED was received."""
        if self.state is StartState.QUEUED:  # an answer without a request
            close_all(descriptors)
            return
        if self.state is StartState.STARTING:
            self.state = StartState.RUNNING
        self._owner.started(descriptors)
        self.server.starts.remove(self)

    @property
    def is_running(self) -> bool:
        """Whether the server has yet to report its end."""
        return self.state in (StartState.STARTING, StartState.RUNNING, StartState.ENDING)

    def hang_up(self, text: str) -> None:
        """Make the server end the program, or do not request its start."""
        if self.state is StartState.QUEUED:
            self.end(Outcome(LOST, text))
        elif self.state in (StartState.STARTING, StartState.RUNNING):
            self.state = StartState.ENDING
            self.server.send(messages.HANGUP, self.id, text=text)

    def end(self, outcome: Outcome) -> None:
        """Report the outcome to the owner."""
        if self.state is not StartState.ENDED:
            self.drop()
            self._owner.exited(outcome)

    def drop(self) -> None:
        """Forget it without a report: no exit is expected."""
        if self.state is StartState.ENDED:
            return
        self.state = StartState.ENDED
        close_all(self._descriptors)
        self._descriptors = ()
        self.server.incoming.pop(self.id, None)
        self.server.starts.remove(self)
        self._starts.leave(self)


def _add(counter: Counter[K], key: K, more: int) -> int:
    """Change a count; remove it at 0."""
    counter[key] += more
    return counter[key] or counter.pop(key)


def name_of(service: ServiceEntry) -> str:
    return SERVICE + service.name if service.name else "the node's command"

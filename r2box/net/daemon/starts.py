"""Tunnels for services, from their arrival to the exit of their program, and how many there may be.

A tunnel costs its opener one frame, and this host a process.  Three rules keep that in proportion:

- A server is asked to start a program (INCOMING) only while fewer than `STARTING` of what it was asked wait for its
  answer (STARTED).  The others wait in the `StartQueue`; one that is closed meanwhile leaves it, and costs nothing.  So
  no more than `STARTING` programs are started for tunnels that are closed by then.  Servers that start no program, but
  connect to a socket, are asked for `CONNECTING` at once: a host that is far away answers late.
- The programs of a service, and those for one neighbour, have limits ("programs", "programs-per-neighbour" of
  `proto.limits`).  What waits in the queue counts, so the queue is bounded too, and so does a program that was hung up
  on and has not ended.  Past a limit the one tunnel is refused (BUSY).  Of a service, a neighbour may have no more
  programs than are free (as in `proto.memory_limit`), and beyond `FEW` none of the last quarter.  So a neighbour
  that takes links under many names leaves places for others.
- An `Incoming` for a program lives until the server has said that it exited, whatever the stream does, and a program
  whose tunnel is over is hung up on.  The server makes it end (`process.HANG_UP`).

    state      meaning                                       next states
    QUEUED     the server does not know it yet               STARTING, ENDED
    STARTING   announced, and not answered                   RUNNING, ENDING, ENDED
    RUNNING    the server has taken it                       ENDING, ENDED
    ENDING     the server was asked to hang up               ENDED
    ENDED      the program has exited, or there is none
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

    class ServingClient(Protocol):
        """The program that serves: it is asked to start what its queue lets through."""

        link: Link
        incoming: dict[int, Incoming]
        starts: StartQueue

        def next_id(self) -> int: ...
        def send(self, kind: int, id: int, descriptors: tuple[int, ...] = (), **fields: Any) -> bool: ...

    class Served(Protocol):
        """What hears from the server of an Incoming."""

        def started(self, descriptors: tuple[int, ...]) -> None: ...
        def exited(self, outcome: Outcome) -> None: ...


STARTING = 32  # programs that one server is starting: a batch that keeps it busy for some 30 ms
CONNECTING = 256  # connections that one server is making
KEPT = 1 / 4  # of the programs of a service: for neighbours that have fewer than
FEW = 4


class StartState(enum.Enum):
    QUEUED, STARTING, RUNNING, ENDING, ENDED = range(5)


class Starts:
    """All tunnels for the services of the node `address`, and the limits on them."""

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
        """Why there can be no program more for a tunnel from `neighbour` ("": from this host); "" if there can."""
        if service.runs != messages.APART:
            return ""
        what = f"{self.address}: {name_of(service)}"
        most, running = self.limits["programs"], self._of_service[service]
        if running >= most:
            return f"{what}: {running} programs run already; retry later"
        if not neighbour:
            return ""
        own, here = self._of_neighbour[neighbour], self._of_both[service, neighbour]
        if own >= self.limits["programs-per-neighbour"]:
            return f"{what}: {own} programs run for {neighbour} already; retry later"
        if here >= FEW and most - running <= max(here, int(most * KEPT)):
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
        """Hang up on everything; emptied() when all of it has ended, or at `wait_no_longer`."""
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
    """What one server was asked to start and has not answered, and what it has still to be asked.

    Neighbours take turns.
    """

    __slots__ = ("_is_announcing", "_starting", "_waiting")

    def __init__(self) -> None:
        self._starting: set[int] = set()
        self._waiting: dict[str, dict[int, Incoming]] = {}  # by neighbour, whose turn it is first; queues can be left
        self._is_announcing = False

    def add(self, incoming: Incoming) -> None:
        self._waiting.setdefault(incoming.neighbour, {})[incoming.id] = incoming
        self._announce()

    def remove(self, incoming: Incoming) -> None:
        """It was answered, or nothing is wanted of it any more."""
        queue = self._waiting.get(incoming.neighbour, {})
        if queue.pop(incoming.id, None) is not None and not queue:
            del self._waiting[incoming.neighbour]
        if incoming.id in self._starting:
            self._starting.remove(incoming.id)
            self._announce()

    def close(self) -> None:
        """The server leaves: it is asked for nothing more."""
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
            self._is_announcing = True  # one that cannot be announced is removed meanwhile
            incoming.announce()
            self._is_announcing = False


class Incoming:
    """A tunnel for `service`, from `origin`: by `neighbour`, or from this host ("").

    `descriptors` are the server's, and given away.  Nothing happens before `begin`.
    """

    __slots__ = ("_descriptors", "_origin", "_served", "_starts", "id", "neighbour", "server", "service", "state")

    def __init__(
        self, starts: Starts, service: ServiceEntry, served: Served, origin: tuple[str, ...],
        descriptors: tuple[int, ...], neighbour: str = "",
    ) -> None:  # fmt: skip
        self.service = service
        self.server: ServingClient = service.owner
        self.neighbour = neighbour
        self.id = self.server.next_id()
        self.state = StartState.QUEUED
        self._served = served
        self._starts = starts
        self._origin = origin
        self._descriptors = descriptors
        self.server.incoming[self.id] = self
        starts.enter(self)

    def begin(self) -> None:
        """Have the server start it when its turn comes."""
        self.server.starts.add(self)

    def announce(self) -> None:
        """Its turn has come."""
        self.state = StartState.STARTING
        descriptors, self._descriptors = self._descriptors, ()
        name, node = self.service.name, self._starts.address
        if not self.server.send(messages.INCOMING, self.id, descriptors, service=name, origin=self._origin, node=node):
            self.end(Outcome(BUSY, f"{node}: the server of {name_of(self.service)} does not answer"))

    def started(self, descriptors: tuple[int, ...]) -> None:
        """The server has taken it."""
        if self.state is StartState.QUEUED:  # it cannot have
            close_all(descriptors)
            return
        if self.state is StartState.STARTING:
            self.state = StartState.RUNNING
        self._served.started(descriptors)
        self.server.starts.remove(self)

    @property
    def is_running(self) -> bool:
        """Whether the server has still to tell how it ended."""
        return self.state in (StartState.STARTING, StartState.RUNNING, StartState.ENDING)

    def hang_up(self, text: str) -> None:
        """Have the server end the program, or not start it."""
        if self.state is StartState.QUEUED:
            self.end(Outcome(LOST, text))
        elif self.state in (StartState.STARTING, StartState.RUNNING):
            self.state = StartState.ENDING
            self.server.send(messages.HANGUP, self.id, text=text)

    def end(self, outcome: Outcome) -> None:
        """It has ended."""
        if self.state is not StartState.ENDED:
            self.drop()
            self._served.exited(outcome)

    def drop(self) -> None:
        """Nothing more is expected of it."""
        if self.state is StartState.ENDED:
            return
        self.state = StartState.ENDED
        close_all(self._descriptors)
        self._descriptors = ()
        self.server.incoming.pop(self.id, None)
        self.server.starts.remove(self)
        self._starts.leave(self)


def _add(counter: Counter[K], key: K, more: int) -> int:
    """Change a count, and keep none that is 0."""
    counter[key] += more
    return counter[key] or counter.pop(key)


def name_of(service: ServiceEntry) -> str:
    return SERVICE + service.name if service.name else "the node's command"

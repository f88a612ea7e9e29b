"""A network in memory, on a virtual clock: whole Nodes, and not one descriptor.

    mesh = Mesh(seed=1)
    alice, bob = mesh.station("alice"), mesh.station("bob")
    mesh.join(alice, bob, latency=0.01, slices=True)
    bob.serve("echo", lambda program: program.echo())
    client = alice.tunnel("bob/echo", b"hello")
    mesh.idle()
    assert client.sink == b"hello"

A Station is a Node with the little that a host must do for it.  A Port is the driver of one Link; two make a Wire,
which takes `capacity` bytes in `latency` seconds (so its speed is their quotient), cuts them into random slices if it
should, shows them to a `tap`, and can be cut, or frozen so that neither side hears of it.  A Program is an end of a
tunnel: bytes to write, bytes read.  A Console is a client on a station's control socket.  Everything happens in one
order, which depends on nothing but the seed.

While it runs the mesh watches what must always hold: a stream holds no more than its window; what a link has granted is
what its streams may send or hold; a buffer that bytes came in is overwritten as soon as it may be.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any, Callable

from r2box.proto.limits import Limits
from r2box.proto.link.handshake import LocalPeer
from r2box.proto.link.link import DOWN, UP, Link
from r2box.proto.link.resume import HALF, NONCE
from r2box.proto.link.stream import NULL_END, Stream
from r2box.proto.memory_limit import MemoryLimit
from r2box.proto.routing.router import Router
from r2box.proto.routing.service_entry import ServiceEntry
from r2box.proto.wire import messages
from r2box.proto.wire.address import parse_path
from r2box.proto.wire.frames import CLIENT, MAX_WORK
from r2box.proto.wire.outcome import ENDED, Outcome
from r2box.proto.wire.route import Message

if TYPE_CHECKING:
    from r2box.proto.link.stream import StreamEnd

SOON = 0.5  # seconds: what nodes want to do within these is on its way
MAX_EVENTS = 2_000_000  # a mesh that does more than this goes round in circles


class Mesh:
    """The clock, the order of events, and everything that lives in it."""

    def __init__(self, seed: int = 0) -> None:
        self.random = Random(seed)
        self.now = 1000.0
        self.stations: dict[str, Station] = {}
        self.ports: list[Port] = []
        self._woken: list[Port] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = itertools.count()  # of events

    def station(self, address: str, memory: MemoryLimit | None = None) -> Station:
        """A new node, whose links share `memory`.  One of the same address takes the place of the old, as after a
        restart."""
        self.stations[address] = Station(self, address, memory)
        return self.stations[address]

    def line(self, *addresses: str, **options: Any) -> list[Station]:
        """Nodes in a row, each linked to the next, with all links up."""
        stations = [self.station(address) for address in addresses]
        for a, b in zip(stations, stations[1:]):
            self.join(a, b, **options)
        self.idle()
        return stations

    def join(
        self,
        a: Station,
        b: Station,
        *,
        expect: str | None = None,
        resume_timeout: int | tuple[int, int] = 0,
        **options: Any,
    ) -> Wire:
        """A wire between two stations; `expect` is whom `a` wants to find; `resume_timeout`: of each."""
        wire = Wire(self, **options)
        resume_timeout = resume_timeout if isinstance(resume_timeout, tuple) else (resume_timeout, resume_timeout)
        for station, whom, bears in zip((a, b), (expect, None), resume_timeout):
            random = self.random.getrandbits(8 * (NONCE + HALF)).to_bytes(NONCE + HALF, "big")
            me = station.node.local_peer
            link = Link(
                station.node, me, self.now, expect=whom, random=random, resume_timeout=bears, memory=station.memory
            )
            wire.connect(link, station.ports)
        return wire

    # -- the order of events ---------------------------------------------------------------------------------------

    def later(self, delay: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self.serial), what))

    def wake(self, port: Port) -> None:
        if port not in self._woken:
            if not self._woken:
                self.later(0, self.flush)
            self._woken.append(port)

    def flush(self) -> None:
        woken, self._woken = self._woken, []
        for port in woken:
            port.flush()

    def _step(self) -> None:
        self.now, serial, what = heapq.heappop(self._events)
        assert serial < MAX_EVENTS, "the mesh does not come to rest"
        what()

    def idle(self) -> None:
        """Run until nothing is on its way.  Nobody waits for a keepalive, a deadline, or a late alarm."""
        while self._events:
            self._step()

    def run(self, seconds: float) -> None:
        """Run for so long, with everything that falls due."""
        end = self.now + seconds
        while True:
            tick = min((port.link.deadline() or end + 1 for port in self.ports), default=end + 1)
            tick = min(tick, *(station.due for station in self.stations.values()), end + 1)
            event = self._events[0][0] if self._events else end + 1
            if min(tick, event) > end:
                self.now = end
                return
            if event <= tick:
                self._step()
                continue
            self.now = max(self.now, tick)
            for port in list(self.ports):
                port.link.tick(self.now)
            for station in list(self.stations.values()):
                station.ring()
            self.flush()

    def check_closed(self) -> None:
        """Nothing is left of any tunnel."""
        for port in self.ports:
            link = port.link
            left = link.streams, link.receive_limit.granted, link.sender.scheduler.backlog
            assert left == ({}, 0, 0), f"{link.local_peer.address}-{link.address}"


class Station:
    """A Node and its host."""

    def __init__(self, mesh: Mesh, address: str, memory: MemoryLimit | None = None) -> None:
        self.mesh = mesh
        self.address = address
        self.memory = memory
        self.node = Router(LocalPeer(address, mesh.random.getrandbits(128).to_bytes(16, "big"), software="mesh"), self)
        self.ports: dict[Link, Port] = {}
        self.log: list[str] = []  # "up bob", "down bob: why"
        self.events: list[tuple[str, str]] = []  # what has come and gone
        self.due = float("inf")  # when the node wants to be called
        self.programs: list[Program] = []  # what ran here for a tunnel

    def serve(self, name: str, begin: Callable[[Program], None], allow: tuple[str, ...] = (), mode: int = 0) -> None:
        """Offer a service; `begin` sets up the program of each tunnel."""
        self.node.add_service(ServiceEntry(name, begin, allow=allow, mode=mode))

    def tunnel(self, path: str, data: bytes = b"", *, ends: bool = True, mode: int = 0) -> Program:
        """Open a tunnel, with `data` to write, and after it the end if it `ends`.  RefusedError if this node knows."""
        program = Program(self.mesh)
        program.write(data)
        program.ends = ends
        program.stream = self.node.open("child/1", Message(parse_path(path), (), b""), program, program.join, mode)
        return program

    def console(self) -> Console:
        """A client on the control socket, connected."""
        console = Console(self.mesh)
        wire = Wire(self.mesh, latency=0.0)
        wire.connect(Link(self.node, self.node.local_peer, self.mesh.now, local=True), self.ports)
        wire.connect(console.link, console.ports)
        self.mesh.idle()
        return console

    def link(self, address: str) -> Link:
        return self.node.links[address]

    # -- the Host interface ------------------------------------------------------------------------------------------

    def now(self) -> float:
        return self.mesh.now

    def up(self, link: Link) -> None:
        self.log.append(f"up {link.address}")

    def down(self, link: Link, reason: str) -> None:
        self.log.append(f"down {link.address}: {reason}")

    def suspended(self, link: Link, reason: str) -> None:
        self.log.append(f"suspended {link.address}: {reason}")
        port = self.ports.pop(link, None)
        if port is not None:
            port.wire.freeze()

    def resumed(self, link: Link, newcomer: Link) -> None:
        self.log.append(f"resumed {link.address}")
        port = self.ports.pop(newcomer, None)
        if port is not None:
            self.ports[link], port.link = port, link
            self.mesh.wake(port)

    def wake(self, link: Link) -> None:
        if link in self.ports:
            self.mesh.wake(self.ports[link])

    def offer(self, service: ServiceEntry, stream: Stream, origin: tuple[str, ...]) -> None:
        program = Program(self.mesh)
        program.origin = origin
        program.stream, stream.far = stream, program
        self.programs.append(program)
        service.owner(program)
        stream.accept()

    def request(self, link: Link, body: messages.Body, descriptors: tuple[int, ...]) -> None:
        self.log.append(f"request {body.kind:#x} from {link.address}")

    def fd_relay(self, link: Link, stream: Stream) -> None:
        raise AssertionError("no descriptor exists here")

    def discard(self, descriptors: tuple[int, ...]) -> None:
        assert not descriptors, "no descriptor exists here"

    def alarm(self, when: float) -> None:
        self.due = when
        if when <= self.mesh.now + SOON:
            self.mesh.later(max(0.0, when - self.mesh.now), self.ring)

    def ring(self) -> None:
        if self.mesh.now >= self.due:  # else another has taken its place
            self.due = float("inf")
            self.node.tick(self.mesh.now)

    def note(self, text: str) -> None:
        self.log.append(text)

    def news(self, what: str, name: str, path: tuple[str, ...], cost: int) -> None:
        self.events.append((what, name))


class Program:
    """One end of a tunnel, in memory."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.stream: Stream | StreamEnd = NULL_END
        self.origin: tuple[str, ...] = ()
        self.wrote = bytearray()  # all that was ever written; `_sent` of it has been pulled
        self.sink = bytearray()  # all that came
        self.ends = False  # after what was written comes the end
        self.reads = True
        self.accepted = self.eof = self.stopped = self.is_over = False
        self.outcome: Outcome | None = None  # how the far end ended it
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.on_eof: Callable[[], None] = lambda: None
        self._sent = 0
        self._eof_sent = False
        self._exit: Outcome | None = None

    def join(self, stream: Stream) -> None:
        self.stream = stream

    # what tests do with it

    def write(self, data: bytes) -> None:
        if not self.stopped and not self.ends:
            self.wrote += data
        self.stream.readable()

    def end(self) -> None:
        """No more will be written."""
        self.ends = True
        self.stream.readable()

    def exit(self, status: int = 0, text: str = "") -> None:
        """What was written, its end, and then this outcome."""
        self._exit = Outcome(ENDED, text, status)
        self.end()
        self._maybe_exit()

    def abort(self, outcome: Outcome) -> None:
        """End at once, whatever is on its way."""
        stream, self.stream, self.is_over = self.stream, NULL_END, True
        stream.close(outcome)

    def stop_reading(self) -> None:
        self.reads = False
        self.stream.stop()

    def read(self) -> None:
        """Read all there is, and from now on."""
        self.reads = True
        self.readable()

    def echo(self) -> None:
        """Write what was read, end when it ends, exit with 0."""
        self.on_data, self.on_eof = self.write, self.exit

    @property
    def unsent(self) -> int:
        return len(self.wrote) - self._sent

    # the End interface

    def readable(self) -> None:
        while self.reads and not self.is_over:
            data = self.stream.pull(1 << 16)
            if data is None:
                return
            if len(data):
                assert not self.eof, "bytes after the end"
                self.sink += data
                self.on_data(bytes(data))
            else:
                assert not self.eof, "two ends"
                self.eof = True
                self.on_eof()

    def pull(self, limit: int) -> bytes | None:
        assert limit > 0
        data = bytes(self.wrote[self._sent : self._sent + limit])
        self._sent += len(data)
        if data:
            return data
        if not self.ends or self._eof_sent:
            return None
        self._eof_sent = True
        self.mesh.later(0, self._maybe_exit)
        return b""

    def more(self) -> bool:
        return not self.stopped and (self.unsent > 0 or (self.ends and not self._eof_sent))

    def stop(self) -> None:
        self.stopped = self.ends = self._eof_sent = True
        self._maybe_exit()

    def accept(self) -> None:
        assert not self.accepted
        self.accepted = True
        self.stream.readable()

    def close(self, outcome: Outcome) -> None:
        assert not self.is_over, "two ends of one tunnel"
        self.stream, self.outcome, self.is_over = NULL_END, outcome, True

    def _maybe_exit(self) -> None:
        if self._exit is not None and self._eof_sent and not self.is_over:
            self.abort(self._exit)


class Wire:
    """Two Ports and the bytes between them."""

    def __init__(
        self,
        mesh: Mesh,
        *,
        latency: float | tuple[float, float] = 0.01,
        capacity: int = 1 << 16,
        slices: bool = False,
    ) -> None:
        self.mesh = mesh
        self.latencies = latency if isinstance(latency, tuple) else (latency, latency)  # from the first, the second
        self.capacity = capacity  # bytes that are on their way, each way
        self.slices = slices
        self.is_cut = False
        self.ports: list[Port] = []
        self.tap: Callable[[Port, bytes], bytes] = lambda port, chunk: chunk  # what arrives at a port, as it shall be

    def connect(self, link: Link, ports: dict[Link, Port]) -> None:
        port = ports[link] = Port(self, link, ports)
        self.ports.append(port)
        self.mesh.ports.append(port)
        self.mesh.wake(port)

    def cut(self, first: bool = True, second: bool = True) -> None:
        """What is on its way is lost, and the `first` side, the `second`, both, or neither see the end."""
        self.freeze()
        for port, sees in zip(self.ports, (first, second)):
            if sees:
                port.eof()

    def freeze(self) -> None:
        """Nothing gets through any more, and nobody is told."""
        self.is_cut = True


class Port:
    """One side of a wire: takes bytes from its Link as far as the wire has room, and hands it those that arrive."""

    def __init__(self, wire: Wire, link: Link, ports: dict[Link, Port]) -> None:
        self.wire = wire
        self.mesh = wire.mesh
        self.link = link
        self.ports = ports
        self.out = bytearray()  # produced, not yet on the wire
        self.flying = 0  # bytes that have not been read at the other side
        self.arrived: deque[bytes] = deque()
        self.is_deaf = False  # a neighbour that reads nothing
        self.hung_up = False

    @property
    def peer(self) -> Port:
        return self.wire.ports[self.wire.ports[0] is self]

    @property
    def latency(self) -> float:
        return self.wire.latencies[self.wire.ports[0] is not self]

    @property
    def listens(self) -> bool:
        return not (self.is_deaf or self.link.is_backlogged or self.link.state == DOWN)

    def flush(self) -> None:
        if self.wire.is_cut or len(self.wire.ports) < 2:
            return
        while self.flying <= self.wire.capacity // 2:  # as a socket is writable again when half of it is free
            if not self.out:
                buffers, _ = self.link.produce(self.mesh.now)
                self.out = bytearray().join(buffers)
                if not self.out:
                    break
            chunk = bytes(self.out[: self.wire.capacity - self.flying])
            del self.out[: len(chunk)]
            self.flying += len(chunk)
            self.mesh.later(self.latency, lambda chunk=chunk: self.peer.arrive(chunk))  # type: ignore[misc]
        if self.link.state == DOWN and not self.out and not self.hung_up:
            self.hung_up = True
            peer = self.peer
            self.mesh.later(self.latency, peer.eof)
        if self.arrived:
            self.mesh.later(0, self.read)

    def eof(self) -> None:
        if self.ports.get(self.link) is self:  # else the link has another transport, or none
            self.link.eof(self.mesh.now)

    def arrive(self, chunk: bytes) -> None:
        if self.wire.is_cut:
            return
        came = self.wire.tap(self, chunk)
        self.peer.flying -= len(chunk) - len(came)
        chunk = came
        while chunk:
            size = self.mesh.random.randint(1, len(chunk)) if self.wire.slices else len(chunk)
            self.arrived.append(chunk[:size])
            chunk = chunk[size:]
        self.read()

    def read(self) -> None:
        while self.arrived and not self.wire.is_cut and (self.listens or self.link.state == DOWN):
            buffer = bytearray(self.arrived.popleft())
            self.peer.flying -= len(buffer)
            self.mesh.wake(self.peer)
            work = self.mesh.random.choice((1, 3, MAX_WORK)) if self.wire.slices else MAX_WORK
            rest = bytes(buffer[self.link.receive(buffer, self.mesh.now, work=work) :])
            if rest:
                self.arrived.appendleft(rest)
                self.peer.flying += len(rest)
            self.mesh.flush()
            self.link.settle()
            buffer[:] = b"\xee" * len(buffer)  # it is not the link's any more
            self._check()

    def _check(self) -> None:
        link = self.link
        held = 0
        for stream in link.streams.values():
            size = stream.receive_credit + stream.inbox.size
            us = link.local_peer.address
            assert size <= stream.window, f"{us}: {size} bytes granted, the window is {stream.window}"
            held += size
        granted = link.receive_limit.granted
        assert link.state != UP or held <= granted, f"{link.local_peer.address}: {held} held, {granted} accounted for"


class Console:
    """A client of one station.  It is the `Owner` of its link."""

    limits = Limits()

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.ports: dict[Link, Port] = {}
        self.answers: dict[int, messages.Body] = {}
        self._last = 0
        self.link = Link(self, LocalPeer("", b"", CLIENT), mesh.now, local=True)

    def send(self, path: str, kind: int, **values: Any) -> int:
        """Send a request; the id of its answer."""
        self._last += 1
        assert self.link.message(Message(parse_path(path), (), messages.encode_body(kind, self._last, **values)))
        return self._last

    def ask(self, path: str, kind: int, **values: Any) -> messages.Body:
        """Send a request and return what is answered."""
        number = self.send(path, kind, **values)
        self.mesh.idle()
        return self.answers.pop(number)

    def link_up(self, link: Link) -> None:
        return

    def link_down(self, link: Link, reason: str) -> None:
        return

    def link_suspended(self, link: Link, reason: str) -> None:
        return

    def link_resumed(self, link: Link, newcomer: Link) -> None:
        return

    def link_hello(self, link: Link) -> None:
        link.accept()

    def link_message(self, link: Link, message: Message, descriptors: tuple[int, ...]) -> None:
        body = messages.decode_body(message.body)
        assert body.id not in self.answers, "a second answer"
        self.answers[body.id] = body

    def link_open(self, link: Link, stream: Stream, fields: dict[str, Any]) -> None:
        raise AssertionError("nobody opens a route to a client")

    def link_alive(self, link: Link) -> None:
        return

    def link_measured(self, link: Link) -> None:
        return

    def link_reach(self, link: Link, payload: Any) -> None:
        raise AssertionError("a client is told of no network")

    def link_wake(self, link: Link) -> None:
        if link in self.ports:
            self.mesh.wake(self.ports[link])

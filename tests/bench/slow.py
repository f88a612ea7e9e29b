"""Links that are not a loopback: a slow one with a deep buffer, and a fast one with a long way.

The slow link: 20 Mbit/s, 40 ms there and back, and 4 MiB of buffer, which take 1.7 s to drain.  Whoever sends as much
as the kernel takes fills that buffer, and everything else waits behind it.  The bound is on the round trip of a second
tunnel, so r2box has to keep the buffer empty by itself: over a TCP socket of its own, and over a command, of whose
buffers it knows nothing.  ssh has both in one connection too; separate connections of socat would not meet there.

The long link: 1 Gbit/s and 50 ms there and back.  6 MiB are on the way at any time, so a window of less is the limit.
The same relay with nothing but TCP shows what can be reached.
"""

from __future__ import annotations

from collections.abc import Mapping

from .bulk import MIB, RATE, transfers
from .rtt import Pinger
from .runs import Metric, Target
from .session import Session
from .ways import LARGE, R2, Socat, Ssh, Tcp, Way
from .world import Program, World, free_port

SLOW = 20e6 / 8, 0.020, 4 * MIB  # bytes a second, seconds one way, bytes of buffer
LONG = 1e9 / 8, 0.025, 2 * MIB


def relay(world: World, connect: int, rate: float = 0, delay: float = 0, depth: int = 0) -> tuple[int, Program]:
    """Start a relay to that port; return its own port, and itself."""
    port = free_port()
    program = world.converse(world.helper("relay", port, connect, rate, delay, depth))
    world.listens(port, "a relay")
    return port, program


class R2Relayed(R2):
    """Two nodes with a relay in their link."""

    def __init__(self, world: World, wire: tuple[float, float, int], over_socat: bool = False) -> None:
        super().__init__(world)
        self._wire = wire
        self._over_socat = over_socat
        self.name = "r2 over socat" if over_socat else "r2 over tcp://"

    def start(self) -> None:
        listen = free_port()
        prefix = "s" if self._over_socat else "t"
        self._path = [f"{prefix}{number}" for number in (0, 1)]
        for name in self._path:
            self.nodes.node(name)
        dial, _ = relay(self.world, listen, *self._wire)
        one, other = self._path
        self.nodes.link(one, other, listen=listen, dial=dial, over_socat=self._over_socat)


class TcpRelayed(Tcp):
    """Each tunnel a TCP connection of its own, through a relay of its own: there is no common buffer."""

    def __init__(self, world: World, wire: tuple[float, float, int]) -> None:
        super().__init__(world)
        self._wire = wire

    def forward(self, port: int) -> int:
        return relay(self.world, port, *self._wire)[0]


class SocatRelayed(Socat):
    def __init__(self, world: World, wire: tuple[float, float, int], options: str = "") -> None:
        super().__init__(world, options=options)
        self._wire = wire

    def offer(self, name: str, far: str) -> None:
        super().offer(name, far)
        self._ports[name] = relay(self.world, self._ports[name], *self._wire)[0]


class SshRelayed(Ssh):
    """The whole connection of ssh goes through one relay."""

    def __init__(self, world: World, wire: tuple[float, float, int]) -> None:
        super().__init__(world)
        self._wire = wire

    def reach(self) -> int:
        return relay(self.world, self.port, *self._wire)[0]


def slow_link(session: Session) -> None:
    """round trip beside bulk on a link of 20 Mbit/s, 40 ms and a deep buffer"""
    metrics = [Metric(f"{when}, {name}", "ms") for when in ("alone", "beside bulk") for name in ("median", "p99")]
    with session.world() as world:
        ways: list[Way] = [R2Relayed(world, SLOW), R2Relayed(world, SLOW, over_socat=True), SshRelayed(world, SLOW)]
        candidates = []
        for way in ways:
            pinger = Pinger(way, session.amount(150, 20), session.seconds(15, 2), floods=True)
            standing = Standing(pinger, session.seconds(4, 2.5))
            candidates.append(session.candidate(way, pinger.offer, standing.run))
        targets = [Target(way.name, "<=", 150, metric="beside bulk, median") for way in ways[:2]]
        session.compare("64 bytes at 20 Mbit/s, 40 ms, 4 MiB of buffer", metrics, candidates, targets)


class Standing:
    """Round trips alone, and beside bulk that has had the time to fill every buffer."""

    def __init__(self, pinger: Pinger, settle: float) -> None:
        self._pinger = pinger
        self._settle = settle

    def run(self) -> Mapping[str, float]:
        alone = self._pinger.run()
        with self._pinger.bulk(self._settle):
            beside = self._pinger.run()
        values = {f"alone, {name}": value / 1000 for name, value in alone.items()}
        values.update({f"beside bulk, {name}": value / 1000 for name, value in beside.items()})
        return values


def long_link(session: Session) -> None:
    """bulk on a link of 1 Gbit/s and 50 ms"""
    total = session.amount(512 * MIB, 16 * MIB)
    with session.world() as world:
        ways: list[Way] = [R2Relayed(world, LONG), SocatRelayed(world, LONG), SocatRelayed(world, LONG, LARGE)]
        ways += [SshRelayed(world, LONG), TcpRelayed(world, LONG)]
        candidates = transfers(session, ways, total)
        targets = [Target(ways[0].name, ">=", 0.9, peer) for peer in ("bare TCP", "socat")]
        session.compare(f"1 Gbit/s, 50 ms, {total // MIB} MiB", [RATE], candidates, targets)

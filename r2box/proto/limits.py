"""Every limit on what neighbours and clients may cost this node, with its reason, in one table.

A node has one `Limits`: the defaults of the table, changed by `[limits]` of a TOML file or by `limits=` of the
library's Node.  Values are looked up at each use, so that a reload holds at once.  For `r2 status --limits`, code that
spends what is limited notes how much is in use, or registers a function that measures it; the high-water marks are
kept.

Past a limit one thing is refused with an error that names it, and everything else goes on.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MIB = 1 << 20
LINKS_SHARE = 1 / 4  # of the memory: 64 MiB of 256
BYTES = "bytes"
MOST = 1 << 20  # of anything: the labels of a link's streams end there


class Limit:
    """One row: its default, what it counts, why it is what it is, and what it may be set to."""

    __slots__ = ("default", "least", "most", "unit", "why")

    def __init__(self, default: int, unit: str, why: str, least: int = 1, most: int = MOST) -> None:
        self.default = default
        self.unit = unit
        self.why = why
        self.least, self.most = least, most

    @property
    def shown(self) -> str:
        """Its default, for people."""
        return f"{self.default >> 20} MiB" if self.unit == BYTES else f"{self.default} {self.unit}"

    def check(self, value: int) -> int:
        """`value`; ValueError if the limit may not be that."""
        if not self.least <= value <= self.most:
            raise ValueError(f"must be from {self.least} to {self.most}, not {value}")
        return value


TABLE: dict[str, Limit] = {
    "pending": Limit(64, "links", "Incoming links that are not up yet. Each costs a descriptor and a timer; the "
        "oldest makes room for a new one. When more than half are taken, those that are silent for 2 s are closed."),
    "pending-per-source": Limit(8, "links", "The same from one source address, so that one host cannot take all."),
    "links": Limit(1024, "links", "Links to neighbours, suspended ones included."),
    "sessions": Limit(256, "sessions", "Suspended links that wait for another transport. The one with the fewest "
        "tunnels that has waited longest makes room for a new one."),
    "streams": Limit(16384, "streams", "Tunnels on one link, for each side that opens them: 10,000 are a use that is "
        "known. A neighbour's tunnels through this node may be no more, on each link that they leave by, than it has "
        "room for besides."),
    "opens": Limit(1000, "a second", "Tunnels that a neighbour may open, after a first 16,384 at once. Each costs "
        "some 0.1 ms here and as much at every further node. An origin behind it may open half of that."),
    "relays": Limit(500, "a second", "Tunnels that a neighbour may open through this node, after a first 1,000 at "
        "once: the node behind sees them on one link, 32 at a time. An origin behind it may open half of that."),
    "requests": Limit(1000, "a second", "Messages (requests such as ls and ping, and answers) that a neighbour may "
        "send or pass on, after a first 2,000 at once. An origin behind it may send half of that."),
    "programs": Limit(1024, "processes", "Programs that run for the tunnels of one service."),
    "programs-per-neighbour": Limit(512, "processes", "Programs that run for the tunnels of one neighbour. Of one "
        "service it may have as many as are free, and more than 4 only while a quarter is."),
    "memory": Limit(256 * MIB, BYTES, "What all links hold together. They share a quarter of it, of which each may "
        "hold as much as is free; the rest is for what each has in any case. Past the whole, links are closed: pending "
        "ones first, then suspended ones without tunnels, then the one that holds most.", MIB, 1 << 40),
}  # fmt: skip


class Limits(dict[str, int]):
    """The limits of one node by name: the defaults with `changes`.  ValueError for an unknown name or a wrong value."""

    def __init__(self, changes: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.peak: dict[str, int] = dict.fromkeys(TABLE, 0)
        self.measures: dict[str, Callable[[], int]] = {}  # how much is in use, for what is not noted when it is less
        self._noted: dict[str, int] = dict.fromkeys(TABLE, 0)
        self.change(changes or {})

    def change(self, changes: Mapping[str, int]) -> None:
        """From now on the defaults with `changes` hold.  ValueError as above; then nothing is changed."""
        for name, value in changes.items():
            if name not in TABLE:
                raise ValueError(f"{name}: unknown limit (there are {', '.join(TABLE)})")
            try:
                TABLE[name].check(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        self.update({name: changes.get(name, row.default) for name, row in TABLE.items()})

    def note(self, name: str, used: int) -> None:
        """`used` of it are in use now; of a limit that holds for each link or service, by one of them."""
        self._noted[name] = used
        self.peak[name] = max(self.peak[name], used)

    def used(self, name: str) -> int:
        """How much is in use now; of a limit that holds for each link, service or neighbour, by the one that uses
        most."""
        measure = self.measures.get(name)
        if measure is not None:
            self.note(name, measure())
        return self._noted[name]

    def has_room(self, name: str, used: int) -> bool:
        """Whether one more may be taken where `used` are; notes that it is."""
        has_room = used < self[name]
        self.note(name, used + has_room)
        return has_room

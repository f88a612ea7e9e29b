"""Every limit on what neighbours and clients may cost this node, with its reason, in one table.

A daemon has one `Limits`: the defaults of the table, changed by `[limits]` of a TOML file.  Code that spends what is
limited notes how much is in use; the high-water marks are kept for `r2 status --limits`.

Past a limit one thing is refused with an error that names it, and everything else goes on.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20
LINKS_SHARE = 5 / 16  # of the memory: 80 MiB of 256


class Limit:
    """One row: its default, what it counts, and why it is what it is."""

    __slots__ = ("default", "unit", "why")

    def __init__(self, default: int, unit: str, why: str) -> None:
        self.default = default
        self.unit = unit
        self.why = why


TABLE: dict[str, Limit] = {
    "pending": Limit(64, "links", "Incoming links that are not up yet. Each costs a descriptor and a timer; the "
        "oldest makes room for a new one. When more than half are taken, those that are silent for 2 s are closed."),
    "pending-per-source": Limit(8, "links", "The same from one source address, so that one host cannot take all."),
    "links": Limit(1024, "links", "Links to neighbours, suspended ones included."),
    "sessions": Limit(256, "sessions", "Suspended links that wait for another transport. The one with the fewest "
        "tunnels that has waited longest makes room for a new one."),
    "streams": Limit(16384, "streams", "Tunnels on one link, in each direction: 10,000 are a use that is known."),
    "opens": Limit(1000, "a second", "Tunnels that a neighbour may open, after a first 16,384 at once. Each costs "
        "some 0.1 ms here and as much at every further node. An origin behind it may open half of that."),
    "relays": Limit(500, "a second", "Tunnels that a neighbour may open through this node, after a first 1,000 at "
        "once: the node behind sees them all on one link. An origin behind it may open half of that."),
    "requests": Limit(1000, "a second", "Messages (requests such as ls and ping, and answers) that a neighbour may "
        "send or pass on, after a first 2,000 at once. An origin behind it may send half of that."),
    "programs": Limit(1024, "processes", "Programs that run for the tunnels of one service."),
    "programs-per-neighbour": Limit(512, "processes", "Programs that run for the tunnels of one neighbour."),
    "memory": Limit(256 * MIB, "bytes", "What all links hold together. They share 5/16 of it, of which each may hold "
        "as much as is free; the rest is for what each has in any case. Past the whole, links are closed: pending ones "
        "first, then suspended ones without tunnels, then the one that holds most."),
}  # fmt: skip


class Limits:
    """The limits of one node, as in `limits["pending"]`: the defaults with `changes`.  KeyError for an unknown name."""

    def __init__(self, changes: Mapping[str, int] | None = None) -> None:
        self._values = {name: row.default for name, row in TABLE.items()}
        for name, value in (changes or {}).items():
            if name not in TABLE:
                raise KeyError(name)
            self._values[name] = value
        self.used: dict[str, int] = dict.fromkeys(TABLE, 0)
        self.peak: dict[str, int] = dict.fromkeys(TABLE, 0)

    def __getitem__(self, name: str) -> int:
        return self._values[name]

    def note(self, name: str, used: int) -> None:
        """`used` of it are in use now.  Of a limit that holds for each link or service, the last one that was noted."""
        self.used[name] = used
        self.peak[name] = max(self.peak[name], used)

    def has_room(self, name: str, used: int) -> bool:
        """Whether one more may be taken where `used` are; notes that it is."""
        if used >= self._values[name]:
            self.note(name, used)
            return False
        self.note(name, used + 1)
        return True

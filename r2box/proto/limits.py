"""Limits on the resources that neighbours and clients may use, each with its reason, in one table.

A node has one `Limits`: the defaults of the table with the changes of `[limits]` in a TOML file or of `limits=` of the
library's Node.  Values are looked up at each use, so that a reload applies at once.  For `r2 status --limits`, users of
a resource note the current use or register a function that measures it; the high-water marks are kept.

Past a limit, one request is refused with an error that names the limit; everything else continues.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MIB = 1 << 20
LINKS_SHARE = 1 / 4  # of the memory: 64 MiB of 256
BYTES = "bytes"
MOST = 1 << 20  # the largest value of a count: the number of labels of a link


class Limit:
    """One row: the default, the unit, the reason, and the range of valid values."""

    __slots__ = ("default", "least", "most", "unit", "why")

    def __init__(self, default: int, unit: str, why: str, least: int = 1, most: int = MOST) -> None:
        self.default = default
        self.unit = unit
        self.why = why
        self.least, self.most = least, most

    @property
    def shown(self) -> str:
        """The default for display."""
        return f"{self.default >> 20} MiB" if self.unit == BYTES else f"{self.default} {self.unit}"

    def check(self, value: int) -> int:
        """Return `value`; ValueError if it is outside of the range."""
        if not self.least <= value <= self.most:
            raise ValueError(f"must be from {self.least} to {self.most}, not {value}")
        return value


TABLE: dict[str, Limit] = {
    "pending": Limit(64, "links", "Incoming links in the handshake. Each costs a descriptor and a timer; "
                                  "beyond the limit, the oldest is closed. When more than half are in use, "
                                  "those that are silent for 2 s are closed."),
    "pending-per-source": Limit(8, "links", "The same from one source address, so that one host cannot use "
                                            "them all."),
    "links": Limit(1024, "links", "Links to neighbours, including suspended ones."),
    "sessions": Limit(256, "sessions", "Suspended links. Beyond the limit, the one with the fewest tunnels is "
                                       "closed; among equals, the oldest."),
    "suspended-memory": Limit(12 * MIB, BYTES, "Memory of suspended links together. What exceeds it 15 s after the cut "
                                               "is freed by closing the link that holds most: what was sent and is not "
                                               "acknowledged would stay until the resume timeout.", 0, 1 << 40),
    "streams": Limit(16384, "streams", "Tunnels on one link, for each side that opens them: 10,000 is a known "
                                       "use. The tunnels of a neighbour through this node are also limited to "
                                       "what the outgoing link has free."),
    "opens": Limit(1000, "a second", "Tunnels that a neighbour may open, after a burst of 16,384. Each costs "
                                     "some 0.1 ms here and at each further node. An origin behind the "
                                     "neighbour may open half as many."),
    "relays": Limit(500, "a second", "Tunnels that a neighbour may open through this node, after a burst of "
                                     "1,000: the next node receives them on one link, 32 at a time. An origin "
                                     "behind the neighbour may open half as many."),
    "requests": Limit(1000, "a second", "Messages (requests such as ls and ping, and answers) that a neighbour "
                                        "may send or relay, after a burst of 2,000. An origin behind the "
                                        "neighbour may send half as many."),
    "programs": Limit(1024, "processes", "Processes that run for the tunnels of one service."),
    "programs-per-neighbour": Limit(512, "processes", "Processes that run for the tunnels of one neighbour. Of "
                                                      "one service, it may have as many as are free, and more "
                                                      "than 4 only while a quarter of them is free."),
    "memory": Limit(256 * MIB, BYTES, "Memory of all links together. Links share a quarter of it, of which "
                                      "each may use as much as is free; the rest is for the fixed costs of "
                                      "links. Beyond the limit, links are closed: pending ones first, then "
                                      "suspended ones without tunnels, then the one that uses most.", MIB, 1 << 40),
}  # fmt: skip


class Limits(dict[str, int]):
    """The limits of one node by name: the defaults with `changes`.  ValueError for an unknown name or invalid value."""

    def __init__(self, changes: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.peak: dict[str, int] = dict.fromkeys(TABLE, 0)
        self.measures: dict[str, Callable[[], int]] = {}  # functions that measure the current use
        self._noted: dict[str, int] = dict.fromkeys(TABLE, 0)
        self.change(changes or {})

    def change(self, changes: Mapping[str, int]) -> None:
        """Set the defaults with `changes`.  ValueError as above; then nothing is changed."""
        for name, value in changes.items():
            if name not in TABLE:
                raise ValueError(f"{name}: unknown limit (there are {', '.join(TABLE)})")
            try:
                TABLE[name].check(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        self.update({name: changes.get(name, row.default) for name, row in TABLE.items()})

    def note(self, name: str, used: int) -> None:
        """Note the current use; for a limit per link or service, that of one of them."""
        self._noted[name] = used
        self.peak[name] = max(self.peak[name], used)

    def used(self, name: str) -> int:
        """Return the current use; for a limit per link, service or neighbour, the largest one."""
        measure = self.measures.get(name)
        if measure is not None:
            self.note(name, measure())
        return self._noted[name]

    def has_room(self, name: str, used: int) -> bool:
        """Whether one more is admitted where `used` are in use; if so, note it."""
        has_room = used < self[name]
        self.note(name, used + has_room)
        return has_room

"""What neighbours tell each other of the network: the payload of a REACH frame.

A frame holds entries.  An entry says that its sender reaches a node: the path from the sender to it, what that costs,
and who it is (its `NodeRecord`); the entry with the empty path is the sender itself.  Or it says that a node is gone.

Entries stand in such an order that their paths share beginnings, and say only how many steps of the path before they
keep.  A record is told once and again when it has changed.  So an entry costs some 10 bytes beside a name.

A path that is none, or a name that is none, ends the link; what is only too much is the business of `discovery`.
"""

from __future__ import annotations

import sys

from ...errors import AddressError, WireError
from .address import MAX_HOPS, check_address
from .fields import Fields, encode_varint
from .frames import MAX_REACH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .fields import Buffer

MAX_PATH = MAX_HOPS - 2  # steps: a client before them, and a service behind
MAX_COST = (1 << 32) - 1  # microseconds: more than an hour is no connection
MAX_TOLD = 64  # services that are told of a node; `ls` of that node lists them all
IDENTITY = 8  # bytes of a node's instance that tell it from another of its name

BEGIN, END, AGAIN = 1, 2, 4  # flags: all is told from here on; that was all; please tell all once more

REACH_FIELDS = Fields("REACH", number=(1, "uint"), flags=(2, "uint"), entries=(3, "each"))
ENTRY_FIELDS = Fields(
    "an entry of REACH",
    keep=(1, "uint"),  # steps of the path of the entry before
    path=(2, "path"),  # and those behind them
    cost=(3, "uint"),  # microseconds there and back, and 1,000 for each link
    gone=(4, "uint"),  # 1: the node at the end of the path is not reached any more
    identity=(5, "bytes"),  # where the record is told
    services=(6, "each"),
)
_ENTRY_TAG = encode_varint(REACH_FIELDS.layout["entries"][0])


class NodeRecord:
    """What a node says of itself: its `identity`, and the names of its `services`, sorted."""

    __slots__ = ("identity", "services")

    def __init__(self, identity: bytes, services: tuple[str, ...]) -> None:
        self.identity = identity
        self.services = services

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeRecord) and (self.identity, self.services) == (other.identity, other.services)

    def __hash__(self) -> int:
        return hash((self.identity, self.services))

    def __repr__(self) -> str:
        return f"Record({self.identity!r}, {self.services!r})"


class AdvertisedNode:
    """One line of what is told.  Without a `record`, that is as it was told before; `cost` None: it is gone.

    It keeps its bytes: most lines are the same for all neighbours.
    """

    __slots__ = ("_data", "_keep", "cost", "path", "record")

    def __init__(self, path: tuple[str, ...], cost: int | None, record: NodeRecord | None = None) -> None:
        self.path = path
        self.cost = cost
        self.record = record
        self._data = b""
        self._keep = -1

    def encode(self, keep: int) -> bytes:
        """As a field of REACH, where `keep` steps are those of the line before."""
        if keep != self._keep:
            record = self.record
            data = ENTRY_FIELDS.encode(
                keep=keep,
                path=self.path[keep:],
                cost=self.cost or 0,
                gone=int(self.cost is None),
                identity=record.identity if record else b"",
                services=tuple(name.encode() for name in record.services) if record else (),
            )
            self._keep, self._data = keep, _ENTRY_TAG + encode_varint(len(data)) + data
        return self._data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AdvertisedNode) and (self.path, self.cost, self.record) == (
            other.path, other.cost, other.record
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.path, self.cost, self.record))

    def __repr__(self) -> str:
        return f"Entry({self.path!r}, {self.cost!r}, {self.record!r})"


class Reach:
    """A decoded frame.  `number` counts the frames of one side of a link, from 0."""

    __slots__ = ("entries", "flags", "number")

    def __init__(self, number: int, flags: int, entries: list[AdvertisedNode]) -> None:
        self.number = number
        self.flags = flags
        self.entries = entries


def pack_reach(number: int, flags: int, entries: Iterable[AdvertisedNode]) -> tuple[bytes, int]:
    """A payload with as many of `entries` as it holds, and how many these are.  One always fits."""
    before: tuple[str, ...] = ()
    encoded: list[bytes] = []
    room = MAX_REACH - 32
    for entry in entries:
        path = entry.path
        keep = 0
        if before and path and path[0] == before[0]:
            most = min(len(before), len(path))
            while keep < most and before[keep] == path[keep]:
                keep += 1
        data = entry.encode(keep)
        room -= len(data)
        if room < 0 and encoded:
            break
        encoded.append(data)
        before = path
    return REACH_FIELDS.encode(number=number, flags=flags) + b"".join(encoded), len(encoded)


def decode_reach(payload: Buffer) -> Reach:
    """The inverse.  WireError if it is none."""
    fields = REACH_FIELDS.decode(payload)
    before: tuple[str, ...] = ()
    entries = []
    for data in fields["entries"]:
        entry = _decode_entry(data, before)
        before = entry.path
        entries.append(entry)
    return Reach(fields["number"], fields["flags"], entries)


def _decode_entry(data: bytes, before: tuple[str, ...]) -> AdvertisedNode:
    fields = ENTRY_FIELDS.decode(data)
    keep, cost, identity, names = fields["keep"], fields["cost"], fields["identity"], fields["services"]
    if keep > len(before):
        raise WireError(f"an entry of REACH that keeps {keep} steps of {len(before)}")
    rest = tuple(sys.intern(step) for step in fields["path"])  # a name stands in many paths
    if any("/" in step for step in rest):
        raise WireError("an entry of REACH that is no node")
    path = before[:keep] + rest
    if len(path) > MAX_PATH or cost > MAX_COST or len(names) > MAX_TOLD:
        raise WireError(f"an entry of REACH with {len(path)} steps, {len(names)} services and a cost of {cost}")
    if fields["gone"]:
        return AdvertisedNode(path, None)
    return AdvertisedNode(path, cost, _decode_record(identity, names) if identity else None)


def _decode_record(identity: bytes, names: tuple[bytes, ...]) -> NodeRecord:
    if len(identity) != IDENTITY:
        raise WireError(f"an identity of {len(identity)} bytes")
    try:
        return NodeRecord(identity, tuple(sorted({sys.intern(check_address(name.decode("ascii"))) for name in names})))
    except (UnicodeDecodeError, AddressError) as error:
        raise WireError(f"a service that is none: {error}") from None


def size_of(entry: AdvertisedNode) -> int:
    """About how many bytes it takes to remember `entry`, by the lengths of its names."""
    names = entry.record.services if entry.record else ()
    return 16 + sum(map(len, entry.path)) + sum(map(len, names)) + len(encode_varint(entry.cost or 0))

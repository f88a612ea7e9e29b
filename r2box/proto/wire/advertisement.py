"""Advertisements: the payload of a REACH frame, by which neighbours exchange routes.

A frame holds entries.  An entry advertises a node that the sender reaches: the path from the sender, its cost, and the
`NodeRecord`.  The entry with the empty path is the sender itself.  Or an entry withdraws a node.

Entries are sorted so that consecutive paths share prefixes; each holds only the number of steps that it shares with the
path before it, and the rest.  A record is sent once, and again when it has changed.  So an entry takes some 10 bytes
beside a name.

An invalid path or name ends the link; limits on the number of entries are applied by `discovery`.
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

MAX_PATH = MAX_HOPS - 2  # steps; a client before them and a service behind them make MAX_HOPS
MAX_COST = (1 << 32) - 1  # microseconds: more than an hour
MAX_ADVERTISED_SERVICES = 64  # services in a record; `ls` of the node lists all
IDENTITY = 8  # bytes of a node's instance, which distinguish it from another node of its name

BEGIN, END, AGAIN = 1, 2, 4  # flags: a full table begins; it ends; the sender requests a full table

REACH_FIELDS = Fields("REACH", number=(1, "uint"), flags=(2, "uint"), entries=(3, "each"))
ENTRY_FIELDS = Fields(
    "an entry of REACH",
    keep=(1, "uint"),  # steps that the path shares with that of the entry before
    path=(2, "path"),  # the steps behind them
    cost=(3, "uint"),  # round trip in microseconds, plus 1,000 for each link
    withdrawn=(4, "uint"),  # 1: the node is withdrawn
    identity=(5, "bytes"),  # present if the entry holds the record
    services=(6, "each"),
)
_ENTRY_TAG = encode_varint(REACH_FIELDS.layout["entries"][0])


class NodeRecord:
    """The record that a node originates: its `identity`, and the sorted names of its `services`."""

    __slots__ = ("identity", "services")

    def __init__(self, identity: bytes, services: tuple[str, ...]) -> None:
        self.identity = identity
        self.services = services

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NodeRecord) and (self.identity, self.services) == (other.identity, other.services)

    def __hash__(self) -> int:
        return hash((self.identity, self.services))

    def __repr__(self) -> str:
        return f"NodeRecord({self.identity!r}, {self.services!r})"


class AdvertisedNode:
    """One entry.  `record` None: unchanged; `cost` None: the node is withdrawn.

    Caches its encoding, which is the same for most neighbours.
    """

    __slots__ = ("_data", "_keep", "cost", "path", "record")

    def __init__(self, path: tuple[str, ...], cost: int | None, record: NodeRecord | None = None) -> None:
        self.path = path
        self.cost = cost
        self.record = record
        self._data = b""
        self._keep = -1

    def encode(self, keep: int) -> bytes:
        """Encode as a field of REACH; the path shares `keep` steps with that of the entry before."""
        if keep != self._keep:
            record = self.record
            data = ENTRY_FIELDS.encode(
                keep=keep,
                path=self.path[keep:],
                cost=self.cost or 0,
                withdrawn=int(self.cost is None),
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
        return f"AdvertisedNode({self.path!r}, {self.cost!r}, {self.record!r})"


class Reach:
    """A decoded REACH frame.  `number` counts the frames of one side of a link from 0."""

    __slots__ = ("entries", "flags", "number")

    def __init__(self, number: int, flags: int, entries: list[AdvertisedNode]) -> None:
        self.number = number
        self.flags = flags
        self.entries = entries


def pack_reach(number: int, flags: int, entries: Iterable[AdvertisedNode]) -> tuple[bytes, int]:
    """Encode as many of `entries` as fit in one frame, at least one; return the payload and their number."""
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
    """Decode a payload of REACH.  WireError if it is malformed."""
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
    rest = tuple(sys.intern(step) for step in fields["path"])  # a name occurs in many paths
    if any("/" in step for step in rest):
        raise WireError("an entry of REACH whose path holds a service or client")
    path = before[:keep] + rest
    if len(path) > MAX_PATH or cost > MAX_COST or len(names) > MAX_ADVERTISED_SERVICES:
        raise WireError(f"an entry of REACH with {len(path)} steps, {len(names)} services and a cost of {cost}")
    if fields["withdrawn"]:
        return AdvertisedNode(path, None)
    return AdvertisedNode(path, cost, _decode_record(identity, names) if identity else None)


def _decode_record(identity: bytes, names: tuple[bytes, ...]) -> NodeRecord:
    if len(identity) != IDENTITY:
        raise WireError(f"an identity of {len(identity)} bytes")
    try:
        return NodeRecord(identity, tuple(sorted({sys.intern(check_address(name.decode("ascii"))) for name in names})))
    except (UnicodeDecodeError, AddressError) as error:
        raise WireError(f"an invalid service name: {error}") from None


def size_of(entry: AdvertisedNode) -> int:
    """Estimate the memory of a stored `entry`, in bytes, from the lengths of its names."""
    names = entry.record.services if entry.record else ()
    return 16 + sum(map(len, entry.path)) + sum(map(len, names)) + len(encode_varint(entry.cost or 0))

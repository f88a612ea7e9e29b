"""Message bodies: the table of requests, answers and events.

A body is ``kind (varint) id (varint) fields``.  Requests have kinds below 0x40, and their answers carry the same id, so
that a client can have many requests outstanding.  Answers and events have kinds from 0x40 up and are never answered, so
two nodes cannot exchange errors for ever.

PING, LIST and NETWORK are accepted from any node.  All others pass only between a daemon and the clients on its control
socket; descriptors accompany them.
"""

from __future__ import annotations

from ...errors import WireError
from .fields import Fields, decode_varint, encode_varint
from .frames import MAX_CONTROL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PING = 0x01  # the answer is PONG with the same data
LIST = 0x02  # list neighbours, services and clients; the answer is LISTING
TUNNEL = 0x03  # open a tunnel to `target`; the answer is OPENED, with a descriptor of the client's end unless its
# stdin and stdout are that end
ATTACH = 0x04  # establish a link over the transport whose descriptors accompany this; the answer is LINKED
SERVE = 0x05  # offer a service; its tunnels arrive as INCOMING
STARTED = 0x06  # to INCOMING: the program runs (with a descriptor if the server made one)
EXITED = 0x07  # to INCOMING: the program has exited, or could not be started
LEAVE = 0x08  # close all links and tunnels of this client; DONE follows
HALTED = 0x09  # to OPENED: the program at the client's end has exited; the end of its output may be sent
NETWORK = 0x0A  # list known nodes: all `after` a name, the node `name`, or those that offer `service`
STATUS = 0x0B  # report links, tunnels, jobs, clients and limits; the answer is STATUS_IS
WATCH = 0x0C  # subscribe to EVENT
JOB = 0x0D  # the state of a link, service or forward that the client maintains; not answered

ANSWER = 0x40  # the first kind of answers and events
PONG = 0x40
LISTING = 0x41
OPENED = 0x42
ENDED = 0x43  # a tunnel or a link has ended
LINKED = 0x44  # the link of ATTACH is up
DONE = 0x45  # success
INCOMING = 0x46  # to a server: a new tunnel, with the descriptors for its program
HANGUP = 0x47  # to a server: the tunnel failed, so the program must end
ERROR = 0x48  # the request failed
NETWORK_IS = 0x49
STATUS_IS = 0x4A
EVENT = 0x4B  # to WATCH: one of `EVENTS`
OUTPUT = 0x4C  # what the command of ATTACH wrote before its link began

# "path": the best path to a known node has changed.
EVENTS = (
    "node-up", "node-down", "path", "service-up", "service-down", "link-up", "link-down", "link-cut", "link-resumed",
)  # fmt: skip

# `runs` of SERVE, what accompanies INCOMING: nothing, since the server makes the descriptor; one descriptor; or
# separate descriptors for stdin and stdout.
PROVIDES, SINGLE, APART = range(3)

REMOTE_ANSWERS = frozenset((PONG, LISTING, NETWORK_IS, ERROR))  # those that a client accepts from remote nodes

_OUTCOME = {"code": (1, "uint"), "status": (2, "uint"), "signal": (3, "uint"), "text": (4, "text")}

BODIES = {
    PING: Fields("PING", data=(1, "bytes")),
    LIST: Fields("LIST", clients=(1, "uint"), start=(2, "uint")),
    TUNNEL: Fields(
        "TUNNEL", target=(1, "path"), apart=(2, "uint"), runs=(3, "uint"), detached=(4, "uint"), mode=(5, "uint")
    ),
    # `resume_timeout`: seconds for which a suspended link waits for another transport; `lossy`: the transport may lose
    # bytes; `mtu`: of its packets, in bytes; `keepalive`: interval in seconds.  0: the default (no resume).
    # `silent`: no discovery on this link; `still`: no transit; `advertise`, `accept`: patterns, as in `policy`; `lent`:
    # the transport is the client's stdin and stdout, so ENDED must be sent as soon as the neighbour has closed the
    # link; `runs`: the transport is a command, which may write text first; `incoming`: the neighbour has connected.
    ATTACH: Fields(
        "ATTACH", address=(1, "text"), transport=(2, "text"),
        resume_timeout=(3, "uint"), lossy=(4, "uint"), mtu=(5, "uint"), keepalive=(6, "uint"),
        silent=(7, "uint"), still=(8, "uint"), advertise=(9, "each"), accept=(10, "each"), lent=(11, "uint"),
        runs=(12, "uint"), incoming=(13, "uint"),
    ),
    SERVE: Fields(
        "SERVE", name=(1, "text"), runs=(2, "uint"), allow=(3, "each"), detail=(4, "text"), private=(5, "uint"),
        mode=(6, "uint"),
    ),
    STARTED: Fields("STARTED"),
    EXITED: Fields("EXITED", **_OUTCOME),
    HALTED: Fields("HALTED", **_OUTCOME),
    LEAVE: Fields("LEAVE"),
    NETWORK: Fields("NETWORK", after=(1, "text"), name=(2, "text"), service=(3, "text")),
    WATCH: Fields("WATCH"),
    # `clients`: include the programs on the control socket; `limits`: report only these
    STATUS: Fields("STATUS", start=(1, "uint"), clients=(2, "uint"), limits=(3, "uint")),
    # `number` identifies a job of the client; `job` and `state`: see `job_states`; `where`: the address that it listens
    # at; `next`: milliseconds until the next attempt; `tries`: consecutive failed attempts.
    JOB: Fields(
        "JOB", number=(1, "uint"), job=(2, "uint"), state=(3, "uint"), name=(4, "text"), transport=(5, "text"),
        where=(6, "text"), reason=(7, "text"), next=(8, "uint"), tries=(9, "uint"),
    ),
    PONG: Fields("PONG", data=(1, "bytes")),
    LISTING: Fields("LISTING", entries=(1, "each"), next=(2, "uint"), address=(3, "text")),
    # `program` 1: the descriptors lead to the program of a service; `connection` 1: they are the connection of one
    OPENED: Fields("OPENED", program=(1, "uint"), connection=(2, "uint")),
    ENDED: Fields("ENDED", **_OUTCOME, cut=(5, "uint")),  # 1: the link is suspended
    LINKED: Fields("LINKED", address=(1, "text")),
    OUTPUT: Fields("OUTPUT", data=(1, "bytes")),
    DONE: Fields("DONE"),
    INCOMING: Fields("INCOMING", service=(1, "text"), origin=(2, "path"), node=(3, "text")),
    HANGUP: Fields("HANGUP", text=(1, "text")),
    ERROR: Fields("ERROR", code=(1, "uint"), text=(2, "text"), again=(3, "uint")),
    NETWORK_IS: Fields("NETWORK_IS", entries=(1, "each"), after=(2, "text"), address=(3, "text")),
    # `missed`: events before this one that were dropped because the client did not read
    EVENT: Fields(
        "EVENT", what=(1, "text"), name=(2, "text"), path=(3, "path"), cost=(4, "uint"), missed=(5, "uint")
    ),
    STATUS_IS: Fields(
        "STATUS_IS", links=(1, "each"), tunnels=(2, "each"), next=(3, "uint"), address=(4, "text"), jobs=(5, "each"),
        clients=(6, "each"), limits=(7, "each"),
    ),
}

# An entry of LISTING; kind is "node", "service" or "client".
ENTRY = Fields("entry", kind=(1, "text"), name=(2, "text"), detail=(3, "text"))

# An entry of NETWORK_IS: the best path to the node, its cost in microseconds, its age in milliseconds, and the number
# of neighbours that offer a route (`ways`).
NETWORK_ENTRY = Fields(
    "node", path=(1, "path"), cost=(2, "uint"), age=(3, "uint"), ways=(4, "uint"), services=(5, "each")
)
# A link in STATUS_IS.  Sizes are bytes, `rtt` is in microseconds, `age` in milliseconds; `rate` is the
# measured capacity of the path, in bytes a second; `peer` is the remote address of a socket.
LINK = Fields(
    "link", address=(1, "text"), state=(2, "uint"), reason=(3, "text"), transport=(4, "text"), rate=(5, "uint"),
    received=(6, "uint"), sent=(7, "uint"), rtt=(8, "uint"), packets=(9, "uint"), resent=(10, "uint"),
    resumes=(11, "uint"), queue=(12, "uint"), unacked=(13, "uint"), tunnels=(14, "uint"), age=(15, "uint"),
    peer=(16, "text"),
)
LINK_UP, LINK_SUSPENDED, LINK_PENDING = range(3)  # its states

# A tunnel in STATUS_IS.  `there` counts the bytes from `who` to `where`, `back` those in the other direction; `idle`
# and `age` are in milliseconds; `link` and `label` are the neighbour and the route, or the client and its request.
ROUTE = Fields(
    "tunnel", who=(1, "text"), where=(2, "text"), way=(3, "uint"), there=(4, "uint"), back=(5, "uint"),
    idle=(6, "uint"), age=(7, "uint"), stalled=(8, "uint"), link=(9, "text"), label=(10, "uint"),
)
WAY_OUT, WAY_IN, WAY_ACROSS, WAY_LOCAL = range(4)  # from this node, to it, through it, within it
FREE, READER, CREDIT, TURN, CUT, SERVICE = range(6)  # what it is stalled on; CUT: a suspended link

# A job in STATUS_IS: the fields of JOB, its `age` in milliseconds, and the client that maintains it.
JOB_LINE = Fields(
    "job", job=(2, "uint"), state=(3, "uint"), name=(4, "text"), transport=(5, "text"), where=(6, "text"),
    reason=(7, "text"), next=(8, "uint"), tries=(9, "uint"), age=(10, "uint"), client=(11, "text"), pid=(12, "uint"),
)
# A client in STATUS_IS: its process (0 while unknown) and the command line of that.
CLIENT_LINE = Fields("client", client=(1, "text"), pid=(2, "uint"), command=(3, "text"), software=(4, "text"))
# A limit in STATUS_IS: current use, high-water mark (`peak`), and the `limit`.
LIMIT = Fields(
    "limit", name=(1, "text"), limit=(2, "uint"), used=(3, "uint"), peak=(4, "uint"), unit=(5, "text"), why=(6, "text")
)

MAX_LISTING = MAX_CONTROL // 2  # bytes of a page of a listing; `start` requests the next one


class Body:
    """A decoded body.  `values` holds every field of its kind."""

    __slots__ = ("id", "kind", "values")

    def __init__(self, kind: int, id: int, values: dict[str, Any]) -> None:
        self.kind = kind
        self.id = id
        self.values = values

    def __getitem__(self, field: str) -> Any:
        return self.values[field]

    @property
    def is_request(self) -> bool:
        return self.kind < ANSWER


def encode_body(kind: int, id: int, **values: Any) -> bytes:
    """Encode a body; `values` are fields of its kind in `BODIES`."""
    return encode_varint(kind) + encode_varint(id) + BODIES[kind].encode(**values)


def decode_body(data: bytes) -> Body:
    """Decode a body.  WireError if it is malformed; a body of an unknown kind is decoded without fields."""
    kind, at = decode_varint(data, 0, len(data))
    id_, at = decode_varint(data, at, len(data)) if at > 0 else (0, -1)
    if at < 0:
        raise WireError("a truncated message")
    layout = BODIES.get(kind)
    return Body(kind, id_, layout.decode(data[at:]) if layout else {})


def is_answer(data: bytes) -> bool:
    """Whether the body in `data` is an answer that a client accepts from remote nodes."""
    try:
        return decode_body(data).kind in REMOTE_ANSWERS
    except WireError:
        return False


def is_request(data: bytes) -> bool:
    """Whether the body in `data` is a request; False if it is malformed."""
    try:
        return decode_body(data).is_request
    except WireError:
        return False

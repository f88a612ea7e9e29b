"""What messages say: the table of requests, answers and events.

A body is ``kind (varint) id (varint) fields``.  A request's kind is below 0x40 and its answer carries the same id, so
a client may have many on the way; answers and events have kinds from 0x40 up and are never answered, which is what
keeps two nodes from answering each other's errors for ever.

PING, LIST and NETWORK may come from anywhere.  The others are between a daemon and the clients on its own control
socket, and the descriptors that they speak of travel beside them.
"""

from __future__ import annotations

from ...errors import WireError
from .fields import Fields, decode_varint, encode_varint
from .frames import MAX_CONTROL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PING = 0x01  # answer with PONG and the same data
LIST = 0x02  # what are you connected to?
TUNNEL = 0x03  # open a tunnel to `target`, perhaps with the client's own stdin and stdout; the answer is OPENED, with
# the client's end of it unless those have become that
ATTACH = 0x04  # the descriptors beside this are a transport: make a link of it
SERVE = 0x05  # offer a service; tunnels to it come as INCOMING
STARTED = 0x06  # to INCOMING: it runs (with a descriptor if the server made one)
EXITED = 0x07  # to INCOMING: it ended, or could not be started
HALTED = 0x09  # to OPENED: the program at our end has ended, so; its end of output may now be passed on
STATUS = 0x0B  # your links and tunnels, with all that is known of them
LEAVE = 0x08  # end all that hangs on me; DONE when it has
NETWORK = 0x0A  # what have you heard of: all nodes `after` a name, the node `name`, or those that offer `service`?
WATCH = 0x0C  # tell me what comes and goes, as EVENTs
JOB = 0x0D  # the state of a link, service or forward that the client keeps; there is no answer

ANSWER = 0x40  # from here on: answers and events
PONG = 0x40
LISTING = 0x41
OPENED = 0x42
ENDED = 0x43  # a tunnel or a link is over
LINKED = 0x44  # the transport of ATTACH has become a link
DONE = 0x45  # an answer with nothing more to say
INCOMING = 0x46  # to a server: a tunnel for it, with the descriptors for its program
HANGUP = 0x47  # to a server: the tunnel failed; end its program
ERROR = 0x48  # the request failed
NETWORK_IS = 0x49
EVENT = 0x4B  # to WATCH: something has happened, one of `EVENTS`

# "path" is another way to a node that was known.
EVENTS = (
    "node-up", "node-down", "path", "service-up", "service-down", "link-up", "link-down", "link-cut", "link-resumed",
)  # fmt: skip
STATUS_IS = 0x4A
OUTPUT = 0x4C  # what the command of ATTACH has written before its link began

# What a server gets with INCOMING (`runs` of SERVE): nothing, it makes the descriptor itself; one descriptor; or stdin
# and stdout apart.
PROVIDES, SINGLE, APART = range(3)

FROM_AFAR = frozenset((PONG, LISTING, NETWORK_IS, ERROR))  # what a client may get from other nodes than its own

_OUTCOME = {"code": (1, "uint"), "status": (2, "uint"), "signal": (3, "uint"), "text": (4, "text")}

BODIES = {
    PING: Fields("PING", data=(1, "bytes")),
    LIST: Fields("LIST", clients=(1, "uint"), start=(2, "uint")),
    TUNNEL: Fields(
        "TUNNEL", target=(1, "path"), apart=(2, "uint"), runs=(3, "uint"), detached=(4, "uint"), mode=(5, "uint")
    ),
    # `resume_timeout`: seconds that the session waits for another transport after a cut; `lossy`: the transport may
    # lose bytes; `mtu`: of its packets, in bytes; `keepalive`: seconds of silence.  0: the default (no resume).
    # `silent`: tell and hear nothing of the network there; `still`: carry nothing for others; `advertise`, `accept`:
    # patterns, as in `policy`; `lent`: the client's own stdin and stdout, which are of use no longer than it runs, so
    # that it wants to hear of the end when the neighbour has; `runs`: a command, which may write messages first;
    # `incoming`: the neighbour has begun it.
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
    # `clients`: the programs on the control socket too; `limits`: these alone
    STATUS: Fields("STATUS", start=(1, "uint"), clients=(2, "uint"), limits=(3, "uint")),
    # `number` tells the jobs of a client apart; `job` and `state`: see `job_states`; `where`: where it listens; `next`:
    # milliseconds until the next attempt; `tries`: attempts that failed in a row.
    JOB: Fields(
        "JOB", number=(1, "uint"), job=(2, "uint"), state=(3, "uint"), name=(4, "text"), transport=(5, "text"),
        where=(6, "text"), reason=(7, "text"), next=(8, "uint"), tries=(9, "uint"),
    ),
    PONG: Fields("PONG", data=(1, "bytes")),
    LISTING: Fields("LISTING", entries=(1, "each"), next=(2, "uint"), address=(3, "text")),
    # `program`: 1: the two descriptors are the other ends of 1 and of 0 of a program on this node
    # `program`: the descriptors lead to the program of a service; `connection`: they are the connection of one
    OPENED: Fields("OPENED", program=(1, "uint"), connection=(2, "uint")),
    ENDED: Fields("ENDED", **_OUTCOME, cut=(5, "uint")),  # 1: a link that waits for another transport
    LINKED: Fields("LINKED", address=(1, "text")),
    OUTPUT: Fields("OUTPUT", data=(1, "bytes")),
    DONE: Fields("DONE"),
    INCOMING: Fields("INCOMING", service=(1, "text"), origin=(2, "path"), node=(3, "text")),
    HANGUP: Fields("HANGUP", text=(1, "text")),
    ERROR: Fields("ERROR", code=(1, "uint"), text=(2, "text"), again=(3, "uint")),
    NETWORK_IS: Fields("NETWORK_IS", entries=(1, "each"), after=(2, "text"), address=(3, "text")),
    # `missed`: events before this one that the client was too slow for
    EVENT: Fields(
        "EVENT", what=(1, "text"), name=(2, "text"), path=(3, "path"), cost=(4, "uint"), missed=(5, "uint")
    ),
    STATUS_IS: Fields(
        "STATUS_IS", links=(1, "each"), tunnels=(2, "each"), next=(3, "uint"), address=(4, "text"), jobs=(5, "each"),
        clients=(6, "each"), limits=(7, "each"),
    ),
}

# One line of a LISTING: kind is "node", "service" or "client".
ENTRY = Fields("entry", kind=(1, "text"), name=(2, "text"), detail=(3, "text"))

# One node of a NETWORK_IS: the best path to it, its cost in microseconds, for how many milliseconds it has been that,
# and how many neighbours know a way.
KNOWN = Fields("known", path=(1, "path"), cost=(2, "uint"), age=(3, "uint"), ways=(4, "uint"), services=(5, "each"))
# A line of STATUS_IS about a link.  Sizes are bytes, `rtt` is in microseconds, `age` in milliseconds; `rate` is the
# measured capacity of the path, in bytes a second; `peer` is the remote address of a socket.
LINK = Fields(
    "link", address=(1, "text"), state=(2, "uint"), reason=(3, "text"), transport=(4, "text"), rate=(5, "uint"),
    received=(6, "uint"), sent=(7, "uint"), rtt=(8, "uint"), packets=(9, "uint"), resent=(10, "uint"),
    resumes=(11, "uint"), queue=(12, "uint"), unacked=(13, "uint"), tunnels=(14, "uint"), age=(15, "uint"),
    peer=(16, "text"),
)
LINK_UP, LINK_SUSPENDED, LINK_PENDING = range(3)  # its states

# And one about a tunnel.  `there` counts the bytes from `who` to `where`, `back` the others; `idle` and `age` are in
# milliseconds; `link` and `label` are the neighbour and the route's number there, or the client and its request.
ROUTE = Fields(
    "tunnel", who=(1, "text"), where=(2, "text"), way=(3, "uint"), there=(4, "uint"), back=(5, "uint"),
    idle=(6, "uint"), age=(7, "uint"), stalled=(8, "uint"), link=(9, "text"), label=(10, "uint"),
)
WAY_OUT, WAY_IN, WAY_ACROSS, WAY_LOCAL = range(4)  # from here, to here, through here; within
FREE, READER, CREDIT, TURN, CUT, SERVICE = range(6)  # what it is stalled on

# And one about a job: the fields of JOB, since when (`age`, in milliseconds), and the client that keeps it.
JOB_LINE = Fields(
    "job", job=(2, "uint"), state=(3, "uint"), name=(4, "text"), transport=(5, "text"), where=(6, "text"),
    reason=(7, "text"), next=(8, "uint"), tries=(9, "uint"), age=(10, "uint"), client=(11, "text"), pid=(12, "uint"),
)
# And one about a client: its process, 0 while unknown, and the command line of that.
CLIENT_LINE = Fields("client", client=(1, "text"), pid=(2, "uint"), command=(3, "text"), software=(4, "text"))
# And one about a limit on what others may cost: `used` now, and at most so far (`peak`), of `limit`.
LIMIT = Fields(
    "limit", name=(1, "text"), limit=(2, "uint"), used=(3, "uint"), peak=(4, "uint"), unit=(5, "text"), why=(6, "text")
)

MAX_LISTING = MAX_CONTROL // 2  # a page of a listing; the next one is asked for with `start`


class Body:
    """One decoded body.  `values` has every field of its kind."""

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
    """The bytes of a body; `values` are fields of its kind in `BODIES`."""
    return encode_varint(kind) + encode_varint(id) + BODIES[kind].encode(**values)


def decode_body(data: bytes) -> Body:
    """The body in `data`.  WireError if it is none; a request of an unknown kind is kept, with no fields."""
    kind, at = decode_varint(data, 0, len(data))
    id_, at = decode_varint(data, at, len(data)) if at > 0 else (0, -1)
    if at < 0:
        raise WireError("a message that is cut off")
    layout = BODIES.get(kind)
    return Body(kind, id_, layout.decode(data[at:]) if layout else {})


def is_answer(data: bytes) -> bool:
    """Whether the body in `data` is an answer that may come from another node."""
    try:
        return decode_body(data).kind in FROM_AFAR
    except WireError:
        return False


def is_request(data: bytes) -> bool:
    """Whether the body in `data` asks for an answer; False too if it says nothing that can be understood."""
    try:
        return decode_body(data).is_request
    except WireError:
        return False

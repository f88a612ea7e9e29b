"""The other side of `report`: a daemon's links, tunnels, jobs and clients as rows; `columns` makes tables of them.

A row is what `--json` shows; `LINK_JSON`, `TUNNEL_JSON` and `JOB_JSON` say what is in it.
"""

from __future__ import annotations

from ...errors import RefusedError
from ...proto.wire import messages
from ...proto.wire.address import format_path
from ...proto.wire.job_states import JobKind, JobState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .client import Client

    Row = dict[str, Any]

STATES = ("up", "suspended", "handshake")  # by number, as `body` has them
JOBS = tuple(kind.name.lower() for kind in JobKind)
JOB_STATES = tuple(state.name.lower() for state in JobState)
WAYS = ("out", "in", "across", "local")
STALLS = ("nothing", "its reader", "credit", "link", "transport", "service")

# (field, type, meaning), as `Command` wants them
LINK_JSON = [
    ("kind", "text", '"link"; "tunnel", "job" and "limit" are below'),
    ("address", "text", "the neighbour; empty while unknown"),
    ("state", "text", 'one of "up", "suspended" (it was cut and waits for another transport) and "handshake"'),
    ("reason", "text", "why it is suspended; empty if it is not"),
    ("transport", "text", 'TRANSPORT as given to connect; "-" is stdio'),
    ("capacity", "integer", "measured delivery rate in bytes per second; 0 while unknown"),
    ("received", "integer", "bytes received since the link came up, over all transports"),
    ("sent", "integer", "bytes sent, likewise"),
    ("rtt", "number or null", "the round trip in seconds; null while unknown"),
    ("loss", "number or null", "fraction of packets retransmitted; null without packets"),
    ("packets", "integer", "packets sent over the current transport; 0 without packets"),
    ("resent", "integer", "retransmitted packets"),
    ("resumes", "integer", "how often the link was resumed after a cut"),
    ("queue", "integer", "bytes queued in the daemon: control frames, partial writes and, after a cut, "
                         "retransmissions.  Data of tunnels is not queued here"),
    ("unacked", "integer", "bytes sent and not yet acknowledged"),
    ("tunnels", "integer", "number of tunnels"),
    ("age", "number", "seconds since the link came up, or since the handshake began"),
    ("peer", "text", "the remote address of its socket, or empty"),
]  # fmt: skip
TUNNEL_JSON = [
    ("kind", "text", '"tunnel"'),
    ("from", "text", "the opener: child/ID for a local program, else the path back to it"),
    ("to", "text", "the target, as a path from this node"),
    ("way", "text", '"out" (begins here), "in" (ends here), "across" (relayed) or "local"'),
    ("sent", "integer", "bytes from opener to target; 0 for local tunnels, which bypass the daemon"),
    ("received", "integer", "bytes from target to opener"),
    ("idle", "number or null", "seconds since the last data; null for local tunnels"),
    ("age", "number", "seconds since it was opened"),
    ("stalled", "text", '"nothing", "its reader" (the program at this end does not read), "credit" (the far '
                        'end does not read), "link" (data waits for its turn or for room on the link), '
                        '"transport" (the link is suspended), or "service" (the service has not accepted it '
                        "yet)"),
    ("link", "text", "the neighbour it goes to or, if opened elsewhere, comes from; for local tunnels, the opener"),
    ("label", "integer", "its label on that link"),
]  # fmt: skip

JOB_JSON = [
    ("kind", "text", '"job": a configured link, service or forward'),
    ("job", "text", f"one of {', '.join(JOBS)}"),
    ("name", "text", "the neighbour of a link, if known; the service; the target of a forward"),
    ("state", "text", f"one of {', '.join(JOB_STATES)}; running: a command that makes links by itself"),
    ("transport", "text", "TRANSPORT as given"),
    ("where", "text", "listening addresses, or empty"),
    ("reason", "text", "why the last attempt failed; empty after a success"),
    ("next", "number or null", "seconds until the next attempt, or null"),
    ("tries", "integer", "failed attempts since the last success"),
    ("age", "number", "seconds in this state; connecting and retrying count as one"),
    ("client", "text", "the client that runs it: child/ID, as in r2 ls -a"),
    ("pid", "integer", "its process ID; 0 if unknown"),
]

LIMIT_JSON = [
    ("kind", "text", '"limit", with --limits'),
    ("name", "text", "its key in [limits] of r2.toml(5)"),
    ("limit", "integer", "the limit"),
    ("used", "integer", "current use; for limits per link, service or neighbour, the highest of them"),
    ("peak", "integer", "the high-water mark since the node started"),
    ("unit", "text", 'the unit, such as "links" or "bytes"; "a second": a rate'),
    ("why", "text", "its purpose, and what happens when it is reached"),
]

MAX_ROWS = 200_000  # that are taken from one daemon
ANSWER_TIMEOUT = 10.0  # seconds for an answer


def fetch(
    client: Client,
    path: tuple[str, ...],
    done: Callable[[str, list[Row]], None],
    clients: bool = False,
    limits: bool = False,
) -> None:
    """Request all rows, page by page; then done(the node's address, rows).  With `clients`, rows of clients too; with
    `limits`, those of limits only.

    RefusedError if there is no response in time, or an unexpected one.
    """
    rows: list[Row] = []

    def ask_for(start: int) -> None:
        def page(body: messages.Body, _: tuple[int, ...]) -> None:
            timer.cancel()
            client.forget(id_)
            if body.kind != messages.STATUS_IS:
                raise RefusedError(body["text"] if body.kind == messages.ERROR else "unexpected response")
            rows.extend(_link(messages.LINK.decode(line)) for line in body["links"])
            rows.extend(_tunnel(messages.ROUTE.decode(line)) for line in body["tunnels"])
            rows.extend(_job(messages.JOB_LINE.decode(line)) for line in body["jobs"])
            rows.extend({"kind": "client", **messages.CLIENT_LINE.decode(line)} for line in body["clients"])
            rows.extend({"kind": "limit", **messages.LIMIT.decode(line)} for line in body["limits"])
            if start < body["next"] and len(rows) < MAX_ROWS:
                ask_for(body["next"])
            else:
                done(body["address"], rows)

        def missed() -> None:
            raise RefusedError(f"{format_path(path) or 'the daemon'}: no answer within {ANSWER_TIMEOUT:.0f} s")

        id_ = client.request(messages.STATUS, page, path, start=start, clients=int(clients), limits=int(limits))
        timer = client.loop.later(ANSWER_TIMEOUT, missed)

    ask_for(0)


def _link(line: Row) -> Row:
    packets = line["packets"]
    return {
        "kind": "link",
        **{field: value for field, value in line.items() if field != "rate"},
        "capacity": line["rate"],
        "state": _word(STATES, line["state"]),
        "reason": plain(line["reason"]),
        "transport": plain(line["transport"]),
        "rtt": line["rtt"] / 1e6 if line["rtt"] else None,
        "loss": line["resent"] / packets if packets else None,
        "age": line["age"] / 1000,
    }


def _tunnel(line: Row) -> Row:
    way = _word(WAYS, line["way"])
    return {
        "kind": "tunnel",
        "from": plain(line["who"]),
        "to": plain(line["where"]),
        "way": way,
        "sent": line["there"],
        "received": line["back"],
        "idle": line["idle"] / 1000 if way != "local" else None,
        "age": line["age"] / 1000,
        "stalled": _word(STALLS, line["stalled"]),
        "link": plain(line["link"]),
        "label": line["label"],
    }


def _job(line: Row) -> Row:
    state = _word(JOB_STATES, line["state"])
    return {
        "kind": "job",
        **line,
        "job": _word(JOBS, line["job"]),
        "state": state,
        "next": line["next"] / 1000 if line["next"] else None,
        "age": line["age"] / 1000,
    }


def _word(words: tuple[str, ...], number: int) -> str:
    """That a later daemon may have more of."""
    return words[number] if number < len(words) else f"unknown ({number})"


def plain(text: str) -> str:
    """What others have written, without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)

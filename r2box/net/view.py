"""The other side of `report`: a daemon's links and tunnels as rows, and rows as columns for people.

A row is what `--json` shows, and `LINK_JSON` and `TUNNEL_JSON` say what is in it.
"""

from __future__ import annotations

from ..errors import RefusedError
from ..proto import body as say
from ..proto.address import format_path
from .units import format_size, format_span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from .client import Client

    Row = dict[str, Any]

STATES = ("up", "waits", "greeting")  # by number, as `body` has them
WAYS = ("out", "in", "across", "local")
STALLS = ("nothing", "its reader", "credit", "link", "transport", "service")

# (field, type, meaning), as `Command` wants them
LINK_JSON = [
    ("kind", "text", '"link", or "tunnel" as below'),
    ("address", "text", "the neighbour; empty as long as it is unknown"),
    ("state", "text", 'one of "up", "waits" (it was cut and waits for another transport) and "greeting"'),
    ("reason", "text", "what it waits for or why it was cut; empty if it is up"),
    ("transport", "text", 'TRANSPORT as it was given to connect; "-" is stdio'),
    ("rate", "integer", "bytes a second at which what is sent arrives there, as measured; 0 while unknown"),
    ("received", "integer", "bytes from the neighbour, since the link came up, over all its transports"),
    ("sent", "integer", "bytes to the neighbour"),
    ("rtt", "number or null", "the round trip in seconds; null while unknown"),
    ("loss", "number or null", "the share of packets that were sent again; null where there are no packets"),
    ("packets", "integer", "packets sent over the present transport; 0 where there are none"),
    ("resent", "integer", "how many of them repeat an earlier one"),
    ("resumes", "integer", "how often the link went on over another transport after a cut"),
    ("queue", "integer", "bytes that wait here: control frames, what a write has left, and after a cut what is to be "
     "sent again.  What tunnels want to send waits with its writer"),
    ("unacked", "integer", "bytes that were sent, and not acknowledged yet"),
    ("tunnels", "integer", "tunnels on it"),
    ("age", "number", "seconds since it came up, or has begun to greet"),
]  # fmt: skip
TUNNEL_JSON = [
    ("kind", "text", '"tunnel"'),
    ("from", "text", "who opened it: child/ID for a program of this node, else the way back to it"),
    ("to", "text", "the target: the way from here to it"),
    ("way", "text", '"out" (it begins here), "in" (it ends here), "across" or "local"'),
    ("sent", "integer", "bytes from the first to the second; 0 if it is local, as they do not pass the daemon"),
    ("received", "integer", "bytes back"),
    ("idle", "number or null", "seconds since bytes have passed; null if it is local"),
    ("age", "number", "seconds since it was opened"),
    ("stalled", "text", '"nothing", "its reader" (the program at this end does not read), "credit" (the far end does '
     'not read), "link" (bytes wait for their turn, or for room on the link), "transport" (the link is cut), or '
     '"service" (nobody has taken it yet)'),
    ("link", "text", "the neighbour that it goes to or, if it is not ours, comes from; for a local one, who opened it"),
    ("label", "integer", "its number there"),
]  # fmt: skip

MAX_ROWS = 200_000  # that are taken from one daemon
PATIENCE = 10.0  # seconds for an answer


def fetch(client: Client, path: tuple[str, ...], done: Callable[[str, list[Row]], None]) -> None:
    """All rows, page by page: done(the node's address, rows).  RefusedError if there is no answer, or it is none."""
    rows: list[Row] = []

    def ask_for(start: int) -> None:
        def page(body: say.Body, _: tuple[int, ...]) -> None:
            timer.cancel()
            client.forget(id_)
            if body.kind != say.STATUS_IS:
                raise RefusedError(body["text"] if body.kind == say.ERROR else "an answer that is no report")
            rows.extend(_link(say.LINK.decode(line)) for line in body["links"])
            rows.extend(_tunnel(say.ROUTE.decode(line)) for line in body["tunnels"])
            if start < body["next"] and len(rows) < MAX_ROWS:
                ask_for(body["next"])
            else:
                done(body["address"], rows)

        def missed() -> None:
            raise RefusedError(f"{format_path(path) or 'the daemon'}: no answer within {PATIENCE:.0f} s")

        id_ = client.request(say.STATUS, page, path, start=start)
        timer = client.loop.later(PATIENCE, missed)

    ask_for(0)


def _link(line: Row) -> Row:
    packets = line["packets"]
    return {
        "kind": "link",
        **line,
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


def _word(words: tuple[str, ...], number: int) -> str:
    """That a later daemon may have more of."""
    return words[number] if number < len(words) else f"unknown ({number})"


def plain(text: str) -> str:
    """What others have written, without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _text(value: Any) -> str:
    return str(value) or "-"


def _size(value: float) -> str:
    return format_size(value) if value else "0"


def _span(value: float | None) -> str:
    return "-" if value is None else format_span(value)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


# kind: field: (title, how it is shown)
COLUMNS: dict[str, dict[str, tuple[str, Callable[[Any], str]]]] = {
    "link": {
        "address": ("LINK", _text),
        "state": ("STATE", _text),
        "sent_rate": ("OUT/s", _size),  # these two are only known to who looks twice
        "received_rate": ("IN/s", _size),
        "rate": ("RATE/s", _size),
        "sent": ("OUT", _size),
        "received": ("IN", _size),
        "rtt": ("RTT", _span),
        "loss": ("LOSS", _share),
        "packets": ("PACKETS", str),
        "resent": ("RESENT", str),
        "resumes": ("CUTS", str),
        "queue": ("QUEUE", _size),
        "unacked": ("UNACKED", _size),
        "tunnels": ("TUN", str),
        "age": ("AGE", _span),
        "transport": ("TRANSPORT", _text),
        "reason": ("WHY", _text),
    },
    "tunnel": {
        "from": ("FROM", _text),
        "to": ("TO", _text),
        "way": ("WAY", _text),
        "sent_rate": ("SENT/s", _size),
        "received_rate": ("BACK/s", _size),
        "sent": ("SENT", _size),
        "received": ("BACK", _size),
        "idle": ("IDLE", _span),
        "age": ("AGE", _span),
        "link": ("LINK", _text),
        "label": ("LABEL", str),
        "stalled": ("STALLED ON", _text),
    },
}


def table(kind: str, fields: Iterable[str], rows: list[Row]) -> list[str]:
    """The lines of a table, its head first; columns are as wide as what is in them."""
    columns = []
    for field in fields:
        title, show = COLUMNS[kind][field]
        cells = [title, *(show(row[field]) for row in rows)]
        width = max(map(len, cells))
        columns.append([cell.ljust(width) if show is _text else cell.rjust(width) for cell in cells])
    return ["  ".join(cells).rstrip() for cells in zip(*columns)]

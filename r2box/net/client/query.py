"""Queries of nodes that are answered page by page, and what tools share of the answers."""

from __future__ import annotations

from ...errors import AddressError, RefusedError, WireError
from ...proto.wire import messages
from ...proto.wire.address import ANY, CHILD, SERVICE, check_address, format_path, parse_path
from .client import SILENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from .client import Client

    Path = tuple[str, ...]
    Entries = list[dict[str, Any]]

# Of what tools print as JSON.
PATH_FIELD = ("path", "text", "its path, joined by /")
COST_FIELD = ("cost", "number", "the cost of the route: its round trip in seconds, plus 0.001 for each link")
AGE_FIELD = ("age", "number", "age of the route in seconds")

ANSWER_TIMEOUT = 10.0  # seconds for an answer
MAX_ENTRIES = 100_000  # of one node that are listed

# question: (its answer, an entry of that, the field with the place behind it, the field to ask for that place)
_PAGES: dict[int, tuple[int, Any, str, str]] = {
    messages.LIST: (messages.LISTING, messages.ENTRY, "next", "start"),
    messages.NETWORK: (messages.NETWORK_IS, messages.NETWORK_ENTRY, "after", "after"),
}


def ask_all(
    client: Client,
    kind: int,
    path: Path,
    done: Callable[[str, Entries], None],
    failed: Callable[[RefusedError], None],
    **fields: Any,
) -> None:
    """Fetch all entries of the node at `path` for the query `kind`: done(its address, entries), or failed(why).

    It has `ANSWER_TIMEOUT` for each page.  Entries are checked, since any node may answer anything: see `_checked`.
    """
    answer, layout, place, ask_by = _PAGES[kind]
    entries: Entries = []
    count = 0  # with those that are left out

    def ask_for(start: object) -> None:
        def page(body: messages.Body, _: tuple[int, ...]) -> None:
            nonlocal count
            timer.cancel()
            client.forget(id_)
            if body.kind != answer or not _is_address(body["address"]):
                failed(RefusedError(body["text"] if body.kind == messages.ERROR else "an answer to something else"))
                return
            entries.extend(_checked(layout, body["entries"], body["address"]))
            count += len(body["entries"])
            if body[place] and body[place] != start and body["entries"] and count < MAX_ENTRIES:
                ask_for(body[place])
            else:
                done(body["address"], entries)

        def missed() -> None:
            client.forget(id_)
            if client.link.received == received:
                failed(RefusedError(SILENT))
            else:
                failed(RefusedError(f"{format_path(path) or 'the daemon'}: no answer within {ANSWER_TIMEOUT:.0f} s"))

        received = client.link.received
        more = {ask_by: start} if start else {}
        id_ = client.request(kind, page, path, **{**fields, **more})
        timer = client.loop.later(ANSWER_TIMEOUT, missed)

    ask_for(None)


def give_up(error: RefusedError) -> None:
    """For who can do nothing without the answer."""
    raise error


def spell_out(
    client: Client, path: Path, done: Callable[[Path], None], failed: Callable[[RefusedError], None]
) -> None:
    """done(`path` with all steps to its head, as the local node knows them), for who wants to see every node on it.

    `any/NAME` becomes the nearest service of that name.
    """
    if not path or path[0].startswith(SERVICE):
        done(path)
        return
    is_any = path[0].startswith(ANY)
    name = path[0].partition("/")[2] if is_any else path[0]

    def found(_: str, entries: Entries) -> None:
        if not entries:
            done(path)  # the node itself knows best what is wrong with it, if anything is
        elif is_any:
            done((*entries[0]["path"], SERVICE + name))
        else:
            done((*entries[0]["path"], *path[1:]))

    def unknown(error: RefusedError) -> None:
        done(path) if "does not" in str(error) else failed(error)

    ask_all(client, messages.NETWORK, (), found, unknown, **({"service": name} if is_any else {"name": name}))


def seconds_of(entry: dict[str, Any]) -> tuple[float, float]:
    """The cost and the age of an entry of NETWORK."""
    return entry["cost"] / 1e6, entry["age"] / 1000


def names_of(entry: dict[str, Any]) -> list[str]:
    """The services of an entry of NETWORK; what is no name is left out."""
    return [name for name in (name.decode("ascii", "replace") for name in entry["services"]) if is_name(name)]


def is_name(text: str) -> bool:
    """Whether `text` is one step of a path: a terminal, graphviz and a shell take it for nothing else."""
    try:
        return len(parse_path(text)) == 1
    except AddressError:
        return False


_PREFIXES = {"node": "", "service": SERVICE, "client": CHILD}  # kind of an entry: how its name begins


def _checked(layout: Any, items: Iterable[bytes], address: str) -> Iterator[dict[str, Any]]:
    """The entries in `items`, which the node `address` has sent, that a node may answer; the others are left out.

    A name is one of its kind, and a path leads through other nodes, each of them once.
    """
    for item in items:
        try:
            entry: dict[str, Any] = layout.decode(item)
        except WireError:
            continue
        names = entry["path"] if "path" in entry else (entry["name"],)
        prefix = _PREFIXES.get(entry.get("kind", "node"))
        if (
            prefix is not None
            and names
            and all(name.startswith(prefix) and _is_address(name[len(prefix) :]) for name in names)
            and len({address, *names}) == 1 + len(names)
        ):
            yield entry


def _is_address(text: str) -> bool:
    try:
        return bool(check_address(text))
    except AddressError:
        return False

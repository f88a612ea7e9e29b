"""Tables on the terminal: aligned columns that fit its width.

A table that is too wide gets one blank instead of two between its columns, then its longest texts are truncated with an
ellipsis.  Numbers are never truncated.
"""

from __future__ import annotations

import os

from ..net.io.units import format_size, format_span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Row = dict[str, Any]

WIDTH = 80  # columns, unless the terminal has a size
LEAST = 6  # characters: texts are not truncated further
ELLIPSIS = "…"

# Alignment and truncation: NUMBER is right-aligned; TEXT is truncated at its end; NAME, a name, path or address, in its
# middle.
NUMBER, TEXT, NAME = range(3)


class Column:
    """One column: its title, its cell for a row, and its style."""

    __slots__ = ("show", "style", "title")

    def __init__(self, title: str, show: Callable[[Row], str], style: int) -> None:
        self.title, self.show, self.style = title, show, style


def _text(title: str, field: str, style: int = TEXT) -> Column:
    return Column(title, lambda row: str(row[field]) or "-", style)


def _name(title: str, field: str) -> Column:
    return _text(title, field, NAME)


def _count(title: str, field: str) -> Column:
    return Column(title, lambda row: str(row[field]), NUMBER)


def _size(title: str, field: str) -> Column:
    return Column(title, lambda row: format_size(row[field]) if row[field] else "0", NUMBER)


def _span(title: str, field: str) -> Column:
    return Column(title, lambda row: "-" if row[field] is None else format_span(row[field]), NUMBER)


def _share(title: str, field: str) -> Column:
    return Column(title, lambda row: "-" if row[field] is None else f"{100 * row[field]:.1f}%", NUMBER)


def endpoint(row: Row) -> str:
    """The remote address of a link's socket, or else its transport; or why it is suspended."""
    return str(row["reason"] or row["peer"] or row["transport"] or "-")


def next_attempt(row: Row) -> str:
    """Seconds until the next attempt, rounded up."""
    return "-" if row["next"] is None else f"{int(row['next'] + 0.999)} s"


def detail(row: Row) -> str:
    """Where a job listens, or why it failed."""
    return f"at {row['where']}" if row["where"] else row["reason"] or "-"


def _amount(title: str, field: str) -> Column:
    """Bytes with their unit, or a count."""
    return Column(title, lambda row: format_size(row[field]) if row["unit"] == "bytes" else str(row[field]), NUMBER)


COLUMNS: dict[str, dict[str, Column]] = {
    "link": {
        "address": _name("LINK", "address"),
        "state": _text("STATE", "state"),
        "sent_rate": _size("OUT/s", "sent_rate"),  # requires two reports, as the next
        "received_rate": _size("IN/s", "received_rate"),
        "capacity": _size("CAPACITY", "capacity"),
        "sent": _size("OUT", "sent"),
        "received": _size("IN", "received"),
        "rtt": _span("RTT", "rtt"),
        "loss": _share("LOSS", "loss"),
        "packets": _count("PACKETS", "packets"),
        "resent": _count("RESENT", "resent"),
        "resumes": _count("CUTS", "resumes"),
        "queue": _size("QUEUE", "queue"),
        "unacked": _size("UNACKED", "unacked"),
        "tunnels": _count("TUN", "tunnels"),
        "age": _span("AGE", "age"),
        "endpoint": Column("PEER", endpoint, NAME),
        "peer": _name("PEER", "peer"),
        "transport": _name("TRANSPORT", "transport"),
        "reason": _text("WHY", "reason"),
    },
    "tunnel": {
        "from": _name("FROM", "from"),
        "to": _name("TO", "to"),
        "way": _text("WAY", "way"),
        "sent_rate": _size("SENT/s", "sent_rate"),
        "received_rate": _size("BACK/s", "received_rate"),
        "sent": _size("SENT", "sent"),
        "received": _size("BACK", "received"),
        "idle": _span("IDLE", "idle"),
        "age": _span("AGE", "age"),
        "link": _name("LINK", "link"),
        "label": _count("LABEL", "label"),
        "stalled": _text("STALLED ON", "stalled"),
    },
    "job": {
        "job": _text("JOB", "job"),
        "name": _name("NAME", "name"),
        "state": _text("STATE", "state"),
        "next": Column("NEXT", next_attempt, NUMBER),
        "transport": _name("TRANSPORT", "transport"),
        "detail": Column("DETAIL", detail, TEXT),
        "tries": _count("TRIES", "tries"),
        "age": _span("AGE", "age"),
        "client": _text("CLIENT", "client"),
        "pid": Column("PID", lambda row: str(row["pid"] or "-"), NUMBER),
    },
    "limit": {
        "name": _name("NAME", "name"),
        "limit": _amount("LIMIT", "limit"),
        "used": _amount("USED", "used"),
        "peak": _amount("PEAK", "peak"),
        "unit": _text("UNIT", "unit"),
    },
}


def display_width() -> int:
    """The width of a line: $COLUMNS, else that of the terminal, else `WIDTH`."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(1).columns or WIDTH
    except OSError:
        return WIDTH


def table(kind: str, fields: Iterable[str], rows: list[Row], width: int | None) -> list[str]:
    """Render a table, header first, as lines of at most `width` characters (None: without limit)."""
    columns = [COLUMNS[kind][field] for field in fields]
    cells = [[column.title, *map(column.show, rows)] for column in columns]
    return lines(cells, [column.style for column in columns], width, [len(column.title) for column in columns])


def lines(
    cells: Sequence[Sequence[str]], styles: Sequence[int], width: int | None, least: Sequence[int] = ()
) -> list[str]:
    """Render `cells`, one list per column, as lines of at most `width` characters.  `least`: minimum widths."""
    widths = [max(map(len, column), default=0) for column in cells]
    floors = [min(size, max(LEAST, low)) for size, low in zip(widths, least or [0] * len(cells))]
    gap = "  "
    if width is not None and sum(widths) + len(gap) * (len(cells) - 1) > width:
        gap = " "
        widths = _fit(widths, floors, styles, width - (len(cells) - 1))
    shown = [
        [_align(cell, size, style) for cell in column] for column, size, style in zip(cells, widths, styles)
    ]
    found = [gap.join(line).rstrip() for line in zip(*shown)]
    return found if width is None else [shorten(line, width) for line in found]


def _fit(widths: list[int], floors: list[int], styles: Sequence[int], room: int) -> list[int]:
    """`widths` with the texts truncated to the largest common length that fits."""

    def capped(cap: int) -> list[int]:
        rows = zip(widths, floors, styles)
        return [size if style == NUMBER else min(size, max(cap, low)) for size, low, style in rows]

    low, high = 0, max(widths, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if sum(capped(middle)) <= room else (low, middle - 1)
    return capped(low)


def _align(cell: str, size: int, style: int) -> str:
    if style == NUMBER:
        return cell.rjust(size)
    return shorten(cell, size, style == NAME).ljust(size)


def shorten(text: str, size: int, both_ends: bool = False) -> str:
    """Truncate `text` to `size` characters, with an ellipsis at its end or in its middle."""
    if len(text) <= size:
        return text
    tail = (size - 1) // 2 if both_ends else 0
    return text[: max(0, size - 1 - tail)] + ELLIPSIS[:size] + text[len(text) - tail :]

"""Line numbers of the tables and keys of a TOML text, which tomllib does not provide."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    # (table, number of its header from 0, key or None for the header itself) -> line; keys outside tables: see TOP
    Lines = dict[tuple[str, int, "str | None"], int]

# In place of the number of a header: TOP before the first one, UNREAD after one that is not plain, such as [a.b].
TOP, UNREAD = -1, -2

# A string, a comment, or the text between them.
_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|"(?:\\.|[^"\\])*"|'''
    r"""'{3}.*?'{3,5}|'[^']*'|#[^\n]*|[^"'#\[\]{}\n]+|.""",
    re.DOTALL,
)
_HEAD = re.compile(r"""[ \t]*(\[{0,2})(?:[ \t]*(?:"([^"\\\n]*)"|'([^'\n]*)'|([A-Za-z0-9_-]+))[ \t]*(?=[]=]))?""")


def find_lines(text: str) -> Lines:
    """Find the line, from 1, of each plain `[table]`, `[[table]]` and `key =` of a valid TOML text.

    Others (inline tables, dotted keys, escapes in names) are omitted, since no line is better than a wrong one.
    """
    lines: Lines = {}
    numbers: dict[str, int] = {}
    table, number, depth, start, line, next_line = "", TOP, 0, 0, 1, 1
    for token in _TOKEN.finditer(text + "\n"):
        depth += (token[0] in "[{") - (token[0] in "]}")
        next_line += token[0].count("\n")
        if token[0] != "\n" or depth:
            continue
        head = _HEAD.match(text, start)  # matches any text; its last group is the key, if it is plain
        assert head is not None
        assert head.lastindex is not None
        key = head[head.lastindex] if head.lastindex > 1 else None
        if key is not None and head[1]:
            table, number = key, numbers.get(key, -1) + 1
            numbers[table] = number
            lines[table, number, None] = line
        elif key is not None:
            lines[table, number, key] = line
        elif head[1]:
            number = UNREAD
            if "\\" in text[start : token.start()]:  # it may be any table: later ones cannot be numbered
                return {}
        start, line = token.end(), next_line
    return lines

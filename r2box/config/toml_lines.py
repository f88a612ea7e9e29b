"""Where the tables and keys of a TOML text are: tomllib tells the line of a syntax error but not that of a key."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    # (table, number of its header from 0, key or None for the header itself) -> line; see TOP for what has no table
    Lines = dict[tuple[str, int, "str | None"], int]

# In place of a header's number: above the first header, and under one that `find_lines` cannot read, as [a.b].
TOP, UNREAD = -1, -2

# A string, a comment, or what lies between them.
_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?"{3,5}|"(?:\\.|[^"\\])*"|'''
    r"""'{3}.*?'{3,5}|'[^']*'|#[^\n]*|[^"'#\[\]{}\n]+|.""",
    re.DOTALL,
)
_HEAD = re.compile(r"""[ \t]*(\[{0,2})(?:[ \t]*(?:"([^"\\\n]*)"|'([^'\n]*)'|([A-Za-z0-9_-]+))[ \t]*(?=[]=]))?""")


def find_lines(text: str) -> Lines:
    """Find the line, from 1, of each plain `[table]`, `[[table]]` and `key =` of a valid TOML text.

    What is not plain (inline tables, dotted keys, escapes in names) is left out, as no line is better than a wrong one.
    """
    lines: Lines = {}
    numbers: dict[str, int] = {}
    table, number, depth, start, line, next_line = "", TOP, 0, 0, 1, 1
    for token in _TOKEN.finditer(text + "\n"):
        depth += (token[0] in "[{") - (token[0] in "]}")
        next_line += token[0].count("\n")
        if token[0] != "\n" or depth:
            continue
        head = _HEAD.match(text, start)  # it matches anything; its last group is the key, if it can be read
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
            if "\\" in text[start : token.start()]:  # it may be any table: none that follows can be numbered
                return {}
        start, line = token.end(), next_line
    return lines

"""Placeholders of a command line: %NAME is replaced by a value.

A placeholder is a % and three or more letters; %%NAME is a literal %NAME.  Other uses of % are not changed, since they
belong to the shell, printf or date: `${file%.txt}`, `%s`, `%Y-%m-%d`.
"""

from __future__ import annotations

from ..errors import suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

ADDRESS = "addr"  # of the commands of tasks: the name of the event
LEAST = 3  # letters of a name: conversions of printf and date are shorter
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VARIABLE = _LETTERS + "0123456789_"


def fill(line: str, values: Mapping[str, str]) -> str:
    """Replace the placeholders of `line` by `values`.  ValueError for an unknown name."""
    out, at = [], 0
    while True:
        start = line.find("%", at)
        if start < 0:
            out.append(line[at:])
            return "".join(out)
        out.append(line[at:start])
        begin = start + (2 if line.startswith("%%", start) else 1)
        end = begin + len(line[begin:]) - len(line[begin:].lstrip(_LETTERS))
        if end - begin < LEAST or line[:start].rstrip(_VARIABLE).endswith("${"):
            out.append(line[start:begin])
            at = begin
            continue
        name, at = line[begin:end], end
        out.append(f"%{name}" if begin - start == 2 else _value(name, values))


def _value(name: str, values: Mapping[str, str]) -> str:
    if name in values:
        return values[name]
    known = ", ".join(f"%{known}" for known in values)
    meant = suggestion(name, values)
    raise ValueError(f"unknown placeholder %{name}{meant}; known is {known}, and %%{name} is a literal %{name}")

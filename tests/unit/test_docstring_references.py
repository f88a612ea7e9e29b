"""Names that docstrings and comments have in backticks exist: modules, classes, functions and fields of r2box."""

from __future__ import annotations

import builtins
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "r2box"
MODULES = sorted(ROOT.rglob("*.py"))
REFERENCE = re.compile(r"`([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(\))?`")


def tokens(file: Path) -> list[tokenize.TokenInfo]:
    return list(tokenize.generate_tokens(io.StringIO(file.read_text()).readline))


def names_in(file: Path) -> set[str]:
    """All identifiers of a module, and the words of its short strings: fields and keys."""
    names: set[str] = set()
    for token in tokens(file):
        if token.type == tokenize.NAME:
            names.add(token.string)
        elif token.type == tokenize.STRING and not token.string.startswith('"""') and len(token.string) < 400:
            names.update(re.findall(r"[A-Za-z_]\w*", token.string))
    return names


NAMES = {file: names_in(file) for file in MODULES}
KNOWN = set().union(dir(builtins), *NAMES.values(), *(file.relative_to(ROOT).with_suffix("").parts for file in MODULES))
# What the first word of `module.name` or `Class.name` may be -> what may follow.
INSIDE: dict[str, set[str]] = {}
for _file, _names in NAMES.items():
    for _word in (_file.stem, *re.findall(r"^ *class (\w+)", _file.read_text(), re.MULTILINE)):
        INSIDE[_word] = INSIDE.get(_word, set()) | _names
    for _path in (_file, _file.parent):
        INSIDE[_path.parent.name] = INSIDE.get(_path.parent.name, set()) | {_path.stem}
OF_PYTHON = {"asyncio", "os", "socket", "select", "signal", "time", "sys", "threading", "ssl"}


def exists(name: str) -> bool:
    words = name.split(".")
    if name.startswith("r2."):  # a built-in service
        return True
    if len(words) == 1 or words[0] in OF_PYTHON:
        return words[0] in KNOWN | OF_PYTHON
    if words[0] not in INSIDE:  # a parameter or a variable
        return KNOWN.issuperset(words)
    return all(after in INSIDE.get(before, ()) for before, after in zip(words, words[1:]))


def references(file: Path) -> set[str]:
    """In docstrings (strings of three quotes) and comments."""
    found: set[str] = set()
    for token in tokens(file):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.string.startswith('"""')):
            found.update(REFERENCE.findall(token.string))
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_referred_to_exists(file: Path) -> None:
    unknown = {name for name in references(file) if not exists(name)}
    assert not unknown, f"{file.relative_to(ROOT)} refers to {', '.join(sorted(unknown))}"

"""The folders of the tests: what is where, and who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FILES = sorted(file for file in TESTS.rglob("*.py") if file.parts[len(TESTS.parts)] not in ("bench", "examples"))


def name_of(file: Path) -> str:
    """`unit.test_wire` for tests/unit/test_wire.py."""
    return ".".join(file.relative_to(TESTS).with_suffix("").parts)


def imports(file: Path) -> set[str]:
    """The modules that a file imports anywhere in it, by their full names."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = list(file.relative_to(TESTS).parts[: -node.level]) if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_test_module_is_imported(file: Path) -> None:
    assert [name for name in imports(file) if name.rpartition(".")[2].startswith("test_")] == []
    if file.is_relative_to(TESTS / "support"):
        assert [name for name in imports(file) if name.partition(".")[0] in ("unit", "sim", "e2e")] == []


def test_all_tests_are_in_their_folders() -> None:
    assert {file.parent.name for file in FILES if file.name.startswith("test_")} == {"unit", "sim", "e2e"}

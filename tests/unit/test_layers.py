"""The layout: who may import whom, what may be imported at all, and how large a thing may be.

Imports run one way, and those under TYPE_CHECKING count as all others do.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "r2box"
OLDEST = (3, 9)  # the Python that every file must be understood by
MAX_FUNCTION = 60  # lines: what can be seen at once
MAX_MODULE = 450  # lines: what can be read at one sitting

MAX_FOLDER = 15  # modules: what can be taken in at a glance

# A module may import from its own layer and from those before it; layers in one tuple do not know each other.
LAYERS = [
    ("version", "errors"), ("proto.limits",), ("proto.memory_limit",), ("proto.wire",), ("proto.link", "proto.arq"),
    ("proto.routing",), ("net.io",), ("net.transport",), ("net.link",), ("net.daemon", "net.client"),
    ("config", "api", "cli"), ("tools",), ("box",),
]  # fmt: skip
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}
# The one circle: a link and its parts call each other back.
CIRCLE = {
    f"proto.link.{name}"
    for name in (
        "handshake", "host", "inflight", "keepalive", "link", "receive_limit", "scheduler", "sender", "stream",
        "stream_table",
    )
}  # fmt: skip

# What would make `proto` depend on anything but its arguments.
IMPURE = set("os socket time datetime random secrets select selectors logging threading subprocess signal".split())
BUNDLED = {"tomli"}
# sys.stdlib_module_names came with Python 3.10; this is what is used of it.
STANDARD = getattr(sys, "stdlib_module_names", None)

MODULES = sorted(ROOT.rglob("*.py"))
FOLDERS = sorted({file.parent for file in MODULES} - {ROOT})


def name_of(file: Path) -> str:
    """`proto.link.link` for r2box/proto/link.py."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def read(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file), feature_version=OLDEST)


def imports(file: Path) -> tuple[set[str], set[str]]:
    """What a module imports anywhere in it: (modules of r2box such as `proto.link.link`, others by their name)."""
    ours: set[str] = set()
    others: set[str] = set()
    package = file.relative_to(ROOT).parts[:-1]
    todo: list[ast.AST] = [read(file)]
    while todo:
        node = todo.pop()
        todo.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            others.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            others.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= len(package) + 1, f"{name_of(file)} imports from above r2box"
            base = [*package[: len(package) + 1 - node.level], *(node.module.split(".") if node.module else ())]
            for alias in node.names:
                whole = ROOT.joinpath(*base, alias.name)
                is_module = whole.with_suffix(".py").exists() or whole.is_dir()
                ours.add(".".join([*base, alias.name] if is_module else base or ["__init__"]))
    return ours, others


def layer(module: str) -> str:
    """The longest name of a layer that `module` begins with; "" for the package itself."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in RANKS), "")


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_imports_run_one_way(file: Path) -> None:
    me = name_of(file)
    for other in imports(file)[0]:
        assert "r2box" not in other, f"{me} imports {other} by its full name"
        above, below = layer(me), layer(other)
        if not above:  # the package: its names are loaded when they are used
            continue
        assert below, f"{me} imports {other}"
        assert above == below or RANKS[below] < RANKS[above], f"{me} imports {other}, which is not below it"


def test_every_module_has_its_layer() -> None:
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in FOLDERS} | {""}
    names = {name_of(file) for file in MODULES} - {"__init__", "__main__"}
    assert {name for name in names if not layer(name)} == {f"{it}.__init__" for it in packages & {"proto", "net"}}


def test_no_folder_is_too_full() -> None:
    counts = {str(folder): len([*folder.glob("*.py")]) - 1 for folder in FOLDERS}
    assert not {name: count for name, count in counts.items() if count > MAX_FOLDER}


def test_no_two_classes_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for file in MODULES:
        for node in ast.walk(read(file)):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name_of(file))
    assert not {name: places for name, places in homes.items() if len(places) > 1}


@pytest.mark.parametrize("file", sorted((ROOT / "proto").rglob("*.py")), ids=name_of)
def test_the_protocol_is_pure(file: Path) -> None:
    _, others = imports(file)
    assert not others & IMPURE, f"{name_of(file)} imports {', '.join(sorted(others & IMPURE))}"
    called = {n.func.id for n in ast.walk(read(file)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}, f"{name_of(file)} does I/O"


@pytest.mark.parametrize("file", sorted((ROOT / "tools").rglob("*.py")), ids=name_of)
def test_tools_do_not_know_each_other(file: Path) -> None:
    me = name_of(file)
    here = f"{me.rpartition('.')[0]}." if me.count(".") > 1 else me
    assert not [other for other in imports(file)[0] if layer(other) == "tools" and not other.startswith(here)]


@pytest.mark.skipif(STANDARD is None, reason="this Python does not say what its library holds")
@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_only_the_standard_library(file: Path) -> None:
    _, others = imports(file)
    strange = others - BUNDLED - set(STANDARD or ())
    assert not strange, f"{name_of(file)} imports {', '.join(sorted(strange))}"


def test_no_circles() -> None:
    """Not even through imports in functions or for the type checker, but for the one of `CIRCLE`."""
    uses = {name_of(file): imports(file)[0] for file in MODULES}
    uses["__init__"] = set()  # its names are loaded when they are used

    def below(module: str) -> set[str]:
        found: set[str] = set()
        todo = [module]
        while todo:
            new = uses.get(todo.pop(), set()) - found
            found |= new
            todo += new
        return found

    assert {module for module in uses if module in below(module)} == CIRCLE


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_every_module_says_what_it_is(file: Path) -> None:
    assert ast.get_docstring(read(file)), f"{name_of(file)} has no docstring"


def test_nothing_is_too_long() -> None:
    found = []
    for file in MODULES:
        lines = len(file.read_text().splitlines())
        if lines > MAX_MODULE:
            found.append(f"the module {name_of(file)} has {lines} lines, {MAX_MODULE} are allowed")
        for node in ast.walk(read(file)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > MAX_FUNCTION:
                    found.append(f"{name_of(file)}.{node.name} has {length} lines, {MAX_FUNCTION} are allowed")
    assert not found, "; ".join(found)


def test_the_walk_finds_imports_wherever_they_stand() -> None:
    assert "difflib" in imports(ROOT / "proto" / "routing" / "replies.py")[1], "an import in a function"
    assert "proto.link.link" in imports(ROOT / "proto" / "link" / "stream.py")[0], "one under TYPE_CHECKING"

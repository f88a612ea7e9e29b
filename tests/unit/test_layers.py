"""The house as it was drawn: who may import whom, what may be imported at all, and how long a thing may be.

    errors <- proto (address, faults <- wire <- packet <- pace <- carrier; outcome, route, body, budget <- stream,
                        outbox, flight, session <- sender, pulse <- greeting, policy <- link, whole, meter, attempt;
                        advert, damper, allowance <- table <- neighbour <- discovery; listing, probes, relaying <- node)
        <- net <- service <- library <- embedded <- parts <- tools <- index <- pages <- completion <- own <- box
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

# Each name may import from those before it, in its own folder and below.
LAYERS = [
    "version", "errors", "proto", "net", "service", "library", "embedded", "parts", "tools", "index", "pages",
    "completion", "own", "box",
]  # fmt: skip
PROTO = [
    "address", "faults", "wire", "packet", "pace", "carrier_in", "carrier_out", "carrier", "preamble", "outcome",
    "job_states", "route", "body", "limits", "memory_limit", "budget", "stream", "stream_table", "outbox", "flight",
    "session",
    "sender", "attached", "pulse", "greeting", "policy", "owner", "link", "whole", "meter", "attempt", "advert",
    "damper", "allowance", "table",
    "neighbour", "discovery", "listing", "probes", "relaying", "link_collision", "node", "terminal",
    "screen",
]  # fmt: skip
PEERS = [{"address", "faults"}, {"outcome", "route", "body", "budget"}]  # that do not know each other
# Beside the layers: each may use `errors` and what is named here.
ASIDE = {"__init__", "command", "config", "manual", "records", "policy_options", "toml_lines", "usage"}
ASIDE_USES = {
    "__init__": {"version", "service", "library", "embedded"}, "command": {"net"},
    "config": {"command", "proto", "net", "records", "toml_lines"}, "policy_options": {"command", "proto"},
    "toml_lines": set(),
    "records": {"proto", "net"}, "manual": {"command", "usage"}, "usage": {"command"},
}  # fmt: skip
MAY_USE_ASIDE = {
    "version": set(), "errors": set(), "proto": set(), "net": {"records"}, "service": set(), "library": set(),
    "embedded": set(), "parts": {"records"}, "tools": ASIDE, "index": ASIDE, "pages": ASIDE, "completion": ASIDE,
    "own": ASIDE, "box": ASIDE,
}  # fmt: skip

# What would make `proto` depend on anything but its arguments.
IMPURE = set("os socket time datetime random secrets select selectors logging threading subprocess signal".split())
BUNDLED = {"tomli"}
# sys.stdlib_module_names came with Python 3.10; this is what is used of it.
STANDARD = getattr(sys, "stdlib_module_names", None)

MODULES = sorted(ROOT.rglob("*.py"))


def name_of(file: Path) -> str:
    """`proto.link` for r2box/proto/link.py."""
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


def read(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file), feature_version=OLDEST)


def imports(file: Path, *, runtime: bool = False) -> tuple[set[str], set[str]]:
    """What a module imports anywhere in it: (modules of r2box such as `proto.link`, others by their first name).

    With `runtime`, without what stands under `if TYPE_CHECKING:`, which exists for the type checker only.
    """
    ours: set[str] = set()
    others: set[str] = set()
    package = file.relative_to(ROOT).parts[:-1]
    todo: list[ast.AST] = [read(file)]
    while todo:
        node = todo.pop()
        if runtime and isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            todo.extend(node.orelse)
            continue
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
    return module.partition(".")[0]


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_imports_run_one_way(file: Path) -> None:
    me = name_of(file)
    ours, _ = imports(file)
    for other in ours:
        above, below = layer(me), layer(other)
        assert "r2box" not in other, f"{me} imports {other} by its full name"
        if above in ASIDE or me == "__main__":
            if me != "__main__":
                assert below in {"errors", "__init__"} | ASIDE_USES.get(above, set()), f"{me} imports {other}"
        elif above in LAYERS and below in LAYERS:
            assert LAYERS.index(below) <= LAYERS.index(above), f"{me} imports {other}, which is above it"
        else:
            assert below in MAY_USE_ASIDE[above], f"{me} imports {other}"


@pytest.mark.parametrize("name", PROTO)
def test_the_protocol_is_built_in_layers(name: str) -> None:
    ours, _ = imports(ROOT / "proto" / f"{name}.py", runtime=True)
    below = set(PROTO[: PROTO.index(name)])
    for peers in PEERS:
        below -= peers if name in peers else set()
    for other in ours - {"errors"}:
        assert other.split(".")[-1] in below, f"proto.{name} imports {other}, which is not below it"


def test_every_module_of_the_protocol_has_its_layer() -> None:
    assert {file.stem for file in (ROOT / "proto").glob("*.py")} == {"__init__", *PROTO}


def test_nothing_is_outside_the_layers() -> None:
    assert {layer(name_of(file)) for file in MODULES} <= {*LAYERS, *ASIDE, "__main__"}


@pytest.mark.parametrize("file", sorted((ROOT / "proto").glob("*.py")), ids=name_of)
def test_the_protocol_is_pure(file: Path) -> None:
    _, others = imports(file)
    assert not others & IMPURE, f"{name_of(file)} imports {', '.join(sorted(others & IMPURE))}"
    called = {n.func.id for n in ast.walk(read(file)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}, f"{name_of(file)} does I/O"


@pytest.mark.parametrize("file", sorted((ROOT / "tools").glob("*.py")), ids=name_of)
def test_tools_do_not_know_each_other(file: Path) -> None:
    ours, _ = imports(file)
    assert not [other for other in ours if layer(other) == "tools"]


@pytest.mark.skipif(STANDARD is None, reason="this Python does not say what its library holds")
@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_only_the_standard_library(file: Path) -> None:
    _, others = imports(file)
    strange = others - BUNDLED - set(STANDARD or ())
    assert not strange, f"{name_of(file)} imports {', '.join(sorted(strange))}"


def test_no_circles() -> None:
    """Not even through imports in functions: those under TYPE_CHECKING alone may go round."""
    uses = {name_of(file): imports(file, runtime=True)[0] for file in MODULES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"imports in a circle: {' -> '.join((*trail, module))}"
        if module not in done:
            for other in sorted(uses.get(module, ())):
                visit(other, (*trail, module))
            done.add(module)

    for module in uses:
        visit(module, ())


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
    assert "difflib" in imports(ROOT / "proto" / "listing.py")[1], "an import in a function"
    file = ROOT / "proto" / "node.py"
    assert "proto.link" in imports(file)[0]
    assert "proto.stream" in imports(file)[0]
    assert "proto.stream" not in imports(file, runtime=True)[0]

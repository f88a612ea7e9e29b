"""The README does what it says: its marked blocks are pasted as they stand, and answer as they stand.

`<!-- run -->` in front of a block makes it a part of its section's test (`<!-- run: PROGRAM -->` if that needs another
program), `<!-- file: PATH -->` a file there.  The commands of a block are fed to one shell in one go, as by a user who
pastes it: nothing waits for anything but what the block says itself.  `...` stands for any text within a line.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from support.documents import COMMAND, READING, pattern_of
from support.processes import Place, eventually, free_port, need

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"^<!-- (run|file)(?:: (\S+))? -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, list[tuple[str, str, str]]]:
    """The marked blocks below each heading, as (run or file, its word, text)."""
    parts = re.split(r"^###? (.*)\n", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {title: BLOCK.findall(text) for title, text in zip(parts[1::2], parts[2::2])}
    return {title: blocks for title, blocks in found.items() if blocks}


class Reader:
    """Somebody who pastes the blocks of a section, one after the other."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.ports: dict[str, str] = {}  # in the README -> here

    def free(self, text: str) -> str:
        """`text` with ports that nobody uses here."""
        return re.sub(r"\b472\d\d\b", lambda found: self.ports.setdefault(found[0], str(free_port())), text)

    def write(self, name: str, text: str) -> None:
        path = self.place.path / name.replace("~", str(self.place.home))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.free(text), encoding="utf-8")

    def paste(self, block: str) -> None:
        commands = COMMAND.findall(self.free(block))
        shown = [line for _, lines in commands for line in lines.splitlines(keepends=True)]
        errors = [line for line in shown if line.startswith("r2-")]
        shell = self.place.start("sh", stdin=subprocess.PIPE)
        shell.stdin.write("".join(f"{line}\n" for line, _ in commands).encode())
        shell.stdin.close()
        shell.ends(None, READING)
        expected = pattern_of("".join(line for line in shown if line not in errors))
        assert re.fullmatch(expected, shell.out), f"{block}but there was:\n{shell.out}{shell.err}"
        for line in errors:
            assert re.search(f"^{pattern_of(line)}", shell.err, re.MULTILINE), shell.err

    def end(self) -> None:
        """End what the blocks have left running."""
        for pid in self.place.left_over():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        eventually(lambda: not self.place.left_over(), "the end of all that was left running", READING)


@pytest.mark.parametrize("title", sections())
def test_the_commands_of_the_readme(title: str, place: Place) -> None:
    reader = Reader(place)
    try:
        for kind, word, text in sections()[title]:
            if kind == "file":
                reader.write(word, text)
                continue
            if word:
                need(word)
            reader.paste(text)
    finally:
        reader.end()


def test_the_readme_has_commands() -> None:
    assert len(sections()) == 2
    assert all(COMMAND.search(text) for blocks in sections().values() for kind, _, text in blocks if kind == "run")


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 250


def test_the_readme_opens_with_the_two_commands() -> None:
    top = README.read_text(encoding="utf-8").partition("\n## ")[0]
    assert "\nmake demo " in top
    assert "\nmake test " in top


def test_the_demo_can_be_left(place: Place) -> None:
    """In the middle of a tunnel, with two nodes and a service running."""
    path = place.executable("tr", f"echo >{place.path}/reached; read go <{place.path}/go\n")
    os.mkfifo(place.path / "go")
    demo = place.start(f"sh {README.parent}/build/demo.sh", TMPDIR=str(place.path), PATH=path)
    eventually((place.path / "reached").exists, "the service upper", 60)
    demo.send(signal.SIGINT)  # to the shell alone: a Python that is just starting says more than we can help
    (place.path / "go").write_text("on\n")
    demo.ends(130)
    assert demo.err == ""
    assert list(place.path.glob("r2demo.*")) == []


def test_the_way_through_the_code_leads_somewhere() -> None:
    package = README.parent / "r2box"
    named = re.findall(r"`((?:\w+/)?\w+\.py)`", README.read_text(encoding="utf-8"))
    assert [name for name in named if not (package / name).is_file()] == []
    for folder in package.rglob("__init__.py"):
        listed = set(re.findall(r"\w+", ast.get_docstring(ast.parse(folder.read_text())) or ""))
        here = {path.stem for path in folder.parent.glob("*.py")}
        here |= {path.parent.name for path in folder.parent.glob("*/__init__.py")}
        assert here - listed <= {"__init__", "__main__"}, f"not in the docstring of {folder}"

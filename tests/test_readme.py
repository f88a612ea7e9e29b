"""The README does what it says: its marked blocks are typed in as they stand, and answer as they stand.

`<!-- run -->` in front of a block makes it a part of its section's test (`<!-- run: PROGRAM -->` if that needs another
program), `<!-- file: PATH -->` a file there.  A command that ends in `&` is left running.  Every other one is repeated
until it prints what the README shows, as a reader is slower than a test and what it needs may still be starting; `...`
there stands for any text within a line, and as a line of its own for any number of lines.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from processes import Place, Program, Result, eventually, free_port, need

import r2box

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"^<!-- (run|file)(?:: (\S+))? -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
READING = 60.0  # seconds: a way that looked slow in the beginning is measured again


def sections() -> dict[str, list[tuple[str, str, str]]]:
    """The marked blocks below each heading, as (run or file, its word, text)."""
    parts = re.split(r"^## (.*)\n", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {title: BLOCK.findall(text) for title, text in zip(parts[1::2], parts[2::2])}
    return {title: blocks for title, blocks in found.items() if blocks}


def fits(shown: str, result: Result) -> bool:
    """Whether a terminal would show this: stdout and stderr, which only one of is used by what the README has."""
    lines = shown.splitlines(keepends=True)
    pattern = "".join("(?:.*\n)*" if line == "...\n" else re.escape(line).replace(r"\.\.\.", ".*") for line in lines)
    return any(re.fullmatch(pattern, text) for text in (result.out + result.err, result.err + result.out))


class Reader:
    """Somebody who types in a section."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.ports: dict[str, str] = {}  # in the README -> here
        self.left_running: dict[str, Program] = {}

    def free(self, text: str) -> str:
        """`text` with ports that nobody uses here."""
        return re.sub(r"\b472\d\d\b", lambda found: self.ports.setdefault(found[0], str(free_port())), text)

    def write(self, name: str, text: str) -> None:
        path = self.place.path / name.replace("~", str(self.place.home))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.free(text), encoding="utf-8")

    def type_in(self, block: str) -> None:
        for line, shown in COMMAND.findall(self.free(block)):
            if line.endswith(" &"):
                self.leave_running(line[:-2])
            else:
                self.run(line, shown)

    def leave_running(self, line: str) -> None:
        self.left_running[line] = self.place.start(line)
        if line.startswith("r2d"):
            self.left_running[line].says("listening at")

    def run(self, line: str, shown: str) -> None:
        last: list[Result] = []

        def answered() -> bool:
            for other, program in self.left_running.items():
                if not program.runs:  # it was too early, as for a port that nobody listened at yet
                    self.left_running[other] = self.place.start(other)
            last[:] = [self.place.run(line, status=None)]
            return fits(shown, last[0])

        eventually(answered, lambda: f"$ {line}\n{shown}but there was:\n{last[0]}", READING)


@pytest.mark.parametrize("title", sections())
def test_the_commands_of_the_readme(title: str, place: Place) -> None:
    reader = Reader(place)
    for kind, word, text in sections()[title]:
        if kind == "file":
            reader.write(word, text)
            continue
        if word:
            need(word)
        reader.type_in(text)


def test_the_readme_has_commands() -> None:
    assert len(sections()) == 6
    assert all(COMMAND.search(text) for blocks in sections().values() for kind, _, text in blocks if kind == "run")


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
    modules = {path.stem for path in package.rglob("*.py")} - {"__init__", "__main__"}
    modules -= {path.stem for path in (package / "tools").iterdir()}
    assert modules - set(re.findall(r"\w+", r2box.__doc__ or "")) == set(), "not in the map of r2box/__init__.py"

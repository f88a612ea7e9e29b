"""r2-examples(7) does what it says: its blocks are typed in as they stand, and answer as they stand.

A comment in front of a block names the machine it is typed at, which has a control socket of its own; `@` makes it one
of two network namespaces.  Hosts, ports and the device are those of the test.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.documents import COMMAND, READING, pattern_of
from support.namespaces import Namespaces
from support.processes import Place, Program, Result, eventually, free_port, need
from support.sshd import prepare_sshd

PAGE = Path(__file__).resolve().parents[2] / "man" / "r2-examples.7"
BLOCK = re.compile(r'^\.\\" run ?(\S*)\n\.Bd [^\n]*\n(.*?)^\.Ed$', re.MULTILINE | re.DOTALL)
SIGNS = {"\\-": "-", "\\(aq": "'", "\\(dq": '"', "\\(ti": "~", "\\(ha": "^", "\\(ga": "`", "\\e": "\\"}
ROUTER = "while read line; do echo router says $line; done"


def recipes() -> dict[str, list[tuple[str, str]]]:
    """The blocks below each heading, as (machine, text)."""
    parts = re.split(r"^\.Ss (.*)\n", PAGE.read_text(encoding="ascii"), flags=re.MULTILINE)
    return {title: [(name, plain(text)) for name, text in BLOCK.findall(below)]
            for title, below in zip(parts[1::2], parts[2::2])}


def fits(shown: str, result: Result) -> bool:
    """Whether a terminal would show this: stdout and stderr, only one of which is used in what the page has."""
    return any(re.fullmatch(pattern_of(shown), text) for text in (result.out + result.err, result.err + result.out))


def plain(text: str) -> str:
    return re.sub(r"\\(-|e|\(..)", lambda found: SIGNS[found[0]], text)


class Machines:
    """Whoever types in a recipe, at several machines."""

    def __init__(self, place: Place, hosts: Namespaces | None) -> None:
        self.place, self.hosts = place, hosts
        self.ports: dict[str, str] = {}
        self.left: dict[tuple[str, str], Program] = {}  # running
        self.names = {"host.example": "127.0.0.1", "office.example": "10.1.0.1"}
        self.names["/dev/ttyUSB0"] = str(place.path / "tty")

    def here(self, text: str) -> str:
        for name, ours in self.names.items():
            text = text.replace(name, ours)
        return re.sub(r"\b472\d\d\b", lambda found: self.ports.setdefault(found[0], str(free_port())), text)

    def type_in(self, machine: str, block: str) -> None:
        for line, shown in COMMAND.findall(self.here(block)):
            if line.endswith(" &"):
                program = self.left[machine, line[:-2]] = self.start(machine, line[:-2])
                if line.startswith("r2d"):
                    program.says("listening at")
            else:
                self.answers(machine, line, shown)

    def start(self, machine: str, line: str) -> Program:
        socket = f"{machine or 'node'}.sock"
        if machine.startswith("@") and self.hosts is not None:
            return self.hosts.start(machine[1:], line, R2_SOCKET=socket)
        return self.place.start(line, R2_SOCKET=socket)

    def run(self, machine: str, line: str) -> Result:
        socket = f"{machine or 'node'}.sock"
        if machine.startswith("@") and self.hosts is not None:
            return self.hosts.run(machine[1:], line, status=None, R2_SOCKET=socket)
        return self.place.run(line, status=None, R2_SOCKET=socket)

    def answers(self, machine: str, line: str, shown: str) -> None:
        last: list[Result] = []

        def answered() -> bool:
            for key, program in self.left.items():
                if not program.runs:  # typed in too early: a reader is slower
                    self.left[key] = self.start(*key)
            last[:] = [self.run(machine, line)]
            return fits(shown, last[0])

        eventually(answered, lambda: f"$ {line}\n{shown}but there was:\n{last[0]}", READING)


@pytest.mark.parametrize("title", recipes())
def test_the_recipe(title: str, place: Place) -> None:
    blocks = recipes()[title]
    assert blocks
    assert all(COMMAND.search(text) for _, text in blocks)
    hosts = None
    if any(machine.startswith("@") for machine, _ in blocks):
        need("ping")
        hosts = Namespaces(place, "office", "home", tun=True)
        hosts.join("office", "home", "10.1.0.1/24", "10.1.0.2/24")
        hosts.run("office", "ip address add 192.168.1.1/24 dev lo")
        hosts.run("home", "ip address add 192.168.2.1/24 dev lo")
    if any("ttyUSB0" in text for _, text in blocks):
        need("socat")
        place.start(f"socat pty,raw,echo=0,link=tty system:'{ROUTER}'")
        eventually((place.path / "tty").exists, "the device")
    if any("| socat" in text for _, text in blocks):
        need("socat")
    if any("curl" in text for _, text in blocks):
        need("curl")
    machines = Machines(place, hosts)
    if any("r2-ssh bob" in text for _, text in blocks):
        command, options = prepare_sshd(place)
        machines.names.update({"sshd -i": command, "r2-ssh bob": f"r2-ssh {options} bob"})
    for machine, text in blocks:
        machines.type_in(machine, text)

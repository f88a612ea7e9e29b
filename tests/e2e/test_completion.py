"""What the shells offer at Tab: the real ones, on a terminal, where a line is begun and Tab is pressed."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import threading
from collections.abc import Iterator

import pytest

from support.processes import Place, eventually, need

# Each writes the line as it stands into the file `line` when Ctrl-X is pressed, and says so on the terminal.
START = {
    "bash": (
        "bash --norc --noprofile -i",
        "bind 'set bell-style none'; source <(r2box --completion bash); "
        """keep() { printf '%s' "$READLINE_LINE" >line; }; bind -x '"\\C-x": keep'""",
    ),
    "zsh": (
        "zsh -f -i",
        "autoload -Uz compinit; compinit -u -d dump; eval \"$(r2box --completion zsh)\"; "
        """keep() { print -rn -- "$BUFFER" >line; }; zle -N keep; bindkey '^X' keep; setopt nolistbeep""",
    ),
    "fish": (
        "fish --no-config -i",
        "r2box --completion fish | source; function keep; commandline | string collect >line; end; bind \\cx keep",
    ),
}
# what is typed in front of Tab -> what stands there behind it
LINES = {
    "r2d": {"r2d --no-d": "r2d --no-discover "},
    "a word of r2": {
        "r2 conn": "r2 connect ",
        "r2 -v -s alice.sock -t bob tra": "r2 -v -s alice.sock -t bob trace ",
    },
    "a tool of the box": {
        "r2box r2-los": "r2box r2-lossy ",
        "r2box stat": "r2box status ",
        "r2box ping --cou": "r2box ping --count ",
        "r2box r2 stat": "r2box r2 status ",
    },
    "the box": {
        "r2box --comp": "r2box --completion ",
        "r2box --completion f": "r2box --completion fish ",
    },
    "an option": {
        "r2 ls --rec": "r2 ls --recursive ",
        "r2-connect --loss": "r2-connect --lossy ",
    },
    "an option's value": {
        "r2 top -o stal": "r2 top -o stalled ",
        "r2-lossy --only o": "r2-lossy --only out ",
    },
    "a scheme": {
        "r2 connect tcp-l": "r2 connect tcp-listen://",
        "r2 serve seri": "r2 serve serial://",
    },
    "a scheme's option": {
        "r2 connect tcp://a:1?keep": "r2 connect tcp://a:1?keepalive=",
        "r2 connect serial:///dev/x?parity=e": "r2 connect serial:///dev/x?parity=even ",
    },
    "a file": {
        "r2 -s ali": "r2 -s alice.sock ",
        "r2dm -f some.t": "r2dm -f some.toml ",
        "r2d --socket=ali": "r2d --socket=alice.sock ",
    },
    "a node": {
        "r2 -s alice.sock -t bo": "r2 -s alice.sock -t bob ",
        "r2 -t car": "r2 -t carl ",
    },
    "a node of ssh": {
        "r2-ssh bo": "r2-ssh bob ",
        "r2-ssh -v me@car": "r2-ssh -v me@carl ",
    },
    "a node of iosh": {
        "iosh bo": "iosh bob ",
        "iosh -s alice.sock car": "iosh -s alice.sock carl ",
    },
    "a service": {
        "r2 ping -t upp": "r2 ping -t upper ", "r2 -t any/low": "r2 -t any/lower ",
        "r2 -t service/u": "r2 -t service/upper ",
    },
    "a page": {
        "r2box --man r2-pi": "r2box --man r2-ping ",
        "r2box --man r2-prot": "r2box --man r2-protocol ",
    },
    "a step": {
        "r2 -t bob/low": "r2 -t bob/lower ",
        "r2 -t bob -t low": "r2 -t bob -t lower ",
    },
    "behind --": {"r2d -- --no-d": "r2d -- --no-d"},
    "nothing": {
        "r2 -t bob/nobody": "r2 -t bob/nobody",
        "r2 -s none.sock -t b": "r2 -s none.sock -t b",
    },
}


class Terminal:
    """A shell on a terminal."""

    def __init__(self, place: Place, shell: str) -> None:
        need(shell)
        line, setup = START[shell]
        self.replay = place.path / "line"
        self.screen = b""
        env = place.env(R2_SOCKET="alice.sock", TERM="dumb" if shell != "fish" else "xterm", PS1="", COLUMNS="200")
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(place.path)
            words = shlex.split(line)
            os.execvpe(words[0], words, env)
        threading.Thread(target=self._read, daemon=True).start()
        self.type(setup + "; touch ready\n")
        eventually((place.path / "ready").exists, lambda: f"{shell} ready: {self.screen.decode(errors='replace')}")

    def _read(self) -> None:
        answered = 0
        try:
            while True:
                self.screen += os.read(self.fd, 4096)
                asked = self.screen.count(b"\x1b[0c") + self.screen.count(b"\x1b[c")  # fish: what terminal is this?
                if asked > answered:
                    answered = asked
                    os.write(self.fd, b"\x1b[?62c")
        except OSError:
            return  # the shell has gone

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def complete(self, typed: str) -> str:
        """The line after Tab."""
        self.replay.unlink(missing_ok=True)
        self.type(f"\x15{typed}\t\x18")
        eventually(self.replay.exists, lambda: f"a line behind {typed}: {self.screen[-2000:].decode(errors='replace')}")
        eventually(lambda: self.replay.read_bytes() or not typed, "the line")
        return self.replay.read_text()

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def network(place: Place) -> Place:
    """alice - bob - carl, and what alice's socket tells of them."""
    place.pair()
    place.node("carl")
    place.link("bob", "carl")
    place.serve("alice", "tr a-z A-Z", "upper")
    place.serve("bob", "tr A-Z a-z", "lower")
    place.answers("alice", "carl")
    (place.path / "some.toml").touch()
    eventually(lambda: "lower" in place.run("r2 -s alice.sock ls -R").out, "the service")
    return place


@pytest.fixture(params=START)
def terminal(request: pytest.FixtureRequest, network: Place) -> Iterator[Terminal]:
    terminal = Terminal(network, request.param)
    yield terminal
    terminal.close()


def test_what_stands_there_behind_tab(terminal: Terminal) -> None:
    wrong = {}
    for lines in LINES.values():
        for typed, wanted in lines.items():
            there = terminal.complete(typed)
            if there.replace("\\", "") != wanted:
                wrong[typed] = there
    assert wrong == {}

"""Command lines: their words beside those of the real sh."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from r2box.net.io.shell import shell_line, with_quotes_closed
from r2box.net.io.words import lex
from support.shell_text import PIECES

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
slow = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def sh(line: str, *options: str, folder: Path | None = None) -> tuple[int, bytes]:
    """Exit status and output of the shell."""
    done = subprocess.run(
        ["/bin/sh", *options, "-c", "--", line], env=ENVIRONMENT, cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=20,
    )  # fmt: skip
    return done.returncode, done.stdout


@given(st.text(alphabet="ab \t\n'\"\\#=é\x0b\xa0\r", max_size=24))
@example("cat my\\ file")
@example("a\\\nb 'c\nd' \"e\\\"f\\g\" h#i #j'")
@example("a\\")
@slow
def test_words_are_those_of_sh(line: str) -> None:
    lexed = lex(line)
    assume(not any(token.is_operator for token in lexed.tokens))
    assert lexed.is_sure
    status, out = sh(f"printf '%s\\0' - {line}", "-f")
    assert bool(lexed.open) == (status == 2)
    if not lexed.open:
        assert out.split(b"\0")[1:-1] == [token.text.encode() for token in lexed.tokens]


@given(PIECES)
@example("cat x #'\nprintf y")
@example('cat "$(printf \'"\')"; printf x')
@example("ls () { printf mine; }; ls")
@example("cat <<'E'\nit's\nE\nprintf x")
@example("printf x\\ ")
@example("\n /bin/echo x \n\n")
@example("/bin/echo x \\\n")
@example('"echo" x; sed\u00a0')
@slow
def test_what_sh_accepts_does_the_same(tmp_path_factory: pytest.TempPathFactory, line: str) -> None:
    folder = tmp_path_factory.mktemp("empty")
    assume("&" not in line.replace("&&", ""))  # in no order
    assume("\0" not in line and sh(line, "-n")[0] == 0)
    assert sh(shell_line(line), folder=folder) == sh(line, folder=folder)


@given(st.text(alphabet="ab \t'\"\\#;|&<>()`$\n", max_size=20))
@slow
def test_only_what_sh_refuses_is_taken_word_by_word(line: str) -> None:
    closed = with_quotes_closed(line)
    if closed != line:
        assert sh(line, "-n")[0] != 0
        assert sh(closed, "-n")[0] == 0
        assert sh(f"printf '%s\\0' {closed}")[1].split(b"\0")[:-1] == line.encode().split()

"""Command lines: their words as `sh` has them, what is given to `sh` for them, and what is seen in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from r2box.cli import registry
from r2box.errors import AddressError, UsageError
from r2box.net.io.shell import missing_tool, service_name, shell_line, with_quotes_closed
from r2box.net.io.words import TOOLS, LexText, lex, quote, splice, this_command
from r2box.net.transport.transport import parse_transport
from r2box.net.transport.urls import CONNECT, FORWARD, SERVE, TUNNEL
from support.shell_text import PIECES

ANYTHING = st.one_of(st.text(), st.text(alphabet="ab \\'\"`$(){}\n#;&|<>-%!,:", max_size=60), PIECES)


def use_transport(use: str, line: str) -> None:
    transport = parse_transport(line).check_use(use)
    transport.mode(False)
    assert transport.is_lossy in (True, False)


@given(ANYTHING)
@example("\\ " * 50)
@example("$(" * 5000)
@example('"$(`' * 3000)
@example("x '" + "\\'" * 300 + " y'")
def test_every_string_is_read(line: str) -> None:
    lexed = lex(line)
    for token in lexed.tokens:
        assert token.text is not None
        assert len(token.text.spots) == len(token.text)
        assert 0 <= token.start <= token.end <= len(line)
        for character, (start, end, _) in zip(token.text, token.text.spots):
            assert line[end - 1] == character
            assert token.start <= start < end <= token.end
    shell_line(line)
    with_quotes_closed(line)
    missing_tool(line, 127)
    uses: list[Callable[[str], object]] = [service_name]
    uses += [partial(use_transport, use) for use in (CONNECT, TUNNEL, SERVE, FORWARD)]
    for use in uses:
        try:
            use(line)
        except (UsageError, AddressError):
            continue


@pytest.mark.parametrize(
    ("line", "given_to_sh"),
    [
        ("cat my\\ file", "exec {cat} my\\ file"),
        ("  cat\n", "exec {cat}\n"),
        ("cat # it's;\nls", "{cat} # it's;\nls"),
        ("cat x #'\nls", "{cat} x #'\nls"),
        ('cat "$(echo x; ls)"', 'exec {cat} "$(echo x; ls)"'),
        ('cat "$(echo \'"\')"; ls', '{cat} "$(echo \'"\')"; ls'),
        ("cat () { :; }; cat", "cat () { :; }; cat"),
        ("cat\u00a0x", "cat\u00a0x"),
        ("PATH=/x cat y", "PATH=/x cat y"),
        ("/bin/x\\ ", "exec /bin/x\\ "),
        ("if cat", "if cat"),
        ("echo Hello, I'm bob", "echo Hello, 'I'\\''m' bob"),
        ("echo I'm #1", "echo 'I'\\''m' '#1'"),
        ("echo I'm $(id)", "echo 'I'\\''m' '$(id)'"),
        ("echo $(id), I'm", "echo '$(id),' 'I'\\''m'"),
        ("echo $(id '), I'm", "echo $(id '), I'm"),
    ],
)
def test_what_sh_is_given(line: str, given_to_sh: str) -> None:
    cat = next(f"{folder}/cat" for folder in os.environ["PATH"].split(":") if os.access(f"{folder}/cat", os.X_OK))
    assert shell_line(line) == given_to_sh.replace("{cat}", cat)


def test_tools_of_ours_are_found_without_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    own = " ".join(map(quote, this_command()))
    for line, wanted in (
        ("r2 connect -", "exec {own} r2 connect -"),
        ("cd / && A=1 r2 -s x connect - 2>r2", "cd / && A=1 {own} r2 -s x connect - 2>r2"),
        ("if r2-connect -; then exec r2d a; fi", "if {own} r2-connect -; then exec {own} r2d a; fi"),
        ("echo r2; cat >r2; 'r2' x", "echo r2; cat >r2; 'r2' x"),
        ("PATH=/x; r2 ls", "PATH=/x; r2 ls"),
        ("r2box connect -", "exec {own} connect -"),
    ):
        assert shell_line(line) == wanted.replace("{own}", own)
    assert {*registry.TOOLS, "r2box"} == TOOLS
    assert "if r2 was not found" in missing_tool("ssh bob r2 connect -", 127)
    assert not missing_tool("ssh bob r2 connect -", 1)
    assert not missing_tool("ssh bob cat", 127)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("'/usr/sbin/sshd' -i", "sshd"),
        ("/usr/sbin/ss\\hd -i", "sshd"),
        ("cat;ls", "cat"),
        ("$HOME/bin/x", "x"),
        ("$(which x)", None),
        ("(cat)", None),
        ("2>/dev/null cat", None),
        ("A=1 cat", None),
        ("if true", None),
        ("'my prog'", None),
        ("''", None),
        ("#x", None),
    ],
)
def test_the_name_in_a_line(line: str, name: str | None) -> None:
    if name is not None:
        assert service_name(line) == name
        return
    with pytest.raises(AddressError):
        service_name(line)


@given(st.text())
def test_a_quoted_word_is_one(word: str) -> None:
    lexed = lex(f"a {quote(word)} b")
    assert [str(token.text) for token in lexed.tokens] == ["a", word, "b"]
    assert not lexed.open


def test_places_are_those_of_the_line_given() -> None:
    line = 'a \'b "c\\"d"\' e'
    inner = lex(lex(line).tokens[1].text).tokens[1].text
    assert (inner, [line[start:end] for start, end, _ in inner.spots]) == ('c"d', ["c", '\\"', "d"])
    assert {context for _, _, context in inner.spots} == {('"', "'")}
    assert splice(line, [(14, 15, "z"), (0, 1, "y")])[:1] == "y"
    assert LexText("ab").part(1, 2, "x").spots == [(1, 2, ("x",))]

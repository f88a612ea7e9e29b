"""Placeholders of a task's command: what is one, what is left to the shell, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2box.config.parse import ConfigFileError, parse_config
from r2box.config.placeholders import fill

VALUES = {"addr": "bob/web"}


@pytest.mark.parametrize(
    ("line", "filled"),
    [
        ("echo %addr", "echo bob/web"),
        ("%addr%addr.log %addr_x %addr2", "bob/webbob/web.log bob/web_x bob/web2"),
        ("echo %%addr", "echo %addr"),
        ("echo %%%addr", "echo %%bob/web"),
        ("date +%Y-%m-%dT%H:%M:%S", "date +%Y-%m-%dT%H:%M:%S"),
        ("printf '%s %5d%%\\n' 5", "printf '%s %5d%%\\n' 5"),
        ("echo ${R2_PATH%/*} ${x%%.*} ${x%txt} ${x%%txt}", "echo ${R2_PATH%/*} ${x%%.*} ${x%txt} ${x%%txt}"),
        ("100%", "100%"),
        ("% addr", "% addr"),
    ],
)
def test_what_is_filled_and_what_is_not(line: str, filled: str) -> None:
    assert fill(line, VALUES) == filled


@pytest.mark.parametrize("word", ["adr", "addrs", "address", "name", "sfoo"])
def test_another_word_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=f"unknown placeholder %{word}") as caught:
        fill(f"echo %{word}", VALUES)
    assert f"known is %addr, and %%{word} is a literal %{word}" in str(caught.value)
    assert ("did you mean addr?" in str(caught.value)) is word.startswith("ad")


@given(st.text(alphabet="%adr{$} 5", max_size=20))
def test_any_line_is_filled_or_refused(line: str) -> None:
    try:
        filled = fill(line, VALUES)
    except ValueError:
        assert "%" in line
        return
    if "%" not in line:
        assert filled == line


def test_check_finds_it() -> None:
    text = '[self]\naddr = "alice"\n[[task]]\ncmd = "echo %adr"\n'
    with pytest.raises(ConfigFileError) as caught:
        parse_config(text, "alice.toml")
    assert "cmd: unknown placeholder %adr (did you mean addr?)" in str(caught.value)
    assert parse_config(text.replace("%adr", "%addr ${x%.*}"), "alice.toml").tasks[0].cmd == "echo %addr ${x%.*}"

"""What the build leaves out of the sources."""

from __future__ import annotations

import pytest

from slim import SlimError, slim

# -- what is left of the sources

SLIM = {
    'def f(a: int = 1, *b: "x") -> int:  # "one"\n    """Two\n    lines."""\n\n    return a\n': (
        "def f(a = 1, *b):\n\n\n\n    return a\n"
    ),
    'class A(B):\n    """Nothing else."""\n': "class A(B):\n    0\n",
    'x: int = 1\nself.y: A = {}\n"# z"\n': 'x = 1\nself.y = {}\n"# z"\n',
    "def f(a: A[\n    int\n]) -> B[\n    int\n]:\n    c: int\n": "def f(a\n\n) -> B[\n    int\n]:\n    c: int\n",
    "a: B[\n    int\n] = 1\n": "a: B[\n    int\n] = 1\n",
    "class T(NamedTuple):\n    x: int = 1\n    y: str\n": "class T(NamedTuple):\n    x: int = 1\n    y: str\n",
    "if TYPE_CHECKING:\n    import a\n\n    B = a.B\nx = 1\n": "0\n\n\n\nx = 1\n",
    "if TYPE_CHECKING:\n    import a\nelse:\n    a = 1\n": "if TYPE_CHECKING:\n    import a\nelse:\n    a = 1\n",
    's = """\n  # no comment  \n"""  # é\nt = "é"  # é\n': 's = """\n  # no comment  \n"""\nt = "é"\n',
}


@pytest.mark.parametrize(("text", "expected"), SLIM.items())
def test_what_only_readers_need_is_left_out(text: str, expected: str) -> None:
    assert slim(text) == expected


@pytest.mark.parametrize("text", ['def f():\n    "a"\n    "b"\n', "(x): int = 1\n"])
def test_what_cannot_be_left_out_is_refused(text: str) -> None:
    with pytest.raises(SlimError):
        slim(text)

"""The words of the project: terms that the glossary has replaced must not come back.

PROSE is looked for in the docstrings, comments and string literals of r2box/, and in README.md, CHANGELOG.md and man/;
a phrase is found across a line break too.  NAMES is looked for in the identifiers and file names of r2box/, word by
word: `is_told`, `Told` and `TOLD` all hold "told".  To list the places: `python tests/unit/test_plain_words.py [PATH]`
"""

from __future__ import annotations

import io
import keyword
import re
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(
    str(file.relative_to(ROOT))
    for file in [*ROOT.glob("r2box/**/*.py"), *ROOT.glob("man/*.[1-8]"), ROOT / "README.md", ROOT / "CHANGELOG.md"]
)

# pattern (a space matches any white space) -> what to write instead
PROSE = {
    # coined nouns
    "greetings?": "handshake",
    "pulses?": "keepalive",
    "patien(ce|t)": "timeout",
    "newcomers?": "new client, pending link",
    "guests?": "client",
    "strangers?": "pending link, unknown node",
    "passengers?": "attached descriptor",
    "budgets?": "receive limit",
    r"(?<!in[\s-])flights?": "bytes in flight",
    "outbox": "send scheduler, send queue",
    "dampers?": "flap damping",
    "allowances?": "token bucket, rate limit",
    "ferr(y|ies)": "descriptor relay",
    "entrance": "control listener",
    "doubts?": "black-hole detection",
    "keepers?": "reconnect",
    "starters?": "command that makes links",
    "whole datagrams?": "datagram",
    "own(?= ?[.,;:)])": "an adjective only: 'a thread of its own' is 'its own thread'",
    # who does what
    "told|tells?|telling": "advertised, sent, reported; 'cannot tell apart' is 'cannot distinguish'",
    "heard|hears?": "received, learned",
    "(is|are|was|were|be|been|being) asked": "queried, polled, requested",
    "said": "reported, sent, stated",
    "nobody|somebody|anybody|whoever": "none, no client, any node",
    # states and times
    "a while": "later, or the time",
    "go(es)? on|went on|going on": "continues, resumes",
    "went away|go(es)? away|gone": "ended, closed, suspended, withdrawn",
    "broke": "failed",
    "cut off": "suspended, closed",
    "(begun|made|begins?|makes?) anew": "restarted, recreated",
    "signs? of life": "keepalive, traffic",
    "lean|bears?": "the plain verb",
    "(how|so|that) much": "the amount, by its name",
    # sentences of old
    "an answer that is none": "unexpected response",
    "does not do that for others": "is available on the local node only",
    "read again": "reloaded",
}
NAMES = frozenset(
    """
    greeting pulse patience patient newcomer guest stranger passenger budget flight outbox damper allowance ferry
    entrance doubt keeper starter whole own told tell heard hear asked said say nobody somebody anybody whoever gone
    anew broke lean much
    """.split()
)

GONE = "GONE"  # a name of the protocol: the code of an outcome, and a packet

_PROSE = re.compile(r"\b(?:" + "|".join(f"(?:{it})" for it in PROSE).replace(" ", r"\s+") + r")\b", re.IGNORECASE)


def _texts(source: str) -> tuple[str, list[tuple[int, str]]]:
    """Split Python source: its prose at the lines where it stands, code left out; (line, identifier) of its code."""
    prose: list[str] = []
    names: list[tuple[int, str]] = []
    line, previous = 1, ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind, text = tokenize.tok_name[token.type], token.string
        if kind == "NAME" and not keyword.iskeyword(text):
            names.append((token.start[0], text))
        prose.append("\n" * (token.start[0] - line))
        line = token.start[0]
        if kind in ("NL", "FSTRING_START", "FSTRING_END", "INDENT", "DEDENT"):
            continue
        together = (kind == "COMMENT") == (previous == "COMMENT")
        if kind not in ("STRING", "COMMENT", "FSTRING_MIDDLE") or not together:
            prose.append(" | ")  # a phrase does not reach across code
        previous = kind
        if kind in ("STRING", "COMMENT", "FSTRING_MIDDLE"):
            line += text.count("\n")
            if kind == "STRING" and "f" in text.partition(text[-1])[0].lower():  # before Python 3.12
                text = re.sub(r"\{[^{}]*\}", lambda found: "|" + "\n" * found[0].count("\n"), text)
            prose.append(re.sub(r"\\[nrt0]|\\(?=\n)|[#\"'`]+", " ", text))
    return "".join(prose), names


def _words(name: str) -> set[str]:
    """The words of an identifier in small letters, also without an s at their end."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    words = [word for before, word in zip(["", *words], words) if (before, word) != ("in", "flight")]
    return {form for word in words for form in (word, word.rstrip("s"))}


def findings(path: str) -> list[str]:
    """The places in the file `path` (relative to the repository) that use a word of PROSE or NAMES."""
    text = (ROOT / path).read_text(encoding="utf-8")
    names: list[tuple[int, str]] = []
    if path.endswith(".py"):
        text, names = _texts(text)
        names.append((1, Path(path).stem))
    found = [(text.count("\n", 0, hit.start()) + 1, " ".join(hit[0].split())) for hit in _PROSE.finditer(text)]
    found += [(line, name) for line, name in names if _words(name) & NAMES]
    return [f"{path}:{line}: {what}" for line, what in sorted(set(found)) if what != GONE]


@pytest.mark.parametrize("path", FILES)
def test_plain_words(path: str) -> None:
    found = findings(path)
    assert not found, "\n".join(found)


def test_the_search_finds_words_wherever_they_stand() -> None:
    source = '"""A sign\n    of life."""\n\nx = f"it goes {on} on" "is \\\n" "asked"  # gone\nToldAll = in_flight\n'
    text, names = _texts(source)
    assert [hit[0].split() for hit in _PROSE.finditer(text)] == [["sign", "of", "life"], ["is", "asked"], ["gone"]]
    assert [name for _, name in names if _words(name) & NAMES] == ["ToldAll"]


if __name__ == "__main__":
    for _path in FILES:
        if not sys.argv[1:] or any(_path.startswith(argument.rstrip("/")) for argument in sys.argv[1:]):
            print(*findings(_path), sep="\n", end="\n" * bool(findings(_path)))

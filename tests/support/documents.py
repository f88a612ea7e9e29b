"""Command blocks as README and manual show them."""

from __future__ import annotations

import re

COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
READING = 120.0  # seconds for a block


def pattern_of(shown: str) -> str:
    return re.escape(shown).replace(r"\.\.\.", ".*")

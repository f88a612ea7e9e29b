"""The arithmetic of `make bench`: what it says of a ratio is what was measured.  The measuring itself is not tested."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from bench import lossy, runs

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("module", [runs, lossy])
def test_the_examples_in_its_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed


def test_it_names_its_groups() -> None:
    command = [sys.executable, "-m", "bench", "--list"]
    listing = subprocess.run(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True, check=True)
    assert {line.split()[0] for line in listing.stdout.splitlines()} >= {"bulk", "rtt", "many", "slow", "lossy", "idle"}

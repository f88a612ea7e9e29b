"""The arithmetic of `make bench`: what it says of a ratio is what was measured.  The measuring itself is not tested."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest

from bench import lossy, runs


@pytest.mark.parametrize("module", [runs, lossy])
def test_the_examples_in_its_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted
    assert not result.failed

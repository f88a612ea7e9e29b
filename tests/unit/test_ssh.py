"""r2-ssh: the destination in a command line of ssh."""

from __future__ import annotations

import pytest

from r2box.errors import UsageError
from r2box.tools.ssh import find_destination

OPTIONS = [
    ("bob", 0), ("-p 22 bob", 2), ("-p22 bob -v", 1), ("-vvp 22 bob uptime", 2), ("-tt -o A=b -- bob ls -l", 4),
    ("-4AaCfGgKkMNnqsTtXxYy bob", 1), ("-V", -1), ("-Q cipher", -1), ("-NL 1:h:2 -J x u@bob -p 1", 4),
]  # fmt: skip


@pytest.mark.parametrize(("line", "at"), OPTIONS)
def test_the_destination_is_found(line: str, at: int) -> None:
    assert find_destination(line.split()) == at


def test_a_destination_is_needed() -> None:
    for line in ("", "-v", "-p 22"):
        with pytest.raises(UsageError):
            find_destination(line.split())

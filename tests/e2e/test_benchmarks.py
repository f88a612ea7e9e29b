"""`make bench` as a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_names_its_groups() -> None:
    command = [sys.executable, "-m", "bench", "--list"]
    listing = subprocess.run(command, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True, check=True)
    assert {line.split()[0] for line in listing.stdout.splitlines()} >= {"bulk", "rtt", "many", "slow", "lossy", "idle"}

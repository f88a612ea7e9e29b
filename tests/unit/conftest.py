"""What a unit test must not do: start a process, or make a socket or a pipe."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest


def refuse(*words: object, **options: object) -> None:
    raise AssertionError("a test in unit/ starts no process and makes no socket or pipe: move it to e2e/")


@pytest.fixture(scope="module", autouse=True)
def nothing_real() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "__init__", refuse)
        patch.setattr(subprocess.Popen, "__init__", refuse)
        for name in ("fork", "pipe", "pipe2", "posix_spawn", "system"):
            patch.setattr(os, name, refuse, raising=False)
        yield

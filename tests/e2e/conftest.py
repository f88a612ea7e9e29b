"""Fixtures: the built program under every Python that there is, and a place for a test's processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import PYTHONS, RUNNING, Box, Place, need
from support.sshd import serve_sshd

ROOT = Path(__file__).resolve().parents[2]
# Mark -> the Pythons under which a test runs that has it.  What the tools need of Python at all is tried with each from
# 3.9 up.  How they behave then is tried with the oldest and the newest, which are where those between could differ.
VERSIONS = {
    "every_python": list(PYTHONS),
    "old_and_new": sorted({min(PYTHONS), RUNNING, max(PYTHONS)}),
}


def pytest_configure(config: pytest.Config) -> None:
    for name, versions in VERSIONS.items():
        words = ", ".join(f"{major}.{minor}" for major, minor in versions)
        config.addinivalue_line("markers", f"{name}: run under these Pythons, not only the running one: {words}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "box" in metafunc.fixturenames:
        marked = [name for name in VERSIONS if metafunc.definition.get_closest_marker(name)]
        versions = VERSIONS[marked[0]] if marked else [RUNNING]
        names = [f"{major}.{minor}" for major, minor in versions]
        metafunc.parametrize("box", versions, ids=names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the built r2box and its symlinks: a new one, or the one that R2BOX_DIST names."""
    if "R2BOX_DIST" in os.environ:
        return Path(os.environ["R2BOX_DIST"]).resolve()
    folder = tmp_path_factory.mktemp("dist")
    build = subprocess.run([sys.executable, ROOT / "build" / "make.py", folder], capture_output=True, text=True)
    assert build.returncode == 0, build.stderr
    return folder


@pytest.fixture(scope="session")
def boxes(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Box]:
    """The program under each Python, oldest first."""
    folder = tmp_path_factory.mktemp("pythons")
    return {version: Box(dist, path, version, folder / f"{version[1]}") for version, path in PYTHONS.items()}


@pytest.fixture(scope="session")
def box(request: pytest.FixtureRequest, boxes: dict[tuple[int, int], Box]) -> Box:
    """The program under one Python; see `VERSIONS`."""
    return boxes[request.param]


@pytest.fixture
def place(box: Box) -> Iterator[Place]:
    """A directory, and all that the test starts in it, which is ended afterwards."""
    place = Place(box)
    try:
        yield place
    finally:
        place.close()


@pytest.fixture
def socat() -> None:
    """For tests with the real socat."""
    need("socat")


@pytest.fixture
def ssh(place: Place) -> str:
    """Two nodes, of which bob serves a real sshd; returns the options for ssh."""
    place.pair()
    return serve_sshd(place)

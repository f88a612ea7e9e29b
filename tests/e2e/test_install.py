"""Installing: every way puts the same names in place, touches nothing that is not ours, and can be taken back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import PYTHONS, need

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
EDGES = [version for version in PYTHONS if version in ((3, 9), (3, 13))] or [sys.version_info[:2]]
UNITS = {"system": "lib/systemd/system", "user": "share/systemd/user"}
Result = subprocess.CompletedProcess[str]


def run(*words: str | Path, status: int | None = 0, **options: object) -> Result:
    result: Result = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=300, **options  # type: ignore[call-overload]
    )
    assert status is None or result.returncode == status, result
    return result


def make(action: str, prefix: Path | str, destdir: Path | str = "", status: int = 0) -> Result:
    need("make")
    assert (DIST / "r2box").exists(), "dist/r2box has to be built first: run `make`"
    words = [f"PREFIX={prefix}", f"DESTDIR={destdir}", f"PYTHON={sys.executable}"]
    return run("make", "-s", "-C", ROOT, "-o", "dist/r2box", action, *words, status=status)  # -o: it is not built anew


def names() -> list[str]:
    return run(sys.executable, DIST / "r2box", "--list").stdout.split()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def test_make_installs_everything_in_its_place(tmp_path: Path) -> None:
    make("install", tmp_path)
    found = files(tmp_path)
    pages = {f"share/man/man{page.suffix[1:]}/{page.name}" for page in (ROOT / "man").iterdir()}
    units = {f"{folder}/r2@.{what}" for folder in UNITS.values() for what in ("service", "socket")}
    shells = {"share/zsh/site-functions/_r2box"}
    shells |= {f"share/bash-completion/completions/{name}" for name in ("r2box", *names())}
    shells |= {f"share/fish/vendor_completions.d/{name}.fish" for name in ("r2box", *names())}
    lists = {"share/r2box/directories"}
    assert found == {"bin/r2box", *(f"bin/{name}" for name in names()), *pages, *units, *shells, *lists}
    assert all("@BIN@" not in (tmp_path / unit).read_text() for unit in units)
    make("install", tmp_path)  # over itself: an upgrade
    assert files(tmp_path) == found


def test_what_was_installed_can_be_taken_back(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "other").write_text("somebody else's")
    (tmp_path / "bin" / "alias").symlink_to("other")
    make("install", tmp_path)
    make("uninstall", tmp_path)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / name for name in ("bin", "bin/alias", "bin/other")]
    make("uninstall", tmp_path)  # nothing is there
    make("uninstall", tmp_path / "nowhere")


def test_a_package_is_made_with_destdir(tmp_path: Path) -> None:
    """What is written into files is where they will be."""
    make("install", "/opt/r2box", tmp_path / "a package")
    root = tmp_path / "a package" / "opt" / "r2box"
    assert "bin/r2dm" in files(root)
    unit = (root / "lib/systemd/system/r2@.service").read_text()
    assert "ExecStart=/opt/r2box/bin/r2dm -f" in unit
    assert str(tmp_path) not in unit
    make("uninstall", "/opt/r2box", tmp_path / "a package")
    assert list(tmp_path.iterdir()) == []


def test_directories_are_removed_that_install_has_made_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "share" / "man").mkdir(parents=True)
    make("install", tmp_path)
    make("install", tmp_path)  # an upgrade, which makes none
    (tmp_path / "lib" / "systemd" / "system" / "other.service").write_text("somebody else's")
    make("uninstall", tmp_path)
    left = ["lib", "lib/systemd", "lib/systemd/system", "lib/systemd/system/other.service", "share", "share/man"]
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == left


def test_a_prefix_at_home_as_most_shells_leave_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make("install", "~/.local")
    assert "bin/r2dm" in files(tmp_path / ".local")
    make("uninstall", "~/.local")
    assert list(tmp_path.iterdir()) == []


def test_a_prefix_must_be_a_whole_path() -> None:
    result = make("install", "usr", status=2)
    assert "PREFIX=usr: must begin with /" in result.stderr


def test_foreign_files_are_left_alone_and_reported(tmp_path: Path) -> None:
    inside = ["bin/r2", "share/man/man1/r2.1", "share/fish/vendor_completions.d/r2.fish"]
    foreign = [tmp_path / name for name in inside]
    for file in foreign:
        file.parent.mkdir(parents=True)
        file.write_text("radare2's")
    for action in ("install", "uninstall"):
        result = make(action, tmp_path)
        assert [file.read_text() for file in foreign] == ["radare2's"] * 3
        if action == "install":
            for file in foreign:
                assert re.search(rf"^\S.*: {re.escape(str(file))}: left alone: ", result.stderr, re.MULTILINE), result
            assert run(tmp_path / "bin/r2-tunnel", "--version").stdout.startswith("r2-tunnel")
    assert files(tmp_path) == set(inside)


def test_force_replaces_a_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "r2").write_text("radare2's")
    assert "left alone" in run(sys.executable, DIST / "r2box", "--install", tmp_path).stderr
    assert run(sys.executable, DIST / "r2box", "--install", tmp_path, "--force").stderr == ""
    assert os.readlink(tmp_path / "r2") == "r2box"


@pytest.mark.parametrize("version", EDGES, ids=lambda version: ".".join(map(str, version)))
def test_an_empty_home_is_enough(tmp_path: Path, version: tuple[int, int]) -> None:
    """As a newcomer does it: the file, a directory on PATH, and nothing else in the environment."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "python3").symlink_to(PYTHONS[version])
    shutil.copy(DIST / "r2box", tmp_path / "r2box")
    env = {"HOME": str(home), "PATH": f"{home}/.local/bin:{tmp_path}/python:/usr/bin:/bin"}
    run(tmp_path / "r2box", "--install", f"{home}/.local/bin", env=env)
    (tmp_path / "r2box").unlink()
    for name in ("r2box", *names()):
        shown = run("/bin/sh", "-c", f"exec {name} --version", env=env, cwd=home)
        assert re.fullmatch(r"(\S+ )?\(?r2box\)? \d+\.\d+\.\d+\n", shown.stdout), shown
    assert run("/bin/sh", "-c", "r2box --list", env=env, cwd=home).stdout.split() == names()
    assert files(home) == {".local/bin/r2box", *(f".local/bin/{name}" for name in names())}


@pytest.mark.parametrize(
    ("place", "why"), [("a-file", "File exists"), ("a-file/below", "Not a directory"), ("/proc/nowhere", "No such")]
)
def test_a_place_that_cannot_be_is_told(tmp_path: Path, place: str, why: str) -> None:
    (tmp_path / "a-file").touch()
    result = run(sys.executable, DIST / "r2box", "--install", place, status=1, cwd=tmp_path)
    assert re.fullmatch(rf"r2box: {place}: {why}.*\n", result.stderr), result


def test_the_checksum_beside_the_file_can_be_checked() -> None:
    need("sha256sum")
    assert run("sha256sum", "--check", "r2box.sha256", cwd=DIST).stdout == "r2box: OK\n"


def test_pip_installs_the_same_tools(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for part in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / part, source / part)
    for part in ("man", "r2box"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--no-build-isolation", "--no-deps", "--target", target, source)
    assert {path.name for path in (target / "bin").iterdir()} == {"r2box", *names()}
    env = {"PYTHONPATH": str(target), "PATH": os.defpath}
    for name in names():
        assert run(target / "bin" / name, "--version", env=env).stdout.startswith(f"{name} (r2box) ")
    assert run(target / "bin" / "r2box", "--list", env=env).stdout.split() == names()
    page = run(target / "bin" / "r2box", "--man", "r2-protocol", env=env).stdout
    assert page == (ROOT / "man" / "r2-protocol.7").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["system", "user"])
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path, kind: str) -> None:
    need("systemd-analyze", "man")
    make("install", tmp_path)
    env = {**os.environ, "MANPATH": f"{tmp_path}/share/man", "XDG_RUNTIME_DIR": str(tmp_path)}
    units = [tmp_path / UNITS[kind] / f"r2@.{what}" for what in ("service", "socket")]
    result = run("systemd-analyze", "verify", f"--{kind}", *units, env=env)
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize("prefix", [".local", "/usr/local", "/usr"])
def test_systemd_looks_for_units_of_users_there(tmp_path: Path, prefix: str) -> None:
    need("systemd-analyze")
    env = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    paths = run("systemd-analyze", "--user", "unit-paths", env=env).stdout.splitlines()
    assert str(tmp_path / prefix / UNITS["user"]) in paths

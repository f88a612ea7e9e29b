"""The one file: what the recipe puts into it, that it comes out the same every time, and that it runs anywhere."""

from __future__ import annotations

import hashlib
import marshal
import os
import re
import shutil
import stat
import subprocess
import sys
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest

import make
import r2box

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "dist" / "r2box"

STAGED = {
    "__main__.py": "# shiv's launcher",
    "_bootstrap/__init__.py": "",
    "site-packages/bin/r2": "#!/somewhere/python",
    "site-packages/r2box/__init__.py": "",
    "site-packages/r2box/box.py": "def entry():\n    return 0\n",
    "site-packages/r2box/tests/test_box.py": "",
    "site-packages/r2box/__pycache__/box.cpython-39.pyc": "",
    "site-packages/r2box-0.1.0.dist-info/METADATA": "",
    "site-packages/r2box-0.1.0.dist-info/licenses/LICENSE": "ours",
    "site-packages/tomli/__init__.py": "",
    "site-packages/tomli/py.typed": "",
    "site-packages/tomli-2.0.1.dist-info/LICENSE": "theirs",
    "site-packages/unasked/__init__.py": "",
}


def staged(path: Path, entries: Mapping[str, str]) -> Path:
    """An archive such as shiv leaves for us."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in entries.items():
            archive.writestr(name, text)
    return path


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, **options)  # type: ignore[call-overload,no-any-return]


def found_pythons() -> dict[tuple[int, int], str]:
    """One interpreter for each version of Python that this machine has."""
    folders = [Path(sys.executable).parent, *map(Path, os.get_exec_path())]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    found: dict[tuple[int, int], str] = {}
    for folder in folders:
        for path in sorted(folder.glob("python[23]*")) if folder.name != "shims" else ():
            if not re.fullmatch(r"python[23](\.\d+)?", path.name):
                continue
            answer = run(path, "-c", "import sys; print('%d %d' % sys.version_info[:2])")
            if answer.returncode == 0:
                major, minor = map(int, answer.stdout.split())
                found.setdefault((major, minor), str(path))
    return dict(sorted(found.items()))


PYTHONS = found_pythons()
NEW_PYTHONS = [pytest.param(path, id=f"{v[0]}.{v[1]}") for v, path in PYTHONS.items() if v >= (3, 9)]
OLD_PYTHONS = [pytest.param(v, path, id=f"{v[0]}.{v[1]}") for v, path in PYTHONS.items() if v < (3, 9)]


@pytest.fixture(scope="module")
def rewritten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the real modules, compiled by the Python that runs the tests."""
    folder = tmp_path_factory.mktemp("rewritten")
    entries = {name: text for name, text in STAGED.items() if not name.startswith("site-packages/r2box/")}
    for path in (ROOT / "r2box").rglob("*.py"):
        entries[f"site-packages/{path.relative_to(ROOT).as_posix()}"] = path.read_text(encoding="utf-8")
    # The order of a set is what most easily makes two compilations differ.
    entries["site-packages/r2box/sets.py"] = "def known(x):\n    return x in {'one', 'two', 'three', 'four', 'five'}\n"
    make.rewrite(staged(folder / "staged", entries), folder / "r2box")
    return folder / "r2box"


def contents(program: Path) -> tuple[dict[str, str], dict[str, types.CodeType]]:
    """The texts of the modules in an archive, and the code of those that are compiled."""
    texts, codes = {}, {}
    with zipfile.ZipFile(program) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            if name.endswith(".texts"):
                for part in data.decode().split("\f")[1:-1]:
                    module, text = part.split("\n", 1)
                    texts[f"{PurePosixPath(name).parent}/{module}.py"] = text
            elif name.endswith(".py"):
                texts[name] = data.decode()
            elif name.endswith(".pyc"):
                codes[name[:-1]] = marshal.loads(data[16:])
            elif "/compiled." in name:
                codes.update({it.replace(".", "/") + ".py": code for it, code in marshal.loads(data[4:]).items()})
    return texts, codes


@pytest.fixture(scope="module")
def program() -> Path:
    """The program as users get it."""
    assert PROGRAM.exists(), "dist/r2box has to be built first: run `make`"
    return PROGRAM


# -- what is left of the sources


def test_tracebacks_point_to_the_lines_of_the_sources(rewritten: Path) -> None:
    """Every function of every module, in the archive's source as well as compiled."""

    def functions(code: types.CodeType) -> set[tuple[str, int]]:
        inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
        return {(each.co_name, each.co_firstlineno) for each in inner}.union(*map(functions, inner))

    loader = (ROOT / "build" / "loader.py").read_text(encoding="utf-8")
    texts, codes = contents(rewritten)
    assert codes
    for path in sorted((ROOT / "r2box").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8") + (loader if name == "r2box/__init__.py" else "")
        found = functions(compile(texts[name], name, "exec"))
        assert found <= functions(compile(text, name, "exec"))
        if name in codes:
            assert functions(codes[name]) == found


def test_tracebacks_show_the_line(rewritten: Path) -> None:
    script = f"import sys, traceback; sys.path.insert(0, {str(rewritten)!r}); from r2box.{{}} import {{}} as it\n"
    script += "try: it({})\nexcept Exception: traceback.print_exc()"
    for module, name, argument, line in (
        ("proto.wire.address", "parse_path", "1", ".split("),
        ("net.io.units", "parse_duration", "'x'", "raise ValueError"),
    ):
        for python in (sys.executable, PYTHONS[min(version for version in PYTHONS if version >= (3, 9))]):
            answer = run(python, "-c", script.format(module, name, argument))
            assert line in answer.stderr.split("r2box/" + module.replace(".", "/"))[-1], answer.stderr


# -- the recipe


def test_only_what_runs_is_kept(tmp_path: Path) -> None:
    make.rewrite(staged(tmp_path / "staged", STAGED), tmp_path / "r2box")
    with zipfile.ZipFile(tmp_path / "r2box") as archive:
        names = archive.namelist()
        assert archive.read("__main__.py") == (ROOT / "build" / "launcher.py").read_bytes()
        assert archive.read("tomli/LICENSE") == b"theirs"
    assert names == sorted(names)
    assert names == [
        "__main__.py",
        "r2box/LICENSE",
        "r2box/__init__.py",
        "r2box/__init__.pyc",
        "r2box/box.texts",
        f"r2box/compiled.{sys.implementation.cache_tag}",
        "tomli/LICENSE",
        "tomli/__init__.py",
    ]
    texts, codes = contents(tmp_path / "r2box")
    assert texts["r2box/box.py"] == "def entry():\n return 0\n"
    assert sorted(codes) == ["r2box/__init__.py", "r2box/box.py"]
    assert stat.S_IMODE((tmp_path / "r2box").stat().st_mode) == 0o755


def test_the_result_does_not_depend_on_who_builds(tmp_path: Path, rewritten: Path) -> None:
    script = "import sys, pathlib, make; make.rewrite(*map(pathlib.Path, sys.argv[1:]))"
    for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo")):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "TMPDIR": str(folder)}
        environment.update(PYTHONPATH=str(ROOT / "build"), PYTHONOPTIMIZE=seed)
        answer = run(sys.executable, "-c", script, rewritten.parent / "staged", folder / "out", env=environment)
        assert answer.stderr == ""
        assert (folder / "out").read_bytes() == rewritten.read_bytes()


def test_no_path_of_the_builder_is_inside(rewritten: Path) -> None:
    with zipfile.ZipFile(rewritten) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            for path in (ROOT, rewritten.parent, Path.home()):
                assert str(path).encode() + b"/" not in content, name


def test_the_date_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for epoch, expected in (("1700000000", (2023, 11, 14, 22, 13, 20)), ("0", (1980, 1, 1, 0, 0, 0))):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
        make.rewrite(staged(tmp_path / "staged", STAGED), tmp_path / "r2box")
        with zipfile.ZipFile(tmp_path / "r2box") as archive:
            assert {entry.date_time for entry in archive.infolist()} == {expected}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"site-packages/r2box/noise.py": f"{os.urandom(make.LIMIT).hex()!r}, 1"}, "more than allowed"),
        ({"site-packages/tomli/_parser.cpython-39.so": ""}, "compiled for one architecture"),
        ({"site-packages/r2box/box.py": "def entry(:"}, "cannot slim r2box/box.py: "),
        ({"site-packages/r2box/box.py": "import nothing"}, "cannot compile r2box"),
        ({"site-packages/r2box/box.py": "x = '\f'"}, "r2box/box.py: has a form feed"),
    ],
)
def test_what_must_not_be_shipped_is_refused(tmp_path: Path, change: dict[str, str], complaint: str) -> None:
    with pytest.raises(make.BuildError, match=complaint):
        make.rewrite(staged(tmp_path / "staged", {**STAGED, **change}), tmp_path / "r2box")
    assert not (tmp_path / "r2box").exists()


@pytest.mark.parametrize("missing", ["site-packages/tomli/__init__.py", "site-packages/tomli-2.0.1.dist-info/LICENSE"])
def test_what_must_be_shipped_is_missed(tmp_path: Path, missing: str) -> None:
    entries = {name: text for name, text in STAGED.items() if name != missing}
    with pytest.raises(make.BuildError, match="has not staged tomli"):
        make.rewrite(staged(tmp_path / "staged", entries), tmp_path / "r2box")


def test_a_program_that_does_not_run_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "r2box").write_text("the one that works")
    (tmp_path / "r2box").write_text("raise SystemExit(3)")
    with pytest.raises(make.BuildError, match="status 3"):
        make.put_in_place(tmp_path / "r2box", tmp_path / "dist")
    assert [path.read_text() for path in (tmp_path / "dist").iterdir()] == ["the one that works"]


def test_links_follow_the_names_that_the_program_gives(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    dist.mkdir()
    (dist / "r2-former").symlink_to("r2box")
    for _ in range(2):  # the second time over what the first has left
        (tmp_path / "r2box").write_text("print('r2box\\nr2d\\nr2')")
        digest = make.put_in_place(tmp_path / "r2box", dist)
    assert {path.name for path in dist.iterdir()} == {"r2box", "r2box.sha256", "r2d", "r2"}
    assert os.readlink(dist / "r2d") == "r2box"
    assert (dist / "r2box.sha256").read_text() == f"{digest}  r2box\n"


def test_two_builds_from_two_copies_are_equal(tmp_path: Path) -> None:
    """The whole recipe, shiv and pip included."""
    digests = set()
    for name, seed in (("one", "1"), ("another place", "2")):
        copy = tmp_path / name
        copy.mkdir()
        for part in (*make.SOURCES, "build"):
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, copy / part)
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        answer = run(sys.executable, copy / "build" / "make.py", cwd=tmp_path, env=environment)
        assert answer.returncode == 0, answer.stderr
        built = (copy / "dist" / "r2box").read_bytes()
        digests.add(hashlib.sha256(built).hexdigest())
        assert answer.stdout.splitlines() == [
            f"{copy}/dist/r2box  {len(built) / 1024:.1f} KiB  sha256 {hashlib.sha256(built).hexdigest()[:16]}"
        ]
        assert {path.name for path in copy.iterdir()} == {*make.SOURCES, "build", "dist"}  # no scratch files
    assert len(digests) == 1


# -- modules in the archive


@pytest.mark.parametrize("python", NEW_PYTHONS)
def test_compiled_modules_are_used_by_the_python_that_made_them(rewritten: Path, python: str) -> None:
    """Any other falls back to the text."""
    script = f"import sys; sys.path.insert(0, {str(rewritten)!r}); import r2box.cli.registry as e; print(e.__file__)"
    script += "; import importlib.util as u; print(u.MAGIC_NUMBER.hex(), e.load.__code__.co_filename)"
    here, there = (run(each, "-c", script) for each in (sys.executable, python))
    source = f"{rewritten}/r2box/cli/registry.py"
    assert here.stdout.split()[::2] == [source, "r2box/cli/registry.py"], here.stderr
    same = there.stdout.split()[1] == here.stdout.split()[1]
    assert there.stdout.split()[::2] == [source, "r2box/cli/registry.py" if same else source], there.stderr


@pytest.mark.parametrize("python", [NEW_PYTHONS[0], NEW_PYTHONS[-1]])
def test_every_module_can_be_imported(rewritten: Path, python: str) -> None:
    names = [path.relative_to(ROOT).with_suffix("").as_posix() for path in (ROOT / "r2box").rglob("*.py")]
    modules = sorted(name.replace("/", ".").removesuffix(".__init__") for name in names if "__main__" not in name)
    script = f"import sys; sys.path.insert(0, {str(rewritten)!r}); import tomli\n"
    script += f"for name in {modules}: __import__(name)"
    script += "\ntry: import r2box.net.nothing\nexcept ModuleNotFoundError as error: print(error)"
    answer = run(python, "-c", script)
    assert (answer.stdout, answer.stderr) == ("No module named 'r2box.net.nothing'\n", "")


def test_a_program_whose_archive_is_replaced_goes_on(rewritten: Path, tmp_path: Path) -> None:
    """What it has imported stays, tracebacks out of it too; what it has not is said not to be there."""
    program = tmp_path / "r2box"
    shutil.copy(rewritten, program)
    script = "import os, sys, traceback; sys.path.insert(0, sys.argv[1]); import r2box.net.io.units, r2box.tools\n"
    script += "open(sys.argv[1] + '.new', 'wb').write(b'PK' * 1000); os.replace(sys.argv[1] + '.new', sys.argv[1])\n"
    script += "sys.meta_path[0].forget()\n"
    script += "try: r2box.net.io.units.parse_duration('x')\nexcept ValueError: traceback.print_exc()\n"
    script += "try: import r2box.tools.ssh\nexcept ImportError as error: print(error)\n"
    answer = run(sys.executable, "-c", script, program)
    assert ", in parse_duration\n" in answer.stderr
    assert answer.stdout.startswith(f"{program} cannot be read: "), answer.stderr


# -- the program as built


@pytest.mark.parametrize("python", NEW_PYTHONS)
def test_a_daemon_keeps_no_holes_of_a_compiler(program: Path, python: str) -> None:
    """A child compiles; where none can be had, the daemon itself does."""
    script = f"import os, sys; sys.path.insert(0, {str(program)!r})\ndef refuse(): raise BlockingIOError(11, 'no more')"
    script += "\nif {}: os.fork = refuse\nimport r2box.tools.r2d, re"
    script += "\nrss = re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read())[1]"
    script += "\nprint(rss, len(os.listdir('/proc/self/fd')))"
    apart, alone = (run(python, "-S", "-c", script.format(alone)) for alone in (False, True))
    assert apart.stderr == alone.stderr == ""
    assert int(apart.stdout.split()[0]) < int(alone.stdout.split()[0]) - 512
    assert apart.stdout.split()[1] == alone.stdout.split()[1]


@pytest.mark.parametrize("python", NEW_PYTHONS)
def test_tomli_is_nobodys_but_its_own(program: Path, tmp_path: Path, python: str) -> None:
    """Ours can be imported before r2box, and a program's own gets none of our modules."""
    script = f"import sys; sys.path.insert(0, {str(program)!r}); import tomli; print(tomli.loads('a = 1'))"
    assert run(python, "-S", "-c", script).stdout == "{'a': 1}\n"
    (tmp_path / "tomli").mkdir()
    (tmp_path / "tomli" / "__init__.py").write_text("def loads(text):\n    from . import _parser\n")
    script = f"import sys; sys.path[:0] = {[str(tmp_path), str(program)]!r}; import r2box, tomli; tomli.loads('')"
    assert "cannot import name '_parser'" in run(python, "-S", "-c", script).stderr


def test_it_is_small_and_executable_and_has_a_checksum(program: Path) -> None:
    data = program.read_bytes()
    assert len(data) <= 384 * 1024
    assert data.startswith(b"#!/bin/sh\n")
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    assert program.with_suffix(".sha256").read_text() == f"{hashlib.sha256(data).hexdigest()}  r2box\n"


@pytest.mark.parametrize("python", NEW_PYTHONS)
def test_it_runs_on_every_new_python(program: Path, python: str) -> None:
    answer = run(python, program, "--version")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert r2box.__version__ in answer.stdout


@pytest.mark.skipif(not OLD_PYTHONS, reason="no Python older than 3.9 here")
@pytest.mark.parametrize(("version", "python"), OLD_PYTHONS)
def test_an_old_python_is_told_so(program: Path, version: tuple[int, int], python: str) -> None:
    answer = run(python, program, "--version")
    message = f"r2box: needs Python 3.9 or newer, this is {version[0]}.{version[1]}\n"
    assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", message)


def test_it_needs_no_home_and_no_place_to_write(program: Path, tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o555)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"  # where the first lines find python3
    answer = run(program, "--version", cwd=folder, env={"PATH": path, "TMPDIR": str(folder)})
    assert (answer.returncode, answer.stderr) == (0, "")
    assert r2box.__version__ in answer.stdout
    assert list(folder.iterdir()) == []


def test_every_name_is_a_link_that_finds_its_tool(program: Path) -> None:
    names = make.tool_names(program)
    assert {"r2", "r2d", "r2dm", "r2-connect", "r2-tunnel", "r2-serve", "r2-ssh"} <= set(names)
    for name in names:
        link = program.with_name(name)
        assert os.readlink(link) == "r2box"
        answer = run(sys.executable, link, "--help")
        assert (answer.returncode, answer.stderr) == (0, "")
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", answer.stdout), answer.stdout


def test_pip_installs_the_same_names(program: Path) -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    scripts = re.findall(r'^(\S+) = "r2box\.box:entry"$', text, re.MULTILINE)
    assert sorted(scripts) == sorted(["r2box", *make.tool_names(program)])


def test_install_leaves_a_foreign_r2_alone(program: Path, tmp_path: Path) -> None:
    (tmp_path / "r2").write_text("radare2")
    for _ in range(2):  # installing over an earlier installation is an upgrade
        answer = run(sys.executable, program, "--install", tmp_path)
        assert re.search(r"\br2\b", answer.stderr), answer
    assert (tmp_path / "r2").read_text() == "radare2"
    assert (tmp_path / "r2box").read_bytes() == program.read_bytes()
    for name in set(make.tool_names(program)) - {"r2"}:
        assert os.readlink(tmp_path / name) == "r2box"
        assert r2box.__version__ in run(sys.executable, tmp_path / name, "--version").stdout

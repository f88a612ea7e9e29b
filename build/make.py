"""Build `dist/r2box`, the one file that users copy, with its checksum and a symlink for every tool.

    python build/make.py [DIRECTORY]        (DIRECTORY: the output directory, `dist` by default)

`stage` has shiv and pip install this project and tomli into an archive.  `rewrite` makes r2box from it, with another
launcher: shiv's unpacks the archive below HOME before the first run, which fails if HOME is missing or read-only, and
doubles the startup time; ours imports from the zip.

In the archive, one member has the source of many modules, and one the compiled code: this is a quarter smaller than a
member for each.  `loader.py` reads them.

The build is reproducible: the sha256 depends only on the sources, tomli, and the Python and zlib that build it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import zopfli.zlib

from slim import SlimError, outdent, slim

ROOT = Path(__file__).resolve().parent.parent
# Python runs without its environment variables (-I: PYTHONHOME, PYTHONIOENCODING and others can keep it from starting)
# and without site-packages (-S), which are not needed, and whose search takes longer than `r2 ls`.  A `#!` line passes
# on one word only, and not every env has -S, hence sh; with an empty PATH it would not find python3.
SHEBANG = b"""\
#!/bin/sh
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin} exec python3 -IS "$0" "$@"
"""
LIMIT = 384 * 1024  # bytes; r2box is copied over slow links to small hosts
BLOCK = 48 * 1024  # bytes of source after which a block is full; a daemon keeps one block in memory
ROUNDS = 1  # iterations of zopfli; more would save a quarter of a KiB
EARLIEST = 315532800  # 1980-01-01, the first time stamp of the zip format

# Sources of the project's wheel.  The build uses a copy, so that no leftover of an earlier build gets in and no scratch
# file gets out.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "man", "r2box")

# tomli publishes compiled wheels too.  Request the one for every Python from the oldest supported version, and tomli by
# name: a newer Python that builds does not need it.
PIP_ARGUMENTS = (
    "--quiet --no-compile --no-build-isolation --python-version 3.9 --implementation py --abi none --platform any "
    "--only-binary :all: tomli"
).split()

PACKAGES = ("r2box", "tomli")
# The modules that these import are compiled; compiled code is twice as large as its source.  Queries are run often, by
# users and scripts that wait for them; links, tunnels and daemons start once and run long.
COMPILED = ("box", "tools.r2")


class BuildError(Exception):
    """The build has failed; the text is the reason, in one line."""


def stage(root: Path, work: Path) -> Path:
    """Have shiv put the project at `root` and tomli into an archive below `work`, and return its path."""
    source = work / "source"
    source.mkdir()
    for name in SOURCES:
        if (root / name).is_dir():
            shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(root / name, source / name)
    staged = work / "staged.pyz"
    command = [sys.executable, "-m", "shiv", "--reproducible", "-e", "r2box.box:entry", "-o", str(staged)]
    shiv = subprocess.run([*command, *PIP_ARGUMENTS, str(source)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if shiv.returncode:
        sys.stderr.buffer.write(shiv.stdout)
        raise BuildError(f"shiv failed with status {shiv.returncode}")
    return staged


def rewrite(staged: Path, target: Path) -> None:
    """Write to `target` the program made of the modules that shiv put into `staged`."""
    with tempfile.TemporaryDirectory(prefix="r2box-build-") as work:
        tree = Path(work)
        unpack(staged, tree)
        with Path(tree, "r2box", "__init__.py").open("a", encoding="utf-8") as init:
            init.write((ROOT / "build" / "loader.py").read_text(encoding="utf-8"))
        slim_modules(tree)
        blocks = bundle(tree)
        with Path(tree, "r2box", "__init__.py").open("a", encoding="utf-8") as init:
            init.write(f"BLOCKS = {blocks}\n")
        compile_modules(tree)
        for path in set(Path(tree, "r2box").rglob("*.py")) - set(tree.rglob("__init__.py")):
            path.unlink()
        shutil.copyfile(ROOT / "build" / "launcher.py", tree / "__main__.py")
        data = pack(tree)
    if len(data) > LIMIT:
        raise BuildError(f"{target.name} has {len(data)} bytes, {len(data) - LIMIT} more than allowed")
    target.write_bytes(data)
    target.chmod(0o755)


def unpack(staged: Path, tree: Path) -> None:
    """Extract the shipped packages, with their licences, into `tree`."""
    with zipfile.ZipFile(staged) as archive:
        for name in archive.namelist():
            kept = kept_name(PurePosixPath(name))
            if kept is None:
                continue
            if kept.suffix in (".so", ".pyd"):
                raise BuildError(f"{name} is compiled for one architecture; r2box has to run on all")
            path = tree / kept
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))
    for package in PACKAGES:
        for needed in ("__init__.py", "LICENSE"):
            if not (tree / package / needed).exists():
                raise BuildError(f"shiv has not staged {package}/{needed}")


def kept_name(name: PurePosixPath) -> PurePosixPath | None:
    """The name in the archive of an entry of shiv's, or None if it is not needed at run time.

    >>> kept_name(PurePosixPath("site-packages/tomli-2.0.dist-info/licenses/LICENSE"))
    PurePosixPath('tomli/LICENSE')
    """
    if name.parts[0] != "site-packages" or len(name.parts) < 3:  # shiv's own modules, or a single file
        return None
    inside = name.relative_to("site-packages")
    metadata = re.fullmatch(r"(\w+)-[^/]*\.dist-info", inside.parts[0])
    if metadata:  # the licences require their text; the rest is not needed
        package = metadata[1]
        return PurePosixPath(package, "LICENSE") if package in PACKAGES and name.stem == "LICENSE" else None
    if inside.parts[0] not in PACKAGES or {"tests", "__pycache__"} & set(inside.parts):
        return None
    return None if name.suffix in (".pyc", ".pyi", ".typed") else inside


def slim_modules(tree: Path) -> None:
    """Slim every module except those of the library, which keep their docstrings for `help(r2box.dial)`."""
    library = {tree / "r2box" / "api" / name for name in ("service.py", "session.py", "node.py")}
    for path in set(tree.rglob("*.py")) - library:
        try:
            path.write_bytes(outdent(slim(path.read_text(encoding="utf-8"))).encode())
        except (SyntaxError, SlimError) as error:
            raise BuildError(f"cannot slim {path.relative_to(tree)}: {error}") from None


# Runs in the folder of the modules, with two lines on stdin: the modules to import, and the file for the code of all
# r2box modules that this loads.  The code of packages goes beside them, where zipimport finds it.
COMPILE = """
import sys
given, target = sys.stdin.read().splitlines()
for name in given.split():
    __import__(name)
import importlib.util, marshal
codes = {}
for name, module in sorted(sys.modules.items()):
    if name.partition(".")[0] == "r2box":
        path = name.replace(".", "/") + ("/__init__.py" if hasattr(module, "__path__") else ".py")
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec", dont_inherit=True, optimize=2)
        if hasattr(module, "__path__"):
            with open(path + "c", "wb") as file:
                file.write(importlib.util.MAGIC_NUMBER + bytes((1, 0, 0, 0, *importlib.util.source_hash(b""))))
                file.write(marshal.dumps(code))
        else:
            codes[name] = marshal.dumps(code)
codes = {name: marshal.loads(code) for name, code in codes.items()}
with open(target + sys.implementation.cache_tag, "wb") as file:
    file.write(importlib.util.MAGIC_NUMBER + marshal.dumps(codes))
"""


def compile_modules(tree: Path) -> None:
    """Compile the modules that `COMPILED` imports, for the Python that builds; others fall back to the source.

    Without column numbers, which saves a fifth.  In a new interpreter without site-packages and with a fixed hash seed,
    because compiled code depends on the order of sets and on interned strings.  Paths are `r2box/module.py`.  The code
    is unchecked (PEP 552), because archive members cannot get out of step.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONHASHSEED"] = "0"
    names = [name for name in COMPILED if Path(tree, "r2box", *name.split(".")).with_suffix(".py").exists()]
    plain = ["-X", "no_debug_ranges"] if sys.version_info >= (3, 11) else []
    command = [sys.executable, *plain, "-B", "-s", "-S", "-c", COMPILE]
    words = " ".join(f"r2box.{name}" for name in names) + "\nr2box/compiled."
    if subprocess.run(command, env=environment, cwd=tree, input=words, text=True).returncode:
        raise BuildError("cannot compile r2box")


def bundle(tree: Path) -> dict[str, list[str]]:
    """Write the source of the modules into blocks; return the names of the blocks of each package.

    In a block, a line of a form feed and the module's name precedes each source; a form feed is the end.
    """
    blocks: dict[str, list[str]] = {}
    # tomli is not bundled: a program with the archive on its path may have another one.
    for package in sorted(path.parent for path in Path(tree, "r2box").rglob("__init__.py")):
        size, names = BLOCK, blocks.setdefault(".".join(package.relative_to(tree).parts), [])
        for path in sorted(set(package.glob("*.py")) - {package / "__init__.py"}):
            text = path.read_text(encoding="utf-8")
            if "\f" in text:
                raise BuildError(f"{path.relative_to(tree)}: has a form feed, which would end a module in the archive")
            if size >= BLOCK:
                names.append(path.stem)
                size = 0
            with (package / f"{names[-1]}.texts").open("a", encoding="utf-8") as block:
                size += block.write(f"\f{path.stem}\n{text}")
        for name in names:
            with (package / f"{name}.texts").open("a", encoding="utf-8") as block:
                block.write("\f")
    return blocks


def pack(tree: Path) -> bytes:
    """The program: a line for sh, then a zip of `tree` with fixed order, times and permissions.

    zopfli's deflate is 3 % smaller than zlib's, but zipfile cannot write data that is already compressed, so the
    records are made here (PKWARE's APPNOTE, 4.3.7, 4.3.12 and 4.3.16).
    """
    seconds = max(int(os.environ.get("SOURCE_DATE_EPOCH", EARLIEST)), EARLIEST)
    data, directory, count = bytearray(SHEBANG), bytearray(), 0
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        content = path.read_bytes()
        packed = zopfli.zlib.compress(content, numiterations=ROUNDS)[2:-4]  # without zlib's header and checksum
        entry = zipfile.ZipInfo(path.relative_to(tree).as_posix(), time.gmtime(seconds)[:6])
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.CRC, entry.file_size, entry.compress_size = zlib.crc32(content), len(content), len(packed)
        header = entry.FileHeader()
        # The fields of the local header from version to name length; no comment, no extra field.
        directory += b"PK\1\2\x14\3" + header[4:28]
        directory += struct.pack("<HHHHLL", 0, 0, 0, 0, 0o100644 << 16, len(data)) + header[30:]
        data += header + packed
        count += 1
    end = struct.pack("<HHHHLLH", 0, 0, count, count, len(directory), len(data), 0)
    return bytes(data + directory + b"PK\5\6" + end)


def tool_names(program: Path) -> list[str]:
    """The names of the tools, as `r2box --list` prints them; this also shows that it runs."""
    answer = subprocess.run([sys.executable, str(program), "--list"], stdout=subprocess.PIPE, text=True)
    names = [line.split()[0] for line in answer.stdout.splitlines() if line.strip()]
    if answer.returncode or not names:
        raise BuildError(f"`r2box --list` ended with status {answer.returncode} and {len(names)} names")
    return [name for name in names if name != program.name]


def put_in_place(program: Path, directory: Path) -> str:
    """Move the finished program into `directory`, with its checksum and symlinks; return the checksum.

    Renaming is atomic: no file is ever half written, and a running r2box keeps its old file.
    """
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    checksum = program.with_suffix(".sha256")
    checksum.write_text(f"{digest}  {program.name}\n", encoding="ascii")
    names = tool_names(program)
    for finished in (program, checksum):
        finished.replace(directory / finished.name)
    for old in directory.iterdir():
        if old.is_symlink() and os.readlink(old) == program.name and old.name not in names:
            old.unlink()
    for name in names:
        link = directory / name
        if not (link.is_symlink() and os.readlink(link) == program.name):
            link.unlink(missing_ok=True)
            link.symlink_to(program.name)
    return digest


def build(directory: Path) -> str:
    """Build everything into `directory`; return a line with path, size and checksum."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=directory) as work:
        program = Path(work, "r2box")
        rewrite(stage(ROOT, Path(work)), program)
        size = program.stat().st_size
        digest = put_in_place(program, directory)
    return f"{directory / 'r2box'}  {size / 1024:.1f} KiB  sha256 {digest[:16]}"


def main(argv: list[str]) -> int:
    try:
        print(build(Path(argv[1] if len(argv) > 1 else ROOT / "dist")))
    except (BuildError, OSError) as error:
        print(f"build/make.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

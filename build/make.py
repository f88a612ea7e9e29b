"""Build the one file that users copy: `dist/r2box`, and beside it its checksum and a symlink for every tool.

    python build/make.py [DIRECTORY]        (DIRECTORY: where to put them, `dist` by default)

Two steps.  `stage` lets shiv and pip resolve and install what goes in: this project and tomli.  `rewrite` turns
shiv's archive into ours.  shiv's own launcher unpacks the archive below HOME before the first run, which fails
where HOME is missing or read-only, and costs twice the start-up time; ours imports from the zip in place.

In the archive, many modules lie in one member, and what is compiled in another: compressed together they take a quarter
less room than one by one.  `loader.py` reads them.

The result depends on nothing but the sources, tomli, and the Python and zlib that build it: same source, same
sha256, wherever and whenever it is built.
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
# Python is started without its variables (-I: PYTHONHOME, PYTHONIOENCODING and the like, which may keep it from
# starting) and without site-packages (-S), of which nothing is needed and which take longer to find than `r2 ls` runs.
# A `#!` line passes on one word only, and not every env has -S, so sh it is; an empty PATH finds no python3.
SHEBANG = b"""\
#!/bin/sh
PATH=${PATH:-/usr/local/bin:/usr/bin:/bin} exec python3 -IS "$0" "$@"
"""
LIMIT = 384 * 1024  # r2box is carried over slow links to small hosts, so its size is part of its contract
BLOCK = 48 * 1024  # bytes of text after which a block is full; what is read at once stays in the memory of a daemon
ROUNDS = 1  # of zopfli: more of them take longer and save a quarter of a KiB
EARLIEST = 315532800  # 1980-01-01, where the clock of the zip format starts

# What becomes the project's wheel.  The build works on a copy of these, so that neither a leftover of an earlier
# build gets in nor scratch files get out.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "man", "r2box")

# tomli publishes compiled wheels too.  Ask for the one that runs on every Python from the oldest that we support,
# and for tomli by name, because a newer Python that builds does not need it itself.
PIP_ARGUMENTS = (
    "--quiet --no-compile --no-build-isolation --python-version 3.9 --implementation py --abi none --platform any "
    "--only-binary :all: tomli"
).split()

PACKAGES = ("r2box", "tomli")
# What is compiled is what these import; compiled code takes twice as much room as its source.  What asks a question is
# started often, by people and scripts that wait for it.  What carries something starts once and stays.
COMPILED = ("box", "tools.r2")


class BuildError(Exception):
    """The build cannot go on; the text says why in one line."""


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
        raise BuildError(f"{target.name} has {len(data)} bytes, {len(data) - LIMIT} more than it may have")
    target.write_bytes(data)
    target.chmod(0o755)


def unpack(staged: Path, tree: Path) -> None:
    """Extract the packages that we ship, with their licences, into `tree`."""
    with zipfile.ZipFile(staged) as archive:
        for name in archive.namelist():
            kept = kept_name(PurePosixPath(name))
            if kept is None:
                continue
            if kept.suffix in (".so", ".pyd"):
                raise BuildError(f"{name} is compiled for one machine; r2box has to run on all")
            path = tree / kept
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.read(name))
    for package in PACKAGES:
        for needed in ("__init__.py", "LICENSE"):
            if not (tree / package / needed).exists():
                raise BuildError(f"shiv has not staged {package}/{needed}")


def kept_name(name: PurePosixPath) -> PurePosixPath | None:
    """The name in our archive of an entry of shiv's, or None for what is not needed to run.

    >>> kept_name(PurePosixPath("site-packages/tomli-2.0.dist-info/licenses/LICENSE"))
    PurePosixPath('tomli/LICENSE')
    """
    if name.parts[0] != "site-packages" or len(name.parts) < 3:  # shiv's own modules, or a single file
        return None
    inside = name.relative_to("site-packages")
    metadata = re.fullmatch(r"(\w+)-[^/]*\.dist-info", inside.parts[0])
    if metadata:  # the licences ask to be carried along; nothing else in there is read
        package = metadata[1]
        return PurePosixPath(package, "LICENSE") if package in PACKAGES and name.stem == "LICENSE" else None
    if inside.parts[0] not in PACKAGES or {"tests", "__pycache__"} & set(inside.parts):
        return None
    return None if name.suffix in (".pyc", ".pyi", ".typed") else inside


def slim_modules(tree: Path) -> None:
    """Leave out of every module what only its readers need; but `help(r2box.dial)` is to have something to say."""
    told = {tree / "r2box" / "api" / name for name in ("service.py", "session.py", "node.py")}
    for path in set(tree.rglob("*.py")) - told:
        try:
            path.write_bytes(outdent(slim(path.read_text(encoding="utf-8"))).encode())
        except (SyntaxError, SlimError) as error:
            raise BuildError(f"cannot slim {path.relative_to(tree)}: {error}") from None


# Run in the folder of the modules, with two lines on stdin: what to import, and the file for the code of all modules of
# ours that this has loaded.  Packages keep theirs beside them, where zipimport finds it.
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
    """Write the code of all that `COMPILED` imports, for the Python that builds; others fall back to the texts.

    Column numbers are left out, which makes it a fifth smaller.  In a fresh interpreter without site-packages and with
    a fixed hash seed, because compiled code depends on the order of sets and on which strings its interpreter already
    knew.  Paths are cut down to `r2box/module.py`.  Unchecked, because code and text cannot go apart.
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
    """Write the texts of the modules of each package into blocks, and return of each package the names of these.

    A text stands behind a line of a form feed and the module's name; one more form feed is the end.
    """
    blocks: dict[str, list[str]] = {}
    # tomli is left as it is: a program with the archive on its path may have one of its own.
    for package in sorted(path.parent for path in Path(tree, "r2box").rglob("__init__.py")):
        size, names = BLOCK, blocks.setdefault(".".join(package.relative_to(tree).parts), [])
        for path in sorted(set(package.glob("*.py")) - {package / "__init__.py"}):
            text = path.read_text(encoding="utf-8")
            if "\f" in text:
                raise BuildError(f"{path.relative_to(tree)}: a form feed, which ends a module in the archive")
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
    """The program: a line for sh, then a zip of `tree` in which order, times and permissions are fixed.

    zipfile reads what others have compressed but does not write it, so the records are put together here, as in
    PKWARE's APPNOTE, sections 4.3.7, 4.3.12 and 4.3.16: zopfli's deflate is 3 % smaller than zlib's.
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
        # What a local header says, from the version on to the name's length; then a comment and more that is not there.
        directory += b"PK\1\2\x14\3" + header[4:28]
        directory += struct.pack("<HHHHLL", 0, 0, 0, 0, 0o100644 << 16, len(data)) + header[30:]
        data += header + packed
        count += 1
    end = struct.pack("<HHHHLLH", 0, 0, count, count, len(directory), len(data), 0)
    return bytes(data + directory + b"PK\5\6" + end)


def tool_names(program: Path) -> list[str]:
    """The names that the program answers to, as it says itself: which also shows that it runs."""
    answer = subprocess.run([sys.executable, str(program), "--list"], stdout=subprocess.PIPE, text=True)
    names = [line.split()[0] for line in answer.stdout.splitlines() if line.strip()]
    if answer.returncode or not names:
        raise BuildError(f"`r2box --list` ended with status {answer.returncode} and {len(names)} names")
    return [name for name in names if name != program.name]


def put_in_place(program: Path, directory: Path) -> str:
    """Move the finished program into `directory`, with its checksum and symlinks; return the checksum.

    By renaming, so that at no time is there a file that is half written, and a running r2box keeps the one it has.
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
    """Build everything into `directory`; return the one line that says what came out."""
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

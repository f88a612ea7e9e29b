# Module loader of the archive.  The build appends this file to r2box/__init__.py.
#
# zipimport needs a member for every module, and modules compressed one by one are a third larger than together.  So
# each package has the source of its modules in a few members ("blocks"), each named after its first module, and small
# because a daemon keeps one in memory.  One more member has the compiled modules.  zipimport finds the packages, and
# this loader their modules.  The modules of a daemon are compiled in a child process, which takes 50 ms and saves the
# daemon 1.2 MiB.

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any
    from zipimport import zipimporter

BLOCKS: dict[str, list[str]] = {}  # package: the names of its blocks, set by the build

# Imported by daemons, which run long, so their memory counts more than their startup time.
DAEMONS = ("r2box.tools.r2d", "r2box.tools.manager", "r2box.config.node_manager")


class _Bundle:
    """Finder and loader of the modules in the archive of `importer`.  `spec`: the class ModuleSpec."""

    def __init__(self, importer: zipimporter, spec: Any) -> None:
        import marshal

        self._importer = importer
        self._spec = spec
        self._texts: dict[str, tuple[str, str]] = {}  # package: the last block read: name, text
        self._codes: dict[str, CodeType] = {}
        self._made: dict[str, CodeType] | None = None  # in a child: the modules that it compiled
        try:
            compiled = importer.get_data(f"r2box/compiled.{sys.implementation.cache_tag}")
        except OSError:
            return  # a Python other than the one of the build compiles the source
        if compiled[:4] == sys.modules["_frozen_importlib_external"].MAGIC_NUMBER:
            self._codes = marshal.loads(memoryview(compiled)[4:])

    def _text(self, name: str) -> str | None:
        package, _, module = name.rpartition(".")
        block = max((first for first in BLOCKS.get(package, ()) if first <= module), default="")
        kept, texts = self._texts.get(package, ("", ""))
        if kept != block:
            try:
                texts = self._importer.get_data(package.replace(".", "/") + f"/{block}.texts").decode()
            except Exception as error:  # of zipimport, if the file was replaced
                raise ImportError(f"{self._importer.archive} cannot be read: {error}", name=name) from error
            self._texts[package] = block, texts
        begin = texts.find(f"\f{module}\n") + len(module) + 2
        return texts[begin : texts.find("\f", begin)] if begin > len(module) + 1 else None

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.rpartition(".")[0] not in BLOCKS or name in BLOCKS:
            return None
        if name not in self._codes and self._text(name) is None:
            return None
        spec: ModuleSpec = self._spec(name, self, origin=self.get_filename(name))
        spec.has_location = True
        return spec

    def forget(self) -> None:
        """Drop the caches: further imports read the archive again."""
        self._texts, self._codes = {}, {}

    def create_module(self, spec: ModuleSpec) -> None:
        return

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ in DAEMONS and self._made is None:
            self._compile_apart(module)
        exec(self.get_code(module.__name__), module.__dict__)

    def get_filename(self, name: str) -> str:
        return f"{self._importer.archive}/{name.replace('.', '/')}.py"

    def get_source(self, name: str) -> str | None:
        return self._text(name)

    def get_code(self, name: str) -> CodeType:
        code = self._codes.pop(name, None)
        if code is None:
            text = self._text(name)
            if text is None:
                raise ImportError(f"{self._importer.archive} has no module {name}", name=name)
            code = compile(text, self.get_filename(name), "exec", dont_inherit=True)
            if self._made is not None:
                self._made[name] = code
        return code

    def _compile_apart(self, module: ModuleType) -> None:
        """Import `module` in a child, and take over the compiled code: compiling fragments a MiB of memory.

        An error of the child occurs here again and is reported here.  Without a child, this process compiles all.
        """
        import marshal
        import os

        reader, writer = os.pipe()
        try:
            child = os.fork()
        except OSError:
            os.close(reader)
            child = -1  # limit of processes
        if not child:
            os.close(reader)  # so that writing fails if the daemon is killed meanwhile
            try:
                self._made = {}
                exec(self.get_code(module.__name__), module.__dict__)
                with open(writer, "wb") as pipe:
                    marshal.dump(self._made, pipe)
            finally:
                os._exit(0)
        os.close(writer)
        if child > 0:
            with open(reader, "rb") as pipe:
                made = pipe.read()
            os.waitpid(child, 0)
            self._codes.update(marshal.loads(made) if made else {})


def _bundle(module: Any) -> None:
    if hasattr(module.__loader__, "archive"):  # not during the build
        # First: the finder of an editable installation would find modules that zipimport does not.
        sys.meta_path.insert(0, _Bundle(module.__loader__, type(module.__spec__)))


_bundle(sys.modules[__name__])

# Behind the lines of r2box/__init__.py in the archive: how all other modules are imported from there.
#
# zipimport wants a member for every module, and modules that are compressed one by one take a third more room than
# together.  So a package has the texts of its modules in a few members, each named after its first module and as small
# as memory is dear, and what is compiled is in one more.  zipimport finds the packages; their modules are for this.
# What a daemon needs is compiled in a child, which takes 50 ms; else it would hold 1.2 MiB more all its life.

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType
    from typing import Any
    from zipimport import zipimporter

BLOCKS: dict[str, list[str]] = {}  # package: the names of its members, which the build writes here

# What daemons import first, and next.  They stay, so their memory counts more than the time to start.
DAEMONS = ("r2box.tools.r2d", "r2box.tools.manager", "r2box.config.node_manager")


class _Bundle:
    """A finder and loader of modules, from the archive that `importer` reads.  `spec`: the class ModuleSpec."""

    def __init__(self, importer: zipimporter, spec: Any) -> None:
        import marshal

        self._importer = importer
        self._spec = spec
        self._texts: dict[str, tuple[str, str]] = {}  # package: the block that was read last, and its name
        self._codes: dict[str, CodeType] = {}
        self._made: dict[str, CodeType] | None = None  # in a child: what it has compiled
        try:
            compiled = importer.get_data(f"r2box/compiled.{sys.implementation.cache_tag}")
        except OSError:
            return  # another Python than the one that built this compiles the texts
        if compiled[:4] == sys.modules["_frozen_importlib_external"].MAGIC_NUMBER:
            self._codes = marshal.loads(memoryview(compiled)[4:])

    def _text(self, name: str) -> str | None:
        package, _, module = name.rpartition(".")
        block = max((first for first in BLOCKS.get(package, ()) if first <= module), default="")
        kept, texts = self._texts.get(package, ("", ""))
        if kept != block:
            try:
                texts = self._importer.get_data(package.replace(".", "/") + f"/{block}.texts").decode()
            except Exception as error:  # whatever zipimport meets in a file that is another by now
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
        """What has not been imported by now is read once more when it is."""
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
        """Have a child import `module`, and take over what it compiles: a compiler leaves a MiB of holes behind it.

        Whatever goes wrong there goes wrong here again, and is told here; without a child, here compiles all.
        """
        import marshal
        import os

        reader, writer = os.pipe()
        try:
            child = os.fork()
        except OSError:
            os.close(reader)
            child = -1  # no more processes for us
        if not child:
            os.close(reader)  # so that what nobody will read fails: the daemon may be killed meanwhile
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
    if hasattr(module.__loader__, "archive"):  # while it is built there is none yet
        # First, because the finder of an editable installation would answer for what zipimport does not find.
        sys.meta_path.insert(0, _Bundle(module.__loader__, type(module.__spec__)))


_bundle(sys.modules[__name__])

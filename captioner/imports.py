"""Imports that come as late as they are needed. It knows modules by name, and none of them."""

import builtins
import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType, SimpleNamespace
from typing import Any


@contextlib.contextmanager
def late(importer: str, imported: str) -> Iterator[None]:
    """While it lasts, `from imported import f` in the module `importer` imports nothing until `f` is called.

    For functions that a package imports and that few ever call, from a module that takes long to import. Nothing is
    changed but what that one statement binds: a function that imports the real one when it is called. Where the module
    has no such statement, or is no source file, it is imported as ever.
    """
    finder = _Finder(importer, imported)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Finds one module, to be run by `_Loader`."""

    def __init__(self, importer: str, imported: str) -> None:
        self.importer, self.imported = importer, imported

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.importer:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        spec.loader = _Loader(spec.loader.name, spec.loader.path, self.imported)
        return spec


class _Loader(SourceFileLoader):
    """Runs a module with an import statement of its own."""

    def __init__(self, name: str, path: str, imported: str) -> None:
        super().__init__(name, path)
        self.imported = imported

    def exec_module(self, module: ModuleType) -> None:
        def find(name: str, here: Any = None, inside: Any = None, wanted: Sequence[str] = (), level: int = 0) -> Any:
            if name == self.imported and wanted and name not in sys.modules:
                return SimpleNamespace(**{function: _at_its_call(name, function) for function in wanted})
            return builtins.__import__(name, here, inside, wanted, level)

        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": find}
        super().exec_module(module)


def _at_its_call(module: str, name: str) -> Callable[..., Any]:
    def function(*arguments: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **named)

    return function

"""The functions of the imported modules. Their code is replaced in memory, so a mutation needs no new interpreter.

A function keeps its identity when its code is replaced: every module that imported it runs the new code.
"""

from __future__ import annotations

import ast
import builtins
import functools
import gc
import inspect
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FunctionType

from tests.mutants.mutations import Function, Mutation, functions

Place = tuple[str, str, int]
"""Where a function is defined: file, qualified name, first line (that of its first decorator)."""

OURS = "porterlb."

NOTE = "_mutants_note_call"
"""The builtin that a function calls while calls are recorded."""


def key_of(function: Function) -> str:
    """The name of the function in the notes of a run."""
    return f"{function.path}:{function.name}"


class Loaded:
    """The functions of the files ``paths`` below ``root``, whose modules are imported."""

    def __init__(self, root: Path, paths: Iterable[str]) -> None:
        self._root = root
        self.sources = {path: (root / path).read_text() for path in paths}
        self._objects: dict[Place, list[FunctionType]] = {}
        self._caches: list[Callable[[], None]] = []
        files = {str(root / path) for path in self.sources}
        for one in gc.get_objects():
            if isinstance(one, FunctionType) and one.__code__.co_filename in files:
                self._objects.setdefault(_place(one.__code__), []).append(one)
            elif isinstance(one, functools._lru_cache_wrapper) and inspect.unwrap(one).__module__.startswith(OURS):
                self._caches.append(one.cache_clear)

    def objects(self, function: Function) -> list[FunctionType]:
        return self._objects.get((str(self._root / function.path), function.name, function.first), [])

    def apply(self, mutation: Mutation) -> None:
        """Replace the code of the mutated function."""
        function = mutation.function
        changed = mutation.applied(self.sources[function.path])
        for code in _codes(compile(changed, str(self._root / function.path), "exec", dont_inherit=True)):
            if (code.co_qualname, code.co_firstlineno) == (function.name, function.first):
                for one in self.objects(function):
                    one.__code__ = code
        self.clear_caches()

    def clear_caches(self) -> None:
        """Forget the results of earlier calls."""
        for clear in self._caches:
            clear()

    def recording(self) -> Recording:
        """What records the calls of all functions."""
        keys: list[str] = []
        own: list[list[tuple[FunctionType, CodeType, CodeType]]] = []
        for path, source in self.sources.items():
            tree = ast.parse(source)
            found = functions(path, tree)
            for number, (_, node) in enumerate(found, len(keys)):
                call = ast.parse(f"{NOTE}({number})").body[0]
                for part in ast.walk(call):
                    ast.copy_location(part, node.body[0])
                node.body.insert(1 if ast.get_docstring(node, clean=False) is not None else 0, call)
            compiled = compile(tree, str(self._root / path), "exec", dont_inherit=True)
            noting = {_place(code): code for code in _codes(compiled)}
            for function, _ in found:
                keys.append(key_of(function))
                own.append([(one, one.__code__, noting[_place(one.__code__)]) for one in self.objects(function)])
        return Recording(keys, own)


class Recording:
    """Records which functions are called. A function notes its first call only, and then runs its own code again:
    the later calls cost nothing."""

    def __init__(self, keys: list[str], own: list[list[tuple[FunctionType, CodeType, CodeType]]]) -> None:
        self._keys = keys
        self._own = own  # for each key: the function objects, with their own code and the code that notes the call
        self._called = set(range(len(keys)))
        setattr(builtins, NOTE, self._note)

    def start(self) -> None:
        """Begin a new set of calls."""
        for number in self._called:
            for one, _, noting in self._own[number]:
                one.__code__ = noting
        self._called = set()

    def _note(self, number: int) -> None:
        self._called.add(number)
        for one, own, _ in self._own[number]:
            one.__code__ = own

    def called(self) -> list[str]:
        """The functions that were called since :meth:`start`."""
        return sorted(self._keys[number] for number in self._called)


def import_mutated(root: Path, mutation: Mutation) -> None:
    """Every later import of the mutation's module in this process runs the mutated source."""
    file = str(root / mutation.function.path)
    get_code = SourceFileLoader.get_code

    def mutated(loader: SourceFileLoader, name: str) -> CodeType | None:
        if loader.path != file:
            return get_code(loader, name)
        return compile(mutation.applied(Path(file).read_text()), file, "exec", dont_inherit=True)

    SourceFileLoader.get_code = mutated  # type: ignore[assignment, method-assign]


def _place(code: CodeType) -> Place:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code objects inside this one."""
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield one
            yield from _codes(one)

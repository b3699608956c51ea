"""The mutations of a source file: text in, edits of it out. This module reads and runs nothing."""

from __future__ import annotations

import ast
import enum
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

# Text for people and for debuggers decides nothing.
WITHOUT_DECISION = frozenset({"__repr__", "__str__", "__hash__"})

FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}

# The immediate return value of a function whose annotation names one of these types.
EMPTY = {
    "bool": ("False", "True"),
    "str": ("''",),
    "bytes": ("b''",),
    "int": ("0",),
    "float": ("0.0",),
    "tuple": ("()",),
    "list": ("[]",),
    "dict": ("{}",),
    "Mapping": ("{}",),
    "set": ("set()",),
    "frozenset": ("frozenset()",),
}


class Kind(enum.Enum):
    RETURN = "returns at once"
    COMPARISON = "comparison flipped"
    BOOLEAN = "boolean negated"
    CONSTANT = "constant changed"


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method of a module. Functions inside it belong to it."""

    path: str
    name: str  # qualified: Lease.poll
    line: int
    first: int  # the line of its first decorator, or its own

    @property
    def public(self) -> bool:
        """Dunder methods are public: operators call them."""
        return not any(part.startswith("_") and not part.endswith("__") for part in self.name.split("."))


@dataclass(frozen=True, slots=True)
class Mutation:
    """Replace the bytes from ``start`` to ``end`` of the file by ``text``."""

    function: Function
    kind: Kind
    line: int
    column: int
    start: int
    end: int
    text: str
    was: str

    def applied(self, source: str) -> str:
        raw = source.encode()
        return (raw[: self.start] + self.text.encode() + raw[self.end :]).decode()

    @property
    def words(self) -> str:
        """For people, in one line."""
        if self.kind is Kind.RETURN:
            return f"{self.kind.value}: {self.text.split(';')[0].strip()}"
        return f"{self.kind.value}: {_short(self.was)} -> {_short(self.text)}"


def _short(text: str) -> str:
    one = " ".join(text.split())
    return one if len(one) <= 60 else one[:57] + "..."


def functions(path: str, module: ast.Module) -> list[tuple[Function, FunctionNode]]:
    """All functions of the file that have their own body, in order."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[Function, FunctionNode]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                if not any(isinstance(base, ast.Name) and base.id == "Protocol" for base in child.bases):
                    yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, FunctionNode):
                if child.name not in WITHOUT_DECISION and _body(child):
                    first = min([child.lineno, *(one.lineno for one in child.decorator_list)])
                    yield Function(path, prefix + child.name, child.lineno, first), child
            else:
                yield from walk(child, prefix)

    return list(walk(module, ""))


def mutations(path: str, source: str) -> list[Mutation]:
    """All mutations of the file, in line order, without duplicates."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: dict[tuple[int, int, str], Mutation] = {}
    for function, node in functions(path, ast.parse(source)):
        for one in (*_returns(function, node, starts), *_expressions(function, node, starts, source)):
            found.setdefault((one.start, one.end, one.text), one)
    return sorted(found.values(), key=lambda one: (one.line, one.start, one.kind.name, one.text))


def choose(every: Iterable[Mutation], seed: int) -> list[Mutation]:
    """One mutation of each function that makes a decision; the same seed gives the same mutations.

    The choice for a function depends only on the seed, its name and its own mutations: an edit of one function does not
    change the choice for the others.
    """
    grouped: dict[Function, list[Mutation]] = {}
    for one in every:
        grouped.setdefault(one.function, []).append(one)
    chosen = []
    for function, own in grouped.items():
        kinds = sorted({one.kind for one in own}, key=lambda kind: kind.name)
        if kinds == [Kind.RETURN] and not function.public:
            continue
        chance = random.Random(f"{seed} {function.path} {function.name}")
        kind = chance.choice(kinds)
        chosen.append(chance.choice([one for one in own if one.kind is kind]))
    return chosen


def compiles(text: str) -> bool:
    """Whether a mutated file is valid Python: the tests would fail on an invalid one for an irrelevant reason."""
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _body(node: FunctionNode) -> list[ast.stmt]:
    """The body without the docstring; empty for a stub."""
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    stub = all(
        isinstance(one, ast.Pass | ast.Raise) or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        for one in body
    )
    return [] if stub else body


def _offset(starts: list[int], line: int, column: int) -> int:
    return starts[line - 1] + column


def _returns(function: Function, node: FunctionNode, starts: list[int]) -> Iterator[Mutation]:
    """The function returns at once: its first argument (the previous value) if the types agree, an empty value of
    its type, or None."""
    first = _body(node)[0]
    name = node.name
    if name in ("__init__", "__post_init__") or node.lineno == first.lineno:
        return
    if isinstance(first, ast.Return) and (first.value is None or isinstance(first.value, ast.Constant)):
        return
    start = _offset(starts, first.lineno, first.col_offset)
    for value in _values(node):
        text = f"return {value}; " if not isinstance(first, _COMPOUND) else f"return {value}\n{' ' * first.col_offset}"
        yield Mutation(function, Kind.RETURN, first.lineno, first.col_offset, start, start, text, "")


_COMPOUND = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match, ast.FunctionDef, ast.ClassDef, ast.AsyncFor)


def _values(node: FunctionNode) -> tuple[str, ...]:
    generator = any(isinstance(one, ast.Yield | ast.YieldFrom) for one in ast.walk(node))
    if generator or node.returns is None:
        return ("",)
    annotation = ast.unparse(node.returns)
    arguments = [one for one in node.args.args if one.arg not in ("self", "cls") and one.annotation]
    same = [one.arg for one in arguments if one.annotation and ast.unparse(one.annotation) == annotation]
    if same:
        return (same[0],)
    plain = annotation.split("[")[0].strip()
    if plain in EMPTY and "|" not in annotation.split("]")[-1]:
        return EMPTY[plain]
    return ("None",)


def _expressions(function: Function, node: FunctionNode, starts: list[int], source: str) -> Iterator[Mutation]:
    raw = source.encode()

    def edit(kind: Kind, old: ast.expr, text: str) -> Mutation:
        assert old.end_lineno is not None and old.end_col_offset is not None
        start = _offset(starts, old.lineno, old.col_offset)
        end = _offset(starts, old.end_lineno, old.end_col_offset)
        was = raw[start:end].decode()
        return Mutation(function, kind, old.lineno, old.col_offset, start, end, text, was)

    for one in _deciding(_body(node)):
        if isinstance(one, ast.Compare) and len(one.ops) == 1:
            flipped = ast.Compare(one.left, [FLIPPED[type(one.ops[0])]()], one.comparators)
            yield edit(Kind.COMPARISON, one, f"({ast.unparse(flipped)})")
        elif isinstance(one, ast.BoolOp):
            other: ast.boolop = ast.Or() if isinstance(one.op, ast.And) else ast.And()
            yield edit(Kind.BOOLEAN, one, f"({ast.unparse(ast.BoolOp(other, one.values))})")
        elif isinstance(one, ast.UnaryOp) and isinstance(one.op, ast.Not):
            yield edit(Kind.BOOLEAN, one, f"bool({ast.unparse(one.operand)})")
        elif isinstance(one, ast.If | ast.While | ast.IfExp) and not _negated(one.test):
            yield edit(Kind.BOOLEAN, one.test, f"(not {ast.unparse(one.test)})")
        elif isinstance(one, ast.Constant) and isinstance(one.value, bool):
            yield edit(Kind.CONSTANT, one, str(not one.value))
        elif isinstance(one, ast.Constant) and isinstance(one.value, int | float):
            yield edit(Kind.CONSTANT, one, repr(one.value + 1))


def _negated(test: ast.expr) -> bool:
    """Whether the other kinds of mutation already negate this test."""
    negated = isinstance(test, ast.BoolOp) or (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))
    return negated or (isinstance(test, ast.Compare) and len(test.ops) == 1)


def _deciding(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """The nodes that may make a decision: no assertions, exceptions, annotations, or text for people.

    Python 3.11 does not know the positions of the parts of an f-string.
    """
    for node in nodes:
        if isinstance(node, ast.Assert | ast.Raise | ast.JoinedStr):
            continue
        yield node
        if isinstance(node, ast.AnnAssign):
            yield from _deciding([node.target, *([node.value] if node.value else [])])
        elif isinstance(node, FunctionNode):
            yield from _deciding(node.body)
        else:
            yield from _deciding(ast.iter_child_nodes(node))

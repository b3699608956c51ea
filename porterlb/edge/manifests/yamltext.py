"""YAML text to plain JSON values with positions, read the way kubectl reads it.

PyYAML's own constructor follows YAML 1.1 to the letter: it makes a date of ``2024-01-01`` and the number 3870001 of
the BGP community ``64500:1``. Kubernetes does neither, so scalars are resolved here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NODES_AT_MOST = 500_000  # of one document, aliases counted each time: an alias bomb ends here
DEPTH_AT_MOST = 100

_INT = re.compile(r"^[-+]?(0|[1-9][0-9_]*|0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)$")
_FLOAT = re.compile(
    r"^([-+]?([0-9][0-9_]*)?\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*(\.[eE]|\.|[eE])[-+]?[0-9]*|"
    r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
)
_BOOL = re.compile(r"^(yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
_NULL = re.compile(r"^(~|null|Null|NULL|)$")


class _Loader(Base):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 — filled below, shared by design


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOL, list("yYnNtTfFoO"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])


class Unreadable(Exception):
    """The text is not what it should be. ``line``: counted from 1. The message is a sentence."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(frozen=True, slots=True)
class Tree:
    """One document: its value, and the YAML node that it came from."""

    value: Any
    node: Any

    @property
    def line(self) -> int:
        """Where the document starts, counted from 1."""
        return int(self.node.start_mark.line) + 1


def documents(text: str) -> Iterator[Tree]:
    """The documents of a YAML stream, empty ones left out.

    Raises:
        Unreadable: where the text stops being YAML; documents before that have been yielded.
    """
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:
        raise _unreadable(error) from None
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None and node.tag != "tag:yaml.org,2002:null":
                yield Tree(_Builder().value(node), node)
    except yaml.YAMLError as error:
        raise _unreadable(error) from None
    except RecursionError:
        raise Unreadable(1, "The document is nested too deeply.") from None
    finally:
        loader.dispose()


def line_of(node: Any, path: tuple[str | int, ...]) -> int:
    """The line (from 1) of a field of a document, or of the nearest parent that is there."""
    line = int(node.start_mark.line) + 1
    for step in path:
        found = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == step:
                    found, line = value, int(key.start_mark.line) + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            found = node.value[step]
            line = int(found.start_mark.line) + 1
        if found is None:
            break
        node = found
    return line


class _Builder:
    def __init__(self) -> None:
        self.count = 0

    def value(self, node: Any, depth: int = 0) -> Any:
        self.count += 1
        if self.count > NODES_AT_MOST or depth > DEPTH_AT_MOST:
            raise Unreadable(node.start_mark.line + 1, "The document is too big or nested too deeply.")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        return self._mapping(node, depth)

    def _mapping(self, node: Any, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, item in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise Unreadable(key.start_mark.line + 1, "The key of a field must be a plain word.")
            if key.tag == "tag:yaml.org,2002:merge":
                parts = item.value if isinstance(item, yaml.SequenceNode) else [item]
                for part in parts:
                    if not isinstance(part, yaml.MappingNode):
                        raise Unreadable(key.start_mark.line + 1, "Only mappings can be merged with <<.")
                    merged = {**self._mapping(part, depth + 1), **merged}
                continue
            if key.value in result:
                raise Unreadable(key.start_mark.line + 1, f"The field {key.value!r} is there twice.")
            result[key.value] = self.value(item, depth + 1)
        return {**merged, **result} if merged else result


def _scalar(node: Any) -> Any:
    tag, text = node.tag, node.value
    if tag == "tag:yaml.org,2002:str":
        return text
    if tag == "tag:yaml.org,2002:bool":
        return text.lower() in ("yes", "true", "on")
    if tag == "tag:yaml.org,2002:null":
        return None
    try:
        if tag == "tag:yaml.org,2002:int":
            return _integer(text)
        if tag == "tag:yaml.org,2002:float":
            return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return text
    if tag in ("tag:yaml.org,2002:binary", "tag:yaml.org,2002:timestamp"):
        return text
    raise Unreadable(node.start_mark.line + 1, f"The YAML tag {tag!r} is not known.")


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if digits.startswith(("0x", "0b", "0o")):
        return sign * int(digits, 0)
    if len(digits) > 1 and digits.startswith("0"):
        return sign * int(digits, 8)
    return sign * int(digits)


def _unreadable(error: yaml.YAMLError) -> Unreadable:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).split("\n", maxsplit=1)[0]
    return Unreadable((mark.line + 1) if mark else 1, f"This is not valid YAML: {problem}.")

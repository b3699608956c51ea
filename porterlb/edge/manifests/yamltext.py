"""YAML text to plain JSON values with positions, read the way kubectl reads it.

PyYAML's own constructor follows YAML 1.1 exactly: it turns ``2024-01-01`` into a date, and the BGP community
``64500:1`` into the number 3870001. Kubernetes does neither, so scalars are resolved here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from porterlb.core.depth import MOST

Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NODES_AT_MOST = 500_000  # per document; aliases count each time, which stops an alias bomb
DEPTH_AT_MOST = MOST
"""Levels of one document. libyaml's own composer recurses in C without a limit, and 30,000 levels end the process
with a segmentation fault. Therefore it is used for texts only that cannot have that many; for others, nodes are
composed here from events, which libyaml makes without recursion. That takes more than twice as long."""
SAFE_DEPTH = 2000  # levels that libyaml's composer can do with a stack of 1 MB
SAFE_LENGTH = 2 * NODES_AT_MOST  # characters; a value has two at least, with its sign of separation

_INT = re.compile(r"^[-+]?(0|[1-9][0-9_]*|0o?[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+)$")
_FLOAT = re.compile(
    r"^([-+]?([0-9][0-9_]*)?\.[0-9][0-9_]*([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*(\.[eE]|\.|[eE])[-+]?[0-9]*|"
    r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
)
_BOOL = re.compile(r"^(yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
_NULL = re.compile(r"^(~|null|Null|NULL|)$")


_STR, _SEQ, _MAP = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map")
_DEFAULTS: dict[type, str] = {yaml.ScalarNode: _STR, yaml.SequenceNode: _SEQ, yaml.MappingNode: _MAP}
_PLAIN: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
"""By the first character of a plain scalar: the tags that it may have."""

for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", _BOOL, list("yYnNtTfFoO")),
    ("tag:yaml.org,2002:int", _INT, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789.")),
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"]),
):
    for _character in _first:
        _PLAIN.setdefault(_character, []).append((_tag, _pattern))


class _Loader(Base):  # type: ignore[misc]
    def resolve(self, kind: type, value: Any, implicit: Any) -> str:
        """The tag of a node without an explicit one. PyYAML's own version takes a third of the time of reading."""
        if kind is yaml.ScalarNode and implicit[0]:
            for tag, pattern in _PLAIN.get(value[:1], ()):
                if pattern.match(value):
                    return tag
        return _DEFAULTS[kind]


class Unreadable(Exception):
    """The text cannot be read. ``line``: counted from 1. The message is a sentence."""

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
        for node in _nodes(loader, text):
            if node.tag != "tag:yaml.org,2002:null":
                yield Tree(_Builder().value(node), node)
    except yaml.YAMLError as error:
        raise _unreadable(error) from None
    finally:
        loader.dispose()


def line_of(node: Any, path: tuple[str | int, ...]) -> int:
    """The line (from 1) of a field of a document, or of its nearest existing parent."""
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


def _nodes(loader: Any, text: str) -> Iterator[Any]:
    """The root node of each document."""
    if Base is not yaml.SafeLoader and _is_safe(text):
        while loader.check_node():
            yield loader.get_node()
        return
    loader.get_event()  # start of the stream
    while not loader.check_event(yaml.StreamEndEvent):
        loader.get_event()  # start of the document
        yield _Composer(loader).node(loader.get_event())
        loader.get_event()


def _is_safe(text: str) -> bool:
    """Whether no document of the text can have more than SAFE_DEPTH levels or NODES_AT_MOST values, its aliases not
    counted. Each level needs a bracket, or begins in a higher column than its parent; a sequence may begin in the
    column of its mapping."""
    columns = max(map(len, text.splitlines()), default=0)
    return len(text) <= SAFE_LENGTH and text.count("[") + text.count("{") + 2 * columns <= SAFE_DEPTH


class _Composer:
    """The nodes of one document, as yaml.composer makes them, within the limits."""

    def __init__(self, loader: Any) -> None:
        self._next = loader.get_event
        self._resolve = loader.resolve
        self._anchors: dict[str, Any] = {}
        self._count = 0

    def node(self, event: Any, depth: int = 0) -> Any:
        """The node that begins with this event."""
        self._count += 1
        if self._count > NODES_AT_MOST or depth > DEPTH_AT_MOST:
            raise _too_much(event, self._count)
        kind = type(event)
        if kind is yaml.AliasEvent:
            if event.anchor not in self._anchors:
                message = f"found undefined alias {event.anchor!r}"
                raise yaml.composer.ComposerError(None, None, message, event.start_mark)
            return self._anchors[event.anchor]
        if kind is yaml.ScalarEvent:
            tag = self._tag(yaml.ScalarNode, event, event.value)
            node = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark, style=event.style)
            return self._anchored(event, node)
        made = yaml.SequenceNode if kind is yaml.SequenceStartEvent else yaml.MappingNode
        node = self._anchored(
            event, made(self._tag(made, event, None), [], event.start_mark, None, flow_style=event.flow_style)
        )
        value, ends, step, depth = node.value, yaml.CollectionEndEvent, self._next, depth + 1
        while not isinstance(item := step(), ends):
            if made is yaml.SequenceNode:
                value.append(self.node(item, depth))
            else:
                value.append((self.node(item, depth), self.node(step(), depth)))
        node.end_mark = item.end_mark
        return node

    def _tag(self, kind: Any, event: Any, value: Any) -> Any:
        return self._resolve(kind, value, event.implicit) if event.tag in (None, "!") else event.tag

    def _anchored(self, event: Any, node: Any) -> Any:
        if event.anchor is not None:
            if event.anchor in self._anchors:
                message = f"found duplicate anchor {event.anchor!r}"
                raise yaml.composer.ComposerError(None, None, message, event.start_mark)
            self._anchors[event.anchor] = node
        return node


class _Builder:
    def __init__(self) -> None:
        self.count = 0

    def value(self, node: Any, depth: int = 0) -> Any:
        self.count += 1
        if self.count > NODES_AT_MOST or depth > DEPTH_AT_MOST:
            raise _too_much(node, self.count)
        kind = type(node)
        if kind is yaml.ScalarNode:
            return node.value if node.tag == _STR else _scalar(node)
        if kind is yaml.SequenceNode:
            return [self.value(item, depth + 1) for item in node.value]
        return self._mapping(node, depth)

    def _mapping(self, node: Any, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, item in node.value:
            if type(key) is not yaml.ScalarNode:
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


def _too_much(at: Any, count: int) -> Unreadable:
    many = f"The document has more than {NODES_AT_MOST} values."
    deep = f"The document is nested deeper than {DEPTH_AT_MOST} levels."
    return Unreadable(at.start_mark.line + 1, many if count > NODES_AT_MOST else deep)


def _unreadable(error: yaml.YAMLError) -> Unreadable:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).split("\n", maxsplit=1)[0]
    return Unreadable((mark.line + 1) if mark else 1, f"This is not valid YAML: {problem}.")

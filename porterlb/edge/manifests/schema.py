"""Validates manifests against the schemas of the custom resource definitions and fills in defaults, as an API server.

Stricter than an API server in one respect: an unknown field is refused (as by ``kubectl apply``), because a mistyped
field must not be dropped silently.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from porterlb import crds
from porterlb.core import names

if TYPE_CHECKING:  # loaded by the first object of a custom kind that is new: it takes 50 ms
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, as a sentence, and at which field."""

    path: tuple[str | int, ...]
    message: str


RULES: Mapping[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], bool]]] = {
    "self.metadata.name == 'default'": (("metadata", "name"), lambda o: o["metadata"]["name"] == "default"),
    "!(has(self.authPassword) && self.authPassword != '' && has(self.authPasswordSecret))": (
        ("authPassword",),
        lambda o: not (o.get("authPassword") and "authPasswordSecret" in o),
    ),
}
"""The CEL rules of the definitions, each with the field to point at and the same rule in Python: there is no CEL
evaluator here, unlike in an API server."""


def judge(kind: str, obj: Mapping[str, Any]) -> Fault | None:
    """The first fault of an object of a custom kind (nulls already left out); None if it is good."""
    errors = sorted(
        _validator(kind).iter_errors(obj),
        # A mistyped name is also reported as a missing one: the former says more.
        key=lambda e: (len(e.absolute_path), e.validator != "additionalProperties", str(e.absolute_path)),
    )
    if errors:
        return _fault(errors[0])
    return _broken_rule(crds.schema(kind), obj, ())


def judge_status(kind: str, status: Mapping[str, Any]) -> Fault | None:
    """The same for the new status of an object."""
    errors = list(_status_validator(kind).iter_errors(status))
    return _fault(errors[0], ("status",)) if errors else None


def with_defaults(kind: str, obj: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the defaults of the schema filled in wherever their parent exists."""
    filled: dict[str, Any] = _fill(crds.schema(kind), obj)
    return filled


def without_nulls(value: Any) -> Any:
    """A copy without the fields that are null: to an API server they are absent."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


@cache
def _validator(kind: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    schema = _strict(crds.schema(kind))
    head = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    return Draft202012Validator({**schema, "properties": {**schema["properties"], **head}})


@cache
def _status_validator(kind: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator  # noqa: PLC0415

    return Draft202012Validator(_strict(crds.schema(kind)["properties"]["status"]))


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An OpenAPI schema as a JSON schema that refuses unknown fields."""
    result = {key: value for key, value in schema.items() if key not in ("description", "default", "format")}
    if "properties" in schema:
        result["properties"] = {name: _strict(child) for name, child in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _strict(schema["additionalProperties"])
    if "items" in schema:
        result["items"] = _strict(schema["items"])
    return result


def _fill(schema: Mapping[str, Any], value: Any) -> Any:
    if isinstance(value, Mapping):
        children: Mapping[str, Any] = schema.get("properties", {})
        others = schema.get("additionalProperties")
        result = {}
        for name, item in value.items():
            child = children.get(name, others if isinstance(others, Mapping) else None)
            result[name] = _fill(child, item) if child else item
        for name, child in children.items():
            if name not in result and "default" in child:
                result[name] = child["default"]
        return result
    if isinstance(value, list) and "items" in schema:
        return [_fill(schema["items"], item) for item in value]
    return value


def _broken_rule(schema: Mapping[str, Any], value: Any, path: tuple[str | int, ...]) -> Fault | None:
    for rule in schema.get("x-kubernetes-validations", ()):
        field, holds = RULES[rule["rule"]]
        if not holds(value):
            return Fault((*path, *field), rule["message"])
    if isinstance(value, Mapping):
        for name, child in schema.get("properties", {}).items():
            if name in value:
                fault = _broken_rule(child, value[name], (*path, name))
                if fault:
                    return fault
    return None


_RULES = {names.NAME: names.NAME_RULE, names.NAMESPACE: names.NAME_RULE, names.KEY: names.KEY_RULE}
"""The meaning of a pattern of the definitions, in words."""

_TYPES = {"object": "a mapping", "array": "a list", "string": "text", "boolean": "true or false"}


def _fault(error: ValidationError, prefix: tuple[str | int, ...] = ()) -> Fault:
    path = (*prefix, *error.absolute_path)
    name = dotted(path) or "The object"
    instance: Any = error.instance
    shown = _short(instance)
    limit: Any = error.validator_value
    within: Any = error.schema
    if error.validator == "required":
        missing = next(field for field in limit if field not in instance)
        return Fault(path, f"{dotted((*path, missing))} is missing.")
    if error.validator == "additionalProperties":
        known = list(within.get("properties", {}))
        unknown = next(field for field in instance if field not in known)
        near = difflib.get_close_matches(str(unknown), known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return Fault((*path, unknown), f"There is no field {dotted((*path, unknown))}.{hint}")
    if error.validator == "type":
        wanted = {"integer": "a whole number", **_TYPES}.get(str(limit), str(limit))
        quote = ' Put it in quotes: "..."' if limit == "string" and not isinstance(instance, (dict, list)) else ""
        return Fault(path, f"{name} must be {wanted}, not {shown}.{quote}")
    if error.validator == "enum":
        return Fault(path, f"{name} must be one of {', '.join(map(str, limit))}; it is {shown}.")
    if error.validator in ("minimum", "maximum"):
        word = "at least" if error.validator == "minimum" else "at most"
        return Fault(path, f"{name} must be {word} {limit}; it is {shown}.")
    if error.validator == "minLength":
        return Fault(path, f"{name} must not be empty.")
    if error.validator in ("maxLength", "maxItems"):
        return Fault(path, f"{name} is too long: at most {limit}.")
    if error.validator == "pattern" and limit in _RULES:
        return Fault(path, f"{name}: {shown} is not a valid name: {_RULES[limit]}.")
    if error.validator == "pattern":
        return Fault(path, f"{name} must match {limit}; it is {shown}.")
    if error.validator == "anyOf":
        return Fault(path, f"{name} must be a number or text, not {shown}.")
    return Fault(path, f"{name}: {error.message}.")


def dotted(path: tuple[str | int, ...]) -> str:
    """A path as people write it: ``spec.advertise[0].med``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.lstrip(".")


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."

"""The metadata that every API object has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from porterlb.core.names import NAME_RULE, is_name
from porterlb.core.parse.fields import Fields, show
from porterlb.core.problems import Problem, Reason

DOMAINS = ("porter.kubesphere.io", "openelb.kubesphere.io")
"""The two spellings of our annotations; the first one takes precedence if both are set."""


@dataclass(frozen=True, slots=True)
class Meta:
    """``created``: RFC 3339 text. ``name`` is empty if the object has none."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    created: str = ""
    resource_version: str = ""
    generation: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    def annotation(self, kind: str, version: str) -> str:
        """``<kind>.porter.kubesphere.io/<version>`` or the same with ``openelb``; empty if there is none."""
        for domain in DOMAINS:
            value = self.annotations.get(f"{kind}.{domain}/{version}", "").strip()
            if value:
                return value
        return ""

    def given(self, kind: str, version: str) -> str:
        """The path of the annotation that :meth:`annotation` reads."""
        keys = [f"{kind}.{domain}/{version}" for domain in DOMAINS]
        key = next((key for key in keys if self.annotations.get(key, "").strip()), keys[0])
        return f"metadata.annotations[{key}]"


def parse_meta(obj: Mapping[str, Any]) -> Meta:
    """The metadata of any object; invalid values are empty, because the API server has validated them."""
    meta = obj.get("metadata") if isinstance(obj, Mapping) else None
    if not isinstance(meta, Mapping):
        return Meta()
    generation = meta.get("generation")
    return Meta(
        name=_text(meta.get("name")),
        namespace=_text(meta.get("namespace")),
        uid=_text(meta.get("uid")),
        created=_text(meta.get("creationTimestamp")),
        resource_version=_text(meta.get("resourceVersion")),
        generation=generation if isinstance(generation, int) and not isinstance(generation, bool) else 0,
        labels=_texts(meta.get("labels")),
        annotations=_texts(meta.get("annotations")),
    )


def top(obj: Mapping[str, Any], problems: list[Problem]) -> tuple[Meta, Fields]:
    """The metadata and the spec of one of our own kinds, both of which it must have."""
    fields = Fields(obj if isinstance(obj, Mapping) else {}, "", problems)
    meta = parse_meta(obj)
    if not meta.name:
        fields.missing("metadata.name", "every object needs a name")
    elif not is_name(meta.name):
        fields.wrong("metadata.name", f"{show(meta.name)} is not a valid name: {NAME_RULE}.")
    if fields.raw("spec") is None:
        fields.missing("spec", "it says what is wanted")
    for known in ("apiVersion", "kind", "metadata", "status"):
        fields.raw(known)
    fields.done()
    return meta, fields.object("spec")


def is_fatal(problems: list[Problem]) -> bool:
    """Whether an object with these problems cannot be used."""
    return any(problem.fatal for problem in problems)


def duplicate_spellings(meta: Meta, kind: str, version: str, problems: list[Problem]) -> None:
    """Warns if the two spellings of an annotation contradict each other."""
    values = [meta.annotations.get(f"{kind}.{domain}/{version}", "").strip() for domain in DOMAINS]
    if all(values) and values[0] != values[1]:
        problems.append(
            Problem(
                Reason.INVALID_FIELD,
                f"differs from {kind}.{DOMAINS[1]}/{version}, which is ignored.",
                meta.given(kind, version),
                fatal=False,
            )
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {key: text for key, text in value.items() if isinstance(key, str) and isinstance(text, str)}

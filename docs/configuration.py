"""Writes docs/configuration.md from the schemas of the custom resources and the manager's settings.

python docs/configuration.py          # writes the page
python docs/configuration.py --check  # exit code 1 where it is not what would be written
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from porterlb import crds
from porterlb.cli.manager import HTTP, SHARED, documentation, environment
from porterlb.settings import PROFILES, Settings

PAGE = Path(__file__).with_name("configuration.md")

Schema = Mapping[str, Any]

HEAD = """\
# Configuration

<!-- Made by docs/configuration.py from porterlb/crds/*.yaml and porterlb/settings.py: change those, then run it. -->

Three cluster-scoped custom resources of `network.kubesphere.io/v1alpha2`, annotations of Services, and the settings of
the manager. The field names are those of OpenELB, so that its manifests apply unchanged. A condition of the object
names each field and value that PorterLB does not support. `porterlb crds` prints the definitions.
`kubectl explain eip.spec` shows the same texts.
"""

SERVICES = """\
## Services

PorterLB serves a Service of type LoadBalancer in these cases:

- `spec.loadBalancerClass` is `network.kubesphere.io/porterlb`;
- it has no class, and the annotation `lb.kubesphere.io/v1alpha1` is `porter` or `openelb`;
- it has neither, and the setting `claim_services_without_class` is on.

PorterLB ignores Services of other classes.

{annotations}

The prefix `...openelb.kubesphere.io/...` is accepted for each of them. An Eip with the annotation
`eip.porter.kubesphere.io/is-default-eip: "true"` is used for Services that match no other Eip.

A Node has one annotation for placement: `capacity.porter.kubesphere.io/v1alpha1`, a number from 0.1 to 100 (1 by
default): its share of the VIPs that Layer 2 serves.
"""


ANNOTATIONS = {
    "eip.porter.kubesphere.io/v1alpha1": "the requested address, or two addresses separated by a comma, one of each "
    "family. `spec.loadBalancerIP` has the same effect",
    "eip.porter.kubesphere.io/v1alpha2": "the requested Eip",
    "protocol.porter.kubesphere.io/v1alpha1": "`bgp` or `layer2`: the address comes from an Eip of this protocol, "
    "otherwise from one with `auto`, and the Service is served by this protocol only; `auto`: any Eip",
    "share.porter.kubesphere.io/v1alpha1": "a key: Services of one namespace with the same key can share an address, "
    "on different ports. `metallb.io/allow-shared-ip` (or `metallb.universe.tf/allow-shared-ip`) has the "
    "same effect across all namespaces",
    "weight.porter.kubesphere.io/v1alpha1": "a whole number from 1 to 1000 (1 by default): the weight of each address "
    "of the Service when Layer 2 VIPs are placed by load",
    "layer2.porter.kubesphere.io/v1alpha1": "read only: the Layer 2 next hop as recorded by earlier versions. It is "
    "now in `Eip.status.layer2NextHops`",
}
"""Of Services: what each is for."""


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for kind, definition in crds.load().items():
        names = definition["spec"]["names"]
        schema = crds.schema(kind)
        known = [names["plural"], *names.get("shortNames", [])]
        parts.append(f"## {kind}\n\n{one_line(schema['description'])} `kubectl get {'` or `'.join(known)}`.\n")
        for part in ("spec", "status"):
            parts.append(f"### {kind}.{part}\n\n{one_line(schema['properties'][part].get('description', ''))}\n")
            rows = list(fields(schema["properties"][part]))
            parts.append(table(("field", "type", "meaning"), rows))
            parts += rules(schema["properties"][part])
    rows = [(f"`{name}`", said) for name, said in ANNOTATIONS.items()]
    services = SERVICES.replace("{annotations}\n", table(("annotation", "meaning"), rows))
    return "\n".join([*parts, services, settings()])


def fields(schema: Schema, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, type, meaning) of every field below an object, depth first."""
    required = set(schema.get("required", ()))
    for name, field in (schema.get("properties") or {}).items():
        path = f"{prefix}{name}"
        yield f"`{path}`" + (" *" if name in required else ""), type_of(field), meaning(field)
        yield from nested(field, path)
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping) and more.get("properties"):
        yield from fields(more, f"{prefix}<name>.")


def nested(field: Schema, path: str) -> Iterator[tuple[str, str, str]]:
    if field.get("type") == "array" and field["items"].get("properties"):
        yield from fields(field["items"], f"{path}[].")
    elif field.get("type") == "object":
        yield from fields(field, f"{path}.")


def type_of(field: Schema) -> str:
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {type_of(field['items'])}"
    more = field.get("additionalProperties")
    if kind == "object" and isinstance(more, Mapping):
        return f"{type_of(more)} by name"
    return "int or string" if field.get("x-kubernetes-int-or-string") else kind


def meaning(field: Schema) -> str:
    said = [one_line(field.get("description", ""))]
    if "enum" in field:
        said.append(f"One of {', '.join(f'`{value}`' for value in field['enum'])}.")
    low, high = field.get("minimum"), field.get("maximum")
    if low is not None and high is not None:
        said.append(f"{low} to {high}.")
    elif low is not None:
        said.append(f"{low} or more.")
    if "default" in field:
        said.append(f"Default: `{text(field['default'])}`.")
    said += [one_line(rule["message"]) for rule in field.get("x-kubernetes-validations", ())]
    return " ".join(filter(None, said)).replace("|", "\\|")


def rules(schema: Schema) -> list[str]:
    """What the API server checks of the object as a whole."""
    return [f"- {one_line(rule['message'])}\n" for rule in schema.get("x-kubernetes-validations", ())]


def settings() -> str:
    """The manager's settings, from the dataclass that holds them."""
    texts = documentation()
    rows = []
    for setting in dataclasses.fields(Settings):
        name = setting.name
        if name in HTTP:
            continue
        option = f"`--{name.replace('_', '-')}`"
        variable = {"cluster": "PORTERLB_CLUSTER", "namespace": "POD_NAMESPACE"}.get(name, "") if name in SHARED else ""
        variable = variable or ("" if name in SHARED else environment(name))
        default = "" if setting.default in ("", dataclasses.MISSING) else f"Default: `{text(setting.default)}`."
        said = texts.get(name, "").replace("``", "`")
        rows.append((option, f"`{variable}`" if variable else "", f"{said} {default}".strip()))
    served = "Address and port of /healthz, /readyz, /metrics and /state. Default: `127.0.0.1:7472`."
    rows.append(("`--http`", "`PORTERLB_HTTP`", served))
    profiles = [
        f"- `--profile {name}` (`PORTERLB_PROFILE`): {', '.join(f'{key} {value}' for key, value in values.items())}\n"
        for name, values in PROFILES.items()
        if values
    ]
    head = "## Settings of the manager\n\nOptions of `porterlb manager`, or environment variables. "
    head += "Times are in seconds.\n"
    return "\n".join([head, table(("option", "variable", "meaning"), rows), *profiles])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def one_line(sentence: str) -> str:
    return " ".join(sentence.split())


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        return int(PAGE.read_text() != page())
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The file for a bug report: objects, states, logs, metrics and recordings, without secrets."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from porterlb.cli.loading import KINDS, Loaded
from porterlb.cli.replicas import Asked
from porterlb.core.doctor.redact import redacted, secrets_in, without
from porterlb.errors import PorterError

FOLDER = "porterlb-bundle"

RECORDING = "recording.jsonl"
"""The recording of a replica. It contains no secrets, and a replay needs it unchanged."""


def contents(report: Mapping[str, Any], found: Loaded | None, asked: Asked, texts: Mapping[str, str]) -> dict[str, str]:
    """The files by name. Secrets are never read; values of fields with a secret's name are removed everywhere."""
    objects = {kind.plural: [obj for _, obj in found.each(kind.kind)] for kind in KINDS} if found else {}
    values: dict[str, Any] = {"doctor.json": report}
    values |= {f"objects/{name}.json": some for name, some in objects.items()}
    values |= {f"states/{node}.json": state.state for node, state in sorted(asked.states.items())}
    if asked.silent:
        values["states/silent.json"] = dict(asked.silent)
    if found:
        leases = {
            lease.name: {"holder": lease.holder, "annotations": dict(lease.annotations)} for lease in found.leases
        }
        values["leases.json"] = leases
    secrets = secrets_in(values.values())
    files = {name: json.dumps(redacted(value), indent=1, ensure_ascii=False) for name, value in values.items()}
    files |= {f"replicas/{name}": text for name, text in sorted(texts.items())}
    return {name: text if name.endswith(f"/{RECORDING}") else without(text, secrets) for name, text in files.items()}


def write(path: Path, files: Mapping[str, str]) -> None:
    """A gzipped tar archive that only its owner may read. Raises PorterError if it cannot be written."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(number, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
            for name, text in files.items():
                data = text.encode()
                entry = tarfile.TarInfo(f"{FOLDER}/{name}")
                entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
                archive.addfile(entry, io.BytesIO(data))
    except OSError as error:
        raise PorterError(f"{path} cannot be written: {error.strerror or error}.", "Give another FILE.") from None

"""Makes another release of an image; run by the image's own Python. Its version differs, and its hellos have one more
field."""

from __future__ import annotations

import compileall
import importlib.util
from importlib.metadata import distribution
from pathlib import Path
from py_compile import PycInvalidationMode

RELEASE = "99.0.0"
FIELD = 250
"""A field type that no release has."""
RETURN = "    return bytes(data)\n"


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, f"{path} has {text.count(old)} times {old!r}"
    path.write_text(text.replace(old, new))


def main() -> None:
    installed = distribution("porterlb")
    (metadata,) = (path for path in installed.files or () if path.name == "METADATA")
    replace(Path(str(installed.locate_file(metadata))), f"\nVersion: {installed.version}\n", f"\nVersion: {RELEASE}\n")
    codec = importlib.util.find_spec("porterlb.core.hello.codec")
    assert codec is not None and codec.origin is not None
    replace(Path(codec.origin), RETURN, f'    data += _FIELD.pack({FIELD}, 5) + b"later"\n{RETURN}')
    assert compileall.compile_file(
        codec.origin, force=True, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )


if __name__ == "__main__":
    main()

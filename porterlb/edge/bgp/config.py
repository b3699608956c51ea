"""The configuration file of ExaBGP."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

from porterlb.core import exabgp_text as text
from porterlb.core.bgp.config import Config
from porterlb.edge.bgp.process import folder

API_SOCKET = "api.sock"
"""The socket in the run directory that the API process connects to."""


def content(config: Config, run_dir: Path, silence_after: float) -> str:
    """The text of exabgp.conf."""
    run = [sys.executable, "-IS", str(folder() / "api.py"), str(run_dir / API_SOCKET), str(silence_after)]
    return text.configuration(config.sessions.values(), run, config.listen)


def secrets(config: Config) -> set[str]:
    """The texts that may be written only to the configuration."""
    passwords = {session.password for session in config.sessions.values() if session.password}
    return passwords | {base64.b64encode(password.encode()).decode() for password in passwords}


def write(content: str, path: Path) -> None:
    """Writes a file that no other user can read: completely, or not at all."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    new.replace(path)

"""A page of docs/ as its reader follows it: the fenced blocks, and a shell that runs them one after another."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.host import Host
from lab.netns import LabError

CHECKOUT = Path(__file__).resolve().parents[1]
DOCS = CHECKOUT / "docs"
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$|^## ([^\n]*)$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block. ``section``: the heading above it. ``language``: the word after its fence. ``line``: its line
    in the page, from 1."""

    page: str
    section: str
    line: int
    language: str
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, in order. ``page``: below docs/."""
    text, section, found = (DOCS / page).read_text(), "", []
    for each in _FENCED.finditer(text):
        if each[3] is not None:
            section = each[3]
        else:
            found.append(Block(page, section, text[: each.start()].count("\n") + 1, each[1], each[2]))
    return found


@dataclass
class Desk:
    """A reader's machine: a host of the lab.

    ``folder``: for the programs of ``commands``, by the name that the page uses. ``here``: the current folder, a
    checkout by default. ``replaced``: the texts that the reader must replace, with their values; longer texts first.
    """

    host: Host
    folder: Path
    replaced: Mapping[str, str]
    commands: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)
    here: Path = CHECKOUT

    def __post_init__(self) -> None:
        for name, program in self.commands.items():
            path = self.folder / name
            path.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            path.chmod(0o755)

    def attempt(self, script: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """Runs a shell script, which ends at the first command that fails."""
        path = os.pathsep.join([str(self.folder), os.environ["PATH"]])
        given = {"PATH": path, "HOME": str(self.folder), **self.environment}
        exported = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in given.items())
        text = f"set -e\ncd {self.here}\n{exported}{script}"
        return self.host.run(["sh", "-c", text], check=False, timeout=timeout)

    def run(self, script: str, timeout: float = 180) -> str:
        """The output of a shell script. Raises LabError if a command fails."""
        done = self.attempt(script, timeout)
        if done.returncode != 0:
            raise LabError(f"exit code {done.returncode} of:\n{script}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def own(self, text: str) -> str:
        """A text of the page with the reader's values."""
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        return text

    def follow(
        self, page: str, others: Mapping[str, Callable[[str], object]] | None = None, *, section: str = ""
    ) -> str:
        """Runs the shell blocks of a page in order, and passes blocks in other languages to ``others``. Returns the
        output. ``section``: the heading of the only section to follow. Raises LabError with the place in the page."""
        said = []
        here = [block for block in blocks(page) if section in ("", block.section)]
        assert here, f"docs/{page} has no block in {section or 'it'}"
        for block in here:
            text = self.own(block.text)
            try:
                if block.language == "sh":
                    said.append(self.run(text))
                elif others and block.language in others:
                    others[block.language](text)
            except LabError as error:
                raise LabError(f"docs/{page}, line {block.line}: {error}") from None
        return "\n".join(said)

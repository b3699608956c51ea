"""Help and completion: the imports, the offered words, and the names of objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click
import pytest

from porterlb.cli.completion import SHELLS
from porterlb.cli.main import COMMANDS, cli, run
from porterlb.core.history import History
from porterlb.core.status.state import state_of
from porterlb.release import release
from tests.cli.conftest import NODES, Folder
from tests.cli.test_replicas import write
from tests.core.stage import situation, snapshot

HEAVY = ("asyncio", "aiohttp", "kubernetes", "yaml", "rich", "porterlb.core.plan", "importlib.metadata")
"""Modules that would make the user wait."""


def completed(folder: Folder, *words: str) -> list[str]:
    """Bash's suggestions for the last word."""
    env = {
        **os.environ,
        "PORTERLB_CLUSTER": f"dir:{folder.path}",
        "_PORTERLB_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("porterlb", *words)),
        "COMP_CWORD": str(len(words)),
    }
    code = "import sys; sys.argv[0] = 'porterlb'; from porterlb.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=env, check=False
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_every_command_is_there_with_its_help() -> None:
    context = click.Context(cli)
    assert cli.list_commands(context) == list(COMMANDS)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None and command.name == name and command.help
    assert cli.get_command(context, "nonsense") is None


def test_help_loads_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, (_, text) in COMMANDS.items():
        assert f"  {name} " in shown and text in " ".join(shown.split())
    code = (
        "import sys; from porterlb.cli.main import run; run(['--help']); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_PORTERLB_COMPLETE={shell}_complete" in script and "%(" not in script


def test_commands_options_and_names_are_completed(folder: Folder) -> None:
    assert completed(folder, "hist") == ["history"]
    assert completed(folder, "drain", "node-") == list(NODES)
    assert completed(folder, "explain", "default/w") == ["default/web"]
    assert completed(folder, "mode", "--eip", "p") == ["pool"]
    assert completed(folder, "plan", "--without-peer", "") == ["tor"]


def test_a_cluster_that_cannot_be_read_completes_nothing(folder: Folder) -> None:
    folder.path.rename(folder.path / ".." / f"{folder.path.name}-gone")
    assert completed(folder, "drain", "") == []


def test_version(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    assert folder.cli("--version") == 0 and folder.out == f"porterlb, version {release()}\n"
    assert folder.cli("version", "--client") == 0 and folder.out == f"porterlb {release()}\n"
    folder.manage()
    shown = state_of(situation(snapshot("node-a")), History(), now=0.0)
    write(folder, "node-a", {**shown, "host": {"release": "9.9"}})
    write(folder, "node-b", {**shown, "node": "node-b"})
    assert folder.cli("version") == 0
    lines = folder.out.splitlines()
    assert lines[1:3] == ["replica on node-a: 9.9", "replica on node-b: unknown"]
    assert lines[3].startswith("replica on node-c: cannot be asked")
    assert folder.cli("version", "-o", "json") == 0
    assert json.loads(folder.out)["replicas"] == {"node-a": "9.9", "node-b": "unknown"}


def test_version_without_a_cluster(folder: Folder) -> None:
    folder.path.rename(folder.path / ".." / f"{folder.path.name}-gone")
    assert folder.cli("version") == 0 and "The replicas cannot be asked" in folder.out


def test_answers_for_programs_have_a_version(folder: Folder) -> None:
    folder.cli("eip", "list", "-o", "json")
    assert list(json.loads(folder.out)) == ["version", "items"]
    folder.cli("status", "-o", "json")
    assert json.loads(folder.out)["version"] == 1

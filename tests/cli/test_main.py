"""The command line as a program: usage, one-line errors, exit codes, settings."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from porterlb.cli import options
from porterlb.cli.main import run
from porterlb.cli.manager import documentation, host_and_port, settings_from
from porterlb.cli.options import Options
from porterlb.cluster import Denied, Outage
from porterlb.errors import PorterError
from porterlb.settings import Settings
from tests.cli.conftest import Folder


def porterlb(
    *args: str, env: dict[str, str] | None = None, argv0: str = "porterlb"
) -> subprocess.CompletedProcess[str]:
    """The real program in a separate process."""
    code = f"import sys; sys.argv[0] = {argv0!r}; from porterlb.cli.main import main; main()"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PORTERLB_", "NODE_NAME"))}
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean | (env or {}),
        check=False,
    )


def one_line(text: str) -> str:
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text.rstrip("\n")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nonsense"], 2, "porterlb: No such command 'nonsense'. Try 'porterlb --help'."),
        (["eip", "list", "-o", "xml"], 2, "Try 'porterlb eip list --help'."),
        (["mode", "fast"], 2, "Try 'porterlb mode --help'."),
        (
            ["--cluster", "etcd", "status"],
            2,
            "porterlb: 'etcd' is not a cluster. Use --cluster kube or --cluster dir:PATH.",
        ),
        (["--cluster", "dir:", "status"], 2, "porterlb: 'dir:' is not a cluster."),
        (["manager"], 2, "porterlb: The name of the node is not set. Set --node NAME or NODE_NAME."),
        (["manager", "--node", "../n"], 2, "porterlb: '../n' is not the name of a node: lower-case letters"),
        (["--namespace", "a.b", "manager", "--node", "n"], 2, "porterlb: 'a.b' is not the name of a namespace."),
        (["manager", "--node", "n", "--http", "here"], 2, "porterlb: --http: 'here' is not HOST:PORT."),
        (
            ["manager", "--node", "n", "--hello-fresh", "0.01"],
            2,
            "porterlb: hello_fresh (0.01 s) must be at least twice",
        ),
        (["manager", "--node", "n", "--lease-retry", "x"], 2, "Try 'porterlb manager --help'."),
        (["manager", "--node", "n", "--log-level", "loud"], 2, "porterlb: log_level must be one of debug, info,"),
        (["manager", "--node", "n", "--log-format", "xml"], 2, "porterlb: log_format must be text or json, not 'xml'."),
        (
            ["manager", "--node", "n", "--answers", "ebpf"],
            2,
            "porterlb: answers must be one of auto, kernel, userspace,",
        ),
    ],
)
def test_wrong_usage_is_one_line(args: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(args) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in one_line(err)


def test_no_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "manager" in capsys.readouterr().out


def test_a_manifest_without_a_bottom_does_not_end_the_program(tmp_path: Path) -> None:
    """Regression: this was a segmentation fault."""
    (tmp_path / "deep.yaml").write_text("spec: " + "[" * 30_000)
    done = porterlb("--cluster", f"dir:{tmp_path}", "plan")
    assert done.returncode >= 0
    assert "deep.yaml:1: The document is nested deeper than 50 levels." in done.stdout + done.stderr


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("", "manager", "status", "eip list", "peer list", "service list", "plan", "mode", "crds"):
        assert run([*command.split(), "--help"]) == 0
        assert "Usage: porterlb" in capsys.readouterr().out


def test_crds_are_the_definitions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["crds"]) == 0
    found = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [definition["spec"]["names"]["kind"] for definition in found] == ["Eip", "BgpConf", "BgpPeer"]


def test_as_a_plugin_of_kubectl() -> None:
    done = porterlb("nonsense", argv0="/usr/bin/kubectl-porterlb")
    assert one_line(done.stderr) == "kubectl porterlb: No such command 'nonsense'. Try 'kubectl porterlb --help'."


def test_the_cluster_from_the_environment_and_from_options(folder: Folder, tmp_path: Path) -> None:
    env = {"PORTERLB_CLUSTER": f"dir:{folder.path}"}
    assert "pool" in porterlb("eip", "list", env=env).stdout
    elsewhere = tmp_path / "empty"
    elsewhere.mkdir()
    for args in (("--cluster", f"dir:{elsewhere}", "eip", "list"), ("eip", "list", "--cluster", f"dir:{elsewhere}")):
        assert "There is no Eip" in porterlb(*args, env=env).stdout


def test_a_reader_that_has_had_enough(folder: Folder) -> None:
    code = f"from porterlb.cli.main import main; main(['--cluster', 'dir:{folder.path}', 'status', '-o', 'json'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(30) == 1
    with process.stderr:
        assert process.stderr.read() == ""


def test_ctrl_c_ends_quietly(folder: Folder) -> None:
    code = f"from porterlb.cli.main import main; main(['--cluster', 'dir:{folder.path}', 'status', '--watch'])"
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {code}"  # for a background job
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().strip() == ""


def test_every_setting_has_an_option_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["manager", "--help"]) == 0
    shown = capsys.readouterr().out
    texts = documentation()
    for setting in dataclasses.fields(Settings):
        option = "--http" if setting.name.startswith("http_") else f"--{setting.name.replace('_', '-')}"
        assert option in shown, setting.name
        assert texts.get(setting.name), f"{setting.name} has no docstring"


def test_settings_over_the_profile_over_the_defaults() -> None:
    settings = settings_from(Options(cluster="dir:/x"), "[::1]:80", "fast", {"node": "n1", "probe_misses": 5})
    assert settings == Settings(
        "n1",
        cluster="dir:/x",
        http_host="::1",
        http_port=80,
        hello_interval=0.02,
        hello_fresh=0.06,
        probe_interval=0.02,
        probe_misses=5,
    )


@pytest.mark.parametrize("text", ["", "7472", "host:", "host:x", "host:70000", "::1:80:", "fd00::1:80"])
def test_places_that_are_none(text: str) -> None:
    with pytest.raises(PorterError, match="is not HOST:PORT"):
        host_and_port(text)


def test_places() -> None:
    assert host_and_port("127.0.0.1:7472") == ("127.0.0.1", 7472)
    assert host_and_port("[fd00::1]:80") == ("fd00::1", 80)
    assert host_and_port(":80") == ("0.0.0.0", 80)


@pytest.mark.parametrize(
    ("event", "said", "unsaid"),
    [
        (
            Outage("There are no such kinds.", refused=True),
            "The API answers, but refuses: There",
            "reached",
        ),
        (Outage("Nobody answers."), "The cluster cannot be reached: Nobody answers.", "refuses"),
    ],
)
def test_a_cluster_that_refuses_is_not_said_to_be_away(
    event: Outage, said: str, unsaid: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing:
        async def watch(self, kinds: object) -> AsyncIterator[Outage]:
            yield event

        async def objects(self, kind: object) -> list[object]:
            raise Denied("There are no such kinds.")

        async def close(self) -> None:
            pass

    monkeypatch.setattr(options, "open_cluster", lambda *_, **__: Refusing())
    assert run(["eip", "list"]) == 1
    err = capsys.readouterr().err
    assert said in err and unsaid not in err

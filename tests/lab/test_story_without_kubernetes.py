"""docs/stories/without-kubernetes.md on two machines: its commands, its unit file, and then a power loss."""

from __future__ import annotations

import configparser
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.cluster import Lab
from lab.measure import wait_until
from lab.workload import SERVER
from tests.pages import CHECKOUT, Desk, blocks

pytestmark = pytest.mark.lab

PAGE = "stories/without-kubernetes.md"
UNIT = CHECKOUT / "systemd" / "porterlb.service"
PROGRAM = "/opt/porterlb/bin/porterlb"
VIP = "10.77.0.220"


def exec_start(node: str, replaced: Mapping[str, str]) -> list[str]:
    """The command that the unit starts on a node."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(UNIT)
    text = unit["Service"]["ExecStart"].replace("%H", node)
    for old, new in replaced.items():
        text = text.replace(old, new)
    return shlex.split(text)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr, done.stderr


def test_the_page_ends_with_an_address_that_survives_a_machine(tmp_path: Path) -> None:
    python = f"{sys.executable} -m porterlb"
    with Lab(nodes=2, routers=(), pods=0, pod_servers=False) as lab:
        replaced = {"/etc/porterlb/cluster": str(tmp_path / "cluster"), "192.168.1.": "10.77.0."}
        desks = []
        for node in lab.nodes:
            folder = tmp_path / node.name
            folder.mkdir()
            desks.append(Desk(node, folder, replaced, {"porterlb": python}))
            node.start("web", [sys.executable, "-I", "-S", str(SERVER), node.name, "80", "7"])
        machines, pool, kernel, look = [block for block in blocks(PAGE) if block.language == "sh"]
        desks[0].run(desks[0].own(machines.text))
        for node in lab.nodes:
            argv = exec_start(node.name, {PROGRAM: python, **replaced})
            node.start("manager", argv, cwd=CHECKOUT)
        desks[0].run(desks[0].own(pool.text))
        for desk in desks:
            desk.run(desk.own(kernel.text))

        def owner() -> str:
            macs = lab.segment_client.who_has(VIP)
            found = [node.name for node in lab.nodes if node.mac in macs]
            return found[0] if len(found) == 1 else ""

        wait_until(owner, 30, "one machine to answer")

        def told() -> str:
            """The machine that answers, once the page's last command names it."""
            said = " ".join(desks[0].run(desks[0].own(look.text)).split())
            return name if f"Layer 2 {(name := owner())} answers with the MAC of {name}" in said else ""

        first = wait_until(told, 30, "the command to name the machine that answers")[0]
        wait_until(lambda: lab.segment_client.pods_answering(VIP, 3) == {first: 3}, 10, "answers of the web server")
        lab.node(first).power_off()
        (other,) = (node.name for node in lab.nodes if node.name != first)
        wait_until(lambda: owner() == other, 5, "the other machine to answer")
        wait_until(lambda: lab.segment_client.pods_answering(VIP, 3) == {other: 3}, 10, "its web server")

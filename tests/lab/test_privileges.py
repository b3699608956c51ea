"""The privileges of each process of a replica: read from the kernel while it serves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.measure import wait_equal
from porterlb.capabilities import Capability
from tests.lab.product import product

pytestmark = pytest.mark.lab


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in family(int(child)))]


def effective(pid: int) -> set[int]:
    text = Path(f"/proc/{pid}/status").read_text()
    number = int(re.search(r"^CapEff:\s*(\w+)", text, re.MULTILINE)[1], 16)  # type: ignore[index]
    return {bit for bit in range(64) if number >> bit & 1}


def test_raw_sockets_are_for_the_wire_process_alone() -> None:
    with product("manifests", nodes=2, routers=["bird"]) as lab:
        lab.prepare()
        lab.peer(bfd={"enabled": True})
        lab.manage()
        (vip,) = lab.give("web", "auto")
        lab.wait_hops(vip, "node-a", "node-b", timeout=40)
        lab.wait_owner(vip)
        manager, *rest = family(lab.managers["node-a"].pid)
        names = {pid: Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in rest}
        wire = {pid for pid, name in names.items() if "porterlb.wire" in name}
        assert effective(manager) == set()
        assert len(wire) == 1 and all(effective(pid) == {Capability.NET_RAW} for pid in wire)
        speakers = set(rest) - wire
        assert len(speakers) >= 3, names  # ExaBGP and its API process, BFD
        assert any("porterlb.bfd" in names[pid] for pid in speakers)
        for pid in speakers:
            assert effective(pid) <= {Capability.NET_BIND_SERVICE}, names[pid]


def test_the_loader_alone_may_load_programs() -> None:
    with product("manifests", nodes=1, routers=[]) as lab:
        lab.prepare()
        lab.manage(options=("--answers", "kernel"))
        (vip,) = lab.give("web", "segment")
        lab.wait_owner(vip)
        wait_equal(lambda: lab.state("node-a")["wire"]["inKernel"], {"eth0": ""}, 20.0, "the kernel answers")
        manager, *rest = family(lab.managers["node-a"].pid)
        names = {pid: Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in rest}
        assert effective(manager) == set()
        expected = {"porterlb.wire": {Capability.NET_RAW}, "porterlb.loader": {Capability.BPF, Capability.NET_ADMIN}}
        for module, capabilities in expected.items():
            assert [effective(pid) for pid in rest if module in names[pid]] == [capabilities]

"""The data about the node, read from files in the kernel's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from porterlb.edge.host import Host, look

USAGE, LIMIT = "memory/memory.usage_in_bytes", "memory/memory.limit_in_bytes"


def file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_everything_is_read(tmp_path: Path) -> None:
    conf = tmp_path / "proc/sys/net/ipv4/conf"
    file(conf / "all/rp_filter", "1\n")
    file(conf / "eth0/arp_ignore", "8\n")
    file(conf / "eth0/proxy_arp", "x\n")
    file(tmp_path / "sys/class/net/eth0/flags", "0x1003\n")
    file(tmp_path / "sys/class/net/kube-ipvs0/flags", "0x82\n")
    file(tmp_path / "sys/fs/cgroup/memory.current", "1000\n")
    file(tmp_path / "sys/fs/cgroup/memory.max", "4096\n")
    file(tmp_path / "sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 300\n")
    assert look(tmp_path, ["eth0", "gone"]) == {
        "all": {"rp_filter": 1},
        "nics": {"eth0": {"arp_ignore": 8, "multicast": True}},
        "ipvs": True,
        "memory": {"used": 700, "limit": 4096},
    }


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({"memory.current": "9", "memory.max": "max"}, {"used": 9, "limit": None}),
        ({USAGE: "9", LIMIT: str(2**63 - 4096)}, {"used": 9, "limit": None}),
        ({USAGE: "9", LIMIT: "64"}, {"used": 9, "limit": 64}),
        ({}, {}),
    ],
)
def test_memory_of_both_cgroup_versions(tmp_path: Path, files: dict[str, str], memory: dict[str, Any]) -> None:
    for name, text in files.items():
        file(tmp_path / "sys/fs/cgroup" / name, text)
    assert look(tmp_path, [])["memory"] == memory


def test_without_multicast(tmp_path: Path) -> None:
    file(tmp_path / "proc/sys/net/ipv4/conf/tun0/rp_filter", "0")
    file(tmp_path / "sys/class/net/tun0/flags", "0x10d1")
    assert look(tmp_path, ["tun0"])["nics"]["tun0"] == {"rp_filter": 0, "multicast": True}
    file(tmp_path / "sys/class/net/tun0/flags", "0xd1")
    assert look(tmp_path, ["tun0"])["nics"]["tun0"]["multicast"] is False


def test_the_release_is_known_before_anything_is_read() -> None:
    assert Host("1.2.3", list).state() == {"release": "1.2.3"}


def test_this_machine_can_be_read() -> None:
    assert look(Path("/"), ["lo"])["nics"].keys() <= {"lo"}

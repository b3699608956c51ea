"""``porterlb import``: the manager accepts the output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from porterlb.cli.main import run
from porterlb.edge.manifests.documents import load

FILE = Path(__file__).with_name("metallb.yaml")

OPENELB = """
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: eip
  uid: 1
  finalizers: [finalizer.lb.kubesphere.io/v1alpha1]
  annotations: {eip.openelb.kubesphere.io/is-default-eip: "true", kubectl.kubernetes.io/last-applied-configuration: x}
spec: {address: 10.0.0.1-10.0.0.9, protocol: vip, usingKnownIPs: true}
status: {occupied: false}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: default}
spec: {as: 50000, listenPort: 17900, routerId: 10.0.0.5}
"""


def test_metallbs_objects_become_valid_manifests(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", "metallb", str(FILE)]) == 3
    told = capsys.readouterr()
    loaded = load(told.out, "made.yaml")
    assert loaded.troubles == {}
    assert [str(document.key) for document in loaded.documents] == [
        "Eip lan",
        "Eip wan",
        "BgpConf default",
        "BgpPeer other",
        "BgpPeer tor",
    ]
    assert "vrf 'red'" in told.err and "kubectl -n shop annotate service web" in told.err


def test_json_has_manifests_and_remarks(capsys: pytest.CaptureFixture[str]) -> None:
    run(["import", "metallb", str(FILE), "-o", "json"])
    told = json.loads(capsys.readouterr().out)
    assert len(told["manifests"]) == 5
    assert {remark["weight"] for remark in told["remarks"]} == {"not converted", "differs", "to do"}


def test_openelbs_objects_are_cleaned_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "openelb.yaml"
    file.write_text(OPENELB)
    assert run(["import", "openelb", str(file)]) == 3
    told = capsys.readouterr()
    pool, conf = yaml.safe_load_all(told.out)
    assert pool["metadata"] == {"name": "eip", "annotations": {"eip.openelb.kubesphere.io/is-default-eip": "true"}}
    assert "status" not in pool and conf["spec"]["as"] == 50000
    assert '"vip" is not supported' in told.err and "finalizers" in told.err and "usingKnownIPs" in told.err


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("a: [", 2, "This is not valid YAML"),
        ("kind: Pod\napiVersion: v1\n", 1, "There is no object of metallb in the input."),
    ],
)
def test_input_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, words: str
) -> None:
    file = tmp_path / "in.yaml"
    file.write_text(text)
    assert run(["import", "metallb", str(file)]) == code
    assert words in capsys.readouterr().err
    assert run(["import", "metallb", str(tmp_path / "none.yaml")]) == 2
    assert "cannot be read" in capsys.readouterr().err

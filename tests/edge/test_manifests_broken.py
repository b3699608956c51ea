"""Invalid manifests: one sentence with file and line, the last good version stays, all other objects are unaffected."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from porterlb import crds
from porterlb.cluster import Denied, Kind
from porterlb.edge.manifests import directory, edit, schema, yamltext
from porterlb.edge.manifests.documents import Loaded, load
from tests.edge.manifests_support import EIP, opened, service

HEAD = "apiVersion: network.kubesphere.io/v1alpha2\nkind: {kind}\nmetadata:\n  name: {name}\n"


def custom(kind: str, spec: str, name: str = "x") -> str:
    return HEAD.format(kind=kind, name=name) + spec


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 30_000, "a: " + "{b: " * 30_000, "- " * 30_000, "a: &x [*x]", "? " * 30_000]
)
def test_a_document_without_a_bottom_is_refused_and_harms_no_process(text: str) -> None:
    """libyaml's composer recurses in C: 30,000 levels crash a process that uses it with a segmentation fault."""
    loaded = load(text, "deep.yaml")
    assert loaded.documents == () and loaded.doubtful
    assert loaded.troubles == {1: f"The document is nested deeper than {yamltext.DEPTH_AT_MOST} levels."}


def test_a_document_of_too_many_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamltext, "NODES_AT_MOST", 20)
    assert load("a: [" + "1, " * 30 + "]", "big.yaml").troubles == {1: "The document has more than 20 values."}


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: [x, {y: z}]\n",
        "--- a\n---\n---\n- b: c\n  d: |\n    text\n- &n {e: !!str 1}\n- *n\n",
        "# only a comment\n",
        "a: &x {b: 1}\nc: {<<: *x, d: 2}\n? e\n: f\n",
        service("web"),
    ],
)
def test_nodes_are_composed_as_yaml_itself_does(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(node: Any) -> Any:
        marks = (node.tag, node.start_mark.index, node.end_mark.index)
        if isinstance(node, yaml.ScalarNode):
            return marks, node.value
        if isinstance(node, yaml.SequenceNode):
            return marks, [plain(item) for item in node.value]
        return marks, [(plain(key), plain(value)) for key, value in node.value]

    expected = [plain(node) for node in yaml.compose_all(text, Loader=yaml.SafeLoader)]
    for safe_depth in (0, yamltext.SAFE_DEPTH):  # by our own composer, by that of libyaml
        monkeypatch.setattr(yamltext, "SAFE_DEPTH", safe_depth)
        ours = [plain(tree.node) for tree in yamltext.documents(text)]
        assert ours == [node for node in expected if node[0][0] != "tag:yaml.org,2002:null"]


@pytest.mark.parametrize("text", ["[", "{", "- ", "? "])
def test_only_flat_texts_reach_the_composer_of_libyaml(text: str) -> None:
    assert yamltext._is_safe(f"a: {text}x\n" * (yamltext.SAFE_DEPTH // 2))
    assert not yamltext._is_safe(text * (yamltext.SAFE_DEPTH + 1))
    assert not yamltext._is_safe("a: 1\n" * yamltext.SAFE_LENGTH)


def test_a_reader_that_fails_for_one_file_reads_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(text: str, file: str, source: str) -> Loaded:
        if file == "bad.yaml":
            raise ZeroDivisionError
        return load(text, file, source)

    monkeypatch.setattr(directory, "load", fails)
    (tmp_path / "bad.yaml").write_text(service("bad"))
    (tmp_path / "good.yaml").write_text(service("good"))
    found = directory.Directory(tmp_path)
    found.resolve(found.read(), 0.0, 0.0)
    assert [key.name for key in found.published] == ["good"]
    assert list(found.problems()) == ["bad.yaml:1"]


def test_a_field_is_not_edited_in_a_file_that_has_become_too_deep(tmp_path: Path) -> None:
    """Python's own YAML reader, which edits need, also recurses without a limit."""
    text = custom("Eip", "spec: {address: 10.0.0.1}\n")
    (document,) = load(text, "eip.yaml").documents
    path = tmp_path / "eip.yaml"
    path.write_text(f"{text}---\na: {'[' * 30_000}")
    with pytest.raises(Denied, match=r"cannot be changed in eip.yaml: The document is nested deeper"):
        edit.rewrite(path, document, {"protocol": "bgp"})


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("kind: [unclosed\n", 2, "not valid YAML"),
        ("a: 1\nb: {\n", 3, "not valid YAML"),
        ("a: 1\na: 2\n", 2, "'a' is there twice"),
        ("just text\n", 1, "not an object"),
        ("kind: Eip\nspec: {}\n", 1, "apiVersion is missing"),
        ("a: &a [1]\nb: !secret x\n", 2, "tag '!secret' is not known"),
        (custom("EIP", "spec: {address: 10.0.0.1}\n"), 2, "no kind EIP"),
        (custom("Eip", "spec: {address: 10.0.0.1}\n").replace("v1alpha2", "v1alpha1"), 1, "write network"),
        (custom("Eip", "spec:\n  adress: 10.0.0.1\n"), 6, "Did you mean address?"),
        (custom("Eip", "spec:\n  protocol: bgp\n"), 5, "spec.address is missing"),
        (custom("Eip", "spec:\n  address: a\n  protocol: l2\n"), 7, "must be one of auto, bgp, layer2, vip"),
        (custom("Eip", "spec:\n  address: 10\n"), 6, "Put it in quotes"),
        (custom("Eip", "spec:\n  address: a\n  priority: high\n"), 7, "must be a whole number"),
        (custom("Eip", "spec: {address: a}\n", name="A_b"), 4, "is not a valid name"),
        (custom("Eip", "spec: {address: a}\n", name="../../etc"), 4, "is not a valid name"),
        (custom("Eip", "spec: {address: a}\n", name="7"), 4, "must be text"),
        (
            custom("BgpPeer", "spec:\n  conf:\n    authPasswordSecret:\n      name: ..\n"),
            8,
            "is not a valid name: lower",
        ),
        (custom("BgpPeer", "spec:\n  conf:\n    authPasswordSecret:\n      {name: a, key: a/b}\n"), 8, "'-', '_' and"),
        (custom("BgpConf", "spec: {as: 1}\n"), 4, "must be default"),
        (custom("BgpConf", "spec: {as: 0}\n", name="default"), 5, "at least 1"),
        (custom("BgpPeer", "spec:\n  conf: {neighborAddress: a, peerAs: 4294967296}\n"), 6, "at most 4294967295"),
        (
            custom("BgpPeer", "spec:\n  conf:\n    authPassword: a\n    authPasswordSecret: {name: b}\n"),
            7,
            "not both",
        ),
        (custom("BgpPeer", "spec:\n  conf: {}\n  timers: {config: {holdTime: soon}}\n"), 7, "must match"),
        (
            custom("BgpPeer", "spec:\n  conf: {}\n  advertise:\n    - med: 1\n    - communities: [a b]\n"),
            9,
            "spec.advertise[1].communities[0]",
        ),
        (service("web").replace("  name: web", "  name: web\n  annotations:\n    share: true"), 6, "must be text"),
        ("apiVersion: v1\nkind: List\nitems:\n  - apiVersion: v1\n    kind: Service\n", 4, "metadata.name is missing"),
    ],
)
def test_a_sentence_and_its_line(text: str, line: int, words: str) -> None:
    loaded = load(text, "x.yaml")
    assert not loaded.documents
    ((where, message),) = loaded.troubles.items()
    assert words in message, message
    assert where == line, message
    assert message.endswith((".", '"', "?")) and "\n" not in message


def test_an_alias_bomb_is_refused() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for i in range(1, 9):
        text += f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n"
    assert "more than 500000 values" in next(iter(load(text, "x").troubles.values()))
    assert "deeper than" in next(iter(load("a: &a\n  b: *a\n", "x").troubles.values()))


def test_scalars_are_read_as_kubernetes_reads_them() -> None:
    text = (
        "community: 64500:1\nday: 2024-01-01\nmode: 0644\nhex: 0x1F\nfloat: 1.5\nyes: no\nnone: ~\n"
        "text: '1'\n80: port\n?a: 1\n"
    )
    (tree,) = yamltext.documents(text)
    assert tree.value == {
        "community": "64500:1",
        "day": "2024-01-01",
        "mode": 0o644,
        "hex": 31,
        "float": 1.5,
        "yes": False,
        "none": None,
        "text": "1",
        "80": "port",
        "?a": 1,
    }


def test_other_kinds_are_none_of_our_business() -> None:
    loaded = load("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n---\n\n---\n" + EIP, "x")
    assert [document.key.name for document in loaded.documents] == ["pool"] and not loaded.troubles


def test_a_kind_of_metallb_is_named_with_what_to_write_and_harms_nothing() -> None:
    pool = (
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: p}\nspec: {addresses: [10.0.0.0/24]}\n"
    )
    loaded = load(f"{pool}---\n{EIP}", "both.yaml")
    assert loaded.troubles == {1: "IPAddressPool is a kind of MetalLB and is ignored. Write an Eip with spec.address."}
    assert len(loaded.documents) == 1 and not loaded.refused and not loaded.doubtful
    assert load(pool.replace("metallb.io", "example.com"), "other.yaml").troubles == {}


def test_a_list_a_secret_and_a_status_that_is_not_its_own() -> None:
    text = """\
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Secret
    metadata: {name: bgp}
    stringData: {password: geheim}
  - apiVersion: v1
    kind: Node
    metadata: {name: n1, namespace: nonsense}
    status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
  - apiVersion: v1
    kind: Service
    metadata: {name: web, uid: from-an-export, resourceVersion: "5"}
    spec: {type: LoadBalancer}
    status: {loadBalancer: {ingress: [{ip: 192.0.2.9}]}}
"""
    secret, node, web = load(text, "x").documents
    assert secret.object["data"] == {"password": "Z2VoZWlt"} and "stringData" not in secret.object
    assert node.key.namespace == "" and node.object["status"]["addresses"]
    assert web.key.namespace == "default"
    assert "status" not in web.object and "uid" not in web.object["metadata"]


def test_every_rule_of_the_definitions_has_its_twin() -> None:
    def rules(part: object) -> set[str]:
        if isinstance(part, dict):
            own = {rule["rule"] for rule in part.get("x-kubernetes-validations", [])}
            return own.union(*(rules(child) for child in part.values()))
        return set().union(*(rules(child) for child in part)) if isinstance(part, list) else set()

    found = set().union(*(rules(crds.load()[kind]) for kind in crds.load()))
    assert found == set(schema.RULES)


OLD_MANIFESTS = {
    "an Eip with a status": """\
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: eip-old
  annotations: {eip.openelb.kubesphere.io/is-default-eip: "true"}
spec:
  address: 192.0.2.91-192.0.2.100
  priority: 100
  namespaces: [project]
  namespaceSelector: {label: test}
  protocol: layer2
  interface: can_reach:192.0.2.1
  disable: false
status: {occupied: false, usage: 1, poolSize: 10, used: {"192.0.2.91": default/test}}
""",
    "what we do not support": """\
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: vip}
spec: {address: 192.0.2.1, protocol: vip, usingKnownIPs: true}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: default}
spec: {as: 50000, asPerRack: {left: 50001}, listenPort: 17900, routerId: 192.0.2.1, families: [65537],
  useMultiplePaths: true, policy: gobgp.toml, listenAddresses: ["0.0.0.0"],
  gracefulRestart: {enabled: true, restartTime: 60, helperOnly: false, mode: x}}
""",
    "a peer in full": """\
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: router}
spec:
  conf: {peerAs: 50001, neighborAddress: 192.0.2.5, localAs: 0, authPassword: x, peerGroup: g, vrf: v, allowOwnAs: 1,
    peerType: 1, removePrivateAs: ALL, routeFlapDamping: true, sendCommunity: 1, replacePeerAs: true}
  ebgpMultihop: {enabled: true, multihopTtl: 2}
  timers: {config: {holdTime: "90", keepaliveInterval: 30, connectRetry: "5"}}
  transport: {passiveMode: true, remotePort: 179, mtuDiscovery: true, tcpMss: 1400, remoteAddress: ""}
  gracefulRestart: {enabled: true, restartTime: 60}
  afiSafis:
    - config: {family: {afi: AFI_IP, safi: SAFI_UNICAST}, enabled: true}
      addPaths: {config: {sendMax: 10, receive: false}}
      mpGracefulRestart: {config: {enabled: true}}
  nodeSelector: {matchLabels: {kubernetes.io/hostname: n1}}
""",
}


@pytest.mark.parametrize("name", OLD_MANIFESTS)
def test_manifests_of_openelb_apply_unchanged(name: str) -> None:
    loaded = load(OLD_MANIFESTS[name], "old.yaml")
    assert not loaded.troubles
    assert loaded.documents


def test_a_broken_file_keeps_its_last_good_objects(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "a.yaml"
        good = service("web") + "---\n" + EIP
        file.write_text(good)
        (tmp_path / "b.yaml").write_text(service("api"))
        async with opened(tmp_path) as (cluster, seen):
            await cluster.apply_status(Kind.SERVICE, "web", "shop", {"x": 1}, owner="porterlb")
            before = seen.get(Kind.EIP, "pool")
            file.write_text(good + "\n  ]broken\n")
            await seen.until(lambda: seen.broken)
            ((where, message),) = seen.broken.items()
            assert where == f"a.yaml:{len(good.splitlines()) + 2}"
            assert "not valid YAML" in message
            (tmp_path / "b.yaml").write_text(service("api", 81))
            await seen.until(lambda: seen.get(Kind.SERVICE, "api", "shop")["spec"]["ports"][0]["port"] == 81)
            await asyncio.sleep(0.3)
            assert seen.get(Kind.EIP, "pool") == before
        # Also if the manager restarts in between.
        async with opened(tmp_path) as (_, seen):
            assert seen.get(Kind.EIP, "pool") == before
            assert seen.get(Kind.SERVICE, "web", "shop")["status"] == {"x": 1}
            await seen.until(lambda: seen.broken)
            file.write_text(EIP)
            await seen.until(lambda: not seen.broken)
            await seen.until(lambda: not seen.get(Kind.SERVICE, "web", "shop"))

    asyncio.run(main())


def test_one_wrong_object_leaves_the_others_of_its_file_alone(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "a.yaml"
        file.write_text(EIP + "---\n" + service("web"))
        async with opened(tmp_path) as (_, seen):
            file.write_text(EIP.replace("auto", "l2") + "---\n" + service("web", 81))
            await seen.until(lambda: seen.broken)
            assert seen.broken == {
                "a.yaml:8": 'Eip pool: spec.protocol must be one of auto, bgp, layer2, vip; it is "l2".'
            }
            await seen.until(lambda: seen.get(Kind.SERVICE, "web", "shop")["spec"]["ports"][0]["port"] == 81)
            assert seen.get(Kind.EIP, "pool")["spec"]["protocol"] == "auto"
            file.write_text(service("web", 81))
            await seen.until(lambda: not seen.broken and not seen.get(Kind.EIP, "pool"))

    asyncio.run(main())


def test_two_files_with_one_object(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "b.yaml").write_text(EIP)
        async with opened(tmp_path) as (_, seen):
            (tmp_path / "a.yaml").write_text(EIP.replace("/28", "/24"))
            await seen.until(lambda: seen.broken)
            assert seen.broken == {"a.yaml:2": "Eip pool is in b.yaml:2 already; that one is used."}
            assert seen.get(Kind.EIP, "pool")["spec"]["address"] == "192.0.2.0/28"
        async with opened(tmp_path) as (_, seen):
            assert seen.get(Kind.EIP, "pool")["spec"]["address"] == "192.0.2.0/28", (
                "the first one, also after a restart"
            )
            (tmp_path / "b.yaml").unlink()
            await seen.until(lambda: seen.get(Kind.EIP, "pool")["spec"]["address"] == "192.0.2.0/24")
            await seen.until(lambda: not seen.broken)

    asyncio.run(main())


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.yaml").write_text(EIP)
        async with opened(tmp_path) as (_, seen):
            (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00garbage")
            await seen.until(lambda: seen.broken)
            assert seen.broken == {"a.yaml:1": "This is not UTF-8 text."}
            assert seen.get(Kind.EIP, "pool")

    asyncio.run(main())

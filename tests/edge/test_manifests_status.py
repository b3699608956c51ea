"""Status by owner, annotations, changes of spec in the file, and Events."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from porterlb.cluster import Conflict, Denied, Kind, Unavailable
from porterlb.edge.manifests import merge
from tests.edge.manifests_support import EIP, opened, service

PEER = """\
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: router}
spec: {conf: {neighborAddress: 192.0.2.1, peerAs: 64501}}
"""


def test_merging() -> None:
    owners = merge.applied(
        {}, "a", {"x": 1, "deep": {"one": 1, "two": 2}, "conditions": [{"type": "R", "status": "T"}]}
    )
    owners = merge.applied(owners, "b", {"deep": {"two": 3}, "conditions": [{"type": "S", "status": "F"}]})
    assert merge.merged(owners) == {
        "x": 1,
        "deep": {"one": 1, "two": 3},
        "conditions": [{"type": "R", "status": "T"}, {"type": "S", "status": "F"}],
    }
    owners = merge.applied(owners, "b", {})
    assert merge.merged(owners)["deep"] == {"one": 1}, "taken from a, then given up by b"
    owners = merge.applied(owners, "a", {"x": 2})
    assert merge.merged(owners, {"base": 1}) == {"base": 1, "x": 2}
    assert merge.applied(owners, "a", {}) == {}


def test_status_is_there_again_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.yaml").write_text(service("web"))
        ingress = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}
        async with opened(tmp_path) as (cluster, seen):
            answer = await cluster.apply_status(Kind.SERVICE, "web", "shop", ingress, owner="porterlb")
            assert answer["status"] == ingress
            await seen.until(lambda: seen.get(Kind.SERVICE, "web", "shop").get("status") == ingress)
            again = await cluster.apply_status(Kind.SERVICE, "web", "shop", ingress, owner="porterlb")
            assert again["metadata"] == answer["metadata"], "nothing changed, nothing written"
            assert answer["metadata"]["generation"] == 1
            assert (tmp_path / ".porterlb/status/Service/shop_web.json").exists()
        async with opened(tmp_path) as (_, seen):
            assert seen.get(Kind.SERVICE, "web", "shop")["status"] == ingress

    asyncio.run(main())


def test_each_owner_has_its_own_fields(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.yaml").write_text(PEER)

        def nodes(state: str, *names: str) -> dict[str, Any]:
            return {"nodesPeerStatus": {name: {"peerState": {"sessionState": state}} for name in names}}

        async with opened(tmp_path, Kind.BGP_PEER) as (one, _), opened(tmp_path, Kind.BGP_PEER) as (two, seen):
            await one.apply_status(Kind.BGP_PEER, "router", "", nodes("IDLE", "n1"), owner="porterlb-n1")
            await two.apply_status(Kind.BGP_PEER, "router", "", nodes("ESTABLISHED", "n2"), owner="porterlb-n2")
            ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "Established"}]}
            await one.apply_status(Kind.BGP_PEER, "router", "", ready, owner="porterlb")
            both = {**nodes("IDLE", "n1")["nodesPeerStatus"], **nodes("ESTABLISHED", "n2")["nodesPeerStatus"]}
            await seen.until(
                lambda: seen.get(Kind.BGP_PEER, "router").get("status") == {"nodesPeerStatus": both, **ready}
            )
            await two.apply_status(Kind.BGP_PEER, "router", "", {}, owner="porterlb-n2")
            found = await one.get(Kind.BGP_PEER, "router")
            assert found and set(found["status"]["nodesPeerStatus"]) == {"n1"}

    asyncio.run(main())


def test_a_write_that_was_decided_on_something_older_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.yaml").write_text(service("web"))
        async with opened(tmp_path) as (old, _), opened(tmp_path) as (new, _):
            (seen_by_old,) = await old.objects(Kind.SERVICE)
            version = seen_by_old["metadata"]["resourceVersion"]
            await new.apply_status(Kind.SERVICE, "web", "shop", {"x": "new"}, owner="porterlb", version=version)
            with pytest.raises(Conflict):
                await old.apply_status(Kind.SERVICE, "web", "shop", {"x": "old"}, owner="porterlb", version=version)
            (now,) = await old.objects(Kind.SERVICE)
            assert now["status"] == {"x": "new"}
            # An edit of the manifest is also a newer version, even before any notification.
            (tmp_path / "a.yaml").write_text(service("web", 8080))
            with pytest.raises(Conflict):
                await old.apply_status(
                    Kind.SERVICE, "web", "shop", {}, owner="porterlb", version=now["metadata"]["resourceVersion"]
                )
            with pytest.raises(Unavailable):
                await old.apply_status(Kind.SERVICE, "web", "shop", {"x": "late"}, owner="porterlb", deadline=0.0)
            (now,) = await new.objects(Kind.SERVICE)
            assert now["status"] == {"x": "new"}

    asyncio.run(main())


def test_what_the_schema_refuses_is_denied(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.yaml").write_text(EIP)
        async with opened(tmp_path) as (cluster, _):
            with pytest.raises(Denied, match=r"status\.usage must be a whole number"):
                await cluster.apply_status(Kind.EIP, "pool", "", {"usage": "many"}, owner="porterlb")
            with pytest.raises(Denied, match="no Eip other"):
                await cluster.apply_status(Kind.EIP, "other", "", {}, owner="porterlb")

    asyncio.run(main())


def test_annotations_are_kept_beside_the_manifest(tmp_path: Path) -> None:
    pin = "layer2.porter.kubesphere.io/v1alpha1"

    async def main() -> None:
        file = tmp_path / "a.yaml"
        file.write_text(service("web"))
        async with opened(tmp_path) as (cluster, seen):

            def pinned() -> Any:
                return seen.get(Kind.SERVICE, "web", "shop")["metadata"].get("annotations", {}).get(pin)

            body = {"metadata": {"annotations": {pin: "n1"}}}
            await cluster.apply(Kind.SERVICE, "web", "shop", body, owner="porterlb")
            await seen.until(lambda: pinned() == "n1")
            assert file.read_text() == service("web")
            # The user's later change takes precedence.
            file.write_text(service("web").replace("name: web", f"name: web\n  annotations: {{{pin}: n2}}"))
            await seen.until(lambda: pinned() == "n2")
            body = {"metadata": {"annotations": {pin: "n3"}}}
            await cluster.apply(Kind.SERVICE, "web", "shop", body, owner="porterlb")
            await seen.until(lambda: pinned() == "n3")
            await cluster.apply(Kind.SERVICE, "web", "shop", {"metadata": {"annotations": {}}}, owner="porterlb")
            await seen.until(lambda: pinned() == "n2")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (EIP, EIP.replace("protocol: auto ", "protocol: bgp ")),
        (
            "---\n" + service("web") + "---\n" + EIP.replace("  protocol: auto  # may change\n", "") + "---\n# end\n",
            "---\n"
            + service("web")
            + "---\n"
            + EIP.replace("  protocol: auto  # may change\n", "").replace("  address", "  protocol: bgp\n  address")
            + "---\n# end\n",
        ),
        (
            "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata: {name: pool}\nspec: {address: a} # ä\n",
            "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata: {name: pool}\n"
            "spec: {protocol: bgp, address: a} # ä\n",
        ),
        (EIP.replace("protocol: auto", "protocol:"), EIP.replace("protocol: auto", "protocol: bgp")),
        (
            EIP.replace("  name: pool", "  name: other") + "---\n" + EIP,
            EIP.replace("  name: pool", "  name: other") + "---\n" + EIP.replace("protocol: auto", "protocol: bgp"),
        ),
    ],
)
def test_a_change_of_spec_edits_the_file_and_nothing_else_in_it(tmp_path: Path, before: str, after: str) -> None:
    async def main() -> None:
        file = tmp_path / "a.yaml"
        file.write_text(before)
        file.chmod(0o640)
        async with opened(tmp_path) as (cluster, seen):
            found = await cluster.apply(Kind.EIP, "pool", "", {"spec": {"protocol": "bgp"}}, owner="porterlb-cli")
            assert found["spec"]["protocol"] == "bgp"
            assert file.read_text() == after
            assert file.stat().st_mode & 0o777 == 0o640
            await seen.until(lambda: seen.get(Kind.EIP, "pool")["spec"]["protocol"] == "bgp")
            with pytest.raises(Denied, match="must be one of"):
                await cluster.apply(Kind.EIP, "pool", "", {"spec": {"protocol": "l2"}}, owner="porterlb-cli")
            assert file.read_text() == after

    asyncio.run(main())
    assert {path.name for path in tmp_path.iterdir()} == {"a.yaml", ".porterlb"}


def test_a_change_of_spec_in_json_and_in_a_list(tmp_path: Path) -> None:
    async def main() -> None:
        eip = {
            "apiVersion": "network.kubesphere.io/v1alpha2",
            "kind": "Eip",
            "metadata": {"name": "pool"},
            "spec": {"address": "192.0.2.1"},
        }
        file = tmp_path / "a.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [eip]}, indent=2))
        async with opened(tmp_path) as (cluster, _):
            await cluster.apply(Kind.EIP, "pool", "", {"spec": {"protocol": "bgp", "priority": 5}}, owner="cli")
            spec = json.loads(file.read_text())["items"][0]["spec"]
            assert spec == {"address": "192.0.2.1", "protocol": "bgp", "priority": 5}
            await cluster.apply(Kind.EIP, "pool", "", {"spec": {"priority": None}}, owner="cli")
            found = await cluster.get(Kind.EIP, "pool")
            assert found and found["spec"]["priority"] == 0

    asyncio.run(main())


def test_events_count_repeats_and_are_bounded(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.yaml").write_text(EIP)
        async with opened(tmp_path) as (cluster, seen):
            eip = seen.get(Kind.EIP, "pool")
            for _ in range(3):
                await cluster.emit(
                    Kind.EIP, eip, type_="Warning", reason="Overlapping", message="It overlaps.", reporter="n1"
                )
                await asyncio.sleep(0.15)
            for number in range(1200):
                await cluster.emit(Kind.EIP, eip, type_="Normal", reason="R", message=str(number), reporter="n1")
            await cluster.emit(
                Kind.EIP, eip, type_="Warning", reason="Overlapping", message="It overlaps.", reporter="n1"
            )
        async with opened(tmp_path) as (cluster, _):
            kept = await cluster.events()
            assert len(kept) == 1000
            assert (kept[-1]["message"], kept[-1]["count"]) == ("It overlaps.", 4)
            assert kept[-1]["name"] == "pool"
        lines = (tmp_path / ".porterlb/events.jsonl").read_text().splitlines()
        assert len(lines) == 1000 and json.loads(lines[0])

    asyncio.run(main())

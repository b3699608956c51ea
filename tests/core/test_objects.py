"""Objects: parsed once, kept unchanged, and the result does not depend on their order."""

from __future__ import annotations

import random
from typing import Any

import pytest

from porterlb.core.model import ServiceKey
from porterlb.core.objects import ObjectKey, Objects

WEB = ServiceKey("shop", "web")


def meta(name: str, namespace: str = "", version: str = "1", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "uid": f"uid-{name}", "resourceVersion": version, **more}
    return found | ({"namespace": namespace} if namespace else {})


def eip(name: str, address: str = "10.0.0.0/30", version: str = "1") -> dict[str, Any]:
    return {"metadata": meta(name, version=version), "spec": {"address": address}}


def service(name: str, version: str = "1", type_: str = "LoadBalancer") -> dict[str, Any]:
    ports = [{"port": 80}]
    return {"metadata": meta(name, "shop", version), "spec": {"type": type_, "ports": ports}}


def slice_(name: str, of: str, nodes: list[str], version: str = "1") -> dict[str, Any]:
    return {
        "metadata": meta(name, "shop", version, labels={"kubernetes.io/service-name": of}),
        "addressType": "IPv4",
        "endpoints": [{"nodeName": node, "conditions": {"ready": True}} for node in nodes],
    }


def nodes_of(objects: Objects, key: ServiceKey = WEB) -> list[str]:
    return [endpoint.node for endpoint in objects.endpoints.get(key, ())]


def test_a_full_list_replaces_what_was_known() -> None:
    objects = Objects(True)
    assert objects.replace("Eip", [eip("a"), eip("b", "10.0.1.1")])
    assert set(objects.eips) == {"a", "b"}
    assert objects.replace("Eip", [eip("b", "10.0.1.1")])
    assert set(objects.eips) == {"b"}
    assert objects.raw("Eip", "", "a") is None
    assert not objects.replace("Eip", [eip("b", "10.0.1.1")])


def test_unchanged_objects_keep_their_identity() -> None:
    objects = Objects(True)
    objects.replace("Eip", [eip("a"), eip("b", "10.0.1.1")])
    objects.replace("Service", [service("web"), service("api")])
    before, web = objects.eips["b"], objects.services[WEB]
    assert objects.change("Eip", eip("a", "10.0.9.0/30", version="2"))
    objects.replace("Eip", [eip("a", "10.0.9.0/30", version="3"), eip("b", "10.0.1.1", version="9")])
    assert objects.eips["b"] is before
    objects.change("Service", service("api", version="2"))
    assert objects.services[WEB] is web


def test_what_was_given_out_does_not_change_later() -> None:
    objects = Objects(True)
    objects.replace("Eip", [eip("a")])
    then = objects.eips
    assert objects.eips is then
    objects.delete("Eip", "", "a")
    assert set(then) == {"a"}
    assert not objects.eips


def test_a_wrong_object_is_named_and_harms_nobody() -> None:
    objects = Objects(True)
    objects.replace("Eip", [eip("good"), eip("bad", "10.0.0.300")])
    assert set(objects.eips) == {"good"}
    assert set(objects.problems) == {ObjectKey("Eip", "", "bad")}
    assert "10.0.0.300" in str(objects.problems[ObjectKey("Eip", "", "bad")][0])
    assert objects.change("Eip", eip("bad", "10.0.1.3", version="2"))
    assert set(objects.eips) == {"good", "bad"}
    assert not objects.problems


def test_deleted_objects_take_their_problems_along() -> None:
    objects = Objects(True)
    objects.change("Eip", eip("bad", "nonsense"))
    assert objects.problems
    assert objects.delete("Eip", "", "bad")
    assert not objects.problems
    assert not objects.delete("Eip", "", "bad")


def test_only_our_services_are_seen() -> None:
    objects = Objects(True)
    objects.replace("Service", [service("web"), service("inner", type_="ClusterIP")])
    assert set(objects.services) == {WEB}
    assert objects.raw("Service", "shop", "inner") is not None
    objects.change("Service", service("web", version="2", type_="ClusterIP"))
    assert not objects.services
    assert not Objects(False).change("Service", service("web"))


def test_slices_of_a_service_are_merged_in_any_order() -> None:
    events = [slice_("s1", "web", ["n1", "n2"]), slice_("s2", "web", ["n3"]), slice_("s3", "api", ["n1"])]
    seen = set()
    for seed in range(6):
        random.Random(seed).shuffle(events)
        objects = Objects(True)
        for event in events:
            objects.change("EndpointSlice", event)
        seen.add(objects.endpoints[WEB])
    assert len(seen) == 1
    assert [endpoint.node for endpoint in seen.pop()] == ["n1", "n2", "n3"]


def test_slices_come_and_go() -> None:
    objects = Objects(True)
    objects.replace("EndpointSlice", [slice_("s1", "web", ["n1"]), slice_("s2", "web", ["n2"])])
    assert objects.delete("EndpointSlice", "shop", "s1")
    assert nodes_of(objects) == ["n2"]
    # The label moves the slice to another Service: both Services change.
    assert objects.change("EndpointSlice", slice_("s2", "api", ["n2"], version="2"))
    assert nodes_of(objects) == []
    assert nodes_of(objects, ServiceKey("shop", "api")) == ["n2"]
    assert objects.replace("EndpointSlice", [])
    assert not objects.endpoints


def test_endpoints_that_say_the_same_are_the_same() -> None:
    objects = Objects(True)
    objects.change("EndpointSlice", slice_("s1", "web", ["n1"]))
    before = objects.endpoints[WEB]
    assert not objects.change("EndpointSlice", slice_("s1", "web", ["n1"], version="2"))
    assert objects.endpoints[WEB] is before


def test_the_same_version_is_not_looked_at_again() -> None:
    objects = Objects(True)
    objects.change("Eip", eip("a"))
    assert not objects.change("Eip", eip("a", "10.9.9.9"))  # equal versions mean equal objects: the API never does this
    assert objects.change("Eip", eip("a", "10.9.9.9") | {"metadata": meta("a", uid="another")})


def test_objects_without_a_version_are_compared() -> None:
    objects = Objects(True)
    bare: dict[str, Any] = {"metadata": {"name": "a"}, "spec": {"address": "10.0.0.1"}}
    assert objects.change("Eip", bare)
    assert objects.change("Eip", {"metadata": {"name": "a"}, "spec": {"address": "10.0.0.2"}})


def test_conf_and_namespaces() -> None:
    objects = Objects(True)
    assert objects.conf.local_as == 0
    objects.change("BgpConf", {"metadata": meta("default"), "spec": {"as": 64512}})
    assert objects.conf.local_as == 64512
    objects.change("BgpConf", {"metadata": meta("other"), "spec": {"as": 64513}})
    assert objects.conf.local_as == 64512
    assert ObjectKey("BgpConf", "", "other") in objects.problems
    objects.change("Namespace", {"metadata": meta("shop", labels={"tier": "front"})})
    assert objects.namespaces == {"shop": {"tier": "front"}}


def test_kinds_that_nobody_parses_are_kept_as_they_are() -> None:
    objects = Objects(True)
    assert objects.change("Secret", {"metadata": meta("s", "x"), "data": {"password": "c2VjcmV0"}})
    raw = objects.raw("Secret", "x", "s")
    assert raw is not None and raw["data"] == {"password": "c2VjcmV0"}
    assert set(objects.all_raw("Secret")) == {ObjectKey("Secret", "x", "s")}


def test_an_object_of_a_kind_that_nobody_parses_is_a_change_when_it_goes() -> None:
    objects = Objects(True)
    objects.change("Secret", {"metadata": {"namespace": "ns", "name": "x"}})
    assert objects.delete("Secret", "ns", "x") is True
    assert objects.delete("Secret", "ns", "x") is False


def test_an_object_that_makes_a_parser_fail_keeps_its_last_good_version_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects = Objects(True)

    def pool(version: int, address: str) -> dict[str, Any]:
        metadata = {"name": "pool", "uid": "u", "resourceVersion": str(version)}
        return {"metadata": metadata, "spec": {"address": address}}

    assert objects.change("Eip", pool(1, "10.0.0.1"))
    good = objects.eips["pool"]

    def fails(_: object) -> object:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("porterlb.core.objects.parse_eip", fails)
        assert objects.change("Eip", pool(2, "10.0.0.2"))
        assert objects.eips["pool"] is good
        (problem,) = objects.problems[ObjectKey("Eip", "", "pool")]
        assert "cannot be read (ZeroDivisionError)" in problem.message and problem.fatal
    assert objects.change("Eip", pool(3, "10.0.0.3"))
    assert objects.eips["pool"] != good and not objects.problems


def test_generations_are_those_of_the_objects() -> None:
    objects = Objects(True)
    objects.change("Eip", {"metadata": meta("pool", generation=3), "spec": {"address": "nonsense"}})
    objects.change("Eip", {"metadata": meta("bare"), "spec": {"address": "10.0.0.0/30"}})
    assert objects.generations[ObjectKey("Eip", "", "pool")] == 3, "also where the object cannot be used"
    assert objects.generations[ObjectKey("Eip", "", "bare")] == 0
    objects.delete("Eip", "", "pool")
    assert ObjectKey("Eip", "", "pool") not in objects.generations


def test_the_slices_of_a_service_are_merged_once_for_all_that_have_changed() -> None:
    objects = Objects(True)
    nodes = [f"n{i}" for i in range(3)]
    assert objects.change("EndpointSlice", slice_("web-1", "web", nodes[:2]))
    assert objects.change("EndpointSlice", slice_("web-2", "web", nodes[1:]))
    assert [e.node for e in objects.endpoints[WEB]] == nodes
    first = objects.endpoints[WEB]
    assert not objects.change("EndpointSlice", slice_("web-2", "web", nodes, version="2"))  # n0 is in web-1 too
    assert objects.endpoints[WEB] is first
    assert not objects.change("EndpointSlice", slice_("web-1", "web", [], version="2"))
    assert objects.endpoints[WEB] is first
    assert objects.change("EndpointSlice", slice_("web-2", "web", [], version="3"))
    assert objects.endpoints[WEB] == ()
    assert not objects.delete("EndpointSlice", "shop", "web-1")
    assert objects.delete("EndpointSlice", "shop", "web-2") and WEB not in objects.endpoints


BAD = "10.0.0.300"


def test_values_in_force_can_be_kept_over_a_restart() -> None:
    """After a restart, the API has only the unusable versions."""
    before = Objects(True)
    before.replace("Eip", [eip("edited"), eip("good", "10.0.1.1"), eip("never", BAD)])
    before.change("Eip", eip("edited", BAD, version="2"))
    edited = ObjectKey("Eip", "", "edited")
    kept = before.kept()
    assert kept == {edited: before.eips["edited"]}
    after = Objects(True)
    after.replace("Eip", [eip("edited", BAD, version="2"), eip("good", "10.0.1.1"), eip("never", BAD)])
    assert "edited" not in after.eips
    after.keep(kept)
    assert after.eips == before.eips and after.kept() == kept
    assert after.problems == before.problems
    after.keep(kept)  # the note is not repeated
    assert after.problems == before.problems


@pytest.mark.parametrize("kind", ["Node", "Eip", "BgpPeer", "BgpConf", "Service"])
def test_a_kept_value_goes_where_objects_of_its_kind_are(kind) -> None:
    objects, value = Objects(True), object()
    key = ObjectKey(kind, "shop" if kind == "Service" else "", "default")
    objects.keep({key: value, ObjectKey("Secret", "ns", "x"): value})
    stores = {
        "Node": objects.nodes.get("default"),
        "Eip": objects.eips.get("default"),
        "BgpPeer": objects.peers.get("default"),
        "BgpConf": objects.conf,
        "Service": objects.services.get(ServiceKey("shop", "default")),
    }
    assert [name for name, found in stores.items() if found is value] == [kind]


def test_a_decision_holds_for_the_newest_version_with_equal_values() -> None:
    objects = Objects(True)
    objects.change("Service", service("web"))
    first = objects.services[WEB]
    objects.change("Service", service("web", version="2"))
    assert objects.services[WEB] is first and objects.version_of(first) == "2"
    changed = service("web", version="3")
    changed["spec"]["ports"] = [{"port": 81}]
    objects.change("Service", changed)
    assert objects.services[WEB] is not first
    assert objects.version_of(first) == first.resource_version
    assert objects.version_of(objects.services[WEB]) == "3"

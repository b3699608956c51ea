"""User changes of objects on a real API: manual edits, types and classes, namespaces, samples, old nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab.measure import wait_until
from tests.cluster.rights import NAMESPACE
from tests.cluster.scenarios import NAMES, KubeProduct, kube_product
from tests.lab.product import EIP_ANNOTATION

pytestmark = [pytest.mark.lab, pytest.mark.cluster]

CLASS = "network.kubesphere.io/porterlb"
FOREIGN = "example.com/another"


@pytest.fixture(scope="module")
def road() -> Iterator[KubeProduct]:
    with kube_product(controllers=True) as made:
        (vip,) = made.give("web", "routed")
        made.wait_hops(vip, *NAMES, timeout=40)
        made.wait_settled()
        yield made


def ingress(road: KubeProduct, name: str, namespace: str = "default") -> list[str]:
    status = road.backend.status("Service", name, namespace)
    return [entry.get("ip", "") for entry in (status.get("loadBalancer") or {}).get("ingress") or []]


def wait_free(road: KubeProduct, vip: str) -> None:
    wait_until(lambda: vip not in road.backend.status("Eip", "routed").get("used", {}), 10, f"{vip} to be free")


def test_status_edited_by_hand_is_put_right(road: KubeProduct) -> None:
    (vip,) = road.vips("web")
    status = ("--subresource=status",)
    for wrong in ([{"ip": "203.0.113.9", "ipMode": "VIP"}], [], [{"hostname": "nowhere.example"}]):
        road.patch("service", "web", {"status": {"loadBalancer": {"ingress": wrong}}}, *status)
        wait_until(lambda: ingress(road, "web") == [vip], 10, f"the address to be back after {wrong}")
    road.patch("service", "web", {"status": {"conditions": []}}, *status)
    road.wait_condition("Service", "web", "Serving", "True", "default")

    road.patch("eip", "routed", {"status": {"used": {"172.16.0.30": "default/nobody"}, "poolSize": 7}}, *status)
    right = {vip: "default/web"}
    wait_until(lambda: road.backend.status("Eip", "routed").get("used") == right, 10, "the Eip's status to be right")
    assert road.backend.status("Eip", "routed")["poolSize"] == 32

    peer = {"status": {"nodesPeerStatus": {"node-x": {"peerState": {"sessionState": "ESTABLISHED"}}, "node-b": None}}}
    road.patch("bgppeer", "router1-v4", peer, *status)
    wait_until(
        lambda: set(road.backend.status("BgpPeer", "router1-v4").get("nodesPeerStatus", {})) == set(NAMES),
        25,
        "exactly the replicas' sessions in the peer's status",
        0.2,
    )
    road.wait_hops(vip, *NAMES)


def test_a_status_that_is_right_is_not_written_again(road: KubeProduct) -> None:
    before = road.get("service", "web")["metadata"]["resourceVersion"]
    road.patch("service", "web", {"metadata": {"labels": {"touched": "yes"}}})
    road.wait_settled()
    after = road.get("service", "web")
    assert int(after["metadata"]["resourceVersion"]) > int(before)
    (found,) = after["status"]["loadBalancer"]["ingress"]
    assert (found["ip"], found["ipMode"]) == (road.vips("web")[0], "VIP")
    time.sleep(0.5)
    assert road.get("service", "web")["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


def test_types_change_back_and_forth(road: KubeProduct) -> None:
    (vip,) = road.give("types", "routed")
    for _ in range(3):
        road.wait_hops(vip, *NAMES)
        road.patch("service", "types", {"spec": {"type": "ClusterIP", "externalTrafficPolicy": None}})
        road.wait_hops(vip)
        wait_free(road, vip)
        wait_until(lambda: not ingress(road, "types"), 10, "the address to be gone from its status")
        wait_until(lambda: not road.conditions("Service", "types", "default"), 10, "the conditions to be gone")
        road.patch("service", "types", {"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}})
        (vip,) = road.wait_vips("types")
    # Faster than the managers can follow; only the final state counts.
    for type_ in ("ClusterIP", "LoadBalancer", "NodePort", "LoadBalancer", "ClusterIP", "LoadBalancer"):
        road.patch("service", "types", {"spec": {"type": type_}})
    (vip,) = road.wait_vips("types")
    road.wait_hops(vip, *NAMES)
    road.delete_service("types")
    road.wait_hops(vip)


def test_other_classes_are_left_alone_and_one_of_ours_is_released(road: KubeProduct) -> None:
    road.service("theirs", annotations={EIP_ANNOTATION: "routed"}, loadBalancerClass=FOREIGN)
    theirs = {"loadBalancer": {"ingress": [{"ip": "198.51.100.77", "ipMode": "VIP"}]}}
    road.patch("service", "theirs", {"status": theirs}, "--subresource=status")
    road.service("ours", annotations={EIP_ANNOTATION: "routed"}, loadBalancerClass=CLASS, policy="Local")
    (vip,) = road.wait_vips("ours")
    road.wait_hops(vip, *NAMES)

    # A class can only be changed through another type. Users usually change both at once.
    plain = {"type": "ClusterIP", "loadBalancerClass": None, "externalTrafficPolicy": None}
    road.patch("service", "ours", {"spec": plain})
    road.patch("service", "ours", {"spec": {"type": "LoadBalancer", "loadBalancerClass": FOREIGN}})
    road.wait_hops(vip)
    wait_free(road, vip)
    wait_until(lambda: not ingress(road, "ours"), 10, "the address to be gone from its status")
    road.wait_settled()
    untouched = road.get("service", "theirs", "--show-managed-fields")
    assert untouched["status"]["loadBalancer"] == theirs["loadBalancer"]
    assert not {m["manager"] for m in untouched["metadata"]["managedFields"]} & {"porterlb"}
    assert not untouched["status"].get("conditions")
    road.delete_service("theirs")
    road.delete_service("ours")


def test_a_deleted_namespace_gives_everything_back(road: KubeProduct) -> None:
    road.kubectl("create", "namespace", "shop")
    road.service("one", namespace="shop", policy="Local", annotations={EIP_ANNOTATION: "routed"})
    road.service("two", namespace="shop", policy="Local", annotations={EIP_ANNOTATION: "routed"})
    vips = [*road.wait_vips("one", namespace="shop"), *road.wait_vips("two", namespace="shop")]
    for vip in vips:
        road.wait_hops(vip, *NAMES)
    road.kubectl("delete", "namespace", "shop", "--timeout=30s")
    for vip in vips:
        road.wait_hops(vip)
    used = wait_until(
        lambda: found if not set(found := road.backend.status("Eip", "routed")["used"]) & set(vips) else {},
        10,
        "the addresses to be free",
    )[0]
    assert set(used) == set(road.vips("web"))


SAMPLES = """
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: eip-sample-pool
  annotations:
    eip.openelb.kubesphere.io/is-default-eip: "true"
spec:
  address: 192.168.0.91-192.168.0.100
  priority: 100
  namespaces: [default]
  protocol: bgp
  interface: eth0
  disable: false
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata:
  name: eip-sample-vip
spec:
  address: 192.168.1.0/28
  protocol: vip
  usingKnownIPs: true
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata:
  name: default
spec:
  as: 64512
  listenPort: 17900
  routerId: 192.168.0.2
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata:
  name: bgppeer-sample
spec:
  conf:
    peerAs: 64500
    neighborAddress: 10.77.0.97
  ebgpMultihop:
    enabled: true
    multihopTtl: 4
  afiSafis:
    - config:
        family: {afi: AFI_IP, safi: SAFI_UNICAST}
        enabled: true
      addPaths:
        config: {sendMax: 10}
  nodeSelector:
    matchLabels:
      kubernetes.io/hostname: node-a
---
kind: Service
apiVersion: v1
metadata:
  name: bgp-svc
  namespace: default
  annotations:
    lb.kubesphere.io/v1alpha1: openelb
    protocol.openelb.kubesphere.io/v1alpha1: bgp
    eip.openelb.kubesphere.io/v1alpha2: eip-sample-pool
spec:
  selector: {app: bgp-openelb}
  type: LoadBalancer
  ports:
    - name: http
      port: 80
      targetPort: 8080
  externalTrafficPolicy: Cluster
---
kind: Service
apiVersion: v1
metadata:
  name: porter-svc
  namespace: default
  annotations:
    lb.kubesphere.io/v1alpha1: porter
    protocol.porter.kubesphere.io/v1alpha1: bgp
    eip.porter.kubesphere.io/v1alpha1: 192.168.0.95
spec:
  selector: {app: bgp-porter}
  type: LoadBalancer
  ports:
    - {name: http, port: 80, targetPort: 8080}
"""
"""In the form of the samples that users of OpenELB and PorterLB started from."""


def said(road: KubeProduct, kind: str, name: str, namespace: str = "") -> str:
    return " ".join(c.get("message", "") for c in road.conditions(kind, name, namespace).values())


def test_samples_of_openelb_and_porterlb_apply_unchanged(road: KubeProduct) -> None:
    road.kubectl("apply", "-f", "-", stdin=SAMPLES)
    assert road.wait_vips("porter-svc") == ["192.168.0.95"]
    assert road.wait_vips("bgp-svc")[0].startswith("192.168.0.")
    road.wait_condition("Eip", "eip-sample-pool", "Ready", "True")
    refused = road.wait_condition("Eip", "eip-sample-vip", "Ready", "False")
    assert "vip" in refused["message"] and "not supported" in refused["message"], refused
    wait_until(lambda: "usingKnownIPs" in said(road, "Eip", "eip-sample-vip"), 10, "the field that has no effect")
    wait_until(
        lambda: set(road.backend.status("BgpPeer", "bgppeer-sample").get("nodesPeerStatus", {})) == {"node-a"},
        15,
        "the sample's nodeSelector to count",
    )
    wait_until(lambda: road.backend.status("Eip", "eip-sample-pool")["usage"] == 2, 10, "two addresses in use")
    used = road.backend.status("Eip", "eip-sample-pool")
    assert used["poolSize"] == 10 and used["occupied"] is False, used
    assert used["firstIP"] == "192.168.0.91" and used["lastIP"] == "192.168.0.100"
    road.kubectl("delete", "-f", "-", stdin=SAMPLES)
    road.bgp_conf()
    road.wait_hops(road.vips("web")[0], *NAMES, timeout=30)


def test_fields_of_others_that_we_do_not_support_are_named(road: KubeProduct) -> None:
    policy = {"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "BgpPeer", "metadata": {"name": "policy"}}
    spec: dict[str, Any] = {"conf": {"neighborAddress": "10.77.0.96", "peerAs": 1}, "transport": {"tcpMss": 1400}}
    spec["afiSafis"] = [{"config": {"family": {"afi": "AFI_IP", "safi": "SAFI_MPLS_VPN_UNICAST"}}}]
    road.kubectl("apply", "-f", "-", stdin=json.dumps({**policy, "spec": spec}))
    for named in ("tcpMss", "SAFI_MPLS_VPN_UNICAST"):
        wait_until(lambda named=named: named in said(road, "BgpPeer", "policy"), 15, f"{named} to be named")
    road.backend.delete("BgpPeer", "policy")


def test_the_lease_of_a_node_that_is_gone_for_good_goes_too(road: KubeProduct) -> None:
    def leases() -> set[str]:
        return {
            lease["metadata"]["name"]
            for lease in road.backend.objects("Lease")
            if lease["metadata"]["namespace"] == NAMESPACE
        }

    everybody = {"porterlb", *(f"porterlb-{name}" for name in NAMES)}
    wait_until(lambda: leases() == everybody, 10, "a lease of each replica")
    victim = next(name for name in NAMES if name != road.wait_leader())
    road.backend.delete("Lease", f"porterlb-{victim}", NAMESPACE)
    wait_until(lambda: leases() == everybody, 10, "a lease that was deleted by hand to be back")

    road.node(victim).power_off()
    time.sleep(0.5)
    road.backend.delete("Node", victim)
    wait_until(lambda: leases() == everybody - {f"porterlb-{victim}"}, 40, "the lease of the dead node to go", 0.3)
    wait_until(
        lambda: victim not in road.backend.status("BgpPeer", "router1-v4").get("nodesPeerStatus", {}),
        20,
        "its sessions to go",
    )
    road.set_node(victim)
    road.node(victim).power_on()
    road.wait_settled()
    assert leases() == everybody
    road.wait_hops(road.vips("web")[0], *NAMES)
    road.healthy()

"""doctor: a table of broken clusters; each cause is named in the first three lines, with the action to take."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from porterlb import crds
from porterlb.cli.doctor import lines
from porterlb.core.bgp.reasons import Loss, LossKind, Trouble, TroubleKind, read, written
from porterlb.core.doctor.examine import examine
from porterlb.core.doctor.facts import Facts
from porterlb.core.doctor.finding import Check, Finding, Severity, ordered, verdict
from porterlb.core.doctor.installation import active_writers, missing_fields
from porterlb.core.doctor.installed import Installation, KubeProxy, Pod, Workload
from porterlb.core.doctor.pools import ranges_of
from porterlb.core.doctor.rights import NEEDED
from porterlb.core.doctor.sessions import cause
from porterlb.core.history import History
from porterlb.core.known import Known
from porterlb.core.model import BgpConf, Endpoint, Node, Protocol, Requirement, Selector, ServiceKey, Snapshot
from porterlb.core.objects import ObjectKey
from porterlb.core.observed import AddressConflict, Notice, NoticeKind, SessionState
from porterlb.core.problems import Problem, Reason
from porterlb.core.status.state import state_of
from porterlb.core.whatif import Missing, without
from tests.cluster.rights import CLUSTER_RULES, NAMESPACE_RULES
from tests.core.stage import AUTO_VIP, MAIL, SHOP, WEB, situation, snapshot
from tests.core.test_plan import NAMES, eip

SCHEMAS = {kind: crds.schema(kind) for kind in crds.load()}
HOST: dict[str, Any] = {
    "release": "0.2.0",
    "all": {"arp_ignore": 0, "rp_filter": 0, "proxy_arp": 0},
    "nics": {"eth0": {"arp_ignore": 0, "rp_filter": 2, "proxy_arp": 0, "multicast": True}},
    "ipvs": False,
    "memory": {"used": 90 * 2**20, "limit": 256 * 2**20},
}
NIC = {"name": "eth0", "mac": "02:00:00:00:00:01", "up": True, "addresses": ["10.77.0.11/24", "fd00:77::11/64"]}


def state(node: str = "node-a", of: Snapshot | None = None, **more: Any) -> dict[str, Any]:
    """The state that a replica shows; ``more``: for :func:`tests.core.stage.situation`."""
    base = of or snapshot()
    known: Known = situation(replace(base, view=replace(base.view, node=node)), **more)
    found = state_of(known, History(), now=0.0) | {"host": copy.deepcopy(HOST)}
    found["wire"]["nics"] = [copy.deepcopy(NIC)]
    return found


def healthy(of: Snapshot | None = None) -> Facts:
    shown = of or snapshot()
    return Facts(
        release="0.2.0",
        snapshot=shown,
        leader="node-a",
        states={node: state(node, shown) for node in NAMES},
        ranges={ip_network("10.244.0.0/24"): "the pod range of node node-a"},
        schemas=SCHEMAS,
        installation=Installation(
            schemas=SCHEMAS,
            rights=dict.fromkeys(NEEDED, True),
            pods=tuple(Pod(f"porterlb-{node}", node, True) for node in NAMES),
            kube_proxy=KubeProxy("iptables"),
        ),
    )


def edited(facts: Facts, node: str, change: Callable[[dict[str, Any]], object]) -> Facts:
    """The facts after a change to the state of one replica; ``node`` ``*``: of all replicas."""
    states = {name: copy.deepcopy(dict(shown)) for name, shown in facts.states.items()}
    for name in states if node == "*" else [node]:
        change(states[name])
    return replace(facts, states=states)


def unheard() -> Facts:
    """No other replica hears the replica on node-c."""
    return edited(healthy(), "*", lambda state: state["replicas"]["node-c"].update(fresh=False))


def lost(loss: Loss, *, password: bool = False) -> Facts:
    """No replica has a session with the router ``tor``, for this reason."""
    of = snapshot(up=())
    if password:
        of = replace(of, peers={"tor": replace(of.peers["tor"], password_secret=("router", "key"))})
    session = SessionState("tor", "active", 0.0, attempt=loss)
    states = {node: state(node, of, bgp={"sessions": {"tor": session}}) for node in NAMES}
    return replace(healthy(of), states=states)


def notified(code: int, subcode: int, *, local: bool = False) -> Facts:
    return lost(Loss(LossKind.NOTIFICATION, code, subcode, local=local))


def noticed(kind: NoticeKind, subject: str = "", nodes: tuple[str, ...] = ("node-c",)) -> Facts:
    facts = healthy()
    return replace(facts, states={**facts.states, "node-a": state(wire={"notices": (Notice(kind, subject, nodes),)})})


def on_host(change: Callable[[dict[str, Any]], object]) -> Facts:
    return edited(healthy(), "node-b", lambda shown: change(shown["host"]))


def installed(**more: Any) -> Facts:
    facts = healthy()
    return replace(facts, installation=replace(facts.installation, **more))


def pool(name: str, **more: Any) -> Facts:
    of = snapshot()
    return healthy(replace(of, eips={**of.eips, name: replace(of.eips[name], **more)}))


def exhausted() -> Facts:
    of = snapshot()
    small = replace(of.eips["auto"], ranges=eip("auto", "10.77.0.201", "10.77.0.201").ranges)
    late = replace(of.services[SHOP], key=ServiceKey("default", "late"), uid="late", held=(), wanted_eip="auto")
    return healthy(replace(of, eips={**of.eips, "auto": small}, services={**of.services, late.key: late}))


def peer(**more: Any) -> Facts:
    of = snapshot()
    return healthy(replace(of, peers={"tor": replace(of.peers["tor"], **more)}))


def problem(kind: str, name: str, reason: Reason, text: str, field: str = "") -> Facts:
    key = ObjectKey(kind, "", name)
    return replace(healthy(), problems={key: (Problem(reason, text, field),)})


def dead() -> Facts:
    live = NAMES[:2]
    of = snapshot(up=live, fresh=frozenset(live), dead=frozenset({"node-c"}))
    facts = replace(healthy(of), states={node: state(node, of) for node in live})
    return replace(facts, silent={"node-c": "it has not answered within 3 s"})


def second_network(facts: Facts) -> Facts:
    """The default gateway is on a network other than the pools' network, and the filter is strict."""
    assert facts.snapshot is not None
    members = {n: replace(m, gateways=(ip_address("192.0.2.1"),)) for n, m in facts.snapshot.members.items()}
    facts = replace(facts, snapshot=replace(facts.snapshot, members=members))
    return edited(facts, "node-b", lambda shown: shown["host"]["nics"]["eth0"].update(rp_filter=1))


def old_crd() -> Facts:
    old = copy.deepcopy(dict(SCHEMAS["Eip"]))
    del old["properties"]["spec"]["properties"]["probe"]
    return installed(schemas={**SCHEMAS, "Eip": old})


def no_service_endpoints() -> Facts:
    of = snapshot()
    return healthy(replace(of, endpoints={**of.endpoints, WEB: (Endpoint("node-a", ready=False),)}))


SITUATIONS: Mapping[str, tuple[Callable[[], Facts], Check, str]] = {
    # The API and the installation
    "API away": (lambda: Facts(api="10.0.0.1 does not take connections."), Check.API, "cannot be reached"),
    "no rights": (lambda: Facts(api="eips is forbidden.", refused=True), Check.API, "The API refuses"),
    "API away for the managers": (
        lambda: edited(healthy(), "*", lambda s: s.update(outage="no route")),
        Check.API,
        "away for the manager",
    ),
    "missing CRD": (lambda: installed(schemas={**SCHEMAS, "Eip": None}), Check.CRDS, "does not know the kind Eip"),
    "old CRD": (old_crd, Check.CRDS, "it drops spec.probe"),
    "right of the manager missing": (
        lambda: installed(rights={**dict.fromkeys(NEEDED, True), NEEDED[6]: False}),
        Check.RIGHTS,
        "may not patch services/status",
    ),
    "port 7472 taken": (
        lambda: installed(
            pods=(Pod("p", "node-a", False, "CrashLoopBackOff", "Cannot serve HTTP on 127.0.0.1:7472", 9),)
        ),
        Check.MANAGERS,
        "MetalLB's speaker uses 7472 too",
    ),
    "manager cannot be scheduled": (
        lambda: installed(pods=(Pod("p", "", False, "0/3 nodes are available"),)),
        Check.MANAGERS,
        "0/3 nodes are available",
    ),
    "MetalLB runs too": (
        lambda: installed(
            workloads=(Workload("metallb-system", "speaker", ("quay.io/metallb/speaker:v0.14",)),), kube_proxy=None
        ),
        Check.OTHERS,
        "MetalLB runs here",
    ),
    "Cilium gives addresses": (
        lambda: installed(settings={"kube-system/cilium-config": {"enable-l2-announcements": "true"}}),
        Check.OTHERS,
        "Cilium (enable-l2-announcements)",
    ),
    "another load balancer claims a Service": (
        lambda: replace(healthy(), writers={WEB: ("metallb-controller",)}),
        Check.OTHERS,
        "metallb-controller writes the addresses",
    ),
    "IPVS without strictARP": (lambda: installed(kube_proxy=KubeProxy("ipvs")), Check.KUBE_PROXY, "without strictARP"),
    "IPVS without strictARP, seen on the node": (
        lambda: replace(
            on_host(lambda h: h.update(ipvs=True)), installation=replace(healthy().installation, kube_proxy=None)
        ),
        Check.KUBE_PROXY,
        "arp_ignore is 0",
    ),
    # Managers
    "no manager": (
        lambda: Facts(snapshot=without(replace(snapshot(), members={}), Missing())),
        Check.MANAGERS,
        "No manager runs",
    ),
    "no leader": (lambda: replace(healthy(), leader=""), Check.MANAGERS, "No replica leads"),
    "node without power": (dead, Check.NODES, "does not answer probes of node-a, node-b"),
    "manager silent": (
        lambda: replace(
            edited(healthy(), "*", lambda s: s["replicas"]["node-c"].update(fresh=False)),
            silent={"node-c": "it has not answered within 3 s"},
        ),
        Check.MANAGERS,
        "The replica does not answer, and nobody hears it",
    ),
    "replica that has moved": (
        lambda: replace(
            healthy(),
            states={node: unheard().states[node] for node in NAMES[:2]},
            silent={"node-c": "There is no pod of a replica on node-c."},
            gone=frozenset({"node-c"}),
        ),
        Check.MANAGERS,
        "No replica runs on this node any more",
    ),
    "port-forward refused": (
        lambda: replace(
            healthy(), silent={"node-c": "port-forward is refused (403)."}, states={n: state(n) for n in NAMES[:2]}
        ),
        Check.MANAGERS,
        "port-forward is refused",
    ),
    "two releases": (
        lambda: on_host(lambda h: h.update(release="0.1.0")),
        Check.RELEASES,
        "0.1.0 on node-b; 0.2.0 on node-a, node-c",
    ),
    "clock of a node": (lambda: replace(healthy(), clocks={"node-b": -90.0}), Check.CLOCKS, "90 s behind"),
    "other hello key": (lambda: noticed(NoticeKind.WRONG_KEY), Check.HELLOS, "signed with another key"),
    "hellos with an old clock": (lambda: noticed(NoticeKind.OLD_BOOT), Check.HELLOS, "boot number is below"),
    "hellos of another version": (lambda: noticed(NoticeKind.OTHER_VERSION), Check.HELLOS, "does not know"),
    "one node name twice": (lambda: noticed(NoticeKind.OWN_NAME), Check.HELLOS, "with the name of this node"),
    "hello port filtered": (lambda: noticed(NoticeKind.HELLOS_MISSING), Check.HELLOS, "UDP port 7473"),
    "hello port filtered, one way": (
        lambda: edited(healthy(), "node-a", lambda s: s["replicas"]["node-b"].update(fresh=False)),
        Check.HELLOS,
        "Allow UDP port 7473",
    ),
    "hello port taken": (
        lambda: edited(
            healthy(), "node-a", lambda s: s["wire"].update(trouble="cannot say hello on UDP port 7473: in use")
        ),
        Check.SPEAKERS,
        "Stop the process that has the port",
    ),
    "ExaBGP ends": (
        lambda: edited(healthy(), "node-a", lambda s: s["bgp"].update(trouble="ExaBGP was killed by signal 9.")),
        Check.SPEAKERS,
        "killed by signal 9",
    ),
    "replica cut off": (
        lambda: edited(healthy(), "node-a", lambda s: s["wire"].update(doubt=True)),
        Check.SPEAKERS,
        "it is cut off itself",
    ),
    # Nodes
    "ARP inspection": (lambda: noticed(NoticeKind.OUTVOTED, "10.77.0.0/24"), Check.NODES, "Dynamic ARP Inspection"),
    "cable pulled": (lambda: noticed(NoticeKind.LINK_DOWN, "10.77.0.0/24"), Check.NODES, "is down"),
    "strict rp_filter": (lambda: second_network(healthy()), Check.SYSCTLS, "rp_filter is strict"),
    "arp_ignore 8": (
        lambda: on_host(lambda h: h["all"].update(arp_ignore=8)),
        Check.SYSCTLS,
        "answers no ARP request",
    ),
    "proxy_arp": (lambda: on_host(lambda h: h["nics"]["eth0"].update(proxy_arp=1)), Check.SYSCTLS, "proxy_arp is on"),
    "NIC without multicast": (
        lambda: on_host(lambda h: h["nics"]["eth0"].update(multicast=False)),
        Check.INTERFACES,
        "no multicast",
    ),
    "memory near its limit": (
        lambda: on_host(lambda h: h.update(memory={"used": 240 * 2**20, "limit": 256 * 2**20})),
        Check.MEMORY,
        "240 MiB of the 256 MiB",
    ),
    # BGP
    "router expects another AS": (lambda: notified(2, 2), Check.SESSIONS, "expects another AS than ours (64512)"),
    "router has another AS": (lambda: notified(2, 2, local=True), Check.SESSIONS, "not spec.conf.peerAs (64500)"),
    "router ID twice": (lambda: notified(2, 3), Check.SESSIONS, "one BGP identifier"),
    "hold time refused": (lambda: notified(2, 6), Check.SESSIONS, "holdTime"),
    "prefix limit": (lambda: notified(6, 1), Check.SESSIONS, "maximum-prefix"),
    "shut down": (lambda: notified(6, 2), Check.SESSIONS, "shut the session down"),
    "neighbor unknown": (lambda: notified(6, 5), Check.SESSIONS, "rejects the connection"),
    "hold timer": (lambda: notified(4, 0, local=True), Check.SESSIONS, "wrong MTU"),
    "BGP port filtered": (lambda: lost(Loss(LossKind.TIMED_OUT)), Check.SESSIONS, "filters of that TCP port"),
    "other BGP password": (lambda: lost(Loss(LossKind.TIMED_OUT), password=True), Check.SESSIONS, "has a password"),
    "no BGP on the router": (lambda: lost(Loss(LossKind.REFUSED)), Check.SESSIONS, "no BGP router listens"),
    "closed at once": (lambda: lost(Loss(LossKind.CLOSED)), Check.SESSIONS, "no neighbor with this node's address"),
    "nodeSelector matches nothing": (
        lambda: peer(node_selector=Selector((Requirement("rack", "In", frozenset({"9"})),))),
        Check.PEERS,
        "matches no node",
    ),
    "no AS of our own": (
        lambda: healthy(replace(snapshot(), conf=BgpConf())),
        Check.PEERS,
        "No AS of our own is known",
    ),
    "Secret missing": (
        lambda: edited(
            healthy(), "*", lambda s: s["peers"]["tor"].update(problems=["There is no key 'x' in the Secret a/b."])
        ),
        Check.PEERS,
        "no key 'x' in the Secret",
    ),
    # Pools and objects
    "typing error in a pool": (
        lambda: problem("Eip", "typo", Reason.INVALID_ADDRESS, '"10.0.0.300" is not an IP address.', "spec.address"),
        Check.OBJECTS,
        "10.0.0.300",
    ),
    "exhausted pool": (exhausted, Check.SERVICES, "auto is full"),
    "pool overlaps pods": (
        lambda: replace(healthy(), ranges={ip_network("10.77.0.128/25"): "the pod range of node node-a"}),
        Check.POOLS,
        "overlaps with 10.77.0.128/25, the pod range of node node-a",
    ),
    "pool overlaps Services": (
        lambda: replace(healthy(), ranges={ip_network("172.16.0.9/32"): "the address of a Service in the cluster"}),
        Check.POOLS,
        "overlaps with 172.16.0.9/32",
    ),
    "pool contains nodes": (
        lambda: pool("segment", ranges=eip("segment", "10.77.0.10", "10.77.0.30").ranges),
        Check.POOLS,
        "contains addresses of the nodes node-a, node-b, node-c",
    ),
    "two pools overlap": (
        lambda: pool("segment", ranges=eip("segment", "10.77.0.210", "10.77.0.229").ranges, created="2026-02-01"),
        Check.POOLS,
        "Overlaps the older Eip auto",
    ),
    "pool outside every subnet": (
        lambda: pool("segment", ranges=eip("segment", "203.0.113.0", "203.0.113.9").ranges),
        Check.POOLS,
        "in no connected subnet",
    ),
    "foreign host": (
        lambda: replace(
            healthy(),
            states={
                "node-a": state(
                    wire={"conflicts": {AUTO_VIP: AddressConflict(AUTO_VIP, bytes.fromhex("020000000009"), 1.0)}}
                )
            },
        ),
        Check.CONFLICTS,
        "MAC 02:00:00:00:00:09",
    ),
    # Services
    "no ready endpoint": (no_service_endpoints, Check.SERVICES, "No endpoint of the Service is ready"),
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_cause_is_in_the_first_three_lines(name: str) -> None:
    make, check, words = SITUATIONS[name]
    facts = make()
    findings = examine(facts)
    shown = lines(findings, facts)
    assert any(words in line for line in shown[:3]), "\n".join(shown)
    named = next(one for one in findings if words in f"{one.where}: {one.what} {one.do}")
    assert named.check is check
    assert named.do and named.what.endswith((".", '"')), named


def test_a_healthy_cluster_has_no_findings() -> None:
    facts = healthy()
    assert examine(facts) == () and verdict(()) is None
    assert lines((), facts) == ["Nothing is wrong (3 replicas asked)."]


def test_at_least_thirty_situations() -> None:
    assert len(SITUATIONS) >= 30


def test_errors_come_before_warnings_and_causes_before_consequences() -> None:
    late = Finding(Check.API, Severity.WARNING, "a", "w.", "d.")
    service = Finding(Check.SERVICES, Severity.ERROR, "b", "w.", "d.")
    session = Finding(Check.SESSIONS, Severity.ERROR, "z", "w.", "d.")
    assert ordered([late, service, session, session]) == (session, service, late)
    assert verdict([late]) is Severity.WARNING and verdict([late, session]) is Severity.ERROR
    found = [one.check for one in examine(notified(2, 2))]
    assert found.index(Check.SESSIONS) < found.index(Check.SERVICES)


def test_one_cause_on_many_nodes_is_one_finding() -> None:
    sessions = [one for one in examine(notified(2, 2)) if one.check is Check.SESSIONS]
    assert [one.where for one in sessions] == ["BgpPeer tor, node node-a, node-b, node-c"]
    assert sessions[0].severity is Severity.ERROR
    one = edited(notified(2, 2), "node-a", lambda s: s["peers"]["tor"].update(state="established"))
    assert [f.severity for f in examine(one) if f.check is Check.SESSIONS] == [Severity.WARNING], "others serve"


def test_a_disabled_peer_and_an_unwanted_session_are_no_findings() -> None:
    facts = notified(2, 2)
    assert facts.snapshot is not None
    off = {"tor": replace(facts.snapshot.peers["tor"], admin_down=True)}
    disabled = replace(facts, snapshot=replace(facts.snapshot, peers=off))
    assert not [one for one in examine(disabled) if one.check is Check.SESSIONS]
    unwanted = edited(facts, "*", lambda s: s["peers"]["tor"].update(wanted=False))
    assert not [one for one in examine(unwanted) if one.check is Check.SESSIONS]


def test_every_kind_of_loss_has_a_cause_and_a_remedy() -> None:
    tor = snapshot().peers["tor"]
    for kind in LossKind:
        trouble = Trouble(TroubleKind.HUNG)
        for each in (tor, replace(tor, passive=True), None):
            what, do = cause(Loss(kind, 3, 1, trouble=trouble), each, BgpConf(local_as=1, listen_port=1790))
            assert what.endswith(".") and do.endswith(".")
    assert "1790" in cause(None, replace(tor, passive=True), BgpConf(listen_port=1790))[1]
    assert "ebgpMultihop" in cause(None, tor, BgpConf())[1]
    assert "ebgpMultihop" not in cause(None, replace(tor, multihop_ttl=3), BgpConf())[1]


def test_a_loss_survives_the_state() -> None:
    loss = Loss(LossKind.NOTIFICATION, 6, 2, "bye", local=True)
    assert read(written(loss)) == loss and read(None) is None and written(None) is None
    assert read({"kind": "new"}) == Loss(LossKind.OTHER)


def test_what_an_older_replica_does_not_show_is_no_finding() -> None:
    facts = edited(healthy(), "*", lambda s: [s.pop("host"), s["wire"].pop("noticed"), s.pop("peers")])
    assert examine(facts) == ()


def test_a_strict_filter_on_the_interface_of_the_gateway_breaks_nothing() -> None:
    facts = second_network(healthy())
    assert facts.snapshot is not None
    members = {n: replace(m, gateways=(ip_address("10.77.0.1"),)) for n, m in facts.snapshot.members.items()}
    assert examine(replace(facts, snapshot=replace(facts.snapshot, members=members))) == ()


def test_only_memory_near_the_limit_is_a_finding() -> None:
    assert examine(on_host(lambda h: h.update(memory={"used": 239, "limit": None}))) == ()
    assert examine(on_host(lambda h: h.update(memory={"used": 89, "limit": 100}))) == ()
    assert [one.check for one in examine(on_host(lambda h: h.update(memory={"used": 90, "limit": 100})))] == [
        Check.MEMORY
    ]


def test_a_dead_node_is_named_with_those_that_see_it() -> None:
    (found,) = (one for one in examine(dead()) if one.check is Check.NODES)
    assert found.where == "node node-c" and "node-a, node-b" in found.what


def test_one_replica_and_a_node_without_address_are_warnings() -> None:
    of = snapshot()
    alone = replace(of, members={"node-a": of.members["node-a"]}, nodes={**of.nodes, "new": Node("new")})
    facts = replace(healthy(alone), states={"node-a": state(of=snapshot())})
    found = [one for one in examine(facts) if one.severity is Severity.WARNING]
    assert {one.where for one in found} >= {"cluster", "node new"}


def test_an_automatic_pool_off_every_subnet_is_a_warning_while_there_are_peers() -> None:
    far = eip("auto", "203.0.113.0", "203.0.113.9").ranges
    (found,) = (one for one in examine(pool("auto", ranges=far)) if one.check is Check.POOLS)
    assert found.severity is Severity.WARNING
    strict = pool("auto", ranges=far, protocol=Protocol.LAYER2)
    assert [one.severity for one in examine(strict) if one.check is Check.POOLS] == [Severity.ERROR]


def test_services_with_one_problem_are_one_finding() -> None:
    of = snapshot()
    facts = healthy(replace(of, endpoints={}))
    (found,) = (one for one in examine(facts) if one.check is Check.SERVICES)
    assert found.where == f"Service {MAIL}, {SHOP}, {WEB}" and "2 more like this" in found.what


def test_missing_fields_of_a_schema() -> None:
    ours: dict[str, Any] = {
        "properties": {"spec": {"properties": {"a": {}, "b": {"items": {"properties": {"c": {}}}}}}}
    }
    assert missing_fields(ours, ours) == []
    theirs: dict[str, Any] = {"properties": {"spec": {"properties": {"b": {"items": {"properties": {"d": {}}}}}}}}
    assert missing_fields(ours, theirs) == ["spec.a", "spec.b[].c"]
    assert missing_fields(ours, {"x-kubernetes-preserve-unknown-fields": True}) == []


def test_the_rights_are_those_of_the_chart() -> None:
    def spelled(rules: list[dict[str, Any]], *, inside: bool) -> set[tuple[str, str, str, bool]]:
        return {
            (verb, group, resource, inside)
            for rule in rules
            if not rule.get("resourceNames") and rule["resources"] not in (["pods"], ["pods/status"])
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    assert set(NEEDED) == spelled(CLUSTER_RULES, inside=False) | spelled(NAMESPACE_RULES, inside=True)


@pytest.mark.parametrize(
    ("theirs", "ours", "active"),
    [
        ("2026-11-30T12:00:05Z", "2026-11-30T12:00:00Z", True),  # the other controller wrote last
        ("2026-11-30T11:59:57Z", "2026-11-30T12:00:00Z", True),  # we wrote in response to its write
        ("2026-11-30T11:59:00Z", "2026-11-30T12:00:00Z", False),  # the Service was migrated from it
        ("", "2026-11-30T12:00:00Z", True),
        ("2026-11-30T11:59:00Z", "", True),
        ("yesterday", "2026-11-30T12:00:00Z", True),
        ("2026-11-30T11:59:00", "2026-11-30T12:00:00Z", True),  # no time zone
    ],
)
def test_a_load_balancer_that_a_service_has_come_from_does_not_claim_it(theirs: str, ours: str, active: bool) -> None:
    managed = [{"manager": "controller", "time": theirs, "ours": ours}]
    assert active_writers(managed) == (("controller",) if active else ())


@pytest.mark.parametrize("managed", [None, "x", 7, ["x", None], {}])
def test_managed_fields_that_are_none(managed: object) -> None:
    assert active_writers(managed) == ()


def test_networks_that_a_pool_may_not_overlap_say_what_they_are() -> None:
    pods = {"b": [ip_network("10.244.1.0/24")], "a": [ip_network("10.244.0.0/24")]}
    found = ranges_of(pods, [ip_network("10.96.0.0/12")], [ip_network("10.96.0.1/32")])
    assert found == {
        ip_network("10.96.0.1/32"): "the address of a Service in the cluster",
        ip_network("10.244.0.0/24"): "the pod range of node a",
        ip_network("10.244.1.0/24"): "the pod range of node b",
        ip_network("10.96.0.0/12"): "the range of cluster IPs",
    }

"""Decisions of edge/kube without requests: Events, leases, outages, errors, paths, location of the credentials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.cluster import Conflict, Denied, Kind, LeaseRecord, Outage, Restored, Unavailable
from porterlb.edge.kube import lease, micro_time, paths
from porterlb.edge.kube.access import InCluster, Kubeconfig, find_source
from porterlb.edge.kube.api import shaped
from porterlb.edge.kube.errors import Busy, Expired, Missing, trouble
from porterlb.edge.kube.event_series import BURST, REFILL, SERIES_LIFE, EventSeries, Series
from porterlb.edge.kube.outage import OutageTracker

# -- Events -------------------------------------------------------------------------------------------------


def series(message: str = "m", about: str = "Service/web") -> Series:
    return Series(about, "Warning", "NoAddress", message, "porterlb")


def test_a_repeat_is_counted_in_the_event_that_there_is() -> None:
    event_series = EventSeries()
    event_series.told(series(), 0)
    write = event_series.due(0)
    assert write and (write.name, write.count) == ("", 1)
    event_series.wrote(write, "web.1")
    assert event_series.due(0) is None and event_series.pause(0) is None
    for now in (1, 2, 3):
        event_series.told(series(), now)
    write = event_series.due(3)
    assert write and (write.name, write.count) == ("web.1", 4)


def test_what_is_told_while_it_is_written_is_not_lost() -> None:
    event_series = EventSeries()
    event_series.told(series(), 0)
    write = event_series.due(0)
    assert write
    event_series.told(series(), 1)
    event_series.wrote(write, "web.1")
    again = event_series.due(1)
    assert again and (again.name, again.count) == ("web.1", 2)


def test_an_event_that_the_api_has_forgotten_is_written_anew() -> None:
    event_series = EventSeries()
    event_series.told(series(), 0)
    write = event_series.due(0)
    assert write
    event_series.wrote(write, "")
    anew = event_series.due(0)
    assert anew and anew.name == ""


def test_after_a_long_quiet_a_repeat_is_news() -> None:
    event_series = EventSeries()
    event_series.told(series(), 0)
    write = event_series.due(0)
    assert write
    event_series.wrote(write, "web.1")
    event_series.told(series(), SERIES_LIFE + 1)
    anew = event_series.due(SERIES_LIFE + 1)
    assert anew and (anew.name, anew.count) == ("", 1)


def test_one_object_cannot_silence_another() -> None:
    event_series = EventSeries()
    for number in range(100):
        event_series.told(series(str(number)), 0)
    event_series.told(series(about="Service/other"), 0)
    written = []
    while write := event_series.due(0):
        written.append(write.series.about)
        event_series.wrote(write, "x")
    assert written.count("Service/web") == BURST and "Service/other" in written


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 3)), max_size=200))
def test_however_often_it_is_told_the_writes_about_an_object_are_few(steps: list[tuple[float, int]]) -> None:
    event_series, now, writes, told = EventSeries(), 0.0, 0, 0
    for pause, which in steps:
        now += pause
        told += 1
        event_series.told(series(str(which)), now)
        while write := event_series.due(now):
            writes += 1
            event_series.wrote(write, "x")
    assert writes <= min(told, BURST + now / REFILL + 1e-6)
    # Waiting Events are written in the end, with the complete count.
    counted = dict.fromkeys((series(str(which)) for which in range(4)), 0)
    while (wait := event_series.pause(now)) is not None:
        now += wait
        write = event_series.due(now)
        assert write
        counted[write.series] = write.count
        event_series.wrote(write, "x")
    for one, count in counted.items():
        if count:
            assert count <= sum(series(str(which)) == one for _, which in steps)


# -- leases -------------------------------------------------------------------------------------------------

RECORDS = st.builds(
    LeaseRecord,
    name=st.just("leader"),
    holder=st.sampled_from(["", "node-a"]),
    duration=st.floats(0.1, 1e6),
    transitions=st.integers(0, 2**31 - 1),
    renewals=st.integers(10**15, 4 * 10**15),
    annotations=st.dictionaries(st.text(min_size=1), st.text()),
    version=st.just("6f1c/77"),
)


@given(RECORDS)
def test_a_lease_comes_back_as_it_was_written(record: LeaseRecord) -> None:
    obj = json.loads(json.dumps(lease.to_object(record, "ns", 10**15)))
    assert obj["metadata"]["resourceVersion"] == "77" and obj["metadata"]["uid"] == "6f1c"
    assert isinstance(obj["spec"]["leaseDurationSeconds"], int) and obj["spec"]["leaseDurationSeconds"] > 0
    assert lease.from_object(obj) == record


def test_a_lease_of_somebody_else_may_lack_anything() -> None:
    assert lease.from_object({"metadata": {"name": "x", "uid": "u", "resourceVersion": "1"}}) == LeaseRecord(
        "x", "", 0.0, version="u/1"
    )
    odd = {"metadata": {"name": "x"}, "spec": {"leaseDurationSeconds": None, "renewTime": "soon"}}
    assert lease.from_object(odd).renewals == 0


def test_a_renewal_is_a_change_also_when_the_clock_goes_back() -> None:
    first = lease.from_object(lease.to_object(LeaseRecord("x", "a", 4), "ns", 5_000_000))
    second = lease.to_object(LeaseRecord("x", "a", 4, renewals=first.renewals + 1), "ns", 1)
    assert lease.from_object(second).renewals == 5_000_001


def test_a_duration_that_somebody_has_changed_counts() -> None:
    obj = lease.to_object(LeaseRecord("x", "a", 0.6), "ns", 1)
    obj["spec"]["leaseDurationSeconds"] = 9
    assert lease.from_object(obj).duration == 9


@given(st.integers(0, 4 * 10**15))
def test_micro_time_has_six_digits_always(microseconds: int) -> None:
    text = micro_time.write(microseconds)
    assert text.endswith("Z") and len(text.split(".")[1]) == 7
    assert micro_time.read(text) == microseconds


def test_other_spellings_of_a_time() -> None:
    assert micro_time.write(0) == "1970-01-01T00:00:00.000000Z"
    assert micro_time.read("1970-01-01T01:00:01+01:00") == micro_time.read("1970-01-01T00:00:01Z") == 1_000_000
    assert micro_time.read(None) == micro_time.read("1970-01-01T00:00:01") == 0


# -- outages ------------------------------------------------------------------------------------------------


def test_an_outage_is_over_when_every_kind_is_followed_again() -> None:
    reach = OutageTracker([Kind.NODE, Kind.EIP])
    assert reach.followed(Kind.NODE, 0) is None  # there was no outage
    assert reach.failed(Kind.NODE, "gone", 1.0, 0.5) == Outage("gone")
    assert reach.failed(Kind.EIP, "gone too", 1.0, 0.5) is None
    assert reach.failures == 1  # two requests that were under way together
    assert reach.followed(Kind.EIP, 0) is None  # listed before the outage: proves nothing
    assert reach.followed(Kind.EIP, 1) is None
    assert reach.failed(Kind.EIP, "again", 2.0, 0.5) is None
    assert reach.followed(Kind.NODE, 1) is None  # the other kind has failed since
    assert reach.followed(Kind.EIP, 1) == Restored()
    assert reach.over and reach.failures == 0
    assert reach.failed(Kind.EIP, "next", 9.0, 0.5) == Outage("next")
    assert reach.number == 2


def test_a_wait_that_the_api_asks_for_is_kept() -> None:
    reach = OutageTracker([Kind.NODE])
    reach.failed(Kind.NODE, "busy", 1.0, 0.0, after=30)
    assert reach.retry_at == 31


# -- errors, paths, sources ---------------------------------------------------------------------------------


def status(message: str, **details: str) -> bytes:
    return json.dumps({"kind": "Status", "message": message, "details": details}).encode()


def test_what_an_answer_that_is_no_success_means() -> None:
    assert isinstance(trouble(409, status("changed"), "/x"), Conflict)
    assert isinstance(trouble(410, status("old"), "/x"), Expired)
    busy = trouble(429, status("later"), "/x", "7")
    assert isinstance(busy, Busy) and busy.after == 7
    dated = trouble(429, b"", "/x", "Wed, 21 Oct 2015 07:28:00 GMT")
    assert isinstance(dated, Busy) and dated.after == 1
    missing = trouble(404, status('eips "a" not found', name="a"), "/x")
    assert isinstance(missing, Missing) and missing.named and str(missing) == 'eips "a" not found'
    unknown = trouble(404, b"404 page not found\n", "/apis/x/eips")
    assert isinstance(unknown, Missing) and not unknown.named and "Are the CRDs applied" in str(unknown)
    for code in (400, 403, 405, 422):
        assert type(trouble(code, status("no"), "/x")) is Denied
    for code in (408, 500, 502, 503, 504):
        assert type(trouble(code, b"<html>", "/x")) is Unavailable
    assert isinstance(trouble(401, b"[]", "/x"), Denied)


def test_paths() -> None:
    assert paths.collection(Kind.NODE) == "/api/v1/nodes"
    assert paths.collection(Kind.SERVICE) == "/api/v1/services"
    assert paths.collection(Kind.EIP, "ignored") == "/apis/network.kubesphere.io/v1alpha2/eips"
    assert paths.item(Kind.SECRET, "a.b-c", "ns") == "/api/v1/namespaces/ns/secrets/a.b-c"
    assert paths.events("ns", "e") == "/apis/events.k8s.io/v1/namespaces/ns/events/e"
    for bad in ("", "..", ".", "a/b", "a?b", "a b", "A", "a\n", "a" * 254, "a%2f..", "\u0661"):
        for path in (lambda name=bad: paths.item(Kind.EIP, name), lambda name=bad: paths.events(name)):
            with pytest.raises(Denied, match="is not the name of an object"):
                path()
        with pytest.raises(Denied, match=r"is not the name of an object|has a namespace"):
            paths.item(Kind.SECRET, "a", bad)
    with pytest.raises(Denied, match="has a namespace"):
        paths.item(Kind.SECRET, "a")


def test_where_credentials_come_from() -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    assert find_source("f", "c", pod) == Kubeconfig("f", "c")
    assert find_source("", "", {"KUBECONFIG": "g", **pod}) == Kubeconfig("g")
    assert find_source("", "", pod) == InCluster()
    assert find_source("", "", {}) == Kubeconfig("~/.kube/config")


def test_a_kubeconfig_depends_on_the_files_that_it_names(tmp_path: Path) -> None:
    config = tmp_path / "config"
    cluster = {"certificate-authority": "ca.crt", "server": "https://x"}
    user = {"tokenFile": "/run/token", "client-key": "a.key"}
    config.write_text(
        json.dumps({"clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": user}]})
    )
    assert set(Kubeconfig(str(config)).files()) == {
        config,
        tmp_path / "ca.crt",
        Path("/run/token"),
        tmp_path / "a.key",
    }
    config.write_text("[: not YAML")
    assert Kubeconfig(str(config)).files() == [config]


def test_g5_of_managed_fields_the_foreign_writers_of_addresses_are_kept() -> None:
    def entry(manager: str, *path: str, time: str = "") -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name in reversed(path):
            fields = {f"f:{name}": fields}
        at = {"time": time} if time else {}
        return {"manager": manager, "operation": "Update", "subresource": "status", "fieldsV1": fields, **at}

    addresses = ("status", "loadBalancer", "ingress")
    managed = [entry("porterlb", *addresses), entry("servicelb", *addresses), entry("kubectl", "spec", "ports"), "x"]
    service = shaped(Kind.SERVICE, {"metadata": {"name": "web", "managedFields": managed}})
    assert service["metadata"] == {"name": "web", "managedFields": [{"manager": "servicelb", "time": "", "ours": ""}]}
    times = {"time": "2026-11-30T11:00:00Z", "ours": "2026-11-30T12:00:02Z"}
    managed = [
        entry("porterlb", "status", "conditions", time=times["ours"]),
        entry("porterlb", *addresses, time="2026-11-30T12:00:01Z"),
        entry("servicelb", *addresses, time=times["time"]),
    ]
    service = shaped(Kind.SERVICE, {"metadata": {"name": "web", "managedFields": managed}})
    assert service["metadata"]["managedFields"] == [{"manager": "servicelb", **times}]
    assert "managedFields" not in shaped(Kind.SERVICE, {"metadata": {"managedFields": managed[:2]}})["metadata"]
    assert "managedFields" not in shaped(Kind.NODE, {"metadata": {"managedFields": managed}})["metadata"]

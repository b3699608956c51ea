"""``porterlb mode``: shows, switches and waits; refuses a mode that cannot work."""

from __future__ import annotations

import json

import pytest
import yaml

from porterlb.cli.mode import still_missing
from porterlb.core.bgp.reasons import Loss, LossKind
from porterlb.core.model import Protocol
from tests.cli.conftest import Folder


def test_the_mode_is_shown_with_its_reason(folder: Folder) -> None:
    folder.manage()
    folder.up, folder.lost = (), Loss(LossKind.NOTIFICATION, 6, 2, "maintenance")
    folder.manage(3)
    assert folder.cli("mode") == 0
    pool = next(line for line in folder.out.splitlines() if line.startswith("pool"))
    assert "layer2" in pool and "1 layer2" in pool
    assert 'lost tor: The peer sent NOTIFICATION cease, administrative shutdown (6/2): "maintenance".' in pool
    assert "bgp to layer2" in folder.out
    folder.cli("mode", "--eip", "pool", "-o", "json")
    (row,) = json.loads(folder.out)["items"]
    assert list(row) == [
        "name",
        "protocol",
        "mode",
        "since",
        "reason",
        "layer2Possible",
        "vips",
        "waiting",
        "history",
        "problems",
    ]
    assert row["history"][0]["after"] == "layer2"


def test_switched_and_waited_for(folder: Folder) -> None:
    folder.manage()
    with folder.managed():
        assert folder.cli("mode", "layer2", "--eip", "pool", "--timeout", "20") == 0, folder.err
    assert folder.out == "Eip pool was switched from auto to layer2; 1 address is served by layer2.\n"
    assert "Eip pool: protocol auto -> layer2.\n" in folder.err
    pool, *_ = yaml.safe_load_all((folder.path / "network.yaml").read_text())
    assert pool["spec"]["protocol"] == "layer2"
    assert "# on the segment" in (folder.path / "network.yaml").read_text()
    folder.cli("mode", "--eip", "pool", "-o", "json")
    (row,) = json.loads(folder.out)["items"]
    assert (row["protocol"], row["mode"], row["vips"]["layer2"]) == ("layer2", "layer2", 1)


def test_back_to_what_it_is_already(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("mode", "auto", "--eip", "pool") == 0
    assert folder.out == "Eip pool is auto already; 1 address is served by bgp.\n"


def test_without_waiting(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("mode", "layer2", "--eip", "pool", "--no-wait", "-o", "json") == 0
    (row,) = json.loads(folder.out)["items"]
    assert (row["changed"], row["protocol"], row["mode"]) == (True, "layer2", "")


def test_nobody_takes_notice(folder: Folder) -> None:
    folder.manage()
    assert folder.cli("mode", "layer2", "--eip", "pool", "--timeout", "0.3") == 1
    last = folder.err.splitlines()[-1]
    assert last == (
        "porterlb: Eip pool: after 0.3 s, the manager has not read the change yet. "
        "Is a manager running? See porterlb status."
    )


def test_bgp_without_a_peer_is_refused(folder: Folder) -> None:
    text = (folder.path / "network.yaml").read_text()
    folder.write("network.yaml", text[: text.index("kind: BgpPeer")].rpartition("---")[0])
    folder.manage()
    before = (folder.path / "network.yaml").read_text()
    assert folder.cli("mode", "bgp", "--eip", "pool") == 1
    assert folder.err == (
        "porterlb: bgp cannot work: there is no BgpPeer. Create one first (porterlb peer list). Or use --force.\n"
    )
    assert (folder.path / "network.yaml").read_text() == before
    assert folder.cli("mode", "bgp", "--eip", "pool", "--force", "--no-wait") == 0
    assert "protocol: bgp" in (folder.path / "network.yaml").read_text()


def test_bgp_without_a_session_is_refused(folder: Folder) -> None:
    folder.up = ()
    folder.manage()
    assert folder.cli("mode", "bgp", "--eip", "pool") == 1
    assert folder.err == (
        "porterlb: bgp cannot work now: no replica has an established session. "
        "See porterlb peer list. Or use --force.\n"
    )
    assert folder.cli("mode", "bgp", "--eip", "pool", "--force", "--no-wait") == 0


def test_layer2_off_the_segment_is_refused(folder: Folder) -> None:
    text = (folder.path / "network.yaml").read_text().replace("protocol: bgp, autoAssign: false", "autoAssign: false")
    folder.write("network.yaml", text)
    folder.manage()
    assert folder.cli("mode", "layer2", "--eip", "routed") == 1
    assert folder.err.startswith("porterlb: layer2 cannot work for Eip routed: its addresses are in no connected")
    assert folder.err.count("\n") == 1
    # A switch of all Eips switches none: it is refused before any change.
    assert folder.cli("mode", "layer2") == 1
    assert "protocol: layer2" not in (folder.path / "network.yaml").read_text()


def test_an_eip_that_cannot_be_used(folder: Folder) -> None:
    bad = "apiVersion: network.kubesphere.io/v1alpha2\nkind: Eip\nmetadata: {name: bad}\nspec: {address: nonsense}\n"
    folder.write("bad.yaml", bad)
    folder.manage()
    assert folder.cli("mode", "layer2", "--eip", "bad") == 1
    assert folder.err.startswith("porterlb: Eip bad cannot be used: ")
    with folder.managed():
        assert folder.cli("mode", "bgp", "--timeout", "20") == 0, folder.err
    assert "Eip bad is not changed, because it cannot be used: " in folder.err
    assert (folder.path / "bad.yaml").read_text() == bad


def test_an_unknown_eip(folder: Folder) -> None:
    assert folder.cli("mode", "bgp", "--eip", "x") == 2
    assert folder.err == "porterlb: There is no Eip 'x'. There are: pool, routed.\n"


@pytest.mark.parametrize(
    ("record", "wanted", "generation", "missing"),
    [
        ({}, Protocol.BGP, 2, "the manager has not read the change yet."),
        ({"protocol": "bgp", "observedGeneration": 1}, Protocol.BGP, 2, "the manager has not read the change yet."),
        ({"protocol": "bgp", "observedGeneration": 2}, Protocol.BGP, 2, ""),
        (
            {"protocol": "bgp", "waiting": 2, "vips": {"layer2": 1}, "reason": "Why."},
            Protocol.BGP,
            0,
            "2 addresses have not switched yet. Why.",
        ),
        ({"protocol": "bgp", "vips": {"layer2": 1}}, Protocol.BGP, 0, "1 address has not switched yet."),
        ({"protocol": "auto", "vips": {"layer2": 1, "bgp": 3}}, Protocol.AUTO, 0, ""),
    ],
)
def test_what_is_waited_for(record: dict[str, object], wanted: Protocol, generation: int, missing: str) -> None:
    assert still_missing(record, wanted, generation) == missing


def switch(folder: Folder, *arguments: str) -> str:
    assert folder.cli("mode", *arguments, "--no-wait", "--force") == 0, folder.err
    pool, *_ = yaml.safe_load_all((folder.path / "network.yaml").read_text())
    return str(pool["spec"].get("protocol"))


def test_restore_gives_back_what_was_there_before_the_first_switch(folder: Folder) -> None:
    folder.manage()
    assert switch(folder, "bgp", "--eip", "pool") == "bgp"
    assert switch(folder, "layer2", "--eip", "pool") == "layer2"
    assert switch(folder, "restore", "--eip", "pool") == "auto"
    assert folder.out.startswith("Eip pool was switched from layer2 to auto;")
    assert folder.cli("mode", "restore", "--eip", "pool") == 1
    assert folder.err == (
        "porterlb: Eip pool was not switched by porterlb mode, or its protocol was changed afterwards by other means. "
        "Name the protocol: porterlb mode bgp, layer2 or auto.\n"
    )


def test_restore_leaves_eips_alone_that_were_not_switched(folder: Folder) -> None:
    folder.manage()
    switch(folder, "layer2", "--eip", "pool")
    assert switch(folder, "restore") == "auto"
    assert "routed" not in folder.out and "protocol: bgp" in (folder.path / "network.yaml").read_text()
    assert folder.cli("mode", "restore") == 1
    assert folder.err.startswith("porterlb: No Eip was switched by porterlb mode,")


def test_restore_does_not_undo_the_edit_of_somebody_else(folder: Folder) -> None:
    folder.manage()
    switch(folder, "layer2", "--eip", "pool")
    text = (folder.path / "network.yaml").read_text()
    folder.write("network.yaml", text.replace("protocol: layer2", "protocol: bgp"))
    assert folder.cli("mode", "restore", "--eip", "pool") == 1
    # A new switch keeps the original protocol.
    assert switch(folder, "layer2", "--eip", "pool") == "layer2"
    assert switch(folder, "restore", "--eip", "pool") == "bgp"


def test_restore_is_checked_as_a_switch_is(folder: Folder) -> None:
    folder.manage()
    switch(folder, "bgp", "--eip", "pool")
    switch(folder, "auto", "--eip", "pool")  # as before: there is nothing left to restore
    assert folder.cli("mode", "restore") == 1
    folder.write("network.yaml", (folder.path / "network.yaml").read_text().replace("protocol: auto", "protocol: bgp"))
    switch(folder, "layer2", "--eip", "pool")
    folder.up = ()
    folder.manage()
    assert folder.cli("mode", "restore", "--eip", "pool") == 1
    assert folder.err.startswith("porterlb: bgp cannot work now: no replica has an established session.")

"""``explain --wire`` on a real segment: the correct answer, a foreign host, no answer, and a spread VIP."""

from __future__ import annotations

import time
from typing import Any

import pytest

from lab.measure import wait_until
from tests.lab import on_call
from tests.lab.product import EIP_ANNOTATION
from tests.lab.scenarios import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


def explain(stage: Stage, node: str, name: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the output of ``porterlb explain --wire`` on a node."""
    return on_call.ask(stage.lab.node(node), "explain", name, "--wire")


def verdicts(answer: dict[str, Any]) -> dict[str, str]:
    return {row["address"]: row["verdict"] for row in answer["segment"]}


def test_the_segment_is_compared_with_the_plan() -> None:
    with Stage("manifests") as stage:
        stage.lab.eip("spread", "10.77.0.60-10.77.0.69", protocol="layer2", layer2Spread="hosts")
        one, six = stage.serve("web", at="node-b")
        stage.lab.service("wide", policy="Local", annotations={EIP_ANNOTATION: "spread"})
        (spread,) = stage.lab.wait_vips("wide", timeout=30.0)
        stage.settle()
        node_b = stage.lab.node("node-b").mac

        begun = time.monotonic()
        code, answer = explain(stage, "node-a", "default/web")
        print(f"explain --wire took {time.monotonic() - begun:.2f} s")
        assert (code, verdicts(answer)) == (0, {one: "asPlanned", six: "asPlanned"}), answer
        for row in answer["segment"]:
            assert (row["asker"], row["interface"]) == ("node-a", "eth0")
            assert [(found["mac"], found["node"]) for found in row["answers"]] == [(node_b, "node-b")]
        code, answer = explain(stage, "node-b", one)
        assert (code, verdicts(answer)) == (0, {one: "own", six: "own"}), "it does not hear itself"

        known = stage.lab.state("node-a")["vips"][spread]
        assert sorted(known["hosts"]) == ["node-a", "node-b", "node-c"]
        for asker in ("node-a", "node-c"):
            code, answer = explain(stage, asker, spread)
            assert code == 0 and verdicts(answer)[spread] in ("asPlanned", "own"), answer
        assert stage.lab.state("node-a")["vips"][spread]["askers"] == known["askers"], "no replica became an asker"

        rules = f"type filter hook forward priority 11;\narp daddr ip {one} drop;"
        stage.lab.net.switch.nft(f"table bridge silent {{\nchain forward {{\n{rules}\n}}\n}}\n")
        code, answer = explain(stage, "node-a", "default/web")
        assert (code, verdicts(answer)) == (3, {one: "noAnswer", six: "asPlanned"}), answer
        assert answer["problems"][0].startswith(f"Nobody answers for {one} on eth0 of node-a.")
        stage.lab.net.switch.nft("delete table bridge silent\n")

        rival = stage.lab.add_host("rival", 239)
        rival.ns.ip(f"address add {one}/24 dev eth0", f"address add {six}/64 dev eth0 nodad")

        def found() -> bool:
            code, answer = explain(stage, "node-c", one)
            problems = " ".join(answer["problems"])
            return code == 3 and set(verdicts(answer).values()) == {"foreignHost"} and rival.mac in problems

        wait_until(found, 10, "the foreign host to be named")

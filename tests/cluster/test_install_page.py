"""Follows docs/install.md literally on real nodes: runs its shell blocks, and compares its examples with the real
output.

Only the placeholders named by the page are replaced: the image, the API server's address, and the application.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from lab.measure import wait_until
from tests import pages
from tests.cluster.reader import desk
from tests.cluster.whole import NAMESPACE, Whole, whole
from tests.pages import Desk

pytestmark = [pytest.mark.cluster, pytest.mark.lab, pytest.mark.nodes, pytest.mark.timeout(400)]


def blocks(section: str, language: str) -> list[str]:
    """The fenced blocks of one section of the page. An empty ``language`` selects blocks that show output."""
    here = [block for block in pages.blocks("install.md") if block.section == section]
    assert here, f"the page has no section {section}"
    return [block.text for block in here if block.language == language]


def follow(reader: Desk, section: str) -> None:
    """Runs every shell block of a section."""
    print(reader.follow("install.md", section=section))


def sees(reader: Desk, section: str, *commands: str) -> None:
    """Waits until the commands' output matches the page."""
    wanted = same("\n".join(blocks(section, "")))
    assert wanted

    def shown() -> bool:
        outputs = same("\n".join(reader.attempt(command).stdout for command in commands))
        if outputs != wanted:
            raise OSError(f"{outputs} is shown, {wanted} is on the page")
        return True

    wait_until(shown, 60, f"what {commands} show on the page", 0.5)


def waits_for(reader: Desk, pattern: str, command: str) -> None:
    def shown() -> bool:
        said = reader.attempt(command).stdout
        if not re.search(pattern, said):
            raise OSError(said)
        return True

    wait_until(shown, 20, pattern, 0.5)


def same(text: str) -> list[str]:
    """Rows of a table without variable parts: ages, cluster IPs, node ports, nodes, empty lines."""
    for pattern, word in (
        (r"\b(\d+[dhms])+\s*$", "AGE"),
        (r"\b10\.96\.\d+\.\d+\b", "IP"),
        (r":\d+/TCP", ":PORT/TCP"),
        (r"\bnode-[a-z]\b", "NODE"),
    ):
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def lab() -> Iterator[Whole]:
    with whole() as made:
        try:
            yield made
        finally:
            for node in made.nodes:
                print(f"--- {node.name}\n{made.manager_log(node.name)[-3000:]}")


@pytest.fixture(scope="module")
def reader(lab: Whole, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return desk(lab, tmp_path_factory.mktemp("desk"))


def test_the_page_ends_with_a_served_service(lab: Whole, reader: Desk) -> None:
    follow(reader, "Install")
    assert len(lab.ready_replicas()) == 2

    follow(reader, "First addresses")
    sees(reader, "First addresses", "kubectl get service web", "kubectl get eip")
    (vip,) = lab.wait_vips("web")
    owner = lab.wait_owner(vip)
    # While the pods become ready one after the other, the next hop may still move.
    waits_for(reader, rf"{vip} is served by Layer 2 on {owner}\.|to {owner} \(layer2\)", "kubectl describe service web")
    every_pod_answers(lab, vip, on_segment=True)

    follow(reader, "First router")
    # Two replicas without add-path: two next hops, on any two nodes.
    sees(reader, "First router", "kubectl get bgppeer", blocks("First router", "sh")[1])
    assert len(lab.router.next_hops()[f"{vip}/32"]) == 2
    every_pod_answers(lab, vip, on_segment=False)
    every_pod_answers(lab, vip, on_segment=True)


def every_pod_answers(lab: Whole, vip: str, *, on_segment: bool) -> None:
    where = lab.segment_client if on_segment else lab.client
    pods = {pod.metadata.name for pod in lab.pods_of("web", "default")}
    assert len(pods) == 3
    wait_until(lambda: set(where.pods_answering(vip, 30)) == pods, 30, f"answers of {pods} from {vip}", 0.1)


TEST = "helm test porterlb --namespace porterlb-system"


def test_helm_test_fails_without_a_replica_and_says_so(lab: Whole, reader: Desk) -> None:
    scale = ("-n", NAMESPACE, "scale", "deployment/porterlb")
    lab.kubectl(*scale, "--replicas=0")
    wait_until(lambda: not lab.pods_of("porterlb", NAMESPACE), 60, "the replicas to end", 0.1)
    failed = reader.attempt(TEST)
    lab.kubectl(*scale, "--replicas=2")
    assert failed.returncode == 1, failed
    assert "ERROR" in failed.stdout, failed
    assert "ERROR" in lab.kubectl("-n", NAMESPACE, "logs", "porterlb-test"), "the pod stays"
    lab.wait_replicas(2)
    wait_until(lambda: reader.attempt(TEST).returncode == 0, 60, "helm test to pass, once the sessions are up", 1)
    kinds = "pods,roles,rolebindings,serviceaccounts,clusterroles,clusterrolebindings"
    left = lab.kubectl("-n", NAMESPACE, "get", kinds, "-l", "app.kubernetes.io/name=porterlb-test", "-o", "name")
    assert left == "", "the rights of the test are there for as long as it runs"


def test_upgrade_rollback_and_uninstall(lab: Whole, reader: Desk) -> None:
    follow(reader, "Upgrade, roll back, uninstall")
    kinds = "deployments,pods,secrets,leases,serviceaccounts,clusterroles,crds"
    found = lab.kubectl("get", kinds, "-A", "-o", "name")
    assert "porterlb" not in found and "kubesphere" not in found, found

"""docs/install.md followed to the letter on real nodes: its shell blocks are run, and its examples are what is shown.

Only what the page tells its reader to replace is replaced: the image, the API server's address, and the application.
``helm`` is the one on PATH; without one, a stand-in with Helm's library (`helm_command`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lab.measure import wait_until
from lab.workload import HTTP_PORT
from tests import pages
from tests.cluster import helm_command
from tests.cluster.nodes import images
from tests.cluster.whole import NAMESPACE, Whole, whole

pytestmark = [pytest.mark.cluster, pytest.mark.lab, pytest.mark.nodes, pytest.mark.timeout(400)]


def blocks(section: str, language: str) -> list[str]:
    """The fenced blocks of one section of the page; ``language`` empty: those that show output."""
    here = [block for block in pages.blocks("install.md") if block.section == section]
    assert here, f"the page has no section {section}"
    return [block.text for block in here if block.language == language]


class Reader:
    """Somebody at a shell, in the folder of a checkout, with kubectl, helm and a kubeconfig."""

    def __init__(self, lab: Whole, folder: Path) -> None:
        self.lab = lab
        (folder / "kubectl").symlink_to(lab.backend.plane.program("kubectl"))
        if not shutil.which("helm"):
            helm_command.script(folder)
        kubeconfig = str(lab.backend.plane.admin_kubeconfig)
        path = os.pathsep.join([str(folder), os.environ["PATH"]])
        self._environment = {**os.environ, "KUBECONFIG": kubeconfig, "PATH": path, "HOME": str(folder)}

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """A shell script, which ends at its first command that fails."""
        return subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=pages.CHECKOUT,
            env=self._environment,
            text=True,
            capture_output=True,
            timeout=180,
            check=False,
        )

    def follow(self, section: str, replaced: Mapping[str, str] | None = None) -> None:
        """Runs every shell block of a section; each text to be replaced is there."""
        for number, block in enumerate(blocks(section, "sh")):
            text = block
            for old, new in (replaced or {}).items():
                assert old in block, f"the page has no {old}"
                text = text.replace(old, new)
            done = self.run(text)
            shown = f"{section}, block {number + 1}:\n{text}\n{done.stdout}\n{done.stderr}"
            print(shown)
            assert done.returncode == 0, f"{shown}\n{self.lab.situation()}"

    def sees(self, section: str, *commands: str) -> None:
        """Waits until the commands show what the page shows."""
        wanted = same("\n".join(blocks(section, "")))
        assert wanted

        def shown() -> bool:
            outputs = same("\n".join(self.run(command).stdout for command in commands))
            if outputs != wanted:
                raise OSError(f"{outputs} is shown, {wanted} is on the page")
            return True

        wait_until(shown, 60, f"what {commands} show on the page", 0.5)

    def waits_for(self, sentence: str, command: str) -> None:
        def shown() -> bool:
            said = self.run(command).stdout
            if sentence not in said:
                raise OSError(said)
            return True

        wait_until(shown, 20, sentence, 0.5)


def same(text: str) -> list[str]:
    """Rows of a table without what differs from time to time: ages, cluster IPs, node ports, nodes, empty lines."""
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
def reader(lab: Whole, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(lab, tmp_path_factory.mktemp("desk"))


def test_the_page_ends_with_a_served_service(lab: Whole, reader: Reader) -> None:
    reader.follow("Install", {"REGISTRY/porterlb": images.MANAGER, "API_SERVER_ADDRESS": lab.backend.host.v4})
    assert len(lab.ready_replicas()) == 2

    port = f"--port=80 --target-port={HTTP_PORT}"
    reader.follow("First addresses", {"--image=nginx": f"--image={images.BACKEND}", "--port=80": port})
    reader.sees("First addresses", "kubectl get service web", "kubectl get eip")
    (vip,) = lab.wait_vips("web")
    owner = lab.wait_owner(vip)
    reader.waits_for(f"{vip} is served by Layer 2 on {owner}.", "kubectl describe service web")
    every_pod_answers(lab, vip, on_segment=True)

    reader.follow("First router")
    # Two replicas without add-path: two next hops, of any two nodes.
    reader.sees("First router", "kubectl get bgppeer", blocks("First router", "sh")[1])
    assert len(lab.router.next_hops()[f"{vip}/32"]) == 2
    every_pod_answers(lab, vip, on_segment=False)
    every_pod_answers(lab, vip, on_segment=True)


def every_pod_answers(lab: Whole, vip: str, *, on_segment: bool) -> None:
    where = lab.segment_client if on_segment else lab.client
    pods = {pod.metadata.name for pod in lab.pods_of("web", "default")}
    assert len(pods) == 3
    wait_until(lambda: set(where.pods_answering(vip, 30)) == pods, 30, f"answers of {pods} from {vip}", 0.1)


TEST = "helm test porterlb --namespace porterlb-system"


def test_helm_test_fails_without_a_replica_and_says_so(lab: Whole, reader: Reader) -> None:
    scale = ("-n", NAMESPACE, "scale", "deployment/porterlb")
    lab.kubectl(*scale, "--replicas=0")
    wait_until(lambda: not lab.pods_of("porterlb", NAMESPACE), 60, "the replicas to end", 0.1)
    failed = reader.run(TEST)
    lab.kubectl(*scale, "--replicas=2")
    assert failed.returncode == 1, failed
    assert "ERROR" in failed.stdout, failed
    assert "ERROR" in lab.kubectl("-n", NAMESPACE, "logs", "porterlb-test"), "the pod stays"
    lab.wait_replicas(2)
    passed = reader.run(TEST)
    assert passed.returncode == 0, passed.stdout
    kinds = "pods,roles,rolebindings,serviceaccounts,clusterroles,clusterrolebindings"
    left = lab.kubectl("-n", NAMESPACE, "get", kinds, "-l", "app.kubernetes.io/name=porterlb-test", "-o", "name")
    assert left == "", "the rights of the test are there for as long as it runs"


def test_upgrade_rollback_and_uninstall(lab: Whole, reader: Reader) -> None:
    reader.follow("Upgrade, roll back, uninstall")
    kinds = "deployments,pods,secrets,leases,serviceaccounts,clusterroles,crds"
    found = lab.kubectl("get", kinds, "-A", "-o", "name")
    assert "porterlb" not in found and "kubesphere" not in found, found

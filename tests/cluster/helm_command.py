"""A substitute for ``helm`` on machines without it, with the verbs that docs/install.md uses (``python -m
tests.cluster.helm_command VERB ...``).

Install, upgrade, rollback and uninstall are Helm's own actions, from its library. The library has no action for ``helm
test``. For it, this module creates the hooks that Helm stored with the release with kubectl and waits for them, as
https://helm.sh/docs/topics/charts_hooks describes it.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import helm_python as helm

CHECKOUT = Path(__file__).resolve().parents[2]
PATIENCE = 300.0
"""Timeout for each hook, in seconds: Helm's default for --timeout."""


def script(folder: Path) -> Path:
    """Writes an executable ``helm`` into a folder that is to be put on PATH."""
    path = folder / "helm"
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{CHECKOUT}" exec "{sys.executable}" -m {__spec__.name} "$@"\n')
    path.chmod(0o755)
    return path


def main() -> int:
    arguments = _arguments()
    kubeconfig = os.environ["KUBECONFIG"]
    try:
        with helm.Config(kubeconfig_path=kubeconfig, namespace=arguments.namespace) as config:
            return run(config, arguments)
    except helm.HelmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="helm")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("install", "upgrade", "rollback", "test", "uninstall"):
        verb = verbs.add_parser(name)
        verb.add_argument("release")
        verb.add_argument("--namespace", required=True)
        if name in ("install", "upgrade"):
            verb.add_argument("chart", type=Path)
            verb.add_argument("--create-namespace", action="store_true")
            verb.add_argument("--set", action="append", default=[], metavar="KEY.KEY=VALUE")
        if name == "upgrade":
            verb.add_argument("--reuse-values", action="store_true")
    return parser.parse_args()


def run(config: helm.Config, arguments: argparse.Namespace) -> int:
    release = arguments.release
    if arguments.verb == "install":
        config.install(arguments.chart, release, values(arguments.set), create_namespace=arguments.create_namespace)
    elif arguments.verb == "upgrade":
        config.upgrade(arguments.chart, release, values(arguments.set), reuse_values=arguments.reuse_values)
    elif arguments.verb == "rollback":
        config.rollback(release)
    elif arguments.verb == "uninstall":
        config.uninstall(release)
    else:
        return test(release, arguments.namespace)
    print(f"{release}: {arguments.verb} is done")
    return 0


def values(settings: list[str]) -> dict[str, Any]:
    """The values of ``--set``: keys with dots, and plain values. Lists and quoted characters are refused."""
    found: dict[str, Any] = {}
    for setting in settings:
        path, _, text = setting.partition("=")
        if set(setting) & set("{}[],\\"):
            raise SystemExit(f"helm: this stand-in does not read --set {setting}")
        *above, last = path.split(".")
        into = found
        for name in above:
            into = into.setdefault(name, {})
        into[last] = json.loads(text) if text in ("true", "false", "null") or text.isdecimal() else text
    return found


def test(release: str, namespace: str) -> int:
    """Runs the hooks of ``helm test`` in the order of their weights, until one fails."""
    hooks = [hook for hook in stored(release, namespace)["hooks"] if "test" in hook["events"]]
    succeeded, failed = [], []
    for hook in sorted(hooks, key=lambda hook: (hook.get("weight", 0), hook["name"])):
        if "before-hook-creation" in policies(hook):
            kubectl(namespace, "delete", "-f", "-", "--ignore-not-found", stdin=hook["manifest"])
        kubectl(namespace, "create", "-f", "-", stdin=hook["manifest"])
        phase = ended(namespace, hook["name"]) if hook["kind"] == "Pod" else "Succeeded"
        print(f"TEST SUITE:     {hook['name']}\nPhase:          {phase}", flush=True)
        if phase != "Succeeded":
            failed.append(hook)
            if "hook-failed" in hook.get("output_log_policies", ()):
                print(kubectl(namespace, "logs", hook["name"]))
            break
        succeeded.append(hook)
    for policy, done in (("hook-succeeded", succeeded), ("hook-failed", failed)):
        for hook in done:
            if policy in policies(hook):
                kubectl(namespace, "delete", "-f", "-", "--ignore-not-found", stdin=hook["manifest"])
    if failed:
        print(f"Error: {failed[0]['kind']} {failed[0]['name']} failed", file=sys.stderr)
    return len(failed)


def stored(release: str, namespace: str) -> dict[str, Any]:
    """The deployed revision as Helm stores it: JSON, compressed with gzip, in base64, in a Secret."""
    labels = f"owner=helm,name={release},status=deployed"
    secrets = json.loads(kubectl(namespace, "get", "secrets", "-l", labels, "-o", "json"))["items"]
    if not secrets:
        raise SystemExit("Error: release: not found")
    packed = base64.b64decode(base64.b64decode(secrets[0]["data"]["release"]))
    found: dict[str, Any] = json.loads(gzip.decompress(packed))
    return found


def policies(hook: dict[str, Any]) -> list[str]:
    return hook.get("delete_policies") or ["before-hook-creation"]


def ended(namespace: str, pod: str) -> str:
    """The phase of a pod when it has ended, or its phase when the timeout expires."""
    until = time.monotonic() + PATIENCE
    while True:
        phase = kubectl(namespace, "get", "pod", pod, "-o", "jsonpath={.status.phase}")
        if phase in ("Succeeded", "Failed") or time.monotonic() > until:
            return phase
        time.sleep(0.2)


def kubectl(namespace: str, *arguments: str, stdin: str | None = None) -> str:
    command = ["kubectl", "--namespace", namespace, *arguments]
    done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"Error: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())

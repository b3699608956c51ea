"""The command line that puts a container's process into its namespaces, mounts and capabilities."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

CAPABILITIES = ("chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "net_bind_service")
"""What a container has when nothing is said; runtimes give some more, which nothing here uses."""

REPLACED = PurePosixPath("/run")
"""The one folder of the machine that a container gets a new, empty one of: where its mount points are made."""


def argv(
    command: Sequence[str],
    *,
    namespace: str = "",
    mounts: Sequence[tuple[Path, str, bool]] = (),
    security: Mapping[str, Any] | None = None,
) -> list[str]:
    """The whole command line.

    Args:
        namespace: the network namespace (a name that ``ip netns`` knows); empty: the one that we are in.
        mounts: (folder, absolute path in the container below /run, whether read-only).
        security: the container's securityContext.
    Raises ValueError for a mount or a user that the agent cannot give.
    """
    security = security or {}
    if security.get("runAsUser", 0) != 0:
        raise ValueError("the agent runs containers as user 0 only")
    steps = ["set -e", f"mount -t tmpfs -o mode=755 tmpfs {REPLACED}"]
    # What is mounted comes from a folder that may lie below /run itself, so it is held open by file descriptors.
    sources: list[str] = []
    for number, (folder, target, read_only) in enumerate(mounts, 3):
        place = PurePosixPath(target.replace("/var/run/", "/run/", 1))
        if REPLACED not in place.parents:
            raise ValueError(f"the agent mounts below {REPLACED} only, not at {target}")
        sources.append(f"exec {number}< {shlex.quote(str(folder))}")
        steps += [
            f"mkdir -p {place}",
            f"mount --no-canonicalize --bind /proc/self/fd/{number} {place}",
            f"exec {number}<&-",
        ]
        if read_only:
            steps.append(f"mount -o remount,bind,ro {place}")
    if security.get("readOnlyRootFilesystem"):
        steps.append("mount -o remount,bind,ro /")
    steps.append('exec "$@"')
    script = "; ".join([steps[0], *sources, *steps[1:]])

    enter = ["nsenter", f"--net=/run/netns/{namespace}", "--"] if namespace else []
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "--"]
    inside = ["sh", "-c", script, "sh", "setpriv", *_privileges(security), "--", *command]
    return ["setpriv", "--pdeathsig", "KILL", "--", *enter, *apart, *inside]


def _privileges(security: Mapping[str, Any]) -> list[str]:
    if security.get("privileged"):
        return []
    change = security.get("capabilities") or {}
    dropped = {name.lower() for name in change.get("drop") or []}
    held = set() if "all" in dropped else set(CAPABILITIES) - dropped
    held |= {name.lower() for name in change.get("add") or []}
    bounding = ",".join(["-all", *(f"+{name}" for name in sorted(held))])
    return [
        f"--bounding-set={bounding}",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        *([] if security.get("allowPrivilegeEscalation", True) else ["--no-new-privs"]),
    ]

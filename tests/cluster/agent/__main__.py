"""``python -m tests.cluster.agent``: the agent of one node; see the package."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from pathlib import Path

from tests.cluster.agent import node
from tests.cluster.agent.api import Api, ApiError, Object
from tests.cluster.agent.pod import Pod, Slot

log = logging.getLogger("agent")

RETRY = 0.5


class Agent:
    """The pods of one node."""

    def __init__(self, api: Api, name: str, addresses: tuple[str, ...], slots: list[Slot], folder: Path, logs: Path):
        self._api = api
        self._name = name
        self._addresses = addresses
        self._free = slots
        self._folder = folder
        self._logs = logs
        self._pods: dict[str, Pod] = {}
        self._waiting: dict[str, Object] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(node.keep(self._api, self._name, self._addresses))
            group.create_task(self._follow())

    async def _follow(self) -> None:
        """Runs what is bound to the node. While the API is unavailable everything goes on as it is."""
        while True:
            try:
                async for event in self._api.follow("/api/v1/pods", fieldSelector=f"spec.nodeName={self._name}"):
                    if isinstance(event, list):
                        there = {pod["metadata"]["uid"] for pod in event}
                        for uid in set(self._pods) - there:
                            self._pods[uid].gone()
                        for pod in event:
                            self._take(pod)
                    elif event[0] == "DELETED":
                        self._waiting.pop(event[1]["metadata"]["uid"], None)
                        if known := self._pods.get(event[1]["metadata"]["uid"]):
                            known.gone()
                    else:
                        self._take(event[1])
            except ApiError as error:
                log.info("pods cannot be followed: %s", error)
                await asyncio.sleep(RETRY)

    def _take(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if known := self._pods.get(uid):
            known.update(pod)
            return
        ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if ended and not pod["metadata"].get("deletionTimestamp"):
            return  # for good
        slot = None
        if not pod["spec"].get("hostNetwork"):
            if not self._free:
                if uid not in self._waiting:
                    log.warning("%s waits for a network namespace", pod["metadata"]["name"])
                self._waiting[uid] = pod
                return
            slot = self._free.pop(0)
        log.info("%s/%s begins", pod["metadata"]["namespace"], pod["metadata"]["name"])
        known = self._pods[uid] = Pod(self._api, pod, slot, self._addresses, self._folder, self._logs)
        task = self._tasks[uid] = asyncio.create_task(known.run(), name=pod["metadata"]["name"])
        task.add_done_callback(lambda done: self._ended(uid, done))

    def _ended(self, uid: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("a pod has failed the agent", exc_info=error)
        del self._tasks[uid]
        if slot := self._pods.pop(uid).slot:
            self._free.append(slot)
            if self._waiting:
                self._take(self._waiting.pop(next(iter(self._waiting))))


async def main() -> None:
    parser = argparse.ArgumentParser(prog="agent")
    parser.add_argument("--node", required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where volumes are written")
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--address", action="append", required=True, help="of the node, IPv4 first")
    parser.add_argument("--slots", default="[]", help="JSON: [[NAMESPACE, [ADDRESS, ...]], ...]")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    for folder in (given.folder, given.logs):
        folder.mkdir(parents=True, exist_ok=True)
    slots = [Slot(namespace, tuple(addresses)) for namespace, addresses in json.loads(given.slots)]
    api = Api(given.kubeconfig)
    try:
        await Agent(api, given.node, tuple(given.address), slots, given.folder, given.logs).run()
    finally:
        await api.close()


if __name__ == "__main__":
    asyncio.run(main())

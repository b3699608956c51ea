"""One pod that is bound to this node: its volumes, its containers, its status, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.agent import images, resolve, sandbox
from tests.cluster.agent.api import STRATEGIC, Api, ApiError, Object
from tests.cluster.agent.container import Container, Start
from tests.cluster.agent.volumes import Volumes

log = logging.getLogger("agent")

RETRY = 0.5
"""Seconds until what the API has refused, or not answered, is tried again."""


@dataclass(frozen=True)
class Slot:
    """A network namespace with addresses that is there for a pod."""

    namespace: str
    addresses: tuple[str, ...]


class Pod:
    """Runs until the pod is deleted.

    Args:
        slot: its network; None for the node's own.
        addresses: of the node.
    """

    def __init__(
        self, api: Api, pod: Object, slot: Slot | None, addresses: tuple[str, ...], folder: Path, logs: Path
    ) -> None:
        meta = pod["metadata"]
        self.slot = slot
        self._api = api
        self._path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        self._pod = pod
        self._host = addresses
        self._volumes = Volumes(api, folder / meta["uid"])
        self._dirty = asyncio.Event()
        self._deleted = asyncio.Event()
        self._since: dict[str, tuple[str, str]] = {}
        self._began = _now()
        policy = pod["spec"].get("restartPolicy", "Always")
        name = f"{meta['namespace']}_{meta['name']}"
        self._containers = [
            Container(spec, policy, self._starter(spec), logs / f"{name}_{spec['name']}.log", self._dirty.set)
            for spec in pod["spec"]["containers"]
        ]
        self.update(pod)

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.slot.addresses if self.slot else self._host

    def update(self, pod: Object) -> None:
        """A newer version of it."""
        self._pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self._deleted.set()
        # The node controller writes Ready=False for the pods of a node that it has lost: the node knows better.
        theirs = {c["type"]: c["status"] for c in (pod.get("status") or {}).get("conditions") or []}
        if any(theirs.get(type_) not in (None, said) for type_, (said, _) in self._since.items()):
            self._dirty.set()

    def gone(self) -> None:
        """It is not in the API any more: deleted by force."""
        self._pod["metadata"].setdefault("deletionGracePeriodSeconds", 0)
        self._deleted.set()

    async def run(self) -> None:
        telling = asyncio.create_task(self._tell(), name="status")
        living = asyncio.create_task(self._live(), name="containers")
        try:
            await self._deleted.wait()
            log.info("%s ends", self._path)
            grace = float(self._pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            living.cancel()
            await asyncio.gather(*(container.stop(grace) for container in self._containers))
            await asyncio.gather(living, return_exceptions=True)
            await self._delete()
        finally:
            telling.cancel()
            living.cancel()
            await asyncio.gather(telling, living, return_exceptions=True)
            self._volumes.remove()

    async def _live(self) -> None:
        while True:
            try:
                await self._volumes.write(self._pod)
                break
            except (ApiError, KeyError) as error:  # also: the authorizer has not heard of the pod yet
                log.info("%s waits for its volumes: %s", self._path, error)
                await asyncio.sleep(RETRY)
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(self._renew())
            async with asyncio.TaskGroup() as containers:
                for container in self._containers:
                    containers.create_task(container.run(), name=container.name)
            renewing.cancel()

    async def _renew(self) -> None:
        pause = self._volumes.renewal(self._pod)
        while True:
            await asyncio.sleep(pause)
            try:
                await self._volumes.write(self._pod)
                pause = self._volumes.renewal(self._pod)
            except (ApiError, KeyError):
                pause = RETRY

    def _starter(self, spec: Object) -> Any:
        async def prepare() -> Start:
            pod = {**self._pod, "status": {**(self._pod.get("status") or {}), **self._where()}}
            while True:
                try:
                    given = await resolve.environment(self._api, pod, spec)
                    break
                except ApiError as error:
                    log.info("%s waits for its environment: %s", self._path, error)
                    await asyncio.sleep(RETRY)
            container = {
                **spec,
                "command": [resolve.expand(word, given) for word in spec.get("command") or []],
                "args": [resolve.expand(word, given) for word in spec.get("args") or []],
            }
            mounts = [
                (self._volumes.path(mount["name"]), mount["mountPath"], bool(mount.get("readOnly")))
                for mount in spec.get("volumeMounts") or []
            ]
            command = sandbox.argv(
                images.command(container, pod["metadata"]["name"]),
                namespace=self.slot.namespace if self.slot else "",
                mounts=mounts,
                security=spec.get("securityContext"),
            )
            return Start(command, {**images.environment(), **given}, self.addresses[0])

        return prepare

    # What the API is told

    def _where(self) -> dict[str, Any]:
        return {
            "hostIP": self._host[0],
            "hostIPs": [{"ip": address} for address in self._host],
            "podIP": self.addresses[0],
            "podIPs": [{"ip": address} for address in self.addresses],
        }

    def _status(self) -> dict[str, Any]:
        ready = all(container.ready for container in self._containers)
        codes = [container.ended for container in self._containers]
        finished = [code for code in codes if code is not None]
        over = len(finished) == len(codes) and (
            self._deleted.is_set() or self._pod["spec"].get("restartPolicy", "Always") != "Always"
        )
        phase = ("Failed" if any(finished) else "Succeeded") if over else "Running"
        if all("waiting" in container.state and not container.restarts for container in self._containers):
            phase = "Pending"
        wanted = {
            "PodReadyToStartContainers": True,
            "Initialized": True,
            "ContainersReady": ready,
            "Ready": ready,
        }
        return {
            "phase": phase,
            "startTime": self._began,
            "conditions": [self._condition(type_, yes) for type_, yes in wanted.items()],
            "containerStatuses": [container.status() for container in self._containers],
            **self._where(),
        }

    def _condition(self, type_: str, yes: bool) -> dict[str, str]:
        status = "True" if yes else "False"
        if self._since.get(type_, ("", ""))[0] != status:
            self._since[type_] = (status, _now())
        return {"type": type_, "status": status, "lastTransitionTime": self._since[type_][1]}

    async def _tell(self) -> None:
        self._dirty.set()
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._api.patch(f"{self._path}/status", self._body(), STRATEGIC)
            except ApiError as error:
                if error.status not in (404, 409):
                    log.info("%s: its status waits: %s", self._path, error)
                    self._dirty.set()
                    await asyncio.sleep(RETRY)

    def _body(self) -> Object:
        # The uid: a pod of the same name that came later is another pod.
        status = self._status()
        for addresses in (status["podIPs"], status["hostIPs"]):
            addresses.insert(0, {"$patch": "replace"})  # after a new start of the node they may be other ones
        return {"metadata": {"uid": self._pod["metadata"]["uid"]}, "status": status}

    async def _delete(self) -> None:
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": self._pod["metadata"]["uid"]}}
        while True:
            with contextlib.suppress(ApiError):
                await self._api.patch(f"{self._path}/status", self._body(), STRATEGIC)
            try:
                await self._api.delete(self._path, body)
                return
            except ApiError as error:
                if error.status in (404, 409):
                    return
                await asyncio.sleep(RETRY)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

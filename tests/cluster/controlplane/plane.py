"""A real control plane: etcd, kube-apiserver and, if requested, kube-controller-manager and kube-scheduler.

    with ControlPlane(controllers=True) as plane:
        plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        CoreV1Api(plane.api).list_node()
        run("porterlb", "manager", "--kubeconfig", plane.kubeconfig_for("porterlb", "porterlb-system"))

Every program is a child process of the test run and ends with it. Data, keys and logs are in one folder. It runs on
loopback, or in a network namespace of a lab, where the nodes reach it at `address`.
"""

from __future__ import annotations

import base64
import json
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from lab.netns import Namespace
from tests.cluster.controlplane import flags
from tests.cluster.controlplane.access import request_token, write_kubeconfig
from tests.cluster.controlplane.build import ensure_binaries
from tests.cluster.controlplane.manifests import Applier, Manifests
from tests.cluster.controlplane.net import can_connect, free_ports, get, post, url
from tests.cluster.controlplane.pki import Authority
from tests.cluster.controlplane.program import PlaneError, Program
from tests.cluster.controlplane.proxy import kube_proxy

CHECKOUT = Path(__file__).resolve().parents[3]

T = TypeVar("T")


class ControlPlane:
    """One control plane; a context manager, or `start()` and `stop()`.

    Parameters:
        netns: network namespace (a name that `ip netns` knows) of all programs; None is this process's namespace, and
            then they listen on loopback only.
        address: IP address in `netns` at which the nodes reach the API server.
        service_cidr: the range of cluster IPs; "IPv4,IPv6" or "IPv6,IPv4" for dual stack.
        port: of the API server; None is 6443 in a network namespace, and a free one on loopback.
        controllers, scheduler: start kube-controller-manager, kube-scheduler.
        node_monitor_grace_period: seconds without a node's heartbeat until it is NotReady; None keeps Kubernetes'
            default of 50 s. A shorter one also shortens the monitoring period. Pods are evicted at the default rate: a
            second dead node's only 10 s after the first's.
        api_flags, controller_flags: more flags for these programs; the last one of a name wins.
        directory: a folder for data, keys and logs. They stay there, except etcd's data. None makes a folder and
            removes it at the end (it is kept when the start fails).
    """

    def __init__(
        self,
        netns: str | None = None,
        address: str = "127.0.0.1",
        *,
        service_cidr: str = "10.96.0.0/16",
        port: int | None = None,
        controllers: bool = False,
        scheduler: bool = False,
        node_monitor_grace_period: float | None = None,
        api_flags: Sequence[str] = (),
        controller_flags: Sequence[str] = (),
        directory: Path | None = None,
    ) -> None:
        self.netns = netns
        self.address = address
        self.service_cidr = service_cidr
        self._directory = directory
        self._port = port
        self._with_controllers = controllers
        self._with_scheduler = scheduler
        self._grace_period = node_monitor_grace_period
        self._api_flags = list(api_flags)
        self._controller_flags = list(controller_flags)
        self._programs: dict[str, Program] = {}
        self._proxies: list[Program] = []
        self._leftovers: list[Path] = []
        self._client: client.ApiClient | None = None
        self._applier: Applier | None = None
        # These attributes exist after the start.
        self.directory: Path
        self.admin_kubeconfig: Path
        """All rights, for use from this process (on loopback, for any network namespace)."""
        self._layout: flags.Layout
        self._binaries: dict[str, Path]
        self._local_port: int

    # -- start and stop --------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts all programs and waits until they serve.

        Raises PlaneError with the tail of the failed program's log, and BuildError if the programs are missing.
        """
        self._binaries = ensure_binaries()
        if self._directory is None:
            self.directory = Path(tempfile.mkdtemp(prefix="plb-controlplane-"))
            self._leftovers = [self.directory]
        else:
            self.directory = self._directory
            self.directory.mkdir(parents=True, exist_ok=True)
            self._leftovers = [self.directory / "etcd"]
        try:
            self._start()
        except BaseException:
            self._end()
            self._leftovers.clear()  # the folder stays, with its logs
            raise

    def stop(self) -> None:
        """Ends every process started here, and removes their files. May be called twice."""
        self._end()
        while self._leftovers:
            shutil.rmtree(self._leftovers.pop(), ignore_errors=True)

    def _end(self) -> None:
        if self._client is not None:
            self._client.rest_client.pool_manager.clear()
            self._client = self._applier = None
        for program in [*self._proxies, *reversed(self._programs.values())]:
            program.stop()  # by SIGKILL: there is nothing to save
        self._proxies.clear()
        self._programs.clear()

    def _start(self) -> None:
        self._layout = self._lay_out()
        self._local_port = self._layout.port
        if self.netns is not None:
            self._start_forwarder(self.netns)
        self.admin_kubeconfig = self.kubeconfig_as("admin", ["system:masters"], local=True)
        self._run("etcd", flags.etcd(self._layout))
        api = self._run("kube-apiserver", flags.apiserver(self._layout) + self._api_flags)
        self._wait_for_api(api)
        if self._with_controllers:
            kubeconfig = self._component_kubeconfig("kube-controller-manager")
            argv = flags.controller_manager(self._layout, kubeconfig, self._grace_period)
            controllers = self._run("kube-controller-manager", argv + self._controller_flags)
        if self._with_scheduler:
            argv = flags.scheduler(self._layout, self._component_kubeconfig("kube-scheduler"))
            scheduler = self._run("kube-scheduler", argv)
            scheduler.wait_until(lambda: self._healthy(self._layout.scheduler_port, "/healthz"))
        if self._with_controllers:
            # The controllers work once their first object exists.
            read = client.CoreV1Api(self.api).read_namespaced_service_account
            controllers.wait_until(lambda: _exists(read, "default", "default"))
        self.check()

    def _lay_out(self) -> flags.Layout:
        if self.netns is not None:
            Namespace(self.netns).ip("link set lo up")
        ports = self._inside(lambda: free_ports(5))
        port = self._port or (ports[0] if self.netns is None else 6443)
        pki = Authority(self.directory / "pki")
        inside = self.netns is not None
        return flags.Layout(self.directory, pki, self.address, inside, self.service_cidr, port, *ports[1:])

    def check(self) -> None:
        """Raises PlaneError when a program of the control plane is not running. kube-proxies are not checked."""
        for program in self._programs.values():
            program.check()

    # -- stop and start the API server ------------------------------------------------------------------------

    def stop_api(self) -> None:
        """Kills the API server (SIGKILL): connections are closed, new ones are refused."""
        self._programs["kube-apiserver"].stop()

    def start_api(self) -> None:
        """Starts the API server again at the same address, and waits until it serves. Does nothing if it is running."""
        api = self._programs["kube-apiserver"]
        api.start()
        self._wait_for_api(api)

    def pause_api(self) -> None:
        """Suspends the API server (SIGSTOP): connections stay open, and requests are not answered."""
        self._programs["kube-apiserver"].send(signal.SIGSTOP)

    def resume_api(self) -> None:
        """Resumes the API server (SIGCONT)."""
        self._programs["kube-apiserver"].send(signal.SIGCONT)

    def compact(self, *, restart_api: bool = True) -> int:
        """Makes etcd discard its history. Returns the etcd revision.

        With `restart_api`, the API server discards its history too (its watch cache can serve an old watch without
        etcd). Afterwards, a watch or an exact list from an older resourceVersion is answered with 410 Gone.
        """
        # A write makes a revision newer than all earlier ones, which makes all of those old.
        key = base64.b64encode(b"porterlb-test/compaction").decode()
        revision = int(self._etcd("kv/put", {"key": key})["header"]["revision"])
        if restart_api:
            self.stop_api()
        self._etcd("kv/compaction", {"revision": str(revision), "physical": True})
        if restart_api:
            self.start_api()
        return revision

    @property
    def authority(self) -> Path:
        """The CA certificate that signed the API server's certificate and all client certificates."""
        return self._layout.pki.certificate

    def program(self, name: str) -> Path:
        """The path of one of the programs of :mod:`build`."""
        return self._binaries[name]

    # -- credentials -----------------------------------------------------------------------------------------

    @property
    def server(self) -> str:
        """URL of the API server for the nodes."""
        return url(self.address, self._layout.port)

    @property
    def local_server(self) -> str:
        """URL of the API server for this process, for any network namespace."""
        return url("127.0.0.1", self._local_port)

    def kubeconfig_as(self, user: str, groups: Sequence[str] = (), *, local: bool = False) -> Path:
        """A kubeconfig with a client certificate for this user and these groups.

        It contains the server's URL for the nodes, or with `local` the URL for this process.
        """
        certificate, key = self._layout.pki.client(user, groups)
        identity = {"client-certificate": str(certificate), "client-key": str(key)}
        return self._kubeconfig(user, identity, local=local)

    def kubeconfig_for(
        self,
        service_account: str,
        namespace: str,
        *,
        pod: str | None = None,
        seconds: int = 3600,
        local: bool = False,
    ) -> Path:
        """A kubeconfig with a token of this service account (TokenRequest), bound to `pod` if given.

        The namespace and the account are created if they are missing, without rights. `seconds` (at least 600) is the
        token's lifetime. The kubeconfig contains the server's URL for the nodes, or with `local` the URL for this
        process.
        """
        token = request_token(self.api, service_account, namespace, pod=pod, seconds=seconds)
        name = "-".join(filter(None, [namespace, service_account, pod]))
        return self._kubeconfig(name, {"token": token}, local=local)

    def _kubeconfig(self, name: str, user: Mapping[str, str], *, local: bool) -> Path:
        file = f"{name.replace(':', '_')}{'-local' if local else ''}.kubeconfig"
        server = self.local_server if local else self.server
        return write_kubeconfig(self.directory / file, server, self._layout.pki.certificate, user)

    # -- clients and data -------------------------------------------------------------------------------------

    @property
    def api(self) -> client.ApiClient:
        """A client of the `kubernetes` package with all rights: `CoreV1Api(plane.api)`."""
        if self._client is None:
            self._client = config.new_client_from_config(str(self.admin_kubeconfig))
        return self._client

    def apply(self, manifests: Manifests) -> list[dict[str, Any]]:
        """Applies manifests (server-side, by force, as field manager `test`). Returns the resulting objects.

        `manifests` is YAML text with any number of documents, one object, or several objects. A status in a manifest
        replaces the fields that it names in the status subresource (merge patch). The namespace is `default` if a
        manifest names none. Returns once a CustomResourceDefinition is served.
        """
        if self._applier is None:
            self._applier = Applier(self.api, self.directory / "discovery.json")
        return self._applier.apply(manifests)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """The output of kubectl, with all rights. Raises PlaneError with its error message."""
        command = [str(self._binaries["kubectl"]), "--kubeconfig", str(self.admin_kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise PlaneError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def audit_events(self, user: str | None = None) -> list[dict[str, Any]]:
        """The requests of service accounts (except those of kube-system) to the API server, oldest first.

        With `user`, only the requests of that user, as in `system:serviceaccount:NAMESPACE:NAME`. Events have the level
        Metadata. The decision is in `annotations["authorization.k8s.io/decision"]`.
        """
        log = self._layout.audit_log
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in events if user is None or event["user"].get("username") == user]

    def kube_proxy(self, netns: str, node: str, *more_flags: str) -> Program:
        """Runs kube-proxy (nftables) for a node in its network namespace, until its `stop()` or the plane's.

        Returns once it has programmed its first rules. The Node object should exist, with an InternalIP.
        """
        kubeconfig = self.kubeconfig_as("system:kube-proxy")
        log = self.directory / f"kube-proxy-{node}.log"
        proxy = kube_proxy(self._binaries["kube-proxy"], netns, node, kubeconfig, log=log, flags=more_flags)
        self._proxies.append(proxy)
        return proxy

    # -- the programs ----------------------------------------------------------------------------------------

    def _run(self, name: str, argv: Sequence[str]) -> Program:
        log = self.directory / f"{name}.log"
        namespace = Namespace(self.netns) if self.netns else None
        program = self._programs[name] = Program(name, [self._binaries[name], *argv], log, namespace)
        program.start()
        return program

    def _start_forwarder(self, namespace: str) -> None:
        [self._local_port] = free_ports(1)
        module = f"{__package__}.forward"
        argv = [sys.executable, "-m", module, self._local_port, namespace, "127.0.0.1", self._layout.port]
        log = self.directory / "forwarder.log"
        forwarder = self._programs["forwarder"] = Program("forwarder", argv, log, cwd=CHECKOUT)
        forwarder.start()
        forwarder.wait_until(lambda: can_connect(self._local_port))

    def _inside(self, function: Callable[[], T]) -> T:
        """Calls a function in the control plane's network namespace: sockets that it opens belong to that namespace."""
        return function() if self.netns is None else Namespace(self.netns).call(function)

    def _component_kubeconfig(self, name: str) -> Path:
        """A kubeconfig for a program of the control plane itself, which reaches the API server on loopback."""
        certificate, key = self._layout.pki.client(f"system:{name}")
        identity = {"client-certificate": str(certificate), "client-key": str(key)}
        server = url("127.0.0.1", self._layout.port)
        return write_kubeconfig(self.directory / f"{name}.kubeconfig", server, self._layout.pki.certificate, identity)

    def _wait_for_api(self, api: Program) -> None:
        api.wait_until(lambda: self._healthy(self._layout.port, "/readyz"))
        # The API server creates this namespace shortly after it reports that it is ready.
        api.wait_until(lambda: _exists(client.CoreV1Api(self.api).read_namespace, "default"))

    def _healthy(self, port: int, path: str) -> bool:
        context = ssl.create_default_context(cafile=str(self._layout.pki.certificate))
        return self._inside(
            lambda: get(HTTPSConnection("127.0.0.1", port, timeout=5, context=context), path) is not None,
        )

    def _etcd(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request to etcd through its JSON gateway."""
        status, text = self._inside(
            lambda: post(HTTPConnection("127.0.0.1", self._layout.etcd_port, timeout=30), f"/v3/{path}", body),
        )
        if status != 200:
            raise PlaneError(f"etcd refuses {path}: {status} {text.strip()}")
        result: dict[str, Any] = json.loads(text)
        return result


def _exists(read: Callable[..., Any], *names: str) -> bool:
    try:
        read(*names)
    except ApiException as error:
        if error.status != 404:
            raise
        return False
    return True

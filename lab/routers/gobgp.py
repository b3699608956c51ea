"""GoBGP as the router. It programs no kernel: check its RIB."""

from __future__ import annotations

import json
import signal
from typing import Any

from lab.netns import LabError
from lab.process import Process
from lab.routers.base import RibPath, Router, RouterConfig, Session, SessionState, config_file

# bgp.FSMState and api.PeerState_SessionState of GoBGP 3
STATES = {1: "Idle", 2: "Connect", 3: "Active", 4: "OpenSent", 5: "OpenConfirm", 6: "Established"}


class GoBgp(Router):
    kind = "gobgp"
    programs_kernel = False

    # Configuration

    def write_config(self) -> None:
        config_file(self, "gobgpd.toml", self.render())

    def render(self) -> str:
        c = self.config
        lines = [
            "[global.config]",
            f"  as = {c.asn}",
            f'  router-id = "{self.v4}"',
            f"  port = {c.port}",
            # announce injected routes, not the nodes' routes
            "[global.apply-policy.config]",
            '  default-export-policy = "reject-route"',
            '  export-policy-list = ["own"]',
            "[[policy-definitions]]",
            '  name = "own"',
            "  [[policy-definitions.statements]]",
            '    name = "own"',
            "    [policy-definitions.statements.conditions.bgp-conditions]",
            '      route-type = "local"',
            "    [policy-definitions.statements.actions]",
            '      route-disposition = "accept-route"',
            "[global.use-multiple-paths.config]",
            "  enabled = true",
        ]
        for session in c.sessions:
            lines += self._session(session)
        return "\n".join(lines) + "\n"

    def _session(self, s: Session) -> list[str]:
        lines = [
            "[[neighbors]]",
            "  [neighbors.config]",
            f'    neighbor-address = "{s.address}{f"%{s.interface}" if s.interface else ""}"',
            f"    peer-as = {s.asn}",
            *([f'    auth-password = "{s.password}"'] if s.password else []),
            "  [neighbors.transport.config]",
            f"    passive-mode = {str(s.passive).lower()}",
            "" if s.interface else f'    local-address = "{self.own_address(s.address)}"',
            f"    remote-port = {s.port}",
            "  [neighbors.timers.config]",
            f"    hold-time = {s.hold}",
            f"    keepalive-interval = {s.keepalive_seconds}",
            "    connect-retry = 1",
            "    idle-hold-time-after-reset = 1",
            "  [neighbors.graceful-restart.config]",
            f"    enabled = {str(s.graceful_restart).lower()}",
            "    helper-only = true" if s.graceful_restart else "",
        ]
        if s.multihop and s.asn != self.config.asn:
            lines += ["  [neighbors.ebgp-multihop.config]", "    enabled = true", f"    multihop-ttl = {s.multihop}"]
        if s.ttl_security:
            lines += ["  [neighbors.ttl-security.config]", "    enabled = true", "    ttl-min = 255"]
        for family in s.families:
            lines += [
                "  [[neighbors.afi-safis]]",
                "    [neighbors.afi-safis.config]",
                f'      afi-safi-name = "ip{family}-unicast"',
                "    [neighbors.afi-safis.mp-graceful-restart.config]",
                f"      enabled = {str(s.graceful_restart).lower()}",
                "    [neighbors.afi-safis.add-paths.config]",
                f"      receive = {str(s.add_path).lower()}",
            ]
        return lines

    # Start

    @property
    def _api(self) -> str:
        return str(self.files / "gobgp.sock")

    def launch(self) -> Process:
        self._injected: tuple[str, ...] = ()
        (self.files / "gobgp.sock").unlink(missing_ok=True)
        options = ["-f", str(self.files / "gobgpd.toml"), "-t", "toml", "--api-hosts", f"unix://{self._api}"]
        return self.start("gobgpd", ["gobgpd", *options, "--pprof-disable"])

    def start_daemon(self) -> None:
        super().start_daemon()
        self._announce(self.config)

    def ready(self) -> bool:
        done = self.run(self._argv("global"), check=False)
        return done.returncode == 0 and str(self.config.asn) in done.stdout

    def reload(self) -> None:
        assert self.process is not None
        self.process.signal(signal.SIGHUP)
        self._announce(self.config)

    def _announce(self, config: RouterConfig) -> None:
        for prefix in config.injected:
            if prefix not in self._injected:
                self._rib("add", prefix)
        for prefix in self._injected:
            if prefix not in config.injected:
                self._rib("del", prefix)
        self._injected = config.injected

    def _rib(self, verb: str, prefix: str) -> None:
        hop, family = (self.v6, "ipv6") if ":" in prefix else (self.v4, "ipv4")
        self.gobgp("global", "rib", verb, prefix, "nexthop", hop, "-a", family)

    # Queries

    def _argv(self, *arguments: str) -> list[str]:
        return ["gobgp", "--target", f"unix://{self._api}", *arguments]

    def gobgp(self, *arguments: str) -> str:
        """The output of ``gobgp ...``. Raises LabError if it fails."""
        return self.run(self._argv(*arguments)).stdout

    def _json(self, *arguments: str) -> Any:
        text = self.gobgp("-j", *arguments)
        try:
            return json.loads(text or "null")
        except ValueError:
            raise LabError(f"GoBGP's answer to `{' '.join(arguments)}` is no JSON: {text[:500]}") from None

    def paths(self, family: str) -> dict[str, list[RibPath]]:
        table = self._json("global", "rib", "-a", f"ip{family}") or {}
        found = {}
        for prefix, entries in table.items():
            # Paths that GoBGP originates itself have no neighbor
            known = [_path(entry) for entry in entries if entry.get("neighbor-ip", "<nil>") != "<nil>"]
            if known:
                found[prefix] = known
        return found

    def sessions(self) -> dict[str, SessionState]:
        found = {}
        for peer in self._json("neighbor") or []:
            state = peer.get("state", {})
            address = state.get("neighbor_address") or peer.get("conf", {}).get("neighbor_address", "")
            found[address] = SessionState(address, STATES.get(state.get("session_state", 1), "Idle"))
        return found

    def shutdown_session(self, neighbor: str, message: str = "") -> None:
        # `disable` alone loses the message in GoBGP 3.10; `shutdown` alone lets the session return
        if message:
            self.gobgp("neighbor", neighbor, "shutdown", "--reason", message)
        self.gobgp("neighbor", neighbor, "disable")

    def enable_session(self, neighbor: str) -> None:
        self.gobgp("neighbor", neighbor, "enable")


# Path attribute types of BGP
AS_PATH, NEXT_HOP, MED, LOCAL_PREF, COMMUNITIES, MP_REACH, LARGE_COMMUNITIES = 2, 3, 4, 5, 8, 14, 32


def _path(entry: dict[str, Any]) -> RibPath:
    attributes = {attribute["type"]: attribute for attribute in entry.get("attrs", [])}
    hop = attributes.get(NEXT_HOP) or attributes.get(MP_REACH) or {}
    segments = attributes.get(AS_PATH, {}).get("as_paths") or []
    large = attributes.get(LARGE_COMMUNITIES, {}).get("value", [])
    return RibPath(
        next_hop=hop.get("nexthop", ""),
        neighbor=entry.get("neighbor-ip", ""),
        as_path=tuple(asn for segment in segments for asn in segment.get("asns", [])),
        local_pref=attributes.get(LOCAL_PREF, {}).get("value"),
        med=attributes.get(MED, {}).get("metric"),
        communities=frozenset(
            f"{number >> 16}:{number & 0xFFFF}" for number in attributes.get(COMMUNITIES, {}).get("communities", [])
        ),
        large_communities=frozenset(f"{c['ASN']}:{c['LocalData1']}:{c['LocalData2']}" for c in large),
        stale=bool(entry.get("stale")),
        extra={"raw": json.dumps(entry)},
    )

"""OpenBGPD as the router. It programs no kernel here: check its RIB."""

from __future__ import annotations

import json
import pwd
from pathlib import Path
from typing import Any

from lab.netns import LabError
from lab.process import Process
from lab.routers.base import RibPath, Router, Session, SessionState, config_file


class OpenBgpd(Router):
    kind = "openbgpd"
    programs_kernel = False
    takes_passwords = False

    # Configuration

    def write_config(self) -> None:
        config_file(self, "bgpd.conf", self.render())

    def render(self) -> str:
        c = self.config
        lines = [
            f"AS {c.asn}",
            f"router-id {self.v4}",
            f'socket "{self._socket}"',
            "fib-update no",
            "connect-retry 1",
            f"listen on {self.v4} port {c.port}",
            f"listen on {'::' if any(s.interface for s in c.sessions) else self.v6} port {c.port}",
            *(f"network {prefix}" for prefix in c.injected),
        ]
        for session in c.sessions:
            lines += self._session(session)
        # announce injected routes, not the nodes' routes
        lines += ["allow from any", "deny to any", *(f"allow to any prefix {prefix}" for prefix in c.injected)]
        return "\n".join(lines) + "\n"

    def _session(self, s: Session) -> list[str]:
        if s.password:
            raise LabError("OpenBGPD 7.7 on Linux accepts no connection with a TCP MD5 password: leave it out")

        def yes(on: bool) -> str:
            return "yes" if on else "no"

        return [
            f"neighbor {s.address}{f'%{s.interface}' if s.interface else ''} {{",
            f'  descr "{s.label}"',
            f"  remote-as {s.asn}",
            *([] if s.interface else [f"  local-address {self.own_address(s.address)}"]),
            f"  port {s.port}",
            f"  holdtime {s.hold}",
            "  holdtime min 3",
            *(["  passive"] if s.passive else []),
            *(["  ttl-security yes"] if s.ttl_security else []),
            *([f"  multihop {s.multihop}"] if s.multihop and s.asn != self.config.asn else []),
            f"  announce IPv4 {'unicast' if 'v4' in s.families else 'none'}",
            f"  announce IPv6 {'unicast' if 'v6' in s.families else 'none'}",
            f"  announce add-path recv {yes(s.add_path)}",
            f"  announce restart {yes(s.graceful_restart)}",
            "}",
        ]

    # Start

    @property
    def _socket(self) -> str:
        return str(self.files / "bgpd.sock")

    def launch(self) -> Process:
        (self.files / "bgpd.sock").unlink(missing_ok=True)
        # bgpd confines its parts to its user's home, an empty folder that systemd creates if it starts bgpd.
        Path(pwd.getpwnam("_openbgpd").pw_dir).mkdir(mode=0o755, parents=True, exist_ok=True)
        return self.start("bgpd", ["/usr/sbin/bgpd", "-d", "-v", "-f", str(self.files / "bgpd.conf")])

    def ready(self) -> bool:
        done = self.run(self._argv("show", "summary"), check=False)
        return done.returncode == 0

    def reload(self) -> None:
        self.bgpctl("reload")

    # Queries

    def _argv(self, *arguments: str) -> list[str]:
        return ["/usr/sbin/bgpctl", "-s", self._socket, *arguments]

    def bgpctl(self, *arguments: str) -> str:
        """The output of ``bgpctl ...``. Raises LabError if it fails."""
        return self.run(self._argv(*arguments)).stdout

    def _json(self, *arguments: str) -> Any:
        text = self.bgpctl("-j", *arguments)
        try:
            return json.loads(text or "{}")
        except ValueError:
            raise LabError(f"OpenBGPD's answer to `{' '.join(arguments)}` is no JSON: {text[:500]}") from None

    def paths(self, family: str) -> dict[str, list[RibPath]]:
        found: dict[str, list[RibPath]] = {}
        for entry in self._json("show", "rib", "detail").get("rib", []):
            if (":" in entry["prefix"]) == (family == "v6") and "neighbor" in entry and entry.get("origin") is not None:
                path = _path(entry)
                if path.next_hop not in ("0.0.0.0", "::"):  # otherwise, it originates the prefix itself
                    found.setdefault(entry["prefix"], []).append(path)
        return found

    def sessions(self) -> dict[str, SessionState]:
        return {
            neighbor["remote_addr"]: SessionState(
                neighbor["remote_addr"], neighbor["state"], neighbor.get("last_error_received", "")
            )
            for neighbor in self._json("show", "neighbor").get("neighbors", [])
        }

    def shutdown_session(self, neighbor: str, message: str = "") -> None:
        self.bgpctl("neighbor", neighbor, "down", *([message] if message else []))

    def enable_session(self, neighbor: str) -> None:
        self.bgpctl("neighbor", neighbor, "up")


def _path(entry: dict[str, Any]) -> RibPath:
    return RibPath(
        next_hop=entry.get("exit_nexthop", ""),
        neighbor=entry["neighbor"].get("remote_addr", ""),
        as_path=tuple(int(asn) for asn in entry.get("aspath", "").split() if asn.isdigit()),
        local_pref=entry.get("localpref"),
        med=entry.get("metric"),
        communities=frozenset(str(text) for text in entry.get("communities", [])),
        large_communities=frozenset(str(text) for text in entry.get("large_communities", [])),
        path_id=int(entry.get("path_id", 0) or 0),
        stale=bool(entry.get("stale")),
        extra={"raw": json.dumps(entry)},
    )

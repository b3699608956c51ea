"""FRR as the router: zebra (kernel routes) and bgpd, queried and configured over their vty sockets.

To accept the nodes' routes and to use several next hops, FRR needs: ``no bgp ebgp-requires-policy`` (otherwise, eBGP
neighbors without a policy exchange no routes), ``maximum-paths``, and ``bgp bestpath as-path multipath-relax`` if nodes
have different ASes.
"""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

from lab.measure import wait_until
from lab.netns import LabError
from lab.process import Process
from lab.routers.base import RibPath, Router, RouterConfig, Session, SessionState, config_file

DAEMONS = Path("/usr/lib/frr")


class Frr(Router):
    kind = "frr"

    _running: RouterConfig | None = None
    zebra: Process | None = None
    bfdd: Process | None = None

    # Configuration

    def write_config(self) -> None:
        shutil.chown(self.files, "frr", "frr")
        config_file(self, "zebra.conf", f"hostname {self.name}\n")
        config_file(self, "bgpd.conf", self.render())
        config_file(self, "bfdd.conf", f"hostname {self.name}\n")

    def render(self) -> str:
        c = self.config
        lines = [
            f"hostname {self.name}",
            "bgp as-path access-list own permit ^$",  # announce injected routes, not the nodes' routes
            f"router bgp {c.asn}",
            f" bgp router-id {self.v4}",
            " no bgp ebgp-requires-policy",
            " no bgp default ipv4-unicast",
            " no bgp network import-check",
            " bgp bestpath as-path multipath-relax",
        ]
        for s in c.sessions:
            lines += self._session(s)
        for family in ("v4", "v6"):
            lines += [
                *self._in_family(family),
                f"  maximum-paths {c.max_paths}",
                f"  maximum-paths ibgp {c.max_paths}",
                *(f"  network {p}" for p in c.injected if (":" in p) == (family == "v6")),
                " exit-address-family",
            ]
        return "\n".join(lines) + "\n"

    @staticmethod
    def _in_family(family: str) -> list[str]:
        return [f" address-family ip{family} unicast"]

    def _session(self, s: Session) -> list[str]:
        who = f" neighbor {s.peer}"
        lines = [
            f"{who} remote-as {s.asn}" if s.address else f"{who} interface remote-as {s.asn}",
            f"{who} timers {s.keepalive_seconds} {s.hold}",
            f"{who} timers connect 1",
            f"{who} port {s.port}",
        ]
        if s.passive:
            lines.append(f"{who} passive")
        if s.address and s.interface:
            lines.append(f"{who} interface {s.interface}")
        if s.extended:
            lines.append(f"{who} capability extended-nexthop")
        if s.bfd:
            lines += [f"{who} bfd", f"{who} bfd profile every-{s.bfd}"]
        if s.ttl_security:
            lines.append(f"{who} ttl-security hops 1")
        if s.password:
            lines.append(f"{who} password {s.password}")
        if s.multihop and s.asn != self.config.asn:
            lines.append(f"{who} ebgp-multihop {s.multihop}")
        if not s.graceful_restart:
            lines.append(f"{who} graceful-restart-disable")
        for family in s.families:
            lines += [*self._in_family(family), f" {who} activate"]
            if not s.transit:
                lines.append(f" {who} filter-list own out")
            if not s.add_path:
                lines.append(f" {who} disable-addpath-rx")
            lines.append(" exit-address-family")
        return lines

    # Start

    def launch(self) -> Process:
        common = ["-u", "frr", "-g", "frr", "-P", "0", "--vty_socket", str(self.files), "-z", self._zserv]
        self.zebra = self._daemon("zebra", [*common, "-s", "16777216"])

        def zebra_listens() -> bool:
            assert self.zebra is not None
            if not self.zebra.alive:
                raise LabError(f"zebra has ended: {self.zebra.output()[-2000:]}")
            return Path(self._zserv).exists()

        wait_until(zebra_listens, 10.0, "zebra's socket", interval=0.005)
        self._running = self.config
        self._common = common
        self._start_bfd()
        return self._daemon("bgpd", [*common, "-p", str(self.config.port)])

    def _start_bfd(self) -> None:
        """Starts bfdd if a session has BFD, and sets its intervals."""
        rates = sorted({s.bfd for s in self.config.sessions if s.bfd})
        if rates and self.bfdd is None:
            control = str(self.files / "bfdd.sock")
            self.bfdd = self._daemon("bfdd", [*self._common, "--bfdctl", control])
            wait_until((self.files / "bfdd.vty").exists, 10.0, "bfdd's socket", interval=0.005)
        for rate in rates:
            lines = [f"profile every-{rate}", "detect-multiplier 3"]
            lines += [f"receive-interval {rate}", f"transmit-interval {rate}"]
            self.vty("configure terminal", "bfd", *lines, "end", daemon="bfdd")

    def bfd_states(self) -> dict[str, str]:
        found = self._json("show bfd peers json", "bfdd") or []
        return {one["peer"]: one["status"].replace("shutdown", "admindown") for one in found}

    @property
    def _zserv(self) -> str:
        return str(self.files / "zserv.api")

    def _daemon(self, name: str, options: list[str]) -> Process:
        # A killed daemon leaves its sockets and PID file
        for left in (self.files / f"{name}.vty", self.files / f"{name}.pid"):
            left.unlink(missing_ok=True)
        if name == "zebra":
            Path(self._zserv).unlink(missing_ok=True)
        files = ["-f", str(self.files / f"{name}.conf"), "-i", str(self.files / f"{name}.pid")]
        return self.start(name, [str(DAEMONS / name), *files, "--log", "stdout", *options])

    def ready(self) -> bool:
        try:
            return "FRRouting" in self.vty("show version") and bool(self.vty("show bgp summary json"))
        except OSError:
            return False

    def start_daemon(self) -> None:
        # If only bgpd has ended, zebra still runs, and a new bgpd would connect to it
        for other in (self.bfdd, self.zebra):
            if other is not None:
                other.close()
        self.bfdd = None
        super().start_daemon()

    def stop_daemon(self) -> None:
        super().stop_daemon()
        for other in (self.bfdd, self.zebra):
            if other is not None:
                other.terminate()
        self.bfdd = None

    def reload(self) -> None:
        """Sends only the differences from the running configuration; other sessions are not affected."""
        old, new = self._running or RouterConfig(), self.config
        if (old.asn, old.port) != (new.asn, new.port):
            raise LabError("FRR cannot change its AS or port while it runs; stop and start it")
        self._start_bfd()
        lines = [f"router bgp {new.asn}"]
        before = {s.peer: s for s in old.sessions}
        after = {s.peer: s for s in new.sessions}
        lines += [f" no neighbor {a}" for a, s in before.items() if after.get(a) != s]
        for address, session in after.items():
            if before.get(address) != session:
                lines += self._session(session)
        for family in ("v4", "v6"):
            lines += self._in_family(family)
            mine = [p for p in (*old.injected, *new.injected) if (":" in p) == (family == "v6")]
            for prefix in dict.fromkeys(mine):
                if (prefix in old.injected) != (prefix in new.injected):
                    lines.append(f"  {'' if prefix in new.injected else 'no '}network {prefix}")
            lines += [f"  maximum-paths {new.max_paths}", f"  maximum-paths ibgp {new.max_paths}"]
            lines.append(" exit-address-family")
        self.configure_lines(lines)
        self._running = new

    # Queries

    def vty(self, *commands: str, timeout: float = 10.0, daemon: str = "bgpd") -> str:
        """The output of the last of these commands on the vty socket of bgpd or bfdd. Raises OSError if it does not
        run.

        An answer ends with three zero bytes and one status byte, as in vtysh.
        """
        answer = b""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(timeout)
            control.connect(str(self.files / f"{daemon}.vty"))
            for command in ("enable", *commands):
                control.sendall(command.encode() + b"\0")
                answer = b""
                while len(answer) < 4 or answer[-4:-1] != b"\0\0\0":
                    part = control.recv(1 << 20)
                    if not part:
                        raise ConnectionError(f"{daemon} closed its vty socket")
                    answer += part
                # 0 success, 1 warning, 5 already done
                if answer[-1] not in (0, 1, 5):
                    said = answer[:-4].decode(errors="replace").strip()
                    raise LabError(f"FRR refuses `{command.strip()}` (code {answer[-1]}): {said}")
        return answer[:-4].decode(errors="replace")

    def configure_lines(self, lines: list[str]) -> None:
        """Sends configuration lines to the running bgpd."""
        self.vty("configure terminal", *(line.strip() for line in lines), "end")

    def _json(self, command: str, daemon: str = "bgpd") -> Any:
        text = self.vty(command, daemon=daemon)
        try:
            return json.loads(text or "{}")
        except ValueError:
            raise LabError(f"FRR's answer to `{command}` is no JSON: {text[:500]}") from None

    def paths(self, family: str) -> dict[str, list[RibPath]]:
        table = self._json(f"show bgp ip{family} unicast json").get("routes", {})
        found = {}
        for prefix, entries in table.items():
            learned = [_path(entry) for entry in entries if entry.get("peerId", "(unspec)") != "(unspec)"]
            if learned:
                found[prefix] = learned
        return found

    def route_details(self, prefix: str) -> list[RibPath]:
        family = "v6" if ":" in prefix else "v4"
        entries = self._json(f"show bgp ip{family} unicast {prefix} json").get("paths", [])
        return [path for path in map(_path, entries) if path.neighbor not in ("", "0.0.0.0", "::")]

    def sessions(self) -> dict[str, SessionState]:
        found = {}
        for address, said in self._json("show bgp neighbors json").items():
            if isinstance(said, dict) and "bgpState" in said:
                state = said["bgpState"]
                why = said.get("lastNotificationReason") or said.get("lastResetDueTo") or ""
                found[address] = SessionState(address, state, "" if state == "Established" else why)
        return found

    def shutdown_session(self, neighbor: str, message: str = "") -> None:
        said = f" message {message}" if message else ""
        self.configure_lines([f"router bgp {self.config.asn}", f"neighbor {neighbor} shutdown{said}"])

    def enable_session(self, neighbor: str) -> None:
        self.configure_lines([f"router bgp {self.config.asn}", f"no neighbor {neighbor} shutdown"])


def _path(entry: dict[str, Any]) -> RibPath:
    hops = entry.get("nexthops", [])
    wide = [hop for hop in hops if hop.get("scope", "global") == "global"] or hops
    # The table and the details of one prefix use different names for the same field
    as_path = entry["aspath"]["string"] if "aspath" in entry else entry.get("path", "")
    return RibPath(
        next_hop=wide[0]["ip"] if wide else "",
        neighbor=entry.get("peer", {}).get("peerId", entry.get("peerId", "")),
        as_path=tuple(int(asn) for asn in as_path.split() if asn.isdigit()),
        local_pref=entry.get("locPrf", entry.get("localpref")),
        med=entry.get("metric", entry.get("med")),
        path_id=int(entry.get("addpathRxId", entry.get("rxPathId", 0)) or 0),
        stale=bool(entry.get("stale")),
        extra={"raw": json.dumps(entry)},
        communities=frozenset(entry.get("community", {}).get("list", [])),
        large_communities=frozenset(entry.get("largeCommunity", {}).get("list", [])),
    )

"""BIRD 2 as the router."""

from __future__ import annotations

import re
import socket
from dataclasses import replace

from lab.netns import LabError
from lab.process import Process
from lab.routers.base import RibPath, Router, Session, SessionState, config_file

STATES = {"Passive": "Active", "Down": "Idle", "Close": "Idle"}


class Bird(Router):
    kind = "bird"

    @property
    def socket_path(self) -> str:
        return str(self.files / "bird.ctl")

    # Configuration

    def write_config(self) -> None:
        config_file(self, "bird.conf", self.render())

    def render(self) -> str:
        c = self.config
        statics = "".join(
            f"protocol static inject_{family} {{ ipv{family[1]}; "
            + " ".join(f"route {p} blackhole;" for p in c.injected if (":" in p) == (family == "v6"))
            + " }\n"
            for family in ("v4", "v6")
        )
        return (
            f'log "{self.files / "bird.log"}" all;\n'
            f"router id {self.v4};\n"
            "watchdog warning 5 s;\n"
            "protocol device { scan time 2; }\n"
            "protocol direct { ipv4; ipv6; }\n" + self._bfd() +
            # merge paths: all paths of equal rank become next hops of one kernel route
            f"protocol kernel kernel_v4 {{ ipv4 {{ import none; export where source = RTS_BGP; }}; "
            f"merge paths on limit {c.max_paths}; }}\n"
            f"protocol kernel kernel_v6 {{ ipv6 {{ import none; export where source = RTS_BGP; }}; "
            f"merge paths on limit {c.max_paths}; }}\n" + statics + "".join(self._session(s) for s in c.sessions)
        )

    def _bfd(self) -> str:
        rates = {s.bfd for s in self.config.sessions if s.bfd}
        rules = f"interval {min(rates)} ms; multiplier 3;" if rates else ""
        return f'protocol bfd {{ interface "*" {{ {rules} }}; multihop {{ {rules} }}; }}\n' if rates else ""

    def bfd_states(self) -> dict[str, str]:
        rows = [line.split() for line in self.birdc("show bfd sessions").splitlines()]
        return {row[0]: row[2].lower() for row in rows if len(row) >= 4 and row[0][0] in "0123456789abcdef"}

    def _session(self, s: Session) -> str:
        c = self.config
        own = self.own_address(s.address)
        lines = [
            f"local {'' if s.interface else own} port {c.port} as {c.asn};",
            f"neighbor {s.address} port {s.port} as {s.asn};",
            f'interface "{s.interface}";' if s.interface else "",
            f"multihop {s.multihop};" if s.multihop else "direct;",
            f"passive {'on' if s.passive else 'off'};",
            f"hold time {s.hold};",
            f"keepalive time {s.keepalive_seconds};",
            # reconnect immediately: the default of 60 s after an error would dominate every measurement
            "connect delay time 1; connect retry time 1; error wait time 1, 2; error forget time 1;",
            f"graceful restart {'aware' if s.graceful_restart else 'off'};",
        ]
        if s.bfd:
            lines.append("bfd on;")
        if s.ttl_security:
            lines.append("ttl security on;")
        if s.password:
            lines.append(f'password "{s.password}";')
        for family in s.families:
            # next hops of the other family for IPv4 only if requested; accept several paths from the neighbor
            extended = f"extended next hop {'on' if s.extended else 'off'};" if family == "v4" else ""
            paths = "add paths rx;" if s.add_path else ""
            # a connected subnet is announced from its own route, which is preferred to the injected one
            sources = "source ~ [RTS_STATIC, RTS_BGP, RTS_DEVICE]" if s.transit else "source = RTS_STATIC"
            lines.append(f"ipv{family[1]} {{ import all; export where {sources}; {paths} {extended} }};")
        return f"protocol bgp {s.label} {{\n  " + "\n  ".join(lines) + "\n}\n"

    # Start

    def launch(self) -> Process:
        conf = str(self.files / "bird.conf")
        return self.start("bird", ["bird", "-f", "-c", conf, "-s", self.socket_path, "-P", str(self.files / "pid")])

    def ready(self) -> bool:
        try:
            return "Daemon is up" in self.birdc("show status")
        except OSError:
            return False

    def reload(self) -> None:
        said = self.birdc("configure")
        if "Reconfigured" not in said and "Reconfiguration in progress" not in said:
            raise LabError(f"BIRD does not take its configuration: {said}")

    def birdc(self, command: str, timeout: float = 10.0) -> str:
        """The output of one command on BIRD's control socket, without the codes. Raises OSError if BIRD does not
        run."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(timeout)
            control.connect(self.socket_path)
            stream = control.makefile("rwb")
            _read_answer(stream)  # the greeting
            stream.write(command.encode() + b"\n")
            stream.flush()
            return _read_answer(stream)

    # Queries

    def paths(self, family: str) -> dict[str, list[RibPath]]:
        table = "master4" if family == "v4" else "master6"
        by_label = {session.label: session.address for session in self.config.sessions}
        found = parse_routes(self.birdc(f"show route table {table} where source = RTS_BGP all"))
        return {
            prefix: [replace(path, neighbor=by_label.get(path.extra["protocol"], "")) for path in paths]
            for prefix, paths in found.items()
        }

    def sessions(self) -> dict[str, SessionState]:
        by_label = {s.label: s.address for s in self.config.sessions}
        found = {}
        for line in self.birdc("show protocols").splitlines():
            words = line.split(None, 5)
            if len(words) >= 5 and words[1] == "BGP" and words[0] in by_label:
                state, _, detail = (words[5] if len(words) > 5 else "Idle").partition(" ")
                address = by_label[words[0]]
                # BIRD's "Passive" is Active in RFC 4271's terms: waiting for the neighbor
                found[address] = SessionState(address, STATES.get(state, state), detail.strip())
        return found

    def shutdown_session(self, neighbor: str, message: str = "") -> None:
        self.birdc(f'disable {self._label(neighbor)} "{message}"')

    def enable_session(self, neighbor: str) -> None:
        self.birdc(f"enable {self._label(neighbor)}")

    def _label(self, neighbor: str) -> str:
        for session in self.config.sessions:
            if session.address == neighbor:
                return session.label
        raise LabError(f"{self.name} has no session with {neighbor}")


def _read_answer(stream: object) -> str:
    # Lines are "CODE-text" or " text" while the answer continues, and "CODE text" at its end.
    lines = []
    code = ""
    while True:
        raw = stream.readline()  # type: ignore[attr-defined]
        if not raw:
            raise ConnectionError("BIRD closed its control socket")
        line = raw.decode(errors="replace").rstrip("\n")
        if line.startswith("+"):  # a log message between the lines of the answer
            continue
        if line.startswith(" "):
            lines.append(line[1:])
            continue
        code, last = line[:4], line[4:5] != "-"
        lines.append(line[5:])
        if last:
            if code[0] in "89" and code != "8001":  # 8001: no such network, an empty answer
                raise LabError(f"BIRD: {line}")
            return "\n".join(lines)


_HEAD = re.compile(r"^(\S*)\s+(unicast|blackhole|unreachable|prohibit)\s+\[(\S+) [^\]]*\](.*)$")


def parse_routes(text: str) -> dict[str, list[RibPath]]:
    """The output of ``show route all``, as paths by prefix."""
    found: dict[str, list[RibPath]] = {}
    prefix = ""
    values: dict[str, str] | None = None

    def finish() -> None:
        if values is not None:
            found.setdefault(prefix, []).append(_path(values))

    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            finish()
            prefix = head[1] or prefix
            values = {"protocol": head[3], "flags": head[4]}
        elif values is not None and "via " in line and ":" not in line.split("via ")[0]:
            values["via"] = line.split("via ")[1].split()[0]
        elif values is not None and line.strip().startswith("BGP."):
            key, _, value = line.strip().partition(":")
            values[key] = value.strip()
    finish()
    return found


def _path(values: dict[str, str]) -> RibPath:
    def number(key: str) -> int | None:
        return int(values[key]) if key in values else None

    def groups(key: str) -> frozenset[str]:
        inside = re.findall(r"\(([^)]*)\)", values.get(key, ""))
        return frozenset(":".join(part.strip() for part in group.split(",")) for group in inside)

    hops = [hop for hop in values.get("BGP.next_hop", "").split() if hop != "::"]  # "::" precedes a link-local one
    return RibPath(
        next_hop=hops[0] if hops else values.get("via", ""),
        as_path=tuple(int(asn) for asn in re.findall(r"\d+", values.get("BGP.as_path", ""))),
        local_pref=number("BGP.local_pref"),
        med=number("BGP.med"),
        communities=groups("BGP.community"),
        large_communities=groups("BGP.large_community"),
        path_id=number("BGP.path_id") or 0,
        extra=values,
    )

"""Starts ExaBGP with repairs of eleven defects of 5.0.15 that would break promises to users, and two more settings.

    python3 -P launcher.py MANAGER_PID server FILE
    python3 -P launcher.py 0 validate FILE

With a MANAGER_PID other than 0, ExaBGP ends (SIGTERM) when that process dies. The files of ExaBGP are not changed, and
its version is pinned. Another version is refused unless every function that is replaced here is the same in it.
Reproductions and patches for upstream: docs/exabgp.md.
"""

import ctypes
import hashlib
import importlib.metadata
import inspect
import json
import os
import signal
import sys
import time
from collections import deque
from typing import Any

from porterlb.capabilities import Capability, keep_only
from porterlb.collector import collect_seldom

REPAIRED = "5.0.15"

try:
    from exabgp.application.main import main as exabgp
    from exabgp.bgp.message import Notify
    from exabgp.bgp.message.open.capability import Negotiated
    from exabgp.bgp.message.open.capability.capability import Capability as Code
    from exabgp.bgp.neighbor import Neighbor
    from exabgp.configuration.neighbor import ParseNeighbor
    from exabgp.reactor import listener
    from exabgp.reactor.api import API
    from exabgp.reactor.api.response.json import JSON
    from exabgp.reactor.daemon import Daemon
    from exabgp.reactor.keepalive import KA
    from exabgp.reactor.loop import Reactor
    from exabgp.reactor.network import tcp
    from exabgp.reactor.network.connection import Connection
    from exabgp.reactor.network.error import NetworkError
    from exabgp.reactor.peer import Peer
    from exabgp.reactor.protocol import Protocol
    from exabgp.rib.outgoing import OutgoingRIB
except ImportError as missing:  # another version: see refusal
    installed = importlib.metadata.version("exabgp")
    sys.exit(f"exabgp {installed} is installed ({missing}). Install {REPAIRED}: pip install exabgp=={REPAIRED}")

REPLACED = {
    (OutgoingRIB, "_update_rib"): "3c013bdc1a03",
    (Reactor, "_pending_adjribout"): "1eca799614b5",
    (Neighbor, "remove_self"): "cbd04747e6f3",
    (API, "log_failure"): "4ff4699cb132",
    (Peer, "_close"): "942fc729d7b6",
    (Daemon, "drop_privileges"): "a6091f186864",
    (JSON, "_negotiated"): "b0888de637bc",
    (Connection, "writer"): "c7cb346b75b1",
    (KA, "__init__"): "b46e3ff6a74b",
    (Protocol, "new_notification"): "7134b1910504",
    (Protocol, "connect"): "de1784de045d",
    (listener.Listener, "_listen"): "bbf085510e08",
    (listener, "set_accepted_ttl"): "87c1dc1ff288",
    (tcp, "set_minimum_ttl"): "bbee94b45d52",
    (tcp, "set_sending_ttl"): "9d4e1dc8fc4a",
    (Negotiated, "validate"): "fb55bcf8df82",
}
"""The functions that are replaced below: (object, attribute), and the SHA-256 of the source in REPAIRED, shortened."""

PR_SET_PDEATHSIG = 1
SEND_HOLD = 2
"""Hold times that one message may take to be sent (RFC 9687 recommends more; BIRD and FRR use this)."""
SEND_HOLD_EXPIRED = 8
"""Code of a NOTIFICATION (RFC 9687)."""
BAD_PEER_AS = (2, 2)


def fingerprint(owner: Any, name: str) -> str:
    """Fingerprint of the source of a function; empty if there is none."""
    try:
        return hashlib.sha256(inspect.getsource(getattr(owner, name)).encode()).hexdigest()[:12]
    except (AttributeError, TypeError, OSError):
        return ""


def refusal(version: str) -> str:
    """Why ExaBGP of this version cannot be repaired; empty if it can."""
    if version == REPAIRED:
        return ""
    changed = [
        f"{owner.__name__}.{name}" for (owner, name), known in REPLACED.items() if fingerprint(owner, name) != known
    ]
    if not changed:
        return ""
    return (
        f"exabgp {version} is installed, and differs from {REPAIRED} in {', '.join(changed)}, which PorterLB repairs. "
        f"Install {REPAIRED}: pip install exabgp=={REPAIRED}"
    )


def repair() -> None:
    repair_routes()
    repair_reports()
    repair_sending()
    repair_listening()
    add_timers()
    accept_external()


def repair_routes() -> None:

    # 1. Changes wait in buckets, one for each set of attributes, in the order in which the buckets appeared. If a
    # route changes from A to B and back to A while its peer is away, A is sent first and then B: the router keeps the
    # wrong next hop. A newer change of a route must replace the older one.
    insert = OutgoingRIB._update_rib

    def update_rib(self: Any, change: Any) -> Any:
        previous = self._new_nlri.get(change.index())
        if previous is not None:
            family = previous.nlri.family().afi_safi()
            bucket = self._new_attr_af_nlri.get(previous.attributes.index(), {}).get(family, {})
            bucket.pop(change.index(), None)
        return insert(self, change)

    OutgoingRIB._update_rib = update_rib

    # 2. A reload is dropped silently while any peer has routes waiting to be sent, and the routes of an unreachable
    # peer wait forever. Routes and reload do not interfere: a peer keeps its routes.
    Reactor._pending_adjribout = lambda self: False

    # 3. A route is copied as a whole before it is queued, with the attributes that all routes of its command share, in
    # case its next hop is "self": this takes two fifths of the time of a burst. Our next hop is always explicit, and
    # each of our commands names one neighbor, so no other neighbor shares that route.
    with_own_address = Neighbor.remove_self

    def remove_self(self: Any, change: Any) -> Any:
        return with_own_address(self, change) if change.nlri.nexthop.SELF else change

    Neighbor.remove_self = remove_self


def repair_reports() -> None:

    # 4. The reason for refusing a command is logged at a level that does not exist ("ERR"), and is therefore lost.
    failure = API.log_failure
    API.log_failure = lambda self, message, level="ERROR": failure(self, message, level)

    # 5. The event of a lost session says "closing connection", whether the peer closed it or reset it.
    close = Peer._close

    def close_with_cause(self: Any, message: Any = "", error: Any = "") -> Any:
        return close(self, f"{message}: {error}" if error else message, error)

    Peer._close = close_with_cause

    # 6. It insists on switching to another user from /etc/passwd if either the user or the group is root's. The
    # manager has already chosen the user for both.
    Daemon.drop_privileges = lambda self: True

    # 7. The event "negotiated" contains neither graceful restart (RFC 4724) nor the identity of the peer.
    say = JSON._negotiated

    def with_more(self: Any, negotiated: Any) -> Any:
        said = say(self, negotiated)
        code = Code.CODE.GRACEFUL_RESTART
        both = all(o and o.capabilities.announced(code) for o in (negotiated.sent_open, negotiated.received_open))
        more = {
            "graceful_restart": both,
            "peer_as": int(negotiated.peer_as),
            "peer_id": str(negotiated.received_open.router_id) if negotiated.received_open else "",
        }
        text = said["negotiated"].rstrip()
        said["negotiated"] = self._json(f"{text[:-1]}, {json.dumps(more)[1:-1]} }} ")
        return said

    JSON._negotiated = with_more


def repair_sending() -> None:

    # 8. A router that no longer reads but still sends keepalives is never detected: everything for it waits forever
    # (RFC 9687).
    # 9. If only part of a message fitted into the socket, a due keepalive can be sent in the middle of it. (Found by
    # reading the code: no run has shown it, because the rest of the message is usually sent first.)
    write = Connection.writer

    def in_turn(self: Any, data: Any) -> Any:
        turns = self.__dict__.setdefault("turns", deque())
        mine = object()
        turns.append(mine)
        try:
            while turns[0] is not mine:
                yield False
            began = time.monotonic()
            for done in write(self, data):
                if done:
                    break
                if time.monotonic() - began > self.__dict__.get("send_hold", float("inf")):
                    raise Notify(SEND_HOLD_EXPIRED, 0, "send hold timer expired")
                yield False
        finally:
            turns.remove(mine)
        yield True

    Connection.writer = in_turn

    begin = KA.__init__

    def with_send_hold(self: Any, session: Any, proto: Any) -> Any:
        begin(self, session, proto)
        if proto.negotiated.holdtime:
            proto.connection.send_hold = SEND_HOLD * proto.negotiated.holdtime

    KA.__init__ = with_send_hold

    # 10. The end of a session waits until its NOTIFICATION is sent. With a router that does not read, or that died
    # during a send, it waits until the kernel gives up, a quarter of an hour later.
    notify = Protocol.new_notification

    def notify_if_possible(self: Any, notification: Any) -> Any:
        connection = self.connection
        if connection is not None and connection.io and not connection.__dict__.get("turns") and connection.writing():
            yield from notify(self, notification)

    Protocol.new_notification = notify_if_possible


def repair_listening() -> None:

    # 11. The minimum TTL of one neighbor (RFC 5082) is set on the listening socket, which all neighbors of a local
    # address share: others cannot connect. It belongs to the accepted connection. The first answer comes from the
    # listening socket; a router that checks the TTL discards it if it is not 255.
    listen = listener.Listener._listen

    def listen_for_all(
        self: Any, local_ip: Any, peer_ip: Any, local_port: Any, use_md5: Any, md5_base64: Any, minimum: Any
    ) -> Any:
        listen(self, local_ip, peer_ip, local_port, use_md5, md5_base64, None)
        for sock, (address, port, *_) in self._sockets.items():
            if minimum and (address, port) == (local_ip.top(), local_port):
                tcp.set_sending_ttl(sock, local_ip.afi, address, tcp.GTSM_SENDING_TTL)

    listener.Listener._listen = listen_for_all

    accept = listener.set_accepted_ttl

    def with_lowest_ttl(connection: Any, neighbor: Any) -> Any:
        accept(connection, neighbor)
        if connection.io is not None:
            tcp.set_minimum_ttl(connection.io, connection.afi, connection.peer, neighbor["incoming-ttl"])

    listener.set_accepted_ttl = with_lowest_ttl


def accept_external() -> None:
    """``peer-as 0`` accepts every AS but our own. ExaBGP's own value, ``auto``, accepts our own too, and makes the
    answers of its API unreadable."""
    validate = Negotiated.validate

    def validate_external(self: Any, neighbor: Any) -> Any:
        expected = neighbor["peer-as"]
        if expected is None or int(expected):
            return validate(self, neighbor)
        if self.peer_as == self.local_as:
            return (*BAD_PEER_AS, f"AS {self.peer_as} is our own, and the peer is to be external")
        neighbor["peer-as"] = self.peer_as
        try:
            return validate(self, neighbor)
        finally:
            neighbor["peer-as"] = expected

    Negotiated.validate = validate_external


def add_timers() -> None:
    """``keepalive`` and ``connect-retry`` of a neighbor, in seconds. Changing them does not affect its session."""
    for name in ("keepalive", "connect-retry"):
        ParseNeighbor.known[name] = lambda tokeniser: int(tokeniser())
        ParseNeighbor.action[name] = "set-command"
        Neighbor.defaults[name] = 0

    begin = KA.__init__

    def with_own_interval(self: Any, session: Any, proto: Any) -> Any:
        begin(self, session, proto)
        timer, third = self.send_timer, self.send_timer.keepalive
        due = timer.need_ka

        def need_ka() -> Any:
            asked = proto.peer.neighbor["keepalive"]
            timer.keepalive = min(asked or third, third)
            return due()

        timer.need_ka = need_ka

    KA.__init__ = with_own_interval

    close = Peer._close

    def close_with_interval(self: Any, message: Any = "", error: Any = "") -> Any:
        close(self, message, error)
        if self.neighbor["connect-retry"]:  # the first attempt is made at once
            self._delay._next = self.neighbor["connect-retry"]

    Peer._close = close_with_interval

    connect = Protocol.connect

    def connect_for_a_while(self: Any) -> Any:
        began = time.monotonic()
        for connected in connect(self):
            patience = self.neighbor["connect-retry"]
            if not connected and patience and time.monotonic() - began > patience:  # RFC 4271, 8.2.2: Connect, event 9
                self.close("no connection within the time of connect-retry")
                raise NetworkError("no answer (ETIMEDOUT)")
            yield connected

    Protocol.connect = connect_for_a_while


def main() -> None:
    manager = int(sys.argv[1])
    keep_only(Capability.NET_BIND_SERVICE)
    if manager:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != manager:  # it died before the signal was set up
            sys.exit("the manager is gone")
    if why := refusal(importlib.metadata.version("exabgp")):
        sys.exit(why)
    repair()
    collect_seldom()
    sys.argv = ["exabgp", *sys.argv[2:]]
    sys.exit(exabgp())


if __name__ == "__main__":
    main()

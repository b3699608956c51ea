"""Starts ExaBGP with repairs of fifteen defects of 5.0.15 that would break promises to users, and two more settings.

    python3 -P launcher.py MANAGER_PID server FILE
    python3 -P launcher.py 0 validate FILE

With a MANAGER_PID other than 0, ExaBGP ends (SIGTERM) when that process dies. The files of ExaBGP are not changed, and
its version is pinned. Another version is refused unless every function that is replaced here is the same in it.
Reproductions and patches for upstream: docs/exabgp.md.
"""

import ctypes
import hashlib
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

if __name__ == "__main__":
    sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio works without it, and ExaBGP has no use for it: 1 MB

try:
    from exabgp.application.main import main as exabgp
    from exabgp.bgp.fsm import FSM
    from exabgp.bgp.message import Action, Notify, Update
    from exabgp.bgp.message.open.capability import Negotiated
    from exabgp.bgp.message.open.capability.capability import Capability as Code
    from exabgp.bgp.neighbor import Neighbor
    from exabgp.configuration.neighbor import ParseNeighbor
    from exabgp.protocol.family import AFI, SAFI
    from exabgp.reactor import listener
    from exabgp.reactor.api import API
    from exabgp.reactor.api.response.json import JSON
    from exabgp.reactor.asynchronous import ASYNC
    from exabgp.reactor.daemon import Daemon
    from exabgp.reactor.keepalive import KA
    from exabgp.reactor.loop import Reactor
    from exabgp.reactor.network import tcp
    from exabgp.reactor.network.connection import Connection
    from exabgp.reactor.network.error import NetworkError
    from exabgp.reactor.peer import Peer
    from exabgp.reactor.protocol import Protocol
    from exabgp.rib.outgoing import OutgoingRIB
    from exabgp.version import release
except ImportError as missing:  # another version: see refusal
    import importlib.metadata  # only here: it takes 2 MB

    installed = importlib.metadata.version("exabgp")
    sys.exit(f"exabgp {installed} is installed ({missing}). Install {REPAIRED}: pip install exabgp=={REPAIRED}")

REPLACED = {
    (OutgoingRIB, "_update_rib"): "3c013bdc1a03",
    (Reactor, "_pending_adjribout"): "1eca799614b5",
    (Reactor, "reload"): "9d31059186ff",
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
    (Reactor, "_wait_for_io"): "abe9694fbe6f",
    (ASYNC, "run"): "b19e41c01689",
    (ParseNeighbor, "_post_capa_nexthop"): "fdb41a6c6fdb",
    (Peer, "cli_data"): "a932bef922b2",
    (Update, "_split_nlris"): "9d693e7f9bc1",
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
    repair_reload()
    repair_next_hops()
    add_timers()
    accept_external()
    save_processor()


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


def repair_reload() -> None:

    # 12. A peer that a reload has removed ends at its next turn. If a second reload brings the same peer back before
    # that, the peer is reused, and ends nevertheless: its session is never opened again.
    reload = Reactor.reload

    def reload_without_leaving(self: Any) -> Any:
        for key in [key for key, peer in self._peers.items() if peer.stopping()]:
            del self._peers[key]
        return reload(self)

    Reactor.reload = reload_without_leaving


def repair_next_hops() -> None:

    # 13. The capability for IPv6 next hops of IPv4 routes (RFC 8950) is sent only if IPv6 routes are configured, too.
    find = ParseNeighbor._post_capa_nexthop

    def without_other_family(self: Any, neighbor: Any, local: Any) -> Any:
        find(self, neighbor, local)
        if neighbor["capability"]["nexthop"]:
            for afi, safi, hop in (of for several in local.get("nexthop", {}).values() for of in several):
                if (afi, safi) in neighbor.families():
                    neighbor.add_nexthop(afi, safi, hop)

    ParseNeighbor._post_capa_nexthop = without_other_family

    # 14. The list of neighbors lacks that capability.
    show = Peer.cli_data

    def with_next_hops(self: Any) -> Any:
        shown = show(self)
        known = self.proto is not None and self.proto.negotiated.received_open
        agreed = bool(self.proto.negotiated.nexthop) if known else None
        shown["capabilities"]["nexthop"] = (bool(self.neighbor["capability"]["nexthop"]), agreed)
        return shown

    Peer.cli_data = with_next_hops

    # 15. An IPv6 next hop for IPv4 routes is sent although the router did not negotiate it. The router discards the
    # routes, or ends the session.
    split = Update._split_nlris
    extended = (AFI.ipv4, SAFI.unicast, AFI.ipv6)

    def split_negotiated(self: Any, negotiated: Any) -> Any:
        first = self.nlris[0] if self.nlris else None
        if first is None or first.afi != AFI.ipv4 or extended in negotiated.nexthop:
            return split(self, negotiated)
        every = self.nlris
        self.nlris = [n for n in every if n.action != Action.ANNOUNCE or n.nexthop.afi != AFI.ipv6]
        try:
            return split(self, negotiated)
        finally:
            self.nlris = every

    Update._split_nlris = split_negotiated


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


IDLE = 100
"""Milliseconds for which ExaBGP sleeps while all sessions are established and nothing is to be sent. Commands and
messages of routers end the sleep. What it looks for by itself (timers in whole seconds, signals, new connections)
waits this long at most."""


def save_processor() -> None:
    """An idle ExaBGP wakes 100 times per second, and starts a new event loop for each command."""
    wait = Reactor._wait_for_io

    def wait_for_io(self: Any, milliseconds: int) -> Any:
        idle = self.asynchronous.ready() and not self.signal.received and self._peers
        if milliseconds and idle and all(map(is_idle, self._peers.values())):
            milliseconds = max(milliseconds, IDLE)
        return wait(self, milliseconds)

    def is_idle(peer: Any) -> bool:
        return peer.fsm == FSM.ESTABLISHED and not peer.stopping() and not peer.neighbor.rib.outgoing.pending()

    Reactor._wait_for_io = wait_for_io

    run = ASYNC.run

    def run_at_once(self: Any) -> Any:
        if not all(inspect.isgenerator(callback) for _, callback in self._async):
            return run(self)
        try:
            self._run_async().send(None)  # it awaits nothing if all are generators
        except StopIteration as done:
            return done.value
        raise RuntimeError("a generator has awaited something")

    ASYNC.run = run_at_once


def main() -> None:
    manager = int(sys.argv[1])
    keep_only(Capability.NET_BIND_SERVICE)
    if manager:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != manager:  # it died before the signal was set up
            sys.exit("the manager is gone")
    if why := refusal(release):
        sys.exit(why)
    repair()
    collect_seldom()
    sys.argv = ["exabgp", *sys.argv[2:]]
    sys.exit(exabgp())


if __name__ == "__main__":
    main()

"""Starts ExaBGP with repairs of seventeen defects of 5.0.15 that would break promises to users, and two more settings.

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
import socket
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from porterlb.capabilities import Capability, keep_only
from porterlb.collector import collect_seldom

REPAIRED = "5.0.15"

if __name__ == "__main__":
    sys.modules["ssl"] = None  # type: ignore[assignment]  # asyncio works without it, and ExaBGP has no use for it: 1 MB

try:
    from exabgp.util import dns

    # Before the other imports: one of them asks for the domain, and waits 5 s or more if no DNS server answers. The
    # result is not used.
    dns.domain = dns.host

    from exabgp.application.main import main as exabgp
    from exabgp.bgp.fsm import FSM
    from exabgp.bgp.message import Action, Notify, Update
    from exabgp.bgp.message.open.capability import Negotiated
    from exabgp.bgp.message.open.capability.capability import Capability as Code
    from exabgp.bgp.message.update.nlri.cidr import CIDR
    from exabgp.bgp.message.update.nlri.inet import INET
    from exabgp.bgp.neighbor import Neighbor
    from exabgp.configuration.neighbor import ParseNeighbor
    from exabgp.protocol.family import AFI, SAFI
    from exabgp.reactor import listener
    from exabgp.reactor.api import API
    from exabgp.reactor.api.command import Command, announce
    from exabgp.reactor.api.command.limit import extract_neighbors, match_neighbors
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
    from exabgp.rib.cache import Cache
    from exabgp.rib.change import Change
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
    (OutgoingRIB, "updates"): "49a023385063",
    (OutgoingRIB, "add_to_rib"): "fe7ea3a34778",
    (Cache, "in_cache"): "2400365c916f",
    (Cache, "update_cache"): "9fa33d6bd3d1",
    (announce, "announce_attributes"): "576c0115f883",
    (announce, "withdraw_attribute"): "c6a46d63b1ea",
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
    take_lines_whole()


def repair_routes() -> None:

    # 1. Changes wait in buckets, one for each set of attributes, in the order in which the buckets appeared. If a
    # route changes from A to B and back to A while its peer is away, A is sent first and then B: the router keeps the
    # wrong next hop. A newer change of a route must replace the older one.
    OutgoingRIB._update_rib = lambda self, change: queue(self, [change])

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

    # 16. Only IPv4 routes share an UPDATE. Each IPv6 route is sent in an UPDATE of its own, and so is each route that a
    # router has requested again (RFC 2918).
    apart = OutgoingRIB.updates

    def updates(self: Any, grouped: Any) -> Any:
        return together(apart(self, grouped)) if grouped else apart(self, grouped)

    OutgoingRIB.updates = updates


def queue(rib: Any, changes: Sequence[Any]) -> None:
    """Queues changes with the same attributes and of the same family to be sent to a neighbor. Each replaces an older
    change of its route."""
    attributes, family = changes[0].attributes, changes[0].nlri.family().afi_safi()
    bucket = rib._new_attr_af_nlri.setdefault(attributes.index(), {}).setdefault(family, {})
    seen = rib._seen.setdefault(family, {})
    for change in changes:
        index = change.index()
        previous = rib._new_nlri.get(index)
        if previous is not None:
            older = rib._new_attr_af_nlri.get(previous.attributes.index(), {})
            older.get(previous.nlri.family().afi_safi(), {}).pop(index, None)
        bucket[index] = rib._new_nlri[index] = change
        if not rib.cache:
            continue
        if change.nlri.action == Action.ANNOUNCE:
            seen[index] = change
        else:
            seen.pop(index, None)
    rib._new_attribute[attributes.index()] = attributes


def together(updates: Iterable[Any]) -> Iterator[Any]:
    """The updates in their order. Consecutive updates of unicast routes with the same attributes are merged."""
    nlris: list[Any] = []
    attributes = None
    for update in updates:
        first = update.nlris[0] if isinstance(update, Update) else None  # else the marker of a route refresh
        joins = isinstance(first, INET) and first.safi == SAFI.unicast
        if nlris and not (joins and update.attributes is attributes):
            yield Update(nlris, attributes)
            nlris = []
        if joins:
            nlris += update.nlris
            attributes = update.attributes
        else:
            yield update
    if nlris:
        yield Update(nlris, attributes)


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
    extended = (AFI.ipv4, SAFI.unicast, AFI.ipv6)
    native = (AFI.ipv4, SAFI.unicast)

    def split_negotiated(self: Any, negotiated: Any) -> Any:
        plain: list[Any] = []
        others: dict[Any, dict[int, list[Any]]] = {}
        families = set(negotiated.families)
        for nlri in self.nlris:  # not sorted: that takes longer than all the rest, and routers do not depend on it
            family = (nlri.afi, nlri.safi)
            if family not in families:
                continue
            if family == native and (nlri.action == Action.WITHDRAW or nlri.nexthop.afi == AFI.ipv4):
                plain.append(nlri)
            elif family != native or extended in negotiated.nexthop:
                others.setdefault(family, {}).setdefault(nlri.action, []).append(nlri)
        return plain, others

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
        if not self.asynchronous.ready():
            return wait(self, 0)  # a command is only half done
        idle = not self.signal.received and self._peers
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


def take_lines_whole() -> None:
    """A command with many prefixes is parsed and queued prefix by prefix, 50 prefixes in a turn of the main loop, each
    with a copy of its own of what the prefixes of one command share. Here the first prefix is parsed by ExaBGP, and the
    other ones take over all but the address. Unusual lines and all errors are left to ExaBGP."""
    for words, name, action in (
        ("announce attributes", "announce_attributes", Action.ANNOUNCE),
        ("withdraw attributes", "withdraw_attribute", Action.WITHDRAW),
    ):
        Command.callback["text"][words] = whole(getattr(announce, name), action)


def whole(one_by_one: Any, action: int) -> Any:
    """The command as ExaBGP has it, with a shortcut for the prefixes of one IP version."""

    def command(self: Any, reactor: Any, service: str, line: str, use_json: bool) -> Any:
        descriptions, words = extract_neighbors(line)
        peers = match_neighbors(reactor.peers(service), descriptions)
        neighbors = [neighbor for name, neighbor in reactor.configuration.neighbors.items() if name in peers]
        changes = alike(self, words, action) if neighbors else []
        if not changes or any(changes[0].nlri.family().afi_safi() not in each.families() for each in neighbors):
            return one_by_one(self, reactor, service, line, use_json)
        for neighbor in neighbors:
            if new := unknown(neighbor.rib.outgoing, changes):
                queue(neighbor.rib.outgoing, new)
        reactor.processes.answer_done(service)
        return True

    return command


def alike(api: Any, words: str, action: int) -> list[Any]:
    """The changes of a command that announces or withdraws unicast prefixes; empty if ExaBGP is to read it alone."""
    head, _, tail = words.partition(" nlri ")
    prefixes = tail.split()
    if len(prefixes) < 2:
        return []
    read = api.api_attributes(f"{head} nlri {prefixes[0]}", [])
    if len(read) != 1 or type(read[0].nlri) is not INET or read[0].nlri.nexthop.SELF:
        return []
    first, attributes = read[0].nlri, read[0].attributes
    first.action = action
    kind, bits = (socket.AF_INET, 32) if first.afi == AFI.ipv4 else (socket.AF_INET6, 128)
    common = read[0].index().removesuffix(first.cidr.pack_nlri())
    changes = []
    try:
        for prefix in prefixes:
            address, _, length = prefix.partition("/")
            packed, mask = socket.inet_pton(kind, address), int(length)
            if not 0 <= mask <= bits or int.from_bytes(packed, "big") & ((1 << bits - mask) - 1):
                return []
            nlri: Any = object.__new__(INET)
            nlri.__dict__.update(first.__dict__)
            nlri.cidr = CIDR(packed, mask)
            change = Change(nlri, attributes)
            change._Change__index = common + nlri.cidr.pack_nlri()  # as index() finds it, at a third of the time
            changes.append(change)
    except (OSError, ValueError):
        return []
    return changes


def unknown(rib: Any, changes: Sequence[Any]) -> Sequence[Any]:
    """The changes (of one action and with the same attributes, of which one is the next hop) that a neighbor lacks."""
    if changes[0].nlri.action == Action.WITHDRAW or not rib.cache:
        return changes
    seen = rib._seen.get(changes[0].nlri.family().afi_safi(), {})
    attributes = changes[0].attributes.index()

    def has(change: Any) -> bool:
        known = seen.get(change.index())
        return known is not None and known.attributes.index() == attributes

    return [change for change in changes if not has(change)]


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

"""Starts ExaBGP with repairs of seven defects of 5.0.15 that would break promises to users.

    python3 -P launcher.py MANAGER_PID server FILE
    python3 -P launcher.py 0 validate FILE

With a MANAGER_PID other than 0 ExaBGP ends (SIGTERM) when that process dies. The files of ExaBGP are untouched and its
version is pinned: another one is refused, for these repairs know the inside of this one.
"""

import ctypes
import importlib.metadata
import os
import signal
import sys

from exabgp.application.main import main as exabgp
from exabgp.bgp.message.open.capability.capability import Capability as Code
from exabgp.bgp.neighbor import Neighbor
from exabgp.reactor.api import API
from exabgp.reactor.api.response.json import JSON
from exabgp.reactor.daemon import Daemon
from exabgp.reactor.loop import Reactor
from exabgp.reactor.peer import Peer
from exabgp.rib.outgoing import OutgoingRIB

from porterlb.capabilities import Capability, keep_only
from porterlb.collector import collect_seldom

REPAIRED = "5.0.15"
PR_SET_PDEATHSIG = 1


def repair() -> None:

    # 1. Changes wait in buckets, one for each set of attributes, in the order in which the buckets appeared. A route
    # that went A, B, A while its peer was away is therefore sent A, then B: the router is left with the wrong next
    # hop for ever. A newer change of a route must take the older one's place.
    insert = OutgoingRIB._update_rib

    def update_rib(self, change):
        previous = self._new_nlri.get(change.index())
        if previous is not None:
            family = previous.nlri.family().afi_safi()
            bucket = self._new_attr_af_nlri.get(previous.attributes.index(), {}).get(family, {})
            bucket.pop(change.index(), None)
        return insert(self, change)

    OutgoingRIB._update_rib = update_rib

    # 2. A reload is dropped without a word while any peer has routes waiting to be sent, and those of a peer that
    # cannot be reached wait for ever. Routes and reload do not disturb each other: a peer keeps its routes.
    Reactor._pending_adjribout = lambda self: False

    # 3. Why a command was refused is logged at a level that does not exist ("ERR"), so never.
    failure = API.log_failure
    API.log_failure = lambda self, message, level="ERROR": failure(self, message, level)

    # 4. The event of a lost session says "closing connection", whether the peer closed it or reset it.
    close = Peer._close

    def close_with_cause(self, message="", error=""):
        return close(self, f"{message}: {error}" if error else message, error)

    Peer._close = close_with_cause

    # 5. A route is copied as a whole before it is queued, with the attributes that all routes of its command share, in
    # case its next hop is "self": two fifths of the time of a burst. Ours is written out, and a command of ours names
    # one neighbor, so nobody else has that route.
    with_own_address = Neighbor.remove_self

    def remove_self(self, change):
        return with_own_address(self, change) if change.nlri.nexthop.SELF else change

    Neighbor.remove_self = remove_self

    # 6. It insists on becoming another user, one that /etc/passwd knows, when either the user or the group is root's.
    # The manager has already chosen whom both run as.
    Daemon.drop_privileges = lambda self: True

    # 7. The event "negotiated" says nothing of graceful restart (RFC 4724).
    say = JSON._negotiated

    def with_graceful_restart(self, negotiated):
        said = say(self, negotiated)
        code = Code.CODE.GRACEFUL_RESTART
        both = all(o and o.capabilities.announced(code) for o in (negotiated.sent_open, negotiated.received_open))
        text = said["negotiated"].rstrip()
        said["negotiated"] = self._json(f'{text[:-1]}, "graceful_restart": {"true" if both else "false"} }} ')
        return said

    JSON._negotiated = with_graceful_restart


def main() -> None:
    manager = int(sys.argv[1])
    keep_only(Capability.NET_BIND_SERVICE)
    if manager:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != manager:  # it died before we could ask to be told
            sys.exit("the manager is gone")
    version = importlib.metadata.version("exabgp")
    if version != REPAIRED:
        sys.exit(f"exabgp {version} is installed, but {REPAIRED} is needed: pip install exabgp=={REPAIRED}")
    repair()
    collect_seldom()
    sys.argv = ["exabgp", *sys.argv[2:]]
    sys.exit(exabgp())


if __name__ == "__main__":
    main()

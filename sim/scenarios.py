"""Ten scenarios that run here and on real kernels in the lab (tests/lab/test_scenarios.py), with the same outcome.

Three nodes, and one VIP at each. The nodes have roles: the ``leader``, the ``hop`` and the ``third`` one.
"""

from __future__ import annotations

from dataclasses import dataclass

ROLES = ("leader", "hop", "third")


@dataclass(frozen=True)
class Step:
    """A fault of :mod:`sim.faults`. ``at``: seconds after the scenario begins; ``seconds``: how long it lasts."""

    kind: str
    role: str = ""
    other: str = ""
    at: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """``moves``: the roles whose VIPs are at another node at the end; ``loses``: those whose VIPs lose requests of a
    client, and no others do; ``leader``: whether another replica leads at the end. ``watch``: seconds from the
    beginning for which requests are sent."""

    name: str
    steps: tuple[Step, ...]
    moves: frozenset[str] = frozenset()
    loses: frozenset[str] = frozenset()
    leader: bool = False
    watch: float = 6.0


HOP, LEADER = frozenset({"hop"}), frozenset({"leader"})

SCENARIOS = (
    Scenario("the next hop loses power", (Step("power", "hop", seconds=4.0),), HOP, HOP),
    Scenario("the leader's node loses power", (Step("power", "leader", seconds=5.0),), LEADER, LEADER, True, 7.0),
    Scenario("the next hop's cable is pulled", (Step("link", "hop", seconds=4.0),), HOP, HOP),
    Scenario("the next hop is cut off from all", (Step("isolate", "hop", seconds=3.0),), HOP, HOP),
    Scenario("the leader and the next hop do not hear each other", (Step("pair", "leader", "hop", seconds=3.0),)),
    Scenario("the leader's manager is killed", (Step("kill_manager", "leader"),), leader=True),
    Scenario("the next hop's wire process is killed", (Step("kill_wire", "hop"),)),
    Scenario("the next hop's replica is told to end", (Step("term_manager", "hop"),)),
    Scenario("all processes of the next hop stand still", (Step("stop_both", "hop", seconds=3.0),)),
    Scenario(
        "the next hop loses power while the API is away",
        (Step("api_out", seconds=6.0), Step("power", "hop", at=1.0, seconds=4.0)),  # less than 3 s is no boot
        HOP,
        HOP,
    ),
)

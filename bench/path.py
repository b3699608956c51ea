"""How often the code of PorterLB moves from file to file on its two most important paths.

A manager and what it starts run with a profiler (``sys.setprofile``): one node, one BIRD router, a directory of
manifests. A move is a call that enters a function in another file of ``porterlb/`` than that of the nearest caller in
``porterlb/``; a call by the event loop is one too. Nothing is counted before the event or after the command:

- a lost session: from the line of ExaBGP that says so to the gratuitous announcement of the VIP;
- a new Service: from the object in the manager's memory to the command for ExaBGP.

What else runs meanwhile (beats, probes) is counted with it, so the table has the smallest of the trials.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.report import Table
from lab.cluster import Lab
from lab.measure import wait_until

PROFILER = """
import os, sys, threading, time
_OWN, _FILES = os.sep + "porterlb" + os.sep, {}
_OUT = os.open(os.path.join(os.environ["PORTERLB_PATH"], str(os.getpid())), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def _file(code):
    found = _FILES.get(code)
    if found is None:
        _, own, rest = code.co_filename.rpartition(_OWN)
        found = _FILES[code] = rest if own and code.co_name != "<module>" else ""
    return found

def _profile(frame, event, _):
    if event != "call" or not _file(frame.f_code):
        return
    caller = frame.f_back
    while caller is not None and not _file(caller.f_code):
        caller = caller.f_back
    before, entered = _file(caller.f_code) if caller is not None else "", _file(frame.f_code)
    if before != entered:
        line = "%.6f %s %s %s\\\\n" % (time.monotonic(), before or "-", entered, frame.f_code.co_name)
        os.write(_OUT, line.encode())

if "manager" in sys.argv or "porterlb.wire" in sys.orig_argv:
    threading.setprofile(_profile)
    sys.setprofile(_profile)
""".replace("\\\\", "\\")


@dataclass(frozen=True)
class Move:
    at: float  # monotonic seconds
    before: str
    entered: str
    function: str


def moves(folder: Path, since: float) -> dict[str, list[Move]]:
    """By process, "manager" and "wire", since a moment."""
    found: dict[str, list[Move]] = {"manager": [], "wire": []}
    for file in folder.iterdir():
        rows = [line.split(" ") for line in file.read_text().splitlines()]
        made = [Move(float(at), *rest) for at, *rest in rows if len(rest) == 3]
        wire = any(move.entered.startswith("wire/") for move in made)
        found["wire" if wire else "manager"] += [move for move in made if move.at >= since]
    return found


def between(made: list[Move], begun: float, ended: float) -> list[Move]:
    return [move for move in made if begun <= move.at <= ended]


def first(made: list[Move], fits: Callable[[Move], bool]) -> float:
    """When the first move that fits was made; infinity: never."""
    return min((move.at for move in made if fits(move)), default=float("inf"))


def lost_session(folder: Path, since: float) -> dict[str, list[Move]] | None:
    """The moves of both processes, or None while there is no announcement."""
    made = moves(folder, since)
    ended = first(made["wire"], lambda move: move.entered == "wire/responder.py" and move.function == "announce")
    if ended == float("inf"):
        return None
    down = [m.at for m in made["manager"] if m.entered.endswith("exabgp_text/reasons.py") and m.at < ended]
    begun = max(
        move.at for move in made["manager"] if move.entered.endswith("exabgp_text/events.py") and move.at < min(down)
    )
    return {name: between(made[name], begun, ended) for name in made}


def new_service(folder: Path, since: float) -> dict[str, list[Move]] | None:
    """The moves of the manager up to the plan, and from there to the command; None while there is no command."""
    made = moves(folder, since)["manager"]
    ended = first(made, lambda move: move.entered.endswith("exabgp_text/commands.py") and move.function == "announce")
    if ended == float("inf"):
        return None
    begun = first(
        made, lambda move: move.entered.endswith("core/objects.py") and move.function in ("change", "replace")
    )
    wanted = first(made, lambda move: move.entered == "edge/bgp/speaker.py" and move.function == "want")
    return {"plan": between(made, begun, wanted), "speaker": between(made, wanted, ended)}


def paths(quick: bool) -> Table:
    table = Table("Moves between files", ("path", "part", "moves", "files"))
    best: dict[tuple[str, str], list[Move]] = {}
    with tempfile.TemporaryDirectory(prefix="porterlb-path-") as made:
        folder, hook = Path(made) / "moves", Path(made) / "hook"
        folder.mkdir()
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(PROFILER)
        os.environ |= {"PYTHONPATH": str(hook), "PORTERLB_PATH": str(folder)}
        try:
            with Lab(nodes=1, routers=["bird"]) as lab:
                for trial in range(1 if quick else 3):
                    found = _trial(lab, folder, trial)
                    for key, made_moves in found.items():
                        if key not in best or len(made_moves) < len(best[key]):
                            best[key] = made_moves
        finally:
            del os.environ["PYTHONPATH"], os.environ["PORTERLB_PATH"]
    for (path, part), found_moves in best.items():
        table.rows.append((path, part, len(found_moves), len({move.entered for move in found_moves})))
        table.raw[f"{path}: {part}"] = [f"{m.before} > {m.entered}:{m.function}" for m in found_moves]
    return table


def _trial(lab: Lab, folder: Path, trial: int) -> dict[tuple[str, str], list[Move]]:
    if not trial:
        lab.bgp_conf()
        lab.peer()
        lab.eip("auto", "10.77.0.200-10.77.0.215")
        lab.start_manager(lab.nodes[0], "--return-after", "2")
        wait_until(lambda: any(":" not in name for name in lab.router.sessions()), 30, "a session")
        time.sleep(3.0)
    name = f"web-{trial}"
    since = time.monotonic()
    lab.service(name)
    vip = lab.wait_vips(name, timeout=30)[0]
    service = wait_until(lambda: new_service(folder, since), 30, "a route")[0]
    wait_until(lambda: f"{vip}/32" in lab.router.kernel_routes(), 30, "the route")
    time.sleep(2.0)
    since = time.monotonic()
    lab.router.stop_daemon()
    loss = wait_until(lambda: lost_session(folder, since), 30, "an announcement")[0]
    lab.delete_service(name)
    lab.router.start_daemon()
    time.sleep(8.0)
    assert service is not None and loss is not None  # what wait_until waits for
    return {("new Service", part): path for part, path in service.items()} | {
        ("lost session", part): path for part, path in loss.items()
    }


PARTS = {"moves": paths}

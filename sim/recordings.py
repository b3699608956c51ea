"""What the simulated managers and wire processes recorded, as files for ``porterlb replay``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from porterlb.core.record import entries, file
from porterlb.core.record.log import Log
from porterlb.core.record.manager import ManagerLog
from porterlb.settings import Settings


@dataclass
class Recorded:
    """One run of a manager. ``wires``: the keys and logs of its wire processes, in order."""

    settings: Settings
    log: ManagerLog
    wires: list[tuple[bytes, Log[bytes]]] = field(default_factory=list)

    def lines(self, release: str) -> Iterator[str]:
        """The lines of the file. Its times begin in 1970."""
        yield file.dumps(file.header(release, asdict(self.settings), 0.0, 0.0))
        wire = (line for key, log in self.wires for line in entries.lines(log.contents(), key))
        for line in file.merged(self.log.lines(self.log.log.contents()), wire):
            yield file.dumps(line)


def write(folder: Path, recorded: list[Recorded], release: str) -> None:
    """One file for each run of a manager: the node and a number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(recorded, 1):
        path = folder / f"{one.settings.node}-{number}.jsonl"
        path.write_text("".join(f"{line}\n" for line in one.lines(release)))

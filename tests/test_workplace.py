"""The manager's folder: removed when the manager ends, or by the next start if the process was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from porterlb.workplace import workplace

PROGRAM = """
import sys
from pathlib import Path
from porterlb.workplace import workplace
with workplace(Path(sys.argv[1])) as folder:
    (folder / "exabgp.conf").write_text("secret")
    print(folder, flush=True)
    sys.stdin.read()
"""


def hold(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_is_private_and_removed_at_the_end(tmp_path: Path) -> None:
    with workplace(tmp_path) as folder:
        assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
        (folder / "bgp").mkdir()
        with workplace(tmp_path) as second:
            assert folder.exists() and second != folder
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_manager_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "porterlb-foreign").mkdir()  # without a lock: not ours, or still being created
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (tmp_path / "porterlb-link").symlink_to(elsewhere)
    with hold(tmp_path)[0] as living, hold(tmp_path)[0] as killed:
        folders = {path for path in tmp_path.glob("porterlb-*") if (path / "exabgp.conf").exists()}
        assert len(folders) == 2
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        with workplace(tmp_path) as folder:
            left = {path for path in tmp_path.glob("porterlb-*") if (path / "exabgp.conf").exists()}
            assert len(left) == 1 and left < folders and folder.exists()
        assert (tmp_path / "porterlb-foreign").exists() and (elsewhere / "lock").exists()
        assert living.stdin is not None
        living.stdin.close()
        assert living.wait(10) == 0

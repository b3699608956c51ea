"""``python -m tests.fuzz [TARGET ...] [--seconds N] [--runs N]``: coverage-guided, with Atheris (libFuzzer).

Each target runs in a separate process. Its corpus grows in build/fuzz/TARGET, so the next run continues. An input
that makes a reader raise, or takes longer than --slow seconds, ends the target. The file
build/fuzz/TARGET-crash-... contains the input; `python -m tests.fuzz TARGET --input FILE` runs it again.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "build" / "fuzz"
NAMES = ("frames", "hellos", "exabgp", "bfd", "manifests", "objects")


def main() -> int:
    """Fuzzes; 0 if no input revealed a fault."""
    arguments = _arguments()
    if arguments.inside:
        _inside(arguments.targets[0], arguments.rest)
    codes = [_run(name, arguments) for name in arguments.targets or NAMES]
    return int(any(codes))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=int, default=20, help="of each target")
    parser.add_argument("--runs", type=int, help="inputs of each target, in the place of a time")
    parser.add_argument("--slow", type=int, default=5, help="seconds for one input; longer is a fault")
    parser.add_argument("--input", type=Path, help="only this input")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments, rest = parser.parse_known_args()
    arguments.rest = rest
    return arguments


def _run(name: str, arguments: argparse.Namespace) -> int:
    corpus = OUT / name
    corpus.mkdir(parents=True, exist_ok=True)
    much = f"-runs={arguments.runs}" if arguments.runs else f"-max_total_time={arguments.seconds}"
    what = [str(arguments.input)] if arguments.input else [str(corpus), much]
    options = [*what, f"-artifact_prefix={OUT}/{name}-", f"-timeout={arguments.slow}", "-print_final_stats=1"]
    command = [sys.executable, "-m", "tests.fuzz", name, "--inside", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    count = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    runs = f"{int(count[1]):,} inputs" if count else "stopped early"
    print(f"{name}: {runs}, {'no fault' if done.returncode == 0 else 'FAULT'}", flush=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if not line.startswith(("INFO", "WARNING"))]
        print("\n".join([done.stdout[-3000:], *lines[-40:]]), file=sys.stderr, flush=True)
    return done.returncode


def _inside(name: str, options: list[str]) -> None:
    """The process that fuzzes one target. Does not return."""
    import atheris  # noqa: PLC0415  # only here: it changes how modules are loaded

    with atheris.instrument_imports(include=["porterlb"]):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415

    target = TARGETS[name]
    corpus = OUT / name
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    if target.words:
        words = OUT / f"{name}.dict"
        words.write_text("".join(f"{_quoted(word)}\n" for word in target.words))
        options = [f"-dict={words}", *options]
    atheris.Setup([sys.argv[0], f"-max_len={target.longest}", *options], target.run)
    atheris.Fuzz()


def _quoted(word: str) -> str:
    """In the format of libFuzzer's dictionaries."""
    return (
        '"'
        + "".join(f"\\x{byte:02x}" if byte in b'"\\' or not 32 <= byte < 127 else chr(byte) for byte in word.encode())
        + '"'
    )


if __name__ == "__main__":
    sys.exit(main())

"""Benchmarks: ``make bench``, or ``python -m bench [NAME ...] [--quick] [--only PART]``.

Each module named in `BENCHES` has ``PARTS``: what it measures, by name. A part is printed as a table, and one run is
written to bench/results/NAME.json. Rivals and the kernel are measured in the same run: on a shared machine, compare
figures only within one run.
"""

BENCHES = ("plan", "layer2", "liveness", "bgp", "faults", "mode", "kube", "path")
"""Modules of this package, in the order in which they run."""

"""Benchmarks: ``make bench``, or ``python -m bench [NAME ...] [--quick] [--only PART]``.

Each module named in `BENCHES` has ``PARTS``: what it measures, by name. A part prints as a table, and all of one run is
written to bench/results/NAME.json. Rivals and the kernel are measured in the same run: figures of a shared machine
compare with one another, not with those of another day.
"""

BENCHES = ("plan", "layer2", "liveness", "bgp", "faults", "mode", "kube", "path")
"""Modules of this package, in the order in which they run."""

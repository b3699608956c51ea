"""Benchmarks: ``make bench``, or ``python -m bench [NAME ...] [--quick] [--only PART]``.

Each module named in `BENCHES` has ``PARTS``: its measurements, by name. A part is printed as a table, and one run is
written to bench/results/NAME.json. Other programs and the kernel are measured in the same run: on a shared machine,
compare figures only within one run.
"""

BENCHES = ("plan", "idle", "layer2", "liveness", "bfd", "bgp", "faults", "mode", "kube", "path", "nodes")
"""Modules of this package, in the order in which they run."""

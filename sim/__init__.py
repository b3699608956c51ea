"""The simulator: several replicas of PorterLB on a virtual clock, in one process, with faults from one seed.

The managers and the wire processes are the production code; what they ask the operating system for (clocks, sockets,
subprocesses, the API) is replaced. See docs/simulator.md. ``python -m sim --seeds 100`` runs it.
"""

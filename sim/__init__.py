"""The simulator: several replicas of PorterLB on a virtual clock, in one process, with faults from one seed.

The managers and the wire processes are the production code; what they use of the operating system (clocks, sockets,
subprocesses, the API) is replaced. See docs/simulator.md. ``python -m sim --seeds 100`` runs it.
"""

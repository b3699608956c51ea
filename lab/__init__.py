"""A bare-metal cluster on one machine: nodes, segment, routers and clients as network namespaces.

Used by the demo, the tests and the benchmarks, and manually (``make lab``). Entry point::

    from lab.cluster import Lab

    with Lab(nodes=3, routers=["bird"]) as lab:
        lab.service("web", policy="Local")
        ...
        lab.node("node-a").power_off()

Modules: ``netns`` (a namespace), ``process`` (a process in one), ``net`` (one run: switch, cables, removal), ``host``
(a machine on the segment), ``node``, ``workload`` (pods), ``proxy`` (replaces kube-proxy), ``routers/``, ``client``,
``stream``, ``frames``, ``backend`` (stores API objects), ``objects`` (builds API objects), ``topology`` (the machines
and networks of a lab), ``cluster`` (combines all parts), ``measure``, ``hold``.
"""

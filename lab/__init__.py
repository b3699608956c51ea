"""A bare-metal cluster on one machine: nodes, segment, routers and clients as network namespaces.

Used by the demo, the tests and the benchmarks, and by hand (``make lab``). The way in::

    from lab.cluster import Lab

    with Lab(nodes=3, routers=["bird"]) as lab:
        lab.service("web", policy="Local")
        ...
        lab.node("node-a").power_off()

What is where: ``netns`` (a namespace), ``process`` (a process in one), ``net`` (one run: switch, cables, removal),
``host`` (a machine on the segment), ``node``, ``workload`` (pods), ``proxy`` (kube-proxy's part),
``routers/``, ``client``, ``stream``, ``frames``, ``backend`` (where API objects live), ``objects`` (their text),
``cluster`` (all of it together), ``measure``, ``hold``.
"""

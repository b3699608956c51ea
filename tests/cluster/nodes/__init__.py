"""Lab nodes that are real Kubernetes nodes: containerd, runc, CNI plugins and a kubelet, in their own namespaces.

A node is a network namespace of the lab, as always. Inside, process 1 of a PID namespace (``init``) starts containerd
and the kubelet, and restarts them when they end. If process 1 is killed, the kernel kills every container with it: this
simulates a power loss. The node's folder survives, as a disk does.

* ``images``: PorterLB's image, built from the Dockerfile, and a store of images that all nodes start with;
* ``cgroups``: the node's control groups;
* ``init``: the program that is process 1;
* ``config``: files for containerd, kubelet and CNI;
* ``node``: the operations of a test on a node.
"""

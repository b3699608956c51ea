"""Nodes of a lab that are nodes of Kubernetes: containerd, runc, CNI plugins and a kubelet, in namespaces of their own.

A node is a network namespace of the lab, as always. Inside, process 1 of a PID namespace (``init``) starts containerd
and the kubelet, and starts them again when they end. If it is killed, the kernel kills every container with it: a loss
of power. The node's folder survives, as a disk does.

* ``images``: PorterLB's image, built from the Dockerfile, and a store of images that all nodes begin with;
* ``cgroups``: the node's control groups;
* ``init``: the program that is process 1;
* ``config``: files for containerd, kubelet and CNI;
* ``node``: what a test does with a node.
"""

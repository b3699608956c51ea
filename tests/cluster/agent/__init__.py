"""A node agent for labs: a kubelet's part, with processes in place of containers.

It registers its node, keeps the node's Lease and conditions fresh, and runs the pods that the scheduler binds to it. A
container is a process in namespaces of its own (mounts, process ids) in the network namespace of the node or of the
pod, with the capabilities, the read-only root, the environment, the volumes and the probes that the pod asks for. No
image is pulled: an image is a command of this checkout (:mod:`tests.cluster.agent.images`). There is no seccomp
profile and no cgroup, so resource limits do nothing.

It is one process in the node's network namespace, with a node's own identity (system:node:NAME), so that what cuts the
node off cuts it off too, and it dies with the node's power.
"""

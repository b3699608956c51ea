"""The eBPF program that answers ARP and NDP in the kernel: bytes and values, without any system call."""

AUTO, KERNEL, USER_SPACE = ANSWERS = ("auto", "kernel", "userspace")
"""Where ARP and NDP are answered: in the kernel where possible; the same, and a warning where not; never there."""

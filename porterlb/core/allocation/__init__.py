"""Which address a Service gets, or why none: see :mod:`porterlb.core.allocation.allocator`."""

from porterlb.core.allocation.allocator import Allocation, AllocationMemory, Allocations, EipUse, allocate

__all__ = ["Allocation", "AllocationMemory", "Allocations", "EipUse", "allocate"]

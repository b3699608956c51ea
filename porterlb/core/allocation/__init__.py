"""Address allocation: the address of each Service, or why it has none (:mod:`porterlb.core.allocation.allocator`)."""

from porterlb.core.allocation.allocator import Allocation, AllocationMemory, Allocations, EipUse, allocate
from porterlb.core.allocation.reserved import ReservedMemo

__all__ = ["Allocation", "AllocationMemory", "Allocations", "EipUse", "ReservedMemo", "allocate"]

"""How often Python's cyclic garbage collector looks, in processes that hold thousands of objects for long.

By default it looks after every 700 new containers, and walks everything now and then. A plan of 10,000 Services makes
some 150,000 containers that all stay and none that is garbage: nearly half of its time went into looking. Cycles are
rare in all three processes (reference counting frees the rest at once), so looking seldom costs next to no memory.
"""

import gc

BETWEEN = 50_000
"""New containers between two collections of the young: some 5 MB."""


def collect_seldom() -> None:
    """Call it once, when the modules are loaded: what is there by then is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(BETWEEN, 10, 10)

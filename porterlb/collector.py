"""How often Python's cyclic garbage collector runs, in processes that hold thousands of objects for a long time.

By default it runs after every 700 new containers, and scans everything from time to time. A plan of 10,000 Services
makes some 150,000 containers that all stay and are never garbage: collection took nearly half of its time. Cycles are
rare in all three processes (reference counting frees the rest at once), so rare collection costs almost no memory.
"""

import gc

BETWEEN = 50_000
"""New containers between two collections of the youngest generation: some 5 MB."""


def collect_seldom() -> None:
    """Call it once, when the modules are loaded: objects that exist by then are never scanned again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(BETWEEN, 10, 10)

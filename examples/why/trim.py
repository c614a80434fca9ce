"""The heap of examples/lists_deepcopy_clear.py, and what strandline.trim() gives back of it.

    strandline run -o /dev/null --python python3.11 examples/why/trim.py
"""
import copy

import strandline

x = [[] for _ in range(1000000)]
y = copy.deepcopy(x)
del x[:]
given = strandline.trim()
for layer in ("malloc_trim", "pool_trim"):
    print("%-12s %6.1f MiB" % (layer, given[layer] / 1048576.0))

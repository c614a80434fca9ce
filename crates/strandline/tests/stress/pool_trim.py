"""Blocks of every size class, each filled with a pattern, between trims: do those that are kept keep their content?

    strandline run -o /dev/null pool_trim.py ROUNDS

Each round makes 16,000 blocks of each of the 32 classes, keeps one of 97 and trims. Prints blocks made, bytes that the
pool trim returned, doubts of a census at the end, its torn pools; then the interpreter's own statistics. These want
pymalloc itself in the table of allocators: the hooks' context is the table that they put aside.
"""
import ctypes, json, random, sys
import strandline

EACH, ROUNDS = 16000, int(sys.argv[1])
over = sys.getsizeof(b"")
random.seed(7)
kept, made, given = [], 0, 0
for turn in range(ROUNDS):
    for number, size in enumerate(range(16, 513, 16)):
        n = size - over
        if n > 0:
            byte = bytes([(number + turn) % 251 + 1])
            fresh = [byte * n for _ in range(EACH)]
        elif size == 16:
            fresh = [object() for _ in range(EACH)]
        else:
            fresh = [made + i + 0.5 for i in range(EACH)]
        made += EACH
        kept.append((n, number, turn, fresh[::97]))
        del fresh
    if len(kept) > 200:
        random.shuffle(kept)
        del kept[100:]
    given += strandline.trim()["pool_trim"]
    for n, number, turn_then, blocks in kept:
        if n > 0:
            wanted = bytes([(number + turn_then) % 251 + 1]) * n
            assert all(b == wanted for b in blocks)
census = strandline.census()
torn = [c["bytes"] for c in census["classes"] if c["name"] == "python_torn_pools"]
sys.stdout.write(json.dumps([made, given, census["doubts"], torn]) + "\n")
sys.stdout.flush()
table = (ctypes.c_void_p * 5)()
ctypes.pythonapi.PyMem_GetAllocator(2, table)
ctypes.pythonapi.PyMem_SetAllocator(2, ctypes.c_void_p(table[0]))
sys._debugmallocstats()
ctypes.pythonapi.PyMem_SetAllocator(2, table)

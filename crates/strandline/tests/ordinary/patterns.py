"""Many regular expressions: some kept in a table, some through the cache of re."""
import re
from load import run

TABLE = [(i, re.compile("(name|key)%d[a-f]+(x{1,%d})?" % (i, i % 9 + 1))) for i in range(400)]
TEXT = " ".join("name%daff key%dbxx" % (i, i) for i in range(1000))


def step(number):
    for i, pattern in TABLE[:40]:
        pattern.findall(TEXT)
    for i in range(30):
        re.sub("key%d([a-f])" % ((number * 7 + i) % 1000), r"\1", TEXT)


run(step)

"""A database in memory: rows are put in, counted, and taken out."""
import sqlite3
from load import run

database = sqlite3.connect(":memory:")
database.execute("create table t (a integer primary key, b text)")


def step(number):
    rows = [(i, "text %d of %d" % (i, number)) for i in range(10000)]
    database.executemany("insert or replace into t values (?, ?)", rows)
    found = database.execute("select b, count(*) from t group by a % 100").fetchall()
    assert len(found) == 100
    database.execute("delete from t where a % 3 = 0")


run(step)

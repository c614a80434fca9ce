"""A database on disk, with a cache of its own for pages."""
import os
import shutil
import sqlite3
import tempfile
from load import run

folder = tempfile.mkdtemp(dir=os.environ.get("LOAD_DIR"))
database = sqlite3.connect(os.path.join(folder, "data.db"))
database.execute("create table t (a integer primary key, b text)")


def step(number):
    with database:
        rows = [(i, "text %d of %d" % (i, number)) for i in range(5000)]
        database.executemany("insert or replace into t values (?, ?)", rows)
    found = dict(database.execute("select a, b from t").fetchall())
    assert len(found) == 5000


try:
    run(step)
finally:
    database.close()
    shutil.rmtree(folder)

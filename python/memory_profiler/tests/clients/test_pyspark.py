"""PySpark's memory profiler for UDFs on a local session, unmodified."""
import os
import re
import subprocess
import sys

from memory_profiler import _native

PROGRAM = '''
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf, udf
spark = (SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
         .config("spark.sql.shuffle.partitions", "1").getOrCreate())
spark.conf.set("spark.sql.pyspark.udf.profiler", "memory")

@udf("long")
def plus(x):
    y = x + 1
    return y

@pandas_udf("long")
def twice(s):
    t = s * 2
    return t

print("SUM", spark.range(10).select(plus("id").alias("a")).agg({"a": "sum"}).collect()[0][0])
print("SUM", spark.range(10).select(twice("id").alias("a")).agg({"a": "sum"}).collect()[0][0])
spark.profile.show(type="memory")
spark.stop()
'''


def test_udf_profiles(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(PROGRAM)
    environ = dict(os.environ, PYSPARK_PYTHON=sys.executable, SPARK_LOCAL_IP="127.0.0.1")
    done = subprocess.run(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        timeout=300,
        env=environ,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.findall(r"SUM (\d+)", done.stdout) == ["55", "90"]
    assert done.stdout.count("Profile of UDF") == 2
    row = re.search(r" MiB +(\S+) MiB +(\d+)       y = x \+ 1", done.stdout)
    # PySpark puts n calls together to 2 n - 1; with events in C there is one table of them all.
    calls = "19" if _native.module() is None else "10"
    assert row.group(2) == calls and abs(float(row.group(1))) < 3
    assert re.search(r"MiB +\d+       t = s \* 2", done.stdout)

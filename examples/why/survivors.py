"""Makes 400,000 strings, keeps 400, and has `strandline explain` look at this process."""
import os

x = [str(i) * 9 for i in range(400000)]
x[:] = x[::1000]
os.system("strandline explain %d" % os.getpid())

"""pickle, zlib and base64, there and back."""
import base64
import pickle
import zlib
from load import run

DATA = {"k%d" % i: ("value %d" % i, list(range(i % 20))) for i in range(20000)}


def step(number):
    packed = base64.b64encode(zlib.compress(pickle.dumps(DATA, 2), 1))
    assert len(pickle.loads(zlib.decompress(base64.b64decode(packed)))) == 20000


run(step)

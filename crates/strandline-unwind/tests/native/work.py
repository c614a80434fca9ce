# Python code of many kinds that calls the witness from inside it. Runs on 2.7 and 3.x.
import ctypes, sys, threading, json, re, random
w = ctypes.CDLL(sys.argv[1])
w.witness_start(int(sys.argv[2]))
w.witness_sample.argtypes = w.witness_report.argtypes = [ctypes.c_long]
w.witness_report.restype = ctypes.c_long
agree = w.witness_agree
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)
random.seed(7)

def plain(n, f):
    return f(n)
def recursive(n, f):
    return recursive(n - 1, f) if n > 0 else f(n)
def in_sort(n, f):
    return sorted([3], key=lambda x: f(n))
def in_map(n, f):
    return list(map(lambda x: f(n), [1]))
def in_comprehension(n, f):
    return [f(n) for _ in range(1)]
def in_generator(n, f):
    def g():
        yield f(n)
    return next(g())
class C(object):
    def __init__(self, n, f): self.n, self.f = n, f
    def __getattr__(self, name):
        if name != "missing": raise AttributeError(name)
        return self.f(self.n)
    def __add__(self, other): return self.f(self.n)
    def __len__(self): self.f(self.n); return 3
    def __hash__(self): self.f(self.n); return 5
    def __eq__(self, other): return self is other
def in_getattr(n, f): return C(n, f).missing
def in_add(n, f): return C(n, f) + 1
def in_len(n, f): return len(C(n, f))
def in_hash(n, f): return {C(n, f): 1}
def in_re(n, f): return re.sub("a", lambda m: (f(n), "b")[1], "xay")
def in_json(n, f): return json.dumps(object, default=lambda o: (f(n), "x")[1])
def in_callback(n, f): return w.witness_call(CALLBACK(lambda m: (f(n), 1)[1]), n)
def in_thread(n, f):
    t = threading.Thread(target=f, args=(n,))
    t.start()
    t.join()
def in_exec(n, f): exec("f(n)", {"f": f, "n": n})
def in_eval(n, f): return eval("f(n)", {"f": f, "n": n})
def in_except(n, f):
    try: raise ValueError
    except ValueError: return f(n)
def in_star(n, f): return f(*(n,), **{})
kinds = [plain, recursive, in_sort, in_map, in_comprehension, in_generator, in_getattr, in_add,
         in_len, in_hash, in_re, in_json, in_callback, in_thread, in_exec, in_eval, in_except, in_star]

def run(depth):
    def go(n):
        if n == 0:
            return agree()
        return random.choice(kinds)(n, lambda m: go(n - 1))
    return go(depth)

for i in range(400):
    run(random.randrange(12))

# Libraries come and go: ctypes's own handle is closed, another takes the place.
import _ctypes
for i in range(20):
    for name in sys.argv[3:]:
        h = _ctypes.dlopen(name, 0)
        w.witness_start(0)
        agree()
        _ctypes.dlclose(h)
        w.witness_start(0)

called = w.witness_report(0)
w.witness_sample(1000)
def busy(k):
    total = 0
    for i in range(k):
        s = json.dumps({"a": [i] * 20, "b": "text" * 5, "c": {"d": None}})
        total += len(json.loads(s)["a"]) + len(re.findall("[a-z]+", s))
        total += hash(tuple(sorted((j * 7919) % 101 for j in range(50))))
        total += len(("%s %d %r" % (s, i, 1.5 * i)).split()) + int("9" * 40) % 7
        x = bytearray(10000); x[:] = b"y" * 10000; total += len(bytes(x).replace(b"y", b"zz"))
    return total
threads = [threading.Thread(target=busy, args=(400,)) for _ in range(2)]
for t in threads: t.start()
busy(3000)
for t in threads: t.join()
w.witness_sample(0)
print("%s %d called %d chains %d frames %d wrong %d lost" % (
    (sys.version.split()[0], called) + tuple(w.witness_report(i) for i in range(4))))

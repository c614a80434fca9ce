# Allocates by Python's means and by ctypes, in threads, too; writes mallinfo2's ten numbers as the
# Rust test wants them (8-byte words, their number of bytes first); waits for the end of stdin.
import ctypes, os, random, struct, threading

libc = ctypes.CDLL(None)


class Info(ctypes.Structure):
    _fields_ = [(str(number), ctypes.c_size_t) for number in range(10)]


libc.mallinfo2.restype = Info
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
random.seed(42)
kept = []


def mixture(most):
    some = [libc.malloc(random.randrange(1, most)) for _ in range(3000)]
    random.shuffle(some)
    for pointer in some[:2000]:
        libc.free(pointer)
    kept.append(some[2000:])
    kept.append([bytearray(random.randrange(1, 2000)) for _ in range(2000)][::3])


done = threading.Event()
threads = []
for number in range(4):
    thread = threading.Thread(target=lambda: (mixture(30000), ready.append(1), done.wait()))
    thread.daemon = True
    threads.append(thread)
ready = []
for thread in threads:
    thread.start()
mixture(3000)
kept.append([bytearray(300000 + n * 1000) for n in range(30)][::2])
kept.append({n: str(n) for n in range(100000)})
kept.append(list(range(1000000)))
while len(ready) < len(threads):
    done.wait(0.01)
done.wait(0.05)
os.write(1, struct.pack("<Q", 80))
byte = ctypes.create_string_buffer(1)
# Nothing from here on may call malloc: once around for what the first time allocates.
for out in (2, 1):
    info = libc.mallinfo2()
    libc.write(out if out == 1 else -1, ctypes.byref(info), 80)
libc.read(0, byte, 1)

/* Allocates and frees what its first argument says, then writes to stdout (8-byte words): how
 * many bytes follow; mallinfo2's ten numbers; for some pointers (pointer, malloc_usable_size,
 * what: 'u'sed, in a 't'cache, 'f'ree elsewhere, 'm'mapped). Then sleeps. Nothing calls malloc after mallinfo2. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static uint64_t out[1 << 16];
static size_t said = 11;
static pthread_barrier_t ready;
static uint64_t seed = 42, key;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed % below;
}

static size_t tell(void *pointer, uint64_t what) {
    size_t at = __atomic_fetch_add(&said, 3, __ATOMIC_RELAXED);
    if (at + 3 > sizeof out / sizeof *out) abort();
    out[at] = (uint64_t)pointer;
    out[at + 1] = malloc_usable_size(pointer);
    out[at + 2] = ((uint64_t *)pointer)[-1] & 2 ? 'm' : what; /* IS_MMAPPED */
    return at;
}

/* `rounds` chunks of sizes up to `most`, about half of them freed in no order. */
static void churn(int rounds, size_t most) {
    enum { SLOTS = 512 };
    char *slots[SLOTS] = {0};
    for (int round = 0; round < rounds; round++) {
        size_t slot = draw(SLOTS);
        free(slots[slot]);
        slots[slot] = NULL;
        if (draw(3)) {
            size_t size = draw(most) + 1;
            slots[slot] = malloc(size);
            memset(slots[slot], 0x5a, size < 64 ? size : 64);
        }
    }
    for (int slot = 0; slot < SLOTS; slot += 7)
        if (slots[slot]) tell(slots[slot], 'u');
}

/* Fills tcache and fast bins, and tells which chunk is where: the key (2.34) gives it away. */
static void caches(void) {
    uint64_t *some[240];
    for (int i = 0; i < 240; i++) some[i] = malloc(24 + i / 40 * 16);
    for (int i = 0; i < 240; i += 2) {
        size_t at = tell(some[i], 'f');
        free(some[i]);
        if (*(volatile uint64_t *)(some[i] + 1) == key) out[at + 2] = 't';
    }
}

static void *thread(void *argument) {
    size_t most = (size_t)argument;
    churn(3000, most);
    caches();
    pthread_barrier_wait(&ready);
    pause();
    return NULL;
}

static void *ends(void *argument) {
    churn(500, (size_t)argument);
    return NULL;
}

static void threads(int count, size_t most) {
    pthread_t id;
    pthread_barrier_init(&ready, NULL, count + 1);
    for (int i = 0; i < 3; i++) {
        pthread_create(&id, NULL, ends, (void *)most);
        pthread_join(id, NULL);
    }
    for (int i = 0; i < count; i++) pthread_create(&id, NULL, thread, (void *)most);
    pthread_barrier_wait(&ready);
}

static void mmapped(void) {
    for (int i = 0; i < 20; i++) {
        void *pointer = malloc(140000 + draw(5000000));
        if (i % 3) tell(pointer, 'u');
        else free(pointer);
    }
    size_t size = 12 << 20;
    for (size_t align = 32; align <= 4 << 20; align *= 2) tell(memalign(align, size), 'u');
    char *large = malloc(size);
    madvise((char *)(((uintptr_t)large + (4 << 20)) & ~(uintptr_t)0x1fffff), 8 << 20, MADV_HUGEPAGE);
    tell(large, 'u');
    large = malloc(size), tell(large, 'u');
    /* What looks like such a chunk, in memory that is none. */
    uint64_t *trap = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    trap[1] = 0x3000 | 2;
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    uint64_t *first = malloc(1000);
    free(first);
    key = *(volatile uint64_t *)(first + 1);
    churn(20000, 3000);
    if (!strcmp(what, "mixed")) {
        mmapped();
        threads(6, 5000);
    } else if (!strcmp(what, "heaps")) {
        mallopt(M_MMAP_THRESHOLD, 32 << 20);
        threads(2, 1 << 20);
    } else if (!strcmp(what, "foreign")) {
        for (int i = 0; i < 5; i++) {
            char *mine = sbrk(5000 + i * 16);
            memset(mine, i, 5000);
            churn(3000, 60000);
        }
    } else if (!strcmp(what, "scattered")) {
        char *end = (char *)(((uintptr_t)sbrk(0) + 4095) & ~(uintptr_t)4095);
        mmap(end, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        churn(30000, 100000);
    } else if (!strcmp(what, "remap")) {
        char *grows = NULL;
        for (size_t size = 1; size <= 5; size++) grows = realloc(grows, size << 20);
        tell(grows, 'm');
    } else if (!strcmp(what, "plain")) {
        for (size_t i = 0, n = count > 2 ? atol(arguments[2]) : 1000; i < n; i++) {
            char *pointer = malloc(24 + draw(6) * 16);
            *pointer = 1;
        }
    }
    caches();
    struct mallinfo2 info = mallinfo2();
    memcpy(out + 1, &info, sizeof info);
    out[0] = (said - 1) * 8;
    if (write(1, out, said * 8) != (ssize_t)(said * 8)) return 1;
    char end;
    return read(0, &end, 1) != 0;
}

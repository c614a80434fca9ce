/* The links in C; compiled with many flags. */
#define _GNU_SOURCE
#include "chain.h"
#include <alloca.h>
#include <pthread.h>
#include <search.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static volatile long sink;
long other_library(struct chain *, const unsigned short *, long);

static long plain(struct chain *c, const unsigned short *s, long n) {
    long r = next(c, s, n);
    sink += r;
    return r + 1;
}
static long last_call(struct chain *c, const unsigned short *s, long n) { return next(c, s, n); }
static long many_registers(struct chain *c, const unsigned short *s, long n) {
    long a = sink, b = a * 3, d = b ^ n, e = d + 7, f = e * a, g = f - b;
    long r = next(c, s, n);
    sink = a ^ b ^ d ^ e ^ f ^ g;
    r += next == 0;
    return r + (a & b) + (d & e) + (f & g);
}
static long large_frame(struct chain *c, const unsigned short *s, long n) {
    volatile char pad[50000];
    pad[n] = 1;
    long r = next(c, s, n);
    return r + pad[n];
}
static long with_alloca(struct chain *c, const unsigned short *s, long n) {
    volatile char *p = alloca(16 + n * 40);
    p[n] = 2;
    long r = next(c, s, n);
    return r + p[n];
}
static long realigned(struct chain *c, const unsigned short *s, long n) {
    volatile _Alignas(64) char pad[128];
    pad[n & 127] = 3;
    long r = next(c, s, n);
    return r + pad[n & 127];
}
static long realigned_alloca(struct chain *c, const unsigned short *s, long n) {
    volatile _Alignas(128) char pad[128];
    volatile char *p = alloca(16 + n * 24);
    pad[n & 127] = p[n] = 4;
    long r = next(c, s, n);
    return r + pad[n & 127] + p[n];
}
__attribute__((noinline)) static long stacked(long a, long b, long c1, long d, long e, long f,
                                              struct chain *c, const unsigned short *s, long n,
                                              long g) {
    long r = next(c, s, n);
    return r + a + b + c1 + d + e + f + g;
}
static long stack_arguments(struct chain *c, const unsigned short *s, long n) {
    long r = stacked(n, n + 1, n + 2, n + 3, n + 4, n + 5, c, s, n, n + 6);
    return r + stacked(1, 2, 3, 4, 5, 6, c, s, 0, 7) * 0;
}
static long recursive(struct chain *c, const unsigned short *s, long n, int depth) {
    if (depth == 0) return next(c, s, n);
    long r = recursive(c, s, n, depth - 1);
    sink += r;
    return r + depth;
}
static long recursion(struct chain *c, const unsigned short *s, long n) {
    return recursive(c, s, n, (int)(s[-1] % 13) + 1) + 1;
}

static __thread struct state { struct chain *c; const unsigned short *s; long n; int done; } now;
static int compare(const void *a, const void *b) {
    if (!now.done) {
        struct state was = now;
        now.done = 1;
        sink += next(was.c, was.s, was.n);
    }
    return *(const int *)a - *(const int *)b;
}
static long through_qsort(struct chain *c, const unsigned short *s, long n) {
    int numbers[] = {5, 3, 8, 1, 9, 2};
    struct state was = now;
    now = (struct state){c, s, n, 0};
    qsort(numbers, 6, sizeof *numbers, compare);
    now = was;
    return numbers[0];
}
static long through_tsearch(struct chain *c, const unsigned short *s, long n) {
    int a = 1, b = 2;
    void *root = 0;
    struct state was = now;
    now = (struct state){c, s, n, 0};
    tsearch(&a, &root, compare);
    tsearch(&b, &root, compare);
    tdelete(&a, &root, compare);
    tdelete(&b, &root, compare);
    now = was;
    return a;
}
static void on_signal(int number) {
    (void)number;
    struct state was = now;
    now.done = 1;
    sink += next(was.c, was.s, was.n);
}
static long in_signal(struct chain *c, const unsigned short *s, long n) {
    struct state was = now;
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_NODEFER;
    sigaction(SIGUSR1, &action, 0);
    now = (struct state){c, s, n, 0};
    /* raise is declared as one that doesn't look at this file's variables. */
    __asm__ volatile("" ::: "memory");
    raise(SIGUSR1);
    __asm__ volatile("" ::: "memory");
    now = was;
    return 1;
}
static void *thread_main(void *p) {
    struct state *st = p;
    sink += next(st->c, st->s, st->n);
    return 0;
}
static long in_thread(struct chain *c, const unsigned short *s, long n) {
    struct state st = {c, s, n, 0};
    pthread_t t;
    if (pthread_create(&t, 0, thread_main, &st)) abort();
    pthread_join(t, 0);
    return 1;
}
static long by_linkage_table(struct chain *c, const unsigned short *s, long n) {
    return other_library(c, s, n) + 1;
}

const link_function links[] = {
    plain,       last_call,  many_registers, large_frame,   with_alloca,     realigned,
    realigned_alloca, stack_arguments, recursion, through_qsort, through_tsearch, in_signal,
    in_thread,   by_linkage_table,
};
const unsigned long link_count = sizeof links / sizeof *links;

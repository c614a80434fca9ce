static inline __attribute__((always_inline)) int innermost(int x) {
    volatile int y = x * 3;
    return y + 1;
}
static inline __attribute__((always_inline)) int middle(int x) { return innermost(x + 2) * 5; }
static __attribute__((noinline)) int hidden(int x) {
    volatile int z = x;
    return z * 7;
}
int visible(int x) {
    int r = middle(x);
    return r + hidden(r);
}
int second(int x) { return visible(x) + hidden(x); }

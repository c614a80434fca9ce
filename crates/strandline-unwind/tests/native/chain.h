/* A chain of calls that a script chooses, function by function. */
#pragma once
struct chain;
typedef long (*link_function)(struct chain *, const unsigned short *script, long left);
struct chain {
    const link_function *table;
    void (*leaf)(struct chain *);
};
static inline long next(struct chain *c, const unsigned short *script, long left) {
    if (left == 0) {
        c->leaf(c);
        return 1;
    }
    return c->table[*script](c, script + 1, left - 1);
}

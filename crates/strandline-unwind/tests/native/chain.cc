// The links in C++.
#include "chain.h"
#include <algorithm>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {
volatile long sink;

struct Base {
    virtual long call(chain *c, const unsigned short *s, long n) = 0;
    virtual ~Base() {}
};
struct First : virtual Base {
    std::string text = "some text that is long enough to be on the heap";
    long call(chain *c, const unsigned short *s, long n) override {
        std::string copy = text;
        return next(c, s, n) + (long)copy.size();
    }
};
struct Second : First {
    long call(chain *c, const unsigned short *s, long n) override { return First::call(c, s, n) + 1; }
};
long is_virtual(chain *c, const unsigned short *s, long n) {
    std::unique_ptr<Base> b(n & 1 ? (Base *)new First : new Second);
    return b->call(c, s, n);
}
long in_try(chain *c, const unsigned short *s, long n) {
    try {
        std::vector<long> v(n + 1, 7);
        long r = next(c, s, n);
        if (v[0] != 7) throw std::runtime_error("never");
        return r;
    } catch (const std::exception &) {
        return 0;
    }
}
long in_catch(chain *c, const unsigned short *s, long n) {
    try {
        throw n;
    } catch (long m) {
        return next(c, s, m);
    }
}
struct Unwinding {
    chain *c;
    const unsigned short *s;
    long n;
    ~Unwinding() { sink += next(c, s, n); }
};
long in_destructor(chain *c, const unsigned short *s, long n) {
    try {
        Unwinding u{c, s, n};
        throw std::runtime_error("on the way");
    } catch (const std::exception &) {
    }
    return 1;
}
long in_function(chain *c, const unsigned short *s, long n) {
    std::function<long(long)> f = [=](long m) { return next(c, s, m) + sink; };
    return f(n);
}
long in_sort(chain *c, const unsigned short *s, long n) {
    std::vector<int> v{5, 2, 9, 1};
    bool done = false;
    std::stable_sort(v.begin(), v.end(), [&](int a, int b) {
        if (!done) {
            done = true;
            sink += next(c, s, n);
        }
        return a < b;
    });
    return v[0];
}
} // namespace

extern "C" {
extern const link_function links[] = {is_virtual, in_try, in_catch, in_destructor, in_function, in_sort};
extern const unsigned long link_count = sizeof links / sizeof *links;
}

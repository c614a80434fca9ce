#include <string>
#include <vector>
namespace outer {
template <class T> struct Box {
    T value;
    __attribute__((noinline)) long measure(const std::vector<T> &all) const {
        long sum = 0;
        for (const T &t : all) sum += t.size() + value.size();
        return sum;
    }
};
__attribute__((noinline)) long use(int n) {
    Box<std::string> box{std::string(n, 'x')};
    return box.measure(std::vector<std::string>(n, "abc"));
}
} // namespace outer
extern "C" long entry(int n) { return outer::use(n) + 1; }

//! The pages of free pools: the pool trim alone, with the other trims, and where it has nothing to do.

use super::*;

/// The heap of examples/lists_deepcopy_clear.py, trimmed; then the pools are taken again for
/// blocks of the class that they had and of others, by way of further trims.
const POOLS: &str = r#"
import copy
import strandline

def check(of):
    for step, blocks in of:
        for i in range(0, len(blocks), step):
            assert blocks[i] == (bytes([i % 251]) * 17 if step == 3 else [i]), (step, i)

x = [[] for _ in range(400000)]
y = copy.deepcopy(x)
del x[:]
strandline.mark()
of = []
for turn in range(4):
    of.append((3, [bytes([i % 251]) * 17 for i in range(100000)]))
    of.append((1, [[i] for i in range(100000)]))
    check(of)
    del of[turn % 2]
    strandline.mark()
    check(of)
assert all(i == [] for i in y)
print(len(y), sum(len(blocks) for _, blocks in of))
del of
strandline.mark()
"#;

/// The same heap without strandline: the interpreter's own statistics say what is in free pools.
const FREE_POOLS: &str = r#"
import copy, sys
x = [[] for _ in range(400000)]
y = copy.deepcopy(x)
del x[:]
sys._debugmallocstats()
"#;

#[test]
fn the_pool_trim_gives_free_pools_back() {
    each_of(has_pool_trim, |python| {
        let statistics = Job::script(python, FREE_POOLS).plain();
        let free = statistics.stderr.lines().find(|l| l.contains("unused pools *"));
        let free = free.and_then(|l| l.split_whitespace().next_back());
        let free = free.unwrap().replace(',', "").parse::<f64>().unwrap() / MIB as f64;
        assert!(free > 5.0, "{free} MiB");

        let once = POOLS.split("of = []").next().unwrap();
        let source = format!("{once}print(len(y), all(i == [] for i in y))\n");
        let (ran, found) = Tried::script(python, &source).only("pool-trim,all-trims", &[]);
        assert_eq!(ran.ok().stdout, "400000 True\n");
        assert!(found.saved("pool-trim") > 0.6 * free, "{free} MiB free: {:#}", found.0);
        assert!(found.saved("all-trims") > 0.6 * free, "{free} MiB free: {:#}", found.0);
        let trimmed = found.of("pool-trim");
        let action =
            number(trimmed, "marked_rss_bytes") - number(trimmed, "after_action_rss_bytes");
        assert!(action as f64 / MIB as f64 > 0.6 * free, "{action} of {free} MiB");

        // An assertion that fails is another exit code.
        let (ran, found) = Tried::script(python, POOLS).only("pool-trim,all-trims", &[]);
        assert_eq!(ran.ok().stdout, "400000 400000\n");
        assert_eq!(number(&found.0, "point_count"), 6);
        for name in ["pool-trim", "all-trims"] {
            let r = found.of(name);
            assert_eq!((&r["exit"]["code"], &r["output_differs"]), (&0.into(), &false.into()));
            assert_eq!((&r["error"], r["verdict"].as_str()), (&Value::Null, Some("better")));
        }
    });
}

#[test]
fn pools_that_cannot_be_trimmed() {
    let old = |version| [(2, 7), (3, 8)].contains(&version);
    each_of(old, |python| {
        let (_, found) = Tried::script(python, "").only("pool-trim,all-trims", &[]);
        for not_tried in found.0["not_tried"].as_array().unwrap() {
            let reason = not_tried["reason"].as_str().unwrap();
            assert!(reason.contains("needs Python 3.10 or later"), "{reason}");
        }
        assert_eq!(found.0["not_tried"].as_array().unwrap().len(), 2);
    });
    // Without pymalloc there is nothing to find, and debug hooks hide it.
    each_of(has_pool_trim, |python| {
        for allocator in ["malloc", "debug"] {
            let job = Job::script(python, FREE_POOLS.split("sys._").next().unwrap());
            let tried = Tried(job.env("PYTHONMALLOC", allocator));
            let (ran, found) = tried.only("pool-trim", &[]);
            ran.ok();
            // Two runs may differ by themselves: it is the action that changes nothing.
            let r = found.of("pool-trim");
            assert_eq!(r["error"], Value::Null, "{allocator}: {r:#}");
            assert!(number(r, "returned_bytes").abs() < MIB / 4, "{allocator}: {r:#}");
        }
    });
}

#[test]
fn trim_works_in_a_bare_run() {
    each(|python| {
        let source = "import copy, json, strandline\n\
                      x = [[] for _ in range(400000)]\n\
                      y = copy.deepcopy(x)\n\
                      del x[:]\n\
                      given = strandline.trim(), strandline.trim()\n\
                      assert all(i == [] for i in y)\n\
                      print(json.dumps(given))\n";
        let (ran, _) = Tried::script(python, source).only("arena-max", &[]);
        let said = ran.ok().json();
        let given = |turn: usize, name| number(&said[turn], name);
        let layers = |turn| {
            ["collect", "malloc_trim", "pool_trim"].map(|l| given(turn, l)).iter().sum::<i64>()
        };
        assert_eq!(given(0, "rss_before") - given(0, "rss_after"), layers(0), "{said}");
        assert!(layers(0) > 5 * MIB, "{said}");
        assert_eq!(given(0, "pool_trim") > 5 * MIB, has_pool_trim(python.version), "{said}");
        // Called at once again it does nothing.
        assert_eq!(layers(1), 0, "{said}");
    });
}

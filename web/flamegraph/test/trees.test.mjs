// Both trees against what a plain sum over all call paths gives.
import assert from "node:assert/strict";
import { test } from "node:test";
import { data, page, random, store } from "./load.mjs";

/** Sum of every path of keys, from the entries alone. */
function expected(data, { inwards, split, threads }) {
  const { parent, frame } = data.nodes;
  const sums = new Map();
  const bytes = data.columns.numbers("0.peak.bytes");
  data.entries.node.forEach((node, i) => {
    const thread = data.entries.thread[i];
    if (!threads[thread] || bytes[i] === 0) return;
    const frames = [];
    for (let at = node; at > 0; at = parent[at]) frames.push(frame[at].toString(36));
    if (inwards) frames.reverse();
    const path = split ? [`~${thread}`, ...frames] : frames;
    for (let n = 0; n <= path.length; n++) {
      const key = path.slice(0, n).join(".");
      sums.set(key, (sums.get(key) ?? 0) + bytes[i]);
    }
  });
  return sums;
}

function walk(tree, visit, node = tree.root) {
  visit(node);
  tree.open(node, Number.MIN_VALUE);
  for (const kid of node.kids) walk(tree, visit, kid);
}

for (const inwards of [true, false]) {
  for (const split of [false, true]) {
    for (const threads of [[1, 1, 1], [1, 0, 1]]) {
      test(`${inwards ? "callers" : "lines"} first, ${split ? "by thread" : "together"}, threads ${threads}`, () => {
        for (const seed of [1, 2, 3]) {
          const some = random(300, seed);
          const shown = store(some, { split, threads: Uint8Array.from(threads) });
          const Kind = inwards ? page.TopDown : page.BottomUp;
          const tree = new Kind(some, shown, split);
          const sums = expected(some, { inwards, split, threads });
          const got = new Map();
          walk(tree, (node) => {
            const key = node.path().map((step) => step.key).join(".");
            got.set(key, node.value);
            assert.equal(tree.total(node).now.bytes, node.value);
          });
          assert.deepEqual([...got].sort(), [...sums].sort());
        }
      });
    }
  }
}

test("a closer look keeps the nodes that there were", () => {
  const some = random(400, 7);
  for (const Kind of [page.TopDown, page.BottomUp]) {
    const tree = new Kind(some, store(some), false);
    tree.open(tree.root, tree.root.value / 4);
    const before = [...tree.root.kids];
    const hidden = tree.root.restValue;
    tree.open(tree.root, Number.MIN_VALUE);
    before.forEach((kid, i) => assert.equal(tree.root.kids[i], kid));
    const more = tree.root.kids.slice(before.length).reduce((sum, kid) => sum + kid.value, 0);
    assert.equal(more, hidden);
    assert.equal(tree.root.restCount, 0);
  }
});

test("a node's own part is what its line asked for", () => {
  const some = random(300, 5);
  const tree = new page.TopDown(some, store(some), false);
  let own = 0;
  walk(tree, (node) => (own += tree.own(node).now.bytes));
  assert.equal(own, tree.root.value);
});

test("differences: widths are the larger of both, or the change", () => {
  const some = random(200, 9);
  const now = some.columns.numbers("0.peak.bytes");
  const then = now.map((n, i) => (i % 3 === 0 ? 0 : i % 3 === 1 ? 2 * n : n));
  const figures = { bytes: now, blocks: null };
  const before = { bytes: then, blocks: null };
  const sum = (f) => now.reduce((sum, n, i) => sum + f(n, then[i]), 0);
  for (const [wide, f] of [["larger", Math.max], ["change", (a, b) => Math.abs(a - b)]]) {
    const shown = store(some, { figures, before, wide });
    for (const Kind of [page.TopDown, page.BottomUp]) {
      const tree = new Kind(some, shown, false);
      assert.equal(tree.root.value, sum(f));
      const total = tree.total(tree.root);
      assert.equal(total.now.bytes, sum((a) => a));
      assert.equal(total.before.bytes, sum((_, b) => b));
    }
  }
});

test("a frame is found by keys; a path that leads nowhere ends where it can", () => {
  const some = random(300, 3);
  const tree = new page.TopDown(some, store(some), false);
  tree.open(tree.root, Number.MIN_VALUE);
  const kid = tree.root.kids.at(-1);
  assert.equal(page.follow(tree, [kid.key, "zzz", "1"]), kid);
  assert.equal(page.follow(tree, ["nonsense"]), tree.root);
});

test("a search adds up each path once", () => {
  const some = random(300, 4);
  const shown = store(some);
  const found = page.find(some, "F");
  assert.equal(found.count, 2);
  const { parent, frame } = some.nodes;
  const bytes = some.columns.numbers("0.peak.bytes");
  let sum = 0;
  some.entries.node.forEach((node, i) => {
    let through = false;
    for (let at = node; at > 0; at = parent[at]) through ||= found.frames[frame[at]] === 1;
    if (through) sum += bytes[i];
  });
  assert.equal(page.sum(some, shown, found), sum);
  assert.equal(page.find(some, "b.py:4").count, 1);
  assert.equal(page.find(some, "/^[gh]$/").count, 4);
  assert.equal(page.find(some, "/(/").wrong, true);
});

test("an empty profile", () => {
  const none = data({ processes: [], threads: [] }, [""], {
    "frame.function": [0, 0], "frame.file": [0, 0], "frame.line": [0, 0], "frame.kind": [2, 2], "frame.source": [],
    "node.up": [0, 1], "node.frame": [0, 1], "~entry.node": [], "entry.thread": [], "0.peak.bytes": [], "0.peak.blocks": [],
  });
  for (const Kind of [page.TopDown, page.BottomUp]) {
    const tree = new Kind(none, store(none), false);
    assert.deepEqual(page.layout(tree, tree.root, 1000, 50), { rows: [], more: false });
  }
});

// Frames stand on their callers, and no width gets lost.
import assert from "node:assert/strict";
import { test } from "node:test";
import { page, random, store } from "./load.mjs";

for (const name of ["TopDown", "BottomUp"]) {
  test(`${name}: rows`, () => {
    const some = random(2000, 11);
    const tree = new page[name](some, store(some), false);
    const { rows, more } = page.layout(tree, tree.root, 100, 1000);
    assert.equal(more, false);
    assert.ok(rows.length > 3);
    let merged = 0;
    rows.forEach((row, at) => {
      let x = 0;
      for (const box of row) {
        assert.equal(box.row, at);
        assert.ok(box.x >= x - 1e-6, "no overlap");
        x = box.x + box.width;
        assert.ok(box.width >= 0.5 - 1e-9);
        assert.equal(page.hit(row, box.x + box.width / 2), box);
        if (at > 0) {
          const caller = page.boxOf(rows, box.within);
          assert.ok(box.x >= caller.x - 1e-6 && x <= caller.x + caller.width + 1e-6, "above its caller");
        }
        if (!box.node) merged++;
      }
    });
    assert.ok(merged > 0, "some were merged");
  });
}

test("zooming shows the callers over the whole width, and no more rows than asked for", () => {
  const some = random(2000, 11);
  const tree = new page.TopDown(some, store(some), false);
  page.layout(tree, tree.root, 1000, 100);
  const zoom = tree.root.kids[0].kids[0];
  const { rows, more } = page.layout(tree, zoom, 1000, 4);
  assert.deepEqual(rows.slice(0, 3).map((row) => [row.length, row[0].width]), [[1, 1000], [1, 1000], [1, 1000]]);
  assert.equal(rows.length, 4);
  assert.equal(more, true);
});

test("arrow keys", () => {
  const some = random(500, 2);
  const tree = new page.TopDown(some, store(some), false);
  const { rows } = page.layout(tree, tree.root, 1000, 100);
  const root = rows[0][0];
  const child = page.move(rows, root, "in");
  assert.equal(child, rows[1][0]);
  assert.equal(page.move(rows, child, "out"), root);
  assert.equal(page.move(rows, root, "out"), root);
  assert.equal(page.move(rows, child, "last"), rows[1].at(-1));
  assert.equal(page.move(rows, rows[1].at(-1), "after"), rows[1].at(-1));
  assert.equal(page.move(rows, rows[1][1], "before"), child);
  const wanted = (box) => box.row === 2;
  assert.equal(page.next(rows, null, wanted, false), rows[2][0]);
  assert.equal(page.next(rows, rows[2][0], wanted, true), rows[2].at(-1));
  assert.equal(page.next(rows, root, () => false, false), null);
});

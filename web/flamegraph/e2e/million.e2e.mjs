// A million call paths: fluent, and still the right sums. The limits are for slow, busy machines;
// what it took is printed.
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { browser, open, sums } from "./browser.mjs";

/** Milliseconds. */
const LOAD = 20_000;
const STEP = 500;

after(() => browser.close());

test("a million call paths", async (t) => {
  const start = performance.now();
  const { page, done } = await open("million");
  const loaded = performance.now() - start;
  const { took, sum, entries } = await page.evaluate(() => {
    const { app, data } = window.strandline;
    const took = {};
    // The middle one of five.
    const time = (name, ...steps) => {
      const times = [];
      for (let i = 0; i < 5; i++) {
        for (const step of steps) {
          const start = performance.now();
          step();
          if (step === steps[0]) times.push(performance.now() - start);
        }
      }
      took[name] = Math.round(times.sort((a, b) => a - b)[2]);
    };
    const sum = app.graph.boxes[0][0].value;
    const reset = () => app.change({ zoom: [] });
    const clear = () => app.change({ search: "" });
    const zoom = () => app.zoomTo(app.graph.boxes[4][0].node);
    const search = () => app.change({ search: "parse" });
    time("zoom", zoom, reset);
    time("zoom out", reset, zoom);
    time("search", search, clear);
    time("weight", () => app.change({ weight: "allocated" }), () => app.change({ weight: "peak" }));
    const start = performance.now();
    app.change({ view: "lines" });
    took["lines first"] = Math.round(performance.now() - start);
    time("lines first: zoom", () => app.zoomTo(app.graph.boxes[1][0].node), reset);
    time("lines first: search", search, clear);
    return { took, sum, entries: data.entries.node.length };
  });
  t.diagnostic(`load ${Math.round(loaded)} ms, ${JSON.stringify(took)}`);
  assert.equal(sum, sums("million").now.weights.peak.bytes);
  assert.ok(entries > 990_000);
  assert.ok(loaded < LOAD, `load: ${loaded}`);
  for (const name of Object.keys(took)) if (name !== "lines first") assert.ok(took[name] < STEP, `${name}: ${took[name]}`);
  assert.ok(took["lines first"] < LOAD);
  await done();
});

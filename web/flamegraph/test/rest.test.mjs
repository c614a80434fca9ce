// Numbers, texts, the address, and the timeline.
import assert from "node:assert/strict";
import { test } from "node:test";
import { data, page } from "./load.mjs";

const frames = {
  "frame.function": [0, 0, 1], "frame.file": [0, 0, 0], "frame.line": [0, 0, 1], "frame.kind": [2, 2, 0], "frame.source": [],
  // Unknown, others, and one call.
  "node.up": [0, 1, 1], "node.frame": [0, 1, 2],
};
const process = (pid, started, points, ended) => ({ pid, command: "", python: "", ended, started, points });
const thread = (process, others) => ({ process, name: "", tid: 0, others });

/** Two processes: points at 0, 10, 20 and at 5, 15 µs; the second one ends. */
const two = () =>
  data(
    {
      processes: [process(1, 0, 3, false), process(2, 5, 2, true)],
      threads: [thread(0, false), thread(0, true), thread(1, false), thread(1, true)],
    },
    ["", "work"],
    {
      ...frames,
      "~entry.node": [2, 2, 3, 3],
      "entry.thread": [1, 3, 0, 2],
      "~point.time": [0, 10, 20, 0, 10],
      "point.in_use": [100, 300, 200, 50, 70],
      "point.rss": [1, 2, 3, 4, 5],
      "point.stranded": [0, 0, 0, 1, 1],
      "point.top": [1, 1, 0, 1, 1],
      "top.entry": [2, 2, 3, 3],
      "top.bytes": [90, 250, 40, 70],
      "others.entry": [0, 1],
      "others.bytes": [10, 50, 200, 10, 0],
    },
  );

test("numbers of up to 53 bits, and distances", () => {
  const some = data({ processes: [], threads: [] }, ["", "é</script>"], {
    ...frames, "~entry.node": [], "entry.thread": [], big: [0, 127, 128, 2 ** 31, 2 ** 53 - 1], "~far": [5, 3, 2 ** 40],
  });
  assert.deepEqual([...some.columns.numbers("big")], [0, 127, 128, 2 ** 31, 2 ** 53 - 1]);
  assert.deepEqual([...some.columns.distances("far")], [5, 3, 2 ** 40]);
  assert.equal(some.texts[1], "é</script>");
  assert.deepEqual([...some.nodes.parent], [0, 0, 0, 0]);
  assert.deepEqual([...some.nodes.end], [4, 2, 3, 4]);
});

test("timelines add up, and a process that is over has nothing", () => {
  const timeline = new page.Timeline(two());
  const series = timeline.series([true, true]);
  assert.deepEqual([...series.times], [0, 5, 10, 15, 20]);
  assert.deepEqual([...series.inUse], [100, 150, 350, 370, 200]);
  assert.deepEqual([...timeline.series([false, true]).inUse], [50, 70]);
  assert.equal(page.highest(series, 0, 4), 3);
  assert.equal(page.highest(series, 0, 2), 2);
});

test("a moment's entries make what was in use then", () => {
  const timeline = new page.Timeline(two());
  assert.deepEqual([...timeline.figures([true, true], 15).bytes], [50, 0, 250, 70]);
  assert.deepEqual([...timeline.figures([true, true], 20).bytes], [200, 0, 0, 0]);
  assert.deepEqual([...timeline.figures([false, true], 5).bytes], [0, 10, 0, 40]);
});

test("an address brings back what it was made of, and nonsense brings back the start", () => {
  const { header } = two();
  const state = page.initial(header);
  assert.equal(page.toHash(state, header), "");
  Object.assign(state, { unit: "blocks", view: "lines", growth: "up", split: true, zoom: ["~1", "2", "1z"], search: "a&b=c #ü", interval: [1, 3], theme: "dark" });
  state.threads[2] = 0;
  page.hideOthers(state, header);
  assert.deepEqual([...state.threads], [1, 1, 0, 0]);
  assert.deepEqual(page.fromHash(page.toHash(state, header), header), state);
  assert.deepEqual(page.fromHash("#weight=x&unit=y&without=9.a&interval=1&%%%", header), page.initial(header));
});

test("figures as text", () => {
  assert.equal(page.mib(1048576 * 1234.5), "1,234.500 MiB");
  assert.equal(page.mib(-524288), "−0.500 MiB");
  assert.equal(page.shortMib(1048576 * 123.4), "123 MiB");
  assert.equal(page.shortMib(1048576 * 12.34), "12.3 MiB");
  assert.equal(page.whole(1234567), "1,234,567");
  assert.equal(page.blocks(1), "1 block");
  assert.equal(page.signed(5, page.whole), "+5");
  assert.equal(page.percent(1, 0), "–");
  assert.equal(page.seconds(2_500_000), "2.50 s");
  assert.equal(page.seconds(75_000_000), "1:15 min");
  assert.equal(page.seconds(3_725_000_000), "1:02:05 h");
});

test("what gives a frame its colour", () => {
  const installed = "/opt/venv/lib/python3.11/site-packages/pandas/core/frame.py";
  assert.equal(page.module(installed, page.PYTHON), "pandas");
  assert.equal(page.module("/usr/lib/python3.11/json/decoder.py", page.PYTHON), "python json");
  assert.equal(page.module("<frozen importlib._bootstrap>", page.PYTHON), "python importlib");
  assert.equal(page.module("/usr/lib/libc.so.6", page.NATIVE), "libc");
  assert.equal(page.module("/srv/shop/main.py", page.PYTHON), "/srv/shop/main.py");
});

/** WCAG's contrast between two colours. */
function contrast(a, b) {
  const light = (colour) => {
    const [r, g, bl] = rgb(colour).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * bl;
  };
  const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
}

function rgb(colour) {
  const hsl = /^hsl\((\d+) (\d+)% (\d+)%\)$/.exec(colour);
  if (!hsl) return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
  const [h, s, l] = [Number(hsl[1]), hsl[2] / 100, hsl[3] / 100];
  return [0, 8, 4].map((n) => {
    const k = (n + h / 30) % 12;
    return l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1));
  });
}

test("text on frames is readable in both themes", () => {
  const files = Array.from({ length: 400 }, (_, i) => `/srv/file${i}.py`);
  const many = data({ processes: [], threads: [] }, ["", ...files], {
    ...frames,
    "frame.function": files.map(() => 0), "frame.file": files.map((_, i) => i + 1), "frame.line": files.map(() => 1),
    "frame.kind": files.map((_, i) => i % 2), "~entry.node": [], "entry.thread": [],
  });
  const amount = (bytes) => ({ bytes, blocks: null });
  for (const theme of [page.LIGHT, page.DARK]) {
    const colours = new page.Colours(many, theme);
    for (let i = 0; i < files.length; i++) assert.ok(contrast(colours.frame(i), theme.text) >= 4.5, colours.frame(i));
    for (let then = 0; then <= 100; then += 5) {
      const colour = colours.change({ now: amount(100 - then), before: amount(then) }, "bytes");
      assert.ok(contrast(colour, theme.text) >= 4.5, colour);
    }
    assert.ok(contrast(theme.match, theme.matchText) >= 4.5);
    assert.ok(contrast(theme.root, theme.text) >= 4.5);
  }
});

// The script's modules as one, and data to try them with.
import { build } from "esbuild";
import { fileURLToPath } from "node:url";
import { dirname, join } from "node:path";

const src = join(dirname(fileURLToPath(import.meta.url)), "../src");
const names = ["bottomup", "colours", "data", "format", "layout", "move", "node", "search", "state", "store", "timeline", "topdown"];
const bundle = await build({
  stdin: { contents: names.map((name) => `export * from "./${name}";`).join("\n"), resolveDir: src },
  bundle: true,
  format: "esm",
  write: false,
});
export const page = await import(`data:text/javascript;base64,${Buffer.from(bundle.outputFiles[0].text).toString("base64")}`);

function leb(numbers) {
  const bytes = [];
  for (let n of numbers) {
    for (; n >= 128; n = Math.floor(n / 128)) bytes.push((n % 128) + 128);
    bytes.push(n);
  }
  return bytes;
}

const distances = (numbers) => numbers.map((n, i) => n - (numbers[i - 1] ?? 0)).map((d) => (d < 0 ? -2 * d - 1 : 2 * d));

/** Data as the page's writer makes it. `columns` are plain numbers; "~" before a name: distances. */
export function data(header, texts, columns) {
  const encoder = new TextEncoder();
  const encoded = texts.map((text) => encoder.encode(text));
  const parts = [["text.lengths", texts.length, leb(encoded.map((e) => e.length))]];
  const all = encoded.flatMap((e) => [...e]);
  parts.push(["text.bytes", all.length, all]);
  for (const [name, numbers] of Object.entries(columns)) {
    const far = name.startsWith("~");
    parts.push([far ? name.slice(1) : name, numbers.length, leb(far ? distances(numbers) : numbers)]);
  }
  const index = parts.map(([name, count, bytes]) => [name, count, bytes.length]);
  const json = encoder.encode(JSON.stringify({ version: 1, diff: false, title: "t", weight: "peak", weights: [["peak", "in use at the peak"]], runs: [], ...header, columns: index }));
  const bytes = new Uint8Array([...new Uint8Array(new Uint32Array([json.length]).buffer), ...json, ...parts.flatMap(([, , b]) => b)]);
  return page.parse(bytes);
}

const thread = (process, name, others = false) => ({ process, name, tid: 0, others });

/** A tree of `count` nodes over few frames, with entries of three threads; the same every time. */
export function random(count, seed) {
  let state = seed;
  const roll = (sides) => ((state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 8) % sides;
  // Paths that branch off earlier ones: a node is its children by frame.
  const nodes = [new Map()];
  for (let made = 1; made < count; ) {
    const from = nodes[roll(nodes.length)];
    const next = 2 + roll(6);
    if (from.has(next)) continue;
    nodes.push(new Map());
    from.set(next, nodes.at(-1));
    made++;
  }
  const [up, frame] = [[], []];
  let last = 0;
  const write = (node, depth) => {
    for (const next of [...node.keys()].sort((a, b) => a - b)) {
      up.push(last + 1 - depth);
      frame.push(next);
      last = depth;
      write(node.get(next), depth + 1);
    }
  };
  write(nodes[0], 1);
  const [node, threads, bytes, blocks] = [[], [], [], []];
  for (let i = 1; i < count; i++) {
    for (let t = 0; t < 3; t++) {
      if (roll(2)) continue;
      node.push(i);
      threads.push(t);
      bytes.push(roll(4) ? roll(1000) : 0);
      blocks.push(roll(9));
    }
  }
  return data(
    { processes: [], threads: [thread(0, "a"), thread(0, "b"), thread(0, "c")] },
    ["", "f", "g", "h", "a.py", "b.py"],
    {
      "frame.function": [0, 0, 1, 2, 3, 1, 2, 3],
      "frame.file": [0, 0, 4, 4, 4, 5, 5, 5],
      "frame.line": [0, 0, 1, 2, 3, 4, 5, 6],
      "frame.kind": [2, 2, 0, 0, 0, 0, 0, 0],
      "frame.source": [],
      "node.up": up,
      "node.frame": frame,
      "~entry.node": node,
      "entry.thread": threads,
      "0.peak.bytes": bytes,
      "0.peak.blocks": blocks,
    },
  );
}

/** A store with everything, or as `choice` says. */
export function store(data, choice = {}) {
  const figures = { bytes: data.columns.numbers("0.peak.bytes"), blocks: data.columns.numbers("0.peak.blocks") };
  const threads = new Uint8Array(data.header.threads.length).fill(1);
  return new page.Store(data, { figures, before: null, unit: "bytes", wide: "larger", threads, split: false, ...choice });
}

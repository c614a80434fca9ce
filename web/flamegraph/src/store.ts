// The figures that are shown: those of the chosen weight and threads, as running sums over the
// entries, so that any range of them is summed by one subtraction.
import type { Data } from "./data";

/** One figure of every entry. */
export type Column = Float64Array;

/** What the entries are weighed by; `blocks` are unknown for a moment of the timeline. */
export interface Figures {
  bytes: Column;
  blocks: Column | null;
}

/** Bytes and blocks; a figure that isn't known is null. */
export interface Amount {
  bytes: number;
  blocks: number | null;
}

/** The same place in a profile, or before and after. */
export interface Sums {
  before: Amount | null;
  now: Amount;
}

export type Unit = "bytes" | "blocks";
/** What the width of a frame stands for in a difference. */
export type Wide = "larger" | "change";

/** Entries of one thread, or of all, in the order of their nodes: `lo` to `hi` in the store. */
export interface Slice {
  thread: number;
  lo: number;
  hi: number;
}

export interface Choice {
  figures: Figures;
  before: Figures | null;
  unit: Unit;
  wide: Wide;
  /** Which threads are shown. */
  threads: Uint8Array;
  /** Each thread by itself. */
  split: boolean;
}

export class Store {
  /** Node of each entry, sorted within a slice. */
  readonly nodes: Int32Array;
  readonly slices: Slice[];
  /** Running sums of what the width of a frame stands for. */
  readonly width: Column;
  private readonly bytes: Column;
  private readonly blocks: Column | null;
  private readonly bytesBefore: Column | null = null;
  private readonly blocksBefore: Column | null = null;

  constructor(data: Data, choice: Choice) {
    const { order, slices } = arrange(data, choice.threads, choice.split);
    const { figures, before } = choice;
    this.slices = slices;
    this.nodes = pick(data.entries.node, order);
    this.bytes = running(figures.bytes, order);
    this.blocks = figures.blocks && running(figures.blocks, order);
    const now = (choice.unit === "blocks" && figures.blocks) || figures.bytes;
    if (before) {
      this.bytesBefore = running(before.bytes, order);
      this.blocksBefore = before.blocks && running(before.blocks, order);
      const then = (choice.unit === "blocks" && before.blocks) || before.bytes;
      this.width = running(widths(then, now, choice.wide), order);
    } else {
      this.width = now === figures.blocks ? this.blocks! : this.bytes;
    }
  }

  get count(): number {
    return this.nodes.length;
  }

  /** What the entries `lo` to `hi` sum to. */
  sums(lo: number, hi: number): Sums {
    const now = { bytes: range(this.bytes, lo, hi), blocks: this.blocks && range(this.blocks, lo, hi) };
    if (!this.bytesBefore) return { before: null, now };
    const blocks = this.blocksBefore && range(this.blocksBefore, lo, hi);
    return { before: { bytes: range(this.bytesBefore, lo, hi), blocks }, now };
  }

  value(lo: number, hi: number): number {
    return range(this.width, lo, hi);
  }

  /** An entry has something to show, or to say. */
  any(entry: number): boolean {
    const has = (running: Column | null) => running !== null && range(running, entry, entry + 1) > 0;
    return has(this.bytes) || has(this.blocks) || has(this.bytesBefore) || has(this.blocksBefore);
  }

  /** First entry from `from` on (before `hi`) whose node is not before `node`: steps that double,
   * then halves, for it is close in most cases. */
  seek(node: number, from: number, hi: number): number {
    const nodes = this.nodes;
    let step = 1;
    let low = from;
    let high = from;
    while (high < hi && nodes[high]! < node) {
      low = high + 1;
      high += step;
      step *= 2;
    }
    if (high > hi) high = hi;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (nodes[middle]! < node) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** Adds `more` to `sums`. */
export function add(sums: Sums, more: Sums): void {
  addAmount(sums.now, more.now);
  if (sums.before && more.before) addAmount(sums.before, more.before);
}

function addAmount(to: Amount, more: Amount): void {
  to.bytes += more.bytes;
  to.blocks = to.blocks === null || more.blocks === null ? null : to.blocks + more.blocks;
}

function range(running: Column, lo: number, hi: number): number {
  return running[hi]! - running[lo]!;
}

/** The entries of the chosen threads; thread by thread if they are to be split. `order` is null
 * where all entries stay as they are. */
function arrange(data: Data, threads: Uint8Array, split: boolean) {
  const { thread, node } = data.entries;
  if (!split && threads.every((chosen) => chosen === 1)) {
    return { order: null, slices: [{ thread: -1, lo: 0, hi: node.length }] };
  }
  const starts = new Int32Array(threads.length + 1);
  for (let i = 0; i < thread.length; i++) {
    if (threads[thread[i]!]) starts[split ? thread[i]! + 1 : 1]!++;
  }
  for (let t = 0; t < threads.length; t++) starts[t + 1]! += starts[t]!;
  const count = starts[threads.length]!;
  const order = new Int32Array(count);
  const next = starts.slice();
  for (let i = 0; i < thread.length; i++) {
    if (threads[thread[i]!]) order[next[split ? thread[i]! : 0]!++] = i;
  }
  if (!split) return { order, slices: [{ thread: -1, lo: 0, hi: count }] };
  const slices: Slice[] = [];
  for (let t = 0; t < threads.length; t++) {
    if (starts[t]! < starts[t + 1]!) slices.push({ thread: t, lo: starts[t]!, hi: starts[t + 1]! });
  }
  return { order, slices };
}

function pick(from: Int32Array, order: Int32Array | null): Int32Array {
  if (!order) return from;
  const picked = new Int32Array(order.length);
  for (let i = 0; i < order.length; i++) picked[i] = from[order[i]!]!;
  return picked;
}

function running(from: Column, order: Int32Array | null): Column {
  const count = order ? order.length : from.length;
  const sums = new Float64Array(count + 1);
  let sum = 0;
  for (let i = 0; i < count; i++) {
    sum += from[order ? order[i]! : i]!;
    sums[i + 1] = sum;
  }
  return sums;
}

function widths(then: Column, now: Column, wide: Wide): Column {
  const widths = new Float64Array(now.length);
  for (let i = 0; i < now.length; i++) {
    widths[i] = wide === "larger" ? Math.max(then[i]!, now[i]!) : Math.abs(now[i]! - then[i]!);
  }
  return widths;
}

// Call paths from the line that asked for memory outwards: its callers, their callers. A node is
// a range of entries that share these frames; opening it sorts the range by the next caller, in
// place, so only what is wide enough to be drawn is ever looked at.
import type { Data } from "./data";
import { adopt, NO_FRAME, Node, type Tree } from "./node";
import { add, type Store, type Sums } from "./store";

/** The callers of one node. */
interface Groups {
  frames: Int32Array;
  starts: Int32Array;
  values: Float64Array;
}

export class BottomUp implements Tree {
  readonly root: Node;
  /** Entries of the store, and for each the node of the tree that was reached. */
  private readonly items: Int32Array;
  private readonly reached: Int32Array;
  private readonly itemsBeside: Int32Array;
  private readonly reachedBeside: Int32Array;
  private readonly counts: Int32Array;
  private readonly groups = new Map<Node, Groups>();
  private readonly threads: { thread: number; lo: number; hi: number; value: number }[] = [];

  constructor(private readonly data: Data, private readonly store: Store, private readonly split: boolean) {
    const items = new Int32Array(store.count);
    let count = 0;
    for (const { thread, lo, hi } of store.slices) {
      const start = count;
      for (let i = lo; i < hi; i++) if (store.any(i)) items[count++] = i;
      this.threads.push({ thread, lo: start, hi: count, value: store.value(lo, hi) });
    }
    this.items = items.slice(0, count);
    this.reached = this.items.map((item) => store.nodes[item]!);
    this.itemsBeside = new Int32Array(count);
    this.reachedBeside = new Int32Array(count);
    this.counts = new Int32Array(data.frames.kind.length + 1);
    this.root = new Node(null, 0, NO_FRAME, -1, store.value(0, store.count), 0, count, 0);
  }

  open(node: Node, least: number): void {
    if (least >= node.least) return;
    const found: Node[] = [];
    let [count, rest] = [0, 0];
    const offer = (frame: number, thread: number, value: number, lo: number, hi: number) => {
      if (value >= least) found.push(new Node(node, node.depth + 1, frame, thread, value, lo, hi, 0));
      else if (value > 0) (count++, (rest += value));
    };
    if (this.split && !node.parent) {
      for (const { thread, lo, hi, value } of this.threads) offer(NO_FRAME, thread, value, lo, hi);
    } else {
      const { frames, starts, values } = this.callers(node);
      for (let i = 0; i < frames.length; i++) offer(frames[i]!, -1, values[i]!, starts[i]!, starts[i + 1]!);
    }
    adopt(node, least, found, count, rest);
  }

  total(node: Node): Sums {
    return (node.sums ??= this.add(node));
  }

  /** Only the innermost frame asked for anything. */
  own(node: Node): Sums {
    return node.frame !== NO_FRAME && node.parent?.frame === NO_FRAME ? this.total(node) : this.store.sums(0, 0);
  }

  private add(node: Node): Sums {
    const sums = this.store.sums(0, 0);
    for (let i = node.lo; i < node.hi; i++) {
      const item = this.items[i]!;
      add(sums, this.store.sums(item, item + 1));
    }
    return sums;
  }

  private callers(node: Node): Groups {
    let groups = this.groups.get(node);
    if (!groups) {
      groups = this.sort(node);
      this.groups.set(node, groups);
    }
    return groups;
  }

  private sort(node: Node): Groups {
    const { items, reached, counts } = this;
    const { parent, frame } = this.data.nodes;
    const { lo, hi } = node;
    const outwards = node.frame !== NO_FRAME;
    // Place 0 is for paths that no caller is known of: they end here.
    const met: number[] = [];
    for (let i = lo; i < hi; i++) {
      const at = outwards ? (reached[i] = parent[reached[i]!]!) : reached[i]!;
      const place = at === 0 ? 0 : frame[at]! + 1;
      if (counts[place]!++ === 0 && place !== 0) met.push(place);
    }
    met.sort((a, b) => a - b);
    const starts = new Int32Array(met.length + 1);
    let next = lo + counts[0]!;
    counts[0] = lo;
    met.forEach((place, i) => {
      starts[i] = next;
      next += counts[place]!;
      counts[place] = starts[i]!;
    });
    starts[met.length] = hi;
    this.spread(lo, hi);
    counts[0] = 0;
    for (const place of met) counts[place] = 0;
    const values = new Float64Array(met.length);
    for (let g = 0; g < met.length; g++) {
      for (let i = starts[g]!; i < starts[g + 1]!; i++) values[g]! += this.store.value(items[i]!, items[i]! + 1);
    }
    return { frames: Int32Array.from(met, (place) => place - 1), starts, values };
  }

  /** Moves each item to where its count says. */
  private spread(lo: number, hi: number): void {
    const { items, reached, itemsBeside, reachedBeside, counts } = this;
    const { frame } = this.data.nodes;
    for (let i = lo; i < hi; i++) {
      const at = reached[i]!;
      const to = counts[at === 0 ? 0 : frame[at]! + 1]!++;
      itemsBeside[to] = items[i]!;
      reachedBeside[to] = at;
    }
    items.set(itemsBeside.subarray(lo, hi), lo);
    reached.set(reachedBeside.subarray(lo, hi), lo);
  }
}

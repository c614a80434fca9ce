// Call paths from the outermost caller inwards: ranges of the stored tree, looked into only
// where something is wide enough to be drawn.
import type { Data } from "./data";
import { adopt, NO_FRAME, Node, type Tree } from "./node";
import type { Store, Sums } from "./store";

export class TopDown implements Tree {
  readonly root: Node;

  constructor(private readonly data: Data, private readonly store: Store, private readonly split: boolean) {
    this.root = new Node(null, 0, NO_FRAME, -1, store.value(0, store.count), 0, store.count, 0);
  }

  open(node: Node, least: number): void {
    if (least >= node.least) return;
    if (this.split && !node.parent) this.openThreads(node, least);
    else this.openCalls(node, least);
  }

  total(node: Node): Sums {
    return (node.sums ??= this.store.sums(node.lo, node.hi));
  }

  own(node: Node): Sums {
    const { lo } = node;
    // The root's entries, and a thread's, begin with those of the first call.
    const hi = node.base === 0 ? lo : this.store.seek(node.base + 1, lo, node.hi);
    return this.store.sums(lo, hi);
  }

  private openThreads(node: Node, least: number): void {
    const found: Node[] = [];
    let [count, rest] = [0, 0];
    for (const { thread, lo, hi } of this.store.slices) {
      const value = this.store.value(lo, hi);
      if (value >= least) found.push(new Node(node, 1, NO_FRAME, thread, value, lo, hi, 0));
      else if (value > 0) (count++, (rest += value));
    }
    adopt(node, least, found, count, rest);
  }

  private openCalls(node: Node, least: number): void {
    const { end, frame } = this.data.nodes;
    const { store } = this;
    const last = end[node.base]!;
    const found: Node[] = [];
    let [count, rest] = [0, 0];
    let child = node.base + 1;
    let lo = store.seek(child, node.lo, node.hi);
    while (child < last && lo < node.hi) {
      const after = end[child]!;
      const hi = store.seek(after, lo, node.hi);
      const value = store.value(lo, hi);
      if (value >= least) found.push(new Node(node, node.depth + 1, frame[child]!, -1, value, lo, hi, child));
      else if (value > 0) (count++, (rest += value));
      lo = hi;
      child = after;
    }
    adopt(node, least, found, count, rest);
  }
}

// A frame of the graph as it is drawn, and what both kinds of trees offer.
import type { Sums } from "./store";

/** The frame of a node that is no frame: the root, or a thread. */
export const NO_FRAME = -1;

export class Node {
  /** Children that are at least `least` wide, the widest first. */
  kids: Node[] = [];
  least = Infinity;
  /** Number and width of those that are not. */
  restCount = 0;
  restValue = 0;
  /** What it sums to, once it was asked for. */
  sums: Sums | null = null;

  constructor(
    readonly parent: Node | null,
    readonly depth: number,
    readonly frame: number,
    /** -1: not the node of a thread. */
    readonly thread: number,
    /** What its width stands for. */
    readonly value: number,
    /** Its entries, in an order that the tree knows. */
    readonly lo: number,
    readonly hi: number,
    /** The tree's own. */
    readonly base: number,
  ) {}

  /** The nodes from below the root to this one. */
  path(): Node[] {
    const path: Node[] = [];
    for (let at: Node | null = this; at && at.parent; at = at.parent) path.push(at);
    return path.reverse();
  }

  /** A word that tells it from its siblings. */
  get key(): string {
    return this.thread >= 0 ? `~${this.thread}` : this.frame.toString(36);
  }
}

export interface Tree {
  readonly root: Node;
  /** The node with all its children that are at least `least` wide. */
  open(node: Node, least: number): void;
  /** What a node and all beneath it sum to. */
  total(node: Node): Sums;
  /** What its line asked for by itself. */
  own(node: Node): Sums;
}

/** The node at the end of a path of keys, or the last one that there is. */
export function follow(tree: Tree, keys: string[]): Node {
  let at = tree.root;
  for (const key of keys) {
    tree.open(at, Number.MIN_VALUE);
    const next = at.kids.find((kid) => kid.key === key);
    if (!next) break;
    at = next;
  }
  return at;
}

/** Gives a node its children: `found` holds all that are at least `least` wide. Those it has stay
 * the same objects: being the widest, they stand first. */
export function adopt(node: Node, least: number, found: Node[], restCount: number, restValue: number): void {
  found.sort((a, b) => b.value - a.value || a.thread - b.thread || a.frame - b.frame);
  node.kids = node.kids.concat(found.slice(node.kids.length));
  node.least = least;
  node.restCount = restCount;
  node.restValue = restValue;
}

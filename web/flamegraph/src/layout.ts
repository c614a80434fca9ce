// Which frames stand where: only those that are wide enough to be seen, row by row.
import type { Node, Tree } from "./node";

/** Narrowest frame that is drawn by itself, in pixels. */
export const NARROWEST = 0.5;

/** A frame on the page, or several that are too narrow (`node` is null). */
export interface Box {
  node: Node | null;
  /** The caller's, for what was merged. */
  within: Node;
  /** What its width stands for. */
  value: number;
  x: number;
  width: number;
  row: number;
}

export interface Layout {
  rows: Box[][];
  /** There are more rows than were asked for. */
  more: boolean;
}

/** Lays out `zoom` over the whole width with all its callers above it, at most `most` rows. */
export function layout(tree: Tree, zoom: Node, width: number, most: number): Layout {
  const rows: Box[][] = [tree.root, ...zoom.path()].map((node, row) => [
    { node, within: node.parent ?? node, value: node.value, x: 0, width, row },
  ]);
  if (tree.root.value <= 0 || zoom.value <= 0) return { rows: [], more: false };
  const scale = width / zoom.value;
  const least = NARROWEST / scale;
  for (;;) {
    const above = rows[rows.length - 1]!;
    const row: Box[] = [];
    for (const box of above) if (box.node) below(tree, box.node, box.x, scale, least, rows.length, row);
    if (row.length === 0) return { rows, more: false };
    if (rows.length >= most) return { rows, more: true };
    rows.push(row);
  }
}

function below(tree: Tree, node: Node, x: number, scale: number, least: number, row: number, into: Box[]): void {
  tree.open(node, least);
  let at = x;
  let rest = node.restValue;
  for (const kid of node.kids) {
    // Children from a closer look may be narrower than that.
    if (kid.value < least) {
      rest += kid.value;
      continue;
    }
    const width = kid.value * scale;
    into.push({ node: kid, within: node, value: kid.value, x: at, width, row });
    at += width;
  }
  if (rest * scale >= NARROWEST) {
    into.push({ node: null, within: node, value: rest, x: at, width: rest * scale, row });
  }
}

/** The box of a row at `x`. */
export function hit(row: Box[] | undefined, x: number): Box | null {
  if (!row) return null;
  let low = 0;
  let high = row.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (row[middle]!.x <= x) low = middle + 1;
    else high = middle;
  }
  const box = row[low - 1];
  return box && x < box.x + Math.max(box.width, 1) ? box : null;
}

// Which frame an arrow key leads to.
import type { Box } from "./layout";
import type { Node } from "./node";

export type Direction = "in" | "out" | "before" | "after" | "first" | "last";

/** The box of a node. */
export function boxOf(rows: Box[][], node: Node): Box | null {
  return rows[node.depth]?.find((box) => box.node === node) ?? null;
}

/** The box next to one; the same if there is none. */
export function move(rows: Box[][], from: Box, to: Direction): Box {
  const row = rows[from.row]!;
  const at = row.indexOf(from);
  switch (to) {
    case "in": {
      const children = rows[from.row + 1]?.filter((box) => box.within === from.node);
      return children?.[0] ?? from;
    }
    case "out":
      return (from.row > 0 && boxOf(rows, from.within)) || from;
    case "before":
      return row[at - 1] ?? from;
    case "after":
      return row[at + 1] ?? from;
    case "first":
      return row[0] ?? from;
    case "last":
      return row[row.length - 1] ?? from;
  }
}

/** The next box that fits, in reading order and around the end. */
export function next(rows: Box[][], from: Box | null, fits: (box: Box) => boolean, backwards: boolean): Box | null {
  const all = rows.flat();
  const start = from ? all.indexOf(from) : -1;
  for (let n = 1; n <= all.length; n++) {
    const at = backwards ? start - n : start + n;
    const box = all[(at + 2 * all.length) % all.length]!;
    if (fits(box)) return box;
  }
  return null;
}

// Draws the rows that are in sight.
import type { Theme } from "./colours";
import type { Box } from "./layout";
import type { Node } from "./node";

export const ROW = 20;
const FONT = '12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace';
/** Space before and after a text. */
const PAD = 4;

export interface Picture {
  rows: Box[][];
  /** Where a row is on the canvas. */
  top: (row: number) => number;
  width: number;
  height: number;
  theme: Theme;
  colour: (node: Node) => string;
  label: (node: Node, room: number) => string;
  /** Null: nothing is searched. */
  matches: ((node: Node) => boolean) | null;
  /** Rows above this one are callers of what is zoomed into. */
  zoomRow: number;
}

export function paint(context: CanvasRenderingContext2D, picture: Picture): void {
  const { theme, width, height } = picture;
  context.fillStyle = theme.background;
  context.fillRect(0, 0, width, height);
  context.font = FONT;
  context.textBaseline = "middle";
  const letter = context.measureText("0").width;
  picture.rows.forEach((row, at) => {
    const y = picture.top(at);
    if (y + ROW > 0 && y < height) for (const box of row) paintBox(context, picture, box, y, letter);
  });
}

function paintBox(context: CanvasRenderingContext2D, picture: Picture, box: Box, y: number, letter: number): void {
  const { theme, matches } = picture;
  const { node } = box;
  const matched = node !== null && matches !== null && matches(node);
  // A hair of background between neighbours that are wide enough to spare it.
  const width = box.width > 3 ? box.width - 1 : box.width;
  if (matched) context.fillStyle = theme.match;
  else if (node === null) context.fillStyle = matches ? theme.dim : theme.merged;
  else if (matches && node.parent) context.fillStyle = theme.dim;
  else context.fillStyle = picture.colour(node);
  context.fillRect(box.x, y, width, ROW - 1);
  if (node === null) return;
  if (box.row < picture.zoomRow) {
    context.fillStyle = theme.dark ? "rgb(0 0 0 / 35%)" : "rgb(255 255 255 / 45%)";
    context.fillRect(box.x, y, width, ROW - 1);
  }
  const room = Math.floor((width - 2 * PAD) / letter);
  if (room < 3) return;
  context.fillStyle = matched ? theme.matchText : theme.text;
  context.fillText(cut(picture.label(node, room), room), box.x + PAD, y + ROW / 2, width - 2 * PAD);
}

function cut(text: string, room: number): string {
  return text.length <= room ? text : `${text.slice(0, room - 1)}…`;
}
